//! Which processes can open each other's segments.

use std::fs;
use std::io;

/// A name for this host as this process sees it, equal where processes can find each other: the boot, and the
/// namespaces of processes and of the network. Containers are hosts of their own, as they look to each other.
///
/// # Errors
/// When the system does not tell.
pub fn host() -> io::Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let namespace = |name: &str| fs::read_link(format!("/proc/self/ns/{name}"));
    let (pid, net) = (namespace("pid")?, namespace("net")?);
    Ok(format!("{} {} {}", boot.trim(), pid.display(), net.display()))
}
