//! The members of a group that are of one host: everybody's segment, and how far everybody is.
//!
//! Each member makes a segment for each epoch, writes it alone, and maps those of the others to read. Of a member
//! that was lost, or has lost its place and wakes again, nobody reads the segment any more, and it has no way to
//! write another.
//!
//! One word of the segment says how many stages its member has been through in this epoch. Which stages there are
//! follows from the arguments, so all know what it means that a member has come so far.

use std::io;
use std::time::Duration;

use lockstep_engine::ids::Rank;
use lockstep_shm::{Alarm, Segment, Ticket, View, sleep};

use crate::slots::{Slot, Slots, Writer};

/// The word that counts stages.
const STAGE: usize = 0;
/// The word that is 1 while its member sleeps.
const ASLEEP: usize = 1;
/// The word that counts what its member does meanwhile with members of other hosts: a sign of life.
const PULSE: usize = 2;
/// How often a member looks before it goes to sleep, when there is a core for each and nothing else to do for it: some
/// 20 us, as falling asleep and being woken takes no less.
const LOOKS: u32 = 400;

/// The segment of this member, before those of others are known.
#[derive(Debug)]
pub(crate) struct Place {
    slots: Slots,
    segment: Segment,
    looks: u32,
}

impl Place {
    /// Makes one for a group of so many, and sees that others can use it as this process can.
    pub(crate) fn make(members: u32) -> io::Result<Self> {
        let slots = Slots::new(members);
        let segment = Segment::create(slots.len())?;
        let view = View::open(&segment.ticket())?;
        let alarm = Alarm::default();
        sleep((&view, STAGE, 0), (&alarm, 0), (&segment, ASLEEP), Duration::ZERO)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let looks = if members as usize <= cores { LOOKS } else { 1 };
        Ok(Self {
            slots,
            segment,
            looks,
        })
    }

    /// Where others find it.
    pub(crate) fn ticket(&self) -> Ticket {
        self.segment.ticket()
    }

    /// Opens the segments of the others. `members` are their ranks in the group, and this one's; the tickets are in
    /// the same order, with none for this member.
    pub(crate) fn join(self, members: &[Rank], tickets: &[Option<Ticket>]) -> io::Result<Neighbours> {
        let len = self.slots.len() as u64;
        let open = |ticket: &Ticket| match ticket.len == len {
            true => View::open(ticket),
            false => Err(io::Error::other("its size is another")),
        };
        let views = tickets.iter().map(|ticket| ticket.as_ref().map(open).transpose());
        let views = views.collect::<io::Result<Vec<_>>>()?;
        Ok(Neighbours {
            looks: self.looks,
            slots: self.slots,
            segment: self.segment,
            members: members.to_vec(),
            views,
            stage: 0,
            pulse: 0,
            small: 0,
            head: Vec::new(),
        })
    }
}

/// All segments of a host. Ranks are those among its members, in the order of the group's.
#[derive(Debug)]
pub(crate) struct Neighbours {
    slots: Slots,
    segment: Segment,
    /// The ranks in the group.
    members: Vec<Rank>,
    views: Vec<Option<View>>,
    /// Stages that this member has been through.
    stage: u32,
    pulse: u32,
    /// Small gradients reduced.
    small: usize,
    looks: u32,
    head: Vec<u32>,
}

impl Neighbours {
    /// What lies where.
    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Stages that this member has been through.
    pub(crate) fn stage(&self) -> u32 {
        self.stage
    }

    /// The next number of a small gradient.
    pub(crate) fn count_small(&mut self) -> usize {
        self.small += 1;
        self.small
    }

    /// Begins a message of a round of an operation; with it the segments of the others, by rank.
    pub(crate) fn write(&mut self, slot: Slot, which: (u32, usize)) -> (Writer<'_>, &[Option<View>]) {
        let writer = Writer::new(&mut self.segment, slot, which, &mut self.head);
        (writer, &self.views)
    }

    /// Another member's segment.
    pub(crate) fn view(&self, rank: Rank) -> Option<&View> {
        self.views.get(rank.index())?.as_ref()
    }

    /// The rank in the group.
    pub(crate) fn member(&self, rank: Rank) -> Rank {
        self.members[rank.index()]
    }

    /// Tells everybody that this member is alive, though it comes to no stage.
    pub(crate) fn beat(&mut self) {
        self.pulse = self.pulse.wrapping_add(1);
        self.segment.publish(PULSE, self.pulse);
    }

    /// Tells everybody that a stage is over.
    pub(crate) fn advance(&mut self) {
        self.stage = self.stage.wrapping_add(1);
        self.segment.publish(STAGE, self.stage);
        if self.views.iter().flatten().any(|view| view.load(ASLEEP) != 0) {
            self.segment.wake(STAGE);
        }
    }

    /// The members that have not come to `stage` yet.
    pub(crate) fn behind(&self, stage: u32) -> impl Iterator<Item = Rank> {
        (0u32..)
            .zip(&self.views)
            .filter(move |(_, view)| {
                let is_there = |view: &View| has_reached(view.load(STAGE), stage);
                view.as_ref().is_some_and(|view| !is_there(view))
            })
            .map(|(rank, _)| Rank(rank))
    }

    /// Looks whether all have come to `stage`; for a short time if the processor has nothing else to do. Returns one that
    /// has not.
    pub(crate) fn look(&self, stage: u32, idles: bool) -> Option<Rank> {
        let looks = if idles { self.looks } else { 0 };
        for _ in 0..looks {
            self.behind(stage).next()?;
            std::hint::spin_loop();
        }
        self.behind(stage).next()
    }

    /// Sleeps until the member at `rank`, which is not at `stage` yet, is anywhere else than it is, or `alarm` rings
    /// again, for `longest` at most. Says whether anybody has given a sign of life.
    pub(crate) fn sleep(
        &self,
        (rank, stage): (Rank, u32),
        alarm: (&Alarm, u32),
        longest: Duration,
    ) -> io::Result<bool> {
        let Some(view) = self.view(rank) else {
            return Ok(true);
        };
        let (signs, seen) = (self.signs(), view.load(STAGE));
        if !has_reached(seen, stage) {
            sleep((view, STAGE, seen), alarm, (&self.segment, ASLEEP), longest)?;
        }
        Ok(self.signs() != signs || has_reached(seen, stage))
    }

    /// Signs of life of all others together.
    fn signs(&self) -> u32 {
        let sum = |sum: u32, word| sum.wrapping_add(word);
        let views = self.views.iter().flatten();
        views
            .flat_map(|view| [view.load(STAGE), view.load(PULSE)])
            .fold(0, sum)
    }
}

/// Whether a count of stages has come to another. Counts wrap around, and are never far from each other.
fn has_reached(found: u32, wanted: u32) -> bool {
    found.wrapping_sub(wanted) < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_of_life_is_one_wherever_it_comes_from() {
        let places = [0, 1, 2].map(|_| Place::make(3).unwrap());
        let tickets = [0, 1, 2].map(|rank| places[rank].ticket());
        let members = [4, 6, 9].map(Rank);
        let mut rank = 0;
        let [this, slow, mut busy] = places.map(|place| {
            let mut tickets = tickets.map(Some);
            tickets[rank] = None;
            rank += 1;
            place.join(&members, &tickets).unwrap()
        });
        let (alarm, moment) = (Alarm::default(), Duration::from_millis(1));
        let sleep = || this.sleep((Rank(1), 1), (&alarm, 0), moment).unwrap();
        assert!(!sleep());
        std::thread::scope(|scope| {
            let sleeping = scope.spawn(|| while !sleep() {});
            while !sleeping.is_finished() {
                busy.beat();
            }
        });
        assert_eq!((this.stage(), slow.stage()), (0, 0));
        assert_eq!(
            this.behind(1).map(|rank| this.member(rank)).collect::<Vec<_>>(),
            [Rank(6), Rank(9)]
        );
    }
}
