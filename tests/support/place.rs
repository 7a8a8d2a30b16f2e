//! A folder of its own for each test, and the command line run inside it.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use tempfile::TempDir;

use super::job::{self, Job};
use super::process::{Process, Ran};
use super::system::{self, Tagged};
use super::{PATIENCE, system::TAG};

/// A folder and the processes that were started in it. Both are gone when it is dropped.
pub(crate) struct Place {
    root: TempDir,
    dataset: OnceCell<Arc<TempDir>>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            dataset: OnceCell::new(),
        }
    }

    /// A place with a job's spec in `NAME.toml`.
    pub(crate) fn with(job: &Job) -> Self {
        let place = Self::new();
        place.write(job);
        place
    }

    /// Writes a job's spec to `NAME.toml`.
    pub(crate) fn write(&self, job: &Job) {
        let spec = job.toml(&self.dataset());
        fs::write(self.path(&format!("{}.toml", job.name)), spec).unwrap();
    }

    /// The shared dataset, kept for as long as this place.
    pub(crate) fn dataset(&self) -> PathBuf {
        self.dataset.get_or_init(job::dataset).path().join("dataset")
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        let path = self.path(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The binary with these arguments, given as on a command line, in this folder.
    pub(crate) fn command(&self, line: &str) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_lockstep")), line)
    }

    /// The same with another copy of the binary.
    pub(crate) fn command_of(&self, program: &Path, line: &str) -> Command {
        let mut command = Command::new(program);
        command
            .args(line.split_whitespace())
            .current_dir(self.root())
            .env(TAG, self.tag())
            .env_remove("RUST_LOG")
            .env_remove("LOCKSTEP_COORDINATOR");
        command
    }

    pub(crate) fn start(&self, line: &str) -> Process {
        Process::start(&mut self.command(line))
    }

    /// The same with a rank that is [held](Self::hold_before) before `step`.
    pub(crate) fn start_held(&self, line: &str, step: u64) -> Process {
        let mut command = self.command(line);
        command.env(lockstep_faults::VARIABLE, self.hold_before(step));
        Process::start(&mut command)
    }

    /// The fault of a rank that waits before it sends its gradient of `step` until it is [let go](Self::let_go). Where all
    /// members are needed, so do the others.
    pub(crate) fn hold_before(&self, step: u64) -> String {
        self.hold(&format!("point=before-send;step={step}"))
    }

    /// The fault of a rank that waits at `point`, where it leaves the file `held`, until it is [let go](Self::let_go).
    pub(crate) fn hold(&self, point: &str) -> String {
        format!("{point};do=hold;once={}", self.path("held").display())
    }

    /// Ends the wait of the rank that is held here.
    pub(crate) fn let_go(&self) {
        fs::write(self.path("held.go"), "").unwrap();
    }

    /// Runs to the end, within [`PATIENCE`].
    pub(crate) fn run(&self, line: &str) -> Ran {
        self.start(line).finish()
    }

    /// What `run` says of itself in JSON, once it has ended well.
    pub(crate) fn summary(&self, line: &str) -> serde_json::Value {
        self.run(&format!("{line} -o json")).code(0).json()
    }

    fn tag(&self) -> String {
        self.root().display().to_string()
    }

    /// The live processes that were started here, by whomever.
    pub(crate) fn processes(&self) -> Vec<Tagged> {
        system::tagged(&self.tag())
    }

    /// Sends SIGKILL to all of them, and waits until they have let go of their files.
    pub(crate) fn kill_all(&self) {
        system::kill_tagged(&self.tag());
    }

    /// Waits until none of the processes started here lives any more.
    #[track_caller]
    pub(crate) fn await_nobody(&self) {
        self.await_none_like("");
    }

    /// Waits until none whose command line contains `part` lives any more.
    #[track_caller]
    pub(crate) fn await_none_like(&self, part: &str) {
        let deadline = Instant::now() + PATIENCE;
        let left = system::await_none(&self.tag(), deadline, |process| process.command.contains(part));
        assert!(left.is_empty(), "still there after {PATIENCE:?}: {left:#?}");
    }

    /// Waits until the run in the folder `out` has committed `step`.
    pub(crate) fn await_step(&self, out: &str, step: u64) {
        let folder = self.path(out);
        fs::create_dir_all(&folder).unwrap();
        let reached = |text: &str| {
            let last = text.lines().filter_map(step_of).next_back();
            last.filter(|last| *last >= step)
        };
        let what = format!("step {step}");
        system::await_text(&folder.join("metrics.jsonl"), &what, PATIENCE, reached);
    }

    /// What happened so far in the run in the folder `out`: kinds and texts of its events.
    pub(crate) fn events(&self, out: &str) -> Vec<(String, String)> {
        events(&self.read(&format!("{out}/events.jsonl")))
    }

    /// Waits until `look` finds what it wants among the kinds and texts of a run's events so far.
    pub(crate) fn await_events<T>(
        &self,
        out: &str,
        what: &str,
        look: impl Fn(&[(String, String)]) -> Option<T>,
    ) -> T {
        let folder = self.path(out);
        fs::create_dir_all(&folder).unwrap();
        system::await_text(&folder.join("events.jsonl"), what, PATIENCE, |text| {
            look(&events(text))
        })
    }

    /// Waits for an event of this kind whose text has this in it; returns the text.
    pub(crate) fn await_event(&self, out: &str, kind: &str, part: &str) -> String {
        self.await_events(out, &format!("{kind}: {part}"), |events| {
            let wanted = |(of, text): &&(String, String)| of == kind && text.contains(part);
            events.iter().find(wanted).map(|(_, text)| text.clone())
        })
    }

    /// Waits until the checkpoint of `step` is complete: it is written in the background, and given up when the next
    /// one is due before that.
    pub(crate) fn await_checkpoint(&self, out: &str, step: u64) {
        let complete = format!("the checkpoint of step {step} is complete");
        self.await_event(out, "checkpoint", &complete);
    }

    /// Waits until any checkpoint is complete, and returns the step of the first that is.
    pub(crate) fn await_first_checkpoint(&self, out: &str) -> u64 {
        let text = self.await_event(out, "checkpoint", " is complete");
        let step = text.trim_start_matches("the checkpoint of step ");
        step.split(' ').next().unwrap().parse().unwrap()
    }

    /// The last step that the run in the folder `out` has committed; 0 before the first.
    pub(crate) fn last_step(&self, out: &str) -> u64 {
        let text = fs::read_to_string(self.path(&format!("{out}/metrics.jsonl"))).unwrap_or_default();
        text.lines().filter_map(step_of).next_back().unwrap_or_default()
    }

    /// Waits until a file of this place is there.
    pub(crate) fn await_file(&self, name: &str) {
        let path = self.path(name);
        system::await_text(&path, "the file", PATIENCE, |_| path.exists().then_some(()));
    }

    /// The summary of the run in the folder `out`, after checking that it has the bits and samples of the `other`.
    #[track_caller]
    pub(crate) fn same_as(&self, other: &serde_json::Value, out: &str) -> serde_json::Value {
        let summary: serde_json::Value =
            serde_json::from_str(&self.read(&format!("{out}/summary.json"))).unwrap();
        for field in ["weights_blake3", "steps", "samples"] {
            assert_eq!(summary[field], other[field], "{field} of {summary:#}");
        }
        for field in ["samples_missed", "samples_repeated"] {
            assert_eq!(summary[field], 0, "{field} of {summary:#}");
        }
        summary
    }

    /// The live rank processes of a node, or of all with an empty name.
    pub(crate) fn ranks(&self, node: &str) -> Vec<Tagged> {
        let all = self.processes().into_iter();
        let mut ranks: Vec<Tagged> = all
            .filter(|process| process.command.contains(&format!("--node {node}")))
            .collect();
        ranks.sort_by(|a, b| a.command.cmp(&b.command));
        ranks
    }

    /// The regular files below a folder of this place, which may be missing.
    pub(crate) fn files(&self, name: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.path(name)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let is_folder = entry.file_type().unwrap().is_dir();
                if is_folder { &mut folders } else { &mut found }.push(entry.path());
            }
        }
        found
    }
}

/// Kinds and texts of the events whose lines are whole.
fn events(text: &str) -> Vec<(String, String)> {
    let event = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        Some((
            event["kind"].as_str()?.to_owned(),
            event["text"].as_str()?.to_owned(),
        ))
    };
    text.lines().filter_map(event).collect()
}

/// The step of a line of `metrics.jsonl`; none while the line is being written.
fn step_of(line: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(line).ok()?["step"].as_u64()
}

impl Drop for Place {
    fn drop(&mut self) {
        self.kill_all();
        // A folder whose processes still write to it cannot be removed.
        system::await_none(&self.tag(), Instant::now() + PATIENCE, |_| true);
    }
}
