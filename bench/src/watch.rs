//! What the coordinator says of a job, with the time at which it was heard; through the ends of coordinators.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use lockstep_proto::wire;
use lockstep_proto::wire::jobs_client::JobsClient;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use crate::Error;
use crate::machine::Machine;

/// Between two tries to find a coordinator that answers.
const RETRY: Duration = Duration::from_millis(20);

/// A commit, as it was heard of.
#[derive(Clone, Copy, Debug)]
pub struct Committed {
    /// Which step.
    pub step: u64,
    /// Members that took part.
    pub workers: u32,
    /// When it was heard here.
    pub at: SystemTime,
}

/// All that was heard so far.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// The job as last described.
    pub job: Option<wire::Job>,
    /// Commits in the order in which they were heard.
    pub commits: Vec<Committed>,
    /// What happened to the job, in words.
    pub notes: Vec<wire::Note>,
}

impl Heard {
    /// The last committed step.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.commits.last().map_or(0, |commit| commit.step)
    }

    /// The members of the last membership that was announced, as `NODE/SLOT`.
    #[must_use]
    pub fn members(&self) -> Vec<String> {
        let mut epochs = self.notes.iter().rev().filter(|note| note.kind == "epoch");
        let names = epochs.next().and_then(|note| {
            let (_, rest) = note.text.split_once(" workers (")?;
            Some(rest.split_once(')')?.0.split(", ").map(str::to_owned).collect())
        });
        names.unwrap_or_default()
    }

    /// Memberships that were announced so far.
    #[must_use]
    pub fn epochs(&self) -> usize {
        self.notes.iter().filter(|note| note.kind == "epoch").count()
    }

    /// Whether the job is over, however it ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        use wire::JobState;
        self.job.as_ref().is_some_and(|job| {
            matches!(
                job.state(),
                JobState::Done | JobState::Failed | JobState::Cancelled
            )
        })
    }
}

/// Listens from a thread until it is dropped.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    ended: CancellationToken,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    heard: Mutex<Heard>,
    more: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// Listens on `machine` to whichever of the coordinators answers.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        machine: &Machine,
        coordinators: Vec<String>,
        job: &str,
        stop: &CancellationToken,
    ) -> Result<Self, Error> {
        let (shared, ended) = (Arc::new(Shared::default()), CancellationToken::new());
        let (to, until, machine, job) = (
            Arc::clone(&shared),
            ended.clone(),
            machine.clone(),
            job.to_owned(),
        );
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let (Ok(()), Ok(runtime)) = (machine.enter(), runtime) {
                runtime.block_on(async {
                    tokio::select! {
                        () = listen(&to, &coordinators, &job) => {}
                        () = until.cancelled() => {}
                    }
                });
            }
        };
        let thread = std::thread::Builder::new().name("watch".into()).spawn(work);
        Ok(Self {
            shared,
            ended,
            stop: stop.clone(),
            thread: Some(thread.map_err(Error::system("start a thread"))?),
        })
    }

    /// All that was heard so far.
    #[must_use]
    pub fn heard(&self) -> Heard {
        self.shared.lock().clone()
    }

    /// Waits for the end of the job, which must be a good one.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub(crate) fn await_done(&self, within: Duration) -> Result<wire::Job, Error> {
        self.wait("the end of the run", within, |heard| {
            let job = heard.job.as_ref()?;
            (job.state() == wire::JobState::Done).then(|| job.clone())
        })
    }

    /// Waits until `look` finds what it wants; `what` says in words what is awaited.
    ///
    /// # Errors
    /// [`Error::Drill`] when `within` is over or the job ends otherwise, [`Error::Interrupted`].
    pub fn wait<T>(
        &self,
        what: &str,
        within: Duration,
        mut look: impl FnMut(&Heard) -> Option<T>,
    ) -> Result<T, Error> {
        let deadline = Instant::now() + within;
        let mut heard = self.shared.lock();
        loop {
            if let Some(found) = look(&heard) {
                return Ok(found);
            }
            if self.stop.is_cancelled() {
                return Err(Error::Interrupted);
            }
            let now = Instant::now();
            if now >= deadline || heard.is_over() {
                return Err(Error::Drill(format!("{what}: {}", describe(&heard, within))));
            }
            let glance = (deadline - now).min(Duration::from_millis(100));
            let woken = self.shared.more.wait_timeout(heard, glance);
            heard = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn describe(heard: &Heard, within: Duration) -> String {
    let (step, seconds) = (heard.step(), within.as_secs_f64());
    let last = heard.notes.last().map_or("nothing", |note| note.text.as_str());
    match &heard.job {
        Some(job) if heard.is_over() => format!("the job is {}: {}", job.state().as_str_name(), job.reason),
        Some(job) => format!(
            "not within {seconds:.1} s; the job is at step {step}, epoch {}, {}: {}; last: {last}",
            job.epoch,
            job.state().as_str_name(),
            job.reason
        ),
        None => format!("not within {seconds:.1} s; no coordinator answered"),
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

async fn listen(to: &Shared, coordinators: &[String], job: &str) {
    loop {
        for address in coordinators {
            // A coordinator that went away, is not the leader, or does not know the job yet.
            follow(to, address, job).await.ok();
            if to.lock().is_over() {
                return;
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow(to: &Shared, address: &str, job: &str) -> Result<(), Box<dyn std::error::Error>> {
    let channel = Endpoint::from_shared(address.to_owned())?
        .connect_timeout(Duration::from_millis(500))
        .http2_keep_alive_interval(Duration::from_millis(500))
        .keep_alive_timeout(Duration::from_secs(1))
        .tcp_nodelay(true)
        .connect()
        .await?;
    let mut client = JobsClient::new(channel).max_decoding_message_size(64 << 20);
    let request = wire::JobRequest { name: job.to_owned() };
    let mut updates = client.watch(request).await?.into_inner();
    while let Some(update) = updates.message().await? {
        let at = SystemTime::now();
        let mut heard = to.lock();
        match update.what {
            Some(wire::update::What::Job(job)) => heard.job = Some(job),
            Some(wire::update::What::Commit(commit)) => heard.commits.push(Committed {
                step: commit.step,
                workers: commit.workers,
                at,
            }),
            Some(wire::update::What::Note(note)) => heard.notes.push(note),
            None => {}
        }
        drop(heard);
        to.more.notify_all();
    }
    Ok(())
}
