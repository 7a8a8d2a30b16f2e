//! A real etcd of one member, from the `etcd` on the path (Debian's `etcd-server`), on loopback.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// Its election time-out is the default, so that the shortest lease is 2 s.
pub(crate) struct Etcd {
    data: TempDir,
    client: String,
    peer: String,
    child: Child,
}

impl Etcd {
    /// Starts one. It may take a moment to answer: its clients try until it does.
    pub(crate) fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let [client, peer] = free_ports().map(|port| format!("http://127.0.0.1:{port}"));
        let child = command(&data, &client, &peer).spawn().unwrap();
        Self {
            data,
            client,
            peer,
            child,
        }
    }

    /// Where clients reach it.
    pub(crate) fn url(&self) -> &str {
        &self.client
    }

    /// Kills it; what was answered stays on disk.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again after [`Etcd::kill`].
    pub(crate) fn start_again(&mut self) {
        self.child = command(&self.data, &self.client, &self.peer).spawn().unwrap();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn command(data: &TempDir, client: &str, peer: &str) -> Command {
    let mut command = Command::new("etcd");
    command
        .args(["--name", "test", "--log-level", "error", "--logger", "zap"])
        .arg("--data-dir")
        .arg(data.path())
        .args(["--listen-client-urls", client, "--advertise-client-urls", client])
        .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
        .args(["--initial-cluster", &format!("test={peer}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn free_ports() -> [u16; 2] {
    let hold = || TcpListener::bind("127.0.0.1:0").unwrap();
    // Both are held before either is let go, so that they differ.
    [hold(), hold()].map(|listener| listener.local_addr().unwrap().port())
}
