//! A process's part in the build of a dataset: tasks that the coordinator gives it, until the dataset is in its place.
//!
//! The stream may break at any time: the tasks under way go on, and whoever coordinates next is told of them.
//!
//! | module | what it does |
//! |---|---|
//! | `crew` | the build's side: it waits for tasks, and does them |

mod crew;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lockstep_curate::{Built, CurateError, Progress, Spec, build_with};
use lockstep_engine::ids::WorkerId;
use lockstep_engine::tasks::Entry;
use lockstep_proto::convert::required;
use lockstep_proto::wire::rank_down;
use lockstep_proto::wire::rank_up::What;
use lockstep_proto::{DAEMON_HEARTBEAT, wire};
use tokio::sync::{mpsc, oneshot};

use crate::Error;
use crate::link::Link;
use crew::{Order, Remote, Word};

/// Words of the build that may wait for the stream.
const QUEUE: usize = 1024;
/// How long the build may take to stop when the job is over. What it is at is not needed any more.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the build is, as this process has said or is about to say.
enum At {
    /// Nothing is said yet.
    Start,
    Phase(Entry),
    /// The dataset is in its place; what there is to say of it, as JSON.
    Built(String),
    /// The build cannot go on.
    Failed,
}

/// How a stretch with one coordinator ended.
enum Parted {
    /// The job is over.
    Over,
    /// The stream broke.
    Lost(String),
}

struct Worker {
    link: Link,
    at: At,
    words: mpsc::Receiver<Word>,
    orders: std::sync::mpsc::Sender<Order>,
    done: oneshot::Receiver<Result<Built, CurateError>>,
}

/// Takes part until the job is over.
///
/// # Errors
/// When the coordinator is lost for good or evicts this process, and when the build cannot go on, of which the
/// coordinator was told.
pub(crate) async fn run(link: Link, worker: &WorkerId) -> Result<(), Error> {
    let mut link = link;
    let spec = match Spec::parse(&link.welcome.spec) {
        Ok(spec) => spec,
        Err(problem) => return Err(link.last_words(format!("the build's spec: {problem}")).await),
    };
    let out = PathBuf::from(&link.welcome.out);
    let (words_in, words) = mpsc::channel(QUEUE);
    let (orders, orders_out) = std::sync::mpsc::channel();
    let name = format!("-{:032x}", worker.incarnation);
    let remote = Arc::new(Remote::new(name, words_in, orders.clone(), orders_out));
    let progress = Arc::new(Progress::default());
    let stop = Arc::clone(&progress);
    let (done_in, done) = oneshot::channel();
    // Not on the runtime's threads: this process does not wait for it when the job is over.
    let work = move || drop(done_in.send(build_with(&spec, &out, &progress, remote)));
    std::thread::Builder::new()
        .name("build".into())
        .spawn(work)
        .map_err(|source| Error::System {
            action: "start the build's thread",
            source,
        })?;
    let mut this = Worker {
        link,
        at: At::Start,
        words,
        orders,
        done,
    };
    let lived = this.live().await;
    stop.stop();
    this.orders.send(Order::Stop).ok();
    if this.is_under_way() {
        this.words.close();
        tokio::time::timeout(PATIENCE, &mut this.done).await.ok();
    }
    match lived {
        Err(Error::Fatal(reason)) => Err(this.link.last_words(reason).await),
        lived => lived,
    }
}

impl Worker {
    async fn live(&mut self) -> Result<(), Error> {
        let job = self.link.welcome.clone();
        loop {
            match self.serve().await? {
                Parted::Over => return Ok(()),
                Parted::Lost(reason) => {
                    tracing::warn!("lost the coordinator: {reason}; looking for the next one");
                }
            }
            if !self.link.reopen().await? {
                return Ok(());
            }
            if self.link.welcome != job {
                return Err(Error::Evicted(
                    "another job has the name of this one by now".to_owned(),
                ));
            }
            tracing::info!("found a coordinator again");
        }
    }

    async fn serve(&mut self) -> Result<Parted, Error> {
        self.say_where().await;
        let mut beats = tokio::time::interval(DAEMON_HEARTBEAT);
        loop {
            tokio::select! {
                message = self.link.down.message() => {
                    let what = match message {
                        Ok(Some(message)) => required("message", message.what),
                        Ok(None) => return Ok(Parted::Lost("it closed the connection".to_owned())),
                        Err(status) => return Ok(Parted::Lost(status.message().to_owned())),
                    };
                    let what = what.map_err(|error| Error::Fatal(format!("the coordinator's message: {error}")))?;
                    if let Some(how) = self.take(what)? {
                        tracing::info!("the job is over: {how}");
                        return Ok(Parted::Over);
                    }
                }
                Some(word) = self.words.recv() => self.pass_on(word).await,
                built = &mut self.done, if self.is_under_way() => {
                    self.at = At::Failed;
                    let built = built.map_err(|_| Error::Fatal("the build's thread ended in the middle".to_owned()))?;
                    let built = built.map_err(|error| Error::Fatal(in_full(&error)))?;
                    tracing::info!("the dataset is in its place");
                    self.at = At::Built(summary(&built));
                    self.say_where().await;
                }
                _ = beats.tick() => self.say(What::Heartbeat(wire::Heartbeat {})).await,
            }
        }
    }

    fn is_under_way(&self) -> bool {
        matches!(self.at, At::Start | At::Phase(_))
    }

    /// What is lost with a stream is said again on the next one.
    async fn say(&self, what: What) {
        self.link.up.send(wire::RankUp { what: Some(what) }).await.ok();
    }

    async fn say_where(&self) {
        match &self.at {
            At::Start | At::Failed => {}
            At::Phase(entry) => self.say(What::Entered(entry.clone().into())).await,
            At::Built(summary) => {
                let summary = summary.clone();
                self.say(What::Built(wire::Built { summary })).await;
            }
        }
    }

    async fn pass_on(&mut self, word: Word) {
        match word {
            Word::Entered(entry) => {
                self.at = At::Phase(entry);
                self.say_where().await;
            }
            Word::Done { phase, task } => {
                if let At::Phase(at) = &mut self.at
                    && at.phase == phase
                {
                    at.holds.retain(|held| *held != task);
                    at.room += 1;
                }
                self.say(What::TaskDone(wire::Task { phase, task })).await;
            }
        }
    }

    /// Handles a message from the coordinator; says how the job ended if it did.
    fn take(&mut self, what: rank_down::What) -> Result<Option<String>, Error> {
        match (what, &mut self.at) {
            (rank_down::What::Give(give), At::Phase(at)) if give.phase == at.phase => {
                // One that it is at already it may be given again by a coordinator that has just begun.
                if !at.holds.contains(&give.task) {
                    at.holds.push(give.task);
                    at.room = at.room.saturating_sub(1);
                    let (phase, task) = (give.phase, give.task);
                    self.orders.send(Order::Do { phase, task }).ok();
                }
                Ok(None)
            }
            (rank_down::What::Over(over), At::Phase(at)) if over.phase == at.phase => {
                self.orders.send(Order::Over { phase: over.phase }).ok();
                Ok(None)
            }
            (rank_down::What::Ended(ended), _) => Ok(Some(ended.how)),
            (rank_down::What::Evicted(evicted), _) => Err(Error::Evicted(evicted.reason)),
            // Of a phase that is behind this process.
            (rank_down::What::Give(_) | rank_down::What::Over(_) | rank_down::What::Welcome(_), _) => {
                Ok(None)
            }
            (other, _) => Err(Error::Fatal(format!(
                "the coordinator's message is not of a build: {other:?}"
            ))),
        }
    }
}

/// An error with what lies under it.
fn in_full(error: &CurateError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(under) = source {
        text.push_str(&format!(": {under}"));
        source = under.source();
    }
    text
}

/// What people and programs see of a job that is done.
fn summary(built: &Built) -> String {
    let report = &built.report;
    serde_json::json!({ "dataset": report.digest, "splits": report.splits }).to_string()
}
