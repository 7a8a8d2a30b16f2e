//! Closing an endpoint ends its threads. Alone in its process, because it counts them.

use std::net::{SocketAddr, TcpListener, TcpStream};

use lockstep_collective::{Endpoint, Group, Options, Peer};
use lockstep_engine::ids::{Epoch, Rank};

/// Threads of this process that belong to endpoints, where the system tells.
fn threads() -> Option<usize> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    Some(names.filter(|name| name.starts_with("collective-")).count())
}

#[test]
fn closing_leaves_no_thread() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    for _ in 0..3 {
        let endpoints: Vec<Endpoint> = (0..3)
            .map(|rank| Endpoint::bind(Options::new(any, 1, format!("{rank}"))).unwrap())
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
        let part = [std::sync::Arc::new(vec![0.0; 4 << 20])];
        endpoints[0]
            .send_state(Rank(3), lockstep_engine::ids::Step(1), &part)
            .unwrap();
        for endpoint in &endpoints {
            let long = std::time::Duration::from_secs(60);
            assert!(endpoint.handle().wait_until(long, |stats| stats.outbound == 3));
        }
        if let Some(running) = threads() {
            assert!(running >= 3 * 4, "an acceptor and writers at least: {running}");
        }
        drop(endpoints);
        assert!(threads().is_none_or(|left| left == 0), "{:?} are left", threads());
        drop((stranger, deaf));
    }
}
