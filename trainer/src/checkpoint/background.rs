//! A thread that writes while training goes on.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use lockstep_engine::ids::Step;
use lockstep_engine::spec::Target;

use super::{About, Attempt, Mirror, Mirrored, Piece, Policy, Report, prune};
use crate::error::Result;
use crate::layout::Layout;

/// Pieces at once: one that is being written, one that waits for it.
const PIECES: usize = 2;
/// Jobs that wait.
const JOBS: usize = 16;
/// Added to the thread's niceness, which goes up to 19: where there are too few cores, training goes first.
const NICENESS: i32 = 10;

/// What the thread can be asked for.
#[derive(Debug)]
pub enum Job {
    /// Write a piece.
    Write {
        /// Of which it is part.
        attempt: Attempt,
        /// What to write.
        piece: Piece,
    },
    /// Make a checkpoint of what all members wrote.
    Seal {
        /// Theirs.
        attempt: Attempt,
        /// One of each.
        reports: Vec<Report>,
        /// Of the model.
        layout: Arc<Layout>,
        /// Where the run stands.
        about: About,
    },
    /// Delete what is not to be kept.
    Prune {
        /// The folder of the checkpoints.
        dir: PathBuf,
        /// What is.
        policy: Policy,
    },
    /// Copy what the target lacks, and delete there what is not to be kept. It may take long: give it a thread of
    /// its own, so that no piece waits for it.
    Mirror {
        /// The folder of the checkpoints.
        dir: PathBuf,
        /// Where to.
        target: Target,
        /// What is kept there.
        policy: Policy,
    },
}

/// What became of a job.
#[derive(Debug)]
pub enum Done {
    /// Of [`Job::Write`]: what to tell the coordinator.
    Wrote {
        /// As asked.
        attempt: Attempt,
        /// The shard, durable.
        result: Result<Report>,
    },
    /// Of [`Job::Seal`].
    Sealed {
        /// As asked.
        attempt: Attempt,
        /// The checkpoint's folder, durable.
        result: Result<PathBuf>,
    },
    /// Of [`Job::Prune`].
    Pruned {
        /// The steps deleted.
        result: Result<Vec<Step>>,
    },
    /// Of [`Job::Mirror`].
    Mirrored {
        /// What was copied and what could not be.
        result: Result<Mirrored>,
    },
}

/// A job that was not taken, and why. Nothing of it has happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

/// A thread that does its jobs one after another, in order, and tells what became of each.
///
/// Handing over a job never waits. Dropping finishes the jobs that were taken.
pub struct Background {
    jobs: Option<SyncSender<Job>>,
    pieces: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts the thread, `name`d so in the process list; it calls `done` after each job.
    ///
    /// # Errors
    /// What the system says when it has no thread left.
    pub fn start(name: &str, mut done: impl FnMut(Done) + Send + 'static) -> std::io::Result<Self> {
        let (jobs, inbox) = sync_channel(JOBS);
        let pieces = Arc::new(AtomicUsize::new(0));
        let written = Arc::clone(&pieces);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            yield_to_training();
            let mut mirror = None;
            for job in inbox {
                let is_piece = matches!(job, Job::Write { .. });
                let outcome = work(job, &mut mirror);
                if is_piece {
                    written.fetch_sub(1, Ordering::AcqRel);
                }
                done(outcome);
            }
        })?;
        Ok(Self {
            jobs: Some(jobs),
            pieces,
            thread: Some(thread),
        })
    }

    /// Hands over a job.
    ///
    /// # Errors
    /// [`Refused`] when too much waits already, with the reason.
    pub fn submit(&self, job: Job) -> Result<(), Refused> {
        let is_piece = matches!(job, Job::Write { .. });
        if is_piece && self.pieces.fetch_add(1, Ordering::AcqRel) >= PIECES {
            self.pieces.fetch_sub(1, Ordering::AcqRel);
            return Err(Refused(format!(
                "{PIECES} checkpoints are still being written: the disk is slower than checkpoint.every asks for"
            )));
        }
        let sent = match &self.jobs {
            Some(jobs) => jobs.try_send(job),
            None => Err(TrySendError::Disconnected(job)),
        };
        sent.map_err(|error| {
            if is_piece {
                self.pieces.fetch_sub(1, Ordering::AcqRel);
            }
            Refused(match error {
                TrySendError::Full(_) => format!("{JOBS} jobs wait for the disk already"),
                TrySendError::Disconnected(_) => "the thread that writes has ended".to_owned(),
            })
        })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It ends by itself; if it panicked, that was shown where it happened.
            let _ = thread.join();
        }
    }
}

/// Ends a piece, however its writing does.
struct Ending<'a>(&'a Piece);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn work(job: Job, mirror: &mut Option<Mirror>) -> Done {
    match job {
        Job::Write { attempt, piece } => {
            let ending = Ending(&piece);
            let result = attempt.write_and_tell(&piece, || drop(ending));
            Done::Wrote { attempt, result }
        }
        Job::Seal {
            attempt,
            reports,
            layout,
            about,
        } => Done::Sealed {
            result: attempt.seal(reports, &layout, &about),
            attempt,
        },
        Job::Prune { dir, policy } => Done::Pruned {
            result: prune(&dir, &policy),
        },
        Job::Mirror { dir, target, policy } => {
            let opened = match mirror.take() {
                Some(open) if *open.target() == target => Ok(open),
                _ => Mirror::open(&target),
            };
            Done::Mirrored {
                result: opened.and_then(|open| mirror.insert(open).update(&dir, &policy)),
            }
        }
    }
}

/// On Linux, niceness belongs to a thread, and 0 names the one that asks. It is a courtesy: without it all is as right,
/// only training is disturbed more.
fn yield_to_training() {
    #[cfg(target_os = "linux")]
    if let Ok(niceness) = rustix::process::getpriority_process(None) {
        let _ = rustix::process::setpriority_process(None, (niceness + NICENESS).min(19));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::State;
    use lockstep_engine::ids::Epoch;
    use std::sync::mpsc;
    use std::time::Duration;

    fn write(dir: &std::path::Path, step: u64) -> Job {
        let state = State {
            step: Step(step),
            ..State::initial(vec![1.0; 1000])
        };
        Job::Write {
            attempt: Attempt::new(dir, Step(step), Epoch(1)),
            piece: Piece::of(&state, 0, 1).unwrap(),
        }
    }

    #[test]
    fn what_is_too_much_is_refused_at_once_and_what_was_taken_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        let (go, gate) = mpsc::channel::<()>();
        let (done, results) = mpsc::channel();
        // The callback holds the thread up after its first job until the gate opens.
        let background = Background::start("checkpoints", move |outcome| {
            let _ = done.send(outcome);
            let _ = gate.recv();
        })
        .unwrap();
        background.submit(write(dir.path(), 1)).unwrap();
        let Done::Wrote { attempt, result } = results.recv().unwrap() else {
            panic!("another job's outcome")
        };
        assert_eq!((attempt.step(), result.is_ok()), (Step(1), true));
        // The first is written: two more fit, a third does not, whatever else waits.
        background.submit(write(dir.path(), 2)).unwrap();
        background.submit(write(dir.path(), 3)).unwrap();
        let refused = background.submit(write(dir.path(), 4)).unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("2 checkpoints are still being written")
        );
        let prune = || Job::Prune {
            dir: dir.path().to_owned(),
            policy: Policy::default(),
        };
        let taken = std::iter::repeat_with(|| background.submit(prune()))
            .take(JOBS + 1)
            .take_while(Result::is_ok)
            .count();
        assert_eq!(taken, JOBS - 2);
        drop(go);
        drop(background);
        let rest: Vec<Done> = results.iter().collect();
        assert_eq!(rest.len(), JOBS);
        assert!(matches!(&rest[1], Done::Wrote { attempt, result: Ok(_) } if attempt.step() == Step(3)));
        assert!(matches!(&rest[2], Done::Pruned { result: Ok(_) }));
    }

    #[test]
    fn a_failure_is_an_outcome_and_the_thread_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let (done, results) = mpsc::channel();
        let background = Background::start("checkpoints", move |outcome| {
            let _ = done.send(outcome);
        })
        .unwrap();
        background.submit(write(&file, 1)).unwrap();
        assert!(matches!(
            results.recv().unwrap(),
            Done::Wrote { result: Err(_), .. }
        ));
        background.submit(write(dir.path(), 1)).unwrap();
        assert!(matches!(
            results.recv().unwrap(),
            Done::Wrote { result: Ok(_), .. }
        ));
    }

    /// A disk that hangs is a pipe that nobody reads.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_state_is_had_back_from_a_disk_that_hangs() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::initial((0..1000u16).map(f32::from).collect());
        let piece = Piece::of(&state, 1, 2).unwrap();
        let whole = Attempt::new(dir.path(), state.step, Epoch(2));
        let expected = whole.write(&Piece::of(&state, 1, 2).unwrap()).unwrap();
        let attempt = Attempt::new(dir.path(), state.step, Epoch(1));
        let pipe = attempt.folder().join(piece.file());
        std::fs::create_dir_all(attempt.folder()).unwrap();
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        )
        .unwrap();
        let (done, results) = mpsc::channel();
        let background = Background::start("checkpoints", move |outcome| {
            let _ = done.send(outcome);
        })
        .unwrap();
        let job = |piece: &Piece| Job::Write {
            attempt: attempt.clone(),
            piece: piece.clone(),
        };
        background.submit(job(&piece)).unwrap();
        assert!(!piece.let_go(Duration::from_millis(1)));
        assert_eq!(Arc::strong_count(&state.weights), 1, "it is the state's alone");
        Arc::make_mut(&mut state.weights).fill(7.0);
        let written = blake3::hash(&std::fs::read(&pipe).unwrap());
        assert_eq!(written.to_hex().to_string(), expected.shard.digest);
        // A pipe cannot be synced. Whether it could be written or not, nobody waits for it any more.
        assert!(matches!(
            results.recv().unwrap(),
            Done::Wrote { result: Err(_), .. }
        ));
        assert!(piece.let_go(Duration::from_secs(60)));
        background.submit(write(dir.path(), 2)).unwrap();
        assert!(matches!(
            results.recv().unwrap(),
            Done::Wrote { result: Ok(_), .. }
        ));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_thread_is_nice_and_the_others_are_not() {
        // Field 19 of proc_pid_stat(5); those after the name in brackets begin with the third.
        let niceness = || -> i32 {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let (_, rest) = stat.rsplit_once(')').unwrap();
            rest.split_whitespace().nth(16).unwrap().parse().unwrap()
        };
        let before = niceness();
        let (done, results) = mpsc::channel();
        let background = Background::start("checkpoints", move |_| {
            let _ = done.send(niceness());
        })
        .unwrap();
        let dir = tempfile::tempdir().unwrap();
        background.submit(write(dir.path(), 1)).unwrap();
        assert_eq!(results.recv().unwrap(), (before + NICENESS).min(19));
        drop(background);
        assert_eq!(niceness(), before);
    }
}
