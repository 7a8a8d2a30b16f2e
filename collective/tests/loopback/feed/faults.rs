//! Donors that die, hang or talk nonsense.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use lockstep_collective::frame::{FrameError, Header, Kind};
use lockstep_collective::greeting::Follow;
use lockstep_collective::{Advance, Following, LossReason, Options, Peer, Shape, Start};
use lockstep_engine::ids::{Epoch, Step};

use super::*;

#[test]
fn a_donor_that_dies_is_noticed_at_once_and_what_it_had_told_is_kept() {
    let (donor, newcomer) = (Donor::new(), Member::new("newcomer"));
    let mut following = follow(&newcomer, &donor.member.peer(), None, 0, &shape(&[9], 9));
    let feed = donor.give_state(1, &[9]);
    assert!(feed.push(Step(2), gradient(2, 9)));
    assert!(is_state(&following.next(Epoch(0)).unwrap(), 1, &[9]));
    assert!(is_gradient(&following.next(Epoch(0)).unwrap(), 2, 9));
    let begun = Instant::now();
    thread::scope(|scope| {
        let next = scope.spawn(|| following.next(Epoch(0)));
        drop(donor);
        assert_eq!(loss(next.join().unwrap()), LossReason::Closed);
    });
    assert!(begun.elapsed() < PROMPT);
    assert_eq!(loss(following.next(Epoch(0))), LossReason::Closed);
    assert!(!feed.push(Step(3), None));
}

#[test]
fn an_idle_donor_gives_signs_of_life_and_a_hanging_one_is_found_out() {
    let feed_timeout = Duration::from_secs(2);
    let quick = |name: &str| Options {
        feed_timeout,
        ..options(name)
    };
    let (donor, newcomer) = (Donor::with(quick("donor")), Member::with(quick("newcomer")));
    let mut following = follow(&newcomer, &donor.member.peer(), Some(1), 0, &shape(&[], 1));
    // Four a time-out, and for longer than one: both while it has no answer and after it, which is a frame too.
    let request = donor.asked();
    let handle = newcomer.endpoint.handle();
    assert!(handle.wait_until(LONG, |stats| stats.received_frames >= 5));
    let feed = request.answer(Start::Same(Step(1))).unwrap();
    assert!(handle.wait_until(LONG, |stats| stats.received_frames >= 11));
    assert!(feed.push(Step(2), None));
    for step in 1..3 {
        assert_eq!(following.next(Epoch(0)).unwrap().step(), Step(step));
    }

    let (_listener, _stream, mut following) = puppet_donor(&newcomer);
    assert_eq!(
        loss(following.next(Epoch(0))),
        LossReason::Silent { after: feed_timeout }
    );
}

/// A donor that says what the test wants, to a follower that holds step 1; a state has two values, and so has a
/// gradient.
fn puppet_donor(newcomer: &Member) -> (TcpListener, TcpStream, Following) {
    puppet_donor_of(newcomer, shape(&[2], 2))
}

fn puppet_donor_of(newcomer: &Member, shape: Shape) -> (TcpListener, TcpStream, Following) {
    let listener = TcpListener::bind(loopback()).unwrap();
    let donor = Peer {
        identity: "donor".to_owned(),
        address: listener.local_addr().unwrap(),
    };
    let following = follow(newcomer, &donor, Some(1), 1, &shape);
    let (stream, _) = listener.accept().unwrap();
    let (header, payload) = read_frame(&stream);
    assert_eq!(header.kind, Kind::Follow);
    let asked = Follow {
        identity: newcomer.name.clone(),
        token: "secret".to_owned(),
        donor: "donor".to_owned(),
        at_least: Step(1),
        held: Some(Step(1)),
    };
    assert!(Follow::decode(&payload).unwrap() == asked);
    (listener, stream, following)
}

fn frame(kind: Kind, step: u64, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        step: Step(step),
        ..Header::bare(kind, JOB, Epoch(1))
    };
    [header.announcing(payload).encode().as_slice(), payload].concat()
}

#[test]
fn corrupted_bytes_end_the_feed_and_reach_nobody() {
    let newcomer = Member::new("newcomer");
    let good = [
        frame(Kind::Same, 1, &[]),
        frame(Kind::Gradient, 2, &2u64.to_le_bytes()),
        frame(Kind::Values, 2, &bytes(&[1.0, 2.0])),
    ];
    let headers = |at: usize| (at, LossReason::Frame(FrameError::HeaderChecksum));
    let payloads = |at: usize| (at, LossReason::Frame(FrameError::PayloadChecksum));
    // In a header's step, in a length that is announced, in the header of values and in the last of them.
    for (at, reason) in [
        headers(64 + 24),
        payloads(2 * 64),
        headers(2 * 64 + 8 + 20),
        payloads(3 * 64 + 8 + 7),
    ] {
        let (_listener, mut stream, mut following) = puppet_donor(&newcomer);
        let mut raw = good.concat();
        raw[at] ^= 0x10;
        stream.write_all(&raw).unwrap();
        assert_eq!(following.next(Epoch(0)), Ok(Advance::Same { step: Step(1) }));
        assert_eq!(loss(following.next(Epoch(0))), reason);
    }
    // And one that ends in the middle of values.
    let (_listener, mut stream, mut following) = puppet_donor(&newcomer);
    let raw = good.concat();
    stream.write_all(&raw[..raw.len() - 1]).unwrap();
    drop(stream);
    assert_eq!(following.next(Epoch(0)), Ok(Advance::Same { step: Step(1) }));
    assert_eq!(loss(following.next(Epoch(0))), LossReason::Truncated);
}

#[test]
fn a_donor_with_another_model_or_job_is_named() {
    let newcomer = Member::new("newcomer");
    let other_job = Header::bare(Kind::Same, JOB + 1, Epoch(1)).encode().to_vec();
    for (said, words) in [
        (
            frame(Kind::State, 2, &3u64.to_le_bytes()),
            "State of [3] values where [2] is expected",
        ),
        (
            frame(Kind::State, 2, &[0; 16]),
            "State of [0, 0] values where [2] is expected",
        ),
        (
            frame(Kind::Gradient, 2, &u64::MAX.to_le_bytes()),
            "where [2] is expected",
        ),
        (frame(Kind::Gradient, 3, &[]), "Gradient of step 3 where a start"),
        (
            frame(Kind::State, 0, &2u64.to_le_bytes()),
            "State of step 0 where a start",
        ),
        (frame(Kind::Partial, 2, &[]), "Partial of step 2 where a start"),
        (other_job, "two jobs share an address"),
    ] {
        let (_listener, mut stream, mut following) = puppet_donor(&newcomer);
        stream.write_all(&said).unwrap();
        let reason = loss(following.next(Epoch(0)));
        assert!(reason.to_string().contains(words), "{reason}");
    }
}

#[test]
fn a_follower_that_is_not_asked_takes_in_only_so_much() {
    let (len, steps) = (1 << 20, 64);
    let newcomer = Member::new("newcomer");
    let (_listener, mut stream, mut following) = puppet_donor_of(&newcomer, shape(&[], len));
    let values = bytes(&lane(0, len, 0));
    let told = |step| {
        let announced = frame(Kind::Gradient, step, &(len as u64).to_le_bytes());
        [announced, frame(Kind::Values, step, &values)].concat()
    };
    // Two wait to be asked for, and one waits for room.
    stream.set_write_timeout(Some(LONG)).unwrap();
    for step in 2..5 {
        stream.write_all(&told(step)).unwrap();
    }
    // The system holds some.
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let written = (5..steps)
        .take_while(|&step| stream.write_all(&told(step)).is_ok())
        .count();
    assert!(written < 13, "3 and {written} of {steps} gradients of 4 MiB");
    let first: Vec<Step> = (0..3).map(|_| following.next(Epoch(0)).unwrap().step()).collect();
    assert_eq!(first, [Step(2), Step(3), Step(4)]);
}

#[test]
fn a_follower_that_hangs_up_or_talks_back_is_let_go() {
    let donor = Donor::new();
    let handle = donor.member.endpoint.handle();
    let follow = Follow {
        identity: "newcomer".to_owned(),
        token: "secret".to_owned(),
        donor: "donor".to_owned(),
        at_least: Step(0),
        held: Some(Step(1)),
    };
    let ask = || {
        let mut stream = TcpStream::connect(donor.member.endpoint.local_addr()).unwrap();
        stream
            .write_all(&frame(Kind::Follow, 0, &follow.encode()))
            .unwrap();
        stream
    };
    let asked = ask();
    let request = donor.asked();
    assert!(request.is_open());
    drop(asked);
    assert!(handle.wait_until(LONG, |stats| stats.followers == 0));
    assert!(!request.is_open());
    // An answer that nobody hears is no error.
    assert!(!request.answer(Start::Same(Step(1))).unwrap().is_open());

    let mut stream = ask();
    let feed = donor.asked().answer(Start::Same(Step(1))).unwrap();
    assert_eq!(read_frame(&stream).0.kind, Kind::Same);
    assert!(feed.is_open());
    stream.write_all(&[0]).unwrap();
    assert!(handle.wait_until(LONG, |stats| stats.followers == 0));
    assert!(!feed.is_open());
}
