//! What people read line by line: a job's notes, and its workers' logs.

use std::collections::VecDeque;

use tokio::sync::broadcast;

/// Lines kept for people who come late.
const KEPT_LINES: usize = 10_000;

/// Lines so far, and those to come.
pub(crate) struct Tail {
    lines: VecDeque<String>,
    live: broadcast::Sender<String>,
}

impl Tail {
    /// What an earlier coordinator, or an earlier attempt, left in `file`, and room for more.
    pub(super) fn of(file: &std::path::Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let skip = text.lines().count().saturating_sub(KEPT_LINES);
        let lines = text.lines().skip(skip).map(str::to_owned).collect();
        Self {
            lines,
            live: broadcast::channel(4096).0,
        }
    }

    pub(super) fn push(&mut self, line: String) {
        if self.lines.len() == KEPT_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.clone());
        self.live.send(line).ok();
    }

    pub(crate) fn read(&self) -> (Vec<String>, broadcast::Receiver<String>) {
        (self.lines.iter().cloned().collect(), self.live.subscribe())
    }
}
