//! The most memory that processes had resident, as the kernel keeps it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::MissedTickBehavior;

/// Between two looks at the ranks of a job.
const EVERY: Duration = Duration::from_millis(1);

/// The most that this process ever had.
pub(super) fn own() -> anyhow::Result<u64> {
    peak("self").context("find VmHWM in /proc/self/status")
}

/// Runs a job of so many ranks on a cluster of this process; the most that each of them had, by its slot.
///
/// What the kernel keeps only goes up, so the last look counts. A rank has its peak before it says that its last checkpoint
/// is written, and leaves when it has heard from the coordinator that all is done: there are many looks in between.
pub(super) async fn of_ranks<T>(ranks: u32, job: impl Future<Output = T>) -> (T, BTreeMap<u32, u64>) {
    let mut watched = Watched::default();
    let mut clock = tokio::time::interval(EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(job);
    loop {
        tokio::select! {
            over = &mut job => return (over, watched.peaks),
            _ = clock.tick() => watched.look(ranks as usize),
        }
    }
}

/// Ranks that were found, and their peaks.
#[derive(Default)]
struct Watched {
    /// The process of each slot.
    processes: BTreeMap<u32, String>,
    peaks: BTreeMap<u32, u64>,
}

impl Watched {
    fn look(&mut self, wanted: usize) {
        if self.processes.len() < wanted {
            self.processes = ranks_of(std::process::id());
        }
        for (&slot, process) in &self.processes {
            // One that has ended has no memory any more.
            if let Some(bytes) = peak(process) {
                self.peaks.insert(slot, bytes);
            }
        }
    }
}

/// The ranks of the daemons that a process has started: process by slot.
fn ranks_of(ancestor: u32) -> BTreeMap<u32, String> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let rank = |entry: fs::DirEntry| {
        let process = entry.file_name().to_str()?.to_owned();
        let slot = slot_of(&fs::read_to_string(entry.path().join("cmdline")).ok()?)?;
        let daemon = field(&process, "PPid")?;
        let of = field(&daemon, "PPid")?;
        (of == ancestor.to_string()).then_some((slot, process))
    };
    all.filter_map(rank).collect()
}

/// The slot in the command line of a rank.
fn slot_of(command: &str) -> Option<u32> {
    let mut words = command.split('\0').skip(1);
    if words.next() != Some("rank") {
        return None;
    }
    words.find(|&word| word == "--slot")?;
    words.next()?.parse().ok()
}

fn peak(process: &str) -> Option<u64> {
    let kibibytes = field(process, "VmHWM")?;
    let kibibytes: u64 = kibibytes.trim_end_matches(" kB").parse().ok()?;
    Some(kibibytes << 10)
}

/// What the kernel says of a process.
fn field(process: &str, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned());
    status.lines().find_map(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_stays_when_memory_is_given_back() {
        let held = vec![1u8; 64 << 20];
        assert!(own().unwrap() > 64 << 20);
        drop(std::hint::black_box(held));
        // To the page it need not be the same: the kernel sums up what its processors count only now and then.
        assert!(own().unwrap() > 64 << 20);
    }

    #[test]
    fn a_rank_is_told_by_its_command_line() {
        let slot = |line: &str| slot_of(&line.replace(' ', "\0"));
        assert_eq!(slot("lockstep rank --node local --slot 3"), Some(3));
        assert_eq!(slot("lockstep worker --slot 3"), None);
        assert_eq!(slot("lockstep rank --node local"), None);
        assert_eq!(slot(""), None);
    }
}
