//! Real processes of this program on the machines of a drill: coordinators, node daemons and their ranks.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lockstep_faults::{Plan, VARIABLE};
use rustix::process::{Pid, Signal};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::machine::Machines;
use crate::system::{self, TAG, Tagged};
use crate::watch::Watch;
use crate::work::Job;

/// How long a process may take to come up or to leave.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a coordinator over etcd logs when it takes the lead.
const LEADS: &str = "this coordinator leads";

/// What the clusters of a drill have in common.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The `lockstep` program.
    pub program: PathBuf,
    /// Whether it can keep what survives it in etcd.
    pub has_etcd_store: bool,
    /// Cancelled when somebody asks for the end.
    pub stop: CancellationToken,
}

/// A child, and the pipe that it lives by. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    lifeline: Option<ChildStdin>,
}

impl Process {
    pub(crate) fn start(name: &str, command: &mut Command) -> Result<Self, Error> {
        let mut child = command.spawn().map_err(Error::system(format!("start {name}")))?;
        let lifeline = child.stdin.take();
        Ok(Self {
            name: name.to_owned(),
            child,
            lifeline,
        })
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Error> {
        system::signal(self.pid(), signal)
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> Result<bool, Error> {
        let ended = self.child.try_wait();
        Ok(ended
            .map_err(Error::system(format!("wait for {}", self.name)))?
            .is_some())
    }

    /// Waits until it has ended and reaps it.
    pub(crate) fn await_end(mut self) -> Result<(), Error> {
        if system::await_end(self.pid(), Instant::now() + PATIENCE) {
            self.child
                .wait()
                .map(drop)
                .map_err(Error::system(format!("wait for {}", self.name)))
        } else {
            let (name, seconds) = (&self.name, PATIENCE.as_secs());
            Err(Error::Drill(format!("{name} did not end within {seconds} s")))
        }
    }

    /// Ends it in order.
    pub(crate) fn stop(mut self) -> Result<(), Error> {
        drop(self.lifeline.take());
        self.signal(Signal::TERM)?;
        self.await_end()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A rank process.
#[derive(Clone, Debug)]
pub struct RankProcess {
    /// Its process id.
    pub pid: Pid,
    /// Its node, which is its machine's name.
    pub node: String,
    /// Its slot there.
    pub slot: u32,
}

/// A coordinator, running or not.
#[derive(Debug)]
struct Coordinator {
    address: String,
    state: PathBuf,
    process: Option<Process>,
}

/// A cluster in a folder of its own. Dropping it kills all of its processes.
#[derive(Debug)]
pub struct Cluster<'a> {
    bench: &'a Bench,
    machines: &'a Machines,
    folder: PathBuf,
    tag: String,
    /// `RUST_LOG` of ranks and daemons.
    log: &'static str,
    /// Where coordinators keep what survives them; else each in a folder of its own.
    etcd: Option<String>,
    coordinators: BTreeMap<String, Coordinator>,
    daemons: BTreeMap<String, Process>,
}

impl<'a> Cluster<'a> {
    /// A cluster without processes. Their logs go to `folder`.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(bench: &'a Bench, machines: &'a Machines, folder: &Path) -> Result<Self, Error> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        system::kill_leftovers();
        fs::create_dir_all(folder).map_err(Error::system(format!("create {}", folder.display())))?;
        let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Ok(Self {
            bench,
            machines,
            folder: folder.to_owned(),
            tag: format!("{pid}-{count}"),
            log: "info",
            etcd: None,
            coordinators: BTreeMap::new(),
            daemons: BTreeMap::new(),
        })
    }

    /// Has ranks write down when they take an epoch, and when each of their tasks begins and ends.
    pub fn log_tasks(&mut self) {
        self.log = "info,lockstep_worker=debug";
    }

    /// Has coordinators that are started from now on keep what survives them in the etcd at `url`.
    pub(crate) fn store_in_etcd(&mut self, url: &str) {
        self.etcd = Some(url.to_owned());
    }

    /// Whether somebody asked for the end.
    #[must_use]
    pub fn stop_asked(&self) -> &CancellationToken {
        &self.bench.stop
    }

    /// A command of this program on a machine, with its log in `NAME.log`.
    fn command(&self, machine: &str, name: &str, fault: Option<&Plan>) -> Result<Command, Error> {
        let create = |suffix: &str| {
            let path = self.folder.join(format!("{name}.{suffix}"));
            let file = File::options().create(true).append(true).open(&path);
            file.map_err(Error::system(format!("create {}", path.display())))
        };
        let mut command = self.machines.named(machine)?.command(&self.bench.program);
        command
            .env(TAG, &self.tag)
            .env("RUST_LOG", self.log)
            .env_remove("LOCKSTEP_COORDINATOR")
            .env_remove(VARIABLE)
            .stdin(Stdio::piped())
            .stdout(create("out")?)
            .stderr(create("log")?);
        if let Some(plan) = fault {
            command.env(VARIABLE, plan.to_string());
        }
        Ok(command)
    }

    /// Starts a coordinator on a machine, with its store in `state`, and waits until it listens. One that ran there
    /// before is started anew, with the state and the address that it had.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_coordinator(
        &mut self,
        machine: &str,
        state: &Path,
        fault: Option<&Plan>,
    ) -> Result<(), Error> {
        if !self.coordinators.contains_key(machine) {
            let place = self.machines.named(machine)?;
            let coordinator = Coordinator {
                address: format!("{}:{}", place.address(), place.free_port()?),
                state: state.to_owned(),
                process: None,
            };
            self.coordinators.insert(machine.to_owned(), coordinator);
        }
        let mut command = self.command(machine, machine, fault)?;
        let out = self.folder.join(format!("{machine}.out"));
        let lines = fs::read_to_string(&out).unwrap_or_default().lines().count();
        let Some(coordinator) = self.coordinators.get_mut(machine) else {
            return Err(Error::Usage(format!("{machine} has no coordinator")));
        };
        command.args(["coordinator", "--lifeline", "--listen", &coordinator.address]);
        match &self.etcd {
            Some(url) => command.args(["--etcd", url]),
            None => command.arg("--state").arg(&coordinator.state),
        };
        coordinator.process = Some(Process::start(machine, &mut command)?);
        let listens = |text: &str| (text.ends_with('\n') && text.lines().count() > lines).then_some(());
        let what = format!("the coordinator on {machine} that listens");
        system::await_text(&out, &what, PATIENCE, &self.bench.stop, listens)
    }

    /// The coordinators' URLs.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        let url = |coordinator: &Coordinator| format!("http://{}", coordinator.address);
        self.coordinators.values().map(url).collect()
    }

    /// Waits until a coordinator leads.
    ///
    /// # Errors
    /// When it does not in time.
    pub(crate) fn await_lead(&self, machine: &str) -> Result<(), Error> {
        let log = self.folder.join(format!("{machine}.log"));
        let leads = |text: &str| text.contains(LEADS).then_some(());
        let what = format!("the lead of the coordinator on {machine}");
        system::await_text(&log, &what, PATIENCE, &self.bench.stop, leads)
    }

    /// The machine of the coordinator that took the lead last, of several over one etcd.
    ///
    /// # Errors
    /// When none ever led.
    pub(crate) fn leader(&self) -> Result<String, Error> {
        let last = |machine: &String| {
            let log = fs::read_to_string(self.folder.join(format!("{machine}.log"))).ok()?;
            // Lines begin with their time.
            let line = log.lines().rfind(|line| line.contains(LEADS))?;
            Some((line.to_owned(), machine.clone()))
        };
        let latest = self.coordinators.keys().filter_map(last).max();
        let (_, machine) = latest.ok_or_else(|| Error::Drill("no coordinator leads".to_owned()))?;
        Ok(machine)
    }

    /// A coordinator's process id, while it runs.
    ///
    /// # Errors
    /// When there is none.
    pub fn coordinator(&self, machine: &str) -> Result<Pid, Error> {
        let process = self
            .coordinators
            .get(machine)
            .and_then(|coordinator| coordinator.process.as_ref());
        let process = process.ok_or_else(|| Error::Usage(format!("no coordinator runs on {machine}")))?;
        Ok(process.pid())
    }

    /// Kills a coordinator and starts it anew, in place.
    ///
    /// # Errors
    /// When it does not end, or does not come up.
    pub fn restart_coordinator(&mut self, machine: &str) -> Result<(), Error> {
        system::signal(self.coordinator(machine)?, Signal::KILL)?;
        self.await_coordinators_end(machine)?;
        self.start_coordinator(machine, Path::new(""), None)
    }

    /// Waits for the end of a coordinator that was killed.
    ///
    /// # Errors
    /// When it does not end.
    pub fn await_coordinators_end(&mut self, machine: &str) -> Result<(), Error> {
        let process = self
            .coordinators
            .get_mut(machine)
            .and_then(|coordinator| coordinator.process.take());
        process.map_or(Ok(()), Process::await_end)
    }

    /// Starts a node daemon on a machine, under the machine's name. [`Self::await_daemon`] waits for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_daemon(&mut self, machine: &str, slots: u32, fault: Option<&Plan>) -> Result<(), Error> {
        let mut command = self.command(machine, machine, fault)?;
        let slots = slots.to_string();
        // The machines of a drill are one: two of them are at work at a time, whoever else waits.
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        command.args(["worker", "--lifeline", "--name", machine, "--slots", &slots]);
        command.args(["--threads", &threads.to_string()]);
        command.args(["--coordinator", &self.urls().join(",")]);
        let process = Process::start(machine, &mut command)?;
        self.daemons.insert(machine.to_owned(), process);
        Ok(())
    }

    /// Starts daemons of one slot, each with its fault if it has one, and waits until all are registered.
    ///
    /// # Errors
    /// When one cannot be started, or is not registered in time.
    pub(crate) fn start_daemons<'p>(
        &mut self,
        machines: &[&str],
        fault: impl Fn(&str) -> Option<&'p Plan>,
    ) -> Result<(), Error> {
        for machine in machines {
            self.start_daemon(machine, 1, fault(machine))?;
        }
        machines.iter().try_for_each(|machine| self.await_daemon(machine))
    }

    /// Kills a daemon, with its ranks, and starts it anew.
    ///
    /// # Errors
    /// When it does not end, or cannot be started.
    pub fn restart_daemon(&mut self, machine: &str, slots: u32) -> Result<(), Error> {
        if let Some(daemon) = self.daemons.remove(machine) {
            daemon.signal(Signal::KILL)?;
            daemon.await_end()?;
        }
        self.start_daemon(machine, slots, None)
    }

    /// Waits until a daemon is registered.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn await_daemon(&self, machine: &str) -> Result<(), Error> {
        let log = self.folder.join(format!("{machine}.log"));
        let registered = |text: &str| text.contains("registered with").then_some(());
        let what = format!("the registration of {machine}");
        system::await_text(&log, &what, PATIENCE, &self.bench.stop, registered)
    }

    /// Submits a job, with its run's folder at `out`, and listens to it.
    ///
    /// # Errors
    /// When no coordinator takes it.
    pub fn submit(&self, job: &Job, dataset: &Path, out: &Path) -> Result<Watch, Error> {
        let spec = self.folder.join(format!("{}.toml", job.name));
        fs::write(&spec, job.toml(dataset)).map_err(Error::system(format!("write {}", spec.display())))?;
        let machine = self.machines.client();
        let urls = self.urls();
        let mut command = machine.command(&self.bench.program);
        command
            .env(TAG, &self.tag)
            .env_remove(VARIABLE)
            .arg("submit")
            .arg(&spec)
            .arg("--out")
            .arg(out);
        command
            .args(["--coordinator", &urls.join(",")])
            .stdin(Stdio::null());
        let output = command
            .output()
            .map_err(Error::system("start `lockstep submit`"))?;
        if !output.status.success() {
            return Err(Error::Tool {
                command: "lockstep submit".to_owned(),
                said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        Watch::start(machine, urls, job.name, &self.bench.stop)
    }

    /// The live processes of this cluster.
    fn processes(&self) -> Vec<Tagged> {
        system::tagged(|tag| tag == self.tag)
    }

    /// The live rank processes.
    #[must_use]
    pub fn ranks(&self) -> Vec<RankProcess> {
        let rank = |process: &Tagged| {
            let is_rank = process.command.get(1).is_some_and(|verb| verb == "rank");
            is_rank.then(|| RankProcess {
                pid: process.pid,
                node: process.option("--node").unwrap_or_default().to_owned(),
                slot: process
                    .option("--slot")
                    .and_then(|slot| slot.parse().ok())
                    .unwrap_or(0),
            })
        };
        self.processes().iter().filter_map(rank).collect()
    }

    /// Stops daemons, then coordinators, and waits for all of their processes.
    ///
    /// # Errors
    /// When one does not leave: an orphan, named.
    pub fn stop(mut self) -> Result<(), Error> {
        for (_, daemon) in std::mem::take(&mut self.daemons) {
            daemon.stop()?;
        }
        for coordinator in std::mem::take(&mut self.coordinators).into_values() {
            coordinator.process.map_or(Ok(()), Process::stop)?;
        }
        let tag = self.tag.clone();
        let orphans = system::await_none(|of| of == tag, Instant::now() + PATIENCE);
        match orphans.first() {
            None => Ok(()),
            Some(orphan) => Err(Error::Drill(format!(
                "{} processes were left behind, such as {}: {}",
                orphans.len(),
                orphan.pid,
                orphan.command.join(" ")
            ))),
        }
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        self.daemons.clear();
        self.coordinators.clear();
        let tag = self.tag.clone();
        for process in system::tagged(|of| of == tag) {
            system::signal(process.pid, Signal::KILL).ok();
        }
        system::await_none(|of| of == tag, Instant::now() + PATIENCE);
    }
}
