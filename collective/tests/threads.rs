//! Closing an endpoint ends its threads. Alone in its process, because it counts them.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use lockstep_collective::{Endpoint, FollowOptions, Group, Options, Peer, Shape, Start};
use lockstep_engine::ids::{Epoch, Rank, Step};

/// Far longer than anything takes.
const LONG: Duration = Duration::from_secs(60);
/// Values of a gradient.
const LEN: usize = 1 << 20;

/// Threads of this process that belong to endpoints, where the system tells.
fn threads() -> Option<usize> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    Some(names.filter(|name| name.starts_with("collective-")).count())
}

#[test]
fn closing_leaves_no_thread() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    for streams in [1, 2, 4] {
        let (asked, requests) = channel();
        let endpoints: Vec<Endpoint> = (0..3)
            .map(|rank| {
                let asked = asked.clone();
                let options = Options {
                    streams,
                    on_follow: Box::new(move |request| asked.send(request).unwrap()),
                    ..Options::new(any, 1, format!("{rank}"))
                };
                Endpoint::bind(options).unwrap()
            })
            .collect();
        let mut members: Vec<Peer> = (0..)
            .zip(&endpoints)
            .map(|(rank, endpoint)| Peer {
                identity: format!("{rank}"),
                address: endpoint.local_addr(),
            })
            .collect();
        // A stranger that says nothing, and a member that reads nothing.
        let stranger = TcpStream::connect(endpoints[0].local_addr()).unwrap();
        let deaf = TcpListener::bind(any).unwrap();
        members.push(Peer {
            identity: "deaf".to_owned(),
            address: deaf.local_addr().unwrap(),
        });
        for (rank, endpoint) in (0..).zip(&endpoints) {
            endpoint
                .enter(Group {
                    epoch: Epoch(1),
                    rank: Rank(rank),
                    members: members.clone(),
                })
                .unwrap();
        }
        // One that follows another, and is told more than it asks for.
        let follow = FollowOptions {
            donor: members[0].clone(),
            held: Some(Step(1)),
            at_least: Step(1),
            shape: Shape {
                state: vec![],
                gradient: LEN,
            },
        };
        let following = endpoints[1].follow(follow).unwrap();
        let feed = requests.recv().unwrap().answer(Start::Same(Step(1))).unwrap();
        for step in 2..10 {
            assert!(feed.push(Step(step), Some(Arc::new(vec![0.0; LEN]))));
        }
        for endpoint in &endpoints {
            assert!(
                endpoint
                    .handle()
                    .wait_until(LONG, |stats| stats.outbound == 3 * streams)
            );
        }
        if let Some(running) = threads() {
            assert!(running >= 3 * 4, "an acceptor and writers at least: {running}");
        }
        drop(endpoints);
        // The system may still count a thread that was joined.
        let deadline = Instant::now() + LONG;
        while threads().is_some_and(|left| left > 0) {
            assert!(Instant::now() < deadline, "{:?} are left", threads());
            std::thread::yield_now();
        }
        drop((stranger, deaf, feed, following));
    }
}
