//! One all-reduce through the segments of neighbours.
//!
//! Every member is at work on the same pieces at the same time, in rounds. In a round each puts its partials where
//! the owners of the pieces find them, adds up the piece of its own, and takes those that others have added up.
//! The three parts of a round follow each other with the same parts of other rounds in between, so that a member
//! that is a little late holds nobody up:
//!
//! | iteration | puts partials of round | adds up round | takes the sums of round |
//! |---|---|---|---|
//! | `t` | `t` | `t - 1` | `t - 2` |
//!
//! A member says after each part that it is done with it: three stages an iteration. A small gradient takes one
//! stage: everybody puts all partials, and everybody adds all up.
//!
//! Where there are other hosts, the first two parts are one walk over all rounds, and the third is another after what
//! there is to do [between hosts](crate::across): two stages an iteration each.

use std::ops::Range;

use lockstep_engine::geometry::Node;
use lockstep_engine::ids::Rank;

use crate::call::Call;
use crate::error::CollectiveError;
use crate::neighbours::Neighbours;
use crate::operation::Operation;
use crate::plan;
use crate::slots::{BLOCK, DEPTH, Reader, Slot, Slots, Unreadable};
use crate::state::Traffic;
use crate::walk::{Leaf, Levels, Walk};

/// Values of a gradient that goes by the caches: 16 MiB.
const LARGE: usize = 4 << 20;

/// How a gradient goes through the segments.
#[derive(Debug)]
pub(crate) struct Rounds {
    /// One for each sum.
    walks: Vec<Walk>,
    /// The pieces of each member, of which each is for a round.
    pieces: Vec<Vec<Range<usize>>>,
    is_small: bool,
}

impl Rounds {
    /// Of this call, which adds up these nodes. `None` if a member has so many nodes that no slot has room for them.
    pub(crate) fn new(call: &Call<'_>, sums: &[Node], slots: &Slots) -> Option<Self> {
        let most = call.nodes.iter().map(Vec::len).max().unwrap_or_default();
        let (piece, small) = (slots.piece_values(most), slots.small_values(most));
        if piece == 0 {
            return None;
        }
        let mut pieces = vec![Vec::new(); call.nodes.len()];
        for piece in plan::pieces(call.held.len(), call.place.members, piece) {
            pieces[piece.owner.index()].push(piece.range);
        }
        let walks = sums.iter().map(|&sum| Walk::new(&call.nodes, sum));
        Some(Self {
            walks: walks.collect::<Option<_>>()?,
            pieces,
            is_small: call.held.len() <= small,
        })
    }

    /// How many there are.
    fn count(&self) -> usize {
        self.pieces.iter().map(Vec::len).max().unwrap_or_default()
    }

    /// What a member adds up in a round.
    fn piece(&self, owner: Rank, round: usize) -> Option<Range<usize>> {
        self.pieces[owner.index()].get(round).cloned()
    }
}

/// One all-reduce under way.
pub(crate) struct Local<'a, 'o> {
    call: &'a Call<'a>,
    rounds: &'a Rounds,
    operation: &'a mut Operation<'o>,
    neighbours: &'a mut Neighbours,
    /// The values of this member's nodes.
    mine: Vec<&'a [f32]>,
    /// What tells this operation from others, and from the same with other arguments.
    tag: u32,
    readers: Vec<Reader>,
    levels: Levels,
    landing: Vec<f32>,
    /// Whether the gradient is so large that it would drive everything else out of the caches.
    passes_caches: bool,
    traffic: Traffic,
}

impl<'a, 'o> Local<'a, 'o> {
    /// Before anything is done.
    pub(crate) fn new(
        call: &'a Call<'a>,
        rounds: &'a Rounds,
        operation: &'a mut Operation<'o>,
        neighbours: &'a mut Neighbours,
    ) -> Self {
        Self {
            mine: call
                .held
                .values()
                .iter()
                .map(|(_, value)| value.values())
                .collect(),
            tag: tag(call),
            readers: vec![Reader::default(); call.nodes.len()],
            levels: Levels::new(&rounds.walks, BLOCK),
            landing: vec![0.0; BLOCK],
            passes_caches: call.held.len() >= LARGE,
            traffic: Traffic::default(),
            call,
            rounds,
            operation,
            neighbours,
        }
    }

    /// Reduces to `out`.
    pub(crate) fn run(mut self, out: &mut [f32]) -> Result<(), CollectiveError> {
        if self.rounds.is_small {
            self.at_once(out)
        } else {
            self.in_rounds(out)
        }
    }

    /// A small gradient. The slot is free: who has come to the last small gradient was done with the one before.
    fn at_once(&mut self, out: &mut [f32]) -> Result<(), CollectiveError> {
        let number = self.neighbours.count_small();
        let slot = self.neighbours.slots().small(number);
        self.put(slot, 0, 0..out.len());
        self.advance();
        lockstep_faults::reach(lockstep_faults::Point::DuringReduce, self.call.place.turn.step.0);
        self.await_stage(self.neighbours.stage())?;
        self.add_up_all((slot, None), 0, 0..out.len(), out)
    }

    fn in_rounds(&mut self, out: &mut [f32]) -> Result<(), CollectiveError> {
        let (me, slots, rounds) = (self.call.place.rank, *self.neighbours.slots(), self.rounds);
        let (count, stage) = (rounds.count(), self.stages(3));
        for t in 0..count + 2 {
            if t < count {
                if let Some(freed) = t.checked_sub(DEPTH) {
                    self.await_stage(stage(freed + 1, 2))?;
                }
                self.put_round(t);
            }
            self.advance();
            if let Some(round) = t.checked_sub(1).filter(|&round| round < count) {
                self.await_stage(stage(round, 1))?;
                if let Some(freed) = round.checked_sub(DEPTH) {
                    self.await_stage(stage(freed + 2, 3))?;
                }
                lockstep_faults::reach(lockstep_faults::Point::DuringReduce, self.call.place.turn.step.0);
                if let Some(range) = rounds.piece(me, round) {
                    let slot = slots.large(round, me);
                    self.add_up_all((slot, Some(slot)), round, range, out)?;
                }
            }
            self.advance();
            if let Some(round) = t.checked_sub(2) {
                self.await_stage(stage(round + 1, 2))?;
                self.take_round(round, out)?;
            }
            self.advance();
        }
        Ok(())
    }

    /// Adds this member's chunk up: `sums` are of the nodes that [`Rounds`] have, each of the whole chunk.
    pub(crate) fn gather(mut self, sums: &mut [&mut [f32]]) -> Result<(), CollectiveError> {
        let (me, slots, rounds) = (self.call.place.rank, *self.neighbours.slots(), self.rounds);
        let (count, stage) = (rounds.count(), self.stages(2));
        let chunk = rounds.piece(me, 0).map_or(0, |first| first.start);
        for t in 0..=count {
            if t < count {
                if let Some(freed) = t.checked_sub(DEPTH) {
                    self.await_stage(stage(freed + 1, 2))?;
                }
                self.put_round(t);
            }
            self.advance();
            if let Some(round) = t.checked_sub(1) {
                self.await_stage(stage(round, 1))?;
                lockstep_faults::reach(lockstep_faults::Point::DuringReduce, self.call.place.turn.step.0);
                if let Some(range) = rounds.piece(me, round) {
                    self.add_up((slots.large(round, me), None), round, range, |sum, at, values| {
                        sums[sum][at - chunk..][..values.len()].copy_from_slice(values);
                    })?;
                }
            }
            self.advance();
        }
        Ok(())
    }

    /// Gives this member's chunk of `out` to everybody, and takes those of all others.
    pub(crate) fn spread(mut self, out: &mut [f32]) -> Result<(), CollectiveError> {
        let (me, slots, rounds) = (self.call.place.rank, *self.neighbours.slots(), self.rounds);
        let (count, stage) = (rounds.count(), self.stages(2));
        for t in 0..=count {
            if t < count {
                if let Some(freed) = t.checked_sub(DEPTH) {
                    self.await_stage(stage(freed + 1, 2))?;
                }
                if let Some(range) = rounds.piece(me, t) {
                    let (mut message, _) = self.neighbours.write(slots.large(t, me), (self.tag, t));
                    message.put(&out[range]);
                    let bytes = message.finish();
                    self.traffic.send(bytes);
                }
            }
            self.advance();
            if let Some(round) = t.checked_sub(1) {
                self.await_stage(stage(round, 1))?;
                self.take_round(round, out)?;
            }
            self.advance();
        }
        Ok(())
    }

    /// The stage at which a part of an iteration is over, of so many parts.
    fn stages(&self, parts: u32) -> impl Fn(usize, u32) -> u32 + use<> {
        let first = self.neighbours.stage();
        move |t, part| first.wrapping_add(parts * t as u32 + part)
    }

    /// The others.
    fn others(&self) -> impl Iterator<Item = Rank> + use<> {
        let (members, me) = (self.call.place.members, self.call.place.rank);
        (0..members).map(Rank).filter(move |&rank| rank != me)
    }

    /// Puts this member's partials of the others' pieces of a round where they find them.
    fn put_round(&mut self, round: usize) {
        let slots = *self.neighbours.slots();
        for owner in self.others() {
            if let Some(range) = self.rounds.piece(owner, round) {
                self.put(slots.large(round, owner), round, range);
            }
        }
    }

    /// Takes what all others have added up in a round.
    fn take_round(&mut self, round: usize, out: &mut [f32]) -> Result<(), CollectiveError> {
        let slots = *self.neighbours.slots();
        for owner in self.others() {
            if let Some(range) = self.rounds.piece(owner, round) {
                self.take(owner, slots.large(round, owner), round, &mut out[range])?;
            }
        }
        Ok(())
    }

    /// Puts this member's partials of a range in a slot.
    fn put(&mut self, slot: Slot, round: usize, range: Range<usize>) {
        if self.mine.is_empty() {
            return;
        }
        let (mut message, _) = self.neighbours.write(slot, (self.tag, round));
        for values in &self.mine {
            message.put(&values[range.clone()]);
        }
        let bytes = message.finish();
        self.traffic.send(bytes);
    }

    /// Adds a range up to the only sum, which goes to `out`.
    fn add_up_all(
        &mut self,
        slots: (Slot, Option<Slot>),
        round: usize,
        range: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), CollectiveError> {
        let passes_caches = self.passes_caches;
        self.add_up(slots, round, range, |_, at, sum| {
            copy(sum, &mut out[at..at + sum.len()], passes_caches);
        })
    }

    /// Adds up everybody's partials of a range, which are all in the same slot of their segments. Each sum goes to
    /// `keep`, with its number and place, and to another slot.
    fn add_up(
        &mut self,
        (from, to): (Slot, Option<Slot>),
        round: usize,
        range: Range<usize>,
        mut keep: impl FnMut(usize, usize, &[f32]),
    ) -> Result<(), CollectiveError> {
        let (len, blocks) = (range.len(), range.len().div_ceil(BLOCK));
        for (rank, nodes) in (0u32..).map(Rank).zip(&self.call.nodes) {
            if let Some(view) = self.neighbours.view(rank).filter(|_| !nodes.is_empty()) {
                self.readers[rank.index()]
                    .open(view, from, (self.tag, round), blocks * nodes.len())
                    .map_err(|problem| self.cannot_read(rank, problem))?;
                self.traffic.receive(nodes.len() * len * size_of::<f32>());
            }
        }
        let (mut message, views) = self.neighbours.write(to.unwrap_or(from), (self.tag, round));
        for (number, block) in range.clone().step_by(BLOCK).enumerate() {
            let at = block - range.start;
            let block = block..(block + BLOCK).min(range.end);
            let (mine, readers) = (&self.mine, &self.readers);
            for (index, walk) in self.rounds.walks.iter().enumerate() {
                let fetch = |leaf: &Leaf, place: &mut [f32]| {
                    let Some(view) = &views[leaf.rank.index()] else {
                        return Ok(Some(&mine[leaf.index][block.clone()]));
                    };
                    let which = (leaf.index * blocks + number, leaf.index * len + at);
                    let read = readers[leaf.rank.index()].read(view, from, which, place);
                    read.map(|()| None).map_err(|problem| (leaf.rank, problem))
                };
                let shape = (block.len(), self.call.held.precision());
                match walk.fold(shape, &mut self.levels, fetch) {
                    Ok(sum) => {
                        keep(index, block.start, sum);
                        if to.is_some() {
                            message.put(sum);
                        }
                    }
                    Err((rank, problem)) => return Err(self.cannot_read(rank, problem)),
                }
            }
        }
        if to.is_some() {
            let bytes = message.finish();
            self.traffic.send(bytes);
        }
        Ok(())
    }

    /// Takes what another member has added up.
    fn take(&mut self, from: Rank, slot: Slot, round: usize, out: &mut [f32]) -> Result<(), CollectiveError> {
        let Some(view) = self.neighbours.view(from) else {
            return Ok(());
        };
        let reader = &mut self.readers[from.index()];
        let blocks = out.len().div_ceil(BLOCK);
        let mut taken = reader.open(view, slot, (self.tag, round), blocks);
        for (number, block) in out.chunks_mut(BLOCK).enumerate() {
            let (which, landing) = ((number, number * BLOCK), &mut self.landing[..block.len()]);
            taken = taken.and_then(|()| {
                if self.passes_caches {
                    reader.read(view, slot, which, landing)?;
                    copy(landing, block, true);
                    Ok(())
                } else {
                    reader.read(view, slot, which, block)
                }
            });
        }
        taken.map_err(|problem| self.cannot_read(from, problem))?;
        self.traffic.receive(size_of_val(out));
        Ok(())
    }

    fn cannot_read(&self, from: Rank, problem: Unreadable) -> CollectiveError {
        self.operation.cannot_read(self.neighbours.member(from), problem)
    }

    /// Says that a stage is over.
    fn advance(&mut self) {
        self.operation.note(&mut self.traffic);
        self.neighbours.advance();
    }

    /// Waits until all others have come to a stage.
    fn await_stage(&mut self, stage: u32) -> Result<(), CollectiveError> {
        self.operation.await_stage(self.neighbours, stage)
    }
}

fn copy(from: &[f32], to: &mut [f32], past_caches: bool) {
    if past_caches {
        lockstep_shm::stream(bytemuck::cast_slice(from), bytemuck::cast_slice_mut(to));
    } else {
        to.copy_from_slice(from);
    }
}

/// A number that members have in common if they reduce the same bucket with the same arguments.
fn tag(call: &Call<'_>) -> u32 {
    let turn = call.place.turn;
    let mut words = vec![
        turn.step.0,
        turn.bucket.into(),
        call.held.len() as u64,
        call.held.precision() as u64,
        call.root.len.into(),
    ];
    for nodes in &call.nodes {
        words.push(nodes.len() as u64);
        words.extend(
            nodes
                .iter()
                .map(|node| u64::from(node.start) << 32 | u64::from(node.len)),
        );
    }
    crc_fast::crc32_iscsi(bytemuck::cast_slice(&words))
}
