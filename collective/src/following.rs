//! Following: the other end of a feed, at the newcomer.
//!
//! A thread reads, so that whoever asks for the next can be called away at any time and come back later: what
//! was read meanwhile is kept, up to a bound, and nothing of it is lost.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, PoisonError};
use std::thread;

use lockstep_engine::ids::{Epoch, Step};

use crate::advance::{Advance, Intake, Shape};
use crate::endpoint::{Endpoint, Peer};
use crate::error::{CollectiveError, LossReason};
use crate::frame::{Header, Kind};
use crate::greeting::Follow;
use crate::limits::{INBOX_ADVANCES, MAX_NAME_BYTES, MAX_PARTS, SPARE_GRADIENTS};
use crate::state::Shared;
use crate::wire;

/// Whom to follow, from where.
#[derive(Clone, Debug)]
pub struct FollowOptions {
    /// The donor.
    pub donor: Peer,
    /// The step whose state is held here already.
    pub held: Option<Step>,
    /// The lowest step whose state is of use.
    pub at_least: Step,
    /// How long things are.
    pub shape: Shape,
}

/// A newcomer's end of a feed. Dropping it closes the connection.
pub struct Following {
    shared: Arc<Shared>,
    id: u64,
    donor: String,
}

/// What was read of a feed and not asked for yet.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// To be shut when the endpoint closes.
    pub(crate) stream: Option<Arc<TcpStream>>,
    ready: VecDeque<Advance>,
    end: Option<LossReason>,
    spare: Vec<Vec<f32>>,
}

impl Endpoint {
    /// Asks `donor` to be told its state and every step after it. Returns at once: what comes of it is told by
    /// [`Following::next`]. It concerns no group, and needs none to be entered.
    ///
    /// # Errors
    /// [`CollectiveError::Argument`] when the donor's identity or the shape is too long,
    /// [`CollectiveError::System`] when there is no thread to be had.
    pub fn follow(&self, options: FollowOptions) -> Result<Following, CollectiveError> {
        let bounds = [
            ("donor", options.donor.identity.len(), MAX_NAME_BYTES),
            ("shape", options.shape.state.len(), MAX_PARTS),
        ];
        for (argument, len, limit) in bounds {
            if len > limit {
                let problem = format!("{len} bytes or parts where at most {limit} are allowed");
                return Err(CollectiveError::Argument { argument, problem });
            }
        }
        let shared = self.shared();
        let donor = options.donor.identity.clone();
        let mut state = shared.lock();
        let id = state.new_id();
        let shared_too = shared.clone();
        let thread = thread::Builder::new()
            .name("collective-follow".to_owned())
            .spawn(move || run(&shared_too, id, options))
            .map_err(|error| CollectiveError::System {
                verb: "start a thread to follow".to_owned(),
                kind: error.kind(),
            })?;
        state.threads.retain(|thread| !thread.is_finished());
        state.threads.push(thread);
        // The thread is waiting for the lock.
        state.followings.insert(id, Inbox::default());
        drop(state);
        let shared = shared.clone();
        Ok(Following { shared, id, donor })
    }
}

impl Following {
    /// Whom it follows.
    #[must_use]
    pub fn donor(&self) -> &str {
        &self.donor
    }

    /// The next of what the donor tells; waits for it. What comes is checked: steps follow one another, lengths
    /// are those of the shape, and no byte has changed on the way.
    ///
    /// # Errors
    /// [`CollectiveError::Superseded`] as soon as an epoch above `epoch` is [raised](crate::Handle::raise) or
    /// entered. That loses nothing: call again, with the newer epoch. [`CollectiveError::DonorLost`] once what
    /// came before is told: the donor has closed the connection, gave no sign of life for
    /// [`feed_timeout`](crate::Options::feed_timeout), sent what fails its checks, or refused. Follow anew then.
    pub fn next(&mut self, epoch: Epoch) -> Result<Advance, CollectiveError> {
        let mut state = self.shared.lock();
        loop {
            if state.closed {
                return Err(CollectiveError::Closed);
            }
            if state.raised > epoch {
                let by = state.raised;
                return Err(CollectiveError::Superseded { epoch, by });
            }
            let Some(inbox) = state.followings.get_mut(&self.id) else {
                return Err(CollectiveError::Closed);
            };
            if let Some(advance) = inbox.ready.pop_front() {
                drop(state);
                self.shared.room.notify_all();
                return Ok(advance);
            }
            if let Some(reason) = inbox.end.clone() {
                let donor = self.donor.clone();
                return Err(CollectiveError::DonorLost { donor, reason });
            }
            let woken = self.shared.events.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes back the buffer of a gradient that was applied, for another to be read into.
    pub fn recycle(&mut self, gradient: Vec<f32>) {
        let mut state = self.shared.lock();
        if let Some(inbox) = state.followings.get_mut(&self.id)
            && inbox.spare.len() < SPARE_GRADIENTS
        {
            inbox.spare.push(gradient);
        }
    }
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Following")
            .field("donor", &self.donor)
            .finish_non_exhaustive()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let inbox = self.shared.lock().followings.remove(&self.id);
        if let Some(stream) = inbox.and_then(|inbox| inbox.stream) {
            // It may be closed already. The reader does the rest.
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.shared.room.notify_all();
    }
}

fn run(shared: &Shared, id: u64, options: FollowOptions) {
    let donor = options.donor.identity.clone();
    let reason = match connect(shared, id, &options).and_then(|stream| read(shared, id, &stream, options)) {
        Ok(()) => return,
        Err(LossReason::Io(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)) => LossReason::Silent {
            after: shared.feed_timeout,
        },
        Err(reason) => reason,
    };
    let mut state = shared.lock();
    if let Some(inbox) = state.followings.get_mut(&id) {
        tracing::info!(donor, %reason, "a feed has ended");
        if let Some(stream) = inbox.stream.take() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        inbox.end = Some(reason);
    }
    drop(state);
    shared.events.notify_all();
}

/// Connects and greets. The stream is in the inbox on return, so that it can be shut.
fn connect(shared: &Shared, id: u64, options: &FollowOptions) -> Result<Arc<TcpStream>, LossReason> {
    let wanted = || {
        let state = shared.lock();
        !state.closed && state.followings.contains_key(&id)
    };
    let stream = Arc::new(wire::dial(options.donor.address, wanted)?);
    let epoch = {
        let mut state = shared.lock();
        let (closed, epoch) = (state.closed, state.epoch());
        let Some(inbox) = state.followings.get_mut(&id).filter(|_| !closed) else {
            return Err(LossReason::Closed);
        };
        inbox.stream = Some(stream.clone());
        epoch
    };
    stream
        .set_read_timeout(Some(shared.feed_timeout))
        .map_err(|error| LossReason::Io(error.kind()))?;
    let follow = Follow {
        identity: shared.identity.clone(),
        token: shared.token.clone(),
        donor: options.donor.identity.clone(),
        at_least: options.at_least,
        held: options.held,
    }
    .encode();
    let header = Header::bare(Kind::Follow, shared.job, epoch).announcing(&follow);
    wire::write_frame(&*stream, &header, &follow)?;
    Ok(stream)
}

/// Reads until nobody wants more.
fn read(shared: &Shared, id: u64, stream: &TcpStream, options: FollowOptions) -> Result<(), LossReason> {
    let FollowOptions {
        held,
        at_least,
        shape,
        ..
    } = options;
    let mut intake = Intake {
        job: shared.job,
        shape,
        at_least,
        held,
        reached: None,
    };
    loop {
        let buffer = |len| {
            let mut state = shared.lock();
            let spare = state.followings.get_mut(&id).and_then(|inbox| inbox.spare.pop());
            drop(state);
            spare
                .filter(|spare| spare.len() == len)
                .unwrap_or_else(|| vec![0.0; len])
        };
        let heard = |length| {
            let mut state = shared.lock();
            state.stats.received_frames += 1;
            state.stats.received_bytes += length;
            drop(state);
            shared.events.notify_all();
        };
        let advance = intake.read(stream, buffer, heard)?;
        let mut state = shared.lock();
        loop {
            let closed = state.closed;
            let Some(inbox) = state.followings.get_mut(&id).filter(|_| !closed) else {
                return Ok(());
            };
            if inbox.ready.len() < INBOX_ADVANCES {
                inbox.ready.push_back(advance);
                break;
            }
            state = shared.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        shared.events.notify_all();
    }
}
