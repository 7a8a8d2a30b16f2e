//! `submit`, `list`, `status`, `logs`, `events`, `cancel`: a coordinator's jobs.

use std::path::{Path, PathBuf};

use lockstep_proto::wire;

use super::run::{Job, JobOptions};
use crate::client::{self, At, state_name};
use crate::interrupt;
use crate::output::{Format, count, line, seconds, table};

/// Queue a job at a coordinator and return at once.
///
/// The dataset and the run's folder must be paths that every node sees. A corpus is built into a dataset here first.
#[derive(Debug, clap::Args)]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    job: JobOptions,
}

/// List a coordinator's jobs.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    at: At,
}

/// One job.
#[derive(Debug, clap::Args)]
pub(crate) struct JobArgs {
    #[command(flatten)]
    at: At,
    /// The job's name.
    name: String,
}

/// A job's lines.
#[derive(Debug, clap::Args)]
pub(crate) struct TailArgs {
    #[command(flatten)]
    at: At,
    /// The job's name.
    name: String,
    /// Go on until the job is over; Ctrl-C leaves the job alone.
    #[arg(short, long)]
    follow: bool,
}

/// A job for programs.
#[derive(serde::Serialize)]
struct Shown {
    name: String,
    state: &'static str,
    reason: String,
    step: u64,
    steps: u64,
    epoch: u64,
    workers: Vec<String>,
    loss: Option<f64>,
    tokens_per_second: f64,
    seconds_left: Option<f64>,
    /// The member that is slower than the others, and at what.
    slow: Option<String>,
    /// Of the build of a dataset: the phase under way, whose tasks `step` and `steps` count.
    phase: Option<String>,
    out: String,
    summary: Option<serde_json::Value>,
}

impl From<wire::Job> for Shown {
    fn from(job: wire::Job) -> Self {
        Self {
            state: state_name(&job),
            loss: Some(job.loss).filter(|loss| loss.is_finite()),
            seconds_left: Some(job.seconds_left).filter(|left| *left >= 0.0),
            summary: serde_json::from_str(&job.summary).ok(),
            slow: Some(job.slow).filter(|slow| !slow.is_empty()),
            phase: job.phase,
            name: job.name,
            reason: job.reason,
            step: job.step,
            steps: job.steps,
            epoch: job.epoch,
            workers: job.workers,
            tokens_per_second: job.tokens_per_second,
            out: job.out,
        }
    }
}

pub(crate) async fn submit(args: SubmitArgs, format: Format) -> anyhow::Result<()> {
    let job = Job::read(&args.job)?;
    // Ask first: building a dataset for a coordinator that is not there would be a waste.
    let mut client = client::connect(&args.at.coordinators).await?;
    let job = client.submit(job.prepare(format)?.request()).await?.into_inner();
    queued(job, "logs", format)
}

/// Shows a job that was just submitted, and how to go on; `lines` is the verb that shows what is said of it.
pub(crate) fn queued(job: wire::Job, lines: &str, format: Format) -> anyhow::Result<()> {
    format.print(&Shown::from(job), |job| {
        let Shown { name, state, .. } = job;
        format!("{name} is {state}; follow it with `lockstep {lines} -f {name}` or `lockstep status {name}`")
    })
}

pub(crate) async fn list(args: ListArgs, format: Format) -> anyhow::Result<()> {
    let mut client = client::connect(&args.at.coordinators).await?;
    let jobs = client.list(wire::ListRequest {}).await?.into_inner().jobs;
    let shown: Vec<Shown> = jobs.into_iter().map(Shown::from).collect();
    format.print(&shown, |jobs| {
        let rows = jobs.iter().map(|job| {
            [
                job.name.clone(),
                job.state.to_owned(),
                format!("{}/{}", job.step, job.steps),
                job.workers.len().to_string(),
                job.loss.map_or("-".to_owned(), |loss| format!("{loss:.4}")),
                // Of a build it is known of the phase under way only.
                job.seconds_left
                    .filter(|_| job.state == "running" && job.phase.is_none())
                    .map_or("-".to_owned(), seconds),
                job.reason.clone(),
            ]
        });
        table(
            ["job", "state", "step", "workers", "loss", "left", "reason"],
            rows,
        )
    })
}

pub(crate) async fn status(args: JobArgs, format: Format) -> anyhow::Result<()> {
    let mut client = client::connect(&args.at.coordinators).await?;
    let job = client
        .get(wire::JobRequest { name: args.name })
        .await?
        .into_inner();
    format.print(&Shown::from(job), |job| {
        let at = match &job.phase {
            Some(phase) if phase.is_empty() => "no phase has begun".to_owned(),
            Some(phase) => format!(
                "phase {phase}: {} of {} tasks are done{}",
                job.step,
                job.steps,
                time_left(job)
            ),
            None => format!("step {} of {}, epoch {}", job.step, job.steps, job.epoch),
        };
        let mut text = format!(
            "{}: {}, {}\n{at}\nworkers: {}\n",
            job.name,
            job.state,
            job.reason,
            if job.workers.is_empty() {
                "none".to_owned()
            } else {
                job.workers.join(", ")
            },
        );
        if let Some(loss) = job.loss {
            text += &format!("loss {loss:.4}, {} tokens/s", count(job.tokens_per_second as u64));
            text += &time_left(job);
            text.push('\n');
        }
        if let Some(slow) = &job.slow {
            text += &format!("slow: {slow}\n");
        }
        text + &format!("folder {}", job.out)
    })
}

/// As the end of a line.
fn time_left(job: &Shown) -> String {
    let left = job.seconds_left;
    left.map_or_else(String::new, |left| format!(", {} left", seconds(left)))
}

pub(crate) async fn tail(args: TailArgs, logs: bool) -> anyhow::Result<()> {
    let interrupt = interrupt::heed()?;
    let mut client = client::connect(&args.at.coordinators).await?;
    let request = wire::TailRequest {
        name: args.name,
        follow: args.follow,
        logs,
    };
    let mut lines = client.tail(request).await?.into_inner();
    loop {
        tokio::select! {
            message = lines.message() => match message? {
                Some(next) => line(&next.text)?,
                None => return Ok(()),
            },
            () = interrupt.asked() => {
                eprintln!("detached; the job goes on");
                return Ok(());
            }
        }
    }
}

pub(crate) async fn cancel(args: JobArgs, format: Format) -> anyhow::Result<()> {
    let mut client = client::connect(&args.at.coordinators).await?;
    let job = client
        .cancel(wire::JobRequest { name: args.name })
        .await?
        .into_inner();
    format.print(&Shown::from(job), |job| format!("{} is {}", job.name, job.state))
}

/// An absolute form of a path that may not exist yet.
pub(crate) fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    Ok(std::path::absolute(path)?)
}
