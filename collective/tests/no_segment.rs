//! Members that cannot have shared memory take TCP. Alone in its process, because it takes its files away.

use std::net::SocketAddr;
use std::time::Duration;

use lockstep_collective::{Endpoint, Group, Options, Partials, Peer};
use lockstep_engine::geometry::{Assignment, Node};
use lockstep_engine::ids::{Epoch, Rank, Step};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn without_shared_memory_a_group_takes_tcp() {
    let endpoints: Vec<Endpoint> = (0..2)
        .map(|rank| {
            let listen = SocketAddr::from(([127, 0, 0, 1], 0));
            Endpoint::bind(Options::new(listen, 1, format!("{rank}"))).unwrap()
        })
        .collect();
    let members: Vec<Peer> = (0..)
        .zip(&endpoints)
        .map(|(rank, endpoint)| Peer {
            identity: format!("{rank}"),
            address: endpoint.local_addr(),
        })
        .collect();
    for (rank, endpoint) in (0..).zip(&endpoints) {
        let group = Group {
            epoch: Epoch(1),
            rank: Rank(rank),
            members: members.clone(),
        };
        endpoint.enter(group).unwrap();
    }
    for endpoint in &endpoints {
        let connected = endpoint.handle().wait_until(Duration::from_secs(60), |stats| {
            (stats.inbound, stats.outbound) == (1, 1)
        });
        assert!(connected);
    }
    // All connections are there, and no file can be opened any more: not that of a segment either.
    let before = getrlimit(Resource::Nofile);
    let none = Rlimit {
        current: Some(0),
        ..before
    };
    setrlimit(Resource::Nofile, none).unwrap();
    let assignment = Assignment::fresh(2, 2);
    let reduce = |rank: u32, endpoint: &Endpoint| {
        let mut partials = Partials::new(2, 3);
        for lane in assignment.lanes_of(Rank(rank)) {
            partials
                .insert(Node::leaf(lane), vec![0.1 + lane.0 as f32; 3])
                .unwrap();
        }
        let held = partials.all_held();
        let mut out = vec![0.0; 3];
        endpoint
            .reduce((Epoch(1), Step(1), 0), &assignment, &held, &mut out)
            .map(|()| out)
    };
    let [first, second] = &endpoints[..] else {
        unreachable!()
    };
    let (ours, theirs) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| reduce(1, second));
        (reduce(0, first), theirs.join().unwrap())
    });
    setrlimit(Resource::Nofile, before).unwrap();
    assert_eq!((ours.unwrap(), theirs.unwrap()), (vec![1.2; 3], vec![1.2; 3]));
    for endpoint in &endpoints {
        assert_eq!(endpoint.handle().stats().shared_reductions, 0);
    }
}
