//! The machines of a drill: network namespaces, or loopback under as many names.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Error;
use crate::netns::{Host, Network};

const CLIENT: &str = "client";

/// Where a process runs.
#[derive(Clone, Debug)]
pub struct Machine {
    name: String,
    host: Option<Host>,
}

/// The machines of a drill; the network is removed with them. There is one more than are named, from which jobs are
/// submitted and watched: nothing is ever done to its link.
#[derive(Debug)]
pub struct Machines {
    all: Vec<Machine>,
    client: Machine,
    network: Option<Network>,
}

impl Machines {
    /// Machines with links that can be cut. Root only.
    ///
    /// # Errors
    /// As [`Network::new`].
    pub fn apart(names: &[&str]) -> Result<Self, Error> {
        let network = Network::new(names.len() + 1)?;
        let machine = |name: &str, host: Option<&Host>| Machine {
            name: name.to_owned(),
            host: host.cloned(),
        };
        let mut hosts = network.hosts().iter();
        let all = names.iter().map(|name| machine(name, hosts.next())).collect();
        let client = machine(CLIENT, hosts.next());
        Ok(Self {
            all,
            client,
            network: Some(network),
        })
    }

    /// The same names, all of them loopback.
    #[must_use]
    pub fn together(names: &[&str]) -> Self {
        let machine = |name: &str| Machine {
            name: name.to_owned(),
            host: None,
        };
        Self {
            all: names.iter().map(|name| machine(name)).collect(),
            client: machine(CLIENT),
            network: None,
        }
    }

    /// The one from which jobs are submitted and watched.
    pub(crate) fn client(&self) -> &Machine {
        &self.client
    }

    /// Whether their links can be cut.
    #[must_use]
    pub fn are_apart(&self) -> bool {
        self.network.is_some()
    }

    /// The one of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(&self, name: &str) -> Result<&Machine, Error> {
        let found = self.all.iter().find(|machine| machine.name == name);
        found.ok_or_else(|| Error::Usage(format!("there is no machine `{name}` in this drill")))
    }
}

impl Machine {
    /// What it is called; nodes have the names of their machines.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is reached by the others.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.host.as_ref().map_or(Ipv4Addr::LOCALHOST, Host::address)
    }

    /// Its link.
    ///
    /// # Errors
    /// [`Error::NeedsRoot`] on loopback, which has none.
    pub fn link(&self) -> Result<&Host, Error> {
        self.host.as_ref().ok_or(Error::NeedsRoot {
            what: "cut and slow links",
        })
    }

    /// A port of it that is free now.
    ///
    /// # Errors
    /// When the system has none.
    pub(crate) fn free_port(&self) -> Result<u16, Error> {
        let bind = || std::net::TcpListener::bind(SocketAddr::from((self.address(), 0)))?.local_addr();
        let address = self.within(bind)?.map_err(Error::system("find a free port"))?;
        Ok(address.port())
    }

    /// A command that runs on it.
    pub(crate) fn command(&self, program: &Path) -> Command {
        match &self.host {
            None => Command::new(program),
            Some(host) => {
                let mut command = Command::new("nsenter");
                command
                    .arg(format!("--net={}", host.file().display()))
                    .arg("--")
                    .arg(program);
                command
            }
        }
    }

    /// Moves the calling thread to it for good: sockets that it opens from now on are of its network.
    pub(crate) fn enter(&self) -> Result<(), Error> {
        let Some(host) = &self.host else { return Ok(()) };
        let path = host.file();
        let open = std::fs::File::open(&path);
        open.and_then(|file| {
            Ok(move_into_link_name_space(
                file.as_fd(),
                Some(LinkNameSpaceType::Network),
            )?)
        })
        .map_err(Error::system(format!("enter {}", path.display())))
    }

    /// Runs `work` in a thread on it.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let joined = std::thread::scope(|scope| scope.spawn(|| self.enter().map(|()| work())).join());
        joined.unwrap_or_else(|_| Err(Error::Drill(format!("a thread on {} panicked", self.name))))
    }
}
