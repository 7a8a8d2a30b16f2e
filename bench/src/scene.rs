//! A cell whose moment has come: the fault is inflicted, and looked for in what the run says.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal};

use crate::cell::{Cell, Fault, Moment, Target};
use crate::chaos::{COORDINATOR, PATIENCE};
use crate::cluster::{Bench, Cluster};
use crate::disk::Disk;
use crate::etcd::Etcd;
use crate::machine::Machines;
use crate::netns::Host;
use crate::watch::Watch;
use crate::{Error, system};

/// How long the others may take to go on without somebody who is silent: the lease, and far more.
const GIVEN_UP: Duration = Duration::from_secs(15);
/// How long something is gone for that nobody replaces: longer than the lease.
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
    /// Whether packets waited for a slow link.
    pub(crate) slowed: bool,
}

impl Scene<'_> {
    pub(crate) fn play(&mut self, cluster: &mut Cluster<'_>) -> Result<(), Error> {
        if self.cell.target == Target::Etcd
            && let Some(etcd) = self.etcd.take()
        {
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
                    if self.etcd.is_some() {
                        self.absent(cluster)?;
                    }
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
                link.slow_down(if is_leader { 64 } else { 4096 })?;
                self.release()?;
                let from = self.watch.heard().commits.len() as u64;
                self.watch.wait("steps over a slow link", GIVEN_UP, |heard| {
                    (heard.commits.len() as u64 >= from + SLOW_STEPS).then_some(())
                })?;
                self.slowed = await_held(link, cluster)?;
                link.heal()?;
            }
            Fault::Corrupt => {
                if is_leader {
                    throw_garbage(&cluster.urls())?;
                    self.release()?;
                }
            }
            Fault::Disk => {
                let disk = self.fill_disk()?;
                system::pause(ABSENCE, cluster.stop_asked())?;
                disk.free()?;
            }
        }
        Ok(())
    }

    /// What happens to etcd, while a worker holds still at the moment; then etcd is whole again.
    fn play_on_etcd(&mut self, cluster: &Cluster<'_>, mut etcd: Etcd) -> Result<Etcd, Error> {
        let gone = || system::pause(ETCD_ABSENCE, cluster.stop_asked());
        let link = self.machines.named(etcd.machine())?;
        let link = || link.link();
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
                self.slowed = await_held(link()?, cluster)?;
                link()?.heal()?;
            }
            Fault::Disk => {
                let disk = self.fill_disk()?;
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

    /// Whether the fault was felt at all, by what it must leave behind: another membership, lines that waited for room,
    /// packets that waited for the link.
    pub(crate) fn check_effect(&self) -> Result<(), Error> {
        let is_replaced = self.etcd.is_some();
        let expected = match (self.cell.fault, self.cell.target) {
            (Fault::Kill, _) => Some("epoch"),
            (Fault::Stop | Fault::Cut, Target::Leader | Target::Etcd) if is_replaced => Some("epoch"),
            // Nobody else leads, and the workers hold what they have.
            (Fault::Stop | Fault::Cut, Target::Leader | Target::Etcd) => None,
            (Fault::Stop | Fault::Cut, Target::Worker | Target::Donor) => self.is_member().then_some("epoch"),
            (Fault::Corrupt, Target::Worker | Target::Donor) => Some("epoch"),
            // Its port has refused it.
            (Fault::Corrupt, Target::Leader | Target::Etcd) => None,
            (Fault::Disk, Target::Etcd) => None, // it has room of its own, set aside
            (Fault::Disk, _) => Some("storage"),
            (Fault::Slow, _) if self.slowed => None,
            (Fault::Slow, _) => {
                let message = "nobody felt the fault: no packet had to wait";
                return Err(Error::Drill(message.to_owned()));
            }
        };
        match expected {
            Some(kind) if !self.has_note_since(kind)? => Err(Error::Drill(format!(
                "nobody felt the fault: the run has no {kind} note after it"
            ))),
            _ => Ok(()),
        }
    }

    /// Whether the victim takes part in steps.
    fn is_member(&self) -> bool {
        (self.cell.moment, self.cell.target) != (Moment::Join, Target::Worker)
    }

    /// Whether the run has a note of this kind from when the victim was at the fault's point, or later, to the millisecond.
    fn has_note_since(&self, kind: &str) -> Result<bool, Error> {
        let text = fs::read_to_string(&self.events)
            .map_err(Error::system(format!("read {}", self.events.display())))?;
        Ok(self.tells(&text, kind))
    }

    fn tells(&self, events: &str, kind: &str) -> bool {
        let since = self.victim.at.duration_since(SystemTime::UNIX_EPOCH);
        let since = since.unwrap_or_default().as_millis();
        let notes = events
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut of_kind = notes.filter(|note| note["kind"] == kind);
        of_kind.any(|note| note["time_ms"].as_u64().is_some_and(|at| u128::from(at) >= since))
    }

    /// Leaves no room on the drill's disk, then lets whoever holds still go on.
    fn fill_disk(&self) -> Result<&Disk, Error> {
        let disk = self
            .disk
            .ok_or_else(|| Error::Usage("this drill has no disk".into()))?;
        disk.fill()?;
        self.release()?;
        Ok(disk)
    }

    /// Lets the process that holds still go on.
    fn release(&self) -> Result<(), Error> {
        let mut go = self.marker.clone().into_os_string();
        go.push(".go");
        fs::write(&go, "").map_err(Error::system("release a held process"))
    }

    /// Waits until the others have gone on without the victim; a while if nobody can.
    fn absent(&self, cluster: &Cluster<'_>) -> Result<(), Error> {
        let stop = cluster.stop_asked();
        if self.cell.target == Target::Leader && self.etcd.is_none() {
            return system::pause(ABSENCE, stop);
        }
        if self.is_member() {
            let tells = |text: &str| self.tells(text, "epoch").then_some(());
            let what = "the others going on without the victim";
            return system::await_text(&self.events, what, GIVEN_UP, stop, tells);
        }
        let from = self.watch.heard().step();
        self.watch.wait("the members' next steps", GIVEN_UP, |heard| {
            (heard.step() >= from + 20).then_some(())
        })
    }
}

/// Waits until packets had to wait for a slow link; not for ever.
fn await_held(link: &Host, cluster: &Cluster<'_>) -> Result<bool, Error> {
    let deadline = Instant::now() + GIVEN_UP;
    while !link.has_held_packets()? {
        if Instant::now() > deadline {
            return Ok(false);
        }
        system::pause(Duration::from_millis(10), cluster.stop_asked())?;
    }
    Ok(true)
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
