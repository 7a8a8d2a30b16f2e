//! What lies where in a member's segment, and messages there.
//!
//! A segment has slots of fixed places. A message in one is a header, the checksums of its blocks, and the values.
//! Blocks are what is copied, checked and added in one go: they stay in the fastest cache.
//!
//! | slots | how many | of |
//! |---|---|---|
//! | small | 2 | all partials of a small gradient, for everybody |
//! | partial | [`DEPTH`] for each other member | partials of a piece, for the member that adds it up |
//! | reduced | [`DEPTH`] | a piece that this member has added up, for everybody |

use lockstep_engine::ids::Rank;
use lockstep_shm::{Segment, View};

use crate::outbound::spoil;

/// Values of a block.
pub(crate) const BLOCK: usize = 1 << 12;
/// Rounds that can be under way at the same time.
pub(crate) const DEPTH: usize = 2;
/// Bytes of values in a small slot.
const SMALL_BYTES: usize = 128 << 10;
/// Bytes of values that a member has in its partial slots of a round, as long as every slot has
/// [`LEAST_SLOT_BYTES`].
const ROUND_BYTES: usize = 1 << 20;
/// Bytes of values in a slot, at least.
const LEAST_SLOT_BYTES: usize = 16 << 10;
/// There may be one block for so many bytes of a slot.
const LEAST_BLOCK_BYTES: usize = 256;
/// Words of a message's header: operation, round, blocks, and the checksum of these.
const HEADER: usize = 4;

/// The slots of every member's segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slots {
    members: usize,
    large: Shape,
    small: Shape,
}

/// How large a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    bytes: usize,
}

impl Shape {
    fn blocks(self) -> usize {
        self.bytes / LEAST_BLOCK_BYTES
    }

    /// Bytes before the values, a whole number of cache lines.
    fn head(self) -> usize {
        ((HEADER + self.blocks()) * size_of::<u32>()).next_multiple_of(64)
    }

    fn stride(self) -> usize {
        self.head() + self.bytes
    }

    /// The most values for each of `nodes` nodes.
    fn values(self, nodes: usize) -> usize {
        let values = self.bytes / size_of::<f32>() / nodes.max(1) / 16 * 16;
        let fits = nodes * values.div_ceil(BLOCK) <= self.blocks();
        if fits { values } else { 0 }
    }
}

/// A place for one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    at: usize,
    shape: Shape,
}

impl Slots {
    /// Those of a group of so many.
    pub(crate) fn new(members: u32) -> Self {
        let members = members as usize;
        let share = ROUND_BYTES / members.next_power_of_two();
        Self {
            members,
            large: Shape {
                bytes: share.max(LEAST_SLOT_BYTES),
            },
            small: Shape { bytes: SMALL_BYTES },
        }
    }

    /// Bytes of a segment.
    pub(crate) fn len(&self) -> usize {
        2 * self.small.stride() + DEPTH * self.members * self.large.stride()
    }

    /// The most values of a piece when a member has so many nodes; 0 if so many do not fit.
    pub(crate) fn piece_values(&self, nodes: usize) -> usize {
        self.large.values(nodes)
    }

    /// The most values of a small gradient when a member has so many nodes.
    pub(crate) fn small_values(&self, nodes: usize) -> usize {
        self.small.values(nodes)
    }

    /// Where the `number`th small gradient's partials go.
    pub(crate) fn small(&self, number: usize) -> Slot {
        Slot {
            at: number % 2 * self.small.stride(),
            shape: self.small,
        }
    }

    /// Where partials of a round go, of `from`'s segment, for `to`; and the round's sum, which is for nobody else
    /// and so lies where `from`'s own partials would.
    pub(crate) fn large(&self, round: usize, to: Rank) -> Slot {
        let number = round % DEPTH * self.members + to.index();
        Slot {
            at: 2 * self.small.stride() + number * self.large.stride(),
            shape: self.large,
        }
    }
}

/// A message that is being written.
#[derive(Debug)]
pub(crate) struct Writer<'s> {
    segment: &'s mut Segment,
    slot: Slot,
    at: usize,
    head: &'s mut Vec<u32>,
}

impl<'s> Writer<'s> {
    /// Begins one. `head` is where its header is made.
    pub(crate) fn new(
        segment: &'s mut Segment,
        slot: Slot,
        (operation, round): (u32, usize),
        head: &'s mut Vec<u32>,
    ) -> Self {
        head.clear();
        head.extend([operation, round as u32, 0, 0]);
        Self {
            segment,
            slot,
            at: 0,
            head,
        }
    }

    /// Adds values, cut in blocks.
    pub(crate) fn put(&mut self, values: &[f32]) {
        for block in values.chunks(BLOCK) {
            let bytes: &[u8] = bytemuck::cast_slice(block);
            let spoilt = (self.at == 0 && lockstep_faults::spoils_frame()).then(|| spoil(bytes));
            let at = self.slot.at + self.slot.shape.head() + self.at;
            self.segment.write(at, spoilt.as_deref().unwrap_or(bytes));
            self.head.push(crc_fast::crc32_iscsi(bytes));
            self.at += bytes.len();
        }
    }

    /// Ends it. What it says is seen by whoever sees a word that is published after this. Returns its bytes.
    pub(crate) fn finish(self) -> usize {
        self.head[2] = (self.head.len() - HEADER) as u32;
        self.head[3] = checksum(self.head);
        self.segment.write(self.slot.at, bytemuck::cast_slice(self.head));
        self.at
    }
}

/// A message that is being read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reader {
    head: Vec<u32>,
}

/// Why a message cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// It was damaged.
    Damaged,
    /// It is of another operation, or of another round of this one.
    Another,
}

impl Reader {
    /// Reads the header of a message of so many blocks.
    pub(crate) fn open(
        &mut self,
        view: &View,
        slot: Slot,
        (operation, round): (u32, usize),
        blocks: usize,
    ) -> Result<(), Unreadable> {
        self.head.clear();
        self.head.resize(HEADER + blocks, 0);
        view.read(slot.at, bytemuck::cast_slice_mut(&mut self.head));
        if self.head[3] != checksum(&self.head) {
            return Err(Unreadable::Damaged);
        }
        if self.head[..3] != [operation, round as u32, blocks as u32] {
            return Err(Unreadable::Another);
        }
        Ok(())
    }

    /// Copies block `index`, whose values begin with value `at`, to `into`.
    pub(crate) fn read(
        &self,
        view: &View,
        slot: Slot,
        (index, at): (usize, usize),
        into: &mut [f32],
    ) -> Result<(), Unreadable> {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(into);
        view.read(slot.at + slot.shape.head() + at * size_of::<f32>(), bytes);
        if self.head[HEADER + index] == crc_fast::crc32_iscsi(bytes) {
            Ok(())
        } else {
            Err(Unreadable::Damaged)
        }
    }
}

/// The checksum of a header. Those of the blocks need none: it is the same to the reader which of the two is damaged.
fn checksum(head: &[u32]) -> u32 {
    crc_fast::crc32_iscsi(bytemuck::cast_slice(&head[..HEADER - 1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_do_not_overlap_and_fill_the_segment() {
        for members in [1, 2, 3, 8, 100] {
            let slots = Slots::new(members);
            let large = (0..DEPTH).flat_map(|round| (0..members).map(move |to| (round, Rank(to))));
            let mut all: Vec<Slot> = large.map(|(round, to)| slots.large(round, to)).collect();
            all.extend([slots.small(0), slots.small(1)]);
            all.sort_by_key(|slot| slot.at);
            let mut end = 0;
            for slot in all {
                assert_eq!((slot.at, slot.at % 64), (end, 0));
                end += slot.shape.stride();
            }
            assert_eq!(end, slots.len());
        }
    }

    #[test]
    fn any_number_of_nodes_fits_or_is_refused() {
        let slots = Slots::new(64);
        for nodes in 1..2000 {
            let values = slots.piece_values(nodes);
            assert!(nodes * values * size_of::<f32>() <= slots.large.bytes);
            assert!(nodes * values.div_ceil(BLOCK) <= slots.large.blocks());
        }
        assert!(slots.piece_values(64) > 0 && slots.piece_values(65) == 0);
    }

    #[test]
    fn a_message_is_read_as_it_was_written_or_not_at_all() {
        let slots = Slots::new(2);
        let mut segment = Segment::create(slots.len()).unwrap();
        let view = View::open(&segment.ticket()).unwrap();
        let (slot, which) = (slots.large(1, Rank(1)), (7, 3));
        let values: Vec<f32> = (0..BLOCK + 9).map(|i| i as f32).collect();
        let mut write = |head: &mut Vec<u32>| {
            let mut message = Writer::new(&mut segment, slot, which, head);
            message.put(&values);
            message.finish()
        };
        let mut head = Vec::new();
        assert_eq!(write(&mut head), values.len() * size_of::<f32>());
        let (mut reader, mut found) = (Reader::default(), vec![0.0; 9]);
        for (another, blocks) in [((8, 3), 2), ((7, 4), 2), ((7, 3), 1)] {
            assert_eq!(
                reader.open(&view, slot, another, blocks),
                Err(Unreadable::Another)
            );
        }
        reader.open(&view, slot, which, 2).unwrap();
        reader.read(&view, slot, (1, BLOCK), &mut found).unwrap();
        assert_eq!(found, values[BLOCK..]);
        // A bit of the header, of a checksum, of a value.
        let value = slot.shape.head() + BLOCK * size_of::<f32>();
        for at in [1, HEADER * size_of::<u32>() + 5, value + 2] {
            let mut byte = [0];
            view.read(slot.at + at, &mut byte);
            segment.write(slot.at + at, &[byte[0] ^ 16]);
            let opened = reader.open(&view, slot, which, 2);
            let read = opened.and_then(|()| reader.read(&view, slot, (1, BLOCK), &mut found));
            assert_eq!(read, Err(Unreadable::Damaged), "byte {at}");
            segment.write(slot.at + at, &byte);
        }
    }
}
