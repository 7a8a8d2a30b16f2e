//! `run`: a job, followed to its end, on this machine or on a cluster.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use lockstep_coordinator::summary::Summary;
use lockstep_data::{BuildOptions, Corpus, Dataset};
use lockstep_engine::spec::Spec;
use lockstep_proto::wire;

use super::jobs::absolute;
use crate::client;
use crate::failure::Failure;
use crate::local::Cluster;
use crate::output::{Format, bold, count, seconds};
use crate::progress::Progress;

/// Run a job and follow it to its end.
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
    /// Submit to this coordinator instead.
    #[arg(long, value_name = "URL")]
    coordinator: Option<String>,
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

/// A job that is ready to be submitted: checked, its dataset there and verified.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) spec: Spec,
    pub(crate) source: String,
    pub(crate) out: PathBuf,
}

impl Prepared {
    pub(crate) fn request(&self, options: &JobOptions) -> wire::SubmitRequest {
        wire::SubmitRequest {
            spec: self.source.clone(),
            out: self.out.display().to_string(),
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

/// Reads the spec, builds the dataset if it names a corpus, and verifies it.
pub(crate) fn prepare(options: &JobOptions, format: Format) -> anyhow::Result<Prepared> {
    let mut spec = super::spec::read(&options.spec)?;
    let out = options
        .out
        .clone()
        .unwrap_or_else(|| Path::new("runs").join(spec.job.name.as_str()));
    let out = absolute(&out)?;
    for kill in &options.kill {
        if kill.step == 0 || kill.step > spec.train.steps {
            let (KillAt { slot, step }, steps) = (kill, spec.train.steps);
            return Err(Failure::Usage(format!(
                "--kill {slot}@{step}: the step must be from 1 to {steps}"
            ))
            .into());
        }
    }
    // Relative paths in a spec are relative to where the command runs, as everywhere else.
    match (spec.data.corpus.take(), spec.data.dataset.take()) {
        (Some(corpus), _) => {
            std::fs::create_dir_all(&out).map_err(Failure::storage(format!("create {}", out.display())))?;
            let dataset = out.join("dataset");
            let build = BuildOptions::new(
                Corpus::Folder(absolute(&corpus)?),
                &dataset,
                spec.model.vocab_size,
            );
            super::data::build(&build, format)?;
            spec.data.dataset = Some(dataset);
        }
        (None, Some(dataset)) => spec.data.dataset = Some(absolute(&dataset)?),
        (None, None) => {
            let message = format!(
                "{}: [data] names neither `corpus` nor `dataset`; give one",
                options.spec.display()
            );
            return Err(Failure::Usage(message).into());
        }
    }
    let path = spec.data.dataset.clone().unwrap_or_default();
    let dataset = Dataset::open(&path)?;
    dataset.verify()?;
    dataset
        .train()
        .require(spec.samples_per_step(), spec.batch.sequence_length)?;
    let (found, given) = (dataset.manifest().vocab_size, spec.model.vocab_size);
    if found != given {
        let message = format!(
            "model.vocab_size = {given}: the dataset {} has {found} tokens; set it to that",
            path.display()
        );
        return Err(Failure::Usage(message).into());
    }
    let source = spec.to_toml()?;
    Ok(Prepared { spec, source, out })
}

pub(crate) async fn run(args: Args, format: Format) -> anyhow::Result<()> {
    let job = match &args.coordinator {
        Some(coordinator) => submit_and_follow(coordinator, &args.job, format).await?,
        None => {
            let prepared = prepare(&args.job, format)?;
            let max = prepared.spec.elastic.max_workers;
            let workers = args.workers.unwrap_or(max);
            let min = prepared.spec.elastic.min_workers;
            if workers < min || workers > max {
                let message = format!(
                    "--workers {workers}: must be from elastic.min_workers = {min} to elastic.max_workers = {max}"
                );
                return Err(Failure::Usage(message).into());
            }
            let progress = if format == Format::Json {
                Progress::quiet()
            } else {
                Progress::new("train", prepared.spec.train.steps)
            };
            locally(&prepared, &args.job, workers, progress).await?
        }
    };
    let summary = finished(&job)?;
    format.print(&summary, |summary| describe(summary, Path::new(&job.out)))
}

async fn submit_and_follow(
    coordinator: &str,
    options: &JobOptions,
    format: Format,
) -> anyhow::Result<wire::Job> {
    let mut client = client::connect(coordinator).await?;
    let prepared = prepare(options, format)?;
    let job = client.submit(prepared.request(options)).await?.into_inner();
    let progress = if format == Format::Json {
        Progress::quiet()
    } else {
        Progress::new("train", job.steps)
    };
    tokio::select! {
        job = client::follow(&mut client, &job.name, progress) => job,
        result = super::interrupted() => {
            result?;
            let message = format!("detached; `{}` goes on: `lockstep status {0}`, `lockstep cancel {0}`", job.name);
            Err(Failure::Interrupted(message).into())
        }
    }
}

/// Runs a prepared job on a cluster of its own, which is gone when this returns.
pub(crate) async fn locally(
    prepared: &Prepared,
    options: &JobOptions,
    workers: u32,
    progress: Progress,
) -> anyhow::Result<wire::Job> {
    let mut cluster = Cluster::start(&prepared.out, workers).await?;
    let address = cluster.address().to_owned();
    let name = prepared.spec.job.name.to_string();
    let work = async {
        let mut client = client::connect(&address).await?;
        // What a run that was cut off left in the store of this folder is not running any more.
        let request = wire::JobRequest { name: name.clone() };
        if let Ok(job) = client.get(request.clone()).await
            && !client::is_over(job.get_ref())
        {
            client.cancel(request).await?;
        }
        client.submit(prepared.request(options)).await?;
        client::follow(&mut client, &name, progress).await
    };
    let result = tokio::select! {
        job = work => job,
        failure = cluster.failed() => Err(failure.into()),
        result = super::interrupted() => {
            let message = format!(
                "stopped; go on with `lockstep run {} --out {} --resume`",
                options.spec.display(),
                prepared.out.display()
            );
            result.map_err(anyhow::Error::from).and_then(|()| Err(Failure::Interrupted(message).into()))
        }
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
        "{}\n  steps {}, tokens {}, samples {} (missed {}, repeated {})\n  loss {:.4} → {:.4}, validation {:.4} bits per byte (gzip -9: {:.4})\n  \
         workers {} to {}, kills {}, epochs {}, recoveries {}\n  {} tokens/s, median step {:.0} ms, wall {}\n  weights {}\n  folder {}",
        bold("summary"),
        count(summary.steps),
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
