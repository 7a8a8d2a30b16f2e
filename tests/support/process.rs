//! One process: its output as it comes, its end, each within a bound of time.

use std::io::Read;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, system};

/// A process that was started and is watched. Dropping it kills it.
pub(crate) struct Process {
    what: String,
    child: Child,
    out: Pipe,
    err: Pipe,
}

impl Process {
    /// Starts `command` with nothing on its standard input.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_reading(command, Stdio::null())
    }

    /// Starts `command` with this as its standard input.
    pub(crate) fn start_reading(command: &mut Command, input: Stdio) -> Self {
        let what = format!("{command:?}");
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Self {
            what,
            child,
            out: Pipe::of(out),
            err: Pipe::of(err),
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// The first whole line of standard output that `wanted` accepts.
    pub(crate) fn await_out(&self, wanted: impl Fn(&str) -> bool) -> String {
        self.await_line(&self.out, wanted)
    }

    /// The first whole line of standard error that `wanted` accepts.
    pub(crate) fn await_err(&self, wanted: impl Fn(&str) -> bool) -> String {
        self.await_line(&self.err, wanted)
    }

    fn await_line(&self, pipe: &Pipe, wanted: impl Fn(&str) -> bool) -> String {
        pipe.await_line(wanted).unwrap_or_else(|| {
            let (out, err) = (self.out.text(), self.err.text());
            panic!(
                "{}: the line did not come\nstdout: {out}\nstderr: {err}",
                self.what
            )
        })
    }

    /// What it ended with, within [`PATIENCE`].
    pub(crate) fn finish(self) -> Ran {
        self.finish_within(PATIENCE)
    }

    /// What it ended with; a panic that shows its output when it takes longer than `within`.
    pub(crate) fn finish_within(mut self, within: Duration) -> Ran {
        let started = Instant::now();
        if !system::await_end(self.pid(), started + within) {
            let (out, err) = (self.out.text(), self.err.text());
            panic!(
                "{}: still there after {within:?}\nstdout: {out}\nstderr: {err}",
                self.what
            );
        }
        let status = self.child.wait().unwrap();
        let ran = Ran {
            what: self.what.clone(),
            code: status.code(),
            signal: status.signal(),
            out: self.out.end(),
            err: self.err.end(),
            took: started.elapsed(),
        };
        for text in [&ran.out, &ran.err] {
            assert!(!text.contains("panicked"), "{ran:?}");
            assert!(!text.contains('\u{1b}'), "colours without a terminal: {ran:?}");
        }
        ran
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// How a process ended, and all that it said.
#[derive(Debug)]
pub(crate) struct Ran {
    what: String,
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
    /// From the call that waited for the end.
    pub(crate) took: Duration,
}

impl Ran {
    /// Asserts the exit code.
    #[track_caller]
    pub(crate) fn code(self, wanted: i32) -> Self {
        assert_eq!(self.code, Some(wanted), "exit code of {self:#?}");
        self
    }

    /// Asserts that standard error has all of these words.
    #[track_caller]
    pub(crate) fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.err.contains(word), "`{word}` is not in {self:#?}");
        }
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// A pipe that a thread reads to its end.
struct Pipe {
    seen: Arc<Seen>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    text: Mutex<(String, bool)>,
    more: Condvar,
}

impl Pipe {
    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let seen = Arc::new(Seen::default());
        let to = Arc::clone(&seen);
        let read = move || {
            let mut bytes = [0; 4096];
            loop {
                let count = pipe.read(&mut bytes).unwrap_or(0);
                let mut text = to.text.lock().unwrap();
                text.0.push_str(&String::from_utf8_lossy(&bytes[..count]));
                text.1 = count == 0;
                to.more.notify_all();
                if count == 0 {
                    return;
                }
            }
        };
        let reader = Some(std::thread::spawn(read));
        Self { seen, reader }
    }

    fn text(&self) -> String {
        self.seen.text.lock().unwrap().0.clone()
    }

    /// `None` when the pipe ends, or [`PATIENCE`] is over, before such a line comes.
    fn await_line(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut text = self.seen.text.lock().unwrap();
        loop {
            let whole = text.0.rfind('\n').map_or("", |end| &text.0[..end]);
            if let Some(line) = whole.lines().find(|line| wanted(line)) {
                return Some(line.to_owned());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if text.1 || left.is_zero() {
                return None;
            }
            text = self.seen.more.wait_timeout(text, left).unwrap().0;
        }
    }

    /// All of it, once the process is gone. Somebody who inherited the pipe may hold it open: that is an orphan.
    fn end(&mut self) -> String {
        let (text, _) = self
            .seen
            .more
            .wait_timeout_while(self.seen.text.lock().unwrap(), PATIENCE, |text| !text.1)
            .unwrap();
        assert!(
            text.1,
            "the pipe of an ended process is held open; it gave {}",
            text.0
        );
        let all = text.0.clone();
        drop(text);
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        all
    }
}
