//! A store in an etcd cluster, for several coordinators of which one leads.
//!
//! | key, under the prefix | value |
//! |---|---|
//! | `leader` | the leader's URL, under the leader's lease |
//! | `jobs/JOB` | [`JobRecord`] as JSON |
//! | `epochs/JOB` | the epoch, in decimal |
//! | `ledger/JOB/STEP` | [`Entry`] as JSON; steps have twenty digits, so that they sort |
//! | `checkpoints/JOB/STEP` | digest of the weights |
//! | `drained/NODE` | nothing |
//!
//! Every write is a transaction that holds only while `leader` is the very key that this leader made: its creation's
//! revision is asked for. So a leader that was deposed writes nothing, whatever it believes.

use std::collections::BTreeSet;
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, DeleteOptions, GetOptions, KeyValue, KvClient, SortOrder,
    SortTarget, Txn, TxnOp, TxnOpResponse,
};
use lockstep_engine::ids::{Epoch, JobId, NodeId, Step};
use lockstep_engine::job::Past;
use lockstep_engine::ledger::Entry;

use super::{Change, JobRecord, Store, StoreError, decode, encode};

/// Operations in a transaction: etcd allows 128 by default.
const MOST_OPERATIONS: usize = 100;
/// Bytes in a transaction: etcd allows 1.5 MiB by default.
const MOST_BYTES: usize = 1 << 20;
/// Rows of one answer, and the bytes that they may have.
const PAGE: i64 = 512;
const PAGE_BYTES: usize = 256 << 20;
/// No call waits longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// A member that is silent for these two together is left for another one.
const KEEPALIVE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(750));

/// Which etcd cluster, and how a coordinator takes part in its election.
#[derive(Clone, Debug)]
pub struct Options {
    /// URLs of its members.
    pub endpoints: Vec<String>,
    /// Before each key. Coordinators of one cluster share it, those of different clusters must not.
    pub prefix: String,
    /// How long the leader's lease lasts without being prolonged. etcd knows whole seconds, and gives no less than
    /// one and a half of its own election time-out: 2 s by default.
    pub lease: Duration,
}

/// A way to the cluster.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    prefix: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Prepares the way; nothing is sent yet, so the cluster need not be there.
    pub(crate) async fn new(options: &Options) -> Result<Self, StoreError> {
        let connect = ConnectOptions::new()
            .with_connect_timeout(PATIENCE)
            .with_keep_alive(KEEPALIVE.0, KEEPALIVE.1)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        let client = call(
            "connect to etcd",
            Client::connect(&options.endpoints, Some(connect)),
        )
        .await?;
        Ok(Self {
            client,
            prefix: options.prefix.trim_end_matches('/').to_owned(),
        })
    }

    fn kv(&self) -> KvClient {
        self.client.kv_client().max_decoding_message_size(PAGE_BYTES)
    }

    pub(crate) fn key(&self, path: &str) -> String {
        format!("{}/{path}", self.prefix)
    }

    pub(crate) fn leader_key(&self) -> String {
        self.key("leader")
    }

    /// The leader's URL, if there is a leader.
    pub(crate) async fn leader(&self) -> Result<Option<String>, StoreError> {
        let action = "ask for the leader";
        let answer = call(action, self.kv().get(self.leader_key(), None)).await?;
        let text = answer.kvs().first().map(|kv| text(action, kv.value()));
        text.transpose()
    }

    /// Makes the leader's key if there is none; its revision, which fences this leader's writes.
    pub(crate) async fn take_lead(&self, lease: i64, url: &str) -> Result<Option<i64>, StoreError> {
        let key = self.leader_key();
        let options = etcd_client::PutOptions::new().with_lease(lease);
        let vacant = Compare::create_revision(key.clone(), CompareOp::Equal, 0);
        let put = TxnOp::put(key, url, Some(options));
        let answer = call(
            "take the lead",
            self.kv().txn(Txn::new().when([vacant]).and_then([put])),
        )
        .await?;
        let revision = answer.header().map(etcd_client::ResponseHeader::revision);
        Ok(revision.filter(|_| answer.succeeded()))
    }
}

/// Calls etcd with a bound on time.
pub(crate) async fn call<T>(
    action: &'static str,
    call: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, StoreError> {
    let unavailable = |problem: String| StoreError::Unavailable { action, problem };
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) if is_final(&error) => Err(StoreError::Refused {
            action,
            problem: error.to_string(),
        }),
        Ok(Err(error)) => Err(unavailable(error.to_string())),
        Err(_) => Err(unavailable(format!(
            "no answer within {} ms",
            PATIENCE.as_millis()
        ))),
    }
}

/// Whether asking again is useless.
fn is_final(error: &etcd_client::Error) -> bool {
    use tonic::Code;
    match error {
        etcd_client::Error::GRpcStatus(status) => matches!(
            status.code(),
            Code::InvalidArgument
                | Code::OutOfRange
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::Unimplemented
        ),
        etcd_client::Error::InvalidArgs(_)
        | etcd_client::Error::InvalidUri(_)
        | etcd_client::Error::InvalidMetadataValue(_) => true,
        _ => false,
    }
}

fn text(action: &'static str, bytes: &[u8]) -> Result<String, StoreError> {
    String::from_utf8(bytes.to_vec()).map_err(|error| StoreError::Row {
        action,
        problem: error.to_string(),
    })
}

/// The store of one leader, for as long as it leads. Its reads are the cluster's latest word.
#[derive(Clone, Debug)]
pub struct Etcd {
    cluster: Cluster,
    /// The revision in which this leader made its key.
    term: i64,
}

impl Etcd {
    pub(crate) fn new(cluster: Cluster, term: i64) -> Self {
        Self { cluster, term }
    }

    fn leads(&self) -> Compare {
        Compare::create_revision(self.cluster.leader_key(), CompareOp::Equal, self.term)
    }

    /// Writes all or nothing, as long as this leader leads.
    async fn write(&self, action: &'static str, operations: Vec<TxnOp>) -> Result<(), StoreError> {
        let transaction = Txn::new().when([self.leads()]).and_then(operations);
        let answer = call(action, self.cluster.kv().txn(transaction)).await?;
        if answer.succeeded() {
            Ok(())
        } else {
            Err(StoreError::Deposed { action })
        }
    }

    async fn value(&self, action: &'static str, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let key = self.cluster.key(path);
        let answer = call(action, self.cluster.kv().get(key, None)).await?;
        Ok(answer.kvs().first().map(|kv| kv.value().to_vec()))
    }

    /// All rows below a folder, in the order of their keys, without the folder's name.
    async fn rows(&self, action: &'static str, folder: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let folder = self.cluster.key(folder);
        let name = |kv: &KeyValue| text(action, kv.key().get(folder.len()..).unwrap_or_default());
        let end = end_of(&folder);
        let mut from = folder.clone();
        let mut revision = 0;
        let mut rows = Vec::new();
        loop {
            let page = GetOptions::new()
                .with_range(end.clone())
                .with_limit(PAGE)
                .with_revision(revision);
            let answer = call(action, self.cluster.kv().get(from.clone(), Some(page))).await?;
            // All pages are of one moment.
            revision = answer.header().map_or(revision, |header| header.revision());
            for kv in answer.kvs() {
                rows.push((name(kv)?, kv.value().to_vec()));
            }
            match answer.kvs().last() {
                Some(last) if answer.more() => from = format!("{}\0", text(action, last.key())?),
                _ => return Ok(rows),
            }
        }
    }
}

/// The first key after all that begin with `folder`, which ends with a slash.
fn end_of(folder: &str) -> String {
    format!("{}0", folder.trim_end_matches('/'))
}

fn number(action: &'static str, text: &str) -> Result<u64, StoreError> {
    text.parse().map_err(|error| StoreError::Row {
        action,
        problem: format!("`{text}`: {error}"),
    })
}

fn step_path(folder: &str, job: &JobId, step: Step) -> String {
    format!("{folder}/{job}/{:020}", step.0)
}

/// Changes as transactions that etcd accepts: not too many operations or bytes in one, and no key twice.
fn transactions(
    cluster: &Cluster,
    job: &JobId,
    changes: &[Change],
    action: &'static str,
) -> Result<Vec<Vec<TxnOp>>, StoreError> {
    let mut all = Vec::new();
    let mut current = Vec::new();
    let mut bytes = 0;
    let mut written: BTreeSet<String> = BTreeSet::new();
    for change in changes {
        let (operations, size, key) = match change {
            Change::Append(entry) => {
                let key = cluster.key(&step_path("ledger", job, entry.step));
                let value = encode(action, entry)?;
                let size = key.len() + value.len();
                (vec![TxnOp::put(key.clone(), value, None)], size, Some(key))
            }
            Change::Checkpoint(step, weights) => {
                let key = cluster.key(&step_path("checkpoints", job, *step));
                let size = key.len() + weights.len();
                let put = TxnOp::put(key.clone(), weights.as_str(), None);
                (vec![put], size, Some(key))
            }
            Change::Truncate(step) => {
                let cut = |folder: &str| {
                    let from = cluster.key(&step_path(folder, job, step.next()));
                    let end = end_of(&cluster.key(&format!("{folder}/{job}/")));
                    TxnOp::delete(from, Some(DeleteOptions::new().with_range(end)))
                };
                (vec![cut("ledger"), cut("checkpoints")], 0, None)
            }
        };
        // What is cut and what is written do not mix, nor may a key be written twice.
        let clashes = key.as_ref().is_none_or(|key| written.contains(key));
        let full = current.len() + operations.len() > MOST_OPERATIONS || bytes + size > MOST_BYTES;
        if !current.is_empty() && (clashes || full) {
            all.push(std::mem::take(&mut current));
            written.clear();
            bytes = 0;
        }
        let is_cut = key.is_none();
        current.extend(operations);
        bytes += size;
        written.extend(key);
        if is_cut {
            all.push(std::mem::take(&mut current));
        }
    }
    if !current.is_empty() {
        all.push(current);
    }
    Ok(all)
}

#[tonic::async_trait]
impl Store for Etcd {
    async fn jobs(&self) -> Result<Vec<JobRecord>, StoreError> {
        let action = "read jobs";
        let rows = self.rows(action, "jobs/").await?;
        let jobs = rows.iter().map(|(_, value)| decode(action, value));
        let mut jobs = jobs.collect::<Result<Vec<JobRecord>, _>>()?;
        jobs.sort_by_key(|job| job.submitted_ms);
        Ok(jobs)
    }

    async fn put_job(&self, job: &JobRecord) -> Result<(), StoreError> {
        let action = "store the job";
        let key = self.cluster.key(&format!("jobs/{}", job.name));
        let put = TxnOp::put(key, encode(action, job)?, None);
        self.write(action, vec![put]).await
    }

    async fn epoch(&self, job: &JobId) -> Result<Epoch, StoreError> {
        let action = "read the epoch";
        match self.value(action, &format!("epochs/{job}")).await? {
            Some(value) => Ok(Epoch(number(action, &text(action, &value)?)?)),
            None => Ok(Epoch(0)),
        }
    }

    async fn raise_epoch(&self, job: &JobId, expected: Epoch, next: Epoch) -> Result<(), StoreError> {
        let action = "store the epoch";
        let key = self.cluster.key(&format!("epochs/{job}"));
        let is_expected = match expected {
            Epoch(0) => Compare::create_revision(key.clone(), CompareOp::Equal, 0),
            Epoch(epoch) => Compare::value(key.clone(), CompareOp::Equal, epoch.to_string()),
        };
        let leader = self.cluster.leader_key();
        let transaction = Txn::new()
            .when([self.leads(), is_expected])
            .and_then([TxnOp::put(key.clone(), next.to_string(), None)])
            .or_else([TxnOp::get(leader, None), TxnOp::get(key, None)]);
        let answer = call(action, self.cluster.kv().txn(transaction)).await?;
        if answer.succeeded() {
            return Ok(());
        }
        let found = answer.op_responses().into_iter().map(|answer| match answer {
            TxnOpResponse::Get(mut got) => got.take_kvs().into_iter().next(),
            _ => None,
        });
        let mut found = found.collect::<Vec<_>>().into_iter();
        let (leader, epoch) = (found.next().flatten(), found.next().flatten());
        if leader.is_none_or(|kv| kv.create_revision() != self.term) {
            return Err(StoreError::Deposed { action });
        }
        let found = match epoch {
            Some(kv) => Epoch(number(action, &text(action, kv.value())?)?),
            None => Epoch(0),
        };
        let job = job.clone();
        Err(StoreError::Fenced { job, expected, found })
    }

    async fn change(&self, job: &JobId, changes: &[Change]) -> Result<(), StoreError> {
        let action = "write the ledger";
        for operations in transactions(&self.cluster, job, changes, action)? {
            self.write(action, operations).await?;
        }
        Ok(())
    }

    async fn ledger(&self, job: &JobId) -> Result<Vec<Entry>, StoreError> {
        let action = "read the ledger";
        let rows = self.rows(action, &format!("ledger/{job}/")).await?;
        rows.iter().map(|(_, value)| decode(action, value)).collect()
    }

    async fn past(&self, job: &JobId) -> Result<Past, StoreError> {
        let action = "read the ledger";
        let rows = self.rows(action, &format!("ledger/{job}/")).await?;
        super::past_of(action, rows.into_iter().map(|(_, value)| Ok(value)))
    }

    async fn last_step(&self, job: &JobId) -> Result<Step, StoreError> {
        let action = "read the ledger";
        let folder = self.cluster.key(&format!("ledger/{job}/"));
        let last = GetOptions::new()
            .with_range(end_of(&folder))
            .with_sort(SortTarget::Key, SortOrder::Descend)
            .with_limit(1)
            .with_keys_only();
        let answer = call(action, self.cluster.kv().get(folder.clone(), Some(last))).await?;
        match answer.kvs().first() {
            Some(kv) => {
                let step = text(action, kv.key().get(folder.len()..).unwrap_or_default())?;
                Ok(Step(number(action, &step)?))
            }
            None => Ok(Step(0)),
        }
    }

    async fn checkpoints(&self, job: &JobId) -> Result<Vec<(Step, String)>, StoreError> {
        let action = "read checkpoints";
        let rows = self.rows(action, &format!("checkpoints/{job}/")).await?;
        let row =
            |(step, value): (String, Vec<u8>)| Ok((Step(number(action, &step)?), text(action, &value)?));
        rows.into_iter().map(row).collect()
    }

    async fn drained(&self) -> Result<BTreeSet<NodeId>, StoreError> {
        let action = "read drained nodes";
        let rows = self.rows(action, "drained/").await?;
        rows.iter()
            .map(|(name, _)| super::node_of(action, name))
            .collect()
    }

    async fn set_drained(&self, node: &NodeId, drained: bool) -> Result<(), StoreError> {
        let key = self.cluster.key(&format!("drained/{node}"));
        let operation = if drained {
            TxnOp::put(key, "", None)
        } else {
            TxnOp::delete(key, None)
        };
        self.write("store the drained node", vec![operation]).await
    }
}
