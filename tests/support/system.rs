//! What the kernel knows: which processes carry a tag, when one ends, when a file changes.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// The variable that marks a test's processes. Children inherit it, so it finds those that lost their parents too.
pub(crate) const TAG: &str = "LOCKSTEP_TEST_TAG";

/// A live process with a tag.
#[derive(Clone, Debug)]
pub(crate) struct Tagged {
    pub(crate) pid: Pid,
    pub(crate) command: String,
}

/// All live processes whose environment holds the tag. One that has ended but was not reaped has none.
pub(crate) fn tagged(tag: &str) -> Vec<Tagged> {
    let wanted = format!("{TAG}={tag}");
    let look = |entry: fs::DirEntry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let environ = fs::read(entry.path().join("environ")).ok()?;
        let carries = environ
            .split(|byte| *byte == 0)
            .any(|pair| pair == wanted.as_bytes());
        let command = carries.then(|| fs::read(entry.path().join("cmdline")))?.ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        Some(Tagged { pid, command })
    };
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(look)
        .collect()
}

/// Sends SIGKILL to all live processes with the tag, and waits for their ends: an ending process loses its environment
/// before its files and their locks.
pub(crate) fn kill_tagged(tag: &str) {
    let open = |process: Tagged| Some((process.pid, pidfd_open(process.pid, PidfdFlags::empty()).ok()?));
    let all: Vec<_> = tagged(tag).into_iter().filter_map(open).collect();
    for (pid, _) in &all {
        kill_process(*pid, Signal::KILL).ok();
    }
    let deadline = Instant::now() + super::PATIENCE;
    for (_, process) in &all {
        readable(process, deadline);
    }
}

/// Waits until a process has ended, reaped or not; whether it did before the deadline.
pub(crate) fn await_end(pid: Pid, deadline: Instant) -> bool {
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => readable(&process, deadline),
        Err(_) => true,
    }
}

/// Waits until no live process that `counts` carries the tag; returns those left at the deadline.
pub(crate) fn await_none(tag: &str, deadline: Instant, counts: impl Fn(&Tagged) -> bool) -> Vec<Tagged> {
    loop {
        let left: Vec<Tagged> = tagged(tag).into_iter().filter(&counts).collect();
        if left.is_empty() || !left.iter().all(|process| await_end(process.pid, deadline)) {
            return left;
        }
    }
}

/// Waits until `look` finds what it wants in the text of the file at `path`, which may not exist yet.
///
/// Its folder must exist. `what` says in words what is awaited.
pub(crate) fn await_text<T>(
    path: &Path,
    what: &str,
    within: Duration,
    look: impl Fn(&str) -> Option<T>,
) -> T {
    let deadline = Instant::now() + within;
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
    let changes = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
    inotify::add_watch(&watch, path.parent().unwrap(), changes).unwrap();
    let mut events = [0; 4096];
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        if let Some(found) = look(&text) {
            return found;
        }
        assert!(
            readable(&watch, deadline),
            "{what}: not seen in {} within {within:?}; it holds:\n{text}",
            path.display()
        );
        rustix::io::read(&watch, &mut events).unwrap();
    }
}

fn readable(fd: &impl AsFd, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(fd, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec::try_from(left).unwrap())) {
            Ok(ready) => return ready > 0,
            Err(Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}
