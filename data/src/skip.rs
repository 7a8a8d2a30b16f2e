//! Why a file of the corpus was left out, and how often.

use std::collections::BTreeMap;
use std::fmt;

/// Why a file, or a whole folder, was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// Its name starts with a dot. A hidden folder counts once.
    Hidden,
    /// A symbolic link: what it points to is either in the corpus anyway or meant to be outside.
    Symlink,
    /// Neither a file nor a folder: a socket, a pipe, a device.
    Special,
    /// No permission to read it. A folder counts once.
    Unreadable,
    /// Not one of the kinds of file that are taken from this corpus.
    OtherKind,
    /// Holds nothing.
    Empty,
    /// Holds a NUL byte.
    Binary,
    /// Holds bytes that are not UTF-8.
    NotUtf8,
    /// Its content, byte for byte, is already in the corpus under an earlier path.
    Duplicate,
    /// Left out by chance to stay within `max_bytes`.
    OverBudget,
}

impl SkipReason {
    fn in_words(self) -> &'static str {
        match self {
            Self::Hidden => "hidden",
            Self::Symlink => "symbolic links",
            Self::Special => "not regular files",
            Self::Unreadable => "without read permission",
            Self::OtherKind => "of other kinds",
            Self::Empty => "empty",
            Self::Binary => "binary",
            Self::NotUtf8 => "not UTF-8",
            Self::Duplicate => "duplicates",
            Self::OverBudget => "over max_bytes",
        }
    }
}

/// How many files were left out, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Skipped(BTreeMap<SkipReason, u64>);

impl Skipped {
    /// Files left out for `reason`.
    #[must_use]
    pub fn count(&self, reason: SkipReason) -> u64 {
        self.0.get(&reason).copied().unwrap_or(0)
    }

    /// Files left out for any reason.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// The reasons that occurred, each with its count.
    pub fn iter(&self) -> impl Iterator<Item = (SkipReason, u64)> + '_ {
        self.0.iter().map(|(reason, count)| (*reason, *count))
    }

    /// Counts one more.
    pub(crate) fn add(&mut self, reason: SkipReason) {
        *self.0.entry(reason).or_default() += 1;
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (i, (reason, count)) in self.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{count} {}", reason.in_words())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_read_as_words_and_as_json() {
        let mut skipped = Skipped::default();
        assert_eq!(skipped.to_string(), "none");
        for reason in [SkipReason::NotUtf8, SkipReason::Hidden, SkipReason::NotUtf8] {
            skipped.add(reason);
        }
        assert_eq!(skipped.to_string(), "1 hidden, 2 not UTF-8");
        assert_eq!(
            serde_json::to_string(&skipped).unwrap(),
            r#"{"hidden":1,"not_utf8":2}"#
        );
        assert_eq!(skipped.total(), 3);
    }
}
