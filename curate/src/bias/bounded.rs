//! Counts by name, in bounded memory, that come out the same however they are merged.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Counts by name. Of more than `MOST` names those with the least hashes are kept, which is a fair sample of names. A
/// name that is kept has all of its counts: it was kept from the first on, in each part that was merged, as fewer than
/// `MOST` names have lesser hashes. So merging is exact, associative and commutative.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    from = "Vec<(String, V)>",
    into = "Vec<(String, V)>",
    bound(
        serialize = "V: Serialize + Clone",
        deserialize = "V: Deserialize<'de> + Default + AddAssign"
    )
)]
pub struct Bounded<V, const MOST: usize> {
    names: BTreeMap<(u64, String), V>,
}

impl<V, const MOST: usize> Default for Bounded<V, MOST> {
    fn default() -> Self {
        Self {
            names: BTreeMap::new(),
        }
    }
}

impl<V: Default + AddAssign, const MOST: usize> Bounded<V, MOST> {
    /// Adds to what is counted for `name`, if it is one of those that are kept.
    pub fn add(&mut self, name: &str, more: V) {
        let key = (xxh3_64(name.as_bytes()), name.to_owned());
        let is_full = self.names.len() >= MOST;
        if is_full && self.names.last_key_value().is_none_or(|(last, _)| *last < key) {
            return;
        }
        *self.names.entry(key).or_default() += more;
        if self.names.len() > MOST {
            self.names.pop_last();
        }
    }

    /// Adds what another part counted.
    pub fn merge(&mut self, other: Self) {
        for (key, more) in other.names {
            *self.names.entry(key).or_default() += more;
        }
        while self.names.len() > MOST {
            self.names.pop_last();
        }
    }

    /// Names with their counts, in the order of their hashes.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.names.iter().map(|((_, name), value)| (name.as_str(), value))
    }

    /// Whether there may be more names than are kept.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.names.len() >= MOST
    }
}

impl<V: Default + AddAssign, const MOST: usize> From<Vec<(String, V)>> for Bounded<V, MOST> {
    fn from(names: Vec<(String, V)>) -> Self {
        let mut bounded = Self::default();
        names
            .into_iter()
            .for_each(|(name, value)| bounded.add(&name, value));
        bounded
    }
}

impl<V, const MOST: usize> From<Bounded<V, MOST>> for Vec<(String, V)> {
    fn from(bounded: Bounded<V, MOST>) -> Self {
        bounded
            .names
            .into_iter()
            .map(|((_, name), value)| (name, value))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn merging_is_counting(names in proptest::collection::vec(0_u8..30, 0..200), cut in 0_usize..200, swap: bool) {
            let count = |names: &[u8]| {
                let mut bounded = Bounded::<u64, 8>::default();
                names.iter().for_each(|name| bounded.add(&name.to_string(), 1));
                bounded
            };
            let (left, right) = names.split_at(cut.min(names.len()));
            let (mut one, other) = if swap { (count(right), count(left)) } else { (count(left), count(right)) };
            one.merge(other);
            prop_assert_eq!(&one, &count(&names));
            for (name, kept) in one.iter() {
                let all = names.iter().filter(|other| other.to_string() == name).count() as u64;
                prop_assert_eq!(*kept, all);
            }
        }
    }
}
