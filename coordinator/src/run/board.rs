//! What people see of a job: where it stands, its notes and its workers' logs.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use lockstep_engine::ids::JobId;
use lockstep_engine::job::NoteKind;
use lockstep_proto::wire;
use tokio::sync::broadcast;

use super::{Tail, Tools};
use crate::lines::Log;
use crate::store::{JobRecord, State};

pub(crate) struct Board {
    pub(crate) record: JobRecord,
    /// Where the files are to which its lines are appended.
    pub(super) folder: PathBuf,
    /// Why the store takes nothing for now.
    pub(super) away: Option<String>,
    updates: broadcast::Sender<wire::Update>,
    notes: Tail,
    logs: Tail,
}

impl Board {
    /// With what is in `folder` already.
    pub(super) fn new(record: JobRecord, folder: PathBuf) -> Self {
        let tail = |log: Log| Tail::of(&folder.join(log.file_name()));
        let (notes, logs) = (tail(Log::Events), tail(Log::Workers));
        Self {
            record,
            folder,
            away: None,
            updates: broadcast::channel(4096).0,
            notes,
            logs,
        }
    }

    pub(super) fn name(&self) -> &JobId {
        &self.record.name
    }

    pub(super) fn is_over(&self) -> bool {
        self.record.state.is_over()
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<wire::Update> {
        self.updates.subscribe()
    }

    pub(super) fn tail(&self, logs: bool) -> &Tail {
        if logs { &self.logs } else { &self.notes }
    }

    pub(super) fn log_line(&mut self, tools: &Tools<'_>, worker: &str, text: &str) {
        let line = format!("{worker} {text}");
        self.line(tools, Log::Workers, line.clone());
        self.logs.push(line);
    }

    /// Appends a line to one of the job's files.
    pub(super) fn line(&self, tools: &Tools<'_>, log: Log, line: String) {
        tools.recorder.line(self.name(), &self.folder, log, line);
    }

    pub(super) fn note(&mut self, tools: &Tools<'_>, kind: NoteKind, text: String) {
        tracing::info!(job = %self.name(), ?kind, "{text}");
        let kind = serde_json::to_value(kind)
            .ok()
            .and_then(|v| v.as_str().map(str::to_owned))
            .unwrap_or_default();
        let time_ms = unix_ms();
        let line = serde_json::json!({ "time_ms": time_ms, "kind": kind, "text": text }).to_string();
        self.line(tools, Log::Events, line.clone());
        self.notes.push(line);
        self.show(wire::update::What::Note(wire::Note { time_ms, kind, text }));
    }

    /// The store takes nothing for now, for this reason, or takes it again. Whether that is news.
    pub(super) fn store_away(&mut self, tools: &Tools<'_>, problem: Option<&str>) -> bool {
        if self.away.as_deref() == problem {
            return false;
        }
        match (&self.away, problem) {
            (None, Some(problem)) => self.note(tools, NoteKind::Storage, problem.to_owned()),
            (Some(_), None) => {
                let text = "the store takes records again".to_owned();
                self.note(tools, NoteKind::Storage, text);
            }
            _ => {}
        }
        self.away = problem.map(str::to_owned);
        true
    }

    /// What of the job is as it was submitted, and its summary.
    pub(super) fn shown(&self) -> wire::Job {
        let record = &self.record;
        let summary = record.summary.as_ref().map(ToString::to_string);
        wire::Job {
            name: record.name.to_string(),
            out: record.out.display().to_string(),
            submitted_ms: record.submitted_ms,
            summary: summary.unwrap_or_default(),
            spec: record.spec.clone(),
            ..wire::Job::default()
        }
    }

    /// Tells whoever watches.
    pub(super) fn show(&self, what: wire::update::What) {
        self.updates.send(wire::Update { what: Some(what) }).ok();
    }
}

/// A state on the wire.
pub(super) fn shown_state(state: State) -> wire::JobState {
    match state {
        State::Queued => wire::JobState::Queued,
        State::Running => wire::JobState::Running,
        State::Paused => wire::JobState::Paused,
        State::Done => wire::JobState::Done,
        State::Failed => wire::JobState::Failed,
        State::Cancelled => wire::JobState::Cancelled,
    }
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_millis() as u64)
}
