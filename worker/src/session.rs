//! Carries the engine's rank machine between the coordinator's stream and the executor.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use lockstep_collective::{Handle, PeerLost};
use lockstep_engine::ids::{Epoch, Lane, Step, WorkerId};
use lockstep_engine::membership::Membership;
use lockstep_engine::rank::{Command, Event, RankMachine, Task, Word};
use lockstep_proto::convert::required;
use lockstep_proto::wire;
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::Error;
use crate::executor::{Ending, Gain, identity};

/// One rank's life in its job.
pub(crate) struct Session<Scout> {
    pub(crate) machine: RankMachine,
    pub(crate) worker: WorkerId,
    pub(crate) address: SocketAddr,
    pub(crate) up: mpsc::Sender<wire::RankUp>,
    pub(crate) tasks: std::sync::mpsc::Sender<Task>,
    pub(crate) plane: Handle,
    /// Looks for checkpoints.
    pub(crate) scout: Scout,
    /// The members of the last announced epoch, to tell losses by name.
    pub(crate) members: BTreeMap<String, WorkerId>,
    pub(crate) reduced: Option<(String, f32, BTreeMap<Lane, Range<u64>>)>,
    pub(crate) checkpoint: String,
    pub(crate) finished: Option<wire::Finished>,
}

impl<Scout: Fn() -> Result<Vec<Step>, String>> Session<Scout> {
    /// Lives until the job is over or this rank is out. The caller tells the coordinator of a fatal error.
    pub(crate) async fn run(
        mut self,
        down: &mut Streaming<wire::RankDown>,
        mut endings: mpsc::Receiver<Ending>,
        mut losses: mpsc::UnboundedReceiver<PeerLost>,
        heartbeat: Duration,
    ) -> Result<(), Error> {
        self.ready().await?;
        let mut beats = tokio::time::interval(heartbeat);
        loop {
            tokio::select! {
                biased;
                message = down.message() => {
                    let message = message.map_err(|status| Error::Lost(status.message().to_owned()))?;
                    let message = message.ok_or_else(|| Error::Lost("it closed the connection".to_owned()))?;
                    let what = required("message", message.what).map_err(|error| Error::Lost(error.to_string()))?;
                    if let Some(how) = self.take(what).await? {
                        tracing::info!("the job is over: {how}");
                        return Ok(());
                    }
                }
                Some(ending) = endings.recv() => self.ended(ending).await?,
                Some(lost) = losses.recv() => self.lost(lost).await?,
                _ = beats.tick() => self.send(wire::rank_up::What::Heartbeat(wire::Heartbeat {})).await?,
            }
        }
    }

    async fn send(&self, what: wire::rank_up::What) -> Result<(), Error> {
        let message = wire::RankUp { what: Some(what) };
        self.up
            .send(message)
            .await
            .map_err(|_| Error::Lost("its stream is closed".to_owned()))
    }

    async fn ready(&self) -> Result<(), Error> {
        match (self.scout)() {
            Ok(steps) => {
                let checkpoints = steps.into_iter().map(|step| step.0).collect();
                let address = self.address.to_string();
                self.send(wire::rank_up::What::Ready(wire::RankReady {
                    address,
                    checkpoints,
                }))
                .await
            }
            Err(reason) => Err(Error::Fatal(reason)),
        }
    }

    /// Handles a message from the coordinator; says how the job ended if it did.
    async fn take(&mut self, what: wire::rank_down::What) -> Result<Option<String>, Error> {
        use wire::rank_down::What;
        let event = match what {
            What::Welcome(_) => return Ok(None),
            What::Membership(message) => {
                let membership = Membership::try_from(message)
                    .map_err(|error| Error::Lost(format!("announcement: {error}")))?;
                let name = |member: &lockstep_engine::membership::Member| {
                    (identity(&member.worker), member.worker.clone())
                };
                self.members = membership.members.iter().map(name).collect();
                Event::Announced(membership)
            }
            What::Hold(hold) => {
                tracing::info!("waits: {}", hold.reason);
                Event::Held {
                    epoch: Epoch(hold.epoch),
                    forget: hold.forget,
                }
            }
            What::Committed(commit) => Event::Committed {
                epoch: Epoch(commit.epoch),
                step: Step(commit.step),
                ends_epoch: commit.ends_epoch,
                recorded: Step(0),
            },
            What::Evicted(evicted) => return Err(Error::Evicted(evicted.reason)),
            What::Ended(ended) => return Ok(Some(ended.how)),
        };
        self.give(event).await?;
        Ok(None)
    }

    async fn ended(&mut self, ending: Ending) -> Result<(), Error> {
        match ending.gain {
            Some(Gain::Reduced { digest, loss, spans }) => self.reduced = Some((digest, loss, spans)),
            Some(Gain::Checkpoint { weights }) => self.checkpoint = weights,
            Some(Gain::Finished { weights, evaluation }) => {
                let evaluation =
                    evaluation.map(|(bits_per_byte, gzip_bits_per_byte, bytes)| wire::Evaluation {
                        bits_per_byte,
                        gzip_bits_per_byte,
                        bytes,
                    });
                self.finished = Some(wire::Finished {
                    epoch: 0,
                    weights,
                    evaluation,
                });
            }
            None => {}
        }
        self.give(Event::Ended(ending.end)).await
    }

    async fn lost(&mut self, lost: PeerLost) -> Result<(), Error> {
        let Some(peer) = self.members.get(&lost.identity).cloned() else {
            return Ok(());
        };
        self.give(Event::PeerLost {
            epoch: lost.epoch,
            peer,
            reason: lost.reason.to_string(),
        })
        .await
    }

    async fn give(&mut self, event: Event) -> Result<(), Error> {
        for command in self.machine.step(event) {
            match command {
                Command::Raise(epoch) => self.plane.raise(epoch),
                Command::Run(task) => self
                    .tasks
                    .send(task)
                    .map_err(|_| Error::Fatal("the executor thread ended; see the log above".to_owned()))?,
                Command::Ready => self.ready().await?,
                Command::Tell(word) => self.tell(word).await?,
            }
        }
        Ok(())
    }

    async fn tell(&mut self, word: Word) -> Result<(), Error> {
        use wire::rank_up::What;
        let what = match word {
            Word::Holding { epoch } => What::Holding(wire::Holding { epoch: epoch.0 }),
            Word::Reduced {
                epoch, step, lanes, ..
            } => {
                let (digest, loss, spans) = self.reduced.take().unwrap_or_default();
                let span = |lane: Lane| {
                    let positions = spans.get(&lane).cloned().unwrap_or_default();
                    wire::Span {
                        from: positions.start,
                        to: positions.end,
                    }
                };
                let spans = lanes.into_iter().map(span).collect();
                What::Reduced(wire::Reduced {
                    epoch: epoch.0,
                    step: step.0,
                    digest,
                    loss,
                    spans,
                })
            }
            Word::PeerLost { epoch, peer, reason } => What::PeerLost(wire::PeerLost {
                epoch: epoch.0,
                peer: Some((&peer).into()),
                reason,
            }),
            Word::CheckpointWritten { step } => {
                let weights = std::mem::take(&mut self.checkpoint);
                What::Checkpoint(wire::CheckpointWritten {
                    step: step.0,
                    weights,
                })
            }
            Word::Finished { epoch } => {
                let finished = self.finished.take().unwrap_or_default();
                What::Finished(wire::Finished {
                    epoch: epoch.0,
                    ..finished
                })
            }
            Word::Fatal(reason) => return Err(Error::Fatal(reason)),
        };
        tracing::debug!(worker = %self.worker, ?what, "tells");
        self.send(what).await
    }
}
