//! Elections over a real etcd.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::time::{Duration, Instant};

use super::*;
use crate::store::etcd::Options;
use crate::store::tests::server::Etcd as Server;
use crate::store::tests::{job, record};
use lockstep_engine::ids::Epoch;

const PATIENCE: Duration = Duration::from_secs(60);
/// Told from the time that a change takes by itself, on a busy machine too.
const LEASE: Duration = Duration::from_secs(10);

async fn seat(server: &Server, url: &str) -> Seat {
    let options = Options {
        endpoints: vec![server.url().to_owned()],
        prefix: "/lockstep/test".into(),
        lease: LEASE,
    };
    Seat::elected(&options, url.to_owned()).await.unwrap()
}

/// Waits for a role that is wanted, and says how long that took.
async fn awaited(seat: &mut Seat, wanted: impl Fn(&Role) -> bool) -> (Role, Duration) {
    let started = Instant::now();
    let wait = async {
        loop {
            let role = seat.role();
            if wanted(&role) {
                return role;
            }
            seat.changed().await;
        }
    };
    let role = tokio::time::timeout(PATIENCE, wait).await.unwrap();
    (role, started.elapsed())
}

async fn leading(seat: &mut Seat) -> (Arc<dyn Store>, Duration) {
    match awaited(seat, |role| matches!(role, Role::Leading(_))).await {
        (Role::Leading(store), took) => (store, took),
        (role, _) => panic!("{role:?}"),
    }
}

#[tokio::test]
async fn one_leads_the_others_know_it_and_the_next_takes_over_at_once_when_it_leaves() {
    let server = Server::start();
    let mut a = seat(&server, "http://a").await;
    let (old, _) = leading(&mut a).await;
    old.put_job(&record("a", 1)).await.unwrap();
    let mut b = seat(&server, "http://b").await;
    let knows = |role: &Role| matches!(role, Role::Standby { leader: Some(url) } if url == "http://a");
    awaited(&mut b, knows).await;
    a.leave().await;
    let (new, took) = leading(&mut b).await;
    // Three quarters of it were left at least.
    assert!(took < LEASE / 2, "given back, yet it took {took:?}");
    let late = old.raise_epoch(&job("a"), Epoch(0), Epoch(1)).await;
    assert!(matches!(late, Err(StoreError::Deposed { .. })), "{late:?}");
    assert_eq!(new.jobs().await.unwrap().len(), 1);
    new.raise_epoch(&job("a"), Epoch(0), Epoch(1)).await.unwrap();
}

/// Without etcd nobody can know whether somebody else leads.
#[tokio::test]
async fn a_leader_without_etcd_steps_down_before_its_lease_is_over_and_leads_again_later() {
    let mut server = Server::start();
    let mut a = seat(&server, "http://a").await;
    leading(&mut a).await;
    server.kill();
    let (_, took) = awaited(&mut a, |role| matches!(role, Role::Standby { .. })).await;
    assert!(took < LEASE, "{took:?}");
    server.start_again();
    let (store, _) = leading(&mut a).await;
    store.put_job(&record("a", 1)).await.unwrap();
}

/// As when somebody removes its key by hand, or etcd is restored from a backup.
#[tokio::test]
async fn a_leader_whose_store_knows_another_steps_down_when_it_is_told() {
    let server = Server::start();
    let mut a = seat(&server, "http://a").await;
    leading(&mut a).await;
    let error = StoreError::Deposed { action: "test" };
    let deposed = a.deposed(error);
    tokio::time::timeout(PATIENCE, deposed).await.unwrap().unwrap();
    awaited(&mut a, |role| matches!(role, Role::Standby { .. })).await;
    leading(&mut a).await;
}
