//! A real etcd of one member on a machine of a drill, from the `etcd` on the path (Debian's `etcd-server`).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal};

use crate::cluster::Process;
use crate::machine::{Machine, Machines};
use crate::{Error, system};

/// Whether there is one.
pub(crate) fn is_installed() -> bool {
    let mut command = Command::new("etcd");
    command
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Etcd {
    machine: String,
    data: PathBuf,
    client: String,
    peer: String,
    process: Option<Process>,
}

impl Etcd {
    /// Starts one with its data in the folder `data`. It may take a moment to answer: its clients try until it does.
    pub(crate) fn start(machine: &Machine, data: &Path) -> Result<Self, Error> {
        let url = || Ok::<_, Error>(format!("http://{}:{}", machine.address(), machine.free_port()?));
        let mut etcd = Self {
            machine: machine.name().to_owned(),
            data: data.to_owned(),
            client: url()?,
            peer: url()?,
            process: None,
        };
        etcd.start_on(machine)?;
        Ok(etcd)
    }

    fn start_on(&mut self, machine: &Machine) -> Result<(), Error> {
        let Self {
            data, client, peer, ..
        } = self;
        // It has no pipe to live by: the kernel ends it when the drill's thread ends, however that comes about.
        let mut command = machine.command(Path::new("setpriv"));
        command
            .args(["--pdeathsig", "KILL", "etcd"])
            .args(["--name", "drill", "--log-level", "error", "--logger", "zap"])
            .arg("--data-dir")
            .arg(data)
            .args(["--listen-client-urls", client, "--advertise-client-urls", client])
            .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
            .args(["--initial-cluster", &format!("drill={peer}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.process = Some(Process::start("etcd", &mut command)?);
        Ok(())
    }

    /// Where clients reach it.
    pub(crate) fn url(&self) -> &str {
        &self.client
    }

    /// The machine that it runs on.
    pub(crate) fn machine(&self) -> &str {
        &self.machine
    }

    fn pid(&self) -> Result<Pid, Error> {
        let process = self.process.as_ref();
        process
            .map(Process::pid)
            .ok_or_else(|| Error::Usage("etcd does not run".into()))
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Error> {
        system::signal(self.pid()?, signal)
    }

    /// Kills it; what was answered stays on disk.
    pub(crate) fn kill(&mut self) -> Result<(), Error> {
        self.signal(Signal::KILL)?;
        self.process.take().map_or(Ok(()), Process::await_end)
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> Result<bool, Error> {
        self.process.as_mut().map_or(Ok(true), Process::has_ended)
    }

    /// Starts it again, with the data and the address that it had.
    pub(crate) fn start_again(&mut self, machines: &Machines) -> Result<(), Error> {
        self.process = None;
        let machine = machines.named(&self.machine)?;
        self.start_on(machine)
    }
}
