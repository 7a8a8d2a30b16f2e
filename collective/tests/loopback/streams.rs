//! Links of several connections: all of them are used, they live and die together, and none waits for another.

use std::collections::BTreeSet;
use std::net::{Shutdown, TcpStream};
use std::sync::Barrier;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use lockstep_collective::frame::Kind;
use lockstep_collective::limits::MAX_STREAMS;
use lockstep_collective::{CollectiveError, Options, Partials, Transport};
use lockstep_engine::geometry::{Assignment, Node};
use lockstep_engine::ids::{Epoch, Rank};

use crate::support::*;

const THEIRS: Node = Node { start: 1, len: 1 };
const NOBODYS: Node = Node { start: 0, len: 0 };

/// The partials of a member that has the first of two lanes, of `len` ones.
fn ones(len: usize) -> Partials {
    let mut partials = Partials::new(2, len);
    partials
        .insert(Node { start: 0, len: 1 }, vec![1.0; len])
        .unwrap();
    partials
}

#[test]
fn every_stream_carries_frames_and_each_frame_comes_once() {
    const STREAMS: usize = 3;
    let member = Member::with(Options {
        streams: STREAMS,
        ..options("real")
    });
    let puppet = Puppet::new("puppet", &member, 1);
    let peers = [member.peer(), puppet.peer()];
    member.endpoint.enter(group(1, 0, &peers)).unwrap();
    let streams = puppet.accept_all(STREAMS);
    // The puppet's half of it is 32 MiB in 64 pieces: more than two connections hold that nobody reads.
    let (partials, pieces) = (ones(16 << 20), 64);
    let fresh = Assignment::fresh(2, 2);
    let (read, chunks) = channel();
    // Nobody reads a second frame before a first has come over each.
    let first = Barrier::new(STREAMS);
    let read_all = |stream: &TcpStream, read: Sender<u32>| {
        for number in 0.. {
            let (header, _) = read_frame(stream);
            match header.kind {
                Kind::Bye => return number,
                kind => assert_eq!((kind, header.epoch), (Kind::Partial, Epoch(1))),
            }
            if number == 0 {
                first.wait();
            }
            read.send(header.chunk).unwrap();
        }
        0
    };
    thread::scope(|scope| {
        let running = scope.spawn(|| reduce(&member, 1, &fresh, &partials));
        let readers: Vec<_> = streams
            .iter()
            .map(|stream| {
                let read = read.clone();
                scope.spawn(|| read_all(stream, read))
            })
            .collect();
        let distinct: BTreeSet<u32> = chunks.iter().take(pieces).collect();
        assert_eq!(distinct.len(), pieces);
        member.endpoint.flush().unwrap();
        // A group without the puppet: each stream says goodbye, and there was nothing else.
        member.endpoint.enter(group(2, 0, &[member.peer()])).unwrap();
        assert!(running.join().unwrap().is_err());
        let numbers: Vec<usize> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        assert!(
            numbers.iter().all(|&number| number > 0) && numbers.iter().sum::<usize>() == pieces,
            "{numbers:?}"
        );
    });
}

#[test]
fn members_need_not_have_as_many() {
    let all = [1, 2, 5].map(|streams| {
        Member::with(Options {
            transport: Transport::Tcp,
            streams,
            ..options(&format!("with {streams}"))
        })
    });
    let all: Vec<&Member> = all.iter().collect();
    enter_all(1, &all);
    let (fresh, len) = (Assignment::fresh(4, 3), 1_500_000);
    for result in on_all(&all, |rank, member| {
        let mut partials = Partials::new(4, len);
        compute(&mut partials, &fresh, rank, 1);
        reduce(member, 1, &fresh, &partials)
    }) {
        assert!(result.unwrap() == tree_bits(4, len, 1));
    }
    for (member, inbound) in all.iter().zip([7, 6, 3]) {
        let handle = member.endpoint.handle();
        assert!(handle.wait_until(LONG, |stats| stats.inbound == inbound));
    }
}

#[test]
fn frames_of_later_reductions_on_one_stream_keep_none_of_this_one_out_on_another() {
    let member = Member::with(Options {
        mailbox_bytes: 1,
        ..options("real")
    });
    let handle = member.endpoint.handle();
    let mut puppet = Puppet::new("puppet", &member, 1);
    let peers = [member.peer(), puppet.peer()];
    member.endpoint.enter(group(1, 0, &peers)).unwrap();
    let early = puppet.stream(&member, 1);
    let late = std::mem::replace(&mut puppet.stream, early);
    // One fills the room for later reductions, and one is at the door.
    for (kind, chunk, node) in [(Kind::Partial, 0, THEIRS), (Kind::Reduced, 1, NOBODYS)] {
        puppet.say(kind, 1, 2, chunk, node, &[2.0]);
    }
    assert!(
        handle.wait_until(LONG, |stats| (stats.received_frames, stats.waiting_frames)
            == (2, 1))
    );
    let early = std::mem::replace(&mut puppet.stream, late);
    for (kind, chunk, node) in [(Kind::Partial, 0, THEIRS), (Kind::Reduced, 1, NOBODYS)] {
        puppet.say(kind, 1, 1, chunk, node, &[1.0]);
    }
    let (partials, fresh) = (ones(2), Assignment::fresh(2, 2));
    assert_eq!(reduce(&member, 1, &fresh, &partials), Ok(bits(&[2.0, 1.0])));
    assert_eq!(reduce(&member, 2, &fresh, &partials), Ok(bits(&[3.0, 2.0])));
    drop(early);
}

#[test]
fn a_newer_link_takes_the_place_of_all_streams_of_the_older() {
    let member = Member::new("real");
    let handle = member.endpoint.handle();
    let mut puppet = Puppet::new("puppet", &member, 1);
    let second = puppet.stream(&member, 1);
    member
        .endpoint
        .enter(group(1, 0, &[member.peer(), puppet.peer()]))
        .unwrap();
    assert!(handle.wait_until(LONG, |stats| stats.inbound == 2));
    let late = puppet.stream(&member, 1);
    assert!(handle.wait_until(LONG, |stats| stats.inbound == 3));
    let first = puppet.renew(&member, 1);
    for older in [&first, &second, &late] {
        read_to_end(older);
    }
    assert!(handle.wait_until(LONG, |stats| stats.inbound == 1));
    assert!(handle.lost().is_empty());
    for (kind, chunk, node) in [(Kind::Partial, 0, THEIRS), (Kind::Reduced, 1, NOBODYS)] {
        puppet.say(kind, 1, 1, chunk, node, &[1.0]);
    }
    let (partials, fresh) = (ones(2), Assignment::fresh(2, 2));
    assert_eq!(reduce(&member, 1, &fresh, &partials), Ok(bits(&[2.0, 1.0])));
}

#[test]
fn a_stream_that_breaks_is_one_loss_and_ends_its_link() {
    let member = Member::new("real");
    let handle = member.endpoint.handle();
    let puppet = Puppet::new("puppet", &member, 1);
    let peers = [member.peer(), puppet.peer()];
    let others: Vec<TcpStream> = (0..2).map(|_| puppet.stream(&member, 1)).collect();
    member.endpoint.enter(group(1, 0, &peers)).unwrap();
    assert!(handle.wait_until(LONG, |stats| stats.inbound == 3));
    others[0].shutdown(Shutdown::Both).unwrap();
    read_to_end(&others[1]);
    read_to_end(&puppet.stream);
    assert!(handle.wait_until(LONG, |stats| stats.inbound == 0));
    let lost: Vec<_> = handle.lost().iter().map(|lost| (lost.epoch, lost.rank)).collect();
    assert_eq!(lost, [(Epoch(1), Rank(1))]);
    // Neither does a stream of that link that was on its way count in the next group.
    member.endpoint.enter(group(2, 0, &peers)).unwrap();
    read_to_end(&puppet.stream(&member, 1));
    assert!(handle.lost().is_empty());
    assert_eq!(member.close().len(), 1);
}

#[test]
fn a_reader_that_closes_one_stream_loses_the_member_and_the_other_streams() {
    let member = Member::with(Options {
        streams: 3,
        ..options("real")
    });
    let puppet = Puppet::new("puppet", &member, 1);
    let peers = [member.peer(), puppet.peer()];
    member.endpoint.enter(group(1, 0, &peers)).unwrap();
    let mut streams = puppet.accept_all(3);
    drop(streams.pop());
    streams.iter().for_each(read_to_end);
    match reduce(&member, 1, &Assignment::fresh(2, 2), &ones(2)) {
        Err(CollectiveError::PeerLost { rank: Rank(1), .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(member.close().len(), 1);
}

#[test]
fn the_streams_of_a_link_are_bounded() {
    let member = Member::new("real");
    let handle = member.endpoint.handle();
    let puppet = Puppet::new("puppet", &member, 1);
    let peers = [member.peer(), puppet.peer()];
    member.endpoint.enter(group(1, 0, &peers)).unwrap();
    let others: Vec<TcpStream> = (1..MAX_STREAMS).map(|_| puppet.stream(&member, 1)).collect();
    assert!(handle.wait_until(LONG, |stats| stats.inbound == MAX_STREAMS));
    read_to_end(&puppet.stream(&member, 1));
    assert!(handle.wait_until(LONG, |stats| stats.rejected_connections == 1));
    assert_eq!(handle.stats().inbound, MAX_STREAMS);
    assert!(handle.lost().is_empty());
    drop(others);
}
