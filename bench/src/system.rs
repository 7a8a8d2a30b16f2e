//! What the kernel knows: which processes carry a tag, when one ends, when a file changes.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tokio_util::sync::CancellationToken;

use crate::Error;

/// The variable that marks a drill's processes; its value starts with the process id of the harness. Children
/// inherit it, so it finds those that lost their parents too.
pub(crate) const TAG: &str = "LOCKSTEP_BENCH_TAG";

/// The longest that a wait looks away from a request to stop.
const GLANCE: Duration = Duration::from_millis(100);

/// A live process with a tag.
#[derive(Clone, Debug)]
pub(crate) struct Tagged {
    pub(crate) pid: Pid,
    pub(crate) command: Vec<String>,
}

impl Tagged {
    /// The value of an option on its command line.
    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        let at = self.command.iter().position(|word| word == name)?;
        self.command.get(at + 1).map(String::as_str)
    }
}

/// All live processes whose tag `counts`. One that has ended but was not reaped has no environment any more.
pub(crate) fn tagged(counts: impl Fn(&str) -> bool) -> Vec<Tagged> {
    let strings = |bytes: Vec<u8>| -> Vec<String> {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        text.split('\0').map(str::to_owned).collect()
    };
    let look = |entry: fs::DirEntry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let environment = strings(fs::read(entry.path().join("environ")).ok()?);
        let tag = environment
            .iter()
            .find_map(|pair| pair.strip_prefix(TAG)?.strip_prefix('='))?;
        let command = strings(
            counts(tag)
                .then(|| fs::read(entry.path().join("cmdline")))?
                .ok()?,
        );
        Some(Tagged { pid, command })
    };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(look).collect()
}

/// Sends a signal; a process that is gone is no error.
pub(crate) fn signal(pid: Pid, signal: Signal) -> Result<(), Error> {
    match kill_process(pid, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(Error::system(format!("send a signal to process {pid}"))(
            error.into(),
        )),
    }
}

/// Waits until a process has ended, reaped or not; whether it did before the deadline.
pub(crate) fn await_end(pid: Pid, deadline: Instant) -> bool {
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => readable(&process, deadline),
        Err(_) => true,
    }
}

/// Waits until no live process has a tag that `counts`; returns those left at the deadline.
pub(crate) fn await_none(counts: impl Fn(&str) -> bool + Copy, deadline: Instant) -> Vec<Tagged> {
    loop {
        let left = tagged(counts);
        if left.is_empty() || !left.iter().all(|process| await_end(process.pid, deadline)) {
            return left;
        }
    }
}

/// Kills what harnesses that are dead left behind.
pub(crate) fn kill_leftovers() {
    let harness_is_dead = |tag: &str| {
        let pid = tag.split('-').next().unwrap_or_default();
        !Path::new("/proc").join(pid).exists()
    };
    for process in tagged(harness_is_dead) {
        kill_process(process.pid, Signal::KILL).ok();
    }
}

/// Waits until `look` finds what it wants in the text of the file at `path`, which may not exist yet, while its
/// folder must. `what` says in words what is awaited.
///
/// # Errors
/// [`Error::Drill`] when `within` is over, [`Error::Interrupted`].
pub(crate) fn await_text<T>(
    path: &Path,
    what: &str,
    within: Duration,
    stop: &CancellationToken,
    look: impl Fn(&str) -> Option<T>,
) -> Result<T, Error> {
    let deadline = Instant::now() + within;
    let action = || format!("watch {}", path.display());
    let failed = |error: Errno| Error::system(action())(error.into());
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(failed)?;
    let changes = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
    inotify::add_watch(&watch, path.parent().unwrap_or(Path::new("/")), changes).map_err(failed)?;
    let mut events = [0; 4096];
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        if let Some(found) = look(&text) {
            return Ok(found);
        }
        if stop.is_cancelled() {
            return Err(Error::Interrupted);
        }
        if Instant::now() >= deadline {
            let (path, seconds) = (path.display(), within.as_secs_f64());
            return Err(Error::Drill(format!(
                "{what}: not seen in {path} within {seconds:.1} s"
            )));
        }
        if readable(&watch, deadline.min(Instant::now() + GLANCE)) {
            rustix::io::read(&watch, &mut events).ok();
        }
    }
}

/// Lets time pass, as some faults are of a length.
///
/// # Errors
/// [`Error::Interrupted`].
pub(crate) fn pause(length: Duration, stop: &CancellationToken) -> Result<(), Error> {
    let deadline = Instant::now() + length;
    loop {
        if stop.is_cancelled() {
            return Err(Error::Interrupted);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(GLANCE));
    }
}

fn readable(fd: &impl AsFd, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(fd, PollFlags::IN)];
        match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
            Ok(ready) => return ready > 0,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Runs a program of the system to its end and returns its standard output.
///
/// # Errors
/// When it cannot be started or fails.
pub(crate) fn tool(line: &str) -> Result<String, Error> {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap_or_default();
    let output = Command::new(program)
        .args(words)
        .output()
        .map_err(Error::system(format!("start `{line}`")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Tool {
        command: line.to_owned(),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Runs a program of ours to its end and returns its standard output; what it wrote to standard error is in the error
/// when it fails.
///
/// # Errors
/// When it cannot be started or fails; [`Error::Interrupted`], once it has ended too.
pub(crate) fn output_of(command: &mut Command, stop: &CancellationToken) -> Result<Vec<u8>, Error> {
    let line = format!("{command:?}");
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::system(format!("start {line}")))?;
    let pid = Pid::from_child(&child);
    let reader = std::thread::spawn(move || child.wait_with_output());
    while !reader.is_finished() {
        if stop.is_cancelled() {
            signal(pid, Signal::INT)?;
            break;
        }
        await_end(pid, Instant::now() + GLANCE);
    }
    let output = reader
        .join()
        .map_err(|_| Error::Drill(format!("the reader of {line} panicked")))?;
    let output = output.map_err(Error::system(format!("read what {line} says")))?;
    if stop.is_cancelled() {
        return Err(Error::Interrupted);
    }
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Error::Tool {
        command: line,
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Whether this process may make networks and mount disks.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
