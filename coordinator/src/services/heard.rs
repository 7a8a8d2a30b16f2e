//! What a job's process says, as its machine hears it.

use std::time::Duration;

use lockstep_engine::ids::{Epoch, Step, WorkerId};
use lockstep_engine::job::{Event, Offer, Report};
use lockstep_engine::ledger::Span;
use lockstep_engine::rank::Reduced;
use lockstep_engine::tasks;
use lockstep_proto::convert::{address, required};
use lockstep_proto::{WireError, wire};

use crate::run::Heard;
use crate::summary::Evaluation;

/// A process's message as its job's machine hears it.
pub(super) fn heard(worker: &WorkerId, message: wire::RankUp) -> Result<Heard, WireError> {
    use wire::rank_up::What;
    let worker = worker.clone();
    let mut evaluation = None;
    let event = match required("message", message.what)? {
        What::Hello(_) => {
            return Err(WireError::Invalid {
                field: "message",
                problem: "a second hello".to_owned(),
            });
        }
        What::Heartbeat(_) => return Ok(Heard::Heartbeat(worker)),
        What::Ready(ready) => Event::Joined {
            worker,
            address: address("ready.address", &ready.address)?,
            checkpoints: ready.checkpoints.into_iter().map(Step).collect(),
            offer: ready.offer.map(Offer::try_from).transpose()?,
        },
        What::Following(following) => Event::Following {
            worker,
            step: Step(following.step),
        },
        What::Computed(computed) => Event::Computed {
            worker,
            epoch: Epoch(computed.epoch),
            step: Step(computed.step),
            lanes: computed.lanes,
            took: Duration::from_micros(computed.microseconds),
        },
        What::Shard(shard) => Event::ShardWritten {
            worker,
            snapshot: required("shard.snapshot", shard.snapshot)?.into(),
            record: shard.record,
        },
        What::CheckpointFailed(failed) => Event::CheckpointFailed {
            worker,
            step: Step(failed.step),
            reason: failed.reason,
        },
        What::Holding(holding) => Event::Holding {
            worker,
            epoch: Epoch(holding.epoch),
        },
        What::Reduced(reduced) => {
            let span = |span: wire::Span| Span {
                positions: span.from..span.to,
                worker: worker.clone(),
            };
            Event::Reduced(Report {
                epoch: Epoch(reduced.epoch),
                step: Step(reduced.step),
                result: Reduced {
                    digest: reduced.digest,
                    loss: reduced.loss,
                    finite: reduced.finite,
                    weights: reduced.weights,
                },
                spans: reduced.spans.into_iter().map(span).collect(),
                worker,
            })
        }
        What::PeerLost(lost) => Event::PeerLost {
            by: worker,
            epoch: Epoch(lost.epoch),
            peer: required("peer_lost.peer", lost.peer)?.try_into()?,
            reason: lost.reason,
        },
        What::Checkpoint(written) => Event::CheckpointWritten {
            worker,
            step: Step(written.step),
            weights: written.weights,
        },
        What::Finished(finished) => {
            evaluation = finished.evaluation.map(|evaluation| Evaluation {
                bits_per_byte: evaluation.bits_per_byte,
                gzip_bits_per_byte: evaluation.gzip_bits_per_byte,
            });
            Event::Finished {
                worker,
                epoch: Epoch(finished.epoch),
                weights: finished.weights,
            }
        }
        What::Fatal(fatal) => {
            let reason = fatal.reason;
            return Ok(Heard::Fatal { worker, reason });
        }
        What::Entered(entered) => {
            let entry = entered.into();
            return Ok(Heard::Build(tasks::Event::Entered { worker, entry }));
        }
        What::TaskDone(wire::Task { phase, task }) => {
            return Ok(Heard::Build(tasks::Event::Done { worker, phase, task }));
        }
        What::Built(wire::Built { summary }) => {
            return Ok(Heard::Build(tasks::Event::Built { worker, summary }));
        }
    };
    Ok(Heard::Training { event, evaluation })
}
