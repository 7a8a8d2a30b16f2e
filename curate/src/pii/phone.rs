//! Telephone numbers: international ones, and the national forms that are common.

use std::ops::Range;

use Separator::{Close, Dot, Hyphen, Space};

use super::context::{begins, ends};
use super::groups::{Groups, Separator};

/// Words that say that a number is a telephone's.
pub(super) const CONTEXT: &[&str] = &[
    "phone",
    "phonenumber",
    "telephone",
    "tel",
    "tlf",
    "mobile",
    "cell",
    "cellphone",
    "fax",
    "whatsapp",
    "sms",
    "hotline",
    "call us",
    "call me",
    "téléphone",
    "tél",
    "portable",
    "telefon",
    "telefonnummer",
    "handy",
    "mobil",
    "fon",
    "teléfono",
    "telefono",
    "móvil",
    "celular",
    "cellulare",
    "telefone",
    "telemóvel",
    "telefoon",
    "puhelin",
    "телефон",
    "Телефон",
    "Тел",
    "Tél",
    "Téléphone",
    "тел",
    "电话",
    "電話",
    "手机",
    "手機",
    "携帯",
    "전화",
    "फ़ोन",
];

/// How a number is written nationally, with a test of its digits, and whether a word must be near. Those that need none
/// are written as only telephone numbers are.
type Form = (&'static [u8], &'static [Separator], fn(&[u8]) -> bool, bool);

const FORMS: &[Form] = &[
    // North America: 415-555-2671, (415) 555-2671, 415.555.2671, 1-415-555-2671.
    (&[3, 3, 4], &[Hyphen], is_nanp, false),
    (&[3, 3, 4], &[Dot], is_nanp, false),
    (&[3, 3, 4], &[Close, Hyphen], is_nanp, false),
    (&[3, 3, 4], &[Close, Space], is_nanp, false),
    (&[3, 3, 4], &[Close, Dot], is_nanp, false),
    (&[1, 3, 3, 4], &[Hyphen], is_nanp, false),
    // France: 01 23 45 67 89.
    (&[2, 2, 2, 2, 2], &[Space], is_trunk, false),
    (&[2, 2, 2, 2, 2], &[Dot], is_trunk, false),
    (&[2, 2, 2, 2, 2], &[Hyphen], is_trunk, false),
    // United Kingdom: 020 7946 0958, 0161 496 0000, 07911 123456, 07911 123 456.
    (&[3, 4, 4], &[Space], is_trunk, false),
    (&[4, 3, 4], &[Space], is_trunk, false),
    (&[5, 6], &[Space], is_trunk, false),
    (&[5, 3, 3], &[Space], is_trunk, false),
    (&[3, 4, 4], &[Close, Space], is_trunk, false),
    // Japan, Korea: 03-1234-5678, 090-1234-5678.
    (&[2, 4, 4], &[Hyphen], is_trunk, false),
    (&[3, 4, 4], &[Hyphen], is_trunk, false),
    (&[3, 3, 4], &[Hyphen], is_trunk, false),
    // Australia: (02) 9374 4000, 0412 345 678.
    (&[2, 4, 4], &[Close, Space], is_trunk, false),
    (&[4, 3, 3], &[Space], is_trunk, false),
    // Brazil: (11) 91234-5678, (11) 3123-4567.
    (&[2, 5, 4], &[Close, Hyphen], is_anything, false),
    (&[2, 4, 4], &[Close, Hyphen], is_anything, false),
];

fn is_anything(_: &[u8]) -> bool {
    true
}

/// A national number written with the trunk prefix 0, as most of the world does.
fn is_trunk(digits: &[u8]) -> bool {
    matches!(digits, [0, 1..=9, ..])
}

/// North American Numbering Plan: area and exchange begin with 2 to 9, and no area is N11.
fn is_nanp(digits: &[u8]) -> bool {
    let digits = match digits {
        [1, rest @ ..] if rest.len() == 10 => rest,
        all => all,
    };
    matches!(digits, [2..=9, b, c, 2..=9, _, _, _, _, _, _] if (*b, *c) != (1, 1))
}

/// Assigned country codes (ITU-T E.164), but those of one digit, 1 and 7.
fn country(digits: &[u8]) -> Option<(u16, usize)> {
    let value = |n: usize| {
        digits
            .iter()
            .take(n)
            .fold(0u16, |v, &digit| v * 10 + u16::from(digit))
    };
    match (value(1), value(2), value(3)) {
        (1 | 7, ..) => Some((value(1), 1)),
        (
            _,
            20
            | 27
            | 30..=34
            | 36
            | 39
            | 40
            | 41
            | 43..=49
            | 51..=58
            | 60..=66
            | 81
            | 82
            | 84
            | 86
            | 90..=95
            | 98,
            _,
        ) => Some((value(2), 2)),
        (
            _,
            _,
            211..=213
            | 216
            | 218
            | 220..=258
            | 260..=269
            | 290
            | 291
            | 297..=299
            | 350..=359
            | 370..=378
            | 380..=383
            | 385..=387
            | 389
            | 420
            | 421
            | 423
            | 500..=509
            | 590..=599
            | 670
            | 672..=683
            | 685..=692
            | 800
            | 808
            | 850
            | 852
            | 853
            | 855
            | 856
            | 870
            | 878
            | 880..=883
            | 886
            | 888
            | 960..=968
            | 970..=977
            | 979
            | 992..=996
            | 998,
        ) => Some((value(3), 3)),
        _ => None,
    }
}

/// How many digits follow the country code, from the national numbering plans; where one is not listed, what E.164
/// leaves.
const fn national_lengths(country: u16) -> (usize, usize) {
    match country {
        1 | 7 | 52 | 57 | 90 | 91 => (10, 10),
        20 | 30 | 82 => (8, 10),
        31 | 33 | 34 | 40 | 41 | 48 | 51 | 56 | 61 | 351 | 380 | 420 | 421 | 966 | 971 => (8, 9),
        32 | 45 | 47 | 65 | 852 | 853 | 64 | 27 | 972 => (8, 9),
        36 | 44 | 46 | 66 | 84 | 81 | 886 | 353 => (7, 10),
        55 | 54 | 86 => (10, 11),
        _ if country > 99 => (5, 12),
        _ => (6, 12),
    }
}

/// Whether the digits, from the country code on, can be a number; `(0)` is not among them.
fn is_international(digits: &[u8]) -> bool {
    let Some((code, width)) = country(digits) else {
        return false;
    };
    let (least, most) = national_lengths(code);
    let national = digits.get(width..).unwrap_or(&[]);
    // A trunk 0 that is written although it is not dialled.
    let extra = usize::from(national.first() == Some(&0) && !matches!(code, 39 | 378));
    (8..=15 + extra).contains(&digits.len())
        && (least..=most).contains(&(national.len() - extra))
        && (code != 1 || is_nanp(digits))
}

/// The telephone number that the groups at `start` begin with: where it stands, and whether a word must be near.
pub(super) fn at(bytes: &[u8], start: usize, groups: &Groups) -> Option<(Range<usize>, bool)> {
    let plus = start.checked_sub(1).filter(|&at| bytes.get(at) == Some(&b'+'));
    if let Some(plus) = plus.filter(|&plus| begins(bytes, plus)) {
        let from = opened(bytes, plus, groups);
        return international(bytes, 0, groups).map(|end| (from..end, false));
    }
    let open = opened(bytes, start, groups);
    if plus.is_some() || !begins(bytes, open) {
        return None;
    }
    if groups.digits(groups.count).starts_with(&[0, 0])
        && let Some(end) = international(bytes, 2, groups)
    {
        return Some((start..end, groups.count == 1));
    }
    let form = FORMS
        .iter()
        .filter(|(lengths, separators, valid, _)| {
            groups.is(lengths, separators)
                && valid(groups.digits(lengths.len()))
                && ends(bytes, groups.ends[lengths.len() - 1])
        })
        // A parenthesis is part of the form where the form has one.
        .find(|(_, separators, ..)| (separators.first() == Some(&Close)) == (open < start));
    if let Some((lengths, _, _, context)) = form {
        return Some((open..groups.ends[lengths.len() - 1], *context));
    }
    // With a word near, any groups of 8 to 13 digits in all, two a group on average, without a date among them.
    let dated = groups
        .lengths
        .windows(3)
        .any(|lengths| matches!(lengths, [4, 2, 2] | [2, 2, 4]));
    let count = (1..=groups.count).rev().find(|&count| {
        (8.max(2 * count)..=13).contains(&groups.digits(count).len()) && ends(bytes, groups.ends[count - 1])
    })?;
    (!dated).then_some((open..groups.ends[count - 1], true))
}

/// Where the number begins if a parenthesis that it closes itself stands before `start`.
fn opened(bytes: &[u8], start: usize, groups: &Groups) -> usize {
    let parenthesis = start.checked_sub(1).filter(|&at| bytes.get(at) == Some(&b'('));
    let closed = groups.count > 1 && groups.separators[0] == Close;
    parenthesis.filter(|_| closed).unwrap_or(start)
}

/// Where the longest international number ends, `skipped` digits before its country code.
fn international(bytes: &[u8], skipped: usize, groups: &Groups) -> Option<usize> {
    (1..=groups.count).rev().find_map(|count| {
        let mut digits = groups.digits(count).get(skipped..)?.to_vec();
        // The trunk prefix that is dialled only inside the country: +44 (0)20 7946 0958.
        let first = usize::from(groups.lengths[0]).saturating_sub(skipped);
        if count > 1
            && groups.separators[0] == Separator::Open
            && groups.lengths[1] == 1
            && digits.get(first) == Some(&0)
        {
            digits.remove(first);
        }
        let end = groups.ends[count - 1];
        (is_international(&digits) && ends(bytes, end)).then_some(end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<(&str, bool)> {
        let start = text.find(|c: char| c.is_ascii_digit())?;
        at(text.as_bytes(), start, &Groups::read(text.as_bytes(), start))
            .map(|(range, words)| (&text[range], words))
    }

    #[test]
    fn international_numbers() {
        // Numbers kept for fiction by Ofcom, NANPA, ACMA, ARCEP and the Bundesnetzagentur; others by their plans.
        for number in [
            "+44 20 7946 0958",
            "+44 (0)20 7946 0958",
            "+442079460958",
            "+1 212 555 0123",
            "+1 (212) 555-0123",
            "+1-212-555-0123",
            "+12125550123",
            "+61 491 570 156",
            "+33 1 99 00 12 34",
            "+49 30 23125 000",
            "(+44) 20 7946 0958",
            "+91 98765 43210",
            "+86 138 0013 8000",
            "+55 11 91234-5678",
            "+7 495 123-45-67",
            "+81 3-1234-5678",
            "+358 40 1234567",
            "+39 06 698 12345",
            "0044 20 7946 0958",
            "+354 545 1000",
        ] {
            for text in [
                number.to_owned(),
                format!("({number})"),
                format!("Call {number}."),
            ] {
                assert_eq!(found(&text), Some((number, false)), "{text}");
            }
        }
        for text in [
            "+1 123 555 0123",
            "+1 212 555 012",
            "+999 12345678",
            "a+442079460958",
            "+44 20 79",
            "+1 2125550123456789",
        ] {
            assert_eq!(
                found(text).filter(|(number, words)| number.starts_with('+') || !words),
                None,
                "{text}"
            );
        }
    }

    #[test]
    fn national_numbers() {
        for number in [
            "(212) 555-0123",
            "212-555-0123",
            "212.555.0123",
            "1-212-555-0123",
            "020 7946 0958",
            "(020) 7946 0958",
            "0161 496 0000",
            "07700 900123",
            "07700 900 123",
            "01 99 00 12 34",
            "01.99.00.12.34",
            "(02) 5550 1234",
            "0491 570 156",
            "03-1234-5678",
            "090-1234-5678",
            "(11) 91234-5678",
            "010-1234-5678",
        ] {
            assert_eq!(found(&format!("at {number}, please")), Some((number, false)));
        }
        // These are telephone numbers only where a word says so.
        for number in [
            "030 23125000",
            "13800138000",
            "98765 43210",
            "2125550123",
            "212 555 0123",
        ] {
            assert_eq!(found(number), Some((number, true)));
        }
        for text in [
            "112-555-0123",
            "211-155-0123",
            "2023-11-12",
            "12-11-2023",
            "x-212-555-0123",
            "212-555-0123-4",
        ] {
            assert_eq!(found(text).filter(|(_, words)| !words), None, "{text}");
        }
    }
}
