//! What the environment variable says: which point, whose, and what happens there.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A place that a process passes and where a fault can be made to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Point {
    /// A worker is about to send the first of its gradient: its lanes are computed, but for the rest of the last backward.
    BeforeSend,
    /// A worker's partials of the first bucket are sent, its reduction is under way; others may still be computed.
    DuringReduce,
    /// A worker has reduced the gradient and not digested it yet.
    Reduced,
    /// A worker holds the reduced gradient and is about to report its digest.
    BeforeVerdict,
    /// A worker knows that the step is committed and is about to apply it.
    AfterCommit,
    /// A worker has applied the step.
    Applied,
    /// A worker has written a checkpoint and is about to rename it into place.
    BeforeRename,
    /// A worker is about to load a checkpoint that it has verified.
    BeforeLoad,
    /// A newcomer is about to receive the state.
    DuringJoin,
    /// A donor is about to send the state.
    DuringDonation,
    /// The coordinator has decided on a commit and told nobody.
    LeaderBeforeCommit,
    /// The coordinator has told the members of a commit.
    LeaderAfterCommit,
    /// A build of a dataset has written what a task leaves and is about to give it its name. The step is the number of the
    /// task among those of this process, from 1, in the order in which they get here.
    TaskWritten,
    /// It has its name.
    TaskDone,
}

impl Point {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::BeforeSend,
        Self::DuringReduce,
        Self::Reduced,
        Self::BeforeVerdict,
        Self::AfterCommit,
        Self::Applied,
        Self::BeforeRename,
        Self::BeforeLoad,
        Self::DuringJoin,
        Self::DuringDonation,
        Self::LeaderBeforeCommit,
        Self::LeaderAfterCommit,
        Self::TaskWritten,
        Self::TaskDone,
    ];

    /// As it is written in the variable.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeSend => "before-send",
            Self::DuringReduce => "during-reduce",
            Self::Reduced => "reduced",
            Self::BeforeVerdict => "before-verdict",
            Self::AfterCommit => "after-commit",
            Self::Applied => "applied",
            Self::BeforeRename => "before-rename",
            Self::BeforeLoad => "before-load",
            Self::DuringJoin => "during-join",
            Self::DuringDonation => "during-donation",
            Self::LeaderBeforeCommit => "leader-before-commit",
            Self::LeaderAfterCommit => "leader-after-commit",
            Self::TaskWritten => "task-written",
            Self::TaskDone => "task-done",
        }
    }
}

/// What happens at the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// SIGKILL to this process.
    Kill,
    /// SIGSTOP to this process; somebody else sends SIGCONT.
    Stop,
    /// The thread waits until a file beside the marker, with `.go` behind its name, exists; at most 30 s.
    Hold,
    /// The next frame of the data plane is sent with a flipped bit behind its checksum's back.
    Corrupt,
    /// A bit flips, and nobody notices: at `reduced` of the worker's copy of the gradient, at `applied` of its weights.
    Miscompute,
    /// The process ends with status 1.
    Exit,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Kill,
        Self::Stop,
        Self::Hold,
        Self::Corrupt,
        Self::Miscompute,
        Self::Exit,
    ];

    /// As it is written in the variable.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Hold => "hold",
            Self::Corrupt => "corrupt",
            Self::Miscompute => "miscompute",
            Self::Exit => "exit",
        }
    }
}

/// A fault: `point=…;do=…;once=MARKER` and, to narrow it down, `step=…`, `who=…`, `after=POINT` and `times=…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where.
    pub point: Point,
    /// What.
    pub action: Action,
    /// The file that whoever has the fault creates first. While it exists nobody else has it: not another process
    /// under the same variable, and not the one that is started in place of the dead.
    pub once: PathBuf,
    /// Only at this step; by default at the first.
    pub step: Option<u64>,
    /// Only in this process: `NODE/SLOT` of a rank, or `coordinator`; by default in whichever is first.
    pub who: Option<String>,
    /// Only once this process has passed that point.
    pub after: Option<Point>,
    /// So often in the process that has it, each time in another step.
    pub times: u64,
}

/// A value that is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("LOCKSTEP_FAULT, `{part}`: {problem}; unset it, or see docs/faults.md")]
pub struct Malformed {
    /// The part that cannot be read.
    pub part: String,
    /// Why.
    pub problem: String,
}

impl FromStr for Plan {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (mut point, mut action, mut once) = (None, None, None);
        let (mut step, mut who, mut after, mut times) = (None, None, None, None);
        for part in text.split(';') {
            let malformed = |problem: String| Malformed {
                part: part.to_owned(),
                problem,
            };
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| malformed("not KEY=VALUE".to_owned()))?;
            let repeated = match key {
                "point" => point
                    .replace(one_of(value, Point::ALL, Point::name).map_err(malformed)?)
                    .is_some(),
                "after" => after
                    .replace(one_of(value, Point::ALL, Point::name).map_err(malformed)?)
                    .is_some(),
                "do" => action
                    .replace(one_of(value, Action::ALL, Action::name).map_err(malformed)?)
                    .is_some(),
                "once" if value.starts_with('/') => once.replace(PathBuf::from(value)).is_some(),
                "once" => return Err(malformed("must be an absolute path".to_owned())),
                "step" | "times" => {
                    let number = value
                        .parse()
                        .map_err(|_| malformed("must be a whole number".to_owned()))?;
                    let field = if key == "step" { &mut step } else { &mut times };
                    field.replace(number).is_some()
                }
                "who" => who.replace(value.to_owned()).is_some(),
                _ => {
                    return Err(malformed(
                        "the keys are point, do, once, step, who, after and times".to_owned(),
                    ));
                }
            };
            if repeated {
                return Err(malformed(format!("`{key}` is given twice")));
            }
        }
        if times == Some(0) || (step.is_some() && times.is_some_and(|times| times > 1)) {
            return Err(Malformed {
                part: text.to_owned(),
                problem: "`times` must be at least 1, and 1 together with `step`".to_owned(),
            });
        }
        let missing = |key: &str| Malformed {
            part: text.to_owned(),
            problem: format!("`{key}` is missing"),
        };
        Ok(Self {
            point: point.ok_or_else(|| missing("point"))?,
            action: action.ok_or_else(|| missing("do"))?,
            once: once.ok_or_else(|| missing("once"))?,
            step,
            who,
            after,
            times: times.unwrap_or(1),
        })
    }
}

fn one_of<T: Copy, const N: usize>(
    value: &str,
    all: [T; N],
    name: fn(T) -> &'static str,
) -> Result<T, String> {
    let found = all.into_iter().find(|&one| name(one) == value);
    found.ok_or_else(|| format!("must be one of {}", all.map(name).join(", ")))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (point, action, once) = (self.point.name(), self.action.name(), self.once.display());
        write!(f, "point={point};do={action};once={once}")?;
        if let Some(step) = self.step {
            write!(f, ";step={step}")?;
        }
        if let Some(who) = &self.who {
            write!(f, ";who={who}")?;
        }
        if let Some(after) = self.after {
            write!(f, ";after={}", after.name())?;
        }
        match self.times {
            1 => Ok(()),
            times => write!(f, ";times={times}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plan_survives_the_variable() {
        for point in Point::ALL {
            for action in Action::ALL {
                for (step, who, after, times) in [
                    (None, None, None, 1),
                    (Some(7), Some("beta/0".to_owned()), Some(Point::DuringDonation), 1),
                    (None, None, None, 2),
                ] {
                    let once = "/tmp/marker".into();
                    let plan = Plan {
                        point,
                        action,
                        once,
                        step,
                        who,
                        after,
                        times,
                    };
                    assert_eq!(plan.to_string().parse(), Ok(plan));
                }
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        for (text, expected) in [
            ("", "not KEY=VALUE"),
            ("point=nowhere", "must be one of before-send, during-reduce"),
            ("point=before-send;do=panic", "must be one of kill, stop, hold"),
            ("point=before-send;do=kill", "`once` is missing"),
            ("do=kill;once=/m", "`point` is missing"),
            ("point=before-send;once=/m", "`do` is missing"),
            ("once=m", "an absolute path"),
            ("step=-1", "a whole number"),
            ("do=kill;do=stop", "given twice"),
            ("colour=red", "the keys are"),
            ("point=reduced;do=kill;once=/m;times=0", "at least 1"),
            (
                "point=reduced;do=kill;once=/m;times=2;step=3",
                "together with `step`",
            ),
        ] {
            let error = text.parse::<Plan>().unwrap_err().to_string();
            assert!(
                error.contains(expected) && error.contains("docs/faults.md"),
                "{text}: {error}"
            );
        }
    }
}
