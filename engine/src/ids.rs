//! Identity and fencing: every name a decision speaks of is a type of its own.

use std::fmt;
use std::str::FromStr;

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The one after this.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// A membership generation of a job. Strictly increasing for ever; persisted before it is announced.
    /// Zero means that no membership was announced yet.
    Epoch(u64)
}
counter! {
    /// A global optimizer step, counted from 1. Zero is the state before the first.
    Step(u64)
}
counter! {
    /// One of the `L` fixed slots into which a step's microbatches are grouped.
    Lane(u32)
}
counter! {
    /// A worker's index among the sorted members of an epoch.
    Rank(u32)
}

impl Lane {
    /// As an index.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl Rank {
    /// As an index.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A job's name in the store and on the wire: lower-case letters, digits and dashes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(String);

/// A machine's stable name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(String);

/// A name that is not a valid identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{value}`: {problem}")]
pub struct InvalidId {
    what: &'static str,
    value: String,
    problem: &'static str,
}

fn check_name(what: &'static str, value: &str) -> Result<(), InvalidId> {
    let problem = if value.is_empty() || value.len() > 63 {
        "must be 1 to 63 characters long"
    } else if !value
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b))
    {
        "may hold only a-z, 0-9, `-`, `.` and `_`"
    } else if !value.as_bytes()[0].is_ascii_alphanumeric() {
        "must start with a letter or a digit"
    } else {
        return Ok(());
    };
    Err(InvalidId {
        what,
        value: value.to_owned(),
        problem,
    })
}

macro_rules! name {
    ($name:ident, $what:literal) => {
        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(value: &str) -> Result<Self, InvalidId> {
                check_name($what, value)?;
                Ok(Self(value.to_owned()))
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(value: String) -> Result<Self, InvalidId> {
                value.parse()
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

name!(JobId, "job name");
name!(NodeId, "node name");

/// One life of one rank process: the same slot restarted is a new worker, so nothing said to or by its
/// predecessor can be taken for it. Sorts by node, then slot, which fixes the order of ranks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct WorkerId {
    /// The machine it runs on.
    pub node: NodeId,
    /// Its device on that machine, counted from 0.
    pub slot: u32,
    /// Drawn anew by every process.
    pub incarnation: u128,
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.slot)?;
        if f.alternate() {
            write!(f, "#{:08x}", self.incarnation >> 96)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_where_they_enter() {
        for good in ["a", "node-7", "first", "10.0.0.1", "a_b"] {
            assert_eq!(good.parse::<NodeId>().unwrap().as_str(), good);
        }
        let long = "x".repeat(64);
        for bad in ["", "A", "a b", "-a", "ä", long.as_str(), "a/b"] {
            assert!(bad.parse::<JobId>().is_err(), "{bad}");
        }
        assert!(serde_test_like("\"Bad Name\""));
    }

    fn serde_test_like(text: &str) -> bool {
        toml::from_str::<std::collections::BTreeMap<String, JobId>>(&format!("a = {text}")).is_err()
    }

    #[test]
    fn a_restarted_slot_sorts_in_its_old_place_but_is_another_worker() {
        let id = |slot, incarnation| WorkerId {
            node: "n".parse().unwrap(),
            slot,
            incarnation,
        };
        assert_ne!(id(1, 5), id(1, 6));
        assert!(id(0, 9) < id(1, 1) && id(1, 6) < id(2, 0));
        assert_eq!(id(1, 7).to_string(), "n/1");
    }
}
