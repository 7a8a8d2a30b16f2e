//! A cell whose moment has come: the fault is inflicted, and looked for in what the run says.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal};

use crate::cell::{Cell, Fault, Target};
use crate::chaos::{COORDINATOR, PATIENCE};
use crate::cluster::{Bench, Cluster};
use crate::disk::Disk;
use crate::etcd::Etcd;
use crate::machine::Machines;
use crate::watch::Watch;
use crate::{Error, system};

/// How long the others may take to go on without somebody who is silent: the lease, and far more.
const GIVEN_UP: Duration = Duration::from_secs(15);
/// How long a coordinator is gone for that nobody replaces: longer than the lease.
const ABSENCE: Duration = Duration::from_millis(1500);
/// How long etcd is gone for: longer than the leader's lease of 2 s.
const ETCD_ABSENCE: Duration = Duration::from_secs(4);
/// Steps over which a link is slow.
const SLOW_STEPS: u64 = 3;

/// The process that reached the point.
pub(crate) struct Victim {
    pid: Pid,
    machine: String,
    /// When it was there.
    at: SystemTime,
}

impl Victim {
    /// Waits for the marker, which names it.
    pub(crate) fn read(marker: &Path, bench: &Bench) -> Result<Self, Error> {
        let parse = |text: &str| {
            let mut words = text.strip_suffix('\n')?.split(' ');
            let pid = Pid::from_raw(words.next()?.parse().ok()?)?;
            let machine = words.next()?.split('/').next()?.to_owned();
            let at = fs::metadata(marker).and_then(|about| about.modified()).ok()?;
            Some(Self { pid, machine, at })
        };
        system::await_text(
            marker,
            "a process at the fault's point",
            PATIENCE,
            &bench.stop,
            parse,
        )
    }
}

/// A cell whose moment has come.
pub(crate) struct Scene<'a> {
    pub(crate) cell: Cell,
    pub(crate) machines: &'a Machines,
    pub(crate) disk: Option<&'a Disk>,
    pub(crate) etcd: Option<Etcd>,
    pub(crate) watch: &'a Watch,
    pub(crate) victim: Victim,
    pub(crate) marker: PathBuf,
    pub(crate) state: PathBuf,
    /// The run's notes: a watch may miss some while nobody leads.
    pub(crate) events: PathBuf,
    /// Whether the process at the point holds still until it is released.
    pub(crate) held: bool,
}

impl Scene<'_> {
    pub(crate) fn play(&mut self, cluster: &mut Cluster<'_>) -> Result<(), Error> {
        if let Some(etcd) = self.etcd.take() {
            let etcd = self.play_on_etcd(cluster, etcd)?;
            self.etcd = Some(etcd);
            return Ok(());
        }
        let is_leader = self.cell.target == Target::Leader;
        let held = self.held;
        let machine = if is_leader {
            COORDINATOR
        } else {
            &self.victim.machine
        };
        match self.cell.fault {
            Fault::Kill => {
                if is_leader {
                    if held {
                        system::signal(cluster.coordinator(COORDINATOR)?, Signal::KILL)?;
                        self.release()?;
                    }
                    cluster.await_coordinators_end(COORDINATOR)?;
                    cluster.start_coordinator(COORDINATOR, &self.state, None)?;
                }
            }
            Fault::Stop => {
                let pid = if is_leader {
                    cluster.coordinator(COORDINATOR)?
                } else {
                    self.victim.pid
                };
                if held {
                    system::signal(pid, Signal::STOP)?;
                    self.release()?;
                }
                self.absent(cluster)?;
                system::signal(pid, Signal::CONT)?;
            }
            Fault::Cut => {
                let link = self.machines.named(machine)?.link()?;
                link.cut(crate::netns::Cut::Whole)?;
                self.release()?;
                self.absent(cluster)?;
                link.heal()?;
            }
            Fault::Slow => {
                let link = self.machines.named(machine)?.link()?;
                link.slow_down(if is_leader { 256 } else { 4096 })?;
                self.release()?;
                let from = self.watch.heard().commits.len() as u64;
                self.watch.wait("steps over a slow link", GIVEN_UP, |heard| {
                    (heard.commits.len() as u64 >= from + SLOW_STEPS).then_some(())
                })?;
                link.heal()?;
            }
            Fault::Corrupt => {
                if is_leader {
                    throw_garbage(&cluster.urls())?;
                    self.release()?;
                }
            }
            Fault::Disk => {
                let disk = self
                    .disk
                    .ok_or_else(|| Error::Usage("this drill has no disk".into()))?;
                disk.fill()?;
                self.release()?;
                system::pause(ABSENCE, cluster.stop_asked())?;
                disk.free()?;
            }
        }
        Ok(())
    }

    /// What happens to etcd, while a worker holds still at the moment; then etcd is whole again.
    fn play_on_etcd(&self, cluster: &Cluster<'_>, mut etcd: Etcd) -> Result<Etcd, Error> {
        let gone = || system::pause(ETCD_ABSENCE, cluster.stop_asked());
        let link = || self.machines.named(etcd.machine())?.link();
        match self.cell.fault {
            Fault::Kill => {
                etcd.kill()?;
                self.release()?;
                gone()?;
                etcd.start_again(self.machines)?;
            }
            Fault::Stop => {
                etcd.signal(Signal::STOP)?;
                self.release()?;
                gone()?;
                etcd.signal(Signal::CONT)?;
            }
            Fault::Cut => {
                link()?.cut(crate::netns::Cut::Whole)?;
                self.release()?;
                gone()?;
                link()?.heal()?;
            }
            Fault::Slow => {
                link()?.slow_down(256)?;
                self.release()?;
                gone()?;
                link()?.heal()?;
            }
            Fault::Disk => {
                let disk = self
                    .disk
                    .ok_or_else(|| Error::Usage("this drill has no disk".into()))?;
                disk.fill()?;
                self.release()?;
                gone()?;
                disk.free()?;
                // It may have ended for want of room.
                if etcd.has_ended()? {
                    etcd.start_again(self.machines)?;
                }
            }
            Fault::Corrupt => self.release()?,
        }
        Ok(etcd)
    }

    /// Whether the fault was noticed at all: a worker that breaks, or breaks its word, is left behind, and without etcd
    /// nobody leads for longer than a lease. What only takes longer leaves no trace that must be there.
    pub(crate) fn check_effect(&self) -> Result<(), Error> {
        let breaks = match self.cell.target {
            Target::Worker | Target::Donor => matches!(self.cell.fault, Fault::Kill | Fault::Corrupt),
            Target::Etcd => matches!(self.cell.fault, Fault::Kill | Fault::Stop | Fault::Cut),
            Target::Leader => false,
        };
        if breaks && !self.has_epoch_since()? {
            return Err(Error::Drill(
                "nobody noticed the fault: the membership stayed as it was".to_owned(),
            ));
        }
        Ok(())
    }

    /// Whether a membership was announced since the victim was at the fault's point, to the millisecond.
    fn has_epoch_since(&self) -> Result<bool, Error> {
        let text = fs::read_to_string(&self.events)
            .map_err(Error::system(format!("read {}", self.events.display())))?;
        let since = self.victim.at.duration_since(SystemTime::UNIX_EPOCH);
        let since = since.unwrap_or_default().as_millis();
        let notes = text
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut epochs = notes.filter(|note| note["kind"] == "epoch");
        Ok(epochs.any(|note| note["time_ms"].as_u64().is_some_and(|at| u128::from(at) >= since)))
    }

    /// Lets the process that holds still go on.
    fn release(&self) -> Result<(), Error> {
        let mut go = self.marker.clone().into_os_string();
        go.push(".go");
        fs::write(&go, "").map_err(Error::system("release a held process"))
    }

    /// Waits until the others have gone on without the victim; for a coordinator that nobody replaces, a while.
    fn absent(&self, cluster: &Cluster<'_>) -> Result<(), Error> {
        if self.cell.target == Target::Leader {
            return system::pause(ABSENCE, cluster.stop_asked());
        }
        let from = self.watch.heard().step();
        self.watch
            .wait("the others going on without the victim", GIVEN_UP, |heard| {
                (heard.has_epoch_since(self.victim.at) || heard.step() >= from + 20).then_some(())
            })
    }
}

/// Sends bytes that are no frame, and waits until they are refused.
fn throw_garbage(urls: &[String]) -> Result<(), Error> {
    for url in urls {
        let address = url.trim_start_matches("http://");
        let throw = || {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(&[0xA5; 4096])?;
            // Until it closes; a reset says the same.
            while matches!(stream.read(&mut [0; 4096]), Ok(1..)) {}
            Ok(())
        };
        throw().map_err(Error::system(format!("send garbage to {address}")))?;
    }
    Ok(())
}
