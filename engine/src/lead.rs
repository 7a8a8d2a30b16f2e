//! Who leads among several coordinators: the machine of one candidate for a lease that a store gives out.
//!
//! The store lets at most one hold the lease and lets it run out by the store's own clock. A leader counts the same time
//! by its own clock, from the moment that it *sent* the request that prolonged the lease, less a margin; so it has
//! stepped down before anybody else can be given the lease, however slow answers are and however its clock drifts
//! within the margin. It asks nobody for that. What a leader that was paused does when it wakes is the store's
//! to refuse: writes carry the lease with them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Instant;

/// Of a lease that the store gives for `ttl`, this much is used: the rest is for clocks that run at different rates (a
/// tenth covers 5% each) and for the time between two ticks.
#[must_use]
pub fn usable(ttl: Duration) -> Duration {
    ttl - ttl / 10
}

/// How a candidate behaves.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long a lease to ask for. The store may give another.
    pub ttl: Duration,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nobody holds the lease.
    Vacant,
    /// The campaign is won, for so long from when it was begun.
    Won {
        /// The lease.
        ttl: Duration,
    },
    /// The campaign is lost, or did not come to an end, and why.
    NotWon(String),
    /// The request of this number prolonged the lease, for so long from when it was sent.
    KeptAlive {
        /// As in [`Command::KeepAlive`].
        request: u64,
        /// The lease.
        ttl: Duration,
    },
    /// The request of this number failed; the lease may still be ours.
    KeepAliveFailed {
        /// As in [`Command::KeepAlive`].
        request: u64,
        /// Why.
        reason: String,
    },
    /// The store says that the lease is not ours any more.
    Lost(String),
    /// Nothing but time passed.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Try to get the lease.
    Campaign,
    /// Prolong the lease; the answer is to name this number.
    KeepAlive(u64),
    /// Lead.
    TakeUp,
    /// Lead no more, at once; give back what may be left of the lease.
    StepDown(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Somebody else leads, or nobody: when to look again without being told.
    Standby { again: Instant },
    /// A campaign is under way since then.
    Campaigning { since: Instant },
    Leading {
        /// By this candidate's clock.
        until: Instant,
        ttl: Duration,
        /// Requests that were not answered, with when they were sent.
        requests: BTreeMap<u64, Instant>,
        /// When to ask again.
        next: Instant,
        /// Why the last request failed, if it did.
        trouble: Option<String>,
    },
}

/// One candidate.
#[derive(Clone, Debug)]
pub struct Candidate {
    rules: Rules,
    state: State,
    requests: u64,
}

impl Candidate {
    /// A candidate that campaigns with its first tick.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            state: State::Standby {
                again: Instant::default(),
            },
            requests: 0,
        }
    }

    /// Whether it leads at this moment, by its own clock.
    #[must_use]
    pub fn leads(&self, now: Instant) -> bool {
        matches!(self.state, State::Leading { until, .. } if now < until)
    }

    /// Takes what happened at `now`, returns what to do, in order.
    pub fn step(&mut self, now: Instant, event: Event) -> Vec<Command> {
        let mut out = Vec::new();
        // Whatever happened: time comes first.
        self.expire(now, &mut out);
        match event {
            Event::Vacant => {
                if matches!(self.state, State::Standby { .. }) {
                    self.campaign(now, &mut out);
                }
            }
            Event::Won { ttl } => self.won(now, ttl, &mut out),
            Event::NotWon(_) => {
                if matches!(self.state, State::Campaigning { .. }) {
                    self.stand_by(now);
                }
            }
            Event::KeptAlive { request, ttl } => self.kept_alive(request, ttl),
            Event::KeepAliveFailed { request, reason } => {
                if let State::Leading {
                    requests, trouble, ..
                } = &mut self.state
                    && requests.remove(&request).is_some()
                {
                    *trouble = Some(reason);
                }
            }
            Event::Lost(reason) => {
                if matches!(self.state, State::Leading { .. }) {
                    self.step_down(now, reason, &mut out);
                }
            }
            Event::Tick => {}
        }
        self.look_ahead(now, &mut out);
        out
    }

    fn expire(&mut self, now: Instant, out: &mut Vec<Command>) {
        let State::Leading {
            until, trouble, ttl, ..
        } = &self.state
        else {
            return;
        };
        if now >= *until {
            let why = trouble.as_deref().unwrap_or("no answer");
            let reason = format!(
                "the lease of {} ms could not be prolonged in time: {why}",
                ttl.as_millis()
            );
            self.step_down(now, reason, out);
        }
    }

    /// What is due without anything having happened.
    fn look_ahead(&mut self, now: Instant, out: &mut Vec<Command>) {
        match &mut self.state {
            State::Standby { again } if now >= *again => self.campaign(now, out),
            State::Leading {
                ttl, requests, next, ..
            } if now >= *next => {
                let longest = *ttl;
                requests.retain(|_, sent| now.since(*sent) < longest);
                self.requests += 1;
                requests.insert(self.requests, now);
                *next = now.after(*ttl / 4);
                out.push(Command::KeepAlive(self.requests));
            }
            State::Standby { .. } | State::Campaigning { .. } | State::Leading { .. } => {}
        }
    }

    fn campaign(&mut self, now: Instant, out: &mut Vec<Command>) {
        self.state = State::Campaigning { since: now };
        out.push(Command::Campaign);
    }

    fn stand_by(&mut self, now: Instant) {
        let again = now.after(self.rules.ttl / 2);
        self.state = State::Standby { again };
    }

    fn won(&mut self, now: Instant, ttl: Duration, out: &mut Vec<Command>) {
        let State::Campaigning { since } = self.state else {
            return;
        };
        let until = since.after(usable(ttl));
        if now >= until {
            let reason = format!(
                "the lease was won, but the answer took {} ms",
                now.since(since).as_millis()
            );
            self.step_down(now, reason, out);
            return;
        }
        self.state = State::Leading {
            until,
            ttl,
            requests: BTreeMap::new(),
            next: since.after(ttl / 4),
            trouble: None,
        };
        out.push(Command::TakeUp);
    }

    fn kept_alive(&mut self, request: u64, ttl: Duration) {
        let State::Leading {
            until,
            requests,
            trouble,
            ttl: lease,
            ..
        } = &mut self.state
        else {
            return;
        };
        if let Some(sent) = requests.remove(&request) {
            *until = (*until).max(sent.after(usable(ttl)));
            *lease = ttl;
            *trouble = None;
        }
    }

    fn step_down(&mut self, now: Instant, reason: String, out: &mut Vec<Command>) {
        self.stand_by(now);
        out.push(Command::StepDown(reason));
    }
}

#[cfg(test)]
mod tests;
