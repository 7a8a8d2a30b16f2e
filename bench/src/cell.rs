//! The chaos matrix: faults, moments and targets; which cells there are, and which make no sense.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT once the others have gone on without it.
    Stop,
    /// Its machine's packets are lost, both ways, until the others have gone on without it.
    Cut,
    /// Its machine's link is slow for some steps.
    Slow,
    /// A flipped bit in a frame that it sends; for a coordinator, bytes at its port that are no frame.
    Corrupt,
    /// No room on the disk that it writes to, for a while.
    Disk,
}

/// When it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Moment {
    /// A worker has computed its lanes and sent nothing yet.
    BeforeSend,
    /// Partials are sent, the reduced pieces are not.
    DuringReduce,
    /// The gradient is reduced; nobody has been told that the step is committed.
    BeforeVerdict,
    /// The step is committed and not applied yet.
    AfterCommit,
    /// A checkpoint is written and not renamed yet.
    Rename,
    /// A newcomer is about to get the state from a donor.
    Join,
}

/// To whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// A worker; the newcomer in a join.
    Worker,
    /// The worker that gives its state to a newcomer; after that but in a join.
    Donor,
    /// The coordinator that leads.
    Leader,
    /// A member of etcd.
    Etcd,
}

macro_rules! names {
    ($type:ident { $($name:literal = $variant:ident),* $(,)? }) => {
        impl $type {
            /// All of them, in the order of the matrix.
            pub const ALL: &[Self] = &[$(Self::$variant),*];
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $name),* })
            }
        }
        impl FromStr for $type {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($name => Ok(Self::$variant),)*
                    _ => Err(format!("`{text}` is none of {}", [$($name),*].join(", "))),
                }
            }
        }
    };
}

names!(Fault { "kill" = Kill, "stop" = Stop, "cut" = Cut, "slow" = Slow, "corrupt" = Corrupt, "disk" = Disk });
names!(Moment {
    "before-send" = BeforeSend,
    "during-reduce" = DuringReduce,
    "before-verdict" = BeforeVerdict,
    "after-commit" = AfterCommit,
    "rename" = Rename,
    "join" = Join,
});
names!(Target { "worker" = Worker, "donor" = Donor, "leader" = Leader, "etcd" = Etcd });

/// A fault at a moment on a target, written `FAULT:MOMENT:TARGET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Cell {
    /// What.
    pub fault: Fault,
    /// When.
    pub moment: Moment,
    /// To whom.
    pub target: Target,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.fault, self.moment, self.target)
    }
}

impl FromStr for Cell {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let [fault, moment, target] = parts[..] else {
            return Err(format!(
                "`{text}` is not FAULT:MOMENT:TARGET, such as kill:during-reduce:worker"
            ));
        };
        Ok(Self {
            fault: fault.parse()?,
            moment: moment.parse()?,
            target: target.parse()?,
        })
    }
}

impl Cell {
    /// The whole matrix, row by row.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        for &fault in Fault::ALL {
            for &moment in Moment::ALL {
                cells.extend(Target::ALL.iter().map(|&target| Self {
                    fault,
                    moment,
                    target,
                }));
            }
        }
        cells
    }

    /// Two cells of every row that have every column and every target among them: two diagonals of the matrix.
    #[must_use]
    pub fn subset() -> Vec<Self> {
        let mut cells = Vec::new();
        for (row, &fault) in Fault::ALL.iter().enumerate() {
            for diagonal in [0, 3] {
                let moment = Moment::ALL[(row + diagonal) % Moment::ALL.len()];
                let targets = (0..Target::ALL.len())
                    .map(|turn| Target::ALL[(row + diagonal + turn) % Target::ALL.len()]);
                let mut choices = targets.map(|target| Self {
                    fault,
                    moment,
                    target,
                });
                cells.extend(choices.find(|cell| cell.senseless().is_none()));
            }
        }
        cells
    }

    /// Why there is nothing to try here, if that is so.
    #[must_use]
    pub fn senseless(&self) -> Option<&'static str> {
        match (self.fault, self.target) {
            (Fault::Corrupt, Target::Etcd) => {
                Some("frames between members of etcd are etcd's own, with its own checksums; we send none")
            }
            _ => None,
        }
    }

    /// Whether it needs links that can be cut, or disks that can be filled.
    #[must_use]
    pub fn needs_root(&self) -> bool {
        self.needs_links() || self.fault == Fault::Disk
    }

    /// Whether it needs machines with links of their own.
    #[must_use]
    pub fn needs_links(&self) -> bool {
        matches!(self.fault, Fault::Cut | Fault::Slow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_is_read_as_it_is_written() {
        let all = Cell::all();
        assert_eq!(all.len(), 6 * 6 * 4);
        for cell in all {
            assert_eq!(cell.to_string().parse(), Ok(cell));
        }
        for (bad, says) in [
            ("kill", "such as kill:during-reduce:worker"),
            ("kill:rename:worker:x", "such as"),
            ("poke:rename:worker", "`poke` is none of kill, stop"),
            ("kill:lunch:worker", "`lunch` is none of before-send"),
            ("kill:rename:boss", "`boss` is none of worker"),
        ] {
            let error = bad.parse::<Cell>().unwrap_err();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }

    #[test]
    fn the_subset_has_every_row_column_and_target_and_only_cells_that_make_sense() {
        let cells = Cell::subset();
        assert!(cells.iter().all(|cell| cell.senseless().is_none()));
        assert!(
            Fault::ALL
                .iter()
                .all(|&fault| cells.iter().any(|cell| cell.fault == fault))
        );
        assert!(
            Moment::ALL
                .iter()
                .all(|&moment| cells.iter().any(|cell| cell.moment == moment))
        );
        assert!(
            Target::ALL
                .iter()
                .all(|&target| cells.iter().any(|cell| cell.target == target))
        );
        // A cell needs a few seconds; the subset is for every change.
        assert!(cells.len() <= 12);
        assert_eq!(cells, Cell::subset());
    }

    #[test]
    fn few_cells_make_no_sense() {
        assert_eq!(
            Cell::all()
                .iter()
                .filter(|cell| cell.senseless().is_some())
                .count(),
            6
        );
    }
}
