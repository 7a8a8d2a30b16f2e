//! Carries the engine's rank machine between the coordinator's stream and the executor.
//!
//! The stream may break at any time: the machine and the executor go on with what they have, and when a coordinator is
//! found again, it is told what this rank holds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lockstep_collective::{Handle, PeerLost};
use lockstep_engine::ids::{Epoch, Lane, Step, WorkerId};
use lockstep_engine::membership::{Member, Membership};
use lockstep_engine::rank::{Command, Event, RankMachine, Word};
use lockstep_faults::Point;
use lockstep_proto::convert::required;
use lockstep_proto::wire;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::Error;
use crate::checkpoints::{Checkpoints, Written};
use crate::executor::{Ending, Gain, Work, identity};
use crate::link::Link;

/// One rank's life in its job.
pub(crate) struct Session {
    pub(crate) machine: RankMachine,
    pub(crate) worker: WorkerId,
    pub(crate) address: SocketAddr,
    pub(crate) work: std::sync::mpsc::Sender<Work>,
    pub(crate) plane: Handle,
    pub(crate) checkpoints: Arc<Checkpoints>,
    /// Tells the executor that its state is about to be forgotten.
    pub(crate) void: Arc<AtomicBool>,
    /// Up to the coordinator; `None` while there is none.
    pub(crate) up: Option<mpsc::Sender<wire::RankUp>>,
    /// When it last said anything there.
    pub(crate) spoke: Instant,
    /// The members of the last announced epoch, to tell losses by name.
    pub(crate) members: BTreeMap<String, WorkerId>,
    pub(crate) spans: BTreeMap<Lane, Range<u64>>,
    pub(crate) finished: Option<wire::Finished>,
}

/// What comes from the process's own threads.
pub(crate) struct Inside {
    pub(crate) endings: mpsc::Receiver<Ending>,
    pub(crate) losses: mpsc::UnboundedReceiver<PeerLost>,
    pub(crate) written: mpsc::UnboundedReceiver<Written>,
}

/// Why a stretch with one coordinator ended.
enum Parted {
    /// The job is over.
    Over,
    /// The stream broke.
    Lost(String),
}

impl Session {
    /// Lives until the job is over or this rank is out. The caller tells the coordinator of a fatal error, on the link
    /// that is left in `link`.
    pub(crate) async fn run(
        &mut self,
        link: &mut Link,
        inside: &mut Inside,
        heartbeat: Duration,
    ) -> Result<(), Error> {
        loop {
            match self.serve(link, inside, heartbeat).await? {
                Parted::Over => return Ok(()),
                Parted::Lost(reason) => {
                    tracing::warn!(
                        "lost the coordinator: {reason}; holding the state, looking for the next one"
                    );
                    self.up = None;
                }
            }
            let mut again = std::pin::pin!(link.reopen());
            // What the process does by itself goes on.
            let reopened = loop {
                tokio::select! {
                    reopened = &mut again => break reopened?,
                    Some(ending) = inside.endings.recv() => self.ended(ending).await?,
                    Some(lost) = inside.losses.recv() => self.lost(lost).await?,
                    Some(written) = inside.written.recv() => self.written(written).await?,
                }
            };
            if !reopened {
                return Ok(());
            }
            tracing::info!("found a coordinator again; holding {:?}", self.machine.held());
        }
    }

    async fn serve(
        &mut self,
        link: &mut Link,
        inside: &mut Inside,
        heartbeat: Duration,
    ) -> Result<Parted, Error> {
        self.up = Some(link.up.clone());
        self.ready().await?;
        loop {
            // All that is said is a sign of life.
            let beat = tokio::time::sleep_until(self.spoke + heartbeat);
            tokio::select! {
                biased;
                message = link.down.message() => {
                    let what = match message {
                        Ok(Some(message)) => required("message", message.what),
                        Ok(None) => return Ok(Parted::Lost("it closed the connection".to_owned())),
                        Err(status) => return Ok(Parted::Lost(status.message().to_owned())),
                    };
                    let what = what.map_err(|error| Error::Fatal(format!("the coordinator's message: {error}")))?;
                    if let Some(how) = self.take(what).await? {
                        tracing::info!("the job is over: {how}");
                        return Ok(Parted::Over);
                    }
                }
                Some(ending) = inside.endings.recv() => self.ended(ending).await?,
                Some(lost) = inside.losses.recv() => self.lost(lost).await?,
                Some(written) = inside.written.recv() => self.written(written).await?,
                () = beat => self.send(wire::rank_up::What::Heartbeat(wire::Heartbeat {})).await,
            }
        }
    }

    /// Tells the coordinator, if there is one. What is lost with a connection, the next coordinator learns from what
    /// this rank holds.
    async fn send(&mut self, what: wire::rank_up::What) {
        self.spoke = Instant::now();
        let Some(up) = &self.up else { return };
        if up.send(wire::RankUp { what: Some(what) }).await.is_err() {
            self.up = None;
        }
    }

    async fn ready(&mut self) -> Result<(), Error> {
        let (checkpoints, holds) = (self.checkpoints.clone(), self.machine.held().is_some());
        let steps = tokio::task::spawn_blocking(move || checkpoints.scout(holds))
            .await
            .map_err(|error| Error::Fatal(format!("look for checkpoints: {error}")))?
            .map_err(Error::Fatal)?;
        let ready = wire::RankReady {
            address: self.address.to_string(),
            checkpoints: steps.into_iter().map(|Step(step)| step).collect(),
            offer: self.machine.offer().as_ref().map(Into::into),
        };
        self.send(wire::rank_up::What::Ready(ready)).await;
        Ok(())
    }

    /// Handles a message from the coordinator; says how the job ended if it did.
    async fn take(&mut self, what: wire::rank_down::What) -> Result<Option<String>, Error> {
        use wire::rank_down::What;
        let invalid =
            |error: lockstep_proto::WireError| Error::Fatal(format!("the coordinator's message: {error}"));
        let event = match what {
            What::Welcome(_) => return Ok(None),
            What::Membership(message) => {
                let membership = Membership::try_from(message).map_err(invalid)?;
                let name = |member: &Member| (identity(&member.worker), member.worker.clone());
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
            What::Committed(commit) => Event::Committed(commit.into()),
            What::Follow(follow) => Event::Follow {
                epoch: Epoch(follow.epoch),
                donor: required("follow.donor", follow.donor)
                    .and_then(Member::try_from)
                    .map_err(invalid)?,
            },
            What::Seal(seal) => {
                let (step, epoch) = (Step(seal.step), Epoch(seal.epoch));
                if let Err(reason) = self.checkpoints.seal(step, epoch, &seal.shards) {
                    self.written(Written::Failed { step, reason }).await?;
                }
                return Ok(None);
            }
            What::Evicted(evicted) => return Err(Error::Evicted(evicted.reason)),
            What::Ended(ended) => return Ok(Some(ended.how)),
            What::Give(_) | What::Over(_) => {
                return Err(Error::Fatal("the coordinator's message is of a build".to_owned()));
            }
        };
        self.give(event).await?;
        Ok(None)
    }

    async fn ended(&mut self, ending: Ending) -> Result<(), Error> {
        match ending.gain {
            Some(Gain::Damaged(reason)) => return Err(Error::Damaged(reason)),
            Some(Gain::Spans(spans)) => self.spans = spans,
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

    async fn written(&mut self, written: Written) -> Result<(), Error> {
        use wire::rank_up::What;
        let what = match written {
            Written::Shard { snapshot, record } => What::Shard(wire::ShardWritten {
                snapshot: Some(snapshot.into()),
                record,
            }),
            Written::Sealed { step, weights } => What::Checkpoint(wire::CheckpointWritten {
                step: step.0,
                weights,
            }),
            Written::Failed { step, reason } => {
                tracing::warn!("the checkpoint of step {step}: {reason}");
                What::CheckpointFailed(wire::CheckpointFailed { step: step.0, reason })
            }
        };
        self.send(what).await;
        Ok(())
    }

    async fn give(&mut self, event: Event) -> Result<(), Error> {
        for command in self.machine.step(event) {
            match command {
                Command::Raise(epoch) => {
                    self.plane.raise(epoch);
                    tracing::debug!(%epoch, "is fenced by the epoch");
                }
                Command::Run(task) => self.ask(Work::Task(task))?,
                Command::Ready => {
                    if self.machine.held().is_none() {
                        self.void.store(true, Ordering::Release);
                        self.ask(Work::Forget)?;
                    }
                    self.ready().await?;
                }
                Command::Tell(word) => self.tell(word).await?,
            }
        }
        Ok(())
    }

    fn ask(&self, work: Work) -> Result<(), Error> {
        self.work
            .send(work)
            .map_err(|_| Error::Fatal("the executor thread ended; see the log above".to_owned()))
    }

    async fn tell(&mut self, word: Word) -> Result<(), Error> {
        use wire::rank_up::What;
        let what = match word {
            Word::Holding { epoch } => What::Holding(wire::Holding { epoch: epoch.0 }),
            Word::Following { step } => What::Following(wire::Following { step: step.0 }),
            Word::Computed {
                epoch,
                step,
                lanes,
                took,
            } => What::Computed(wire::Computed {
                epoch: epoch.0,
                step: step.0,
                lanes,
                microseconds: took.as_micros() as u64,
            }),
            Word::Reduced {
                epoch,
                step,
                result,
                lanes,
            } => {
                lockstep_faults::reach(Point::BeforeVerdict, step.0);
                let span = |lane: Lane| {
                    let positions = self.spans.get(&lane).cloned().unwrap_or_default();
                    wire::Span {
                        from: positions.start,
                        to: positions.end,
                    }
                };
                What::Reduced(wire::Reduced {
                    epoch: epoch.0,
                    step: step.0,
                    digest: result.digest,
                    loss: result.loss,
                    spans: lanes.into_iter().map(span).collect(),
                    finite: result.finite,
                    weights: result.weights,
                })
            }
            Word::PeerLost { epoch, peer, reason } => What::PeerLost(wire::PeerLost {
                epoch: epoch.0,
                peer: Some((&peer).into()),
                reason,
            }),
            Word::Finished { epoch } => {
                let finished = self.finished.clone().unwrap_or_default();
                What::Finished(wire::Finished {
                    epoch: epoch.0,
                    ..finished
                })
            }
            Word::Fatal(reason) => return Err(Error::Fatal(reason)),
        };
        tracing::debug!(worker = %self.worker, ?what, "tells");
        self.send(what).await;
        Ok(())
    }
}
