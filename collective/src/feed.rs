//! Feeds: how a newcomer is brought up to where a job is, while those who run it go on.
//!
//! This is the donor's end; `following` has the other. A feed has a queue and two threads: one writes, so that
//! whoever pushes never waits; one watches for the follower to close. Values are shared, never copied.

use std::collections::VecDeque;
use std::fmt;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use lockstep_engine::ids::Step;

use crate::advance::Told;
use crate::error::{CollectiveError, LossReason};
use crate::frame::HEADER_BYTES;
use crate::greeting::Follow;
use crate::limits::{IDLE_FRAMES_A_TIMEOUT, MAX_HELLO_BYTES, MAX_PARTS};
use crate::state::Shared;
use crate::wire;

/// What is called when somebody wants to follow.
pub(crate) type OnFollow = Box<dyn Fn(FollowRequest) + Send + Sync>;

/// Somebody wants to follow. It waits for an [answer](Self::answer) for as long as that takes; dropping the
/// request closes its connection.
#[derive(Debug)]
pub struct FollowRequest {
    /// The identity of the follower.
    pub follower: String,
    /// The step whose state it holds already.
    pub held: Option<Step>,
    /// The lowest step whose state it can use: until then, let it wait.
    pub at_least: Step,
    line: Line,
}

/// Where a follower is to start.
#[derive(Clone)]
pub enum Start {
    /// It holds the state of this step, and so does the donor.
    Same(Step),
    /// It takes a state.
    State {
        /// The step after which it is the state.
        step: Step,
        /// The parts, at most [`MAX_PARTS`].
        parts: Vec<Arc<Vec<f32>>>,
    },
    /// It applies the one step that it lacks.
    Gradient {
        /// That step.
        step: Step,
        /// Its reduced gradient; `None` if nothing is applied in it.
        gradient: Option<Arc<Vec<f32>>>,
    },
}

/// A follower that was answered. It is to be told of every step from then on. Dropping the feed closes it once
/// all that was pushed is written.
#[derive(Debug)]
pub struct Feed {
    follower: String,
    line: Line,
}

impl FollowRequest {
    /// Answers with the state as of the donor's present step. From then on every step is to be
    /// [pushed](Feed::push). Returns at once. If the follower has gone, so has the feed.
    ///
    /// # Errors
    /// [`CollectiveError::Argument`] if the start is of no use to this follower, or has too many parts. The
    /// follower is let go.
    pub fn answer(self, start: Start) -> Result<Feed, CollectiveError> {
        let (step, fits) = match &start {
            Start::Same(step) => (*step, self.held == Some(*step)),
            Start::State { step, parts } => (*step, parts.len() <= MAX_PARTS),
            Start::Gradient { step, .. } => (*step, self.held.map(Step::next) == Some(*step)),
        };
        if !fits || step < self.at_least {
            let Self { held, at_least, .. } = self;
            let problem = format!(
                "{start:?} to a follower that holds {held:?} and needs {at_least} or later, in at most {MAX_PARTS} parts"
            );
            return Err(CollectiveError::Argument {
                argument: "start",
                problem,
            });
        }
        let mut queue = self.line.lock();
        queue.due = step.next();
        let told = match start {
            Start::Same(step) => Told::Same(step),
            Start::State { step, parts } => Told::State { step, parts },
            Start::Gradient { step, gradient } => Told::Gradient { step, gradient },
        };
        queue.told.push_back((told, 0));
        drop(queue);
        self.line.pipe.wake.notify_one();
        Ok(Feed {
            follower: self.follower,
            line: self.line,
        })
    }

    /// Whether the follower still waits, as far as is known.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.line.lock().phase == Phase::Open
    }

    /// Lets the follower go and tells it why: it may ask somebody else.
    pub fn refuse(self, why: &str) {
        let cut = why.floor_char_boundary(MAX_HELLO_BYTES as usize);
        let told = Told::Refused(why[..cut].to_owned());
        self.line.lock().told.push_back((told, 0));
    }
}

impl Feed {
    /// Who follows.
    #[must_use]
    pub fn follower(&self) -> &str {
        &self.follower
    }

    /// Tells of `step`, the one after the last: its reduced gradient, or `None` if nothing is applied in it.
    /// Never waits. `false` if the feed is closed: drop it then. It closes when the follower has gone, when it is
    /// so slow that more than [`feed_bytes`](crate::Options::feed_bytes) would wait for it (one gradient always
    /// may), and when `step` is not the next: after a jump, it has to ask again.
    #[must_use]
    pub fn push(&self, step: Step, gradient: Option<Arc<Vec<f32>>>) -> bool {
        let mut queue = self.line.lock();
        if queue.phase != Phase::Open {
            return false;
        }
        // A skipped step is not free either.
        let bytes = HEADER_BYTES
            + gradient
                .as_ref()
                .map_or(0, |gradient| size_of_val(gradient.as_slice()));
        let waiting = queue.bytes;
        let fits = waiting == 0 || waiting.saturating_add(bytes) <= self.line.pipe.bound;
        if step != queue.due || !fits {
            let (follower, due) = (&self.follower, queue.due);
            tracing::info!(follower, %step, %due, waiting, "closed a feed: its follower is too slow, or steps jumped");
            queue.phase = Phase::Closed;
            drop(queue);
            self.line.pipe.hang_up();
            return false;
        }
        queue.due = step.next();
        queue.bytes += bytes;
        queue.told.push_back((Told::Gradient { step, gradient }, bytes));
        drop(queue);
        self.line.pipe.wake.notify_one();
        true
    }

    /// Whether the follower is there, as far as is known.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.line.lock().phase == Phase::Open
    }
}

impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same(step) => write!(f, "the same state of step {step}"),
            Self::State { step, parts } => write!(f, "the state of step {step} in {} parts", parts.len()),
            Self::Gradient { step, .. } => write!(f, "the gradient of step {step}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// In use.
    Open,
    /// To close when all is written.
    Ending,
    /// Closed.
    Closed,
}

/// What is to be written to a follower.
#[derive(Debug)]
struct Queue {
    phase: Phase,
    /// Each with the bytes that it counts for: what a follower starts with counts for none, as it is one thing.
    told: VecDeque<(Told, usize)>,
    /// What all that is not written yet counts for.
    bytes: usize,
    /// The step to be pushed next.
    due: Step,
}

/// What the threads of a feed share with whoever pushes. Its lock is never held while anything is written.
#[derive(Debug)]
struct Pipe {
    stream: Arc<TcpStream>,
    bound: usize,
    queue: Mutex<Queue>,
    wake: Condvar,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes at once. The writer lets go of what is queued.
    fn close(&self) {
        self.lock().phase = Phase::Closed;
        self.hang_up();
    }

    fn hang_up(&self) {
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
        self.wake.notify_one();
    }

    /// Takes what is to be written next, an idle frame if there is nothing for `patience`; `None` at the end.
    fn next(&self, patience: Duration) -> Option<(Told, usize)> {
        let mut queue = self.lock();
        loop {
            match queue.phase {
                Phase::Closed => return None,
                Phase::Open | Phase::Ending if !queue.told.is_empty() => return queue.told.pop_front(),
                Phase::Ending => return None,
                Phase::Open => {}
            }
            let (woken, waited) = self
                .wake
                .wait_timeout(queue, patience)
                .unwrap_or_else(PoisonError::into_inner);
            queue = woken;
            if waited.timed_out() && queue.told.is_empty() && queue.phase == Phase::Open {
                return Some((Told::Idle, 0));
            }
        }
    }
}

/// The end of a pipe at which things are pushed: when it is dropped, nothing more can come.
#[derive(Debug)]
struct Line {
    pipe: Arc<Pipe>,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.pipe.lock()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut queue = self.lock();
        if queue.phase == Phase::Open {
            queue.phase = Phase::Ending;
        }
        drop(queue);
        self.pipe.wake.notify_one();
    }
}

/// Serves the connection of a follower to its end; it is refused at once if there is a `problem`.
pub(crate) fn serve(shared: &Shared, stream: &Arc<TcpStream>, follow: Follow, problem: Option<String>) {
    let pipe = Arc::new(Pipe {
        stream: stream.clone(),
        bound: shared.feed_bytes,
        queue: Mutex::new(Queue {
            phase: Phase::Open,
            told: VecDeque::new(),
            bytes: 0,
            due: Step(0),
        }),
        wake: Condvar::new(),
    });
    let Follow {
        identity,
        held,
        at_least,
        ..
    } = follow;
    let follower = identity.clone();
    thread::scope(|scope| {
        let line = Line { pipe: pipe.clone() };
        let writer = || {
            let end = write_all(shared, &pipe);
            pipe.close();
            // Not before it is closed: whoever pushes is not to wait for memory to be given back.
            let left = std::mem::take(&mut pipe.lock().told);
            tracing::debug!(identity, ?end, left = left.len(), "a feed has ended");
        };
        let spawned = thread::Builder::new()
            .name("collective-feed".to_owned())
            .spawn_scoped(scope, writer);
        let writer = match spawned {
            Ok(writer) => writer,
            Err(error) => {
                tracing::warn!(%error, "start a thread for a follower");
                return;
            }
        };
        let request = FollowRequest {
            follower,
            held,
            at_least,
            line,
        };
        match problem {
            Some(problem) => request.refuse(&problem),
            None => (shared.on_follow)(request),
        }
        let reason = wire::watch(stream);
        tracing::debug!(identity, %reason, "a follower's connection has ended");
        pipe.close();
        // The scope waits for its work, not for its end. If it panicked, that was shown where it happened.
        let _ = writer.join();
    });
}

/// Writes what is queued until the feed ends.
fn write_all(shared: &Shared, pipe: &Pipe) -> Result<(), LossReason> {
    let patience = shared.feed_timeout / IDLE_FRAMES_A_TIMEOUT;
    pipe.stream
        .set_write_timeout(Some(shared.timeout))
        .map_err(|error| LossReason::Io(error.kind()))?;
    while let Some((told, bytes)) = pipe.next(patience) {
        let epoch = shared.lock().epoch();
        told.write(&*pipe.stream, shared.job, epoch, |length| {
            let mut state = shared.lock();
            state.stats.sent_frames += 1;
            state.stats.sent_bytes += length;
        })?;
        pipe.lock().bytes -= bytes;
    }
    Ok(())
}
