//! National numbers with letters in them.

use std::ops::Range;

use super::Kind;
use super::checksum::is_date;
use super::groups::run;
use super::national::{Words, is_nir, is_resident_id};

/// A number that the digits at `start` are part of, if any: its kind, where it stands, and whether a word must be near.
/// `start` is where a run of digits begins.
pub(super) fn at(bytes: &[u8], start: usize) -> Option<(Kind, Range<usize>, Words)> {
    // Nothing has more than nine letters before its first digit.
    let letters = bytes[..start]
        .iter()
        .rev()
        .take(9)
        .take_while(|byte| byte.is_ascii_uppercase())
        .count();
    let from = start - letters;
    match letters {
        0 => dni(bytes, start)
            .or_else(|| resident_id(bytes, start))
            .or_else(|| hetu(bytes, start))
            .or_else(|| nir(bytes, start))
            .or_else(|| nie(bytes, start.checked_sub(2)?)),
        1 => nie(bytes, from),
        2 => nino(bytes, from),
        _ => codice_fiscale(bytes, from),
    }
    .or_else(|| spaced_nino(bytes, start))
}

/// The number that the digits at `range` write.
fn number(bytes: &[u8], range: Range<usize>) -> Option<u32> {
    let digits = bytes.get(range)?;
    digits.iter().try_fold(0u32, |n, byte| {
        byte.is_ascii_digit().then(|| n * 10 + u32::from(byte - b'0'))
    })
}

/// The check letter of a DNI: the number modulo 23 (Ministerio del Interior).
fn is_dni(number: u32, letter: u8) -> bool {
    b"TRWAGMYFPDXBNJZSQVHLCKE".get(number as usize % 23) == Some(&letter)
}

/// The position of the check letter: directly, or after a hyphen.
fn check_letter(bytes: &[u8], at: usize) -> usize {
    at + usize::from(bytes.get(at) == Some(&b'-'))
}

fn dni(bytes: &[u8], start: usize) -> Option<(Kind, Range<usize>, Words)> {
    let at = check_letter(bytes, start + 8);
    let valid = is_dni(number(bytes, start..start + 8)?, *bytes.get(at)?);
    valid.then_some((Kind::EsDni, start..at + 1, Words::Needed))
}

/// X, Y or Z stands for the digit 0, 1 or 2.
fn nie(bytes: &[u8], from: usize) -> Option<(Kind, Range<usize>, Words)> {
    let first = u32::from(bytes.get(from)?.checked_sub(b'X').filter(|&first| first < 3)?);
    let digits = from + 1 + usize::from(bytes.get(from + 1) == Some(&b'-'));
    let at = check_letter(bytes, digits + 7);
    let number = number(bytes, digits..digits + 7)? + first * 10_000_000;
    is_dni(number, *bytes.get(at)?).then_some((Kind::EsDni, from..at + 1, Words::Free))
}

/// Only those that end in X: the others are all digits.
fn resident_id(bytes: &[u8], start: usize) -> Option<(Kind, Range<usize>, Words)> {
    if !matches!(bytes.get(start + 17)?, b'X' | b'x') {
        return None;
    }
    let body: Vec<u8> = digits(bytes.get(start..start + 17)?)?;
    is_resident_id(&body, 10).then_some((Kind::CnResidentId, start..start + 18, Words::Free))
}

fn digits(bytes: &[u8]) -> Option<Vec<u8>> {
    bytes
        .iter()
        .map(|byte| byte.is_ascii_digit().then(|| byte - b'0'))
        .collect()
}

/// Date, sign of the century, order, and the whole modulo 31 (Digital and Population Data Services Agency; the signs
/// but `+`, `-` and `A` since 2023).
fn hetu(bytes: &[u8], start: usize) -> Option<(Kind, Range<usize>, Words)> {
    let century = match bytes.get(start + 6)? {
        b'+' => 1800,
        b'-' | b'U'..=b'Y' => 1900,
        b'A'..=b'F' => 2000,
        _ => return None,
    };
    let date = number(bytes, start..start + 6)?;
    let order = number(bytes, start + 7..start + 10)?;
    let valid = is_date(century + date % 100, date / 100 % 100, date / 10_000)
        && order >= 2
        && b"0123456789ABCDEFHJKLMNPRSTUVWXY".get((date * 1000 + order) as usize % 31)
            == bytes.get(start + 10);
    valid.then_some((Kind::FiHetu, start..start + 11, Words::Free))
}

/// Corsica's, where the department is 2A or 2B; written as one word or with the usual spaces.
fn nir(bytes: &[u8], start: usize) -> Option<(Kind, Range<usize>, Words)> {
    let spaced = bytes.get(start + 1) == Some(&b' ');
    let mut number = Vec::with_capacity(15);
    let (mut at, mut taken) = (start, None);
    for place in 0..15 {
        if spaced && matches!(place, 1 | 3 | 5 | 7 | 10 | 13) {
            if bytes.get(at) != Some(&b' ') {
                return None;
            }
            at += 1;
        }
        number.push(match (place, bytes.get(at)?) {
            (6, b'A') => {
                taken = Some(1_000_000);
                0
            }
            (6, b'B') => {
                taken = Some(2_000_000);
                0
            }
            (_, digit @ b'0'..=b'9') => digit - b'0',
            _ => return None,
        });
        at += 1;
    }
    (number.get(5) == Some(&2) && is_nir(&number, taken?)).then_some((Kind::FrNir, start..at, Words::Free))
}

/// The prefixes that HM Revenue & Customs gives (NIM39110).
fn is_nino(prefix: &[u8], suffix: u8) -> bool {
    let [first, second] = prefix else {
        return false;
    };
    let letters = first.is_ascii_uppercase() && second.is_ascii_uppercase();
    letters
        && !b"DFIQUV".contains(first)
        && !b"DFIOQUV".contains(second)
        && !matches!(prefix, b"BG" | b"GB" | b"KN" | b"NK" | b"NT" | b"TN" | b"ZZ")
        && matches!(suffix, b'A'..=b'D')
}

fn nino(bytes: &[u8], from: usize) -> Option<(Kind, Range<usize>, Words)> {
    number(bytes, from + 2..from + 8)?;
    is_nino(bytes.get(from..from + 2)?, *bytes.get(from + 8)?).then_some((
        Kind::UkNino,
        from..from + 9,
        Words::Needed,
    ))
}

/// `AB 12 34 56 C`: a form that needs no word near it.
fn spaced_nino(bytes: &[u8], start: usize) -> Option<(Kind, Range<usize>, Words)> {
    let from = start.checked_sub(3)?;
    let [a, b, b' ', d0, d1, b' ', d2, d3, b' ', d4, d5, b' ', suffix] = bytes.get(from..from + 13)? else {
        return None;
    };
    let written = [d0, d1, d2, d3, d4, d5].iter().all(|byte| byte.is_ascii_digit());
    (written && is_nino(&[*a, *b], *suffix)).then_some((Kind::UkNino, from..from + 13, Words::Free))
}

/// What a character counts on an odd place (Decreto ministeriale 23 dicembre 1976): a digit as much as the letter of
/// its rank.
const ODD: [u32; 26] = [
    1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23,
];

/// Sixteen letters and digits in fixed places, where a digit may be a letter instead so that no two people have the
/// same; the last is the check.
fn codice_fiscale(bytes: &[u8], from: usize) -> Option<(Kind, Range<usize>, Words)> {
    let code = bytes.get(from..from + 16)?;
    let placed = code.iter().enumerate().all(|(place, byte)| match place {
        6 | 7 | 9 | 10 | 12..=14 => byte.is_ascii_digit() || b"LMNPQRSTUV".contains(byte),
        8 => b"ABCDEHLMPRST".contains(byte),
        _ => byte.is_ascii_uppercase(),
    });
    if !placed {
        return None;
    }
    let (check, body) = code.split_last()?;
    let sum: u32 = body
        .iter()
        .enumerate()
        .map(|(place, &byte)| {
            let rank = u32::from(if byte.is_ascii_digit() {
                byte - b'0'
            } else {
                byte - b'A'
            });
            if place % 2 == 0 {
                ODD.get(rank as usize).copied().unwrap_or(0)
            } else {
                rank
            }
        })
        .sum();
    (sum % 26 == u32::from(check - b'A')).then_some((Kind::ItCodiceFiscale, from..from + 16, Words::Free))
}

/// Whether a bank account's country and check digits stand here, the digits at `start`.
pub(super) fn iban_start(bytes: &[u8], start: usize) -> Option<usize> {
    let from = start.checked_sub(2)?;
    let letters = bytes.get(from..start)?.iter().all(u8::is_ascii_uppercase);
    (letters && run(bytes.get(start..)?, 2) == 2).then_some(from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(text: &str) -> Option<(Kind, &str)> {
        let bytes = text.as_bytes();
        (0..text.len())
            .filter(|&i| bytes[i].is_ascii_digit() && (i == 0 || !bytes[i - 1].is_ascii_digit()))
            .find_map(|i| at(bytes, i).map(|(kind, range, _)| (kind, &text[range])))
    }

    #[test]
    fn published_numbers() {
        // python-stdnum's documentation; Wikipedia's article on each; GB 11643-1999; Presidio for the DNI.
        for (kind, valid, invalid) in [
            (Kind::EsDni, "54362315-K", "54362315-A"),
            (Kind::EsDni, "12345678Z", "12345678A"),
            (Kind::EsDni, "X-2482300W", "X-2482300A"),
            (Kind::EsDni, "X2482300W", "W2482300W"),
            (Kind::FrNir, "253072B07300470", "253072C07300443"),
            (Kind::FrNir, "2 53 07 2A 073 004 43", "2 53 07 2A 073 004 44"),
            (Kind::FiHetu, "131052-308T", "131052-308U"),
            (Kind::ItCodiceFiscale, "RCCMNL83S18D969H", "RCCMNL83S18D967H"),
            (Kind::ItCodiceFiscale, "MRTMTT91D08F205J", "MRTMTT91D08F205K"),
            (Kind::CnResidentId, "11010519491231002X", "11010519491231003X"),
            // HM Revenue & Customs' own example begins with Q, which it never gives.
            (Kind::UkNino, "HH012345D", "QQ123456C"),
            (Kind::UkNino, "AB 12 34 56 C", "BG 12 34 56 C"),
        ] {
            assert_eq!(found(&format!("is {valid}.")), Some((kind, valid)));
            assert_eq!(found(&format!("is {invalid}.")), None);
        }
    }

    proptest! {
        #[test]
        fn anything_is_read_without_a_panic(text in "[A-Z0-9 é-]{0,40}") {
            found(&text);
        }
    }
}
