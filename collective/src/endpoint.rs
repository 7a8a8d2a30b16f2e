//! Bind, enter, raise, close: the public face.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use std::{fmt, io};

use lockstep_engine::ids::{Epoch, Rank};

use crate::error::{CollectiveError, PeerLost};
use crate::feed::{FollowRequest, OnFollow};
use crate::inbound;
use crate::limits::{CLOSE_TIMEOUT, MAX_NAME_BYTES, MAX_STREAMS, POOL_BYTES};
use crate::operation::Operation;
use crate::outbound::{self, Link};
use crate::pool::Pool;
use crate::state::{Guest, OnPeerLost, Roster, Shared, State, Stats};

/// The way that frames of a group take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Shared memory between members of one host, and TCP between hosts; TCP alone where members of a host cannot open
    /// each other's memory.
    #[default]
    Auto,
    /// TCP.
    Tcp,
}

/// How to bind an endpoint.
pub struct Options {
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The job's tag: frames with another are refused.
    pub job: u64,
    /// Who this is: the worker's id in full, incarnation included. No other endpoint has had it.
    pub identity: String,
    /// The job's secret: connections that do not know it are refused.
    pub token: String,
    /// The way that all-reduces take. It decides no bits; one member that wants TCP is enough for its group to take it.
    pub transport: Transport,
    /// The host that it says it is of, for tests that act several on one machine; `None`: the one that it is of.
    #[doc(hidden)]
    pub host: Option<String>,
    /// Connections to each member, 1 to [`MAX_STREAMS`]: several carry more where the network bounds what one does. It
    /// decides no bits, and members need not have the same.
    pub streams: usize,
    /// How long an operation waits without hearing from anybody, and a feed for its follower to read. Losses are
    /// noticed by broken connections, so this is only for members that hang.
    pub timeout: Duration,
    /// How long a follower waits without hearing from its donor, which says four times as often that it is alive. Both
    /// ends must have the same.
    pub feed_timeout: Duration,
    /// Bytes of frames that may wait from one sender before it is held back: of the reduction that runs, and as many of
    /// later ones.
    pub mailbox_bytes: usize,
    /// Bytes of gradients that may wait for one follower before it is let go.
    pub feed_bytes: usize,
    /// Called when a member of the current group is lost, once a member and epoch, from a thread of the
    /// endpoint. It may raise the epoch; it must not drop the endpoint.
    pub on_peer_lost: OnPeerLost,
    /// Called when somebody wants to follow, from a thread of the connection's own; hand the request to whoever
    /// holds the state. At most [`MAX_FOLLOWERS`](crate::limits::MAX_FOLLOWERS) are open at a time; whoever asks
    /// again closes its older one, of which the request may still arrive, or arrive later: nobody hears its answer.
    pub on_follow: OnFollow,
}

impl Options {
    /// The defaults: no token, shared memory where it can be, one connection to a member, 120 s, 10 s for a feed, 256 MiB a sender, 1 GiB a follower, nobody told of losses, and no followers.
    #[must_use]
    pub fn new(listen: SocketAddr, job: u64, identity: impl Into<String>) -> Self {
        Self {
            listen,
            job,
            identity: identity.into(),
            token: String::new(),
            transport: Transport::Auto,
            host: None,
            streams: 1,
            timeout: Duration::from_secs(120),
            feed_timeout: Duration::from_secs(10),
            mailbox_bytes: 256 << 20,
            feed_bytes: 1 << 30,
            on_peer_lost: Box::new(|_| {}),
            on_follow: Box::new(|request: FollowRequest| request.refuse("it takes no followers")),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            listen,
            job,
            identity,
            transport,
            streams,
            timeout,
            feed_timeout,
            mailbox_bytes,
            feed_bytes,
            ..
        } = self;
        f.debug_struct("Options")
            .field("listen", listen)
            .field("job", job)
            .field("identity", identity)
            .field("transport", transport)
            .field("streams", streams)
            .field("timeout", timeout)
            .field("feed_timeout", feed_timeout)
            .field("mailbox_bytes", mailbox_bytes)
            .field("feed_bytes", feed_bytes)
            .finish_non_exhaustive()
    }
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub identity: String,
    /// Where its endpoint listens.
    pub address: SocketAddr,
}

/// A membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub epoch: Epoch,
    /// The rank of the endpoint that enters it.
    pub rank: Rank,
    /// All members by rank, the one that enters included.
    pub members: Vec<Peer>,
}

/// One rank's end of all connections. Dropping it closes them and waits for their threads.
#[derive(Debug)]
pub struct Endpoint {
    shared: Arc<Shared>,
    address: SocketAddr,
}

/// A cheap clone that any thread may hold, and that keeps no connection open.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// While it lives, something is computed beside what is reduced.
#[derive(Debug)]
pub struct Computing<'a>(&'a AtomicBool);

impl Drop for Computing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Endpoint {
    /// Listens and accepts connections from now on. There is no group yet.
    ///
    /// # Errors
    /// When an identity or token is too long (1 KiB), there are too many streams or none, or a time-out is zero, or the system refuses the address or a thread.
    pub fn bind(options: Options) -> Result<Self, CollectiveError> {
        let Options {
            listen,
            job,
            identity,
            token,
            transport,
            host,
            streams,
            timeout,
            feed_timeout,
            mailbox_bytes,
            feed_bytes,
            on_peer_lost,
            on_follow,
        } = options;
        let host = match transport {
            Transport::Auto if host.is_some() => host,
            Transport::Auto => lockstep_shm::host()
                .inspect_err(|error| tracing::warn!(%error, "cannot tell this host from others: takes TCP"))
                .ok(),
            Transport::Tcp => None,
        };
        for (argument, text) in [("identity", &identity), ("token", &token)] {
            if text.len() > MAX_NAME_BYTES {
                let problem = format!("{} bytes where at most {MAX_NAME_BYTES} are allowed", text.len());
                return Err(CollectiveError::Argument { argument, problem });
            }
        }
        if !(1..=MAX_STREAMS).contains(&streams) {
            let problem = format!("{streams} where 1 to {MAX_STREAMS} are allowed");
            return Err(CollectiveError::Argument {
                argument: "streams",
                problem,
            });
        }
        for (argument, time) in [("timeout", timeout), ("feed_timeout", feed_timeout)] {
            if time.is_zero() {
                let problem = "no time at all: give it seconds, or more".to_owned();
                return Err(CollectiveError::Argument { argument, problem });
            }
        }
        let failed = |error| system(format!("listen on {listen}"), &error);
        let listener = TcpListener::bind(listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            job,
            identity,
            token,
            streams,
            computing: AtomicBool::default(),
            timeout,
            feed_timeout,
            mailbox_bytes,
            feed_bytes,
            pool: Pool::new(POOL_BYTES),
            host,
            events: Default::default(),
            alarm: Default::default(),
            room: Default::default(),
            on_peer_lost,
            on_follow,
            state: Default::default(),
        });
        let shared_too = shared.clone();
        let acceptor = thread::Builder::new()
            .name("collective-accept".to_owned())
            .spawn(move || inbound::accept(&shared_too, &listener))
            .map_err(|error| system("start a thread".to_owned(), &error))?;
        shared.lock().threads.push(acceptor);
        Ok(Self { shared, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Says that something is computed beside what is reduced, until it is dropped: an operation that waits leaves its
    /// core to that at once. At other times it looks for a moment whether it can go on, which is faster. One at a time.
    #[must_use]
    pub fn computing(&self) -> Computing<'_> {
        self.shared.computing.store(true, Ordering::Relaxed);
        Computing(&self.shared.computing)
    }

    /// A handle to it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            shared: self.shared.clone(),
        }
    }

    /// Enters a group. What runs for an older epoch is superseded; frames of older epochs are dropped, and those
    /// that came early for this one are kept. Connections are opened to new members at once, kept to members
    /// with the same identity and address, and closed to those who are no longer in the group.
    ///
    /// # Errors
    /// [`CollectiveError::InvalidGroup`] if the epoch is not newer than the last entered one, if this endpoint's
    /// identity is not at its rank, or if one is there twice; [`CollectiveError::Superseded`] if a higher epoch
    /// was raised.
    pub fn enter(&self, group: Group) -> Result<(), CollectiveError> {
        let shared = &self.shared;
        let roster = Roster::new(group, &shared.identity)?;
        let epoch = roster.epoch;
        let mut guard = shared.lock();
        let state = &mut *guard;
        if state.raised > epoch {
            return Err(CollectiveError::Superseded {
                epoch,
                by: state.raised,
            });
        }
        if epoch <= state.epoch() {
            let problem = format!("epoch {} was entered already", state.epoch());
            return Err(CollectiveError::InvalidGroup { epoch, problem });
        }
        let routes = route(shared, state, &roster)?;
        for (id, link) in &mut state.links {
            if !routes.contains(&Some(*id)) {
                link.leave(epoch);
            }
        }
        state.raised = epoch;
        state.routes = routes;
        state.lost.clear();
        state.begun = None;
        state.forget_ended(&roster);
        // Its memory is given back when nobody holds the lock.
        let old_way = state.way.take();
        state.threads.retain(|thread| !thread.is_finished());
        show_outsiders_out(state, &roster, shared.timeout);
        state.roster = Some(Arc::new(roster));
        state.purge(&shared.pool);
        drop(guard);
        drop(old_way);
        shared.wake_all();
        Ok(())
    }

    /// Waits until everything that was queued is handed to the system: to be called before a friendly exit.
    /// Returns early when the group is superseded, and after [`timeout`](Options::timeout).
    ///
    /// # Errors
    /// When no group was entered, or a newer epoch was raised before.
    pub fn flush(&self) -> Result<(), CollectiveError> {
        Operation::begin(&self.shared)?.settle(|link| link.holds(|_| true));
        Ok(())
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

/// The link to each member: the one there is, or a new one.
fn route(
    shared: &Arc<Shared>,
    state: &mut State,
    roster: &Roster,
) -> Result<Vec<Option<u64>>, CollectiveError> {
    let mut routes = Vec::with_capacity(roster.members.len());
    for (index, member) in (0u32..).zip(&roster.members) {
        if Rank(index) == roster.rank {
            routes.push(None);
            continue;
        }
        let same = |link: &Link| {
            link.is_open() && link.identity == member.identity && link.address == member.address
        };
        if let Some((&id, _)) = state.links.iter().find(|(_, link)| same(link)) {
            routes.push(Some(id));
            continue;
        }
        let id = state.new_id();
        state.links.insert(
            id,
            Link::new(member.identity.clone(), member.address, roster.epoch),
        );
        match outbound::spawn(shared, id) {
            Ok(thread) => state.threads.push(thread),
            Err(error) => {
                state.links.remove(&id);
                return Err(system(format!("start a thread for rank {index}"), &error));
            }
        }
        routes.push(Some(id));
    }
    Ok(routes)
}

/// Closes connections of those who have not been members for a long time. Not at once: they may be early for a
/// newer group, and those who leave close their connections themselves.
fn show_outsiders_out(state: &mut State, roster: &Roster, after: Duration) {
    let now = Instant::now();
    for inbound in state.inbound.values_mut() {
        let Guest::Peer {
            identity,
            outsider_since,
            ..
        } = &mut inbound.guest
        else {
            continue;
        };
        if roster.rank_of(identity).is_some() {
            *outsider_since = None;
        } else if now.duration_since(*outsider_since.get_or_insert(now)) > after {
            // Its reader does the rest.
            let _ = inbound.stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn system(verb: String, error: &io::Error) -> CollectiveError {
    CollectiveError::System {
        verb,
        kind: error.kind(),
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let threads = {
            let mut state = self.shared.lock();
            state.closed = true;
            state.way = None;
            state.links.values_mut().for_each(Link::break_off);
            let inbound = state.inbound.values().map(|inbound| &inbound.stream);
            let followed = state
                .followings
                .values()
                .filter_map(|inbox| inbox.stream.as_ref());
            for stream in inbound.chain(followed) {
                // It may be closed already.
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
            std::mem::take(&mut state.threads)
        };
        self.shared.wake_all();
        // The acceptor sees that it is over when it has accepted something.
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let _ = TcpStream::connect_timeout(&SocketAddr::new(ip, self.address.port()), CLOSE_TIMEOUT);
        for thread in threads {
            // A panic there was reported by the runtime; there is nothing to add here.
            let _ = thread.join();
        }
    }
}

impl Handle {
    /// Stops what runs for epochs before `epoch`: it returns [`CollectiveError::Superseded`] at once. Groups
    /// before it can no longer be entered.
    pub fn raise(&self, epoch: Epoch) {
        self.shared.raise(epoch);
    }

    /// What was seen, and what is held.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// The members of the current group that were lost.
    #[must_use]
    pub fn lost(&self) -> Vec<PeerLost> {
        self.shared.lock().losses()
    }

    /// Waits until `wanted` holds of the stats; `false` if it does not within `within`.
    #[must_use]
    pub fn wait_until(&self, within: Duration, wanted: impl Fn(&Stats) -> bool) -> bool {
        self.shared.wait_until(within, wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_computed_beside_is_told_for_as_long_as_it_lasts() {
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let endpoint = Endpoint::bind(Options::new(listen, 1, "a")).unwrap();
        let told = || endpoint.shared.computing.load(Ordering::Relaxed);
        assert!(!told());
        let computing = endpoint.computing();
        assert!(told());
        drop(computing);
        assert!(!told());
    }
}
