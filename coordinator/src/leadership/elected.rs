//! Carries out what the engine's candidate decides, against a real lease in etcd.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::EventType;
use lockstep_engine::lead::{Candidate, Command, Event, Rules};
use lockstep_engine::time::Instant;
use tokio::sync::{mpsc, oneshot, watch};

use super::Role;
use crate::store::StoreError;
use crate::store::etcd::{Cluster, Etcd, Options, call};

/// How often the candidate looks at its clock.
const TICK: Duration = Duration::from_millis(20);
/// Between two tries to watch the leader's key.
const RETRY: Duration = Duration::from_millis(250);
/// What may wait for the candidate.
const QUEUE: usize = 64;

/// What the candidate's task hears.
#[derive(Debug)]
enum Word {
    /// A campaign is won: the lease, and the revision in which it was.
    Won { lease: i64, term: i64, ttl: Duration },
    /// A campaign is not won, because another one leads or for this reason.
    NotWon(Option<String>),
    /// Somebody leads, at this URL, or nobody does.
    Leader(Option<String>),
    /// To the machine as it is.
    Event(Event),
    /// What of an earlier lease is of no interest any more.
    OfLease(i64, Event),
    /// Give everything up, and say when that is done.
    Leave(oneshot::Sender<()>),
}

/// To the candidate's task.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    words: mpsc::Sender<Word>,
}

impl Handle {
    /// The store knows another leader.
    pub(super) async fn deposed(&self, error: &StoreError) {
        let lost = Event::Lost(error.to_string());
        self.words.send(Word::Event(lost)).await.ok();
    }

    /// Gives the lease back and ends.
    pub(super) async fn leave(self) {
        let (done, wait) = oneshot::channel();
        if self.words.send(Word::Leave(done)).await.is_ok() {
            wait.await.ok();
        }
    }
}

/// Starts a candidate that advertises `url`.
pub(super) async fn start(
    options: &Options,
    url: String,
) -> Result<(Handle, watch::Receiver<Role>), StoreError> {
    let cluster = Cluster::new(options).await?;
    let (roles, role) = watch::channel(Role::Standby { leader: None });
    let (words, heard) = mpsc::channel(QUEUE);
    tokio::spawn(watch_leader(cluster.clone(), words.clone()));
    let office = Election {
        cluster,
        url,
        ttl: options.lease,
        candidate: Candidate::new(Rules { ttl: options.lease }),
        origin: tokio::time::Instant::now(),
        lease: None,
        leader: None,
        trouble: None,
        roles,
        words: words.clone(),
    };
    tokio::spawn(office.run(heard));
    Ok((Handle { words }, role))
}

struct Election {
    cluster: Cluster,
    url: String,
    ttl: Duration,
    candidate: Candidate,
    origin: tokio::time::Instant,
    /// The lease of the campaign that was won last, and how long it lasts when it is prolonged.
    lease: Option<(i64, Duration)>,
    /// As far as it is known.
    leader: Option<String>,
    /// Why the last campaign did not come to an end, if it did not: told when it changes.
    trouble: Option<String>,
    roles: watch::Sender<Role>,
    words: mpsc::Sender<Word>,
}

impl Election {
    async fn run(mut self, mut heard: mpsc::Receiver<Word>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            let word = tokio::select! {
                word = heard.recv() => match word {
                    Some(word) => word,
                    None => return,
                },
                _ = ticks.tick() => Word::Event(Event::Tick),
            };
            match word {
                Word::Event(event) => self.give(event, None),
                Word::OfLease(lease, event) if self.lease.is_some_and(|(id, _)| id == lease) => {
                    self.give(event, None)
                }
                Word::OfLease(..) => {}
                Word::Won { lease, term, ttl } => {
                    self.lease = Some((lease, ttl));
                    self.give(Event::Won { ttl }, Some(term));
                }
                Word::NotWon(trouble) => {
                    if let Some(trouble) = trouble.as_ref().filter(|_| trouble != self.trouble) {
                        tracing::warn!("no part in the election: {trouble}");
                    }
                    let reason = trouble
                        .clone()
                        .unwrap_or_else(|| "another coordinator leads".to_owned());
                    self.trouble = trouble;
                    self.give(Event::NotWon(reason), None);
                }
                Word::Leader(leader) => self.heard_of(leader),
                Word::Leave(done) => {
                    self.roles.send_replace(Role::Standby { leader: None });
                    if let Some((lease, _)) = self.lease.take() {
                        give_back(self.cluster, lease).await;
                    }
                    done.send(()).ok();
                    return;
                }
            }
        }
    }

    fn heard_of(&mut self, leader: Option<String>) {
        let is_vacant = leader.is_none();
        self.leader = leader.filter(|url| *url != self.url);
        let known = self.leader.clone();
        self.roles.send_if_modified(|role| match role {
            Role::Standby { leader } if *leader != known => {
                *leader = known;
                true
            }
            _ => false,
        });
        if is_vacant {
            self.give(Event::Vacant, None);
        }
    }

    fn give(&mut self, event: Event, term: Option<i64>) {
        let now = Instant(self.origin.elapsed());
        for command in self.candidate.step(now, event) {
            match command {
                Command::Campaign => {
                    let (cluster, url, ttl) = (self.cluster.clone(), self.url.clone(), self.ttl);
                    self.spawn(async move { campaign(cluster, url, ttl).await });
                }
                Command::KeepAlive(request) => {
                    let Some(lease) = self.lease else { continue };
                    let cluster = self.cluster.clone();
                    self.spawn(async move { keep_alive(cluster, lease, request).await });
                }
                Command::TakeUp => {
                    let Some(term) = term else { continue };
                    tracing::info!(url = %self.url, "this coordinator leads");
                    let store = Etcd::new(self.cluster.clone(), term);
                    self.roles.send_replace(Role::Leading(Arc::new(store)));
                }
                Command::StepDown(reason) => {
                    tracing::warn!("this coordinator leads no more: {reason}");
                    let leader = self.leader.clone();
                    self.roles.send_replace(Role::Standby { leader });
                    if let Some((lease, _)) = self.lease.take() {
                        tokio::spawn(give_back(self.cluster.clone(), lease));
                    }
                }
            }
        }
    }

    /// Does what takes time; what comes of it is heard.
    fn spawn(&self, work: impl Future<Output = Word> + Send + 'static) {
        let words = self.words.clone();
        tokio::spawn(async move { words.send(work.await).await.ok() });
    }
}

/// Tries to become the leader.
async fn campaign(cluster: Cluster, url: String, ttl: Duration) -> Word {
    let not_won = |error: StoreError| Word::NotWon(Some(error.to_string()));
    let taken = || Word::NotWon(None);
    match cluster.leader().await {
        Ok(None) => {}
        Ok(Some(_)) => return taken(),
        Err(error) => return not_won(error),
    }
    let seconds = ttl.as_secs_f64().ceil() as i64;
    let mut client = cluster.client.clone();
    let granted = match call("get a lease", client.lease_grant(seconds, None)).await {
        Ok(granted) => granted,
        Err(error) => return not_won(error),
    };
    let lease = granted.id();
    match cluster.take_lead(lease, &url).await {
        Ok(Some(term)) => {
            let ttl = Duration::from_secs(granted.ttl().unsigned_abs());
            Word::Won { lease, term, ttl }
        }
        result => {
            // If it was carried out and only its answer lost, this takes it back.
            give_back(cluster, lease).await;
            result.map_or_else(not_won, |_| taken())
        }
    }
}

async fn keep_alive(cluster: Cluster, (lease, ttl): (i64, Duration), request: u64) -> Word {
    let mut client = cluster.client.clone();
    let asked = call("prolong the lease", async {
        // It returns with the answer to a first request.
        match client.lease_keep_alive(lease).await {
            Ok(_) => Ok(true),
            Err(etcd_client::Error::LeaseKeepAliveError(_)) => Ok(false),
            Err(error) => Err(error),
        }
    });
    let event = match asked.await {
        Ok(true) => Event::KeptAlive { request, ttl },
        Ok(false) => Event::Lost("etcd has let the lease run out".to_owned()),
        Err(error) => Event::KeepAliveFailed {
            request,
            reason: error.to_string(),
        },
    };
    Word::OfLease(lease, event)
}

/// Lets the next one in without waiting; if that fails, the lease runs out by itself.
async fn give_back(cluster: Cluster, lease: i64) {
    let mut client = cluster.client.clone();
    if let Err(error) = call("give the lease back", client.lease_revoke(lease)).await {
        tracing::debug!("{error}");
    }
}

/// Tells of each change of the leader's key, for ever. A standby campaigns now and then anyway: this makes it fast.
async fn watch_leader(cluster: Cluster, words: mpsc::Sender<Word>) {
    while !words.is_closed() {
        if let Err(error) = follow_leader(&cluster, &words).await {
            tracing::debug!("watch the leader: {error}");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow_leader(cluster: &Cluster, words: &mpsc::Sender<Word>) -> Result<(), StoreError> {
    let action = "watch the leader";
    let mut client = cluster.client.clone();
    let mut changes = call(action, client.watch(cluster.leader_key(), None)).await?;
    // After the watch has begun, so that no change is between the two.
    words.send(Word::Leader(cluster.leader().await?)).await.ok();
    let broken = |error: etcd_client::Error| StoreError::Unavailable {
        action,
        problem: error.to_string(),
    };
    while let Some(message) = changes.message().await.map_err(broken)? {
        for event in message.events() {
            let leader = match (event.event_type(), event.kv()) {
                (EventType::Put, Some(kv)) => Some(String::from_utf8_lossy(kv.value()).into_owned()),
                _ => None,
            };
            words.send(Word::Leader(leader)).await.ok();
        }
        if message.canceled() {
            break;
        }
    }
    Ok(())
}
