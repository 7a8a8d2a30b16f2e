//! The store: a leader's lease, and what only the leader of the day may write.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_engine::ids::{Epoch, Step};
use lockstep_engine::job::Outcome;
use lockstep_engine::ledger::Entry;

use super::network::{Place, Process};
use super::{What, World};
use crate::invariants::planted_here;
use crate::plan::MS;

/// How long a lease lasts by the store's clock.
pub(crate) const LEASE: u64 = 300 * MS;

#[derive(Clone, Debug)]
pub(crate) enum Write {
    Record(Entry),
    Truncate(Step),
    Checkpoint(Step, String),
    End(Outcome),
}

#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// Become leader, or stay it.
    Lease {
        term: u64,
        sent: u64,
    },
    Load {
        term: u64,
    },
    Persist {
        term: u64,
        epoch: Epoch,
    },
    Write {
        term: u64,
        number: u64,
        write: Write,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// The lease runs until a lease after the moment, by the asker's clock, at which it asked.
    Leased {
        term: u64,
        sent: u64,
    },
    /// Somebody else leads.
    Refused,
    Loaded {
        term: u64,
        epoch: Epoch,
        ledger: Vec<Entry>,
    },
    Persisted(Epoch),
    Written(u64),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    holder: Option<(Process, u64)>,
    term: u64,
    pub(crate) expires: u64,
    pub(crate) down_until: u64,
    pub(crate) slow_until: u64,
    epoch: Epoch,
    persisted_by: u64,
    pub(crate) ledger: Vec<Entry>,
    pub(crate) checkpoints: BTreeMap<Step, String>,
    written: BTreeSet<(u64, u64)>,
    pub(crate) outcome: Option<Outcome>,
}

impl Store {
    /// Whether the leader of `term` leads by the store's own clock.
    pub(crate) fn leads(&self, term: u64, now: u64) -> bool {
        (self.term == term || planted_here("the last leader may still write"))
            && self.holder.is_some()
            && now < self.expires
    }

    /// The last epoch that was stored.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn lease(&mut self, who: Process, term: u64, now: u64) -> Option<u64> {
        if self.term == term && now < self.expires && self.holder == Some((who, term)) {
            self.expires = now + LEASE;
            return Some(term);
        }
        if term != 0 || now < self.expires {
            return None;
        }
        self.term += 1;
        self.holder = Some((who, self.term));
        self.expires = now + LEASE;
        Some(self.term)
    }
}

impl World {
    pub(crate) fn ask(&mut self, who: Process, request: Request) {
        let at = self.now + self.delay();
        if !self.network.is_cut(who.place, Place::Store, self.now) {
            self.at(at, What::Asked { who, request });
        }
    }

    pub(crate) fn asked(&mut self, who: Process, request: Request) {
        if self.now < self.store.down_until {
            return;
        }
        let slow = if self.now < self.store.slow_until {
            40 * MS
        } else {
            MS
        };
        let Some(reply) = self.answer(who, request) else {
            return;
        };
        let at = self.now + self.delay() + self.dice.below(slow);
        if !self.network.is_cut(who.place, Place::Store, self.now) {
            self.at(at, What::Replied { who, reply });
        }
    }

    fn answer(&mut self, who: Process, request: Request) -> Option<Reply> {
        let now = self.now;
        let store = &mut self.store;
        let reply = match request {
            Request::Lease { term, sent } => match store.lease(who, term, now) {
                Some(term) => Reply::Leased { term, sent },
                None => Reply::Refused,
            },
            Request::Load { term } if store.leads(term, now) => Reply::Loaded {
                term,
                epoch: store.epoch,
                ledger: store.ledger.clone(),
            },
            Request::Persist { term, epoch } if store.leads(term, now) => {
                let again = epoch == store.epoch && store.persisted_by == term;
                if epoch > store.epoch {
                    (store.epoch, store.persisted_by) = (epoch, term);
                    Reply::Persisted(epoch)
                } else if again {
                    Reply::Persisted(epoch)
                } else {
                    Reply::Refused
                }
            }
            Request::Write { term, number, write } if store.leads(term, now) => {
                if store.written.insert((term, number)) {
                    self.stored(write);
                }
                Reply::Written(number)
            }
            _ => {
                *self.tally.entry("refused by the store").or_default() += 1;
                Reply::Refused
            }
        };
        Some(reply)
    }

    fn stored(&mut self, write: Write) {
        match write {
            Write::Record(entry) => {
                self.check_recorded(&entry);
                self.store.ledger.push(entry);
            }
            Write::Truncate(step) => {
                if (step.0 as usize) < self.store.ledger.len() {
                    *self.tally.entry("ledger cut").or_default() += 1;
                }
                self.watch.lineage.cut(step);
                self.store.ledger.truncate(step.0 as usize);
            }
            Write::Checkpoint(step, weights) => {
                self.check_checkpoint(step, &weights);
                self.store.checkpoints.insert(step, weights);
            }
            Write::End(outcome) => self.store.outcome = Some(outcome),
        }
    }
}
