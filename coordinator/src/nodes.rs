//! The machines: whose daemons are connected, what runs in their slots, which of them are drained.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_engine::ids::{JobId, NodeId, WorkerId};
use lockstep_engine::placement::Slot;
use lockstep_engine::time::Instant;
use lockstep_proto::wire;
use tokio::sync::mpsc;
use tonic::Status;

/// Down to a node daemon.
pub(crate) type DaemonSender = mpsc::Sender<Result<wire::DaemonDown, Status>>;

/// A daemon as it introduced itself.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// One for each stream, unlike any other.
    pub(crate) connection: u64,
    /// One for each process.
    pub(crate) incarnation: u128,
    pub(crate) address: String,
    pub(crate) interface: String,
    /// Which bits it computes.
    pub(crate) numerics: String,
    pub(crate) slots: u32,
    pub(crate) down: DaemonSender,
}

/// All machines.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    daemons: BTreeMap<NodeId, (Daemon, Instant)>,
    /// What runs, or was told to start, in which slot.
    occupied: BTreeMap<Slot, Tenant>,
    drained: BTreeSet<NodeId>,
    /// Slots whose results were wrong, until the coordinator is started anew: by then somebody has looked.
    quarantined: BTreeSet<Slot>,
}

/// The process in a slot, and of which job.
#[derive(Clone, Debug)]
struct Tenant {
    job: JobId,
    incarnation: u128,
}

fn slot_of(worker: &WorkerId) -> Slot {
    Slot {
        node: worker.node.clone(),
        slot: worker.slot,
    }
}

impl Nodes {
    pub(crate) fn new(drained: BTreeSet<NodeId>) -> Self {
        Self {
            drained,
            ..Self::default()
        }
    }

    /// Takes a daemon in, with the ranks that it runs. Those of jobs that are not `wanted` it is told to kill.
    ///
    /// The same process may connect anew at any time; another one only when the first is silent.
    ///
    /// # Errors
    /// When another process of that name is alive, or those that are there compute other bits; in words.
    pub(crate) fn connect(
        &mut self,
        now: Instant,
        node: &NodeId,
        daemon: Daemon,
        running: Vec<(JobId, WorkerId)>,
        wanted: impl Fn(&JobId) -> bool,
    ) -> Result<(), String> {
        if let Some((old, heard)) = self.daemons.get(node) {
            let lives = !old.down.is_closed() && now.since(*heard) <= lockstep_proto::DAEMON_SILENCE;
            if old.incarnation != daemon.incarnation && lives {
                return Err(format!(
                    "a node named `{node}` is connected already; give each machine its own --name"
                ));
            }
        }
        let differs = |other: &NodeId, (there, heard): &(Daemon, Instant)| {
            let lives = !there.down.is_closed() && now.since(*heard) <= lockstep_proto::DAEMON_SILENCE;
            other != node && lives && there.numerics != daemon.numerics
        };
        let odd = self.daemons.iter().filter(|(other, there)| differs(other, there));
        let odd: Vec<NodeId> = odd.map(|(other, _)| other.clone()).collect();
        // Whoever works on a job knows better than one that idles, which may only have come first to a new leader.
        let works = running.iter().any(|(job, _)| wanted(job));
        let idles = |other: &NodeId| !self.occupied.keys().any(|slot| slot.node == *other);
        if works && odd.iter().all(idles) {
            for other in &odd {
                tracing::warn!(%other, "sent away: it computes other bits than {node}, which works");
                self.daemons.remove(other);
            }
        } else if let Some((other, there)) = odd
            .first()
            .and_then(|other| Some((other, &self.daemons.get(other)?.0)))
        {
            return Err(format!(
                "node `{node}` computes other bits than node `{other}`: its numerics are {}, not {}; \
                 run the same build of lockstep on all nodes",
                daemon.numerics, there.numerics
            ));
        }
        self.daemons.insert(node.clone(), (daemon, now));
        self.occupied.retain(|slot, _| slot.node != *node);
        for (job, worker) in running {
            if worker.node != *node {
                continue;
            }
            if !wanted(&job) {
                tracing::info!(%worker, %job, "the job is not known or over: its rank is killed");
                self.kill(&worker);
            }
            self.take(&job, &worker);
        }
        Ok(())
    }

    /// A message came from a daemon.
    pub(crate) fn heard(&mut self, now: Instant, node: &NodeId, connection: u64) {
        if let Some((daemon, heard)) = self.daemons.get_mut(node)
            && daemon.connection == connection
        {
            *heard = now;
        }
    }

    /// A daemon's stream ended; whether it was the one that counts. Its slots stay taken where the rank `lives`.
    pub(crate) fn gone(
        &mut self,
        node: &NodeId,
        connection: u64,
        lives: impl Fn(&JobId, &Slot) -> bool,
    ) -> bool {
        let counts = |(daemon, _): &(Daemon, Instant)| daemon.connection == connection;
        if !self.daemons.get(node).is_some_and(counts) {
            return false;
        }
        self.daemons.remove(node);
        self.occupied
            .retain(|slot, tenant| slot.node != *node || lives(&tenant.job, slot));
        true
    }

    /// A rank's stream is open. While its daemon has not come yet, this is all there is to know of its slot.
    pub(crate) fn rank_came(&mut self, job: &JobId, worker: &WorkerId) {
        if !self.daemons.contains_key(&worker.node) {
            self.take(job, worker);
        }
    }

    fn take(&mut self, job: &JobId, worker: &WorkerId) {
        let (job, incarnation) = (job.clone(), worker.incarnation);
        self.occupied.insert(slot_of(worker), Tenant { job, incarnation });
    }

    /// A rank's stream ended. Its daemon will tell of its end; without a daemon this is all there is to know.
    pub(crate) fn rank_went(&mut self, worker: &WorkerId) {
        if !self.daemons.contains_key(&worker.node) {
            self.exited(worker);
        }
    }

    /// A rank's process ended: its slot is free, unless another one has it by now.
    pub(crate) fn exited(&mut self, worker: &WorkerId) {
        let slot = slot_of(worker);
        let has_it = |tenant: &Tenant| tenant.incarnation == worker.incarnation;
        if self.occupied.get(&slot).is_some_and(has_it) {
            self.occupied.remove(&slot);
        }
    }

    /// The worker's results were wrong: its slot is not used any more.
    pub(crate) fn quarantine(&mut self, worker: &WorkerId) {
        self.quarantined.insert(slot_of(worker));
    }

    /// Slots that a rank may be started in.
    pub(crate) fn free(&self) -> Vec<Slot> {
        let usable = self
            .daemons
            .iter()
            .filter(|(node, _)| !self.drained.contains(*node));
        let slots = usable.flat_map(|(node, (daemon, _))| {
            (0..daemon.slots).map(|slot| Slot {
                node: node.clone(),
                slot,
            })
        });
        let taken = |slot: &Slot| self.occupied.contains_key(slot) || self.quarantined.contains(slot);
        slots.filter(|slot| !taken(slot)).collect()
    }

    /// Slots that a job has.
    pub(crate) fn placed(&self, job: &JobId) -> u32 {
        self.occupied.values().filter(|of| of.job == *job).count() as u32
    }

    /// Has a rank started.
    pub(crate) fn start(&mut self, job: &JobId, slot: Slot) {
        let worker = WorkerId {
            node: slot.node.clone(),
            slot: slot.slot,
            incarnation: uuid::Uuid::new_v4().as_u128(),
        };
        let start = wire::StartRank {
            job: job.to_string(),
            worker: Some((&worker).into()),
        };
        if self.tell(&slot.node, wire::daemon_down::What::Start(start)) {
            self.take(job, &worker);
        }
    }

    /// Has a rank killed.
    pub(crate) fn kill(&self, worker: &WorkerId) {
        let kill = wire::KillRank {
            worker: Some(worker.into()),
        };
        self.tell(&worker.node, wire::daemon_down::What::Kill(kill));
    }

    fn tell(&self, node: &NodeId, what: wire::daemon_down::What) -> bool {
        let message = wire::DaemonDown { what: Some(what) };
        let told = |(daemon, _): &(Daemon, Instant)| daemon.down.try_send(Ok(message)).is_ok();
        self.daemons.get(node).is_some_and(told)
    }

    /// Whether anything is known of a node.
    pub(crate) fn is_known(&self, node: &NodeId) -> bool {
        self.daemons.contains_key(node)
            || self.drained.contains(node)
            || self
                .occupied
                .keys()
                .chain(&self.quarantined)
                .any(|slot| slot.node == *node)
    }

    pub(crate) fn is_drained(&self, node: &NodeId) -> bool {
        self.drained.contains(node)
    }

    pub(crate) fn set_drained(&mut self, node: &NodeId, drained: bool) {
        if drained {
            self.drained.insert(node.clone());
        } else {
            self.drained.remove(node);
            self.quarantined.retain(|slot| slot.node != *node);
        }
    }

    /// The nodes as people see them: those connected, and those with something to remember.
    pub(crate) fn list(&self, now: Instant) -> Vec<wire::Node> {
        let mut names: BTreeSet<&NodeId> = self.daemons.keys().chain(&self.drained).collect();
        names.extend(
            self.occupied
                .keys()
                .chain(&self.quarantined)
                .map(|slot| &slot.node),
        );
        names.into_iter().map(|node| self.describe(now, node)).collect()
    }

    /// One node as people see it.
    pub(crate) fn describe(&self, now: Instant, node: &NodeId) -> wire::Node {
        let used = self.occupied.keys().filter(|slot| slot.node == *node).count() as u32;
        let quarantined = self.quarantined.iter().filter(|slot| slot.node == *node).count() as u32;
        let shown = wire::Node {
            name: node.to_string(),
            used,
            quarantined,
            drained: self.drained.contains(node),
            ..wire::Node::default()
        };
        match self.daemons.get(node) {
            Some((daemon, heard)) => wire::Node {
                address: daemon.address.clone(),
                interface: daemon.interface.clone(),
                slots: daemon.slots,
                connected: true,
                silent_ms: now.since(*heard).as_millis() as u64,
                ..shown
            },
            None => shown,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(milliseconds: u64) -> Instant {
        Instant(Duration::from_millis(milliseconds))
    }

    fn node() -> NodeId {
        "alpha".parse().unwrap()
    }

    fn worker(slot: u32) -> WorkerId {
        WorkerId {
            node: node(),
            slot,
            incarnation: 1,
        }
    }

    type Down = mpsc::Receiver<Result<wire::DaemonDown, Status>>;

    fn daemon(connection: u64, incarnation: u128) -> (Daemon, Down) {
        let (down, messages) = mpsc::channel(8);
        let daemon = Daemon {
            connection,
            incarnation,
            address: "10.0.0.1".into(),
            interface: String::new(),
            numerics: "same".to_owned(),
            slots: 2,
            down,
        };
        (daemon, messages)
    }

    fn job() -> JobId {
        "a".parse().unwrap()
    }

    fn slots(free: Vec<Slot>) -> Vec<u32> {
        free.into_iter().map(|slot| slot.slot).collect()
    }

    #[test]
    fn a_node_that_works_decides_the_bits_and_one_that_idles_gives_way() {
        let other: NodeId = "beta".parse().unwrap();
        let odd = |connection| {
            let (mut daemon, down) = daemon(connection, 9);
            daemon.numerics = "odd".to_owned();
            (daemon, down)
        };
        let mut nodes = Nodes::default();
        let ((first, _down), (second, mut sent_away)) = (daemon(1, 7), odd(2));
        let running = || vec![(job(), worker(0))];
        nodes.connect(at(0), &node(), first, running(), |_| true).unwrap();
        // It idles: it is the one that is refused, both named.
        let refused = nodes.connect(at(1), &other, second, Vec::new(), |_| true);
        let refused = refused.unwrap_err();
        assert!(
            refused.contains("`beta`") && refused.contains("`alpha`") && refused.contains("odd"),
            "{refused}"
        );
        assert!(sent_away.try_recv().is_err());
        // It came first to a new leader: the one that works is taken in all the same.
        let mut nodes = Nodes::default();
        let ((first, _down), (second, mut sent_away)) = (daemon(1, 7), odd(2));
        nodes
            .connect(at(0), &other, second, Vec::new(), |_| true)
            .unwrap();
        nodes.connect(at(1), &node(), first, running(), |_| true).unwrap();
        let closed = mpsc::error::TryRecvError::Disconnected;
        assert_eq!(sent_away.try_recv().unwrap_err(), closed);
        // What is gone or silent decides nothing.
        let mut nodes = Nodes::default();
        let ((first, down), (second, _sent_away)) = (daemon(1, 7), odd(2));
        nodes.connect(at(0), &node(), first, running(), |_| true).unwrap();
        drop(down);
        nodes
            .connect(at(1), &other, second, Vec::new(), |_| true)
            .unwrap();
    }

    #[test]
    fn a_daemon_may_come_back_at_once_and_another_only_when_it_is_silent() {
        let mut nodes = Nodes::default();
        let (first, _down) = daemon(1, 7);
        nodes
            .connect(at(0), &node(), first, Vec::new(), |_| true)
            .unwrap();
        nodes.heard(at(400), &node(), 1);
        let (other, _) = daemon(2, 8);
        let refused = nodes.connect(at(2_400), &node(), other, Vec::new(), |_| true);
        assert!(refused.unwrap_err().contains("`alpha` is connected already"));
        let (again, _down) = daemon(3, 7);
        nodes
            .connect(at(2_400), &node(), again, Vec::new(), |_| true)
            .unwrap();
        assert!(
            !nodes.gone(&node(), 1, |_, _| false),
            "the old stream's end is old news"
        );
        nodes.heard(at(9_000), &node(), 1);
        let (other, _down) = daemon(4, 8);
        nodes
            .connect(at(9_000), &node(), other, Vec::new(), |_| true)
            .unwrap();
        assert!(nodes.gone(&node(), 4, |_, _| false));
        assert!(nodes.free().is_empty());
    }

    #[test]
    fn slots_stay_taken_by_ranks_that_outlive_a_connection() {
        let mut nodes = Nodes::default();
        let (first, _down) = daemon(1, 7);
        nodes
            .connect(at(0), &node(), first, Vec::new(), |_| true)
            .unwrap();
        for slot in nodes.free() {
            nodes.start(&job(), slot);
        }
        assert_eq!((nodes.placed(&job()), nodes.free().len()), (2, 0));
        // The connection breaks: only the rank in slot 0 still has a stream of its own.
        assert!(nodes.gone(&node(), 1, |_, slot| slot.slot == 0));
        assert_eq!(nodes.placed(&job()), 1);
        // It comes back with both.
        let running = vec![(job(), worker(0)), (job(), worker(1))];
        let (again, _down) = daemon(2, 7);
        nodes.connect(at(0), &node(), again, running, |_| true).unwrap();
        assert_eq!((nodes.placed(&job()), nodes.free().len()), (2, 0));
        nodes.rank_went(&worker(1));
        assert_eq!(nodes.placed(&job()), 2, "its daemon will tell of its end");
        nodes.exited(&worker(1));
        assert_eq!(slots(nodes.free()), [1]);
        // What the daemon does not name any more is free.
        let (again, _down) = daemon(3, 7);
        nodes
            .connect(at(0), &node(), again, Vec::new(), |_| true)
            .unwrap();
        assert_eq!(slots(nodes.free()), [0, 1]);
    }

    #[test]
    fn a_rank_of_an_unknown_job_is_killed_and_keeps_its_slot_until_it_is_gone() {
        let mut nodes = Nodes::default();
        let (first, mut down) = daemon(1, 7);
        nodes
            .connect(at(0), &node(), first, vec![(job(), worker(1))], |_| false)
            .unwrap();
        let Ok(Ok(wire::DaemonDown {
            what: Some(wire::daemon_down::What::Kill(kill)),
        })) = down.try_recv()
        else {
            panic!("no order to kill");
        };
        assert_eq!(kill.worker, Some((&worker(1)).into()));
        assert_eq!(slots(nodes.free()), [0]);
        nodes.exited(&worker(1));
        assert_eq!(slots(nodes.free()), [0, 1]);
    }

    #[test]
    fn the_end_of_a_process_frees_no_slot_that_another_one_has() {
        let mut nodes = Nodes::default();
        let newer = WorkerId {
            incarnation: 2,
            ..worker(0)
        };
        // Nobody knows yet but the ranks themselves.
        nodes.rank_came(&job(), &worker(0));
        nodes.rank_came(&job(), &newer);
        let (first, mut down) = daemon(1, 7);
        nodes
            .connect(at(0), &node(), first, vec![(job(), newer.clone())], |_| true)
            .unwrap();
        // What a daemon says counts more than the last words of a process on their way.
        nodes.rank_came(&job(), &worker(0));
        nodes.exited(&worker(0));
        assert_eq!(slots(nodes.free()), [1]);
        nodes.exited(&newer);
        assert_eq!(slots(nodes.free()), [0, 1]);
        // One that was started and has not come yet is known by the number that it was given.
        let slot = nodes.free().remove(0);
        nodes.start(&job(), slot);
        nodes.exited(&newer);
        assert_eq!(slots(nodes.free()), [1]);
        let Ok(Ok(wire::DaemonDown {
            what: Some(wire::daemon_down::What::Start(start)),
        })) = down.try_recv()
        else {
            panic!("no order to start");
        };
        nodes.exited(&start.worker.unwrap().try_into().unwrap());
        assert_eq!(slots(nodes.free()), [0, 1]);
    }

    #[test]
    fn a_drained_node_has_no_free_slots_and_is_still_listed_when_it_is_away() {
        let mut nodes = Nodes::new([node()].into());
        assert!(nodes.is_known(&node()));
        let (first, _down) = daemon(1, 7);
        nodes
            .connect(at(0), &node(), first, Vec::new(), |_| true)
            .unwrap();
        assert!(nodes.free().is_empty());
        let shown = nodes.list(at(30)).remove(0);
        assert!(
            shown.drained && shown.connected && shown.silent_ms == 30,
            "{shown:?}"
        );
        nodes.gone(&node(), 1, |_, _| false);
        assert!(!nodes.list(at(30))[0].connected);
        nodes.set_drained(&node(), false);
        assert!(nodes.list(at(30)).is_empty());
    }

    #[test]
    fn a_slot_in_quarantine_is_counted_and_not_free_until_its_node_is_let_in_again() {
        let mut nodes = Nodes::default();
        let (first, _down) = daemon(2, 7);
        nodes
            .connect(at(0), &node(), first, Vec::new(), |_| true)
            .unwrap();
        nodes.quarantine(&worker(1));
        assert_eq!(slots(nodes.free()), [0]);
        assert_eq!(nodes.list(at(0))[0].quarantined, 1);
        nodes.set_drained(&node(), false);
        assert_eq!(slots(nodes.free()), [0, 1]);
        assert_eq!(nodes.list(at(0))[0].quarantined, 0);
    }
}
