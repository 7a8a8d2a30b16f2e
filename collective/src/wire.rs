//! Frames on sockets: connecting, writing, reading.

use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::error::LossReason;
use crate::frame::{FrameError, HEADER_BYTES, Header};
use crate::limits::{CONNECT_ATTEMPT, CONNECT_TIMEOUT, UNSENT_BYTES};

/// Connects, unless it is no longer wanted.
pub(crate) fn dial(address: SocketAddr, wanted: impl Fn() -> bool) -> Result<TcpStream, LossReason> {
    let failed = |error: io::Error| LossReason::Connect {
        address,
        kind: error.kind(),
    };
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    loop {
        match TcpStream::connect_timeout(&address, CONNECT_ATTEMPT) {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(failed)?;
                return Ok(stream);
            }
            Err(error) => {
                let again = error.kind() == io::ErrorKind::TimedOut && Instant::now() < deadline;
                if !again || !wanted() {
                    return Err(failed(error));
                }
            }
        }
    }
}

/// Has the system take no more than it can send soon, so that a write takes as long as sending does.
pub(crate) fn bound_unsent(stream: &TcpStream) -> Result<(), LossReason> {
    let bounded = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES);
    bounded.map_err(|error| LossReason::Io(error.kind()))
}

/// Writes header and payload with as few calls as the system allows.
pub(crate) fn write_frame(mut to: impl Write, header: &Header, payload: &[u8]) -> Result<(), LossReason> {
    let header = header.encode();
    let mut slices = [IoSlice::new(&header), IoSlice::new(payload)];
    let mut slices = &mut slices[..];
    while !slices.is_empty() {
        match to.write_vectored(slices) {
            Ok(0) => return Err(LossReason::Closed),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(LossReason::Io(error.kind())),
        }
    }
    Ok(())
}

/// Reads a header of `job`. An end before its first byte is [`LossReason::Closed`].
pub(crate) fn read_header(mut from: impl Read, job: u64) -> Result<Header, LossReason> {
    let mut bytes = [0; HEADER_BYTES];
    let first = read_some(&mut from, &mut bytes)?;
    if first == 0 {
        return Err(LossReason::Closed);
    }
    read_all(from, &mut bytes[first..])?;
    let header = Header::decode(&bytes)?;
    if header.job != job {
        return Err(FrameError::Job {
            found: header.job,
            expected: job,
        }
        .into());
    }
    Ok(header)
}

/// Reads the payload that `header` announced into `bytes`, which are as many.
pub(crate) fn read_payload(from: impl Read, header: &Header, bytes: &mut [u8]) -> Result<(), LossReason> {
    read_all(from, bytes)?;
    Ok(header.check(bytes)?)
}

/// Fills `bytes`. An end before that is [`LossReason::Truncated`].
fn read_all(mut from: impl Read, mut bytes: &mut [u8]) -> Result<(), LossReason> {
    while !bytes.is_empty() {
        match read_some(&mut from, bytes)? {
            0 => return Err(LossReason::Truncated),
            read => bytes = &mut bytes[read..],
        }
    }
    Ok(())
}

/// Reads what there is, at least a byte unless it is over.
fn read_some(from: &mut impl Read, bytes: &mut [u8]) -> Result<usize, LossReason> {
    loop {
        match from.read(bytes) {
            Ok(read) => return Ok(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(LossReason::Io(error.kind())),
        }
    }
}

/// Waits for the other end to close, on a connection on which it has nothing more to say.
pub(crate) fn watch(mut stream: &TcpStream) -> LossReason {
    match read_some(&mut stream, &mut [0]) {
        Ok(0) => LossReason::Closed,
        Ok(_) => LossReason::Talkback,
        Err(reason) => reason,
    }
}

/// A stream that is read until a deadline, however slowly it trickles.
pub(crate) struct Hurried<'a> {
    pub(crate) stream: &'a TcpStream,
    pub(crate) deadline: Instant,
}

impl Read for Hurried<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left == Duration::ZERO {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut stream = self.stream;
        stream.read(bytes)
    }
}
