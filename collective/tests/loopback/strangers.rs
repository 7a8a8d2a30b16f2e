//! Whoever is not of this job cannot hurt it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use lockstep_collective::frame::{HEADER_BYTES, Header, Kind};
use lockstep_collective::greeting::Hello;
use lockstep_collective::limits::{MAX_NAME_BYTES, MAX_PARTS, MAX_STRANGERS, MAX_STREAMS};
use lockstep_collective::{
    CollectiveError, Endpoint, FollowOptions, LossReason, Options, Partials, Peer, Shape, Transport,
};
use lockstep_engine::geometry::{Assignment, Node};
use lockstep_engine::ids::{Epoch, Step};
use proptest::prelude::*;

use crate::support::*;

/// Reads until the other end closes: it must, and say nothing.
fn shown_out(mut stream: TcpStream) {
    let mut said = Vec::new();
    // A reset will do as well.
    let _ = stream.read_to_end(&mut said);
    assert!(said.is_empty());
}

fn hello(job: u64, token: &str) -> Vec<u8> {
    let hello = Hello {
        identity: "stranger".to_owned(),
        token: token.to_owned(),
        host: String::new(),
        link: 1,
    }
    .encode();
    let header = Header::bare(Kind::Hello, job, Epoch(1)).announcing(&hello);
    [header.encode().as_slice(), &hello].concat()
}

fn partial() -> Vec<u8> {
    Header::bare(Kind::Partial, JOB, Epoch(1))
        .announcing(&[])
        .encode()
        .to_vec()
}

#[test]
fn strangers_are_shown_out_and_the_group_goes_on() {
    let all = members(2, (Transport::Auto, 1));
    let all: Vec<&Member> = all.iter().collect();
    enter_all(1, &all);
    let handle = all[0].endpoint.handle();
    assert!(handle.wait_until(LONG, |stats| stats.inbound == 1));
    let huge = Header {
        length: u64::MAX,
        ..Header::bare(Kind::Hello, JOB, Epoch(1))
    }
    .encode()
    .to_vec();
    let greetings: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: example.org\r\nUser-Agent: a scanner of ports, at work\r\n\r\n".to_vec(),
        vec![0; 4096],
        hello(JOB + 1, "secret"),
        hello(JOB, "guess"),
        hello(JOB, ""),
        partial(),
        huge,
        Header::bare(Kind::Follow, JOB, Epoch(1))
            .announcing(b"not a greeting")
            .encode()
            .into_iter()
            .chain(*b"not a greeting")
            .collect(),
        Header::bare(Kind::Hello, JOB, Epoch(1))
            .announcing(&[])
            .encode()
            .to_vec(),
    ];
    let count = greetings.len() as u64;
    for greeting in greetings {
        let mut stream = TcpStream::connect(all[0].endpoint.local_addr()).unwrap();
        stream.write_all(&greeting).unwrap();
        shown_out(stream);
    }
    // And one that hangs up in the middle of a greeting.
    let mut stream = TcpStream::connect(all[0].endpoint.local_addr()).unwrap();
    stream.write_all(&hello(JOB, "secret")[..70]).unwrap();
    drop(stream);
    assert!(handle.wait_until(LONG, |stats| stats.rejected_connections == count + 1));
    assert_eq!(handle.stats().inbound, 1);

    let fresh = Assignment::fresh(2, 2);
    for result in on_all(&all, |rank, member| {
        let mut partials = Partials::new(2, 50);
        compute(&mut partials, &fresh, rank, 0);
        reduce(member, 1, &fresh, &partials)
    }) {
        assert_eq!(result.unwrap(), tree_bits(2, 50, 0));
    }
    assert!(handle.lost().is_empty());
}

#[test]
fn many_silent_connections_are_limited_and_members_still_get_in() {
    let member = Member::new("real");
    let handle = member.endpoint.handle();
    let count = MAX_STRANGERS + 36;
    let silent: Vec<TcpStream> = (0..count)
        .map(|_| TcpStream::connect(member.endpoint.local_addr()).unwrap())
        .collect();
    assert!(handle.wait_until(LONG, |stats| stats.rejected_connections == 36));
    let _puppet = Puppet::new("puppet", &member, 1);
    assert!(handle.wait_until(LONG, |stats| stats.inbound == 1));
    drop(silent);
    assert!(handle.wait_until(LONG, |stats| stats.rejected_connections == count as u64));
    assert_eq!(handle.stats().inbound, 1);
}

#[test]
fn frames_without_values_fill_the_mailbox_too() {
    let member = Member::with(Options {
        mailbox_bytes: 10 * HEADER_BYTES,
        ..options("real")
    });
    let handle = member.endpoint.handle();
    let mut puppet = Puppet::new("puppet", &member, 1);
    let nobody = Node { start: 0, len: 0 };
    for _ in 0..100 {
        puppet.say(Kind::Partial, 1, 1, 0, nobody, &[]);
    }
    // Ten wait, and one more is at the door; what is behind it stays in the socket.
    assert!(handle.wait_until(LONG, |stats| stats.received_frames == 11));
    assert_eq!(handle.stats().waiting_frames, 10);
    // A group without the sender drops them all, and that wakes its reader.
    member.endpoint.enter(group(1, 0, &[member.peer()])).unwrap();
    assert!(handle.wait_until(LONG, |stats| stats.foreign_frames == 100));
    assert_eq!((handle.stats().waiting_frames, handle.stats().inbound), (0, 1));
}

#[test]
fn what_is_out_of_bounds_is_an_error() {
    let long = "x".repeat(MAX_NAME_BYTES + 1);
    let bad = |error| match error {
        CollectiveError::Argument { argument, .. } => argument,
        other => panic!("{other:?}"),
    };
    for (argument, options) in [
        ("identity", options(&long)),
        (
            "token",
            Options {
                token: long.clone(),
                ..options("real")
            },
        ),
        (
            "streams",
            Options {
                streams: 0,
                ..options("real")
            },
        ),
        (
            "streams",
            Options {
                streams: MAX_STREAMS + 1,
                ..options("real")
            },
        ),
        (
            "timeout",
            Options {
                timeout: Duration::ZERO,
                ..options("real")
            },
        ),
        (
            "feed_timeout",
            Options {
                feed_timeout: Duration::ZERO,
                ..options("real")
            },
        ),
    ] {
        assert_eq!(bad(Endpoint::bind(options).unwrap_err()), argument);
    }
    // The longest that are allowed fit together.
    let longest = &long[1..];
    let named = || Options {
        token: longest.to_owned(),
        ..options(longest)
    };
    let (donor, newcomer) = (Member::with(named()), Member::with(named()));
    let follow = |identity: &str, parts| {
        let donor = Peer {
            identity: identity.to_owned(),
            address: donor.endpoint.local_addr(),
        };
        let shape = Shape {
            state: vec![0; parts],
            gradient: 0,
        };
        newcomer.endpoint.follow(FollowOptions {
            donor,
            held: Some(Step(1)),
            at_least: Step(1),
            shape,
        })
    };
    assert_eq!(bad(follow(&long, 1).unwrap_err()), "donor");
    assert_eq!(bad(follow(longest, MAX_PARTS + 1).unwrap_err()), "shape");
    match follow(longest, MAX_PARTS).unwrap().next(Epoch(0)) {
        Err(CollectiveError::DonorLost {
            reason: LossReason::Refused(words),
            ..
        }) => assert_eq!(words, "it takes no followers"),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn garbage_after_a_good_greeting_is_no_more_than_a_loss(
        garbage in prop::collection::vec(any::<u8>(), 64..300),
    ) {
        let member = Member::new("real");
        let mut puppet = Puppet::new("puppet", &member, 1);
        member.endpoint.enter(group(1, 0, &[member.peer(), puppet.peer()])).unwrap();
        // The member may hang up before it has all of it.
        let _ = puppet.stream.write_all(&garbage);
        let fresh = Assignment::fresh(2, 2);
        let mut partials = Partials::new(2, 2);
        compute(&mut partials, &fresh, 0, 0);
        let lost = matches!(
            reduce(&member, 1, &fresh, &partials),
            Err(CollectiveError::PeerLost { .. })
        );
        prop_assert!(lost);
    }
}
