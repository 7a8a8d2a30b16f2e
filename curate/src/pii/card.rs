//! Payment cards and bank accounts.

use super::checksum::luhn;
use super::groups::{Groups, Separator};

/// Words that say that a number is a card's.
pub(super) const CONTEXT: &[&str] = &[
    "card",
    "credit",
    "debit",
    "visa",
    "mastercard",
    "amex",
    "diners",
    "maestro",
    "discover",
    "jcb",
    "unionpay",
    "pan",
    "carte",
    "karte",
    "kreditkarte",
    "tarjeta",
    "carta",
    "cartão",
    "kaart",
    "kort",
    "карта",
    "卡号",
    "信用卡",
];

/// What is known of a card number: the range of first digits, as a six-digit number, and the lengths that its issuer
/// gives (Wikipedia, "Payment card number", table of issuer identification numbers).
const ISSUERS: &[(u32, u32, &[usize])] = &[
    (220_000, 220_499, &[16, 17, 18, 19]),         // Mir
    (222_100, 272_099, &[16]),                     // Mastercard
    (300_000, 305_999, &[14, 16, 17, 18, 19]),     // Diners Club
    (309_500, 309_599, &[14, 16, 17, 18, 19]),     // Diners Club
    (340_000, 349_999, &[15]),                     // American Express
    (352_800, 358_999, &[16, 17, 18, 19]),         // JCB
    (360_000, 369_999, &[14, 15, 16, 17, 18, 19]), // Diners Club
    (370_000, 379_999, &[15]),                     // American Express
    (380_000, 399_999, &[14, 16, 17, 18, 19]),     // Diners Club
    (400_000, 499_999, &[13, 16, 19]),             // Visa
    (500_000, 509_999, &[16, 17, 18, 19]),         // Maestro, Dankort, Verve, RuPay
    (510_000, 559_999, &[16]),                     // Mastercard
    (560_000, 589_999, &[16, 17, 18, 19]),         // Maestro
    (600_000, 609_999, &[16, 17, 18, 19]),         // Discover, RuPay, Hipercard
    (620_000, 629_999, &[16, 17, 18, 19]),         // UnionPay
    (630_000, 639_999, &[16, 17, 18, 19]),         // Maestro
    (640_000, 659_999, &[16, 17, 18, 19]),         // Discover, RuPay, Troy
    (670_000, 679_999, &[16, 17, 18, 19]),         // Maestro
    (810_000, 829_999, &[16, 17, 18, 19]),         // UnionPay, RuPay
];

/// How cards are printed, and whether a word must say that it is one: numbers of 13, 14, 17 or 18 digits are often
/// articles, times or ids.
const SHAPES: &[(&[u8], bool)] = &[
    (&[4, 4, 4, 4], false),
    (&[4, 6, 5], false),
    (&[4, 6, 4], false),
    (&[4, 4, 4, 4, 3], false),
    (&[6, 13], false),
    (&[16], false),
    (&[15], false),
    (&[19], false),
    (&[13], true),
    (&[14], true),
    (&[17], true),
    (&[18], true),
];

/// Whether an issuer gives such numbers, and the checksum is right.
pub(super) fn is_card(digits: &[u8]) -> bool {
    let first = digits
        .iter()
        .take(6)
        .fold(0, |n, &digit| n * 10 + u32::from(digit));
    let issued = |&&(from, to, lengths): &&(u32, u32, &[usize])| {
        (from..=to).contains(&first) && lengths.contains(&digits.len())
    };
    ISSUERS.iter().any(|issuer| issued(&issuer)) && luhn(digits)
}

/// The longest card that the groups begin with: how many groups, and whether a word must be near.
pub(super) fn card(groups: &Groups) -> Option<(usize, bool)> {
    if groups.total < 13 {
        return None;
    }
    SHAPES
        .iter()
        .filter(|(lengths, _)| {
            [Separator::Space, Separator::Hyphen, Separator::Dot]
                .iter()
                .any(|&separator| groups.is(lengths, &[separator]))
        })
        .filter(|(lengths, _)| is_card(groups.digits(lengths.len())))
        .map(|&(lengths, context)| (lengths.len(), context))
        .max()
}

/// Characters of an account number in each country (ISO 13616; SWIFT's IBAN registry).
const IBAN_LENGTHS: &[(&[u8; 2], usize)] = &[
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BI", 27),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HN", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"VG", 24),
    (b"XK", 20),
    (b"YE", 30),
];

/// Where the account number that begins at `start` ends: written as one word, or in groups of four.
pub(super) fn iban(bytes: &[u8], start: usize) -> Option<usize> {
    let country = [*bytes.get(start)?, *bytes.get(start + 1)?];
    let at = IBAN_LENGTHS
        .binary_search_by(|(code, _)| (*code).cmp(&country))
        .ok()?;
    let (_, length) = IBAN_LENGTHS.get(at)?;
    let separator = bytes
        .get(start + 4)
        .copied()
        .filter(|byte| matches!(byte, b' ' | b'-'));
    let mut number = [0; 34];
    let mut at = start;
    for place in 0..*length {
        if place > 0 && place % 4 == 0 && separator.is_some() {
            if bytes.get(at) != separator.as_ref() {
                return None;
            }
            at += 1;
        }
        let byte = *bytes.get(at)?;
        if !byte.is_ascii_digit() && !byte.is_ascii_uppercase() {
            return None;
        }
        // The first four characters go to the end.
        let to = (place + length - 4) % length;
        *number.get_mut(to)? = byte;
        at += 1;
    }
    // Letters count from A = 10 (ISO 7064, MOD 97-10).
    let rest = number.iter().take(*length).fold(0u32, |rest, &byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        _ => (rest * 100 + u32::from(byte - b'A') + 10) % 97,
    });
    let checked = bytes.get(start + 2..start + 4)?.iter().all(u8::is_ascii_digit);
    (rest == 1 && checked).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digits(text: &str) -> Vec<u8> {
        text.bytes()
            .filter(u8::is_ascii_digit)
            .map(|b| b - b'0')
            .collect()
    }

    #[test]
    fn published_cards() {
        // Stripe's and Adyen's test cards.
        for valid in [
            "4242424242424242",
            "4000056655665556",
            "5555555555554444",
            "2223003122003222",
            "5105105105105100",
            "378282246310005",
            "371449635398431",
            "6011111111111117",
            "6011000990139424",
            "3056930009020004",
            "36227206271667",
            "3566002020360505",
            "6200000000000005",
            "6771798021000008",
            "5100290029002909",
            "4111111111111111",
            "370000000000002",
            "30569309025904",
            "3530111333300000",
            "4222222222222",
        ] {
            assert!(is_card(&digits(valid)), "{valid}");
        }
        // Stripe's number with an incorrect check digit; lengths and ranges that nobody issues.
        for invalid in [
            "4242424242424241",
            "42424242424242424",
            "9999999999999995",
            "0000000000000000",
            "1234567812345670",
        ] {
            assert!(!is_card(&digits(invalid)), "{invalid}");
        }
    }

    #[test]
    fn published_accounts() {
        // SWIFT's IBAN registry, example of each country; Wikipedia, "International Bank Account Number".
        for valid in [
            "AD1200012030200359100100",
            "AE070331234567890123456",
            "AL47212110090000000235698741",
            "AT611904300234573201",
            "BE68539007547034",
            "BG80BNBG96611020345678",
            "BR1800360305000010009795493C1",
            "CH9300762011623852957",
            "CY17002001280000001200527600",
            "CZ6508000000192000145399",
            "DE89370400440532013000",
            "DK5000400440116243",
            "EE382200221020145685",
            "ES9121000418450200051332",
            "FI2112345600000785",
            "FR1420041010050500013M02606",
            "GB29NWBK60161331926819",
            "GR1601101250000000012300695",
            "HR1210010051863000160",
            "HU42117730161111101800000000",
            "IE29AIBK93115212345678",
            "IL620108000000099999999",
            "IS140159260076545510730339",
            "IT60X0542811101000000123456",
            "LI21088100002324013AA",
            "LT121000011101001000",
            "LU280019400644750000",
            "LV80BANK0000435195001",
            "MC5811222000010123456789030",
            "MT84MALT011000012345MTLCAST001S",
            "NL91ABNA0417164300",
            "NO9386011117947",
            "PL61109010140000071219812874",
            "PT50000201231234567890154",
            "RO49AAAA1B31007593840000",
            "SA0380000000608010167519",
            "SE4550000000058398257466",
            "SI56263300012039086",
            "SK3112000000198742637541",
            "SM86U0322509800000000270100",
            "TR330006100519786457841326",
            "UA213223130000026007233566001",
            "GB82WEST12345698765432",
        ] {
            assert_eq!(iban(valid.as_bytes(), 0), Some(valid.len()), "{valid}");
            let printed: Vec<&str> = valid
                .as_bytes()
                .chunks(4)
                .map(|c| std::str::from_utf8(c).unwrap())
                .collect();
            for separator in [" ", "-"] {
                let printed = printed.join(separator);
                assert_eq!(iban(printed.as_bytes(), 0), Some(printed.len()), "{printed}");
            }
            // The check digits are of 97: any one character changed is found.
            let mut wrong = valid.as_bytes().to_vec();
            wrong[5] = if wrong[5] == b'1' { b'2' } else { b'1' };
            assert_eq!(iban(&wrong, 0), None, "{valid}");
        }
        for invalid in [
            "DE89370400440532013001",
            "DE8937040044053201300",
            "XX89370400440532013000",
            "DE89 37040044 0532013000",
        ] {
            assert_eq!(iban(invalid.as_bytes(), 0), None, "{invalid}");
        }
        assert!(IBAN_LENGTHS.is_sorted());
    }

    proptest! {
        #[test]
        fn anything_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), start in 0usize..60) {
            iban(&bytes, start);
            let text: String = bytes.iter().map(|b| if b % 3 == 0 { ' ' } else { char::from(b'0' + b % 10) }).collect();
            let at = text.find(|c: char| c.is_ascii_digit());
            at.map(|at| card(&Groups::read(text.as_bytes(), at)));
        }
    }
}
