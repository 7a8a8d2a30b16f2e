//! Links: one to each member, on which frames only go out.
//!
//! A link has a queue, and one or more streams: connections with two threads each. One writes, so that a member that does
//! not read hangs nobody else; one watches for the other end to close, so that a loss is noticed while there is nothing to
//! write. A frame leaves on whichever stream is free first, which one with much unsent is not: the frames of a reduction, and those of an agreement, may come
//! in any order. A stream that breaks ends its link.

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Scope, ScopedJoinHandle};

use lockstep_engine::ids::Epoch;

use crate::error::LossReason;
use crate::frame::{Header, Kind};
use crate::greeting::Hello;
use crate::limits::QUEUE_FRAMES;
use crate::mailbox::Turn;
use crate::reduction::Outgoing;
use crate::state::{Shared, State};
use crate::wire;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// In use.
    Open,
    /// To say goodbye, because the group of this epoch does not have the member.
    Leaving(Epoch),
    /// Broken.
    Dead,
}

/// A connection of a link.
#[derive(Debug)]
struct Stream {
    socket: Arc<TcpStream>,
    /// What is being written.
    writing: Option<Header>,
}

/// The connections to a member.
#[derive(Debug)]
pub(crate) struct Link {
    /// Who is at the other end.
    pub(crate) identity: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// What is to be written.
    pub(crate) queue: VecDeque<Outgoing>,
    /// The epoch for which it was opened.
    since: Epoch,
    /// The epoch of the last frame that was written on it, or begun.
    spoken: Epoch,
    phase: Phase,
    wake: Arc<Condvar>,
    /// Those that are connected.
    streams: Vec<Stream>,
}

impl Link {
    /// A link for the group of an epoch, not connected yet.
    pub(crate) fn new(identity: String, address: SocketAddr, since: Epoch) -> Self {
        let (queue, wake) = (VecDeque::new(), Arc::default());
        Self {
            identity,
            address,
            queue,
            since,
            spoken: Epoch(0),
            phase: Phase::Open,
            wake,
            streams: Vec::new(),
        }
    }

    /// Whether it is in working order, as far as is known.
    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Connections in working order, as far as is known.
    pub(crate) fn connected(&self) -> usize {
        if self.is_open() { self.streams.len() } else { 0 }
    }

    /// What is being written.
    fn writing(&self) -> impl Iterator<Item = &Header> {
        self.streams.iter().filter_map(|stream| stream.writing.as_ref())
    }

    /// Whether a frame that `which` holds of is not written yet.
    pub(crate) fn holds(&self, which: impl Fn(&Header) -> bool) -> bool {
        self.queue
            .iter()
            .map(|frame| &frame.header)
            .chain(self.writing())
            .any(which)
    }

    /// Whether a partial of this reduction is not written yet.
    pub(crate) fn holds_partial_of(&self, epoch: Epoch, turn: Turn) -> bool {
        self.holds(|header| header.kind == Kind::Partial && header.epoch == epoch && Turn::of(header) == turn)
    }

    /// Queues a frame.
    pub(crate) fn push(&mut self, frame: Outgoing) {
        self.queue.push_back(frame);
        self.wake.notify_one();
    }

    /// Ends it because the group of `epoch` does not have the member: with a goodbye if nothing is under way,
    /// on every stream, so that it is not taken for a crash.
    pub(crate) fn leave(&mut self, epoch: Epoch) {
        if self.phase != Phase::Open {
            return;
        }
        self.queue.clear();
        if self.writing().next().is_some() {
            self.break_off();
        } else {
            self.phase = Phase::Leaving(epoch);
            self.wake.notify_all();
        }
    }

    /// Whether its end, for this reason, says nothing about the member in the group of `epoch`: it may have been
    /// broken in an older one, as by a corrupted frame, and nothing of this one was written on it.
    fn is_old_story(&self, epoch: Epoch, reason: &LossReason) -> bool {
        self.since < epoch && self.spoken < epoch && !matches!(reason, LossReason::Connect { .. })
    }

    /// Ends it at once, and whatever its threads are waiting for.
    pub(crate) fn break_off(&mut self) {
        self.phase = Phase::Dead;
        self.queue.clear();
        for stream in &self.streams {
            // It may be closed already.
            let _ = stream.socket.shutdown(Shutdown::Both);
        }
        self.wake.notify_all();
    }
}

/// Starts the threads of link `id`, which is in the state, or soon will be: the caller holds the lock.
pub(crate) fn spawn(shared: &Arc<Shared>, id: u64) -> io::Result<JoinHandle<()>> {
    let shared = shared.clone();
    thread::Builder::new()
        .name("collective-write".to_owned())
        .spawn(move || run(&shared, id))
}

fn run(shared: &Arc<Shared>, id: u64) {
    thread::scope(|scope| {
        let mut threads = Threads {
            scope,
            running: Vec::new(),
        };
        // This thread writes on one stream itself: the last, so that none waits for another to connect.
        let others = (1..shared.streams).try_for_each(|_| {
            let (at, socket) = open(&mut threads, shared, id)?;
            threads.start("collective-write", move || write(shared, id, at, &socket))
        });
        match others.and_then(|()| open(&mut threads, shared, id)) {
            Ok((at, socket)) => write(shared, id, at, &socket),
            Err(reason) => lose(shared, id, reason),
        }
        // The scope waits for what they do, and not until they are gone.
        for thread in threads.running {
            // A panic there was reported by the runtime; there is nothing to add here.
            let _ = thread.join();
        }
    });
    shared.lock().links.remove(&id);
    shared.events.notify_all();
}

/// Opens a stream of a link, with the thread that watches it; its place in the link.
fn open<'scope>(
    threads: &mut Threads<'scope, '_>,
    shared: &'scope Arc<Shared>,
    id: u64,
) -> Result<(usize, Arc<TcpStream>), LossReason> {
    let (at, socket) = connect(shared, id)?;
    let watched = socket.clone();
    threads.start("collective-watch", move || {
        lose(shared, id, wire::watch(&watched));
    })?;
    Ok((at, socket))
}

/// Writes on the stream at `at` to its end.
fn write(shared: &Arc<Shared>, id: u64, at: usize, socket: &TcpStream) {
    // The reason is noted before the other end sees the stream closed and closes the rest.
    if let Err(reason) = write_all(shared, id, at, socket) {
        lose(shared, id, reason);
    }
    // It may be closed already.
    let _ = socket.shutdown(Shutdown::Both);
}

/// Connects and greets. The stream is in the link on return, so that it can be broken off.
fn connect(shared: &Shared, id: u64) -> Result<(usize, Arc<TcpStream>), LossReason> {
    let Some(address) = shared.lock().links.get(&id).map(|link| link.address) else {
        return Err(LossReason::Closed);
    };
    let open = || shared.lock().links.get(&id).is_some_and(Link::is_open);
    let socket = Arc::new(wire::dial(address, open)?);
    if shared.streams > 1 {
        wire::bound_unsent(&socket)?;
    }
    let hello = Hello {
        identity: shared.identity.clone(),
        token: shared.token.clone(),
        host: shared.host.clone().unwrap_or_default(),
        link: id,
    }
    .encode();
    let (at, epoch) = {
        let mut state = shared.lock();
        let (closed, epoch) = (state.closed, state.epoch());
        let Some(link) = state.links.get_mut(&id).filter(|link| link.is_open() && !closed) else {
            return Err(LossReason::Closed);
        };
        link.streams.push(Stream {
            socket: socket.clone(),
            writing: None,
        });
        (link.streams.len() - 1, epoch)
    };
    let header = Header::bare(Kind::Hello, shared.job, epoch).announcing(&hello);
    wire::write_frame(&*socket, &header, &hello)?;
    shared.events.notify_all();
    Ok((at, socket))
}

/// Writes what is queued on the stream at `at` until the link ends.
fn write_all(shared: &Shared, id: u64, at: usize, socket: &TcpStream) -> Result<(), LossReason> {
    let mut state = shared.lock();
    loop {
        let settling = state.settling > 0;
        let Some(link) = state.links.get_mut(&id) else {
            return Ok(());
        };
        if link.streams[at].writing.take().is_some() && settling {
            shared.events.notify_all();
        }
        match link.phase {
            Phase::Dead => return Ok(()),
            Phase::Leaving(epoch) => {
                drop(state);
                return wire::write_frame(socket, &Header::bare(Kind::Bye, shared.job, epoch), &[]);
            }
            Phase::Open => {}
        }
        let full = link.queue.len() >= QUEUE_FRAMES;
        let Some(frame) = link.queue.pop_front() else {
            let wake = link.wake.clone();
            state = wait(&wake, state);
            continue;
        };
        link.streams[at].writing = Some(frame.header);
        link.spoken = frame.header.epoch;
        state.stats.sent_frames += 1;
        state.stats.sent_bytes += size_of_val(frame.payload.values()) as u64;
        drop(state);
        if full {
            shared.events.notify_all();
        }
        let bytes = frame.payload.bytes();
        let header = if frame.sealed {
            frame.header
        } else {
            frame.header.announcing(bytes)
        };
        if header.kind == Kind::Reduced {
            lockstep_faults::reach(lockstep_faults::Point::DuringReduce, header.step.0);
        }
        let spoilt = (!bytes.is_empty() && lockstep_faults::spoils_frame()).then(|| spoil(bytes));
        wire::write_frame(socket, &header, spoilt.as_deref().unwrap_or(bytes))?;
        // Before the lock: whoever waits for the link to settle wants the values back.
        drop(frame);
        state = shared.lock();
    }
}

/// The payload with a bit flipped, behind the back of its checksum: for drills.
pub(crate) fn spoil(payload: &[u8]) -> Vec<u8> {
    let mut spoilt = payload.to_vec();
    if let Some(byte) = spoilt.first_mut() {
        *byte ^= 1;
    }
    spoilt
}

fn wait<'a>(wake: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    wake.wait(state).unwrap_or_else(PoisonError::into_inner)
}

/// The threads of a link's streams, but for the one that runs the link.
struct Threads<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    running: Vec<ScopedJoinHandle<'scope, ()>>,
}

impl<'scope> Threads<'scope, '_> {
    fn start(&mut self, name: &str, run: impl FnOnce() + Send + 'scope) -> Result<(), LossReason> {
        let spawned = thread::Builder::new()
            .name(name.to_owned())
            .spawn_scoped(self.scope, run);
        self.running
            .push(spawned.map_err(|error| LossReason::Io(error.kind()))?);
        Ok(())
    }
}

/// Breaks a link off. If it was the link in use, its member is lost; or connected to anew, once, if the link was
/// opened for an older group and this one has not used it yet.
fn lose(shared: &Arc<Shared>, id: u64, reason: LossReason) {
    let mut state = shared.lock();
    let (closed, epoch) = (state.closed, state.epoch());
    let Some(link) = state.links.get_mut(&id).filter(|link| link.is_open()) else {
        return;
    };
    let (identity, address) = (link.identity.clone(), link.address);
    let old_story = link.is_old_story(epoch, &reason);
    let queue = std::mem::take(&mut link.queue);
    link.break_off();
    let Some(rank) = state.routes.iter().position(|route| *route == Some(id)) else {
        return shared.tell(state, None);
    };
    if old_story && !closed {
        let renewed = state.new_id();
        if let Ok(thread) = spawn(shared, renewed) {
            tracing::info!(%epoch, identity, %reason, "connects anew to a member");
            let link = Link {
                queue,
                ..Link::new(identity, address, epoch)
            };
            state.links.insert(renewed, link);
            state.routes[rank] = Some(renewed);
            state.threads.push(thread);
            return shared.tell(state, None);
        }
    }
    let lost = state.lose(&identity, reason);
    shared.tell(state, lost);
}
