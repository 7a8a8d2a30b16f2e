//! Connections of others, on which frames only come in.
//!
//! One thread accepts; each connection has a thread that reads. Whoever does not greet properly within a few
//! seconds is shown out, and nothing that it sent goes further than this file.

use std::io::{self, Read};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use lockstep_engine::ids::Epoch;

use crate::error::LossReason;
use crate::fold::Segment;
use crate::frame::{FrameError, HEADER_BYTES, Header, Hello, Kind};
use crate::mailbox::Received;
use crate::state::{Inbound, Shared, State};

/// How long a connection may take to greet.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// The most connections that have not greeted yet. The oldest makes room for a new one: members greet at once.
const MAX_STRANGERS: usize = 64;
/// How long to wait before accepting again when the system is out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
                        identity: None,
                        stream,
                        outsider_since: None,
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
        .filter(|(_, inbound)| inbound.identity.is_none());
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
fn serve(shared: &Shared, id: u64, stream: &TcpStream) {
    let Ok(identity) = greet(shared, id, stream) else {
        let mut state = shared.lock();
        state.inbound.remove(&id);
        state.stats.rejected_connections += 1;
        let _ = stream.shutdown(Shutdown::Both);
        return shared.tell(state, None);
    };
    let end = read_frames(shared, &identity, stream);
    let _ = stream.shutdown(Shutdown::Both);
    let mut state = shared.lock();
    state.inbound.remove(&id);
    if matches!(end, End::Broken(LossReason::Frame(_))) {
        state.stats.bad_frames += 1;
    }
    let newest = state.newest.get(&identity) == Some(&id);
    if newest {
        state.newest.remove(&identity);
    }
    let lost = match end {
        _ if !newest => None,
        End::Broken(reason) => state.lose(&identity, reason),
        // From a group that is not newer than ours, this is an old story.
        End::Bye(epoch) if epoch > state.epoch() => state.lose(&identity, LossReason::Left(epoch)),
        End::Bye(_) => None,
    };
    shared.tell(state, lost);
}

/// How a connection ended.
enum End {
    Bye(Epoch),
    Broken(LossReason),
}

/// Reads the greeting, and makes this the newest connection of whoever it is.
fn greet(shared: &Shared, id: u64, stream: &TcpStream) -> Result<Arc<str>, LossReason> {
    let deadline = Some(Instant::now() + GREETING_TIMEOUT);
    let peer = stream.peer_addr().ok();
    let greeting = || {
        let header = read_header(shared, stream, deadline)?;
        if header.kind != Kind::Hello {
            return Err(FrameError::Kind {
                found: header.kind as u8,
            }
            .into());
        }
        let mut payload = vec![0; header.length as usize];
        read_all(stream, &mut payload, deadline)?;
        header.check(&payload)?;
        let hello = Hello::decode(&payload)?;
        if !hello.has_token(&shared.token) {
            return Err(FrameError::Token.into());
        }
        stream
            .set_read_timeout(None)
            .map_err(|error| LossReason::Io(error.kind()))?;
        Ok(hello)
    };
    let hello = greeting().inspect_err(|reason: &LossReason| {
        tracing::warn!(?peer, %reason, "refused a connection");
    })?;
    let identity: Arc<str> = hello.identity.into();
    let mut state = shared.lock();
    let Some(inbound) = state.inbound.get_mut(&id) else {
        return Err(LossReason::Closed);
    };
    inbound.identity = Some(identity.clone());
    if let Some(older) = state.newest.insert(identity.clone(), id)
        && let Some(older) = state.inbound.get(&older)
    {
        // Its sender has opened a new one, so it has given that one up.
        let _ = older.stream.shutdown(Shutdown::Both);
    }
    drop(state);
    shared.events.notify_all();
    Ok(identity)
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
    let header = read_header(shared, stream, None)?;
    match header.kind {
        Kind::Hello => {
            return Err(FrameError::Kind {
                found: header.kind as u8,
            }
            .into());
        }
        Kind::Bye => return Ok((header, None)),
        Kind::Partial | Kind::Reduced | Kind::State => {}
    }
    let len = header.length as usize / size_of::<f32>();
    let mut payload = Segment::pooled(shared.pool.take_rounded(len), len);
    // A buffer from the pool is nobody else's.
    let Some(bytes) = payload.bytes_mut() else {
        return Err(LossReason::Io(io::ErrorKind::Other));
    };
    read_all(stream, bytes, None)?;
    header.check(bytes)?;
    Ok((header, Some(payload)))
}

/// Reads a header. An end before its first byte is [`LossReason::Closed`].
fn read_header(shared: &Shared, stream: &TcpStream, deadline: Option<Instant>) -> Result<Header, LossReason> {
    let mut bytes = [0; HEADER_BYTES];
    let first = read_some(stream, &mut bytes, deadline)?;
    if first == 0 {
        return Err(LossReason::Closed);
    }
    read_all(stream, &mut bytes[first..], deadline)?;
    let header = Header::decode(&bytes)?;
    if header.job != shared.job {
        return Err(FrameError::Job {
            found: header.job,
            expected: shared.job,
        }
        .into());
    }
    Ok(header)
}

/// Fills `bytes`. An end before that is [`LossReason::Truncated`].
fn read_all(stream: &TcpStream, mut bytes: &mut [u8], deadline: Option<Instant>) -> Result<(), LossReason> {
    while !bytes.is_empty() {
        match read_some(stream, bytes, deadline)? {
            0 => return Err(LossReason::Truncated),
            read => bytes = &mut bytes[read..],
        }
    }
    Ok(())
}

/// Reads what there is, at least a byte, until `deadline`.
fn read_some(
    mut stream: &TcpStream,
    bytes: &mut [u8],
    deadline: Option<Instant>,
) -> Result<usize, LossReason> {
    loop {
        if let Some(deadline) = deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(LossReason::Io(io::ErrorKind::TimedOut));
            }
            stream
                .set_read_timeout(Some(left))
                .map_err(|error| LossReason::Io(error.kind()))?;
        }
        match stream.read(bytes) {
            Ok(read) => return Ok(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(LossReason::Io(error.kind())),
        }
    }
}
