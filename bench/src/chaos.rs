//! Runs a cell of the chaos matrix, and judges the result: the bits of the undisturbed run, every sample once, no
//! process left behind, in bounded time.
//!
//! Every cell is the same run: two workers train; a third joins on the way. The fault happens where the processes
//! themselves say that they are (`lockstep-faults`): they inflict it on themselves, or hold still there until this
//! harness has done it.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use lockstep_faults::{Action, Plan, Point};
use serde::Serialize;

use crate::cell::{Cell, Fault, Moment, Target};
use crate::cluster::{Bench, Cluster};
use crate::disk::Disk;
use crate::etcd::{self, Etcd};
use crate::machine::Machines;
use crate::scene::{Scene, Victim};
use crate::work::{Data, Job, MINUTE};
use crate::{Error, system};

pub(crate) const COORDINATOR: &str = "coordinator";
/// Where there is an etcd, others can lead.
const STANDBYS: [&str; 2] = ["standby-1", "standby-2"];
const ETCD: &str = "etcd";
const WORKERS: [&str; 2] = ["alpha", "beta"];
const NEWCOMER: &str = "gamma";

/// The step after which the newcomer starts.
const JOIN_AFTER: u64 = 20;
/// The step at which a worker's fault happens, but in a join, a checkpoint, or to a donor.
const AT_STEP: u64 = 30;
/// How long a run may take in all; undisturbed it takes some seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Megabytes of a disk that can be filled; etcd alone sets 64 of them aside for its log, twice.
const DISK: u32 = 16;
const ETCD_DISK: u32 = 256;

fn job() -> Job {
    Job {
        name: "drill",
        steps: 240,
        every: 40,
        max_workers: 4,
        spares: 0,
        microbatches: 8,
        lanes: 4,
        lease_ms: 1000,
        model: MINUTE,
        length: 32,
        collective: "",
    }
}

/// Where coordinators keep what survives them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    /// One coordinator, which is started again in place.
    Disk,
    /// Three of them, of which the next one leads.
    Etcd,
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disk => "one coordinator",
            Self::Etcd => "three coordinators over etcd",
        })
    }
}

/// What became of a cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// As it must be.
    Passed,
    /// Not as it must be.
    Failed {
        /// In words.
        reason: String,
    },
    /// There is nothing to try.
    Senseless {
        /// Why.
        reason: String,
    },
    /// It cannot be tried here.
    Skipped {
        /// What is missing.
        reason: String,
    },
}

/// A cell and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Which, as `FAULT:MOMENT:TARGET`.
    pub cell: String,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// From the start of the processes to their end.
    pub seconds: f64,
}

/// The matrix on this machine: its dataset, and the bits that every run must give.
#[derive(Debug)]
pub struct Chaos<'a> {
    bench: &'a Bench,
    data: Data,
    expected: String,
    runs: std::cell::Cell<u32>,
}

impl<'a> Chaos<'a> {
    /// Builds the dataset and runs the job undisturbed.
    ///
    /// # Errors
    /// When either fails.
    pub fn prepare(bench: &'a Bench) -> Result<Self, Error> {
        let data = Data::build()?;
        let expected = undisturbed(bench, &data, &job())?;
        let runs = std::cell::Cell::new(0);
        Ok(Self {
            bench,
            data,
            expected,
            runs,
        })
    }

    /// Runs a cell.
    ///
    /// # Errors
    /// [`Error::Interrupted`]; everything else is a verdict.
    pub fn run(&self, cell: Cell) -> Result<Verdict, Error> {
        let started = Instant::now();
        let outcome = self.outcome(cell)?;
        Ok(Verdict {
            cell: cell.to_string(),
            outcome,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    fn outcome(&self, cell: Cell) -> Result<Outcome, Error> {
        if let Some(reason) = cell.senseless() {
            let reason = reason.to_owned();
            return Ok(Outcome::Senseless { reason });
        }
        if cell.needs_root() && !system::is_root() {
            let reason = "needs root".to_owned();
            return Ok(Outcome::Skipped { reason });
        }
        let stores = match (cell.target, self.lacks_etcd()) {
            (Target::Etcd, Some(reason)) => {
                let reason = reason.to_owned();
                return Ok(Outcome::Skipped { reason });
            }
            (Target::Etcd, None) => &[Store::Etcd][..],
            // A leader with nothing on its disk does not mind a full one.
            (Target::Leader, None) if cell.fault != Fault::Disk => &[Store::Disk, Store::Etcd],
            _ => &[Store::Disk],
        };
        for &store in stores {
            match self.drill(cell, store) {
                Ok(()) => {}
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => {
                    let reason = format!("{error} ({store})");
                    return Ok(Outcome::Failed { reason });
                }
            }
        }
        Ok(Outcome::Passed)
    }

    fn lacks_etcd(&self) -> Option<&'static str> {
        if !self.bench.has_etcd_store {
            Some("this build has no etcd store: it lacks the cargo feature `etcd`")
        } else if !etcd::is_installed() {
            Some("there is no `etcd` on the path: install Debian's etcd-server")
        } else {
            None
        }
    }

    fn drill(&self, cell: Cell, store: Store) -> Result<(), Error> {
        let names = [
            COORDINATOR,
            STANDBYS[0],
            STANDBYS[1],
            ETCD,
            WORKERS[0],
            WORKERS[1],
            NEWCOMER,
        ];
        let on_etcd = store == Store::Etcd;
        let machines = if cell.needs_links() {
            Machines::apart(&names)?
        } else {
            Machines::together(&names)
        };
        let disk = if cell.fault == Fault::Disk {
            Some(Disk::new(if on_etcd { ETCD_DISK } else { DISK })?)
        } else {
            None
        };
        let folder = self
            .data
            .folder()
            .join(format!("run-{}", self.runs.replace(self.runs.get() + 1)));
        let small = |is_its: bool| {
            disk.as_ref()
                .filter(|_| is_its)
                .map_or(folder.as_path(), Disk::path)
        };
        let out = small(matches!(cell.target, Target::Worker | Target::Donor)).join("out");
        let state = small(cell.target == Target::Leader).join("state");
        let marker = folder.join("marker");
        let armed = Armed::new(cell, &marker);

        let mut cluster = Cluster::new(self.bench, &machines, &folder)?;
        let mut etcd = None;
        if on_etcd {
            let started = Etcd::start(machines.named(ETCD)?, &small(true).join("etcd"))?;
            cluster.store_in_etcd(started.url());
            etcd = Some(started);
        }
        cluster.start_coordinator(COORDINATOR, &state, armed.on(COORDINATOR))?;
        if on_etcd {
            cluster.await_lead(COORDINATOR)?;
            for standby in STANDBYS {
                cluster.start_coordinator(standby, &state, None)?;
            }
        }
        // Whoever is alone at first gives its state away and, being the first rank, seals checkpoints.
        let is_alone = (cell.target, cell.moment) == (Target::Donor, Moment::Rename);
        let workers = if is_alone { &WORKERS[..1] } else { &WORKERS[..] };
        cluster.start_daemons(workers, |worker| armed.on(worker))?;
        let watch = cluster.submit(&job(), &self.data.dataset(), &out)?;
        watch.wait("the steps before the join", PATIENCE, |heard| {
            (heard.step() >= JOIN_AFTER).then_some(())
        })?;
        cluster.start_daemon(NEWCOMER, 1, armed.on(NEWCOMER))?;
        let victim = Victim::read(&marker, self.bench)?;
        let mut scene = Scene {
            cell,
            machines: &machines,
            disk: disk.as_ref(),
            etcd,
            watch: &watch,
            victim,
            marker,
            state,
            events: out.join("events.jsonl"),
            held: armed.plan.action == Action::Hold,
            slowed: false,
        };
        scene.play(&mut cluster)?;
        check(&watch.await_done(PATIENCE)?.summary, &self.expected)?;
        scene.check_effect()?;
        cluster.stop()?;
        drop(scene);
        drop(watch);
        drop(disk);
        fs::remove_dir_all(&folder).map_err(Error::system(format!("remove {}", folder.display())))
    }
}

/// Whether a summary is that of a run that used every sample once and has these weights.
pub(crate) fn check(summary: &str, weights: &str) -> Result<(), Error> {
    let summary: serde_json::Value =
        serde_json::from_str(summary).map_err(|error| Error::Drill(format!("read the summary: {error}")))?;
    for field in ["samples_missed", "samples_repeated"] {
        if summary[field] != 0 {
            return Err(Error::Drill(format!("{field} = {}", summary[field])));
        }
    }
    let found = summary["weights_blake3"].as_str().unwrap_or_default();
    if found != weights {
        let message = format!("other weights than the undisturbed run's: {found:.16}…, not {weights:.16}…");
        return Err(Error::Drill(message));
    }
    Ok(())
}

/// The digest of the weights that one worker gives, undisturbed.
pub(crate) fn undisturbed(bench: &Bench, data: &Data, job: &Job) -> Result<String, Error> {
    let folder = data.folder().join(format!("undisturbed-{}", job.name));
    let spec = folder.with_extension("toml");
    fs::write(&spec, job.toml(&data.dataset()))
        .map_err(Error::system(format!("write {}", spec.display())))?;
    let mut command = std::process::Command::new(&bench.program);
    command
        .args(["run", "--local", "--workers", "1", "-o", "json", "--out"])
        .args([&folder, &spec])
        .env_remove(lockstep_faults::VARIABLE);
    let output = system::output_of(&mut command, &bench.stop)?;
    let summary: serde_json::Value = serde_json::from_slice(&output).unwrap_or_default();
    let weights = summary["weights_blake3"].as_str().map(str::to_owned);
    weights.ok_or_else(|| Error::Drill("the undisturbed run's summary has no weights".to_owned()))
}

/// Which processes are told of the fault, and what they are told.
struct Armed {
    plan: Plan,
    machines: &'static [&'static str],
}

impl Armed {
    fn new(cell: Cell, marker: &Path) -> Self {
        let at_work = match cell.moment {
            Moment::BeforeSend => Point::BeforeSend,
            Moment::DuringReduce => Point::DuringReduce,
            Moment::BeforeVerdict => Point::BeforeVerdict,
            Moment::AfterCommit => Point::AfterCommit,
            Moment::Rename => Point::BeforeRename,
            Moment::Join => Point::DuringJoin,
        };
        let is_donation = cell.target == Target::Donor && cell.moment == Moment::Join;
        let point = match (cell.target, cell.moment) {
            (Target::Donor, Moment::Join) => Point::DuringDonation,
            (Target::Leader, Moment::BeforeVerdict) => Point::LeaderBeforeCommit,
            (Target::Leader, Moment::AfterCommit) => Point::LeaderAfterCommit,
            _ => at_work,
        };
        let machines: &[&str] = match point {
            Point::LeaderBeforeCommit | Point::LeaderAfterCommit => &[COORDINATOR],
            Point::DuringJoin => &[NEWCOMER],
            // Whoever writes the checkpoint, or gives its state away.
            Point::BeforeRename | Point::DuringDonation => &WORKERS,
            _ if cell.target == Target::Donor => &WORKERS,
            _ => &WORKERS[1..],
        };
        let on_itself = match cell.target {
            Target::Worker | Target::Donor => true,
            Target::Leader => machines[0] == COORDINATOR,
            Target::Etcd => false,
        };
        let action = match cell.fault {
            Fault::Kill if on_itself => Action::Kill,
            Fault::Stop if on_itself => Action::Stop,
            Fault::Corrupt if on_itself && machines[0] != COORDINATOR => Action::Corrupt,
            _ => Action::Hold,
        };
        let waits = cell.target == Target::Donor && !is_donation;
        let any_step = waits
            || matches!(
                point,
                Point::BeforeRename | Point::DuringJoin | Point::DuringDonation
            );
        let plan = Plan {
            point,
            action,
            once: marker.to_owned(),
            step: (!any_step).then_some(AT_STEP),
            who: None,
            after: waits.then_some(Point::DuringDonation),
            times: 1,
        };
        Self { plan, machines }
    }

    fn on(&self, machine: &str) -> Option<&Plan> {
        self.machines.contains(&machine).then_some(&self.plan)
    }
}
