//! Checksums that several kinds of number share. Digits are values from 0 to 9, not characters.

/// Luhn (ISO/IEC 7812-1, annex B): from the right, every second digit doubled, digits of all summed, modulo 10 is 0.
pub(super) fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, &digit)| {
            let value = u32::from(digit) << (i % 2);
            if value > 9 { value - 9 } else { value }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Multiplication in the dihedral group of ten elements, rotations 0 to 4 and reflections 5 to 9.
fn dihedral(a: u8, b: u8) -> u8 {
    match (a < 5, b < 5) {
        (true, true) => (a + b) % 5,
        (true, false) => (a + b) % 5 + 5,
        (false, true) => (a - b) % 5 + 5,
        (false, false) => (5 + a - b) % 5,
    }
}

/// Verhoeff (1969): the digits from the right, permuted by place, multiplied in the dihedral group, give 0.
pub(super) fn verhoeff(digits: &[u8]) -> bool {
    // Each place applies this permutation once more than the place to its right.
    const PERMUTATION: [u8; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
    let product = digits
        .iter()
        .rev()
        .enumerate()
        .fold(0, |product, (place, &digit)| {
            let permuted = (0..place % 8).fold(digit, |d, _| PERMUTATION[usize::from(d % 10)]);
            dihedral(product, permuted)
        });
    product == 0
}

/// The number that `digits` write, modulo `modulus`.
pub(super) fn modulo(digits: &[u8], modulus: u64) -> u64 {
    digits
        .iter()
        .fold(0, |rest, &digit| (rest * 10 + u64::from(digit)) % modulus)
}

/// The sum of each digit times its weight.
pub(super) fn weighted(digits: &[u8], weights: &[u8]) -> u32 {
    digits
        .iter()
        .zip(weights)
        .map(|(&digit, &weight)| u32::from(digit) * u32::from(weight))
        .sum()
}

/// ISO/IEC 7064, MOD 11,10.
pub(super) fn mod_11_10(digits: &[u8]) -> bool {
    let Some((&check, body)) = digits.split_last() else {
        return false;
    };
    let product = body.iter().fold(10, |product, &digit| {
        let sum = (product + u32::from(digit)) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    (11 - product) % 10 == u32::from(check)
}

/// Whether there is such a day, in the Gregorian calendar.
pub(super) fn is_date(year: u32, month: u32, day: u32) -> bool {
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 0,
    };
    (1..=days).contains(&day)
}

/// Base-2 logarithm of `n` ≥ 1 in 1/65536, in whole numbers only: the same on every machine, unlike a library's.
fn log2(n: u32) -> u64 {
    let whole = n.max(1).ilog2();
    let mut mantissa = u64::from(n.max(1)) << (31 - whole);
    let mut log = u64::from(whole) << 16;
    for bit in (0..16).rev() {
        mantissa = (mantissa * mantissa) >> 31;
        if mantissa >= 1 << 32 {
            mantissa >>= 1;
            log |= 1 << bit;
        }
    }
    log
}

/// Shannon's entropy of the bytes' frequencies times their number: bits in all, in 1/65536.
pub(super) fn entropy(value: &[u8]) -> u64 {
    let mut counts = [0u32; 256];
    value.iter().for_each(|&byte| counts[usize::from(byte)] += 1);
    let length = value.len() as u64;
    let own: u64 = counts
        .iter()
        .filter(|&&c| c > 1)
        .map(|&c| u64::from(c) * log2(c))
        .sum();
    (length * log2(value.len() as u32)).saturating_sub(own)
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
    fn published_examples() {
        // Wikipedia, "Luhn algorithm", and "Verhoeff algorithm": 236 with the check digit 3.
        assert!(luhn(&digits("17893729974")));
        assert!(!luhn(&digits("17893729975")));
        assert!(verhoeff(&digits("2363")));
        assert!(!verhoeff(&digits("2364")));
        // ISO/IEC 7064 by Wikipedia: 0794 with the check digit 5.
        assert!(mod_11_10(&digits("07945")));
        assert!(!mod_11_10(&digits("07944")));
        assert!(
            is_date(2000, 2, 29) && !is_date(1900, 2, 29) && !is_date(2023, 13, 1) && !is_date(2023, 4, 31)
        );
    }

    #[test]
    fn entropy_is_shannons() {
        assert_eq!(entropy(b"aaaa"), 0);
        assert_eq!(entropy(b"abcdabcd"), 8 * 2 * 65_536);
        for n in 1..300u32 {
            assert!(
                (log2(n) as f64 / 65_536.0 - f64::from(n).log2()).abs() < 2e-5,
                "{n}"
            );
        }
    }

    proptest! {
        // What these checksums were made for: they find every single wrong digit, Verhoeff also every neighbours' swap.
        #[test]
        fn single_errors_are_found(body in prop::collection::vec(0u8..10, 1..18), place in 0usize..18, by in 1u8..10) {
            type Check = fn(&[u8]) -> bool;
            for check in [luhn as Check, verhoeff, mod_11_10] {
                let complete: Vec<Vec<u8>> = (0..10u8)
                    .map(|last| body.iter().copied().chain([last]).collect::<Vec<u8>>())
                    .filter(|number| check(number))
                    .collect();
                prop_assert_eq!(complete.len(), 1);
                let mut wrong = complete[0].clone();
                let place = place % wrong.len();
                wrong[place] = (wrong[place] + by) % 10;
                prop_assert!(!check(&wrong));
            }
        }

        #[test]
        fn verhoeff_finds_swaps(body in prop::collection::vec(0u8..10, 2..18), place in 0usize..18) {
            let number = (0..10u8)
                .map(|last| body.iter().copied().chain([last]).collect::<Vec<u8>>())
                .find(|number| verhoeff(number))
                .unwrap();
            let place = place % (number.len() - 1);
            let mut swapped = number.clone();
            swapped.swap(place, place + 1);
            prop_assert_eq!(verhoeff(&swapped), swapped == number);
        }
    }
}
