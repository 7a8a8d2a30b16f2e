//! A coordinator and node daemons, and what the coordinator says of a job.

use std::path::Path;
use std::time::Duration;

use lockstep_proto::wire;
use lockstep_proto::wire::jobs_client::JobsClient;
use lockstep_worker::endpoints::Endpoints;

use super::PATIENCE;
use super::place::Place;
use super::process::Process;

/// A coordinator that serves.
pub(crate) struct Coordinator {
    pub(crate) process: Process,
    pub(crate) url: String,
}

impl Coordinator {
    /// Starts one with its store in `state`, on any free port of loopback.
    pub(crate) fn start(place: &Place) -> Self {
        Self::start_at(place, "127.0.0.1:0")
    }

    /// Starts one with its store in `state`.
    pub(crate) fn start_at(place: &Place, listen: &str) -> Self {
        let coordinator = Self::start_with(place, listen, "--state state");
        // One that has just begun does not lead yet.
        await_leader(&coordinator.url);
        coordinator
    }

    /// Starts one on any free port of loopback, with its store in this folder.
    pub(crate) fn start_in(place: &Place, state: &Path) -> Self {
        Self::start_with(place, "127.0.0.1:0", &format!("--state {}", state.display()))
    }

    /// Starts one on any free port of loopback, with its store in an etcd at `etcd`, of which it asks such a lease.
    pub(crate) fn start_on_etcd(place: &Place, etcd: &str, lease: Duration) -> Self {
        let store = format!("--etcd {etcd} --lease-ms {}", lease.as_millis());
        Self::start_with(place, "127.0.0.1:0", &store)
    }

    fn start_with(place: &Place, listen: &str, store: &str) -> Self {
        let process = place.start(&format!("coordinator --listen {listen} {store}"));
        let line = process.await_out(|line| line.starts_with("listening on "));
        let url = line.trim_start_matches("listening on ").to_owned();
        Self { process, url }
    }

    /// The address without the scheme, to start another one there.
    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Starts a node daemon and waits until it is registered.
    pub(crate) fn worker(&self, place: &Place, name: &str, slots: u32) -> Process {
        worker(place, &self.url, name, slots)
    }

    /// Waits until the coordinator says of a job what is `wanted`.
    pub(crate) fn await_job(&self, name: &str, what: &str, wanted: impl Fn(&wire::Job) -> bool) -> wire::Job {
        let mut last = None;
        let follow = async {
            // One that has just begun does not lead yet.
            let coordinator: Endpoints = self.url.parse().unwrap();
            let leader = coordinator.leader(PATIENCE).await.unwrap();
            let mut client = JobsClient::new(leader.channel);
            let request = wire::JobRequest {
                name: name.to_owned(),
            };
            let mut updates = client.watch(request).await.unwrap().into_inner();
            while let Ok(Some(update)) = updates.message().await {
                let Some(wire::update::What::Job(job)) = update.what else {
                    continue;
                };
                let found = wanted(&job);
                last = Some(job);
                if found {
                    return true;
                }
            }
            false
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let found = runtime.block_on(async { tokio::time::timeout(PATIENCE, follow).await });
        match (found, last) {
            (Ok(true), Some(job)) => job,
            (_, last) => panic!("{name} is not {what}; it is {last:#?}"),
        }
    }
}

/// Waits until one of the coordinators at `urls` leads.
pub(crate) fn await_leader(urls: &str) {
    let endpoints: Endpoints = urls.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(endpoints.leader(PATIENCE)).unwrap();
}

/// As [`worker`], one slot; its rank has the fault, which `docs/faults.md` explains.
pub(crate) fn faulty_worker(place: &Place, urls: &str, name: &str, fault: &str) -> Process {
    let mut command = place.command(&format!("worker --coordinator {urls} --name {name} --slots 1"));
    command.env(lockstep_faults::VARIABLE, fault);
    let worker = Process::start(&mut command);
    worker.await_err(|line| line.contains("registered with"));
    worker
}

/// The members that an event of the kind `epoch` names, and the step after which it begins.
pub(crate) fn epoch(text: &str) -> (u64, Vec<String>) {
    let base = text.split("after step ").nth(1).unwrap();
    let base = base.split(' ').next().unwrap().parse().unwrap();
    let names = text.split(['(', ')']).nth(1).unwrap();
    (base, names.split(", ").map(str::to_owned).collect())
}

/// Starts a node daemon of the coordinators at `urls` and waits until it is registered with the one that leads.
pub(crate) fn worker(place: &Place, urls: &str, name: &str, slots: u32) -> Process {
    let worker = place.start(&format!(
        "worker --coordinator {urls} --name {name} --slots {slots}"
    ));
    worker.await_err(|line| line.contains("registered with"));
    worker
}
