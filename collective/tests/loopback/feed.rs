//! Feeds: a newcomer is told the state and every step after it, while the others go on.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use lockstep_collective::frame::{FrameError, Header, Kind};
use lockstep_collective::greeting::Follow;
use lockstep_collective::limits::{MAX_FOLLOWERS, MAX_PARTS};
use lockstep_collective::{
    Advance, CollectiveError, Feed, FollowOptions, FollowRequest, Following, LossReason, Options, Partials,
    Peer, Shape, Start,
};
use lockstep_engine::geometry::Assignment;
use lockstep_engine::ids::{Epoch, Step};

use crate::support::*;

/// Far longer than it takes when nobody waits, and far shorter than any time-out.
const PROMPT: Duration = Duration::from_secs(20);

/// An endpoint that hands over who wants to follow.
struct Donor {
    member: Member,
    requests: Receiver<FollowRequest>,
}

impl Donor {
    fn new() -> Self {
        Self::with(options("donor"))
    }

    fn with(mut options: Options) -> Self {
        let (asked, requests) = channel();
        // A donor that is closing has nobody left to answer.
        options.on_follow = Box::new(move |request| drop(asked.send(request)));
        let member = Member::with(options);
        Self { member, requests }
    }

    /// The next request.
    fn asked(&self) -> FollowRequest {
        self.requests.recv_timeout(LONG).unwrap()
    }

    /// The next request, answered with the state as of `step`.
    fn give_state(&self, step: u64, lens: &[usize]) -> Feed {
        let (step, parts) = (Step(step), state(step, lens));
        self.asked().answer(Start::State { step, parts }).unwrap()
    }
}

/// The state as of a step.
fn state(step: u64, lens: &[usize]) -> Vec<Arc<Vec<f32>>> {
    let part = |(number, &len): (u32, &usize)| Arc::new(lane(number, len, step));
    (0u32..).zip(lens).map(part).collect()
}

/// The gradient of a step; every seventh is skipped.
fn gradient(step: u64, len: usize) -> Option<Arc<Vec<f32>>> {
    (step % 7 != 0).then(|| Arc::new(lane(99, len, step)))
}

fn follow(member: &Member, donor: &Peer, held: Option<u64>, at_least: u64, shape: &Shape) -> Following {
    let options = FollowOptions {
        donor: donor.clone(),
        held: held.map(Step),
        at_least: Step(at_least),
        shape: shape.clone(),
    };
    member.endpoint.follow(options).unwrap()
}

fn shape(state: &[usize], gradient: usize) -> Shape {
    let state = state.to_vec();
    Shape { state, gradient }
}

fn is_state(advance: &Advance, step: u64, lens: &[usize]) -> bool {
    let Advance::State { step: found, parts } = advance else {
        return false;
    };
    let expected = state(step, lens);
    *found == Step(step)
        && parts.len() == expected.len()
        && parts
            .iter()
            .zip(expected)
            .all(|(part, expected)| bits(part) == bits(&expected))
}

fn is_gradient(advance: &Advance, step: u64, len: usize) -> bool {
    let Advance::Gradient { step: found, values } = advance else {
        return false;
    };
    let expected = gradient(step, len);
    *found == Step(step) && values.as_deref().map(bits) == expected.as_deref().map(|expected| bits(expected))
}

/// Why there is no more.
fn loss(result: Result<Advance, CollectiveError>) -> LossReason {
    match result {
        Err(CollectiveError::DonorLost { donor, reason }) if donor == "donor" => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_follower_is_told_the_state_and_every_step_after_it() {
    let (donor, newcomer) = (Donor::new(), Member::new("newcomer"));
    // Empty, small, exactly a piece, and several pieces.
    let (lens, len) = ([0, 7, 1 << 20, (3 << 20) + 1], (1 << 20) + 9);
    let mut following = follow(&newcomer, &donor.member.peer(), Some(1), 2, &shape(&lens, len));
    assert_eq!(following.donor(), "donor");
    let request = donor.asked();
    let asked = (request.follower.as_str(), request.held, request.at_least);
    assert_eq!(asked, ("newcomer", Some(Step(1)), Step(2)));
    let (step, parts) = (Step(4), state(4, &lens));
    let feed = request.answer(Start::State { step, parts }).unwrap();
    assert_eq!(feed.follower(), "newcomer");
    for step in 5..10 {
        assert!(feed.push(Step(step), gradient(step, len)));
    }
    assert!(is_state(&following.next(Epoch(0)).unwrap(), 4, &lens));
    for step in 5..10 {
        let advance = following.next(Epoch(0)).unwrap();
        assert!(is_gradient(&advance, step, len), "{advance:?}");
        assert_eq!(advance.step(), Step(step));
        if let Advance::Gradient {
            values: Some(values), ..
        } = advance
        {
            following.recycle(values);
        }
    }
    assert!(feed.is_open());
    drop(following);
    let handle = donor.member.endpoint.handle();
    assert!(handle.wait_until(LONG, |stats| stats.followers == 0));
    assert!(!feed.is_open() && !feed.push(Step(10), None));
}

#[test]
fn whoever_holds_the_state_or_all_but_a_step_of_it_is_told_no_more_than_that() {
    let (donor, newcomer) = (Donor::new(), Member::new("newcomer"));
    let shape = shape(&[5, 5], 5);
    let mut same = follow(&newcomer, &donor.member.peer(), Some(6), 6, &shape);
    let feed = donor.asked().answer(Start::Same(Step(6))).unwrap();
    assert_eq!(same.next(Epoch(0)), Ok(Advance::Same { step: Step(6) }));
    assert!(feed.push(Step(7), None));
    assert!(is_gradient(&same.next(Epoch(0)).unwrap(), 7, 5));

    let mut behind = follow(&newcomer, &donor.member.peer(), Some(7), 8, &shape);
    let (step, gradient) = (Step(8), gradient(8, 5));
    let feed = donor.asked().answer(Start::Gradient { step, gradient }).unwrap();
    assert!(feed.push(Step(9), self::gradient(9, 5)));
    for step in 8..10 {
        assert!(is_gradient(&behind.next(Epoch(0)).unwrap(), step, 5));
    }
}

#[test]
fn answers_that_are_of_no_use_are_refused() {
    let (donor, newcomer) = (Donor::new(), Member::new("newcomer"));
    let none = || Start::Gradient {
        step: Step(5),
        gradient: None,
    };
    let whole = |step, parts| Start::State {
        step: Step(step),
        parts: vec![Arc::default(); parts],
    };
    let answers = [
        (Some(3), Start::Same(Step(4))),
        (None, Start::Same(Step(4))),
        (Some(3), Start::Same(Step(3))),
        (Some(3), none()),
        (Some(5), none()),
        (None, none()),
        (None, whole(3, 1)),
        (None, whole(4, MAX_PARTS + 1)),
    ];
    for (held, start) in answers {
        let mut following = follow(&newcomer, &donor.member.peer(), held, 4, &shape(&[0], 0));
        let words = format!("{start:?}");
        match donor.asked().answer(start) {
            Err(CollectiveError::Argument {
                argument: "start",
                problem,
            }) => assert!(problem.starts_with(&words)),
            other => panic!("{other:?}"),
        }
        assert_eq!(loss(following.next(Epoch(0))), LossReason::Closed);
    }
}

#[test]
fn a_newer_epoch_calls_the_follower_away_and_loses_nothing() {
    let (donor, newcomer) = (Donor::new(), Member::new("newcomer"));
    let (lens, len) = ([8 << 20, 8 << 20], 1000);
    let mut following = follow(&newcomer, &donor.member.peer(), None, 0, &shape(&lens, len));
    let handle = newcomer.endpoint.handle();
    let superseded = |epoch: u64| {
        Err(CollectiveError::Superseded {
            epoch: Epoch(epoch),
            by: Epoch(epoch + 1),
        })
    };
    // While nothing has come, not even an answer.
    thread::scope(|scope| {
        let next = scope.spawn(|| following.next(Epoch(0)));
        handle.raise(Epoch(1));
        assert_eq!(next.join().unwrap(), superseded(0));
    });
    // In the middle of a state.
    let feed = donor.give_state(3, &lens);
    assert!(handle.wait_until(LONG, |stats| stats.received_bytes > 4 << 20));
    handle.raise(Epoch(2));
    assert_eq!(following.next(Epoch(1)), superseded(1));
    assert!(is_state(&following.next(Epoch(2)).unwrap(), 3, &lens));
    // Between steps, and when some have come already.
    for step in 4..40 {
        let epoch = step - 2;
        let frames = handle.stats().received_frames;
        assert!(feed.push(Step(step), gradient(step, len)));
        if step % 2 == 0 {
            assert!(handle.wait_until(LONG, |stats| stats.received_frames > frames));
        }
        handle.raise(Epoch(epoch + 1));
        assert_eq!(following.next(Epoch(epoch)), superseded(epoch));
        assert!(is_gradient(&following.next(Epoch(epoch + 1)).unwrap(), step, len));
    }
    // Entering a group is no other matter.
    newcomer.endpoint.enter(group(50, 0, &[newcomer.peer()])).unwrap();
    let called_away = following.next(Epoch(49));
    assert_eq!(called_away, superseded(49));
    assert!(feed.push(Step(40), None));
    assert_eq!(following.next(Epoch(50)).unwrap().step(), Step(40));
}

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
fn a_feed_that_is_let_go_tells_all_that_was_pushed() {
    let (donor, newcomer) = (Donor::new(), Member::new("newcomer"));
    let (lens, len) = ([3 << 20], 1 << 20);
    let mut following = follow(&newcomer, &donor.member.peer(), None, 0, &shape(&lens, len));
    let feed = donor.give_state(1, &lens);
    for step in 2..20 {
        assert!(feed.push(Step(step), gradient(step, len)));
    }
    drop(feed);
    assert!(is_state(&following.next(Epoch(0)).unwrap(), 1, &lens));
    for step in 2..20 {
        assert!(is_gradient(&following.next(Epoch(0)).unwrap(), step, len));
    }
    assert_eq!(loss(following.next(Epoch(0))), LossReason::Closed);
}

#[test]
fn a_slow_follower_is_let_go_and_whoever_pushes_never_waits() {
    let len = 1 << 20;
    let donor = Donor::with(Options {
        feed_bytes: 64 << 20,
        ..options("donor")
    });
    let newcomer = Member::new("newcomer");
    // It asks for no more than the state, so what it takes in is bounded too.
    let mut following = follow(&newcomer, &donor.member.peer(), None, 0, &shape(&[len], len));
    let feed = donor.give_state(1, &[len]);
    assert!(is_state(&following.next(Epoch(0)).unwrap(), 1, &[len]));
    let gradient = Some(Arc::new(lane(0, len, 0)));
    let begun = Instant::now();
    let pushed = (2..)
        .find(|&step| !feed.push(Step(step), gradient.clone()))
        .unwrap()
        - 2;
    assert!(begun.elapsed() < PROMPT);
    // 15 fit, and a few are on their way in sockets and at the follower.
    assert!(
        (15..100).contains(&pushed),
        "{pushed} of 4 MiB, where 64 MiB may wait"
    );
    assert!(!feed.is_open());
    let handle = donor.member.endpoint.handle();
    assert!(handle.wait_until(LONG, |stats| stats.followers == 0));
    drop(feed);
    assert_eq!(
        Arc::strong_count(gradient.as_ref().unwrap()),
        1,
        "nobody holds it any more"
    );

    // It has what had come, is told that there is no more, and may ask again.
    let mut reached = 1;
    let end = loop {
        match following.next(Epoch(0)) {
            Ok(advance) => reached = advance.step().0,
            end => break loss(end),
        }
    };
    assert!(
        matches!(
            end,
            LossReason::Closed | LossReason::Truncated | LossReason::Io(_)
        ),
        "{end:?}"
    );
    assert!(reached <= pushed + 1);
    let mut again = follow(
        &newcomer,
        &donor.member.peer(),
        Some(reached),
        0,
        &shape(&[len], len),
    );
    let feed = donor.asked().answer(Start::Same(Step(reached))).unwrap();
    assert!(again.next(Epoch(0)).is_ok() && feed.is_open());
}

#[test]
fn one_gradient_may_always_wait() {
    let donor = Donor::with(Options {
        feed_bytes: 0,
        ..options("donor")
    });
    let newcomer = Member::new("newcomer");
    let mut following = follow(&newcomer, &donor.member.peer(), Some(1), 0, &shape(&[], 100));
    let feed = donor.asked().answer(Start::Same(Step(1))).unwrap();
    assert!(feed.push(Step(2), gradient(2, 100)));
    assert_eq!(following.next(Epoch(0)).unwrap().step(), Step(1));
    assert!(is_gradient(&following.next(Epoch(0)).unwrap(), 2, 100));
}

#[test]
fn a_step_that_is_not_the_next_closes_the_feed() {
    let (donor, newcomer) = (Donor::new(), Member::new("newcomer"));
    for step in [4, 5, 7] {
        let mut following = follow(&newcomer, &donor.member.peer(), Some(5), 0, &shape(&[], 1));
        let feed = donor.asked().answer(Start::Same(Step(5))).unwrap();
        assert_eq!(following.next(Epoch(0)).unwrap().step(), Step(5));
        assert!(!feed.push(Step(step), None) && !feed.is_open());
        assert_eq!(loss(following.next(Epoch(0))), LossReason::Closed);
    }
}

#[test]
fn an_idle_donor_gives_signs_of_life_and_a_hanging_one_is_found_out() {
    let timeout = Duration::from_millis(200);
    let quick = |name: &str| Options {
        timeout,
        ..options(name)
    };
    let (donor, newcomer) = (Donor::with(quick("donor")), Member::with(quick("newcomer")));
    let mut following = follow(&newcomer, &donor.member.peer(), Some(1), 0, &shape(&[], 1));
    // Both while it has no answer and after it.
    let request = donor.asked();
    let handle = newcomer.endpoint.handle();
    assert!(handle.wait_until(LONG, |stats| stats.received_frames >= 8));
    let feed = request.answer(Start::Same(Step(1))).unwrap();
    assert!(handle.wait_until(LONG, |stats| stats.received_frames >= 16));
    assert!(feed.push(Step(2), None));
    for step in 1..3 {
        assert_eq!(following.next(Epoch(0)).unwrap().step(), Step(step));
    }

    let (_listener, _stream, mut following) = puppet_donor(&newcomer);
    assert_eq!(
        loss(following.next(Epoch(0))),
        LossReason::Silent { after: timeout }
    );
}

/// A donor that says what the test wants, to a follower that holds step 1; a state has two values, and so has a
/// gradient.
fn puppet_donor(newcomer: &Member) -> (TcpListener, TcpStream, Following) {
    let listener = TcpListener::bind(loopback()).unwrap();
    let donor = Peer {
        identity: "donor".to_owned(),
        address: listener.local_addr().unwrap(),
    };
    let following = follow(newcomer, &donor, Some(1), 1, &shape(&[2], 2));
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
fn nobody_follows_who_does_not_know_the_job_and_its_donor() {
    let donor = Donor::new();
    let peer = donor.member.peer();
    let strangers = [
        Options {
            token: "guess".to_owned(),
            ..options("newcomer")
        },
        Options {
            job: JOB + 1,
            ..options("newcomer")
        },
    ];
    for (count, options) in (1..).zip(strangers) {
        let newcomer = Member::with(options);
        let mut following = follow(&newcomer, &peer, None, 0, &shape(&[], 0));
        assert_eq!(loss(following.next(Epoch(0))), LossReason::Closed);
        let handle = donor.member.endpoint.handle();
        assert!(handle.wait_until(LONG, |stats| stats.rejected_connections == count));
    }

    let newcomer = Member::new("newcomer");
    let elsewhere = Peer {
        identity: "donor#2".to_owned(),
        ..peer.clone()
    };
    let mut following = follow(&newcomer, &elsewhere, None, 0, &shape(&[], 0));
    let words = "`donor` listens here, not `donor#2`".to_owned();
    let expected = CollectiveError::DonorLost {
        donor: "donor#2".to_owned(),
        reason: LossReason::Refused(words),
    };
    assert_eq!(following.next(Epoch(0)), Err(expected));
    assert!(donor.requests.try_recv().is_err(), "nobody was asked");

    let modest = Member::new("donor");
    let mut following = follow(&newcomer, &modest.peer(), None, 0, &shape(&[], 0));
    let words = LossReason::Refused("it takes no followers".to_owned());
    assert_eq!(loss(following.next(Epoch(0))), words);
    let gone = modest.peer();
    drop(modest);
    let mut following = follow(&newcomer, &gone, None, 0, &shape(&[], 0));
    assert!(matches!(
        loss(following.next(Epoch(0))),
        LossReason::Connect { .. }
    ));
}

#[test]
fn followers_are_limited_and_a_request_may_wait_or_be_dropped() {
    let donor = Donor::new();
    let handle = donor.member.endpoint.handle();
    let members: Vec<Member> = (0..=MAX_FOLLOWERS)
        .map(|n| Member::new(&format!("newcomer-{n}")))
        .collect();
    let (last, others) = members.split_last().unwrap();
    let peer = donor.member.peer();
    let follow = |member| follow(member, &peer, None, 0, &shape(&[1], 1));
    let mut followings: Vec<Following> = others.iter().map(follow).collect();
    assert!(handle.wait_until(LONG, |stats| stats.followers == MAX_FOLLOWERS));
    let words = LossReason::Refused(format!("it has {MAX_FOLLOWERS} followers already"));
    assert_eq!(loss(follow(last).next(Epoch(0))), words);
    // Asking anew takes the place of the old request, even while there is no room.
    assert!(handle.wait_until(LONG, |stats| stats.followers == MAX_FOLLOWERS));
    let again = follow(&others[0]);
    assert_eq!(loss(followings[0].next(Epoch(0))), LossReason::Closed);
    followings[0] = again;

    let mut requests: Vec<FollowRequest> = (0..=MAX_FOLLOWERS).map(|_| donor.asked()).collect();
    let place = |name: &str| requests.iter().rposition(|request| request.follower == name);
    let dropped = requests.remove(place("newcomer-1").unwrap());
    drop(dropped);
    assert_eq!(loss(followings[1].next(Epoch(0))), LossReason::Closed);
    let place = |name: &str| requests.iter().rposition(|request| request.follower == name);
    let feed = requests.remove(place("newcomer-0").unwrap());
    let (step, parts) = (Step(1), state(1, &[1]));
    let feed = feed.answer(Start::State { step, parts }).unwrap();
    assert!(is_state(&followings[0].next(Epoch(0)).unwrap(), 1, &[1]) && feed.is_open());
    // A donor that closes waits for nobody.
    drop(donor);
    assert_eq!(loss(followings[2].next(Epoch(0))), LossReason::Closed);
}

#[test]
fn a_newcomer_catches_up_while_the_others_train_and_enters() {
    let (lanes, len, last) = (4, 100_000, 30);
    let (donor, other, newcomer) = (Donor::new(), Member::new("other"), Member::new("newcomer"));
    enter_all(1, &[&donor.member, &other]);
    // The state is the plain sum of the steps' gradients.
    let apply = |state: &mut [f32], reduced: &[u32]| {
        let values = reduced.iter().map(|&bits| f32::from_bits(bits));
        state
            .iter_mut()
            .zip(values)
            .for_each(|(state, value)| *state += value);
    };
    let two = Assignment::fresh(lanes, 2);
    let train = |member: &Member, rank: u32, each: &mut dyn FnMut(u64, &[f32], &[u32])| {
        let (mut partials, mut state) = (Partials::new(lanes, len), vec![0.0; len]);
        for step in 1..=last {
            compute(&mut partials, &two, rank, step);
            let reduced = reduce(member, step, &two, &partials).unwrap();
            partials.clear();
            apply(&mut state, &reduced);
            each(step, &state, &reduced);
        }
        state
    };
    let mut following = follow(&newcomer, &donor.member.peer(), None, 3, &shape(&[len], len));
    assert!(
        donor
            .member
            .endpoint
            .handle()
            .wait_until(LONG, |stats| stats.followers == 1)
    );
    let (at_donor, caught_up) = thread::scope(|scope| {
        scope.spawn(|| train(&other, 1, &mut |_, _, _| {}));
        let catching_up = scope.spawn(move || {
            let mut state = Vec::new();
            loop {
                let advance = following.next(Epoch(1)).unwrap();
                let step = advance.step();
                match advance {
                    Advance::State { parts, .. } => state = parts.concat(),
                    Advance::Gradient { values, .. } => apply(&mut state, &bits(&values.unwrap())),
                    Advance::Same { .. } => panic!("it held nothing"),
                }
                if step == Step(last) {
                    return state;
                }
            }
        });
        let (mut request, mut feed): (Option<FollowRequest>, Option<Feed>) = (None, None);
        let at_donor = train(&donor.member, 0, &mut |step, state, reduced| {
            request = request.take().or_else(|| donor.requests.try_recv().ok());
            if let Some(feed) = &feed {
                let values = reduced.iter().map(|&bits| f32::from_bits(bits)).collect();
                assert!(feed.push(Step(step), Some(Arc::new(values))));
            } else if let Some(asked) = request.take_if(|request| request.at_least <= Step(step)) {
                let (step, parts) = (Step(step), vec![Arc::new(state.to_vec())]);
                feed = Some(asked.answer(Start::State { step, parts }).unwrap());
            }
        });
        (at_donor, catching_up.join().unwrap())
    });
    assert!(bits(&at_donor) == bits(&caught_up));

    let three = Assignment::fresh(lanes, 3);
    let all = [&donor.member, &newcomer, &other];
    enter_all(2, &all);
    for result in on_all(&all, |rank, member| {
        let mut partials = Partials::new(lanes, len);
        compute(&mut partials, &three, rank, last + 1);
        reduce(member, last + 1, &three, &partials)
    }) {
        assert!(result.unwrap() == tree_bits(lanes, len, last + 1));
    }
}
