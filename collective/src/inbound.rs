//! Connections of others: of members, on which frames only come in, and of followers.
//!
//! One thread accepts; each connection has a thread that reads. The connections of a member's link, one or more, tell
//! its number; the first that breaks ends all. Whoever does not greet properly within a few
//! seconds is shown out, and nothing that it sent goes further than this file.

use std::cmp::Ordering;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Instant;

use lockstep_engine::ids::Epoch;

use crate::error::LossReason;
use crate::feed;
use crate::fold::Segment;
use crate::frame::{FrameError, Header, Kind};
use crate::greeting::{Follow, Hello, same_token};
use crate::limits::{
    ACCEPT_PAUSE, GREETING_TIMEOUT, MAX_FOLLOWERS, MAX_OUTSIDERS, MAX_STRANGERS, MAX_STREAMS,
};
use crate::mailbox::Received;
use crate::state::{Guest, Inbound, Incoming, Shared, State};
use crate::wire::{self, Hurried};

/// Accepts connections until the endpoint closes.
pub(crate) fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    loop {
        let accepted = listener.accept();
        let mut state = shared.lock();
        if state.closed {
            return;
        }
        let stream = match accepted {
            Ok((stream, _)) => Arc::new(stream),
            Err(error) => {
                tracing::warn!(%error, "accept a connection");
                // Closing the endpoint wakes this.
                let waited = shared.room.wait_timeout(state, ACCEPT_PAUSE);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
                continue;
            }
        };
        state.threads.retain(|thread| !thread.is_finished());
        make_room(&mut state);
        let id = state.new_id();
        let shared_too = shared.clone();
        let stream_too = stream.clone();
        let reader = move || serve(&shared_too, id, &stream_too);
        match thread::Builder::new()
            .name("collective-read".to_owned())
            .spawn(reader)
        {
            Ok(thread) => {
                state.inbound.insert(
                    id,
                    Inbound {
                        guest: Guest::Stranger,
                        stream,
                    },
                );
                state.threads.push(thread);
            }
            Err(error) => {
                state.stats.rejected_connections += 1;
                tracing::warn!(%error, "start a thread for a connection");
            }
        }
    }
}

/// Closes the oldest connection that has not greeted if there are too many. Its reader does the rest.
fn make_room(state: &mut State) {
    let strangers = state
        .inbound
        .iter()
        .filter(|(_, inbound)| inbound.guest == Guest::Stranger);
    let strangers: Vec<u64> = strangers.map(|(&id, _)| id).collect();
    if strangers.len() >= MAX_STRANGERS
        && let Some(oldest) = strangers.iter().min()
        && let Some(oldest) = state.inbound.remove(oldest)
    {
        // It may be closed already.
        let _ = oldest.stream.shutdown(Shutdown::Both);
    }
}

/// Serves one connection to its end.
fn serve(shared: &Shared, id: u64, stream: &Arc<TcpStream>) {
    let peer = stream.peer_addr().ok();
    let admitted = greet(shared, stream).and_then(|greeting| match greeting {
        Greeting::Hello(hello) => welcome(shared, id, hello).map(Admitted::Peer),
        Greeting::Follow(follow) => {
            attend(shared, id, &follow).map(|problem| Admitted::Follower(follow, problem))
        }
    });
    match admitted {
        Ok(Admitted::Peer(identity)) => serve_peer(shared, id, &identity, stream),
        Ok(Admitted::Follower(follow, problem)) => {
            feed::serve(shared, stream, follow, problem);
            let _ = stream.shutdown(Shutdown::Both);
            let mut state = shared.lock();
            state.inbound.remove(&id);
            shared.tell(state, None);
        }
        Err(reason) => {
            tracing::warn!(?peer, %reason, "refused a connection");
            let mut state = shared.lock();
            state.inbound.remove(&id);
            state.stats.rejected_connections += 1;
            let _ = stream.shutdown(Shutdown::Both);
            shared.tell(state, None);
        }
    }
}

/// Reads what a member sends, and notes how that ends.
fn serve_peer(shared: &Shared, id: u64, identity: &Arc<str>, stream: &TcpStream) {
    let end = read_frames(shared, identity, stream);
    let mut state = shared.lock();
    // Under the lock: the sender then ends its other streams, and of all ends this one has the reason.
    let _ = stream.shutdown(Shutdown::Both);
    state.inbound.remove(&id);
    if matches!(end, End::Broken(LossReason::Frame(_))) {
        state.stats.bad_frames += 1;
    }
    let link = state.newest.get_mut(identity);
    let newest = link.as_ref().is_some_and(|link| link.connections.contains(&id));
    match (&end, link) {
        _ if !newest => {}
        // Its other connections say so too.
        (End::Bye(_), Some(link)) => link.connections.clear(),
        _ => state.hang_up(identity),
    }
    if newest && state.rank_of(identity).is_none() {
        state.newest.remove(identity);
    }
    let lost = match end {
        _ if !newest => None,
        End::Broken(reason) => state.lose(identity, reason),
        // From a group that is not newer than ours, this is an old story.
        End::Bye(epoch) if epoch > state.epoch() => state.lose(identity, LossReason::Left(epoch)),
        End::Bye(_) => None,
    };
    shared.tell(state, lost);
}

/// How a connection ended.
enum End {
    Bye(Epoch),
    Broken(LossReason),
}

/// The first frame of a connection.
enum Greeting {
    Hello(Hello),
    Follow(Follow),
}

/// Who was let in; a follower with what speaks against it.
enum Admitted {
    Peer(Arc<str>),
    Follower(Follow, Option<String>),
}

/// Reads the greeting, and checks that it is of this job.
fn greet(shared: &Shared, stream: &TcpStream) -> Result<Greeting, LossReason> {
    let mut from = Hurried {
        stream,
        deadline: Instant::now() + GREETING_TIMEOUT,
    };
    let header = wire::read_header(&mut from, shared.job)?;
    if !matches!(header.kind, Kind::Hello | Kind::Follow) {
        return Err(unexpected(&header));
    }
    let mut payload = vec![0; header.length as usize];
    wire::read_payload(&mut from, &header, &mut payload)?;
    let greeting = match header.kind {
        Kind::Follow => Greeting::Follow(Follow::decode(&payload)?),
        _ => Greeting::Hello(Hello::decode(&payload)?),
    };
    let token = match &greeting {
        Greeting::Hello(hello) => &hello.token,
        Greeting::Follow(follow) => &follow.token,
    };
    if !same_token(token, &shared.token) {
        return Err(FrameError::Token.into());
    }
    stream
        .set_read_timeout(None)
        .map_err(|error| LossReason::Io(error.kind()))?;
    Ok(greeting)
}

/// Makes this a connection of the newest link of whoever it is.
fn welcome(shared: &Shared, id: u64, hello: Hello) -> Result<Arc<str>, LossReason> {
    let Hello {
        identity, host, link, ..
    } = hello;
    let identity: Arc<str> = identity.into();
    let mut state = shared.lock();
    let outsiders = |guest: &Guest| match guest {
        Guest::Peer { identity, .. } => state.rank_of(identity).is_none(),
        Guest::Stranger | Guest::Follower(_) => false,
    };
    if state.rank_of(&identity).is_none() && state.count(outsiders) >= MAX_OUTSIDERS {
        return Err(LossReason::Refused(format!(
            "there are {MAX_OUTSIDERS} connections of others that are no members"
        )));
    }
    let known = state.newest.get(&identity);
    match known.map(|known| (link.cmp(&known.link), known.connections.len())) {
        // Its sender had given the link up, or this end had, when it was on its way.
        Some((Ordering::Less, _) | (Ordering::Equal, 0)) => return Err(LossReason::Closed),
        Some((Ordering::Equal, MAX_STREAMS..)) => {
            let words = format!("the link has {MAX_STREAMS} connections already");
            return Err(LossReason::Refused(words));
        }
        // Its sender has opened a new link, so it has given that one up.
        Some((Ordering::Greater, _)) => {
            state.hang_up(&identity);
            state.newest.remove(&identity);
        }
        Some((Ordering::Equal, _)) | None => {}
    }
    let State { newest, inbound, .. } = &mut *state;
    let Some(inbound) = inbound.get_mut(&id) else {
        return Err(LossReason::Closed);
    };
    inbound.guest = Guest::Peer {
        identity: identity.clone(),
        host,
        outsider_since: None,
    };
    let connections = Vec::new();
    let entry = newest.entry(identity.clone());
    entry
        .or_insert(Incoming { link, connections })
        .connections
        .push(id);
    drop(state);
    shared.events.notify_all();
    Ok(identity)
}

/// Notes that this is a follower, and says what speaks against it, if anything does.
fn attend(shared: &Shared, id: u64, follow: &Follow) -> Result<Option<String>, LossReason> {
    let mut state = shared.lock();
    let follower = Guest::Follower(follow.identity.clone());
    for older in state.inbound.values().filter(|inbound| inbound.guest == follower) {
        // It asks anew, so it has given that one up.
        let _ = older.stream.shutdown(Shutdown::Both);
    }
    let others = state.count(|guest| matches!(guest, Guest::Follower(_)) && *guest != follower);
    let problem = if follow.donor != shared.identity {
        Some(format!(
            "`{}` listens here, not `{}`",
            shared.identity, follow.donor
        ))
    } else if others >= MAX_FOLLOWERS {
        Some(format!("it has {others} followers already"))
    } else {
        None
    };
    let Some(inbound) = state.inbound.get_mut(&id) else {
        return Err(LossReason::Closed);
    };
    inbound.guest = follower;
    drop(state);
    shared.events.notify_all();
    Ok(problem)
}

fn unexpected(header: &Header) -> LossReason {
    let found = header.kind as u8;
    FrameError::Kind { found }.into()
}

/// Reads frames until the connection ends.
fn read_frames(shared: &Shared, identity: &Arc<str>, stream: &TcpStream) -> End {
    loop {
        match read_frame(shared, stream) {
            Ok((header, None)) => return End::Bye(header.epoch),
            Ok((header, Some(payload))) => {
                shared.deliver(Received {
                    sender: identity.clone(),
                    header,
                    payload,
                });
            }
            Err(reason) => return End::Broken(reason),
        }
    }
}

/// Reads one frame; a goodbye has no payload.
fn read_frame(shared: &Shared, stream: &TcpStream) -> Result<(Header, Option<Segment>), LossReason> {
    let header = wire::read_header(stream, shared.job)?;
    match header.kind {
        Kind::Bye => return Ok((header, None)),
        Kind::Partial | Kind::Reduced | Kind::Segment | Kind::Ready => {}
        _ => return Err(unexpected(&header)),
    }
    let len = header.length as usize / size_of::<f32>();
    let mut payload = Segment::pooled(shared.pool.take_rounded(len), len);
    // A buffer from the pool is nobody else's.
    let Some(bytes) = payload.bytes_mut() else {
        return Err(LossReason::Io(io::ErrorKind::Other));
    };
    wire::read_payload(stream, &header, bytes)?;
    Ok((header, Some(payload)))
}
