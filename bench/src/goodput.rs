//! What is left of a run's speed under regular deaths, and what a checkpoint costs it.

use std::time::{Duration, SystemTime};

use rustix::process::Signal;

use crate::cluster::Bench;
use crate::machine::Machines;
use crate::recovery::{COORDINATOR, MEMBERS, PATIENCE, Running, WORKERS, job, name_of};
use crate::watch::Committed;
use crate::work::Data;
use crate::{Error, streams, system};

/// Between two SIGKILLs.
const KILL_EVERY: Duration = Duration::from_secs(15);
/// More steps than any measurement takes.
const ENDLESS: u64 = 1_000_000;

/// A run of windows with and without kills, in turn.
#[derive(Clone, Copy, Debug)]
pub struct Goodput {
    /// Commits in windows with a SIGKILL every 15 s over commits in windows of the same length without.
    pub ratio: f64,
    /// SIGKILLs.
    pub kills: usize,
    /// Steps that were committed twice or not at all, by the commits as they were heard.
    pub steps_dropped: u64,
    /// Processor time of the coordinator for a step and worker, in milliseconds.
    pub coordinator_cpu_ms: f64,
}

/// Measures it over `pairs` pairs of windows, each with two SIGKILLs and 30 s long.
///
/// # Errors
/// When the run does not go on.
pub fn measure(bench: &Bench, data: &Data, pairs: u32, spare: bool) -> Result<Goodput, Error> {
    let machines = Machines::together(&[COORDINATOR, WORKERS[0], WORKERS[1], WORKERS[2]]);
    let name = if spare { "goodput-spare" } else { "goodput" };
    let workers = if spare {
        &WORKERS[..]
    } else {
        &WORKERS[..MEMBERS as usize]
    };
    let running = Running::start(
        bench,
        &machines,
        data,
        &job(name, ENDLESS, 100, spare.into()),
        workers,
        false,
    )?;
    let pid = running.cluster.coordinator(COORDINATOR)?.as_raw_nonzero().get();
    let (cpu_before, steps_before) = (streams::cpu_ms(pid)?, running.watch.heard().commits.len());
    let (mut calm, mut stormy, mut kills) = (0, 0, 0);
    for _ in 0..pairs {
        let before = running.watch.heard().commits.len();
        system::pause(KILL_EVERY * 2, &bench.stop)?;
        let between = running.watch.heard().commits.len();
        for turn in 0..2 {
            let (members, mut ranks) = (running.watch.heard().members(), running.ranks());
            ranks.retain(|rank| members.contains(&name_of(rank)));
            let victim = ranks.get(turn % ranks.len().max(1));
            let victim = victim.ok_or_else(|| Error::Drill("no rank is running".into()))?;
            system::signal(victim.pid, Signal::KILL)?;
            kills += 1;
            system::pause(KILL_EVERY, &bench.stop)?;
        }
        calm += between - before;
        stormy += running.watch.heard().commits.len() - between;
        running.await_full(SystemTime::now())?;
    }
    let heard = running.watch.heard();
    let steps = heard.commits.len() - steps_before;
    let cpu = streams::cpu_ms(pid)? - cpu_before;
    running.cluster.stop()?;
    Ok(Goodput {
        ratio: stormy as f64 / calm as f64,
        kills,
        steps_dropped: out_of_line(&heard.commits),
        coordinator_cpu_ms: cpu / (steps * MEMBERS as usize) as f64,
    })
}

/// Steps that are not one more than the one before.
fn out_of_line(commits: &[Committed]) -> u64 {
    commits
        .windows(2)
        .filter(|pair| pair[1].step != pair[0].step + 1)
        .count() as u64
}

/// How much of the time between two checkpoints goes to them: the excess of the steps in the first half of an
/// interval, during which the checkpoint of its beginning is written, over those in the second half, as a share of
/// the interval; the median over intervals.
///
/// # Errors
/// When the run does not come to its end.
pub fn checkpoint_stall(bench: &Bench, data: &Data, every: u64, intervals: u64) -> Result<f64, Error> {
    let machines = Machines::together(&[COORDINATOR, WORKERS[0], WORKERS[1]]);
    let job = job("checkpoints", every * (intervals + 1) + every / 2, every, 0);
    let running = Running::start(bench, &machines, data, &job, &WORKERS[..MEMBERS as usize], false)?;
    let all = running.watch.wait("the end of the run", PATIENCE * 10, |heard| {
        (heard.step() >= job.steps).then(|| heard.commits.clone())
    })?;
    running.finish(None)?;
    let at = |step: u64| {
        all.iter()
            .find(|commit| commit.step == step)
            .map(|commit| commit.at)
    };
    let mut shares = Vec::new();
    for interval in 1..=intervals {
        let begin = interval * every;
        let (Some(from), Some(middle), Some(to)) = (at(begin), at(begin + every / 2), at(begin + every))
        else {
            return Err(Error::Drill("a commit was not heard of".to_owned()));
        };
        let [first, second] = [
            crate::recovery::ms_between(from, middle),
            crate::recovery::ms_between(middle, to),
        ];
        shares.push((first - second) / (first + second));
    }
    Ok(crate::spread::Spread::of(shares).p50)
}
