//! Endpoints on loopback, gradients, and the plain tree to compare with.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lockstep_collective::frame::{HEADER_BYTES, Header, Kind};
use lockstep_collective::greeting::Hello;
use lockstep_collective::{CollectiveError, Endpoint, Group, Options, Partials, Peer, PeerLost, Transport};
use lockstep_engine::geometry::{Assignment, Node};
use lockstep_engine::ids::{Epoch, Rank, Step};

/// The job of all tests.
pub(crate) const JOB: u64 = 0xC0FFEE;
/// Far longer than anything takes: a test that needs it has failed.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Loopback, at a port of the system's choice.
pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(crate) fn options(name: &str) -> Options {
    Options {
        token: "secret".to_owned(),
        ..Options::new(loopback(), JOB, name)
    }
}

/// An endpoint, and the losses that it reports.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) endpoint: Endpoint,
    pub(crate) losses: Arc<Mutex<Vec<PeerLost>>>,
}

impl Member {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(options(name))
    }

    pub(crate) fn with(mut options: Options) -> Self {
        let losses = Arc::new(Mutex::new(Vec::new()));
        let sink = losses.clone();
        options.on_peer_lost = Box::new(move |lost| sink.lock().unwrap().push(lost));
        let name = options.identity.clone();
        Self {
            name,
            endpoint: Endpoint::bind(options).unwrap(),
            losses,
        }
    }

    /// Closes it; all losses that it has reported.
    pub(crate) fn close(self) -> Vec<PeerLost> {
        drop(self.endpoint);
        std::mem::take(&mut self.losses.lock().unwrap())
    }

    pub(crate) fn peer(&self) -> Peer {
        Peer {
            identity: self.name.clone(),
            address: self.endpoint.local_addr(),
        }
    }
}

/// A way that an all-reduce may take, and the connections of a link.
pub(crate) type Way = (Transport, usize);

/// All ways that are tested. Puppets speak TCP only, and so does whoever is in a group with one.
pub(crate) const WAYS: [Way; 4] = [
    (Transport::Auto, 1),
    (Transport::Auto, 2),
    (Transport::Tcp, 1),
    (Transport::Tcp, 4),
];

pub(crate) fn members(count: u32, (transport, streams): Way) -> Vec<Member> {
    let member = |rank| {
        Member::with(Options {
            transport,
            streams,
            ..options(&format!("node-{rank}/0#{rank:08x}"))
        })
    };
    (0..count).map(member).collect()
}

/// Members of hosts of these names, by rank.
pub(crate) fn members_of(hosts: &[&str]) -> Vec<Member> {
    let member = |(rank, host): (usize, &&str)| {
        Member::with(Options {
            host: Some((*host).to_owned()),
            ..options(&format!("node-{host}/{rank}#{rank:08x}"))
        })
    };
    hosts.iter().enumerate().map(member).collect()
}

pub(crate) fn peers<'a>(members: impl IntoIterator<Item = &'a Member>) -> Vec<Peer> {
    members.into_iter().map(Member::peer).collect()
}

pub(crate) fn group(epoch: u64, rank: u32, members: &[Peer]) -> Group {
    Group {
        epoch: Epoch(epoch),
        rank: Rank(rank),
        members: members.to_vec(),
    }
}

/// All of them enter a group of all of them.
pub(crate) fn enter_all(epoch: u64, members: &[&Member]) {
    let peers = peers(members.iter().copied());
    for (rank, member) in (0u32..).zip(members) {
        member.endpoint.enter(group(epoch, rank, &peers)).unwrap();
    }
}

/// The gradient of a lane: many magnitudes and both signs, so that the order of additions shows.
pub(crate) fn lane(lane: u32, len: usize, seed: u64) -> Vec<f32> {
    let stream = (seed << 32 | u64::from(lane)).wrapping_mul(0xD6E8_FEB8_6659_FD93) | 1;
    let value = |i: u64| {
        let mut x = (i ^ stream).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x ^= x >> 29;
        let bits = x.wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 24;
        // Sign and fraction as they come; exponents from -27 to 4.
        let exponent = 100 + (bits >> 32 & 31) as u32;
        f32::from_bits(bits as u32 & 0x807F_FFFF | exponent << 23)
    };
    (0..len as u64).map(value).collect()
}

/// The bits of the plain recursive tree on one thread.
pub(crate) fn tree_bits(lanes: u32, len: usize, seed: u64) -> Vec<u32> {
    rounded_tree_bits(lanes, len, seed, |value| value)
}

/// The same, with every value rounded.
pub(crate) fn rounded_tree_bits(lanes: u32, len: usize, seed: u64, round: fn(f32) -> f32) -> Vec<u32> {
    fn value(node: Node, len: usize, seed: u64, round: fn(f32) -> f32) -> Vec<f32> {
        match node.children() {
            None => lane(node.start, len, seed).into_iter().map(round).collect(),
            Some((left, right)) => value(left, len, seed, round)
                .iter()
                .zip(value(right, len, seed, round))
                .map(|(l, r)| round(l + r))
                .collect(),
        }
    }
    bits(&value(Node::root(lanes), len, seed, round))
}

pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Computes the lanes of `rank` that are not there yet.
pub(crate) fn compute(partials: &mut Partials, assignment: &Assignment, rank: u32, seed: u64) {
    for id in assignment.lanes_of(Rank(rank)) {
        if !partials.covers([id]) {
            let mut buffer = partials.buffer();
            buffer.copy_from_slice(&lane(id.0, partials.len(), seed));
            partials.insert(Node::leaf(id), buffer).unwrap();
        }
    }
}

/// One all-reduce of one bucket; the bits of what comes out.
pub(crate) fn reduce(
    member: &Member,
    step: u64,
    assignment: &Assignment,
    partials: &Partials,
) -> Result<Vec<u32>, CollectiveError> {
    let mut out = vec![f32::NAN; partials.len()];
    let bucket = 0..partials.len();
    let buckets = std::slice::from_ref(&bucket);
    member
        .endpoint
        .all_reduce(Step(step), buckets, assignment, partials, &mut out)?;
    Ok(bits(&out))
}

/// Runs one closure a member, each on a thread of its own; the results by rank.
pub(crate) fn on_all<'a, T: Send>(
    members: &[&'a Member],
    run: impl Fn(u32, &'a Member) -> T + Sync,
) -> Vec<T> {
    thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0u32..)
            .zip(members)
            .map(|(rank, &member)| scope.spawn(move || run(rank, member)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// A member played by hand: it says exactly what the test wants, frame by frame.
pub(crate) struct Puppet {
    pub(crate) name: String,
    pub(crate) listener: TcpListener,
    pub(crate) stream: TcpStream,
    link: u64,
    host: String,
}

impl Puppet {
    /// Listens, connects to `to` and greets.
    pub(crate) fn new(name: &str, to: &Member, epoch: u64) -> Self {
        Self::of_host("", name, to, epoch)
    }

    /// The same as a member of some host.
    pub(crate) fn of_host(host: &str, name: &str, to: &Member, epoch: u64) -> Self {
        let listener = TcpListener::bind(loopback()).unwrap();
        static LINKS: AtomicU64 = AtomicU64::new(1);
        let link = LINKS.fetch_add(1, Ordering::Relaxed);
        let stream = greet(name, (link, host), to, epoch);
        Self {
            name: name.to_owned(),
            listener,
            stream,
            link,
            host: host.to_owned(),
        }
    }

    /// Another stream of the same link.
    pub(crate) fn stream(&self, to: &Member, epoch: u64) -> TcpStream {
        greet(&self.name, (self.link, &self.host), to, epoch)
    }

    /// Another link, in the place of the one it has.
    pub(crate) fn renew(&mut self, to: &Member, epoch: u64) -> TcpStream {
        self.link += 1 << 32;
        std::mem::replace(
            &mut self.stream,
            greet(&self.name, (self.link, &self.host), to, epoch),
        )
    }

    pub(crate) fn peer(&self) -> Peer {
        Peer {
            identity: self.name.clone(),
            address: self.listener.local_addr().unwrap(),
        }
    }

    /// Sends a header as it is, and a payload.
    pub(crate) fn send(&mut self, header: Header, payload: &[u8]) {
        self.stream.write_all(&header.encode()).unwrap();
        self.stream.write_all(payload).unwrap();
    }

    /// Sends whatever belongs to piece `chunk` of the only bucket.
    pub(crate) fn say(&mut self, kind: Kind, epoch: u64, step: u64, chunk: u32, node: Node, values: &[f32]) {
        let payload = bytes(values);
        let header = Header {
            step: Step(step),
            chunk,
            node,
            ..Header::bare(kind, JOB, Epoch(epoch))
        };
        self.send(header.announcing(&payload), &payload);
    }

    /// Accepts all connections of the member's link.
    pub(crate) fn accept_all(&self, streams: usize) -> Vec<TcpStream> {
        (0..streams).map(|_| self.accept()).collect()
    }

    /// Accepts a connection of the member, and reads its greeting.
    pub(crate) fn accept(&self) -> TcpStream {
        let (stream, _) = self.listener.accept().unwrap();
        let header = read_frame(&stream).0;
        assert_eq!(header.kind, Kind::Hello);
        stream
    }
}

/// Connects to a member and greets it.
fn greet(name: &str, (link, host): (u64, &str), to: &Member, epoch: u64) -> TcpStream {
    let mut stream = TcpStream::connect(to.endpoint.local_addr()).unwrap();
    let hello = Hello {
        identity: name.to_owned(),
        token: "secret".to_owned(),
        host: host.to_owned(),
        link,
    }
    .encode();
    let header = Header::bare(Kind::Hello, JOB, Epoch(epoch)).announcing(&hello);
    stream.write_all(&header.encode()).unwrap();
    stream.write_all(&hello).unwrap();
    stream
}

pub(crate) fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Reads a frame that passes its checks.
pub(crate) fn read_frame(stream: &TcpStream) -> (Header, Vec<u8>) {
    next_frame(stream).unwrap()
}

/// What comes over all of these connections until they end.
pub(crate) fn frames_of(streams: Vec<TcpStream>) -> Receiver<(Header, Vec<u8>)> {
    let (read, frames) = channel();
    for stream in streams {
        let read = read.clone();
        // The test may have seen enough.
        thread::spawn(move || while next_frame(&stream).is_some_and(|frame| read.send(frame).is_ok()) {});
    }
    frames
}

/// Waits for the other end to close, and drops what it says before.
pub(crate) fn read_to_end(mut stream: &TcpStream) {
    // A reset will do as well.
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

/// The next frame, which must pass its checks; none if the connection has ended.
fn next_frame(mut stream: &TcpStream) -> Option<(Header, Vec<u8>)> {
    let mut bytes = [0; HEADER_BYTES];
    stream.read_exact(&mut bytes).ok()?;
    let header = Header::decode(&bytes).unwrap();
    let mut payload = vec![0; header.length as usize];
    stream.read_exact(&mut payload).unwrap();
    header.check(&payload).unwrap();
    Some((header, payload))
}
