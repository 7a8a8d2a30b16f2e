//! How long a run stands still when the coordinator that leads is killed, with others over one etcd.

use std::fs;
use std::time::SystemTime;

use rustix::process::Signal;

use crate::chaos::check;
use crate::cluster::{Bench, Cluster};
use crate::etcd::{self, Etcd};
use crate::machine::Machines;
use crate::recovery::{MEMBERS, PATIENCE, WORKERS, job, ms_between};
use crate::trace::Deed;
use crate::work::Data;
use crate::{Error, system, trace};

const COORDINATORS: [&str; 3] = ["first", "second", "third"];
const ETCD: &str = "etcd";
/// Steps between two deaths.
const STEPS_A_KILL: u64 = 8;

/// Steps of a run with so many deaths.
pub(crate) fn steps(kills: u64) -> u64 {
    (kills + 2) * STEPS_A_KILL
}

/// From SIGKILL of the leader to the next commit under another one, in milliseconds, for each of `kills`. Nothing where
/// this program or this machine has no etcd.
///
/// # Errors
/// When the run does not come through with these weights.
pub(crate) fn measure(bench: &Bench, data: &Data, kills: u64, weights: &str) -> Result<Vec<f64>, Error> {
    if !bench.has_etcd_store || !etcd::is_installed() {
        return Ok(Vec::new());
    }
    let names: Vec<&str> = COORDINATORS.into_iter().chain([ETCD]).chain(WORKERS).collect();
    let machines = Machines::together(&names);
    let folder = data.folder().join("takeover");
    let out = folder.join("out");
    let mut cluster = Cluster::new(bench, &machines, &folder)?;
    cluster.log_tasks();
    let etcd = Etcd::start(machines.named(ETCD)?, &folder.join("etcd"))?;
    cluster.store_in_etcd(etcd.url());
    for coordinator in COORDINATORS {
        cluster.start_coordinator(coordinator, &folder, None)?;
    }
    let workers = &WORKERS[..MEMBERS as usize];
    cluster.start_daemons(workers, |_| None)?;
    let job = job("takeover", steps(kills), 0, 0);
    let watch = cluster.submit(&job, &data.dataset(), &out)?;
    let mut killed = Vec::new();
    for kill in 1..=kills {
        watch.wait("the step of the next death", PATIENCE, |heard| {
            (heard.step() >= kill * STEPS_A_KILL).then_some(())
        })?;
        let leader = cluster.leader()?;
        killed.push(SystemTime::now());
        system::signal(cluster.coordinator(&leader)?, Signal::KILL)?;
        cluster.await_coordinators_end(&leader)?;
        cluster.start_coordinator(&leader, &folder, None)?;
    }
    check(&watch.await_done(PATIENCE)?.summary, weights)?;
    let heard = watch.heard();
    drop(watch);
    cluster.stop()?;
    let log = out.join("workers.log");
    let text = fs::read_to_string(&log).map_err(Error::system(format!("read {}", log.display())))?;
    let traced = trace::read(&text);
    // What was heard after a death may have been committed before: what counts is the first commit of the next epoch.
    let took = |at: &SystemTime| {
        let mut entries = traced.iter().filter(|traced| traced.at > *at);
        let entered = entries.find(|traced| matches!(traced.deed, Deed::Entered(_)))?.at;
        let commit = heard.commits.iter().find(|commit| commit.at > entered)?;
        Some(ms_between(*at, commit.at))
    };
    killed
        .iter()
        .map(|at| took(at).ok_or_else(|| Error::Drill("no commit after the death of a leader".to_owned())))
        .collect()
}
