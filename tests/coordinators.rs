//! Three coordinators over a real etcd: one leads, and when it is gone the next one does.
//!
//! Needs `etcd` (Debian's `etcd-server`) on the path.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod support;

use std::time::{Duration, Instant};

use lockstep_proto::wire::jobs_client::JobsClient;
use lockstep_proto::{LEADER_KEY, wire};
use rustix::process::Signal;
use support::cluster::{Coordinator, await_leader, epoch, worker};
use support::etcd::Etcd;
use support::job::Job;
use support::place::Place;

/// A short lease, where only its end is awaited.
const SHORT: Duration = Duration::from_secs(2);
/// A lease that is told from the time that a change of leaders takes by itself, and how long that may be.
const LEASE: Duration = Duration::from_secs(10);
const CHANGE: Duration = Duration::from_secs(10);

/// Coordinators that are alive.
struct Coordinators {
    alive: Vec<Coordinator>,
    /// URLs of all that were started.
    urls: String,
}

impl Coordinators {
    fn start(place: &Place, etcd: &Etcd, lease: Duration) -> Self {
        let alive: Vec<_> = (0..3)
            .map(|_| Coordinator::start_on_etcd(place, etcd.url(), lease))
            .collect();
        let urls: Vec<&str> = alive.iter().map(|one| one.url.as_str()).collect();
        let urls = urls.join(",");
        Self { alive, urls }
    }

    fn at(&self) -> String {
        format!("--coordinator {}", self.urls)
    }

    /// Takes the one that leads out; the others are standbys that name it.
    fn take_leader(&mut self, place: &Place) -> Coordinator {
        // It answers once there is a leader.
        place.run(&format!("list {}", self.at())).code(0);
        let leads = |one: &Coordinator| ask(&one.url).is_ok();
        let leaders: Vec<usize> = (0..self.alive.len())
            .filter(|&one| leads(&self.alive[one]))
            .collect();
        let [leader] = leaders[..] else {
            panic!("one of them leads: {leaders:?}");
        };
        let leader = self.alive.remove(leader);
        assert_eq!(ask(&leader.url).as_deref(), Ok(leader.url.as_str()));
        for standby in &self.alive {
            standby.process.await_err(|line| {
                line.contains(&format!("{} leads; this coordinator stands by", leader.url))
            });
            assert_eq!(ask(&standby.url), Err(Some(leader.url.clone())));
        }
        leader
    }
}

/// Who a coordinator says leads: itself, or whom it names, if anybody.
fn ask(url: &str) -> Result<String, Option<String>> {
    let ask = async {
        let mut client = JobsClient::connect(url.to_owned()).await.unwrap();
        match client.leader(wire::LeaderRequest {}).await {
            Ok(reply) => Ok(reply.into_inner().url),
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
                let named = status.metadata().get(LEADER_KEY);
                Err(named.map(|url| url.to_str().unwrap().to_owned()))
            }
        }
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(ask)
}

#[test]
fn a_leader_that_is_killed_or_stopped_is_followed_by_another() {
    let place = Place::with(&Job::default());
    let etcd = Etcd::start();
    let mut all = Coordinators::start(&place, &etcd, LEASE);
    let at = all.at();
    let job = place
        .run(&format!("submit small.toml --out out {at} -o json"))
        .code(0)
        .json();
    assert_eq!(job["state"], "queued", "{job:#}");

    let first = all.take_leader(&place);
    let killed = Instant::now();
    first.process.signal(Signal::KILL);
    await_leader(&all.urls);
    let listed = place.run(&format!("list {at} -o json")).code(0).json();
    let took = killed.elapsed();
    eprintln!("killed: {} ms to an answer of the next leader", took.as_millis());
    assert!(took < LEASE + CHANGE, "{took:?}");
    assert_eq!(
        (&listed[0]["name"], &listed[0]["state"]),
        (&"small".into(), &"queued".into())
    );

    // One that is told to stop gives its lease back, of which three quarters are left at least: nobody waits for its end.
    let second = all.take_leader(&place);
    let stopped = Instant::now();
    second.process.signal(Signal::TERM);
    second.process.finish().code(0);
    place.run(&format!("list {at}")).code(0);
    let took = stopped.elapsed();
    eprintln!("stopped: {} ms to an answer of the next leader", took.as_millis());
    assert!(took < LEASE / 2, "{took:?}");

    // The last one left trains it.
    let _worker = worker(&place, &all.urls, "alpha", 2);
    let third = all.take_leader(&place);
    third.await_job("small", "done", |job| job.state() == wire::JobState::Done);
}

/// Trains under a leader that is struck in the middle; the next one goes on with what the ranks hold.
fn struck_in_the_middle(signal: Signal) {
    let place = Place::with(&Job {
        min_workers: 2,
        ..Job::long()
    });
    let undisturbed = place.summary("run long.toml --local --workers 2 --out undisturbed");
    let etcd = Etcd::start();
    let mut all = Coordinators::start(&place, &etcd, SHORT);
    let at = all.at();
    let _workers = ["alpha", "beta"].map(|name| worker(&place, &all.urls, name, 1));
    place.run(&format!("submit long.toml --out out {at}")).code(0);
    let first = all.take_leader(&place);
    place.await_step("out", 60);
    let struck = Instant::now();
    first.process.signal(signal);
    let last = place.last_step("out");
    assert!(last < 240, "too late to matter");
    let again = place.await_event("out", "epoch", "going on from the state that they hold");
    // A leader may record a commit and be gone before it can tell of it.
    assert!(
        epoch(&again).0 + 1 >= last,
        "{again} instead of after step {last}"
    );
    place.await_step("out", last + 2);
    eprintln!(
        "{signal:?}: {} ms to the next commits",
        struck.elapsed().as_millis()
    );
    let joined = place
        .events("out")
        .into_iter()
        .filter(|(kind, _)| kind == "joined");
    let mut joined: Vec<String> = joined.map(|(_, text)| text).collect();
    joined.sort();
    joined.dedup();
    assert_eq!(joined.len(), 2, "the same ranks at the same ports: {joined:?}");
    let second = all.take_leader(&place);
    if signal == Signal::STOP {
        first.process.signal(Signal::CONT);
        // Awake, it finds that it leads no more, and says who does.
        first.process.await_err(|line| line.contains("leads no more"));
        first
            .process
            .await_err(|line| line.contains(&format!("{} leads; this coordinator stands by", second.url)));
        assert_eq!(ask(&first.url), Err(Some(second.url.clone())));
    }
    let job = second.await_job("long", "done", |job| job.state() == wire::JobState::Done);
    assert!(job.epoch > 1, "epochs go on from those before: {job:#?}");
    place.same_as(&undisturbed, "out");
    place.await_none_like(" rank ");
}

#[test]
fn training_goes_on_under_the_next_leader_with_the_same_bits() {
    struck_in_the_middle(Signal::KILL);
}

#[test]
fn a_leader_that_hangs_is_fenced_when_it_wakes() {
    struck_in_the_middle(Signal::STOP);
}

#[test]
fn etcd_that_is_started_again_stops_nobody_for_good() {
    let place = Place::with(&Job::default());
    let mut etcd = Etcd::start();
    let mut all = Coordinators::start(&place, &etcd, SHORT);
    let at = all.at();
    place.run(&format!("submit small.toml --out out {at}")).code(0);
    let leader = all.take_leader(&place);
    etcd.kill();
    // Without etcd nobody leads for longer than a lease, and everybody says why.
    leader
        .process
        .await_err(|line| line.contains("leads no more") && line.contains("could not be prolonged"));
    for standby in &all.alive {
        standby
            .process
            .await_err(|line| line.contains("the store is unavailable"));
    }
    etcd.start_again();
    let listed = place.run(&format!("list {at} -o json")).code(0).json();
    assert_eq!(listed[0]["name"], "small");
}
