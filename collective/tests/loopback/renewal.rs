//! A connection that broke is opened anew with the next group that has both ends.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use lockstep_collective::frame::{FrameError, HEADER_BYTES, Kind};
use lockstep_collective::{CollectiveError, LossReason, Options, Partials, Peer, Transport};
use lockstep_engine::geometry::{Assignment, Node};
use lockstep_engine::ids::{Epoch, Rank};

use crate::support::*;

/// A wire that flips a bit of what goes over it as long as it is bad.
struct BadWire {
    address: SocketAddr,
    bad: Arc<AtomicBool>,
    cut: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl BadWire {
    /// To `to`, and flips a bit of byte `at` of each connection.
    fn new(to: SocketAddr, at: usize) -> Self {
        let listener = TcpListener::bind(loopback()).unwrap();
        let address = listener.local_addr().unwrap();
        let (bad, cut) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let (bad_too, cut_too) = (bad.clone(), cut.clone());
        let wire = move || {
            thread::scope(|scope| {
                for near in listener.incoming() {
                    if cut_too.load(Ordering::SeqCst) {
                        return;
                    }
                    let (near, far) = (near.unwrap(), TcpStream::connect(to).unwrap());
                    let (near_too, far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                    let flip = bad_too.load(Ordering::SeqCst).then_some(at);
                    scope.spawn(move || pass_on(near, far, flip));
                    scope.spawn(move || pass_on(far_too, near_too, None));
                }
            });
        };
        let thread = thread::spawn(wire);
        Self {
            address,
            bad,
            cut,
            thread,
        }
    }

    /// Ends when its connections have.
    fn end(self) {
        self.cut.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address).unwrap());
        self.thread.join().unwrap();
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, flip: Option<usize>) {
    let (mut buffer, mut passed) = ([0; 1 << 16], 0);
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if let Some(at) = flip
            .and_then(|flip| flip.checked_sub(passed))
            .filter(|&at| at < read)
        {
            buffer[at] ^= 1;
        }
        passed += read;
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // Either may be closed already.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[test]
fn a_frame_that_is_corrupted_on_the_way_costs_an_epoch_and_no_more() {
    for streams in [1, 3] {
        costs_an_epoch(streams);
    }
}

fn costs_an_epoch(streams: usize) {
    let (lanes, len) = (4, 300_000);
    // In the header of a frame, and in its payload: both come after the greeting.
    for (place, expected) in [
        (8, FrameError::HeaderChecksum),
        (HEADER_BYTES + 1000, FrameError::PayloadChecksum),
    ] {
        let [reader, writer] = ["reader", "writer"].map(|name| {
            Member::with(Options {
                transport: Transport::Tcp,
                streams,
                ..options(name)
            })
        });
        let greeting = lockstep_collective::greeting::Hello {
            identity: "writer".to_owned(),
            token: "secret".to_owned(),
            host: String::new(),
            link: 1,
        };
        let at = HEADER_BYTES + greeting.encode().len() + place;
        let wire = BadWire::new(reader.endpoint.local_addr(), at);
        let seen_by_writer = Peer {
            address: wire.address,
            ..reader.peer()
        };
        let fresh = Assignment::fresh(lanes, 2);
        let run = |epoch: u64| {
            let of_reader = group(epoch, 0, &[reader.peer(), writer.peer()]);
            let of_writer = group(epoch, 1, &[seen_by_writer.clone(), writer.peer()]);
            reader.endpoint.enter(of_reader).unwrap();
            writer.endpoint.enter(of_writer).unwrap();
            on_all(&[&reader, &writer], |rank, member| {
                let mut partials = Partials::new(lanes, len);
                compute(&mut partials, &fresh, rank, 3);
                reduce(member, 1, &fresh, &partials)
            })
        };
        let [at_reader, at_writer] = run(1).try_into().unwrap();
        let named = CollectiveError::PeerLost {
            rank: Rank(1),
            identity: "writer".to_owned(),
            reason: LossReason::Frame(expected),
        };
        assert!(named.to_string().contains("checksum fails"), "{named}");
        assert_eq!(at_reader, Err(named));
        assert!(matches!(
            at_writer,
            Err(CollectiveError::PeerLost { rank: Rank(0), .. })
        ));
        wire.bad.store(false, Ordering::SeqCst);
        for result in run(2) {
            assert!(result.unwrap() == tree_bits(lanes, len, 3));
        }
        for member in [&reader, &writer] {
            assert!(member.endpoint.handle().lost().is_empty());
        }
        drop((reader, writer));
        wire.end();
    }
}

#[test]
fn an_end_that_is_noticed_late_is_no_loss_in_the_next_group() {
    for streams in [1, 3] {
        noticed_late(streams);
    }
}

fn with_streams(streams: usize) -> Member {
    Member::with(Options {
        streams,
        ..options("real")
    })
}

fn noticed_late(streams: usize) {
    let member = with_streams(streams);
    let mut puppet = Puppet::new("puppet", &member, 1);
    let peers = [member.peer(), puppet.peer()];
    let handle = member.endpoint.handle();
    let fresh = Assignment::fresh(2, 2);
    let mut partials = Partials::new(2, 2);
    partials
        .insert(Node { start: 0, len: 1 }, vec![1.0, 10.0])
        .unwrap();
    member.endpoint.enter(group(1, 0, &peers)).unwrap();
    let mut old = puppet.accept_all(streams);
    member.endpoint.enter(group(2, 0, &peers)).unwrap();
    // A connection breaks between the groups, but is only seen to have in the second.
    drop(old.pop());
    let renewed = puppet.accept_all(streams);
    assert!(handle.lost().is_empty());
    let theirs = Node { start: 1, len: 1 };
    puppet.say(Kind::Partial, 2, 1, 0, theirs, &[2.0]);
    puppet.say(Kind::Reduced, 2, 1, 1, Node { start: 0, len: 0 }, &[20.0]);
    assert_eq!(reduce(&member, 1, &fresh, &partials), Ok(bits(&[3.0, 20.0])));
    let frames = frames_of(renewed);
    let mut kinds = Vec::new();
    for (header, _) in frames.iter().take(2) {
        assert_eq!(header.epoch, Epoch(2));
        kinds.push(header.kind as u8);
    }
    kinds.sort_unstable();
    assert_eq!(kinds, [Kind::Partial as u8, Kind::Reduced as u8]);
}

#[test]
fn a_member_is_connected_to_anew_once() {
    for streams in [1, 3] {
        anew_once(streams);
    }
}

fn anew_once(streams: usize) {
    let member = with_streams(streams);
    let puppet = Puppet::new("puppet", &member, 1);
    let peers = [member.peer(), puppet.peer()];
    member.endpoint.enter(group(1, 0, &peers)).unwrap();
    let mut old = puppet.accept_all(streams);
    member.endpoint.enter(group(2, 0, &peers)).unwrap();
    drop(old.pop());
    drop(puppet.accept());
    let handle = member.endpoint.handle();
    while handle.lost().is_empty() {
        assert!(handle.wait_until(LONG, |stats| stats.outbound == 0));
    }
    assert_eq!(handle.lost()[0].rank, Rank(1));
    assert_eq!(member.close().len(), 1);
}

#[test]
fn a_member_that_died_between_groups_is_still_a_loss() {
    for way in WAYS {
        died_between_groups(way);
    }
}

fn died_between_groups(way: Way) {
    let all = members(2, way);
    enter_all(1, &[&all[0], &all[1]]);
    let handle = all[0].endpoint.handle();
    let streams = way.1;
    assert!(handle.wait_until(LONG, |stats| (stats.inbound, stats.outbound)
        == (streams, streams)));
    let peers = peers(&all);
    let [survivor, dying] = all.try_into().ok().unwrap();
    survivor.endpoint.enter(group(2, 0, &peers)).unwrap();
    drop(dying);
    let fresh = Assignment::fresh(2, 2);
    let mut partials = Partials::new(2, 4);
    compute(&mut partials, &fresh, 0, 0);
    match reduce(&survivor, 1, &fresh, &partials) {
        Err(CollectiveError::PeerLost { rank: Rank(1), .. }) => {}
        other => panic!("{other:?}"),
    }
}
