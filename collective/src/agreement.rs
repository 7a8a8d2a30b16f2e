//! How the members of a group agree on the way between them.
//!
//! Shared memory serves a group whose members are all of one host; any other takes TCP. All must take the same.
//!
//! 1. Greetings say of which host a member is, or of none. They tell everybody the same.
//! 2. When all are of one, each member makes a segment and tells the others where it is, or that there is none.
//! 3. Who has opened the segments of all says so; who cannot, takes its own back.
//!
//! A member takes shared memory when all others have said that they have opened theirs, and TCP as soon as one has
//! said that there is none. As each says the same to all, and never both, all come to the same end.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use lockstep_engine::ids::{Epoch, Rank, Step};
use lockstep_shm::Ticket;

use crate::call::Place as Caller;
use crate::error::CollectiveError;
use crate::fold::Segment;
use crate::frame::{Header, Kind};
use crate::mailbox::{Received, Topic};
use crate::neighbours::{Neighbours, Place};
use crate::operation::Operation;
use crate::reduction::{Outbox, Outgoing};

/// The way between the members of a group.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// The links.
    Tcp,
    /// The segments.
    Shared(Arc<Mutex<Neighbours>>),
    /// None any more: an operation ended in the middle of something.
    Broken(CollectiveError),
}

impl Operation<'_> {
    /// The way of this group; agrees on it the first time.
    pub(crate) fn way(&mut self, caller: Caller) -> Result<Way, CollectiveError> {
        if let Some(way) = self.known_way()? {
            return Ok(way);
        }
        let agreed = self.agree(caller);
        let way = agreed.clone().unwrap_or_else(Way::Broken);
        if let Ok(way) = &agreed {
            let way = if matches!(way, Way::Tcp) {
                "TCP"
            } else {
                "shared memory"
            };
            tracing::info!(epoch = %caller.epoch, members = caller.members, "reduces over {way}");
        }
        self.set_way(way);
        agreed
    }

    fn agree(&mut self, caller: Caller) -> Result<Way, CollectiveError> {
        if caller.members < 2 || !self.all_of_this_host()? {
            return Ok(Way::Tcp);
        }
        let mut outbox = Outbox::new(caller.members as usize);
        let place = match Place::make(caller.members, self.may_spin()) {
            Ok(place) => place,
            Err(error) => {
                tracing::warn!(%error, "no shared memory: takes TCP");
                say(caller, &mut outbox, Kind::Segment, &[]);
                self.hear(caller.epoch, &mut outbox, &BTreeSet::new(), &mut Vec::new())?;
                return Ok(Way::Tcp);
            }
        };
        say(caller, &mut outbox, Kind::Segment, &encode(&place.ticket()));
        let mut tickets = vec![None; caller.members as usize];
        let mut silent: BTreeSet<Rank> = (0..caller.members)
            .map(Rank)
            .filter(|&rank| rank != caller.rank)
            .collect();
        let mut not_ready = silent.clone();
        let mut batch = Vec::new();
        let mut place = Some(place);
        let mut neighbours = None;
        loop {
            let awaited = if silent.is_empty() { &not_ready } else { &silent };
            self.hear(caller.epoch, &mut outbox, awaited, &mut batch)?;
            for frame in batch.drain(..) {
                let Some(rank) = self.roster().rank_of(&frame.sender) else {
                    continue;
                };
                match decode(&frame) {
                    Some(Word::Ticket(ticket)) => {
                        tickets[rank.index()] = Some(ticket);
                        silent.remove(&rank);
                    }
                    Some(Word::Ready) => {
                        not_ready.remove(&rank);
                    }
                    None => return Ok(Way::Tcp),
                }
            }
            if silent.is_empty()
                && let Some(place) = place.take()
            {
                match place.join(&tickets) {
                    Ok(joined) => {
                        neighbours = Some(joined);
                        say(caller, &mut outbox, Kind::Ready, &[]);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot open a member's shared memory: takes TCP");
                        say(caller, &mut outbox, Kind::Segment, &[]);
                        self.hear(caller.epoch, &mut outbox, &BTreeSet::new(), &mut Vec::new())?;
                        return Ok(Way::Tcp);
                    }
                }
            }
            if not_ready.is_empty()
                && outbox.is_empty()
                && let Some(neighbours) = neighbours.take()
            {
                return Ok(Way::Shared(Arc::new(Mutex::new(neighbours))));
            }
        }
    }

    /// Sends what is to be said, and waits for any word of those that are `awaited`.
    fn hear(
        &mut self,
        epoch: Epoch,
        outbox: &mut Outbox,
        awaited: &BTreeSet<Rank>,
        batch: &mut Vec<Received>,
    ) -> Result<(), CollectiveError> {
        let ranks = || awaited.iter().copied().collect();
        self.exchange(outbox, &Topic::agreement(epoch), awaited.len(), ranks, batch)
    }
}

/// What a member says of its segment, but that there is none.
enum Word {
    Ticket(Ticket),
    Ready,
}

fn say(caller: Caller, outbox: &mut Outbox, kind: Kind, values: &[f32]) {
    let payload = Arc::new(values.to_vec());
    for rank in (0..caller.members).map(Rank).filter(|&rank| rank != caller.rank) {
        let frame = Outgoing {
            header: Header {
                step: Step(0),
                ..Header::bare(kind, caller.job, caller.epoch)
            },
            payload: Segment::lent(payload.clone(), 0..payload.len()),
            sealed: false,
        };
        outbox.push(rank, frame, false);
    }
}

/// A ticket as the payload of a frame, which are values: process, descriptor, length and inode.
fn encode(ticket: &Ticket) -> Vec<f32> {
    let Ticket {
        process,
        descriptor,
        len,
        inode,
    } = *ticket;
    let halves = |word: u64| [word as u32, (word >> 32) as u32];
    let ([len_low, len_high], [low, high]) = (halves(len), halves(inode));
    let words = [process, descriptor, len_low, len_high, low, high];
    words.map(f32::from_bits).to_vec()
}

fn decode(frame: &Received) -> Option<Word> {
    if frame.header.kind == Kind::Ready {
        return Some(Word::Ready);
    }
    let words: &[u32] = bytemuck::cast_slice(frame.payload.values());
    let &[process, descriptor, len_low, len_high, low, high] = words else {
        return None;
    };
    let whole = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    Some(Word::Ticket(Ticket {
        process,
        descriptor,
        len: whole(len_low, len_high),
        inode: whole(low, high),
    }))
}
