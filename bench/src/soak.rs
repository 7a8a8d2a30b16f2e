//! Very many random faults in one run, whose bits must be those of an undisturbed one.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde::Serialize;

use crate::chaos::{check, undisturbed};
use crate::cluster::{Bench, Cluster, RankProcess};
use crate::draw::Draw;
use crate::machine::Machines;
use crate::netns::Cut;
use crate::watch::Watch;
use crate::work::{Data, Job, MINUTE};
use crate::{Error, system};

const COORDINATOR: &str = "coordinator";
const WORKERS: [&str; 3] = ["alpha", "beta", "gamma"];
/// Steps of the run for each fault: more than the others can commit while the longest one lasts, on average over all
/// kinds, so that the run outlives its faults.
const STEPS_A_FAULT: u64 = 120;
/// Beyond those: what a run of few faults may be ahead of that average.
const SLACK: u64 = 2000;
/// The shortest and the longest that a process is stopped or a link cut, in milliseconds; the lease is 1 s.
const LENGTHS: (usize, usize) = (50, 1550);
/// How long the run may take to commit a step after a fault.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Faults in the run.
    pub faults: u64,
    /// Decides which, when and to whom.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Soaked {
    /// As given.
    pub seed: u64,
    /// Faults of each kind.
    pub faults: Vec<(&'static str, u64)>,
    /// Committed steps.
    pub steps: u64,
    /// Memberships that were announced.
    pub epochs: usize,
    /// The longest that any fault kept the run from its next commit, in seconds, the fault's own length included.
    pub longest_seconds: f64,
    /// From the first process to the last one's end.
    pub seconds: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    KillRank,
    StopRank,
    KillDaemon,
    KillCoordinator,
    StopCoordinator,
    CutWorker,
    CutCoordinator,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::KillRank,
        Self::StopRank,
        Self::KillDaemon,
        Self::KillCoordinator,
        Self::StopCoordinator,
        Self::CutWorker,
        Self::CutCoordinator,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::KillRank => "a rank killed",
            Self::StopRank => "a rank stopped",
            Self::KillDaemon => "a daemon and its ranks killed",
            Self::KillCoordinator => "the coordinator killed",
            Self::StopCoordinator => "the coordinator stopped",
            Self::CutWorker => "a worker's link cut",
            Self::CutCoordinator => "the coordinator's link cut",
        }
    }

    fn needs_links(self) -> bool {
        matches!(self, Self::CutWorker | Self::CutCoordinator)
    }
}

/// Runs a job under random faults; links are cut too when this process is root.
///
/// # Errors
/// When the run does not come through as it must; the message names the seed.
pub fn soak(bench: &Bench, options: Options) -> Result<Soaked, Error> {
    let mut data = Data::build()?;
    run(bench, options, &data).map_err(|error| match error {
        Error::Drill(message) => {
            let (seed, folder) = (options.seed, data.keep().display());
            Error::Drill(format!("seed {seed}: {message}; its logs are in {folder}"))
        }
        other => other,
    })
}

fn run(bench: &Bench, options: Options, data: &Data) -> Result<Soaked, Error> {
    let started = Instant::now();
    let job = Job {
        name: "soak",
        steps: options.faults * STEPS_A_FAULT + SLACK,
        every: 100,
        max_workers: 2,
        spares: 1,
        microbatches: 8,
        lanes: 4,
        lease_ms: 1000,
        model: MINUTE,
        length: 32,
        collective: "",
    };
    let expected = undisturbed(bench, data, &job)?;
    let names = [COORDINATOR, WORKERS[0], WORKERS[1], WORKERS[2]];
    let machines = if system::is_root() {
        Machines::apart(&names)?
    } else {
        Machines::together(&names)
    };
    let folder = data.folder().join("soak");
    let mut cluster = Cluster::new(bench, &machines, &folder)?;
    cluster.start_coordinator(COORDINATOR, &folder.join("state"), None)?;
    cluster.start_daemons(&WORKERS, |_| None)?;
    let watch = cluster.submit(&job, &data.dataset(), &folder.join("out"))?;
    let mut soak = Soak {
        cluster,
        machines: &machines,
        watch,
        draw: Draw::new(options.seed),
    };
    let mut counts: Vec<(&'static str, u64)> = Vec::new();
    let mut longest = Duration::ZERO;
    for fault in 0..options.faults {
        let (kind, took) = soak.inflict(fault)?;
        longest = longest.max(took);
        match counts.iter_mut().find(|(name, _)| *name == kind.name()) {
            Some((_, count)) => *count += 1,
            None => counts.push((kind.name(), 1)),
        }
    }
    let Soak { cluster, watch, .. } = soak;
    check(&watch.await_done(PATIENCE)?.summary, &expected)?;
    let epochs = watch.heard().epochs();
    drop(watch);
    cluster.stop()?;
    Ok(Soaked {
        seed: options.seed,
        faults: counts,
        steps: job.steps,
        epochs,
        longest_seconds: longest.as_secs_f64(),
        seconds: started.elapsed().as_secs_f64(),
    })
}

struct Soak<'a> {
    cluster: Cluster<'a>,
    machines: &'a Machines,
    watch: Watch,
    draw: Draw,
}

impl Soak<'_> {
    /// Waits for the fault's step, inflicts one, and waits until the run goes on; what it was, and how long that took.
    fn inflict(&mut self, number: u64) -> Result<(Kind, Duration), Error> {
        let at = number * STEPS_A_FAULT + 1 + self.draw.below(STEPS_A_FAULT as usize / 2) as u64;
        self.watch
            .wait(&format!("step {at} for fault {number}"), PATIENCE, |heard| {
                (heard.step() >= at).then_some(())
            })?;
        let kinds = Kind::ALL
            .into_iter()
            .filter(|kind| self.machines.are_apart() || !kind.needs_links());
        let kind = self
            .draw
            .one_of(&kinds.collect::<Vec<_>>())
            .unwrap_or(Kind::KillRank);
        let worker = WORKERS[self.draw.below(WORKERS.len())];
        let (shortest, longest) = LENGTHS;
        let length = Duration::from_millis((shortest + self.draw.below(longest - shortest)) as u64);
        tracing::debug!(number, ?kind, worker, ?length, "fault");
        let began = Instant::now();
        let before = self.watch.heard().commits.len();
        match kind {
            Kind::KillRank => self.signal_rank(Signal::KILL).map(drop)?,
            Kind::StopRank => {
                if let Some(pid) = self.signal_rank(Signal::STOP)? {
                    self.pause(length)?;
                    system::signal(pid, Signal::CONT)?;
                }
            }
            Kind::KillDaemon => self.cluster.restart_daemon(worker, 1)?,
            Kind::KillCoordinator => self.cluster.restart_coordinator(COORDINATOR)?,
            Kind::StopCoordinator => {
                let pid = self.cluster.coordinator(COORDINATOR)?;
                system::signal(pid, Signal::STOP)?;
                self.pause(length)?;
                system::signal(pid, Signal::CONT)?;
            }
            Kind::CutWorker => self.cut(worker, length)?,
            Kind::CutCoordinator => self.cut(COORDINATOR, length)?,
        }
        let what = format!("a commit after fault {number} ({}, {worker})", kind.name());
        self.watch.wait(&what, PATIENCE, |heard| {
            (heard.commits.len() > before).then_some(())
        })?;
        Ok((kind, began.elapsed()))
    }

    fn pause(&self, length: Duration) -> Result<(), Error> {
        system::pause(length, self.cluster.stop_asked())
    }

    /// Signals a rank, if there is one just now.
    fn signal_rank(&mut self, signal: Signal) -> Result<Option<Pid>, Error> {
        let mut ranks = self.cluster.ranks();
        ranks.sort_by(|a, b| a.node.cmp(&b.node));
        let pids: Vec<Pid> = ranks.iter().map(|rank: &RankProcess| rank.pid).collect();
        let Some(pid) = self.draw.one_of(&pids) else {
            return Ok(None);
        };
        system::signal(pid, signal)?;
        Ok(Some(pid))
    }

    fn cut(&mut self, machine: &str, length: Duration) -> Result<(), Error> {
        let ways = [Cut::Whole, Cut::Outbound, Cut::Inbound];
        let way = ways[self.draw.below(ways.len())];
        let link = self.machines.named(machine)?.link()?;
        link.cut(way)?;
        self.pause(length)?;
        link.heal()
    }
}
