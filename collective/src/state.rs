//! What all threads of an endpoint share: one lock, and what wakes whom.
//!
//! Frames are large and few, so one lock is never fought over; no payload is copied, and nothing is written,
//! read or called back, while it is held.

use std::collections::{BTreeMap, HashMap};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lockstep_engine::ids::{Epoch, Rank};
use lockstep_shm::Alarm;

use crate::agreement::Way;
use crate::endpoint::{Group, Peer};
use crate::error::{CollectiveError, LossReason, PeerLost};
use crate::feed::OnFollow;
use crate::following::Inbox;
use crate::limits::MAX_MEMBERS;
use crate::mailbox::{Mailbox, Received, Topic, Turn};
use crate::outbound::Link;
use crate::pool::Pool;

/// What is called when a member is lost.
pub(crate) type OnPeerLost = Box<dyn Fn(PeerLost) + Send + Sync>;

/// What an endpoint has seen since it was bound, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames dropped because they were of an older epoch or step.
    pub stale_frames: u64,
    /// Frames dropped because their sender is no member of their epoch.
    pub foreign_frames: u64,
    /// Connections closed because they gave no valid greeting in time, or before too many others came.
    pub rejected_connections: u64,
    /// Connections closed because of a frame that failed its checks.
    pub bad_frames: u64,
    /// All-reduces that went through shared memory, those included that went between hosts as well.
    pub shared_reductions: u64,
    /// Frames received whole, and messages read in shared memory.
    pub received_frames: u64,
    /// Bytes of their payloads.
    pub received_bytes: u64,
    /// Frames written, and messages put in shared memory.
    pub sent_frames: u64,
    /// Bytes of their payloads.
    pub sent_bytes: u64,
    /// Those of them that were put in shared memory.
    pub shared_bytes: u64,
    /// Frames that wait for an operation, now.
    pub waiting_frames: usize,
    /// Bytes of their payloads.
    pub waiting_bytes: usize,
    /// Connections from members that have greeted, now.
    pub inbound: usize,
    /// Connections from followers that have greeted, now.
    pub followers: usize,
    /// Connections to members, now.
    pub outbound: usize,
    /// Buffers ever allocated; constant in the steady state.
    pub allocated_buffers: u64,
}

/// What went through shared memory, in messages and bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    /// Put there.
    pub(crate) sent: (u64, u64),
    /// Read there.
    pub(crate) received: (u64, u64),
}

impl Traffic {
    /// A message was put.
    pub(crate) fn send(&mut self, bytes: usize) {
        self.sent = (self.sent.0 + 1, self.sent.1 + bytes as u64);
    }

    /// A message was read.
    pub(crate) fn receive(&mut self, bytes: usize) {
        self.received = (self.received.0 + 1, self.received.1 + bytes as u64);
    }
}

/// A group as entered.
#[derive(Debug)]
pub(crate) struct Roster {
    /// Its epoch.
    pub(crate) epoch: Epoch,
    /// This endpoint's place.
    pub(crate) rank: Rank,
    /// Everybody, by rank.
    pub(crate) members: Vec<Peer>,
    ranks: HashMap<String, Rank>,
}

impl Roster {
    /// The group as seen by `identity`, if it can be entered.
    pub(crate) fn new(group: Group, identity: &str) -> Result<Self, CollectiveError> {
        let Group { epoch, rank, members } = group;
        let invalid = |problem| Err(CollectiveError::InvalidGroup { epoch, problem });
        match members.get(rank.index()) {
            Some(me) if me.identity == identity => {}
            Some(other) => return invalid(format!("rank {rank} is `{}`, not `{identity}`", other.identity)),
            None => return invalid(format!("rank {rank} in a group of {}", members.len())),
        }
        if members.len() > MAX_MEMBERS {
            return invalid(format!(
                "{} members where at most {MAX_MEMBERS} are allowed",
                members.len()
            ));
        }
        let mut ranks = HashMap::with_capacity(members.len());
        for (index, member) in (0u32..).zip(&members) {
            if ranks.insert(member.identity.clone(), Rank(index)).is_some() {
                return invalid(format!("`{}` is in it twice", member.identity));
            }
        }
        Ok(Self {
            epoch,
            rank,
            members,
            ranks,
        })
    }

    /// The rank of `identity`.
    pub(crate) fn rank_of(&self, identity: &str) -> Option<Rank> {
        self.ranks.get(identity).copied()
    }

    /// Number of members.
    pub(crate) fn size(&self) -> u32 {
        self.members.len() as u32
    }
}

/// A connection that somebody else has opened.
#[derive(Debug)]
pub(crate) struct Inbound {
    /// Who is at the other end.
    pub(crate) guest: Guest,
    /// To be shut when the endpoint closes.
    pub(crate) stream: Arc<TcpStream>,
}

/// The newest link of a member or of an outsider to this endpoint.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// The number that the sender gives it.
    pub(crate) link: u64,
    /// Its connections that have greeted; none once one of them has ended, as then the link is over.
    pub(crate) connections: Vec<u64>,
}

/// Who has opened a connection, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Guest {
    /// It has not greeted yet.
    Stranger,
    /// One that has frames for a group.
    Peer {
        /// Who it is.
        identity: Arc<str>,
        /// The host that it shares memory with; empty if with none.
        host: String,
        /// Since when it is in no group of ours.
        outsider_since: Option<Instant>,
    },
    /// One that wants to follow.
    Follower(String),
}

/// Everything behind the lock.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Whether the endpoint is closing.
    pub(crate) closed: bool,
    /// The highest epoch that was raised or entered.
    pub(crate) raised: Epoch,
    /// The current group.
    pub(crate) roster: Option<Arc<Roster>>,
    /// Members of it that were lost.
    pub(crate) lost: BTreeMap<Rank, LossReason>,
    /// The last reduction that began in this epoch.
    pub(crate) begun: Option<Turn>,
    /// The way between its members, once they have agreed on one.
    pub(crate) way: Option<Way>,
    /// The link to each member of it.
    pub(crate) routes: Vec<Option<u64>>,
    /// All links by number, those on their way out included.
    pub(crate) links: HashMap<u64, Link>,
    /// All inbound connections by number.
    pub(crate) inbound: HashMap<u64, Inbound>,
    /// The newest inbound link of each sender; the end of a connection of an older one means nothing.
    pub(crate) newest: HashMap<Arc<str>, Incoming>,
    /// Frames that wait.
    pub(crate) mailbox: Mailbox,
    /// What is read of each feed that this endpoint follows.
    pub(crate) followings: HashMap<u64, Inbox>,
    /// Readers that wait for room.
    pub(crate) blocked_readers: usize,
    /// Operations that wait for links to finish writing.
    pub(crate) settling: usize,
    /// Counters; the gauges are filled in when asked for.
    pub(crate) stats: Stats,
    /// All threads but those that links join themselves.
    pub(crate) threads: Vec<JoinHandle<()>>,
    next_id: u64,
}

impl State {
    /// A number for a link, a connection or an operation.
    pub(crate) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// The epoch of the current group.
    pub(crate) fn epoch(&self) -> Epoch {
        self.roster.as_ref().map_or(Epoch(0), |roster| roster.epoch)
    }

    /// How many connections have guests that `which` holds of.
    pub(crate) fn count(&self, which: impl Fn(&Guest) -> bool) -> usize {
        self.inbound
            .values()
            .filter(|inbound| which(&inbound.guest))
            .count()
    }

    /// The rank of `identity` in the current group.
    pub(crate) fn rank_of(&self, identity: &str) -> Option<Rank> {
        self.roster.as_ref()?.rank_of(identity)
    }

    /// The link to `rank`, if it is in working order.
    pub(crate) fn link_to(&mut self, rank: Rank) -> Option<&mut Link> {
        let id = (*self.routes.get(rank.index())?)?;
        self.links.get_mut(&id).filter(|link| link.is_open())
    }

    /// The host that a member says it shares memory with, once it has greeted.
    pub(crate) fn host_of(&self, identity: &str) -> Option<&str> {
        let greeted = self.newest.get(identity)?.connections.first()?;
        match &self.inbound.get(greeted)?.guest {
            Guest::Peer { host, .. } => Some(host),
            Guest::Stranger | Guest::Follower(_) => None,
        }
    }

    /// Ends the link that a member has opened, which has not ended: closes its connections. Their readers do the rest, and
    /// these ends mean nothing any more, nor does a connection of that link that greets late.
    pub(crate) fn hang_up(&mut self, identity: &str) {
        let Some(link) = self.newest.get_mut(identity) else {
            return;
        };
        for id in link.connections.drain(..) {
            if let Some(inbound) = self.inbound.get(&id) {
                // It may be closed already.
                let _ = inbound.stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Forgets links that have ended, of those who are no members.
    pub(crate) fn forget_ended(&mut self, roster: &Roster) {
        self.newest
            .retain(|identity, link| !link.connections.is_empty() || roster.rank_of(identity).is_some());
    }

    /// What the operation that runs asks for, or the next one if none does.
    fn current(&self) -> Topic {
        let epoch = self.epoch();
        match self.begun {
            Some(turn) => Topic::reduction(epoch, turn),
            None => Topic::agreement(epoch),
        }
    }

    /// Notes that a member was lost, once. `None` if `identity` is no member, or the loss is known.
    pub(crate) fn lose(&mut self, identity: &str, reason: LossReason) -> Option<PeerLost> {
        if self.closed {
            return None;
        }
        let roster = self.roster.as_ref()?;
        let (epoch, rank) = (roster.epoch, roster.rank_of(identity)?);
        if self.lost.contains_key(&rank) {
            return None;
        }
        self.lost.insert(rank, reason.clone());
        Some(PeerLost {
            epoch,
            rank,
            identity: identity.to_owned(),
            reason,
        })
    }

    /// The first loss of the current group, as an error.
    pub(crate) fn loss(&self) -> Option<CollectiveError> {
        self.losses().into_iter().next().map(CollectiveError::from)
    }

    /// All losses of the current group.
    pub(crate) fn losses(&self) -> Vec<PeerLost> {
        let Some(roster) = &self.roster else {
            return Vec::new();
        };
        let lost = |(&rank, reason): (&Rank, &LossReason)| {
            let identity = roster.members.get(rank.index())?.identity.clone();
            Some(PeerLost {
                epoch: roster.epoch,
                rank,
                identity,
                reason: reason.clone(),
            })
        };
        self.lost.iter().filter_map(lost).collect()
    }

    /// Drops queued frames and waiting frames that are out of date.
    pub(crate) fn purge(&mut self, pool: &Pool) {
        let (raised, epoch, begun) = (self.raised, self.epoch(), self.begun);
        for link in self.links.values_mut() {
            link.queue.retain(|frame| frame.header.epoch >= raised);
        }
        let stale = |frame: &Received| is_stale(frame, raised, epoch, begun);
        for frame in self.mailbox.sift(|frame| !stale(frame)) {
            self.stats.stale_frames += 1;
            frame.payload.recycle(pool);
        }
        let State { mailbox, roster, .. } = self;
        let foreign = mailbox.sift(|frame| {
            roster.as_ref().is_none_or(|roster| {
                frame.header.epoch != roster.epoch || roster.rank_of(&frame.sender).is_some()
            })
        });
        for frame in foreign {
            self.stats.foreign_frames += 1;
            frame.payload.recycle(pool);
        }
    }
}

fn is_stale(frame: &Received, raised: Epoch, epoch: Epoch, begun: Option<Turn>) -> bool {
    let header = &frame.header;
    header.epoch < raised || header.epoch == epoch && begun.is_some_and(|begun| Turn::of(header) < begun)
}

/// What threads hold.
pub(crate) struct Shared {
    /// The job's tag.
    pub(crate) job: u64,
    /// Who this is.
    pub(crate) identity: String,
    /// The job's token.
    pub(crate) token: String,
    /// Connections to each member.
    pub(crate) streams: usize,
    /// Whether something is computed beside what waits.
    pub(crate) computing: AtomicBool,
    /// How long an operation waits in silence.
    pub(crate) timeout: Duration,
    /// How long a follower waits in silence.
    pub(crate) feed_timeout: Duration,
    /// Bytes that may wait from one sender for the operation that runs, and as many for later ones.
    pub(crate) mailbox_bytes: usize,
    /// Bytes that may wait for one follower.
    pub(crate) feed_bytes: usize,
    /// Buffers of payloads.
    pub(crate) pool: Pool,
    /// The host that it shares memory with, if with any.
    pub(crate) host: Option<String>,
    /// Wakes operations that wait for links.
    pub(crate) events: Condvar,
    /// Wakes operations that wait in shared memory.
    pub(crate) alarm: Alarm,
    /// Wakes readers that wait for room.
    pub(crate) room: Condvar,
    /// What is called when a member is lost.
    pub(crate) on_peer_lost: OnPeerLost,
    /// What is called when somebody wants to follow.
    pub(crate) on_follow: OnFollow,
    /// The rest.
    pub(crate) state: Mutex<State>,
}

impl Shared {
    /// The state. A thread that panicked with it left it whole: every change is made in one go.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of the state and tells the session of a loss.
    pub(crate) fn tell(&self, state: MutexGuard<'_, State>, lost: Option<PeerLost>) {
        drop(state);
        self.events.notify_all();
        if let Some(lost) = lost {
            self.alarm.ring();
            tracing::info!(epoch = %lost.epoch, rank = %lost.rank, identity = lost.identity, reason = %lost.reason, "lost a member");
            (self.on_peer_lost)(lost);
        }
    }

    /// Wakes whatever waits.
    pub(crate) fn wake_all(&self) {
        self.events.notify_all();
        self.room.notify_all();
        self.alarm.ring();
    }

    /// Stops what runs for epochs before `epoch`.
    pub(crate) fn raise(&self, epoch: Epoch) {
        let mut state = self.lock();
        if epoch > state.raised {
            state.raised = epoch;
            state.purge(&self.pool);
        }
        drop(state);
        self.wake_all();
    }

    /// Hands a received frame to whoever will ask for it. Waits while too much of its sender is waiting.
    ///
    /// This never makes an operation wait for ever. A sender queues all of a reduction before it begins the next, and its
    /// streams take frames from the queue in order, so on each connection nothing that an operation needs is behind what it
    /// does not. Across connections it can be: sums of a reduction may still be on their way on one, while others have filled
    /// the mailbox with frames of the next ones. Therefore what the operation that runs asks for has room of its own, which
    /// the operation empties whenever it looks, and no reader that has some of it waits for room that others take. By
    /// induction the reduction that is furthest behind among the members can go on.
    pub(crate) fn deliver(&self, frame: Received) {
        let mut state = self.lock();
        state.stats.received_frames += 1;
        state.stats.received_bytes += frame.header.length;
        loop {
            if state.closed {
                return;
            }
            let rank = state.rank_of(&frame.sender);
            let (raised, epoch) = (state.raised, state.epoch());
            if is_stale(&frame, raised, epoch, state.begun) {
                state.stats.stale_frames += 1;
                frame.payload.recycle(&self.pool);
                break;
            }
            if frame.header.epoch == epoch && rank.is_none() {
                state.stats.foreign_frames += 1;
                frame.payload.recycle(&self.pool);
                break;
            }
            if state
                .mailbox
                .has_room(&frame, state.current(), self.mailbox_bytes)
            {
                state.mailbox.put(frame);
                break;
            }
            state.blocked_readers += 1;
            self.events.notify_all();
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.blocked_readers -= 1;
        }
        drop(state);
        self.events.notify_all();
    }

    /// Counters and gauges.
    pub(crate) fn stats(&self) -> Stats {
        Self::gauge(&self.lock(), &self.pool)
    }

    fn gauge(state: &State, pool: &Pool) -> Stats {
        Stats {
            waiting_frames: state.mailbox.frames(),
            waiting_bytes: state.mailbox.bytes(),
            inbound: state.count(|guest| matches!(guest, Guest::Peer { .. })),
            followers: state.count(|guest| matches!(guest, Guest::Follower(_))),
            outbound: state.links.values().map(Link::connected).sum(),
            allocated_buffers: pool.allocated(),
            ..state.stats
        }
    }

    /// Waits until `wanted` holds of the stats; `false` if it does not within `within`.
    pub(crate) fn wait_until(&self, within: Duration, wanted: impl Fn(&Stats) -> bool) -> bool {
        let deadline = Instant::now() + within;
        let mut state = self.lock();
        loop {
            if wanted(&Self::gauge(&state, &self.pool)) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            (state, _) = self
                .events
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
