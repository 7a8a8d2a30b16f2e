//! The files of a run's folder to which lines are appended: `events.jsonl`, `metrics.jsonl`, `workers.log`,
//! `ledger.jsonl`.
//!
//! A line is in its file as a whole or not at all. Where the disk has no room for it, it is kept and tried again.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use lockstep_engine::ids::JobId;

use crate::ledger_log;
use crate::store::is_full;

/// Lines of a file that are kept while they cannot be written; beyond that the oldest are dropped.
const KEPT: usize = 10_000;

/// A file of a run's folder to which lines are appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Log {
    Events,
    Metrics,
    Workers,
    Ledger,
}

impl Log {
    pub(crate) const ALL: [Self; 4] = [Self::Events, Self::Metrics, Self::Workers, Self::Ledger];

    pub(crate) fn file_name(self) -> &'static str {
        match self {
            Self::Events => "events.jsonl",
            Self::Metrics => "metrics.jsonl",
            Self::Workers => "workers.log",
            Self::Ledger => ledger_log::FILE_NAME,
        }
    }
}

/// What became of a file.
#[derive(Debug, PartialEq)]
pub(crate) enum Turn {
    /// From now on its lines are kept; in words.
    Full(String),
    /// They are written again; in words.
    Over(String),
    /// They cannot be written, for another reason than a full disk. They are given up.
    Failed(String),
}

/// The files of all jobs.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    logs: BTreeMap<(JobId, Log), Appender>,
}

impl Lines {
    /// Takes a line for a file in the folder `out`. [`Self::write`] writes it.
    pub(crate) fn push(&mut self, job: JobId, out: &Path, log: Log, text: String) {
        let appender = self
            .logs
            .entry((job, log))
            .or_insert_with(|| Appender::new(out.join(log.file_name())));
        appender.push(text);
    }

    /// Closes the files of a job, each as soon as all of its lines are written.
    pub(crate) fn close(&mut self, job: &JobId) {
        let of_job = self.logs.iter_mut().filter(|((of, _), _)| of == job);
        of_job.for_each(|(_, appender)| appender.closes = true);
    }

    /// Whether lines wait for room.
    pub(crate) fn wait(&self) -> bool {
        self.logs.values().any(|appender| !appender.waiting.is_empty())
    }

    /// Writes what there is room for. Says of which job's files there is news.
    pub(crate) fn write(&mut self) -> Vec<(JobId, Turn)> {
        let mut news = Vec::new();
        for ((job, _), appender) in &mut self.logs {
            news.extend(appender.write().map(|turn| (job.clone(), turn)));
        }
        self.logs.retain(|_, log| !(log.closes && log.waiting.is_empty()));
        news
    }
}

#[derive(Debug)]
struct Appender {
    path: PathBuf,
    /// With the length of the whole lines in it.
    file: Option<(File, u64)>,
    waiting: VecDeque<String>,
    /// It was told that the disk is full.
    full: bool,
    dropped: u64,
    closes: bool,
}

impl Appender {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            waiting: VecDeque::new(),
            full: false,
            dropped: 0,
            closes: false,
        }
    }

    fn push(&mut self, mut text: String) {
        // Only a full disk is a reason to keep many: otherwise all are written at once.
        if self.full && self.waiting.len() == KEPT {
            self.waiting.pop_front();
            self.dropped += 1;
        }
        text.push('\n');
        self.waiting.push_back(text);
        self.closes = false;
    }

    fn write(&mut self) -> Option<Turn> {
        let written = self.try_write();
        let path = self.path.display();
        match written {
            Ok(()) if self.full && self.waiting.is_empty() => {
                self.full = false;
                let lost = match std::mem::take(&mut self.dropped) {
                    0 => "no line is lost".to_owned(),
                    dropped => format!("{dropped} lines are lost"),
                };
                Some(Turn::Over(format!("{path} is written again; {lost}")))
            }
            Err(error) if is_full(&error) && !self.full => {
                self.full = true;
                Some(Turn::Full(format!(
                    "write {path}: {error}; free some space, its lines are kept until there is"
                )))
            }
            Err(error) if !is_full(&error) => {
                self.waiting.clear();
                Some(Turn::Failed(format!("write {path}: {error}")))
            }
            _ => None,
        }
    }

    fn try_write(&mut self) -> std::io::Result<()> {
        while let Some(line) = self.waiting.front() {
            let (file, whole) = match &mut self.file {
                Some(open) => open,
                closed => closed.insert(open_whole(&self.path)?),
            };
            if let Err(error) = file.write_all(line.as_bytes()) {
                // Nobody is to see the part that had room; where that fails, it is cut when the file is opened anew.
                file.set_len(*whole).ok();
                self.file = None;
                return Err(error);
            }
            *whole += line.len() as u64;
            self.waiting.pop_front();
        }
        Ok(())
    }
}

/// Opens a file to append lines to it, without the part of a line that it may end with. With its length.
pub(crate) fn open_whole(path: &Path) -> std::io::Result<(File, u64)> {
    const BLOCK: u64 = 4096;
    let mut file = File::options().create(true).append(true).read(true).open(path)?;
    let end = file.metadata()?.len();
    let mut from = end;
    let whole = loop {
        let to = from;
        from = to.saturating_sub(BLOCK);
        let mut block = vec![0; (to - from) as usize];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(&mut block)?;
        match block.iter().rposition(|byte| *byte == b'\n') {
            Some(last) => break from + last as u64 + 1,
            None if from == 0 => break 0,
            None => {}
        }
    };
    if whole < end {
        file.set_len(whole)?;
    }
    Ok((file, whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::disk::Disk;
    use crate::store::tests::job;

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn the_part_of_a_line_that_a_death_left_behind_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(Log::Events.file_name());
        let long = "x".repeat(10_000);
        for (left, whole) in [
            (String::new(), String::new()),
            ("a\nb\n".to_owned(), "a\nb\n".to_owned()),
            ("a\nhal".to_owned(), "a\n".to_owned()),
            (format!("{long}\n{long}"), format!("{long}\n")),
            (long.clone(), String::new()),
        ] {
            std::fs::write(&path, left).unwrap();
            let mut lines = Lines::default();
            lines.push(job("a"), folder.path(), Log::Events, "next".into());
            assert_eq!(lines.write(), []);
            assert_eq!(text(&path), format!("{whole}next\n"));
        }
    }

    #[test]
    fn lines_wait_for_room_and_none_is_torn() {
        let Some(disk) = Disk::new(64 << 10) else { return };
        let path = disk.path().join(Log::Metrics.file_name());
        let line = |number: u32| format!("{number} {}", "y".repeat(300));
        let mut lines = Lines::default();
        let push = |lines: &mut Lines, number| {
            lines.push(job("a"), disk.path(), Log::Metrics, line(number));
        };
        push(&mut lines, 0);
        assert_eq!(lines.write(), []);
        disk.fill();
        // The page that the first line began takes some more, and the last of them in part.
        let mut told = Vec::new();
        for number in 1..100 {
            push(&mut lines, number);
            told.extend(lines.write());
            assert!(text(&path).ends_with("y\n"), "torn after {number}");
        }
        assert!(
            matches!(&told[..], [(_, Turn::Full(reason))] if reason.contains("metrics.jsonl")),
            "{told:?}"
        );
        lines.close(&job("a"));
        assert!(lines.wait() && lines.write().is_empty(), "it closes later");
        disk.free();
        let told = lines.write();
        assert!(
            matches!(&told[..], [(_, Turn::Over(how))] if how.contains("no line is lost")),
            "{told:?}"
        );
        assert!(!lines.wait() && lines.logs.is_empty());
        let expected: String = (0..100).map(|number| line(number) + "\n").collect();
        assert_eq!(text(&path), expected);
    }

    #[test]
    fn only_so_many_lines_wait_and_the_loss_is_told() {
        let Some(disk) = Disk::new(1 << 20) else { return };
        let mut lines = Lines::default();
        disk.fill();
        let count = KEPT + 7;
        for number in 0..count {
            lines.push(job("a"), disk.path(), Log::Events, number.to_string());
            lines.write();
        }
        disk.free();
        let told = lines.write();
        assert!(
            matches!(&told[..], [(_, Turn::Over(how))] if how.contains("7 lines are lost")),
            "{told:?}"
        );
        let found = text(&disk.path().join(Log::Events.file_name()));
        let expected: String = (7..count).map(|number| format!("{number}\n")).collect();
        assert!(found == expected, "the last {KEPT} of {count}");
    }

    #[test]
    fn what_is_no_full_disk_is_told_and_given_up() {
        let mut lines = Lines::default();
        lines.push(job("a"), Path::new("/proc/nowhere"), Log::Workers, "x".into());
        let told = lines.write();
        assert!(
            matches!(&told[..], [(_, Turn::Failed(reason))] if reason.contains("workers.log")),
            "{told:?}"
        );
        assert!(!lines.wait());
    }
}
