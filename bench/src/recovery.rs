//! How long a run takes to get over a death, a silence, and a replacement, in one run after another of a model of
//! five million parameters.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use lockstep_proto::wire;
use rustix::process::{Pid, Signal};

use crate::chaos::check;
use crate::cluster::{Bench, Cluster, RankProcess};
use crate::machine::Machines;
use crate::netns::Cut;
use crate::spread::Spread;
use crate::trace::{Deed, Traced};
use crate::watch::{Committed, Heard, Watch};
use crate::work::{Data, Job};
use crate::{Error, system, trace};

pub(crate) const COORDINATOR: &str = "coordinator";
pub(crate) const WORKERS: [&str; 3] = ["alpha", "beta", "gamma"];
/// Members of the runs.
pub(crate) const MEMBERS: u32 = 2;
/// Lanes of a step, of one microbatch each: what a worker is at when somebody dies, it finishes.
const LANES: usize = 8;
/// Steps between two faults.
const STEPS_A_FAULT: u64 = 4;
/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// 5.3 million parameters, as the reference has.
pub(crate) const MILLIONS: &str = "preset = \"nano\"\nhidden_size = 256\nintermediate_size = 768\n\
                                   num_hidden_layers = 6\nnum_attention_heads = 8\nnum_key_value_heads = 8\n\
                                   max_position_embeddings = 64";

pub(crate) fn job(name: &'static str, steps: u64, every: u64, spares: u32) -> Job {
    Job {
        name,
        steps,
        every,
        max_workers: MEMBERS,
        spares,
        microbatches: LANES as u32,
        lanes: LANES as u32,
        lease_ms: 2000,
        model: MILLIONS,
        length: 32,
        collective: "",
    }
}

/// A run under way.
pub(crate) struct Running<'a> {
    pub(crate) cluster: Cluster<'a>,
    pub(crate) watch: Watch,
    pub(crate) out: PathBuf,
}

impl<'a> Running<'a> {
    /// Starts a cluster with a slot on each of these machines and submits the job; returns once all members are in. Ranks
    /// write down what they do if it is to be `traced`, which costs the coordinator a line each.
    pub(crate) fn start(
        bench: &'a Bench,
        machines: &'a Machines,
        data: &Data,
        job: &Job,
        workers: &[&str],
        traced: bool,
    ) -> Result<Self, Error> {
        let folder = data.folder().join(job.name);
        let out = folder.join("out");
        let mut cluster = Cluster::new(bench, machines, &folder)?;
        if traced {
            cluster.log_tasks();
        }
        cluster.start_coordinator(COORDINATOR, &folder.join("state"), None)?;
        cluster.start_daemons(workers, |_| None)?;
        let watch = cluster.submit(job, &data.dataset(), &out)?;
        let running = Self { cluster, watch, out };
        running.await_full(SystemTime::UNIX_EPOCH)?;
        Ok(running)
    }

    /// The first commit after `since` in which all members took part.
    pub(crate) fn await_full(&self, since: SystemTime) -> Result<Committed, Error> {
        let full = |heard: &Heard| {
            let mut later = heard.commits.iter().filter(|commit| commit.at > since);
            later.find(|commit| commit.workers == MEMBERS).copied()
        };
        self.watch.wait("a commit of all members", PATIENCE, full)
    }

    /// The rank processes of members, by node.
    pub(crate) fn ranks(&self) -> Vec<RankProcess> {
        let mut ranks = self.cluster.ranks();
        ranks.sort_by(|a, b| a.node.cmp(&b.node));
        ranks
    }

    /// Waits for a rank process that is none of these.
    fn await_newcomer(&self, known: &BTreeSet<i32>) -> Result<RankProcess, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let fresh = self
                .ranks()
                .into_iter()
                .find(|rank| !known.contains(&number(rank.pid)));
            match fresh {
                Some(rank) => return Ok(rank),
                None if Instant::now() > deadline => {
                    return Err(Error::Drill(
                        "no rank was started in place of the dead one".into(),
                    ));
                }
                None => system::pause(Duration::from_millis(2), self.cluster.stop_asked())?,
            }
        }
    }

    /// Waits for the end of the job and of all processes; what the job's summary says.
    pub(crate) fn finish(self, weights: Option<&str>) -> Result<(), Error> {
        let job = self.watch.await_done(PATIENCE * 3)?;
        if let Some(weights) = weights {
            check(&job.summary, weights)?;
        }
        drop(self.watch);
        self.cluster.stop()
    }
}

fn number(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}

/// What recoveries took, in milliseconds, one value a fault.
#[derive(Clone, Debug, Default)]
pub struct Recoveries {
    /// From SIGKILL until every survivor was fenced by the new epoch.
    pub kill_to_epoch_ms: Vec<f64>,
    /// From SIGKILL until every survivor was in the new epoch, connected, the lane at hand computed.
    pub kill_to_entry_ms: Vec<f64>,
    /// From SIGKILL until a spare had computed a lane.
    pub kill_to_spare_ms: Vec<f64>,
    /// From SIGKILL to the next commit of the new epoch, less the recomputation of lost lanes.
    pub kill_to_commit_ms: Vec<f64>,
    /// From the start of the replacement's process to the first commit in which it took part.
    pub exec_to_contribution_ms: Vec<f64>,
    /// From SIGKILL to the first commit of all members again.
    pub kill_to_full_ms: Vec<f64>,
    /// How much longer the step was in which a newcomer entered than the median, in shares of the median.
    pub join_excess: Vec<f64>,
    /// From SIGSTOP until every survivor was fenced by the new epoch.
    pub stop_to_epoch_ms: Vec<f64>,
    /// From a cut of both ways until every survivor was fenced by the new epoch.
    pub cut_to_epoch_ms: Vec<f64>,
}

/// A fault that was inflicted, to be looked up in the log afterwards.
struct Inflicted {
    at: SystemTime,
    survivors: Vec<String>,
    /// Who took part until then, the victim included.
    members: Vec<String>,
}

/// What the faults of a run are.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// SIGKILLs.
    pub kills: u64,
    /// SIGSTOPs.
    pub stops: u64,
    /// Cuts of both ways, which need root.
    pub cuts: u64,
    /// Whether a third worker waits beside the two members.
    pub spare: bool,
}

/// Runs a job under faults, one after another, each after full recovery from the one before.
///
/// # Errors
/// When the run does not come through as it must.
pub fn measure(
    bench: &Bench,
    data: &Data,
    faults: Faults,
    weights: Option<&str>,
) -> Result<Recoveries, Error> {
    let names = [COORDINATOR, WORKERS[0], WORKERS[1], WORKERS[2]];
    let machines = if faults.cuts > 0 {
        Machines::apart(&names)?
    } else {
        Machines::together(&names)
    };
    let name = if faults.spare { "spared" } else { "faulted" };
    let workers = if faults.spare {
        &WORKERS[..]
    } else {
        &WORKERS[..MEMBERS as usize]
    };
    let running = Running::start(
        bench,
        &machines,
        data,
        &job(name, steps(faults), 0, faults.spare.into()),
        workers,
        true,
    )?;
    let mut found = Recoveries::default();
    let (mut killed, mut stopped, mut cut) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..faults.kills + faults.stops + faults.cuts {
        let at_step = (number + 1) * STEPS_A_FAULT;
        running
            .watch
            .wait("the step of the next fault", PATIENCE, |heard| {
                (heard.step() >= at_step).then_some(())
            })?;
        if number < faults.kills {
            let inflicted = kill(&running, number, &mut found)?;
            killed.push(inflicted);
        } else if number < faults.kills + faults.stops {
            stopped.push(silence(&running, None)?);
        } else {
            cut.push(silence(&running, Some(&machines))?);
        }
    }
    let out = running.out.clone();
    let heard = running.watch.heard();
    found.join_excess = join_excess(&heard);
    let commits = heard.commits;
    running.finish(weights)?;
    let log = out.join("workers.log");
    let text = fs::read_to_string(&log).map_err(Error::system(format!("read {}", log.display())))?;
    let traced = trace::read(&text);
    for inflicted in &killed {
        let fenced = first_of_all(&traced, inflicted, |deed| matches!(deed, Deed::Fenced(_)))?;
        found.kill_to_epoch_ms.push(ms_between(inflicted.at, fenced));
        let held = first_of_all(&traced, inflicted, |deed| matches!(deed, Deed::Entered(_)))?;
        found.kill_to_entry_ms.push(ms_between(inflicted.at, held));
        if faults.spare {
            let after = |traced: &&Traced| !inflicted.members.contains(&traced.who);
            let computed = |traced: &&Traced| matches!(traced.deed, Deed::Computed(_));
            let ends = traced
                .iter()
                .filter(after)
                .filter(computed)
                .map(|traced| traced.at);
            let first = ends.filter(|end| *end > inflicted.at).min();
            found
                .kill_to_spare_ms
                .extend(first.map(|end| ms_between(inflicted.at, end)));
        }
        if let Some(commit) = commits.iter().find(|commit| commit.at > held) {
            let lost = LANES / MEMBERS as usize;
            let again = recomputed(&traced, inflicted, held, commit.at, lost);
            found
                .kill_to_commit_ms
                .push(ms_between(inflicted.at, commit.at) - again);
        }
    }
    for (of, into) in [
        (&stopped, &mut found.stop_to_epoch_ms),
        (&cut, &mut found.cut_to_epoch_ms),
    ] {
        for inflicted in of {
            let fenced = first_of_all(&traced, inflicted, |deed| matches!(deed, Deed::Fenced(_)))?;
            into.push(ms_between(inflicted.at, fenced));
        }
    }
    Ok(found)
}

/// How much longer, in shares of the median step, the steps were that began with a newcomer.
fn join_excess(heard: &Heard) -> Vec<f64> {
    let gap = |pair: &[Committed]| ms_between(pair[0].at, pair[1].at);
    let full = heard
        .commits
        .windows(2)
        .filter(|pair| pair.iter().all(|commit| commit.workers == MEMBERS));
    let median = Spread::of(full.map(gap).collect()).p50;
    let entered = |note: &wire::Note| {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(note.time_ms);
        (note.kind == "epoch" && note.text.contains("joining at the boundary")).then_some(at)
    };
    let steps = heard.notes.iter().filter_map(entered).filter_map(|at| {
        let mut steps = heard.commits.windows(2);
        // The note is of the millisecond of the commit.
        steps.find(|pair| pair[1].at > at + Duration::from_millis(2))
    });
    steps.map(|pair| gap(pair) / median - 1.0).collect()
}

/// Steps of a run with these faults.
pub(crate) fn steps(faults: Faults) -> u64 {
    (faults.kills + faults.stops + faults.cuts + 2) * STEPS_A_FAULT
}

/// The members' processes, and one of them: the first and the last in turn.
fn pick(running: &Running<'_>, turn: u64) -> Result<(RankProcess, Vec<RankProcess>), Error> {
    let members = running.watch.heard().members();
    let mut ranks = running.ranks();
    ranks.retain(|rank| members.contains(&name_of(rank)));
    let victim = if turn.is_multiple_of(2) {
        ranks.first()
    } else {
        ranks.last()
    };
    let victim = victim
        .cloned()
        .ok_or_else(|| Error::Drill("no rank is running".into()))?;
    Ok((victim, ranks))
}

/// A rank's name in logs and notes.
pub(crate) fn name_of(rank: &RankProcess) -> String {
    format!("{}/{}", rank.node, rank.slot)
}

fn survivors(victim: &RankProcess, ranks: &[RankProcess]) -> Vec<String> {
    let others = ranks.iter().filter(|rank| rank.pid != victim.pid);
    others.map(name_of).collect()
}

fn kill(running: &Running<'_>, turn: u64, found: &mut Recoveries) -> Result<Inflicted, Error> {
    let (victim, ranks) = pick(running, turn)?;
    let known = running.ranks().iter().map(|rank| number(rank.pid)).collect();
    let at = SystemTime::now();
    system::signal(victim.pid, Signal::KILL)?;
    let newcomer = running.await_newcomer(&known)?;
    let executed = started(newcomer.pid)?;
    let full = running.await_full(at)?;
    found.exec_to_contribution_ms.push(ms_between(executed, full.at));
    found.kill_to_full_ms.push(ms_between(at, full.at));
    Ok(Inflicted {
        at,
        survivors: survivors(&victim, &ranks),
        members: ranks.iter().map(name_of).collect(),
    })
}

/// Stops a rank, or cuts its machine off, until the others have gone on without it.
fn silence(running: &Running<'_>, machines: Option<&Machines>) -> Result<Inflicted, Error> {
    let (victim, ranks) = pick(running, 1)?;
    let link = machines
        .map(|machines| machines.named(&victim.node)?.link())
        .transpose()?;
    let before = running.watch.heard().epochs();
    let at = SystemTime::now();
    match link {
        Some(link) => link.cut(Cut::Whole)?,
        None => system::signal(victim.pid, Signal::STOP)?,
    }
    running
        .watch
        .wait("an epoch without the silent worker", PATIENCE, |heard| {
            (heard.epochs() > before).then_some(())
        })?;
    running
        .watch
        .wait("a commit without the silent worker", PATIENCE, |heard| {
            let mut later = heard.commits.iter().rev();
            later
                .next()
                .filter(|commit| commit.at > at && commit.workers < MEMBERS)
                .map(|_| ())
        })?;
    match link {
        Some(link) => link.heal()?,
        None => system::signal(victim.pid, Signal::CONT)?,
    }
    running.await_full(SystemTime::now())?;
    Ok(Inflicted {
        at,
        survivors: survivors(&victim, &ranks),
        members: ranks.iter().map(name_of).collect(),
    })
}

/// When the last of the survivors first did, after the fault, what is looked for.
fn first_of_all(
    traced: &[Traced],
    inflicted: &Inflicted,
    wanted: impl Fn(&Deed) -> bool,
) -> Result<SystemTime, Error> {
    let first = |who: &String| {
        let mut later = traced
            .iter()
            .filter(|traced| traced.who == *who && traced.at > inflicted.at);
        later.find_map(|traced| wanted(&traced.deed).then_some(traced.at))
    };
    let all: Option<Vec<SystemTime>> = inflicted.survivors.iter().map(first).collect();
    let last = all.and_then(|all| all.into_iter().max());
    last.ok_or_else(|| Error::Drill("a survivor's log has no new epoch after a fault".to_owned()))
}

/// How long the slowest survivor computed between the new epoch and the commit, counting at most so many lanes: the
/// last ones, as its own come first. In milliseconds.
fn recomputed(
    traced: &[Traced],
    inflicted: &Inflicted,
    from: SystemTime,
    to: SystemTime,
    lanes: usize,
) -> f64 {
    let of = |who: &String| -> f64 {
        let times = traced.iter().filter_map(|traced| match traced.deed {
            Deed::Computed(time) if traced.who == *who && traced.at - time >= from && traced.at <= to => {
                Some(time.as_secs_f64() * 1e3)
            }
            _ => None,
        });
        let times: Vec<f64> = times.collect();
        times.iter().rev().take(lanes).sum()
    };
    inflicted.survivors.iter().map(of).fold(0.0, f64::max)
}

/// When a process began, to a hundredth of a second: the kernel keeps it in ticks since the start of the machine.
fn started(pid: Pid) -> Result<SystemTime, Error> {
    let read = |path: String| fs::read_to_string(&path).map_err(Error::system(format!("read {path}")));
    let stat = read(format!("/proc/{}/stat", number(pid)))?;
    let uptime = read("/proc/uptime".to_owned())?;
    let now = SystemTime::now();
    // After the name, which may hold anything: state is field 3, the start is 22.
    let after = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .nth(22 - 3);
    let ticks: Option<f64> = after.and_then(|text| text.parse().ok());
    let up: Option<f64> = uptime.split(' ').next().and_then(|text| text.parse().ok());
    let (Some(ticks), Some(up)) = (ticks, up) else {
        return Err(Error::Drill(format!("the start of process {pid} cannot be read")));
    };
    let age = up - ticks / rustix::param::clock_ticks_per_second() as f64;
    Ok(now - Duration::from_secs_f64(age.max(0.0)))
}

pub(crate) fn ms_between(from: SystemTime, to: SystemTime) -> f64 {
    match to.duration_since(from) {
        Ok(later) => later.as_secs_f64() * 1e3,
        Err(earlier) => -earlier.duration().as_secs_f64() * 1e3,
    }
}
