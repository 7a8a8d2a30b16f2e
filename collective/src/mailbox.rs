//! Frames that arrived before anybody asked for them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lockstep_engine::ids::{Epoch, Step};

use crate::fold::Segment;
use crate::frame::{Header, Kind};

/// A frame with its payload, and who sent it.
#[derive(Debug)]
pub(crate) struct Received {
    /// The sender's identity.
    pub(crate) sender: Arc<str>,
    /// What it says.
    pub(crate) header: Header,
    /// The values.
    pub(crate) payload: Segment,
}

/// What one operation asks for. Sorted by epoch first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Topic {
    /// The epoch of the operation.
    pub(crate) epoch: Epoch,
    /// The sender of a state; `None` for reductions, which are with everybody.
    pub(crate) state_of: Option<Arc<str>>,
    /// The step of the operation.
    pub(crate) step: Step,
}

impl Topic {
    /// The operation that a frame is for.
    fn of(frame: &Received) -> Self {
        let state_of = (frame.header.kind == Kind::State).then(|| frame.sender.clone());
        Self {
            epoch: frame.header.epoch,
            state_of,
            step: frame.header.step,
        }
    }
}

/// All waiting frames, in the order of arrival within a topic.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    topics: BTreeMap<Topic, Vec<Received>>,
    bytes: HashMap<Arc<str>, usize>,
    frames: usize,
}

impl Mailbox {
    /// Bytes waiting from `sender`.
    pub(crate) fn bytes_from(&self, sender: &str) -> usize {
        self.bytes.get(sender).copied().unwrap_or(0)
    }

    /// Bytes waiting.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.values().sum()
    }

    /// Frames waiting.
    pub(crate) fn frames(&self) -> usize {
        self.frames
    }

    /// Keeps a frame.
    pub(crate) fn put(&mut self, frame: Received) {
        *self.bytes.entry(frame.sender.clone()).or_default() += frame.header.length as usize;
        self.frames += 1;
        self.topics.entry(Topic::of(&frame)).or_default().push(frame);
    }

    /// Moves everything of `topic` to the end of `into`.
    pub(crate) fn take(&mut self, topic: &Topic, into: &mut Vec<Received>) {
        if let Some(mut frames) = self.topics.remove(topic) {
            frames.iter().for_each(|frame| self.forget(frame));
            into.append(&mut frames);
        }
    }

    /// Removes the frames that `keep` does not want, and returns them.
    pub(crate) fn sift(&mut self, mut keep: impl FnMut(&Received) -> bool) -> Vec<Received> {
        let mut removed = Vec::new();
        for frames in self.topics.values_mut() {
            removed.extend(frames.extract_if(.., |frame| !keep(frame)));
        }
        self.topics.retain(|_, frames| !frames.is_empty());
        removed.iter().for_each(|frame| self.forget(frame));
        removed
    }

    fn forget(&mut self, frame: &Received) {
        self.frames -= 1;
        if let Some(bytes) = self.bytes.get_mut(&frame.sender) {
            *bytes -= frame.header.length as usize;
            if *bytes == 0 {
                self.bytes.remove(&frame.sender);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(sender: &str, kind: Kind, epoch: u64, step: u64) -> Received {
        let header = Header {
            step: Step(step),
            length: 4,
            ..Header::bare(kind, 0, Epoch(epoch))
        };
        Received {
            sender: sender.into(),
            header,
            payload: Segment::lent(Arc::new(vec![0.0]), 0..1),
        }
    }

    #[test]
    fn frames_wait_by_topic_and_are_counted_by_sender() {
        let mut mailbox = Mailbox::default();
        for (sender, kind, epoch) in [
            ("a", Kind::Partial, 1),
            ("b", Kind::Reduced, 1),
            ("a", Kind::State, 1),
            ("b", Kind::State, 1),
            ("a", Kind::Partial, 2),
        ] {
            mailbox.put(frame(sender, kind, epoch, 7));
        }
        assert_eq!(
            (mailbox.frames(), mailbox.bytes(), mailbox.bytes_from("a")),
            (5, 20, 12)
        );
        let mut taken = Vec::new();
        mailbox.take(
            &Topic {
                epoch: Epoch(1),
                state_of: None,
                step: Step(7),
            },
            &mut taken,
        );
        mailbox.take(
            &Topic {
                epoch: Epoch(1),
                state_of: Some("b".into()),
                step: Step(7),
            },
            &mut taken,
        );
        mailbox.take(
            &Topic {
                epoch: Epoch(1),
                state_of: None,
                step: Step(8),
            },
            &mut taken,
        );
        let kinds: Vec<Kind> = taken.iter().map(|frame| frame.header.kind).collect();
        assert_eq!(kinds, [Kind::Partial, Kind::Reduced, Kind::State]);
        assert_eq!((mailbox.bytes_from("a"), mailbox.bytes_from("b")), (8, 0));
        assert_eq!(mailbox.sift(|frame| frame.header.epoch > Epoch(1)).len(), 1);
        assert_eq!((mailbox.frames(), mailbox.bytes()), (1, 4));
    }
}
