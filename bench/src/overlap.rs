//! What it saves to reduce buckets of the gradient while others are still computed, and to send them in less precision: two
//! ranks on hosts of their own, with a network of a given speed between them.

use std::fs;

use serde::Serialize;

use crate::Error;
use crate::chaos::undisturbed;
use crate::cluster::Bench;
use crate::machine::Machines;
use crate::recovery::{COORDINATOR, MEMBERS, MILLIONS, PATIENCE, Running, WORKERS, ms_between};
use crate::spread::Spread;
use crate::watch::Committed;
use crate::work::{Data, Job};

/// Steps before those that count: connections and caches are cold.
const WARM_UP: u64 = 3;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What a host can send, in megabits a second.
    pub megabits: u32,
    /// Steps of a run.
    pub steps: u64,
    /// Rounds of three runs each.
    pub rounds: u32,
}

/// Runs of the same job.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Round {
    /// A step when all buckets leave at the end of the backward: the median, in milliseconds.
    pub after_ms: f64,
    /// A step when each leaves as soon as it is done.
    pub overlapped_ms: f64,
    /// The same with gradients in bf16, which gives other weights.
    pub bf16_ms: f64,
}

impl Round {
    /// Overlapped over after.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.overlapped_ms / self.after_ms
    }

    /// Overlapped in bf16 over overlapped in f32.
    #[must_use]
    pub fn ratio_of_bf16(&self) -> f64 {
        self.bf16_ms / self.overlapped_ms
    }
}

/// All rounds; every run gave the weights that it must.
#[derive(Clone, Debug, Serialize)]
pub struct Overlap {
    /// What a host can send, in megabits a second.
    pub megabits: u32,
    /// The rounds.
    pub rounds: Vec<Round>,
    /// The median of their ratios.
    pub ratio: f64,
    /// The median of the ratios of bf16.
    pub ratio_of_bf16: f64,
}

/// Measures it. Needs root, for the hosts are network namespaces.
///
/// # Errors
/// When a run does not come to its end, or not with the weights that one worker alone gives.
pub fn measure(bench: &Bench, options: Options) -> Result<Overlap, Error> {
    let data = Data::build()?;
    let alone = |name, collective| undisturbed(bench, &data, &job(name, options.steps, collective));
    let weights = alone("alone", "")?;
    let weights_of_bf16 = alone("alone-bf16", "precision = \"bf16\"")?;
    let run = |name, collective, weights| {
        let job = job(name, options.steps, collective);
        step_ms(bench, &data, &job, options.megabits, weights)
    };
    let mut rounds = Vec::new();
    for _ in 0..options.rounds {
        rounds.push(Round {
            after_ms: run("after", "transport = \"tcp\"\noverlap = false", &weights)?,
            overlapped_ms: run("overlapped", "transport = \"tcp\"", &weights)?,
            bf16_ms: run(
                "bf16",
                "transport = \"tcp\"\nprecision = \"bf16\"",
                &weights_of_bf16,
            )?,
        });
    }
    Ok(Overlap {
        megabits: options.megabits,
        ratio: Spread::of(rounds.iter().map(Round::ratio).collect()).p50,
        ratio_of_bf16: Spread::of(rounds.iter().map(Round::ratio_of_bf16).collect()).p50,
        rounds,
    })
}

/// One microbatch a rank and step.
fn job(name: &'static str, steps: u64, collective: &'static str) -> Job {
    Job {
        name,
        steps: steps + WARM_UP,
        every: 0,
        max_workers: MEMBERS,
        spares: 0,
        microbatches: MEMBERS,
        lanes: MEMBERS,
        lease_ms: 10_000,
        model: MILLIONS,
        length: 64,
        collective,
    }
}

/// The median time between two commits.
fn step_ms(bench: &Bench, data: &Data, job: &Job, megabits: u32, weights: &str) -> Result<f64, Error> {
    let workers = &WORKERS[..MEMBERS as usize];
    let machines = Machines::apart(&[&[COORDINATOR], workers].concat())?;
    for worker in workers {
        let link = machines.named(worker)?.link()?;
        link.slow_down(megabits.saturating_mul(1000))?;
    }
    let running = Running::start(bench, &machines, data, job, workers, false)?;
    let commits = running.watch.wait("the end of the run", PATIENCE * 10, |heard| {
        (heard.step() >= job.steps).then(|| heard.commits.clone())
    })?;
    running.finish(Some(weights))?;
    fs::remove_dir_all(data.folder().join(job.name)).map_err(Error::system("remove a run"))?;
    let counts = |commit: &&Committed| commit.step > WARM_UP && commit.workers == MEMBERS;
    let at: Vec<_> = commits.iter().filter(counts).map(|commit| commit.at).collect();
    let steps = at.windows(2).map(|pair| ms_between(pair[0], pair[1])).collect();
    Ok(Spread::of(steps).p50)
}
