//! `run`: a job, followed to its end, on this machine or on a cluster.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use lockstep_coordinator::summary::Summary;
use lockstep_data::{BuildOptions, Corpus, Dataset};
use lockstep_engine::spec::Spec;
use lockstep_proto::wire;
use lockstep_worker::endpoints::Endpoints;

use super::jobs::absolute;
use crate::client;
use crate::failure::{self, Failure};
use crate::interrupt;
use crate::local::Cluster;
use crate::output::{Format, bold, count, seconds};
use crate::progress::Progress;

/// Run a job and follow it to its end, on this machine or on a cluster.
///
/// Without --coordinator the whole cluster runs on this machine, as real processes over loopback. Ctrl-C ends them;
/// the same command with --resume goes on from the newest checkpoint. With --coordinator the job is submitted there,
/// and Ctrl-C leaves it running.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    job: JobOptions,
    /// On this machine (the default).
    #[arg(long, conflicts_with = "coordinator")]
    local: bool,
    /// Ranks on this machine; by default `elastic.max_workers`.
    #[arg(long, value_name = "N", conflicts_with = "coordinator", value_parser = clap::value_parser!(u32).range(1..=1024))]
    workers: Option<u32>,
    /// Threads of each rank; by default cores / workers.
    #[arg(long, value_name = "N", conflicts_with = "coordinator", value_parser = clap::value_parser!(u32).range(1..=4096))]
    threads: Option<u32>,
    /// Submit to this coordinator instead; of several, all or some with commas between them.
    #[arg(long = "coordinator", id = "coordinator", value_name = "URL,…")]
    coordinators: Option<Endpoints>,
}

/// A job to submit.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct JobOptions {
    /// The spec, a TOML file; `lockstep validate` explains it.
    pub(crate) spec: PathBuf,
    /// The run's folder; by default `runs/` and the job's name.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Go on from the newest checkpoint in the run's folder.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Send SIGKILL to the rank in slot WORKER while STEP is in flight; may be repeated.
    #[arg(long, value_name = "WORKER@STEP")]
    pub(crate) kill: Vec<KillAt>,
}

/// `WORKER@STEP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KillAt {
    pub(crate) slot: u32,
    pub(crate) step: u64,
}

impl FromStr for KillAt {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}` is not WORKER@STEP, such as 1@7");
        let (slot, step) = text.split_once('@').ok_or_else(expected)?;
        Ok(Self {
            slot: slot.parse().map_err(|_| expected())?,
            step: step.parse().map_err(|_| expected())?,
        })
    }
}

/// A job as it was asked for: its spec and options are checked.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) spec: Spec,
    pub(crate) out: PathBuf,
    pub(crate) options: &'a JobOptions,
}

/// A job that is ready to be submitted: its dataset is there and verified.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    pub(crate) job: Job<'a>,
    source: String,
}

impl<'a> Job<'a> {
    /// Reads the spec and checks the options against it.
    pub(crate) fn read(options: &'a JobOptions) -> anyhow::Result<Self> {
        let spec = super::spec::read(&options.spec)?;
        let out = options
            .out
            .clone()
            .unwrap_or_else(|| Path::new("runs").join(spec.job.name.as_str()));
        let out = absolute(&out)?;
        for KillAt { slot, step } in &options.kill {
            let steps = spec.train.steps;
            if *step == 0 || *step > steps {
                return Err(Failure::Usage(format!(
                    "--kill {slot}@{step}: the step must be from 1 to {steps}"
                ))
                .into());
            }
        }
        if spec.data.corpus.is_none() && spec.data.dataset.is_none() {
            let message = format!(
                "{}: [data] names neither `corpus` nor `dataset`; give one",
                options.spec.display()
            );
            return Err(Failure::Usage(message).into());
        }
        Ok(Self { spec, out, options })
    }

    /// Builds the dataset if the spec names a corpus, and verifies it.
    pub(crate) fn prepare(mut self, format: Format) -> anyhow::Result<Prepared<'a>> {
        // Relative paths in a spec are relative to where the command runs, as everywhere else.
        if let Some(corpus) = self.spec.data.corpus.take() {
            let dataset = self.out.join("dataset");
            let options = BuildOptions::new(
                Corpus::Folder(absolute(&corpus)?),
                &dataset,
                self.spec.model.vocab_size,
            );
            let was_there = self.out.exists();
            std::fs::create_dir_all(&self.out)
                .map_err(Failure::storage(format!("create {}", self.out.display())))?;
            if let Err(error) = super::data::build(&options, format) {
                if !was_there {
                    // Empty, as a build that fails leaves nothing.
                    std::fs::remove_dir(&self.out).ok();
                }
                return Err(error);
            }
            self.spec.data.dataset = Some(dataset);
        }
        let path = absolute(&self.spec.data.dataset.take().unwrap_or_default())?;
        let dataset = Dataset::open(&path)?;
        dataset.verify()?;
        dataset
            .train()
            .require(self.spec.samples_per_step(), self.spec.batch.sequence_length)?;
        let (found, given) = (dataset.manifest().vocab_size, self.spec.model.vocab_size);
        if found != given {
            let path = path.display();
            let message =
                format!("model.vocab_size = {given}: the dataset {path} has {found} tokens; set it to that");
            return Err(Failure::Usage(message).into());
        }
        self.spec.data.dataset = Some(path);
        let source = self.spec.to_toml()?;
        Ok(Prepared { job: self, source })
    }
}

impl Prepared<'_> {
    pub(crate) fn request(&self) -> wire::SubmitRequest {
        let options = self.job.options;
        wire::SubmitRequest {
            spec: self.source.clone(),
            out: self.job.out.display().to_string(),
            resume: options.resume,
            kills: options
                .kill
                .iter()
                .map(|kill| wire::Kill {
                    slot: kill.slot,
                    step: kill.step,
                })
                .collect(),
        }
    }
}

pub(crate) async fn run(args: Args, format: Format) -> anyhow::Result<()> {
    let job = Job::read(&args.job)?;
    let done = match &args.coordinators {
        Some(coordinators) => submit_and_follow(coordinators, job, format).await?,
        None => {
            let (min, max) = (job.spec.elastic.min_workers, job.spec.elastic.max_workers);
            let workers = args.workers.unwrap_or(max);
            if workers < min || workers > max {
                let message = format!(
                    "--workers {workers}: must be from elastic.min_workers = {min} to elastic.max_workers = {max}"
                );
                return Err(Failure::Usage(message).into());
            }
            let prepared = job.prepare(format)?;
            locally(
                &prepared,
                workers,
                args.threads,
                Progress::for_format(format, "train"),
            )
            .await?
        }
    };
    let summary = finished(&done)?;
    format.print(&summary, |summary| describe(summary, Path::new(&done.out)))
}

async fn submit_and_follow(
    coordinators: &Endpoints,
    job: Job<'_>,
    format: Format,
) -> anyhow::Result<wire::Job> {
    let interrupt = interrupt::heed()?;
    let mut client = client::connect(coordinators).await?;
    let prepared = job.prepare(format)?;
    let job = client.submit(prepared.request()).await?.into_inner();
    let progress = Progress::for_format(format, "train");
    tokio::select! {
        job = client::follow(&mut client, &job.name, progress) => job,
        () = interrupt.asked() => {
            let message = format!("detached; `{}` goes on: `lockstep status {0}`, `lockstep cancel {0}`", job.name);
            Err(Failure::Interrupted(message).into())
        }
    }
}

/// Runs a prepared job on a cluster of its own, which is gone when this returns.
pub(crate) async fn locally(
    prepared: &Prepared<'_>,
    workers: u32,
    threads: Option<u32>,
    progress: Progress,
) -> anyhow::Result<wire::Job> {
    let Job { spec, out, options } = &prepared.job;
    let interrupt = interrupt::heed()?;
    let mut cluster = Cluster::start(out, workers, threads).await?;
    let coordinator: Endpoints = cluster.address().parse()?;
    let name = spec.job.name.to_string();
    let work = async {
        let mut client = client::connect(&coordinator).await?;
        // What a run that was cut off left in the store of this folder is not running any more.
        let request = wire::JobRequest { name: name.clone() };
        if let Ok(job) = client.get(request.clone()).await
            && !client::is_over(job.get_ref())
        {
            client.cancel(request).await?;
        }
        client.submit(prepared.request()).await?;
        client::follow(&mut client, &name, progress).await
    };
    let result = tokio::select! {
        job = work => job,
        failure = cluster.failed() => Err(failure.into()),
        () = interrupt.asked() => {
            let message = format!(
                "stopped; go on with `lockstep run {} --out {} --resume`",
                options.spec.display(),
                out.display()
            );
            Err(Failure::Interrupted(message).into())
        }
    };
    // When a process of the cluster dies, its end and the broken connection are seen in any order.
    let result = match result {
        Err(error) if failure::is_lost_connection(&error) => {
            let died = tokio::time::timeout(Duration::from_secs(2), cluster.failed()).await;
            Err(died.map_or(error, Into::into))
        }
        result => result,
    };
    cluster.stop().await;
    result
}

/// The summary of a job that is done.
pub(crate) fn finished(job: &wire::Job) -> anyhow::Result<Summary> {
    match job.state() {
        wire::JobState::Done => Ok(serde_json::from_str(&job.summary)?),
        _ => Err(Failure::Job(format!(
            "{} {}: {}",
            job.name,
            client::state_name(job),
            job.reason
        ))
        .into()),
    }
}

/// A summary for people.
pub(crate) fn describe(summary: &Summary, out: &Path) -> String {
    let recoveries: Vec<String> = summary
        .recoveries_ms
        .iter()
        .map(|ms| format!("{ms:.0} ms"))
        .collect();
    format!(
        "{}\n  steps {}{}, tokens {}, samples {} (missed {}, repeated {})\n  loss {:.4} → {:.4}, validation {:.4} bits per byte (gzip -9: {:.4})\n  \
         workers {} to {}, kills {}, epochs {}, recoveries {}\n  {} tokens/s, median step {:.0} ms, wall {}\n  weights {}\n  folder {}",
        bold("summary"),
        count(summary.steps),
        match summary.steps_skipped {
            0 => String::new(),
            skipped => format!(" ({} skipped)", count(skipped)),
        },
        count(summary.tokens),
        count(summary.samples),
        summary.samples_missed,
        summary.samples_repeated,
        summary.loss_first,
        summary.loss_last,
        summary.val_bits_per_byte,
        summary.gzip_bits_per_byte,
        summary.workers_min,
        summary.workers_max,
        summary.kills,
        summary.epochs,
        if recoveries.is_empty() {
            "none".to_owned()
        } else {
            recoveries.join(", ")
        },
        count(summary.tokens_per_second as u64),
        summary.step_ms_median,
        seconds(summary.wall_seconds),
        summary.weights_blake3,
        out.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_is_a_worker_and_a_step() {
        assert_eq!("1@7".parse(), Ok(KillAt { slot: 1, step: 7 }));
        for bad in ["", "1", "@7", "1@", "a@7", "1@-7"] {
            assert!(
                bad.parse::<KillAt>().unwrap_err().contains("WORKER@STEP"),
                "{bad}"
            );
        }
    }
}
