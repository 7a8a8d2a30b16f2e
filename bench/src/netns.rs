//! Hosts as network namespaces, joined by a bridge in a namespace of its own: nothing of them can be reached from
//! outside. Root only.
//!
//! Names carry the process id of the harness, so that the next one can remove what a dead one left.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::system::{is_root, tool};

const PREFIX: &str = "lockstep-";
const FOLDER: &str = "/run/netns";

/// A network of hosts. Dropping it removes it.
#[derive(Debug)]
pub struct Network {
    hosts: Vec<Host>,
}

/// A machine of its own, as far as the network goes.
#[derive(Clone, Debug)]
pub struct Host {
    index: usize,
    address: Ipv4Addr,
}

/// How packets of a host are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Both ways.
    Whole,
    /// Those that it sends.
    Outbound,
    /// Those sent to it.
    Inbound,
}

fn namespace(index: impl std::fmt::Display) -> String {
    format!("{PREFIX}{}-{index}", std::process::id())
}

impl Network {
    /// Makes a network of `count` hosts, at most 250.
    ///
    /// # Errors
    /// Without root, or when the kernel or `ip` refuses.
    pub fn new(count: usize) -> Result<Self, Error> {
        if !is_root() {
            return Err(Error::NeedsRoot {
                what: "network namespaces",
            });
        }
        remove_leftovers();
        let switch = namespace("switch");
        // From here on dropping it cleans up, whatever fails.
        let mut network = Self { hosts: Vec::new() };
        tool(&format!("ip netns add {switch}"))?;
        tool(&format!("ip -n {switch} link add name bridge0 type bridge"))?;
        tool(&format!("ip -n {switch} link set bridge0 up"))?;
        for index in 0..count.min(250) {
            let host = Host {
                index,
                address: Ipv4Addr::new(10, 77, 0, index as u8 + 1),
            };
            let (name, address) = (namespace(index), host.address);
            network.hosts.push(host);
            tool(&format!("ip netns add {name}"))?;
            tool(&format!(
                "ip link add eth0 netns {name} type veth peer name port{index} netns {switch}"
            ))?;
            tool(&format!("ip -n {switch} link set port{index} master bridge0 up"))?;
            tool(&format!("ip -n {name} addr add {address}/24 dev eth0"))?;
            tool(&format!("ip -n {name} link set lo up"))?;
            tool(&format!("ip -n {name} link set eth0 up"))?;
        }
        Ok(network)
    }

    /// Its hosts.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(&namespace(""));
    }
}

impl Host {
    /// Where it is reached by the others.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The file that stands for its namespace.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        Path::new(FOLDER).join(namespace(self.index))
    }

    /// Loses its packets until it is healed, without a word to anybody.
    ///
    /// # Errors
    /// When `iptables` refuses.
    pub fn cut(&self, cut: Cut) -> Result<(), Error> {
        if cut != Cut::Inbound {
            self.inside("iptables -A OUTPUT -o eth0 -j DROP")?;
        }
        if cut != Cut::Outbound {
            self.inside("iptables -A INPUT -i eth0 -j DROP")?;
        }
        Ok(())
    }

    /// Lets it send no more than so many kilobits a second, until it is healed.
    ///
    /// # Errors
    /// When `tc` refuses.
    pub fn slow_down(&self, kilobits: u32) -> Result<(), Error> {
        // A packet at least; what passes in 2 ms, as fast links are not looked at more often.
        let burst = (kilobits / 4).max(1600);
        self.inside(&format!(
            "tc qdisc replace dev eth0 root tbf rate {kilobits}kbit burst {burst} latency 400ms"
        ))
    }

    /// Whether packets had to wait since it was [slowed down](Self::slow_down).
    ///
    /// # Errors
    /// When `tc` refuses.
    pub fn has_held_packets(&self) -> Result<bool, Error> {
        let said = tool(&format!(
            "nsenter --net={} tc -s qdisc show dev eth0 root",
            self.file().display()
        ))?;
        let mut words = said.split_whitespace();
        let count = words
            .find(|word| *word == "overlimits")
            .and_then(|_| words.next());
        Ok(count.is_some_and(|count| count != "0"))
    }

    /// Ends whatever was done to its link.
    ///
    /// # Errors
    /// When `iptables` or `tc` refuses.
    pub fn heal(&self) -> Result<(), Error> {
        self.inside("iptables -F")?;
        // There may be none.
        self.inside("tc qdisc del dev eth0 root").ok();
        Ok(())
    }

    fn inside(&self, command: &str) -> Result<(), Error> {
        tool(&format!("nsenter --net={} {command}", self.file().display())).map(drop)
    }
}

/// The process id in a namespace's name, if it is one of ours.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

fn names() -> Vec<String> {
    let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Removes the namespaces whose names begin so; their links go with them. One that cannot be removed is left to
/// the next harness.
fn remove(prefix: &str) {
    for name in names().iter().filter(|name| name.starts_with(prefix)) {
        tool(&format!("ip netns del {name}")).ok();
    }
}

/// Removes the namespaces of harnesses that are dead.
pub(crate) fn remove_leftovers() {
    for name in names() {
        if owner(&name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd as _;
    use std::time::Duration;

    /// Runs `work` in a thread that is on the host.
    fn on<T: Send>(host: &Host, work: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            let file = fs::File::open(host.file()).unwrap();
            rustix::thread::move_into_link_name_space(file.as_fd(), None).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(enter).join().unwrap())
    }

    #[test]
    fn names_tell_their_owner() {
        assert_eq!(owner(&namespace(3)), Some(std::process::id()));
        assert_eq!(owner("lockstep-17-switch"), Some(17));
        assert_eq!((owner("lockstep-x"), owner("other-17-0")), (None, None));
    }

    /// One test, as networks of one process share its names. As root only: elsewhere the refusal is tested.
    #[test]
    fn hosts_reach_each_other_until_they_are_cut_and_leave_nothing_behind() {
        if !is_root() {
            assert!(matches!(Network::new(2), Err(Error::NeedsRoot { .. })));
            return;
        }
        // As a harness that was killed leaves it; no process has this id.
        let stale = format!("{PREFIX}4194999-0");
        tool(&format!("ip netns add {stale}")).unwrap();
        let network = Network::new(2).unwrap();
        assert!(!names().contains(&stale), "{:?}", names());
        let [one, two] = network.hosts() else {
            unreachable!()
        };
        let listener = on(one, || TcpListener::bind((one.address(), 0)).unwrap());
        let at = listener.local_addr().unwrap();
        let mut here = on(two, || {
            TcpStream::connect_timeout(&at, Duration::from_secs(5)).unwrap()
        });
        let (mut there, _) = listener.accept().unwrap();
        assert!(
            TcpStream::connect_timeout(&at, Duration::from_millis(200)).is_err(),
            "from outside"
        );

        let patience = Some(Duration::from_millis(200));
        here.set_read_timeout(patience).unwrap();
        there.set_read_timeout(patience).unwrap();
        let mut arrives = |from_two: bool| {
            let (from, to) = if from_two {
                (&mut here, &mut there)
            } else {
                (&mut there, &mut here)
            };
            from.write_all(&[7]).unwrap();
            to.read(&mut [0; 16]).is_ok()
        };
        assert!(arrives(true) && arrives(false));
        two.cut(Cut::Outbound).unwrap();
        assert!(!arrives(true), "a packet left");
        two.heal().unwrap();
        two.cut(Cut::Whole).unwrap();
        assert!(!arrives(false), "a packet came");
        two.heal().unwrap();
        two.slow_down(1000).unwrap();
        assert!(!two.has_held_packets().unwrap());
        here.write_all(&[7; 1 << 16]).unwrap();
        there.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        there.read_exact(&mut [0; 1 << 15]).unwrap();
        assert!(two.has_held_packets().unwrap());
        two.heal().unwrap();
        drop(network);
        assert!(!names().iter().any(|name| owner(name) == Some(std::process::id())));
    }
}
