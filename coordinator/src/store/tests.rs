//! One suite over all stores.

use std::sync::Arc;

use lockstep_engine::ids::{Epoch, JobId, NodeId, Step, WorkerId};
use lockstep_engine::ledger::{Entry, Span};

use super::redb::Redb;
use super::*;

pub(crate) fn entry(step: u64) -> Entry {
    let worker = WorkerId {
        node: "n".parse().unwrap(),
        slot: 0,
        incarnation: u128::MAX,
    };
    let spans = vec![Span {
        positions: step * 2..step * 2 + 2,
        worker,
    }];
    Entry {
        step: Step(step),
        epoch: Epoch(1),
        workers: 1,
        digest: format!("d{step}"),
        loss: 0.1,
        spans,
        milliseconds: 1.5,
        skipped: false,
        unseen_to: None,
    }
}

fn appended(steps: impl Iterator<Item = u64>) -> Vec<Change> {
    steps.map(|step| Change::Append(entry(step))).collect()
}

pub(crate) fn job(name: &str) -> JobId {
    name.parse().unwrap()
}

pub(crate) fn record(name: &str, submitted_ms: u64) -> JobRecord {
    JobRecord {
        name: job(name),
        spec: "x".into(),
        out: "/tmp/a".into(),
        submitted_ms,
        state: State::Running,
        reason: "why".into(),
        summary: None,
        step: Step(0),
        kind: Kind::Training,
    }
}

/// What every store promises. `store` is empty; `again` gives what a coordinator that is started later sees.
async fn keeps_its_promises(
    store: Arc<dyn Store>,
    again: impl AsyncFnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
) {
    // An empty store.
    let (a, b) = (job("a"), job("b"));
    assert!(store.jobs().await.unwrap().is_empty() && store.drained().await.unwrap().is_empty());
    assert_eq!(
        (store.epoch(&a).await.unwrap(), store.last_step(&a).await.unwrap()),
        (Epoch(0), Step(0))
    );
    assert!(store.ledger(&a).await.unwrap().is_empty() && store.checkpoints(&a).await.unwrap().is_empty());

    // Jobs come oldest first, and the last word on one counts.
    store.put_job(&record("a", 7)).await.unwrap();
    store.put_job(&record("b", 5)).await.unwrap();
    let done = JobRecord {
        state: State::Done,
        summary: Some(serde_json::json!({ "steps": 1 })),
        ..record("a", 7)
    };
    store.put_job(&done).await.unwrap();

    // An epoch is raised only by whoever knows the last one, and skips nothing by itself.
    store.raise_epoch(&a, Epoch(0), Epoch(1)).await.unwrap();
    for expected in [0, 2, 7] {
        let late = store.raise_epoch(&a, Epoch(expected), Epoch(expected + 1)).await;
        assert!(
            matches!(late, Err(StoreError::Fenced { found: Epoch(1), .. })),
            "{late:?}"
        );
    }
    store.raise_epoch(&a, Epoch(1), Epoch(2)).await.unwrap();

    // Changes count in their order, also where a step is committed again and where one batch is larger than a
    // transaction of the store may be.
    store.change(&a, &appended(1..=700)).await.unwrap();
    assert_eq!(store.last_step(&a).await.unwrap(), Step(700));
    assert_eq!(
        store.ledger(&a).await.unwrap(),
        (1..=700).map(entry).collect::<Vec<_>>()
    );
    store.change(&b, &appended(1..=1)).await.unwrap();
    let mut mixed = vec![
        Change::Checkpoint(Step(2), "w2".into()),
        Change::Checkpoint(Step(600), "old".into()),
        Change::Truncate(Step(3)),
        Change::Truncate(Step(3)),
    ];
    mixed.extend(appended(4..=300));
    mixed.push(Change::Checkpoint(Step(4), "first".into()));
    mixed.push(Change::Checkpoint(Step(4), "w4".into()));
    mixed.push(Change::Checkpoint(Step(90), "cut".into()));
    mixed.push(Change::Truncate(Step(5)));
    mixed.extend(appended(6..=6));
    for _ in 0..2 {
        // The second time is a repetition, as after an answer that was lost.
        store.change(&a, &mixed).await.unwrap();
    }
    store.change(&a, &[]).await.unwrap();

    let node: NodeId = "alpha".parse().unwrap();
    store.set_drained(&node, true).await.unwrap();
    store.set_drained(&node, true).await.unwrap();
    store.set_drained(&"beta".parse().unwrap(), true).await.unwrap();
    store.set_drained(&"beta".parse().unwrap(), false).await.unwrap();

    let store = again(store).await;
    assert_eq!(store.jobs().await.unwrap(), [record("b", 5), done]);
    assert_eq!(
        (store.epoch(&a).await.unwrap(), store.epoch(&b).await.unwrap()),
        (Epoch(2), Epoch(0))
    );
    assert_eq!(
        store.ledger(&a).await.unwrap(),
        (1..=6).map(entry).collect::<Vec<_>>()
    );
    assert_eq!(store.last_step(&a).await.unwrap(), Step(6));
    assert_eq!(store.ledger(&b).await.unwrap(), [entry(1)]);
    assert_eq!(
        store.checkpoints(&a).await.unwrap(),
        [(Step(2), "w2".to_owned()), (Step(4), "w4".to_owned())]
    );
    assert_eq!(store.drained().await.unwrap(), BTreeSet::from([node]));
    store.change(&a, &[Change::Truncate(Step(0))]).await.unwrap();
    assert!(store.ledger(&a).await.unwrap().is_empty() && store.checkpoints(&a).await.unwrap().is_empty());
    assert_eq!(store.ledger(&b).await.unwrap().len(), 1, "another job's");
}

#[tokio::test]
async fn redb_keeps_its_promises() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Redb::open(folder.path()).unwrap());
    let reopen = async |store: Arc<dyn Store>| {
        assert!(
            matches!(Redb::open(folder.path()), Err(StoreError::Open { .. })),
            "one process at a time"
        );
        drop(store);
        Arc::new(Redb::open(folder.path()).unwrap()) as Arc<dyn Store>
    };
    keeps_its_promises(store, reopen).await;
}

#[tokio::test]
async fn redb_takes_what_a_full_disk_refused_once_there_is_room() {
    let Some(disk) = disk::Disk::new(1 << 20) else {
        return;
    };
    let store = Redb::open(disk.path()).unwrap();
    let a = job("a");
    store.raise_epoch(&a, Epoch(0), Epoch(1)).await.unwrap();
    store.change(&a, &appended(1..=10)).await.unwrap();
    for round in 0..3 {
        disk.fill();
        let (from, to) = (11 + round * 2000, 10 + (round + 1) * 2000);
        let changes = appended(from..=to);
        for _ in 0..2 {
            let refused = store.change(&a, &changes).await;
            assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
            // What was there can be read, or will be.
            let found = store.epoch(&a).await;
            assert!(
                matches!(found, Ok(Epoch(1)) | Err(StoreError::Full { .. })),
                "{found:?}"
            );
        }
        disk.free();
        store.change(&a, &changes[..1]).await.unwrap();
        assert_eq!(store.last_step(&a).await.unwrap(), Step(from));
        disk.grow();
        store.change(&a, &changes).await.unwrap();
        let whole: Vec<Entry> = (1..=to).map(entry).collect();
        assert!(store.ledger(&a).await.unwrap() == whole, "round {round}");
    }
}

/// A store that can be made to fail.
#[derive(Debug)]
pub(crate) struct Flaky {
    store: Redb,
    _folder: tempfile::TempDir,
    /// Calls that are to fail, from now on.
    fail: std::sync::Mutex<(u32, Failure)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing is done.
    Unavailable,
    /// It is done, and the answer is lost.
    AnswerLost,
    Deposed,
}

impl Flaky {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            store: Redb::open(folder.path()).unwrap(),
            _folder: folder,
            fail: std::sync::Mutex::new((0, Failure::Unavailable)),
        }
    }

    pub(crate) fn fail(&self, calls: u32, how: Failure) {
        *self.fail.lock().unwrap() = (calls, how);
    }

    async fn through<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let failure = {
            let mut fail = self.fail.lock().unwrap();
            let failure = (fail.0 > 0).then_some(fail.1);
            fail.0 = fail.0.saturating_sub(1);
            failure
        };
        let action = "test";
        let problem = "flaky".to_owned();
        match failure {
            None => call.await,
            Some(Failure::Deposed) => Err(StoreError::Deposed { action }),
            Some(Failure::Unavailable) => Err(StoreError::Unavailable { action, problem }),
            Some(Failure::AnswerLost) => {
                call.await?;
                Err(StoreError::Unavailable { action, problem })
            }
        }
    }
}

#[tonic::async_trait]
impl Store for Flaky {
    async fn jobs(&self) -> Result<Vec<JobRecord>, StoreError> {
        self.through(self.store.jobs()).await
    }
    async fn put_job(&self, job: &JobRecord) -> Result<(), StoreError> {
        self.through(self.store.put_job(job)).await
    }
    async fn epoch(&self, job: &JobId) -> Result<Epoch, StoreError> {
        self.through(self.store.epoch(job)).await
    }
    async fn raise_epoch(&self, job: &JobId, expected: Epoch, next: Epoch) -> Result<(), StoreError> {
        self.through(self.store.raise_epoch(job, expected, next)).await
    }
    async fn change(&self, job: &JobId, changes: &[Change]) -> Result<(), StoreError> {
        self.through(self.store.change(job, changes)).await
    }
    async fn ledger(&self, job: &JobId) -> Result<Vec<Entry>, StoreError> {
        self.through(self.store.ledger(job)).await
    }
    async fn last_step(&self, job: &JobId) -> Result<Step, StoreError> {
        self.through(self.store.last_step(job)).await
    }
    async fn checkpoints(&self, job: &JobId) -> Result<Vec<(Step, String)>, StoreError> {
        self.through(self.store.checkpoints(job)).await
    }
    async fn drained(&self) -> Result<BTreeSet<NodeId>, StoreError> {
        self.through(self.store.drained()).await
    }
    async fn set_drained(&self, node: &NodeId, drained: bool) -> Result<(), StoreError> {
        self.through(self.store.set_drained(node, drained)).await
    }
}

#[path = "../../../tests/support/disk.rs"]
pub(crate) mod disk;

#[cfg(feature = "etcd")]
#[path = "../../../tests/support/etcd.rs"]
pub(crate) mod server;

#[cfg(feature = "etcd")]
mod etcd {
    use std::time::{Duration, Instant};

    use super::server::Etcd as Server;
    use super::*;
    use crate::recorder::insist;
    use crate::store::etcd::{Cluster, Etcd, Options};

    pub(crate) fn options(server: &Server) -> Options {
        Options {
            endpoints: vec![server.url().to_owned()],
            prefix: "/lockstep/test".into(),
            lease: Duration::from_secs(2),
        }
    }

    /// Becomes the leader, with a lease that lasts for the whole test.
    async fn lead(cluster: &Cluster) -> (Arc<dyn Store>, i64) {
        insist(|| cluster.leader()).await.unwrap();
        let lease = cluster.client.clone().lease_grant(600, None).await.unwrap().id();
        let term = cluster.take_lead(lease, "http://a").await.unwrap().unwrap();
        (Arc::new(Etcd::new(cluster.clone(), term)), lease)
    }

    #[tokio::test]
    async fn etcd_keeps_its_promises_and_takes_nothing_from_a_deposed_leader() {
        let server = Server::start();
        let cluster = Cluster::new(&options(&server)).await.unwrap();
        let (store, lease) = lead(&cluster).await;
        let depose = async |old: Arc<dyn Store>| {
            let taken = cluster.take_lead(lease, "http://b").await.unwrap();
            assert_eq!(taken, None, "there is a leader");
            cluster.client.clone().lease_revoke(lease).await.unwrap();
            let orphan = old.put_job(&record("late", 1)).await;
            assert!(matches!(orphan, Err(StoreError::Deposed { .. })), "{orphan:?}");
            let (new, _) = lead(&cluster).await;
            let a = job("a");
            let node: NodeId = "late".parse().unwrap();
            let refused = [
                old.put_job(&record("late", 1)).await,
                old.raise_epoch(&a, Epoch(2), Epoch(3)).await,
                old.change(&a, &appended(7..=300)).await,
                old.change(&a, &[Change::Truncate(Step(0))]).await,
                old.set_drained(&node, true).await,
            ];
            for result in refused {
                assert!(matches!(result, Err(StoreError::Deposed { .. })), "{result:?}");
            }
            new
        };
        keeps_its_promises(store, depose).await;
    }

    #[tokio::test]
    async fn what_is_larger_than_one_request_may_be_is_divided() {
        let server = Server::start();
        let cluster = Cluster::new(&options(&server)).await.unwrap();
        let (store, _) = lead(&cluster).await;
        let digest = |step: u64| step.to_string().repeat(600_000);
        let changes: Vec<Change> = (1..=9)
            .map(|step| Change::Checkpoint(Step(step), digest(step)))
            .collect();
        store.change(&job("a"), &changes).await.unwrap();
        let found = store.checkpoints(&job("a")).await.unwrap();
        let expected: Vec<_> = (1..=9).map(|step| (Step(step), digest(step))).collect();
        assert!(found == expected, "5.4 MB come back as they were");
    }

    #[tokio::test]
    async fn a_store_that_is_away_says_so_in_time_and_goes_on_when_it_is_back() {
        let mut server = Server::start();
        let cluster = Cluster::new(&options(&server)).await.unwrap();
        let (store, _) = lead(&cluster).await;
        store.raise_epoch(&job("a"), Epoch(0), Epoch(1)).await.unwrap();
        server.kill();
        let asked = Instant::now();
        for result in [
            store.raise_epoch(&job("a"), Epoch(1), Epoch(2)).await,
            store.put_job(&record("a", 1)).await,
            store.jobs().await.map(drop),
        ] {
            assert!(result.as_ref().is_err_and(StoreError::is_retryable), "{result:?}");
        }
        // Three calls of at most a second each.
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        server.start_again();
        let (name, record) = (job("a"), record("a", 1));
        insist(|| store.put_job(&record)).await.unwrap();
        assert_eq!(insist(|| store.epoch(&name)).await.unwrap(), Epoch(1));
    }
}
