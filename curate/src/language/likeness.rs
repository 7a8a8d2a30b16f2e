//! Whether a window reads like others, which is much quicker to say than what language it is in.

/// Pairs of letters are counted in this many places, by a hash.
const PLACES: usize = 1024;

/// Roots are kept with this many binary places.
const ROOT_BITS: u32 = 4;

/// Windows of one language are at least as like as this nearly always (97 of 100 windows of the Universal Declaration
/// of Human Rights, against four others of theirs), those of two languages nearly never (1 of 100), but for the closest
/// of kin, such as Danish and Norwegian.
const ALIKE: f64 = 0.8;

/// How often each pair of letters occurs.
pub(super) struct Pairs {
    counts: Box<[u16; PLACES]>,
    total: u64,
}

impl Pairs {
    pub(super) fn of(text: &str) -> Self {
        let mut counts = Box::new([0_u16; PLACES]);
        let mut total = 0;
        let mut last = u32::from(' ');
        for c in text.chars() {
            let c = if c.is_ascii_alphabetic() || !c.is_ascii() {
                c.to_ascii_lowercase()
            } else {
                ' '
            };
            let c = u32::from(c);
            if (c, last) == (u32::from(' '), c) {
                continue;
            }
            // The golden ratio's bits, as in Fibonacci hashing; the high ones are the best mixed.
            let place = (last.rotate_left(16) ^ c).wrapping_mul(0x9E37_79B1) >> (32 - PLACES.ilog2());
            if let Some(count) = counts.get_mut(place as usize) {
                *count = count.saturating_add(1);
                total += 1;
            }
            last = c;
        }
        Self { counts, total }
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts.iter()) {
            *count = count.saturating_add(*more);
        }
        self.total += other.total;
    }

    /// Whether both are likely of one language: their Bhattacharyya coefficient, `Σ √(p·q)` over the shares `p` and `q`
    /// of each pair, is at least [`ALIKE`]. Whole numbers, so that the answer is the same on every machine.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let root = |count: u16| (u32::from(count) << (2 * ROOT_BITS)).isqrt();
        let pairs = self
            .counts
            .iter()
            .zip(other.counts.iter())
            .filter(|(a, b)| **a > 0 && **b > 0);
        let sum: u64 = pairs.map(|(a, b)| u64::from(root(*a) * root(*b))).sum();
        let coefficient = sum as f64 / f64::from(1 << (2 * ROOT_BITS));
        coefficient >= ALIKE * (self.total as f64 * other.total as f64).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_is_like_itself() {
        let english = Pairs::of(
            "All human beings are born free and equal in dignity and rights. They are endowed with reason",
        );
        let again = Pairs::of(
            "and conscience; all beings should be free and equal and act with reason in dignity and rights",
        );
        let finnish = Pairs::of(
            "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan. Heille on annettu",
        );
        assert!(english.is_like(&english) && english.is_like(&again) && again.is_like(&english));
        assert!(!english.is_like(&finnish) && !finnish.is_like(&again));
    }
}
