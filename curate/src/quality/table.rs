//! Numbers for keys, in the order in which they are first seen.

/// Keys that are remembered at most. Documents with more different words, lines or paragraphs are larger than any filter
/// keeps; what comes later counts as new.
const MOST: usize = 1 << 20;

#[derive(Clone, Copy, Default)]
struct Slot {
    key: u64,
    id: u32,
    /// The use of the table that wrote it: others find it empty.
    epoch: u32,
}

/// An open-addressing table that is reused without being cleared.
///
/// Keys are 64-bit fingerprints, or pairs of ids; their place is their product with an odd constant, which spreads both.
#[derive(Default)]
pub(crate) struct Table {
    slots: Vec<Slot>,
    /// One less than the part of `slots` that is in use, a power of two.
    mask: usize,
    epoch: u32,
    len: u32,
    /// What is moved when it grows.
    moved: Vec<Slot>,
}

impl Table {
    /// Empties it, for about so many keys.
    pub(crate) fn reset(&mut self, expected: usize) {
        self.len = 0;
        let size = (2 * expected + 2).clamp(64, 2 * MOST).next_power_of_two();
        if self.slots.len() < size {
            self.slots.resize(size, Slot::default());
        }
        self.mask = size - 1;
        self.next_epoch();
    }

    fn next_epoch(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            self.slots.fill(Slot::default());
            self.epoch = 1;
        }
    }

    /// The number of the key, from 0; a new number if the key is new. None if the table is full and does not hold it.
    #[inline]
    pub(crate) fn id_of(&mut self, key: u64) -> Option<u32> {
        let mut at = place(key);
        loop {
            let slot = self.slots.get_mut(at & self.mask)?;
            if slot.epoch != self.epoch {
                break;
            }
            if slot.key == key {
                return Some(slot.id);
            }
            at += 1;
        }
        if self.len as usize >= MOST {
            return None;
        }
        let id = self.len;
        let slot = Slot {
            key,
            id,
            epoch: self.epoch,
        };
        *self.slots.get_mut(at & self.mask)? = slot;
        self.len += 1;
        if 2 * self.len as usize > self.mask {
            self.grow();
        }
        Some(id)
    }

    /// Adds the key; tells whether it was not there.
    #[inline]
    pub(crate) fn insert(&mut self, key: u64) -> bool {
        let before = self.len;
        self.id_of(key).is_none() || self.len > before
    }

    /// Doubles it.
    #[cold]
    fn grow(&mut self) {
        let used = self.mask + 1;
        let epoch = self.epoch;
        let mut moved = std::mem::take(&mut self.moved);
        moved.clear();
        moved.extend(self.slots.iter().take(used).filter(|slot| slot.epoch == epoch));
        if self.slots.len() < 2 * used {
            self.slots.resize(2 * used, Slot::default());
        }
        self.mask = 2 * used - 1;
        self.next_epoch();
        for mut slot in moved.drain(..) {
            slot.epoch = self.epoch;
            let mut at = place(slot.key);
            while let Some(other) = self.slots.get_mut(at & self.mask) {
                if other.epoch != self.epoch {
                    *other = slot;
                    break;
                }
                at += 1;
            }
        }
        self.moved = moved;
    }
}

#[inline]
fn place(key: u64) -> usize {
    // The high half of the product depends on all bits of the key.
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
}

/// A 64-bit fingerprint of a part of a text; the same for the same bytes on every machine.
#[inline]
pub(crate) fn fingerprint(bytes: &[u8], start: usize, end: usize) -> u64 {
    const SECRETS: [u64; 2] = [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db];
    let len = end - start;
    let (low, high) = if len <= 8 {
        (first_8(bytes, start, len), 0)
    } else if len <= 16 {
        (first_8(bytes, start, 8), first_8(bytes, end - 8, 8))
    } else {
        return xxhash_rust::xxh3::xxh3_64(bytes.get(start..end).unwrap_or_default());
    };
    let product = u128::from(low ^ SECRETS[0]) * u128::from(high ^ SECRETS[1] ^ (len as u64).rotate_left(32));
    (product as u64) ^ (product >> 64) as u64
}

/// Up to eight bytes as a number, little endian.
#[inline]
fn first_8(bytes: &[u8], start: usize, len: usize) -> u64 {
    let mask = u64::MAX >> (64 - 8 * len.max(1));
    let tail = bytes.get(start..).unwrap_or_default();
    match tail.first_chunk::<8>() {
        Some(chunk) => u64::from_le_bytes(*chunk) & mask,
        None => tail
            .iter()
            .take(len)
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_are_those_of_first_sight_whatever_came_before(rounds in prop::collection::vec(
            (0..100_usize, prop::collection::vec(0..300_u64, 0..400)), 1..4))
        {
            let mut table = Table::default();
            for (expected, keys) in rounds {
                table.reset(expected);
                let mut seen = HashMap::new();
                for key in keys {
                    let next = seen.len() as u32;
                    let id = *seen.entry(key).or_insert(next);
                    prop_assert_eq!(table.id_of(key << 40), Some(id));
                }
            }
        }
    }

    #[test]
    fn it_forgets_at_the_end_of_epochs_too() {
        let mut table = Table::default();
        table.reset(1);
        table.id_of(7);
        table.epoch = u32::MAX;
        table.id_of(8);
        table.reset(1);
        assert_eq!((table.id_of(8), table.id_of(7)), (Some(0), Some(1)));
    }

    #[test]
    fn it_holds_no_more_than_it_may() {
        let mut table = Table::default();
        table.reset(1);
        for key in 0..MOST as u64 {
            assert_eq!(table.id_of(key), Some(key as u32));
        }
        assert_eq!(table.id_of(u64::MAX), None);
        assert_eq!(table.id_of(5), Some(5));
        assert!(table.slots.len() <= 4 * MOST);
    }

    #[test]
    fn fingerprints_differ_by_bytes_and_not_by_place() {
        let text =
            b"the cat, the catalogue, \0\0 the catalogues of catalogues and the catalogues of catalogues";
        let mut seen = HashMap::new();
        for start in 0..text.len() {
            for end in start + 1..=text.len() {
                let word = &text[start..end];
                let known = *seen.entry(word).or_insert(fingerprint(text, start, end));
                assert_eq!(known, fingerprint(word, 0, word.len()));
            }
        }
        let different: std::collections::HashSet<u64> = seen.values().copied().collect();
        assert_eq!(different.len(), seen.len());
    }
}
