//! A connection that broke is opened anew with the next group that has both ends.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use lockstep_collective::frame::{FrameError, HEADER_BYTES, Kind};
use lockstep_collective::{CollectiveError, LossReason, Options, Partials, Peer, Transport};
use lockstep_engine::geometry::{Assignment, Node};
use lockstep_engine::ids::{Epoch, Rank};

use crate::support::*;

/// A wire to `to` that flips a bit of byte `at` of what first goes over it, and then none. It ends when the
/// connections do; it accepts `connections` of them.
fn bad_wire(to: SocketAddr, at: usize, connections: usize) -> (SocketAddr, thread::JoinHandle<()>) {
    let listener = TcpListener::bind(loopback()).unwrap();
    let address = listener.local_addr().unwrap();
    let wire = move || {
        thread::scope(|scope| {
            for (number, stream) in listener.incoming().take(connections).enumerate() {
                let (near, far) = (stream.unwrap(), TcpStream::connect(to).unwrap());
                let (near_too, far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                scope.spawn(move || pass_on(near, far, (number == 0).then_some(at)));
                scope.spawn(move || pass_on(far_too, near_too, None));
            }
        });
    };
    (address, thread::spawn(wire))
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
    let (lanes, len) = (4, 300_000);
    // In the header of a frame, and in its payload: both come after the greeting.
    for (place, expected) in [
        (8, FrameError::HeaderChecksum),
        (HEADER_BYTES + 1000, FrameError::PayloadChecksum),
    ] {
        let [reader, writer] = ["reader", "writer"].map(|name| {
            Member::with(Options {
                transport: Transport::Tcp,
                ..options(name)
            })
        });
        let greeting = lockstep_collective::greeting::Hello {
            identity: "writer".to_owned(),
            token: "secret".to_owned(),
            host: String::new(),
        };
        let at = HEADER_BYTES + greeting.encode().len() + place;
        let (address, wire) = bad_wire(reader.endpoint.local_addr(), at, 2);
        let seen_by_writer = Peer {
            address,
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
        for result in run(2) {
            assert!(result.unwrap() == tree_bits(lanes, len, 3));
        }
        for member in [&reader, &writer] {
            assert!(member.endpoint.handle().lost().is_empty());
        }
        drop((reader, writer));
        wire.join().unwrap();
    }
}

#[test]
fn an_end_that_is_noticed_late_is_no_loss_in_the_next_group() {
    let member = Member::new("real");
    let mut puppet = Puppet::new("puppet", &member, 1);
    let peers = [member.peer(), puppet.peer()];
    let handle = member.endpoint.handle();
    let fresh = Assignment::fresh(2, 2);
    let mut partials = Partials::new(2, 2);
    partials
        .insert(Node { start: 0, len: 1 }, vec![1.0, 10.0])
        .unwrap();
    member.endpoint.enter(group(1, 0, &peers)).unwrap();
    let old = puppet.accept();
    member.endpoint.enter(group(2, 0, &peers)).unwrap();
    // The connection breaks between the groups, but is only seen to have in the second.
    drop(old);
    let renewed = puppet.accept();
    assert!(handle.lost().is_empty());
    let theirs = Node { start: 1, len: 1 };
    puppet.say(Kind::Partial, 2, 1, 0, theirs, &[2.0]);
    puppet.say(Kind::Reduced, 2, 1, 1, Node { start: 0, len: 0 }, &[20.0]);
    assert_eq!(reduce(&member, 1, &fresh, &partials), Ok(bits(&[3.0, 20.0])));
    for kind in [Kind::Partial, Kind::Reduced] {
        let (header, _) = read_frame(&renewed);
        assert_eq!((header.kind, header.epoch), (kind, Epoch(2)));
    }
}

#[test]
fn a_member_is_connected_to_anew_once() {
    let member = Member::new("real");
    let puppet = Puppet::new("puppet", &member, 1);
    let peers = [member.peer(), puppet.peer()];
    member.endpoint.enter(group(1, 0, &peers)).unwrap();
    let old = puppet.accept();
    member.endpoint.enter(group(2, 0, &peers)).unwrap();
    drop(old);
    drop(puppet.accept());
    let handle = member.endpoint.handle();
    while handle.lost().is_empty() {
        assert!(handle.wait_until(LONG, |stats| stats.outbound == 0));
    }
    assert_eq!(handle.lost()[0].rank, Rank(1));
}

#[test]
fn a_member_that_died_between_groups_is_still_a_loss() {
    let all = members(2, Transport::Auto);
    enter_all(1, &[&all[0], &all[1]]);
    let handle = all[0].endpoint.handle();
    assert!(handle.wait_until(LONG, |stats| (stats.inbound, stats.outbound) == (1, 1)));
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
