//! Frames that arrived before anybody asked for them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lockstep_engine::ids::{Epoch, Step};

use crate::fold::Segment;
use crate::frame::{HEADER_BYTES, Header, Kind};

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

/// Which reduction of an epoch: they follow each other in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    /// The step.
    pub(crate) step: Step,
    /// The number of the bucket in it.
    pub(crate) bucket: u32,
}

impl Turn {
    /// The one that a frame is of.
    pub(crate) fn of(header: &Header) -> Self {
        let Header { step, bucket, .. } = *header;
        Self { step, bucket }
    }
}

/// What one operation asks for. Sorted by epoch first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Topic {
    /// The epoch of the operation.
    pub(crate) epoch: Epoch,
    /// The step of the operation, and its bucket; none while members agree on the way between them.
    pub(crate) turn: Option<Turn>,
}

impl Topic {
    /// The reduction of a bucket.
    pub(crate) fn reduction(epoch: Epoch, turn: Turn) -> Self {
        let turn = Some(turn);
        Self { epoch, turn }
    }

    /// The agreement of an epoch.
    pub(crate) fn agreement(epoch: Epoch) -> Self {
        Self { epoch, turn: None }
    }

    /// The operation that a frame is for.
    fn of(frame: &Received) -> Self {
        let Header { kind, epoch, .. } = frame.header;
        match kind {
            Kind::Segment | Kind::Ready => Self::agreement(epoch),
            _ => Self::reduction(epoch, Turn::of(&frame.header)),
        }
    }
}

/// All waiting frames, in the order of arrival within a topic.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    topics: BTreeMap<Topic, Vec<Received>>,
    by_sender: HashMap<Arc<str>, Waiting>,
    by_sender_and_topic: BTreeMap<(Arc<str>, Topic), Waiting>,
}

/// What waits of one sender, or of one sender for one operation.
#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    frames: usize,
    bytes: usize,
}

impl Waiting {
    /// In bytes, headers included: frames without a payload are not free.
    fn held(self) -> usize {
        self.bytes + self.frames * HEADER_BYTES
    }

    fn add(&mut self, frame: &Received) {
        self.bytes += frame.header.length as usize;
        self.frames += 1;
    }

    /// Whether nothing is left.
    fn remove(&mut self, frame: &Received) -> bool {
        self.bytes -= frame.header.length as usize;
        self.frames -= 1;
        self.frames == 0
    }
}

impl Mailbox {
    /// Whether there is room for a frame: less than `limit` bytes of its sender wait for the operation that asks for
    /// `current`, if it is for that one, or else for all others.
    pub(crate) fn has_room(&self, frame: &Received, current: Topic, limit: usize) -> bool {
        let sender = &frame.sender;
        let of_current = self.by_sender_and_topic.get(&(sender.clone(), current));
        let of_current = of_current.map_or(0, |waiting| waiting.held());
        if Topic::of(frame) == current {
            of_current < limit
        } else {
            self.held_of(sender) - of_current < limit
        }
    }

    fn held_of(&self, sender: &str) -> usize {
        self.by_sender.get(sender).map_or(0, |waiting| waiting.held())
    }

    /// Bytes of payloads that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.by_sender.values().map(|waiting| waiting.bytes).sum()
    }

    /// Frames that wait.
    pub(crate) fn frames(&self) -> usize {
        self.by_sender.values().map(|waiting| waiting.frames).sum()
    }

    /// Keeps a frame.
    pub(crate) fn put(&mut self, frame: Received) {
        let topic = Topic::of(&frame);
        let key = (frame.sender.clone(), topic);
        self.by_sender_and_topic.entry(key).or_default().add(&frame);
        self.by_sender
            .entry(frame.sender.clone())
            .or_default()
            .add(&frame);
        self.topics.entry(topic).or_default().push(frame);
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
        let key = (frame.sender.clone(), Topic::of(frame));
        if let Some(waiting) = self.by_sender_and_topic.get_mut(&key)
            && waiting.remove(frame)
        {
            self.by_sender_and_topic.remove(&key);
        }
        if let Some(waiting) = self.by_sender.get_mut(&frame.sender)
            && waiting.remove(frame)
        {
            self.by_sender.remove(&frame.sender);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Kind;

    fn frame(sender: &str, epoch: u64, step: u64) -> Received {
        let header = Header {
            step: Step(step),
            length: 4,
            ..Header::bare(Kind::Partial, 0, Epoch(epoch))
        };
        Received {
            sender: sender.into(),
            header,
            payload: Segment::lent(Arc::new(vec![0.0]), 0..1),
        }
    }

    fn reduction(epoch: u64, step: u64) -> Topic {
        let turn = Turn {
            step: Step(step),
            bucket: 0,
        };
        Topic::reduction(Epoch(epoch), turn)
    }

    #[test]
    fn what_an_operation_asks_for_has_room_of_its_own() {
        let mut mailbox = Mailbox::default();
        let limit = 2 * (4 + HEADER_BYTES);
        let room = |mailbox: &Mailbox, sender, step| {
            mailbox.has_room(&frame(sender, 1, step), reduction(1, 7), limit)
        };
        // Two frames of later reductions fill the room of these, and not that of the current one.
        for step in [8, 9] {
            assert!(room(&mailbox, "a", step));
            mailbox.put(frame("a", 1, step));
        }
        assert!(!room(&mailbox, "a", 8) && !room(&mailbox, "a", 10));
        assert!(room(&mailbox, "a", 7) && room(&mailbox, "b", 8));
        // Nor the other way around, and what is taken makes room.
        mailbox.put(frame("a", 1, 7));
        mailbox.put(frame("a", 1, 7));
        assert!(!room(&mailbox, "a", 7));
        mailbox.take(&reduction(1, 7), &mut Vec::new());
        assert!(room(&mailbox, "a", 7) && !room(&mailbox, "a", 8));
        mailbox.take(&reduction(1, 8), &mut Vec::new());
        assert!(room(&mailbox, "a", 8));
    }

    #[test]
    fn frames_wait_by_topic_and_are_counted_by_sender() {
        let mut mailbox = Mailbox::default();
        for (sender, epoch, step) in [("a", 1, 7), ("b", 1, 7), ("a", 1, 8), ("b", 1, 9), ("a", 2, 7)] {
            mailbox.put(frame(sender, epoch, step));
        }
        assert_eq!((mailbox.frames(), mailbox.bytes()), (5, 20));
        assert_eq!(mailbox.held_of("a"), 3 * (4 + HEADER_BYTES));
        let mut taken = Vec::new();
        for (epoch, step) in [(1, 7), (1, 9), (2, 8)] {
            mailbox.take(&reduction(epoch, step), &mut taken);
        }
        let of: Vec<_> = taken
            .iter()
            .map(|frame| (&*frame.sender, frame.header.step.0))
            .collect();
        assert_eq!(of, [("a", 7), ("b", 7), ("b", 9)]);
        assert_eq!(
            (mailbox.held_of("a"), mailbox.held_of("b")),
            (2 * (4 + HEADER_BYTES), 0)
        );
        assert_eq!(mailbox.sift(|frame| frame.header.epoch > Epoch(1)).len(), 1);
        assert_eq!((mailbox.frames(), mailbox.bytes()), (1, 4));
    }
}
