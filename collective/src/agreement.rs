//! How the members of a group agree on the way between them.
//!
//! Shared memory serves members of one host, and TCP those of different ones. All must agree on who does what.
//!
//! 1. Greetings say of which host a member is, or of none. They tell everybody the same. If one is of none, or no two
//!    are of the same, all take TCP.
//! 2. Who is not alone on its host makes a segment and tells the others where it is, or that there is none.
//! 3. Who has opened the segments of all others of its host says so; who cannot, takes its own back.
//!
//! A member takes shared memory when all others have said that they have opened theirs, and TCP as soon as one has
//! said that there is none. As each says the same to all, of all hosts, and never both, all come to the same end.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use lockstep_engine::ids::{Epoch, Rank, Step};
use lockstep_shm::Ticket;

use crate::call::Place as Caller;
use crate::error::CollectiveError;
use crate::fold::Segment;
use crate::frame::{Header, Kind};
use crate::hosts::Hosts;
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
    /// The segments in each host, and links between them. A member that is alone on its host has only these.
    Across(Arc<Hosts>, Option<Arc<Mutex<Neighbours>>>),
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
            let way = match way {
                Way::Shared(_) => "shared memory",
                Way::Across(..) => "shared memory in each host and TCP between them",
                Way::Tcp | Way::Broken(_) => "TCP",
            };
            tracing::info!(epoch = %caller.epoch, members = caller.members, "reduces over {way}");
        }
        self.set_way(way);
        agreed
    }

    fn agree(&mut self, caller: Caller) -> Result<Way, CollectiveError> {
        let Some(hosts) = self.hosts()?.filter(|hosts| !hosts.are_apart()) else {
            return Ok(Way::Tcp);
        };
        let around = hosts.around(caller.rank);
        let mut outbox = Outbox::new(caller.members as usize);
        let make = || Place::make(around.len() as u32);
        let place = match (around.len() > 1).then(make).transpose() {
            Ok(place) => place,
            Err(error) => {
                tracing::warn!(%error, "no shared memory: takes TCP");
                say(caller, &mut outbox, Kind::Segment, &[]);
                self.hear(caller.epoch, &mut outbox, &BTreeSet::new(), &mut Vec::new())?;
                return Ok(Way::Tcp);
            }
        };
        if let Some(place) = &place {
            say(caller, &mut outbox, Kind::Segment, &encode(&place.ticket()));
        }
        let mut tickets = vec![None; around.len()];
        let is_other = |rank: &Rank| *rank != caller.rank;
        let mut silent: BTreeSet<Rank> = around.iter().copied().filter(is_other).collect();
        let mut not_ready: BTreeSet<Rank> = (0..caller.members).map(Rank).filter(is_other).collect();
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
                        // Those of other hosts are nothing to this member.
                        if let Some(at) = around.iter().position(|&member| member == rank) {
                            tickets[at] = Some(ticket);
                            silent.remove(&rank);
                        }
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
                match place.map(|place| place.join(around, &tickets)).transpose() {
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
                let neighbours = neighbours.map(|neighbours| Arc::new(Mutex::new(neighbours)));
                return Ok(match neighbours {
                    Some(neighbours) if hosts.members().len() == 1 => Way::Shared(neighbours),
                    neighbours => Way::Across(Arc::new(hosts), neighbours),
                });
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
