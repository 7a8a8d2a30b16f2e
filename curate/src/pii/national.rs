//! National identity, insurance and tax numbers that are all digits, with the checks of the authority that gives them.
//!
//! Which needs a word near it, because too many other numbers pass its check, stands in [`SHAPES`] as [`Words::Needed`].

use Separator::{Dot, Hyphen, Space};

use super::Kind;
use super::checksum::{is_date, luhn, mod_11_10, modulo, verhoeff, weighted};
use super::groups::{Groups, Separator};

/// Whether a word must be near that says what the number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    /// The form and the check say enough.
    Free,
    /// A word of [`context()`] must be near.
    Needed,
}
use Words::{Free, Needed};

/// How a number is written.
type Shape = (Kind, &'static [u8], &'static [Separator], Words);

const SHAPES: &[Shape] = &[
    (Kind::UsSsn, &[3, 2, 4], &[Hyphen], Free),
    (Kind::UsSsn, &[3, 2, 4], &[Space], Needed),
    (Kind::UsSsn, &[9], &[], Needed),
    (Kind::UkNhs, &[3, 3, 4], &[Space], Needed),
    (Kind::UkNhs, &[3, 3, 4], &[Hyphen], Needed),
    (Kind::UkNhs, &[10], &[], Needed),
    (Kind::DeSteuerId, &[11], &[], Needed),
    (Kind::DeSteuerId, &[2, 3, 3, 3], &[Space], Needed),
    (Kind::FrNir, &[15], &[], Free),
    (Kind::FrNir, &[13, 2], &[Space], Free),
    (Kind::FrNir, &[1, 2, 2, 2, 3, 3, 2], &[Space], Free),
    (Kind::NlBsn, &[9], &[], Needed),
    (Kind::NlBsn, &[4, 2, 3], &[Dot], Needed),
    (Kind::NlBsn, &[3, 3, 3], &[Space], Needed),
    (
        Kind::BeNationalNumber,
        &[2, 2, 2, 3, 2],
        &[Dot, Dot, Hyphen, Dot],
        Free,
    ),
    (Kind::BeNationalNumber, &[6, 3, 2], &[Hyphen, Dot], Free),
    (Kind::BeNationalNumber, &[11], &[], Needed),
    (Kind::PlPesel, &[11], &[], Needed),
    (Kind::SePersonnummer, &[6, 4], &[Hyphen], Free),
    (Kind::SePersonnummer, &[8, 4], &[Hyphen], Free),
    (Kind::SePersonnummer, &[10], &[], Needed),
    (Kind::SePersonnummer, &[12], &[], Needed),
    (Kind::BrCpf, &[3, 3, 3, 2], &[Dot, Dot, Hyphen], Free),
    (Kind::BrCpf, &[9, 2], &[Hyphen], Needed),
    (Kind::BrCpf, &[11], &[], Needed),
    (Kind::InAadhaar, &[4, 4, 4], &[Space], Needed),
    (Kind::InAadhaar, &[4, 4, 4], &[Hyphen], Needed),
    (Kind::InAadhaar, &[12], &[], Needed),
    (Kind::CnResidentId, &[18], &[], Free),
    (Kind::CaSin, &[3, 3, 3], &[Space], Needed),
    (Kind::CaSin, &[3, 3, 3], &[Hyphen], Needed),
    (Kind::CaSin, &[9], &[], Needed),
    (Kind::AuTfn, &[3, 3, 3], &[Space], Needed),
    (Kind::AuTfn, &[3, 3, 2], &[Space], Needed),
    (Kind::AuTfn, &[9], &[], Needed),
    (Kind::AuTfn, &[8], &[], Needed),
];

/// Words that say what a number is; those with capitals as they stand here, the others in any case.
pub(super) const fn context(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::UsSsn => &["ssn", "social security", "social-security"],
        Kind::UkNhs => &["nhs"],
        Kind::UkNino => &["nino", "national insurance", "ni number", "ni no", "NI"],
        Kind::DeSteuerId => &[
            "steuer-id",
            "steuerid",
            "steuer-identifikationsnummer",
            "steueridentifikationsnummer",
            "steuernummer",
            "identifikationsnummer",
            "idnr",
            "id-nr",
            "tax id",
            "tin",
        ],
        Kind::NlBsn => &[
            "bsn",
            "burgerservicenummer",
            "sofinummer",
            "sofi-nummer",
            "citizen service number",
        ],
        Kind::BeNationalNumber => &[
            "rijksregisternummer",
            "rijksregister",
            "registre national",
            "numéro national",
            "nationalregister",
            "insz",
            "niss",
            "rrn",
            "national number",
            "national register",
        ],
        Kind::PlPesel => &["pesel"],
        Kind::SePersonnummer => &[
            "personnummer",
            "personnr",
            "pnr",
            "samordningsnummer",
            "personal identity number",
        ],
        Kind::BrCpf => &["cpf"],
        Kind::InAadhaar => &["aadhaar", "aadhar", "uidai", "आधार"],
        Kind::CaSin => &["SIN", "NAS", "social insurance", "assurance sociale"],
        Kind::AuTfn => &["tfn", "tax file"],
        Kind::EsDni => &["dni", "nif", "documento nacional", "identidad"],
        _ => &[],
    }
}

/// Calls `found` with each number that the groups begin with: its kind, how many groups, whether a word must be near.
pub(super) fn each(groups: &Groups, mut found: impl FnMut(Kind, usize, Words)) {
    for &(kind, lengths, separators, words) in SHAPES {
        if groups.is(lengths, separators) && is_valid(kind, groups.digits(lengths.len())) {
            found(kind, lengths.len(), words);
        }
    }
}

/// The number that two digits write.
fn two(digits: &[u8], at: usize) -> u32 {
    digits
        .iter()
        .skip(at)
        .take(2)
        .fold(0, |n, &digit| n * 10 + u32::from(digit))
}

/// Whether the authority could have given `digits` as a `kind`.
pub(super) fn is_valid(kind: Kind, digits: &[u8]) -> bool {
    let Some((&last, body)) = digits.split_last() else {
        return false;
    };
    let last = u32::from(last);
    match kind {
        Kind::UsSsn => is_ssn(digits),
        // NHS data dictionary: weights 10 to 2; a remainder of 10 is never given.
        Kind::UkNhs => (11 - weighted(body, &[10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11) % 11 == last,
        Kind::DeSteuerId => is_steuer_id(digits),
        Kind::FrNir => is_nir(digits, 0),
        // Weights 9 to 2, the last digit taken off: "elfproef". Nine times the same digit is none.
        Kind::NlBsn => {
            let sum = weighted(body, &[9, 8, 7, 6, 5, 4, 3, 2]);
            sum > 0 && sum % 11 == last
        }
        // Born from 2000 on, a 2 is put before the number.
        Kind::BeNationalNumber => {
            let check = u64::from(two(digits, 9));
            let number = modulo(digits.get(..9).unwrap_or(&[]), 97);
            let later = (number + 2_000_000_000) % 97;
            // Months from 21 and from 41 stand for people without a known registration (bis numbers).
            let month = two(digits, 2);
            let month = if month > 40 {
                month - 40
            } else if month > 20 {
                month - 20
            } else {
                month
            };
            let date = two(digits, 4) <= 31 && month <= 12;
            date && (97 - number == check || 97 - later == check)
        }
        // The month says the century: 80 more for the 1800s, 20 for the 2000s, 40 and 60 after.
        Kind::PlPesel => {
            let sum = weighted(body, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3]);
            let (month, century) = (two(digits, 2) % 20, [1900, 2000, 2100, 2200, 1800]);
            let century = century.get(two(digits, 2) as usize / 20).copied().unwrap_or(0);
            (10 - sum % 10) % 10 == last && is_date(century + two(digits, 0), month, two(digits, 4))
        }
        Kind::SePersonnummer => {
            let short = digits.get(digits.len().saturating_sub(10)..).unwrap_or(&[]);
            let century_known = digits.len() == 12;
            let century = if century_known { two(digits, 0) * 100 } else { 2000 };
            // Coordination numbers add 60 to the day.
            let day = two(short, 4);
            let day = if day > 60 { day - 60 } else { day };
            (!century_known || matches!(century, 1800 | 1900 | 2000))
                && is_date(century + two(short, 0), two(short, 2), day)
                && luhn(short)
        }
        Kind::BrCpf => {
            let check = |sum: u32| (sum * 10 % 11) % 10;
            let first = check(weighted(
                digits.get(..9).unwrap_or(&[]),
                &[10, 9, 8, 7, 6, 5, 4, 3, 2],
            ));
            let second = check(weighted(body, &[11, 10, 9, 8, 7, 6, 5, 4, 3, 2]));
            digits.get(9).is_some_and(|&digit| u32::from(digit) == first)
                && second == last
                && digits.iter().any(|digit| Some(digit) != digits.first())
        }
        Kind::InAadhaar => digits.first().is_some_and(|&first| first >= 2) && verhoeff(digits),
        Kind::CnResidentId => is_resident_id(body, last),
        Kind::CaSin => {
            digits.first().is_some_and(|&first| first != 8) && weighted(digits, &[1; 9]) > 0 && luhn(digits)
        }
        Kind::AuTfn => {
            let weights: &[u8] = if digits.len() == 8 {
                &[10, 7, 8, 4, 6, 3, 5, 1]
            } else {
                &[1, 4, 3, 7, 5, 8, 6, 9, 10]
            };
            let sum = weighted(digits, weights);
            sum > 0 && sum.is_multiple_of(11)
        }
        _ => false,
    }
}

/// Area, group and serial that the Social Security Administration gives, also since they are drawn at random; without
/// the two numbers that were printed in advertisements and are void.
fn is_ssn(digits: &[u8]) -> bool {
    let number = modulo(digits, 1_000_000_000);
    let (area, group, serial) = (number / 1_000_000, number / 10_000 % 100, number % 10_000);
    !matches!(area, 0 | 666 | 900..)
        && group != 0
        && serial != 0
        && !matches!(number, 78_051_120 | 219_099_999)
}

/// Of the first ten digits, one stands there twice or three times and all others at most once; the first is not 0.
fn is_steuer_id(digits: &[u8]) -> bool {
    let mut counts = [0u8; 10];
    for &digit in digits.iter().take(10) {
        if let Some(count) = counts.get_mut(usize::from(digit)) {
            *count += 1;
        }
    }
    let repeated = counts.iter().filter(|&&count| count > 1).count();
    repeated == 1
        && counts.iter().all(|&count| count <= 3)
        && digits.first().is_some_and(|&first| first != 0)
        && mod_11_10(digits)
}

/// Sex, year, month, place, order and a key of 97. `taken` is what the key takes off for Corsica, where a letter stands
/// in the place of a digit: 1,000,000 for 2A, which is read as 20, and 2,000,000 for 2B.
pub(super) fn is_nir(digits: &[u8], taken: u64) -> bool {
    let number = modulo(digits.get(..13).unwrap_or(&[]), u64::MAX / 16);
    let key = 97 - number.saturating_sub(taken) % 97;
    // Months from 20 on stand for dates that are not known.
    let month = matches!(two(digits, 3), 1..=12 | 20..=42 | 50..=99);
    digits.len() == 15
        && matches!(digits.first(), Some(1..=4 | 7 | 8))
        && month
        && u64::from(two(digits, 13)) == key
}

/// GB 11643-1999: region, date of birth, order, and a check of 11 (ISO 7064), where 10 is written X.
pub(super) fn is_resident_id(body: &[u8], check: u32) -> bool {
    const WEIGHTS: [u8; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    let province =
        matches!(two(body, 0), 11..=15 | 21..=23 | 31..=37 | 41..=46 | 50..=54 | 61..=65 | 71 | 81..=83);
    let year = two(body, 6) * 100 + two(body, 8);
    body.len() == 17
        && province
        && (1800..2100).contains(&year)
        && is_date(year, two(body, 10), two(body, 12))
        && (12 - weighted(body, &WEIGHTS) % 11) % 11 == check
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn valid(kind: Kind, text: &str) -> bool {
        let digits: Vec<u8> = text
            .bytes()
            .filter(u8::is_ascii_digit)
            .map(|b| b - b'0')
            .collect();
        is_valid(kind, &digits)
    }

    #[test]
    fn published_numbers() {
        // Examples of python-stdnum's documentation and of Wikipedia's article on each, and of the authority where named.
        for (kind, valid_numbers, invalid_numbers) in [
            // SSA: area 000, 666 and 9xx, group 00, serial 0000 are not given; two advertised ones are void.
            (
                Kind::UsSsn,
                &["536-90-4399", "457-55-5462"][..],
                &[
                    "000-12-3456",
                    "666-12-3456",
                    "900-12-3456",
                    "123-00-4567",
                    "123-45-0000",
                    "078-05-1120",
                    "219-09-9999",
                ][..],
            ),
            (
                Kind::UkNhs,
                &["943 476 5919", "943-476-5870"],
                &["9434765871", "943 476 5918"],
            ),
            (
                Kind::DeSteuerId,
                &["36 574 261 809", "86095742719", "47036892816", "65929970489"],
                &["36574261890", "36554266806"],
            ),
            (
                Kind::FrNir,
                &["2 95 10 99 126 111 93"],
                &["2 95 10 99 126 111 94"],
            ),
            (
                Kind::NlBsn,
                &["1112.22.333", "123456782"],
                &["111222334", "000000000"],
            ),
            (
                Kind::BeNationalNumber,
                &["85.07.30-033 28", "17 07 30 033 84"],
                &["12345678901", "85.07.30-033 29"],
            ),
            (
                Kind::PlPesel,
                &["44051401359", "44051401458"],
                &["44051401459", "02381307589"],
            ),
            (
                Kind::SePersonnummer,
                &["640823-3234", "880320-0016", "811228-9874", "19811228-9874"],
                &["880320-0018", "881320-0016"],
            ),
            (
                Kind::BrCpf,
                &["390.533.447-05", "529.982.247-25"],
                &["231.002.999-00", "111.111.111-11"],
            ),
            (
                Kind::InAadhaar,
                &["234123412346"],
                &["234123412347", "123412341234"],
            ),
            // GB 11643-1999.
            (
                Kind::CnResidentId,
                &["440524188001010014"],
                &["440524188001010013", "990524188001010014"],
            ),
            (
                Kind::CaSin,
                &["123-456-782", "046 454 286"],
                &["999-999-999", "000000000", "046 454 287"],
            ),
            (
                Kind::AuTfn,
                &["123 456 782"],
                &["123 456 783", "999 999 999", "00000000"],
            ),
        ] {
            for number in valid_numbers {
                assert!(valid(kind, number), "{kind:?} {number}");
            }
            for number in invalid_numbers {
                assert!(!valid(kind, number), "{kind:?} {number}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_digits_are_judged(digits in prop::collection::vec(0u8..10, 0..20)) {
            for &kind in Kind::ALL {
                is_valid(kind, &digits);
            }
        }

        #[test]
        fn a_wrong_digit_is_found(place in 0usize..11, by in 1u8..10) {
            for (kind, number) in [
                (Kind::DeSteuerId, [8u8, 6, 0, 9, 5, 7, 4, 2, 7, 1, 9]),
                (Kind::PlPesel, [4, 4, 0, 5, 1, 4, 0, 1, 3, 5, 9]),
            ] {
                let mut wrong = number;
                wrong[place] = (wrong[place] + by) % 10;
                prop_assert!(is_valid(kind, &number) && !is_valid(kind, &wrong));
            }
        }
    }
}
