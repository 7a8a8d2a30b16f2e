//! `ledger.jsonl` in a run's folder: every change to the job's ledger, one a line.
//!
//! The store holds what counts; this is the history of it, which stays with the run and can be read without a
//! coordinator. It may lack what the store has: of a run that an earlier version began, or one whose disk was full when its
//! coordinator died. So whoever takes a job up brings it [up to date](LedgerLog::catch_up) first.

use std::borrow::Cow;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use lockstep_engine::ids::Step;
use lockstep_engine::ledger::{Change, Entry, Ledger};
use serde::{Deserialize, Serialize};

use crate::jsonl::{self, JsonlError, Lines};

/// The file's name in a run's folder.
pub const FILE_NAME: &str = "ledger.jsonl";

/// A change as it is written: `{"commit": {…}}`, `{"cut": STEP}` or `{"checkpoint": {"step": STEP, "weights": DIGEST}}`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line<'c> {
    Commit(Cow<'c, Entry>),
    Cut(Step),
    Checkpoint { step: Step, weights: Cow<'c, str> },
}

impl<'c> From<&'c Change> for Line<'c> {
    fn from(change: &'c Change) -> Self {
        match change {
            Change::Append(entry) => Self::Commit(Cow::Borrowed(entry)),
            Change::Truncate(step) => Self::Cut(*step),
            Change::Checkpoint(step, weights) => Self::Checkpoint {
                step: *step,
                weights: Cow::Borrowed(weights),
            },
        }
    }
}

impl From<Line<'_>> for Change {
    fn from(line: Line<'_>) -> Self {
        match line {
            Line::Commit(entry) => Self::Append(entry.into_owned()),
            Line::Cut(step) => Self::Truncate(step),
            Line::Checkpoint { step, weights } => Self::Checkpoint(step, weights.into_owned()),
        }
    }
}

/// A change as a line of the history, without its end.
pub(crate) fn line(change: &Change) -> serde_json::Result<String> {
    serde_json::to_string(&Line::from(change))
}

/// Reads the history in the folder of a run, from the first change on.
///
/// # Errors
/// When there is none or it cannot be read, or a line that ends is damaged.
pub fn read(run: &Path) -> Result<Lines<Change>, JsonlError> {
    let Lines { values, torn } = jsonl::read::<Line<'static>>(&run.join(FILE_NAME))?;
    let values = values.into_iter().map(Change::from).collect();
    Ok(Lines { values, torn })
}

/// Brings the history in the folder `run` up to date. Where that cannot be done a person is told, and the job goes on:
/// it is the store that counts.
pub(crate) async fn catch_up(run: PathBuf, entries: Vec<Entry>, checkpoints: Vec<(Step, String)>) {
    let stored = Ledger {
        entries: entries.into_iter().map(|entry| (entry.step, entry)).collect(),
        checkpoints: checkpoints.into_iter().collect(),
    };
    let work = move || LedgerLog::open(&run).and_then(|mut log| log.catch_up(&stored));
    if let Ok(Err(error)) = tokio::task::spawn_blocking(work).await {
        tracing::warn!("{error}; the run's {FILE_NAME} lacks what the store has");
    }
}

/// The history of a run, open for what comes next.
#[derive(Debug)]
pub struct LedgerLog {
    run: PathBuf,
    file: File,
}

impl LedgerLog {
    /// Opens or begins the history in the folder of a run.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn open(run: &Path) -> Result<Self, JsonlError> {
        Ok(Self {
            run: run.to_owned(),
            file: jsonl::open(&run.join(FILE_NAME))?,
        })
    }

    /// Appends the changes, in order; with a checkpoint it is synced, as a run goes on from one.
    ///
    /// # Errors
    /// When the system refuses; some of the changes may be written then.
    pub fn append(&mut self, changes: &[Change]) -> Result<(), JsonlError> {
        let path = || self.run.join(FILE_NAME);
        let mut text = Vec::new();
        for (line, change) in (1..).zip(changes) {
            serde_json::to_writer(&mut text, &Line::from(change)).map_err(|source| JsonlError::Line {
                path: path(),
                line,
                source,
            })?;
            text.push(b'\n');
        }
        let sealed = changes
            .iter()
            .any(|change| matches!(change, Change::Checkpoint(..)));
        let sync = |()| if sealed { self.file.sync_data() } else { Ok(()) };
        let written = (&self.file).write_all(&text).and_then(sync);
        written.map_err(|source| JsonlError::Io {
            action: "write",
            path: path(),
            source,
        })
    }

    /// Appends what is missing to make the history end in what the store holds: nothing where it does.
    ///
    /// # Errors
    /// When the history is damaged, or cannot be read or written.
    pub fn catch_up(&mut self, stored: &Ledger) -> Result<(), JsonlError> {
        let mut written = Ledger::replay(read(&self.run)?.values);
        let common = written
            .entries
            .values()
            .zip(stored.entries.values())
            .take_while(|(a, b)| is_same(a, b))
            .last()
            .map_or(Step(0), |(entry, _)| entry.step);
        let mut changes = Vec::new();
        let is_beyond = |last: Option<&Step>| last.is_some_and(|&last| last > common);
        if is_beyond(written.entries.keys().next_back()) || is_beyond(written.checkpoints.keys().next_back())
        {
            changes.push(Change::Truncate(common));
            written.apply(Change::Truncate(common));
        }
        let entries = stored.entries.range(common.next()..);
        changes.extend(entries.map(|(_, entry)| Change::Append(entry.clone())));
        let checkpoints = stored.checkpoints.iter();
        let missing = checkpoints.filter(|(step, weights)| written.checkpoints.get(step) != Some(weights));
        changes.extend(missing.map(|(step, weights)| Change::Checkpoint(*step, weights.clone())));
        self.append(&changes)
    }
}

/// Whether two entries tell of the same commit. Floats may lose their last bit on the way to a file and back.
fn is_same(a: &Entry, b: &Entry) -> bool {
    (a.step, a.epoch, a.skipped) == (b.step, b.epoch, b.skipped) && a.digest == b.digest && a.spans == b.spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_engine::ids::{Epoch, WorkerId};
    use lockstep_engine::ledger::Span;
    use proptest::prelude::*;

    fn entry(step: u64, attempt: u64) -> Entry {
        let worker = WorkerId {
            node: "n".parse().unwrap(),
            slot: 3,
            incarnation: u128::MAX - u128::from(attempt),
        };
        let positions = step * 2..step * 2 + 2;
        Entry {
            step: Step(step),
            epoch: Epoch(attempt),
            workers: 1,
            digest: format!("d{attempt}"),
            loss: 0.25,
            spans: vec![Span { positions, worker }],
            milliseconds: 1.5,
            skipped: attempt.is_multiple_of(3),
            unseen_to: None,
        }
    }

    /// Any changes, not only those that a run makes.
    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let change = (0u8..10, 1u64..8, 1u64..40).prop_map(|(kind, step, draw)| match kind {
            0 | 1 => Change::Truncate(Step(step - 1)),
            2 | 3 => Change::Checkpoint(Step(step), format!("w{draw}")),
            _ => Change::Append(entry(step, draw)),
        });
        prop::collection::vec(change, 1..20)
    }

    /// A ledger as a run leaves it: all steps from the first on.
    fn ledger(draws: &[u64]) -> Ledger {
        let steps = (1..).zip(draws);
        let marks = steps.clone().filter(|(step, _)| step % 3 == 0);
        Ledger {
            entries: steps
                .map(|(step, &draw)| (Step(step), entry(step, draw)))
                .collect(),
            checkpoints: marks
                .map(|(step, draw)| (Step(step), format!("w{draw}")))
                .collect(),
        }
    }

    /// The same ledger, kept as a list of what counts.
    fn by_hand(changes: &[Change]) -> (Vec<Entry>, Vec<(Step, String)>) {
        let (mut entries, mut checkpoints): (Vec<Entry>, Vec<(Step, String)>) = Default::default();
        for change in changes {
            match change {
                Change::Append(entry) => {
                    entries.retain(|other| other.step != entry.step);
                    entries.push(entry.clone());
                }
                Change::Truncate(step) => {
                    entries.retain(|entry| entry.step <= *step);
                    checkpoints.retain(|(of, _)| of <= step);
                }
                Change::Checkpoint(step, weights) => {
                    checkpoints.retain(|(of, _)| of != step);
                    checkpoints.push((*step, weights.clone()));
                }
            }
        }
        entries.sort_by_key(|entry| entry.step);
        checkpoints.sort();
        (entries, checkpoints)
    }

    fn replayed(run: &Path) -> (Vec<Entry>, Vec<(Step, String)>) {
        let ledger = Ledger::replay(read(run).unwrap().values);
        let checkpoints = ledger.checkpoints.into_iter().collect();
        (ledger.entries.into_values().collect(), checkpoints)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_was_appended_is_read_back_wherever_the_last_line_is_cut(
            changes in changes(), batch in 1usize..5, cut: prop::sample::Index,
        ) {
            let run = tempfile::tempdir().unwrap();
            let mut log = LedgerLog::open(run.path()).unwrap();
            for batch in changes.chunks(batch) {
                log.append(batch).unwrap();
            }
            prop_assert_eq!(read(run.path()).unwrap(), Lines { values: changes.clone(), torn: false });
            prop_assert_eq!(replayed(run.path()), by_hand(&changes));

            let path = run.path().join(FILE_NAME);
            let bytes = std::fs::read(&path).unwrap();
            let last = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let kept = last + cut.index(bytes.len() - last);
            std::fs::write(&path, &bytes[..kept]).unwrap();
            let whole = &changes[..changes.len() - 1];
            let torn = kept > last;
            prop_assert_eq!(read(run.path()).unwrap(), Lines { values: whole.to_vec(), torn });

            // Whoever goes on writes on a line of its own.
            LedgerLog::open(run.path()).unwrap().append(&changes).unwrap();
            let all = [whole, &changes].concat();
            prop_assert_eq!(read(run.path()).unwrap(), Lines { values: all, torn: false });
        }

        #[test]
        fn whatever_the_history_lacks_is_caught_up_with(
            shared in prop::collection::vec(1u64..40, 0..6), ours in prop::collection::vec(1u64..40, 0..6),
            theirs in prop::collection::vec(1u64..40, 0..6), torn in any::<bool>(),
        ) {
            let run = tempfile::tempdir().unwrap();
            let written = ledger(&[&shared[..], &ours].concat());
            let stored = ledger(&[&shared[..], &theirs].concat());
            let mut log = LedgerLog::open(run.path()).unwrap();
            log.catch_up(&written).unwrap();
            prop_assert_eq!(Ledger::replay(read(run.path()).unwrap().values), written);
            if torn {
                (&log.file).write_all(b"{\"cut\": 1").unwrap();
            }
            let mut log = LedgerLog::open(run.path()).unwrap();
            log.catch_up(&stored).unwrap();
            prop_assert_eq!(Ledger::replay(read(run.path()).unwrap().values), stored.clone());
            let before = std::fs::read(run.path().join(FILE_NAME)).unwrap();
            log.catch_up(&stored).unwrap();
            prop_assert_eq!(std::fs::read(run.path().join(FILE_NAME)).unwrap(), before, "nothing is missing");
        }
    }

    #[test]
    fn a_line_is_as_documented() {
        let run = tempfile::tempdir().unwrap();
        let changes = [
            Change::Append(Entry {
                loss: f32::NAN,
                ..entry(1, 1)
            }),
            Change::Truncate(Step(0)),
            Change::Checkpoint(Step(5), "ab".into()),
        ];
        LedgerLog::open(run.path()).unwrap().append(&changes).unwrap();
        let text = std::fs::read_to_string(run.path().join(FILE_NAME)).unwrap();
        let incarnation = u128::MAX - 1;
        let expected = format!(
            "{{\"commit\":{{\"step\":1,\"epoch\":1,\"workers\":1,\"digest\":\"d1\",\"loss\":null,\"spans\":[{{\"positions\":\
             {{\"start\":2,\"end\":4}},\"worker\":{{\"node\":\"n\",\"slot\":3,\"incarnation\":{incarnation}}}}}],\
             \"milliseconds\":1.5}}}}\n{{\"cut\":0}}\n{{\"checkpoint\":{{\"step\":5,\"weights\":\"ab\"}}}}\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn damage_is_named_by_file_and_line() {
        let run = tempfile::tempdir().unwrap();
        let path = run.path().join(FILE_NAME);
        std::fs::write(&path, "{\"cut\":0}\n{\"cut\":\n{\"cut\":0}\n").unwrap();
        let error = read(run.path()).unwrap_err().to_string();
        let named = format!("{} is damaged in line 2: ", path.display());
        assert!(error.starts_with(&named), "{error}");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(
            read(run.path()),
            Err(JsonlError::Io { action: "open", .. })
        ));
    }
}
