//! The network: ordered connections that break, and paths that let nothing through for a while.

use super::{Payload, What, World};
use crate::plan::MS;

/// An end that hears nothing for so long, as nothing passes, closes.
pub(crate) const KEEPALIVE: u64 = 250 * MS;
/// An attempt to connect through a cut fails after so long.
const CONNECT: u64 = 100 * MS;
/// No message takes longer, where something passes at all.
pub(crate) const SLOWEST: u64 = 60 * MS;

/// Where a process runs; the store is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    Coordinator(usize),
    Worker(usize),
    Store,
}

/// One life of the process of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) place: Place,
    pub(crate) life: u32,
}

pub(crate) type ConnId = usize;

/// A connection; what goes from end `i` is ordered.
#[derive(Clone, Debug)]
pub(crate) struct Conn {
    pub(crate) ends: [Process; 2],
    pub(crate) open: [bool; 2],
    last: [u64; 2],
    lost_after: [u64; 2],
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Network {
    pub(crate) conns: Vec<Conn>,
    cuts: Vec<(Place, Place, u64)>,
}

impl Network {
    /// Until when nothing passes from `from` to `to`; zero when it does.
    pub(crate) fn cut_until(&self, from: Place, to: Place) -> u64 {
        let of = |cut: &&(Place, Place, u64)| (cut.0, cut.1) == (from, to);
        self.cuts.iter().filter(of).map(|cut| cut.2).max().unwrap_or(0)
    }

    pub(crate) fn is_cut(&self, a: Place, b: Place, now: u64) -> bool {
        self.cut_until(a, b).max(self.cut_until(b, a)) > now
    }
}

impl World {
    pub(crate) fn delay(&mut self) -> u64 {
        match self.dice.below(20) {
            0 => self.dice.below(SLOWEST),
            1..5 => self.dice.below(5 * MS),
            _ => self.dice.below(MS),
        }
    }

    /// Opens a connection; its first message goes along.
    pub(crate) fn connect(&mut self, from: Process, to: Place, payload: Payload) -> ConnId {
        let conn = self.network.conns.len();
        let life = self.life(to);
        let ends = [
            from,
            Process {
                place: to,
                life: life.unwrap_or(0),
            },
        ];
        let cut = self.network.is_cut(from.place, to, self.now);
        let reached = life.is_some() && !cut;
        self.network.conns.push(Conn {
            ends,
            open: [true, reached],
            last: [0; 2],
            lost_after: [u64::MAX; 2],
        });
        if reached {
            self.send(conn, 0, payload);
        } else {
            let after = if cut { CONNECT } else { self.delay() };
            self.at(self.now + after, What::Closed { conn, to: 0 });
        }
        conn
    }

    /// Sends along a connection from its end `from`.
    pub(crate) fn send(&mut self, conn: ConnId, from: usize, payload: Payload) {
        self.send_after(0, conn, from, payload);
    }

    /// Sends something that takes so long by its size.
    pub(crate) fn send_after(&mut self, takes: u64, conn: ConnId, from: usize, payload: Payload) {
        let delay = takes + self.delay();
        let Conn { ends, open, last, .. } = &self.network.conns[conn];
        if !open[from] {
            return;
        }
        let cut = self.network.cut_until(ends[from].place, ends[1 - from].place);
        let at = (self.now.max(cut) + delay).max(last[from] + 1);
        self.network.conns[conn].last[from] = at;
        self.at(
            at,
            What::Deliver {
                conn,
                to: 1 - from,
                payload,
            },
        );
    }

    /// Whether what arrives now at this end still counts.
    pub(crate) fn arrives(&self, conn: ConnId, to: usize) -> bool {
        let conn = &self.network.conns[conn];
        conn.open[to] && self.now <= conn.lost_after[1 - to]
    }

    /// One end closes. What it sent last is lost when its process died.
    pub(crate) fn close(&mut self, conn: ConnId, end: usize, died: bool) {
        if !std::mem::replace(&mut self.network.conns[conn].open[end], false) {
            return;
        }
        let lost_after = if died {
            self.now + self.dice.below(3 * MS)
        } else {
            u64::MAX
        };
        let delay = self.delay();
        let Conn { ends, last, .. } = &self.network.conns[conn];
        let cut = self.network.cut_until(ends[end].place, ends[1 - end].place);
        let at = last[end].min(lost_after).max(self.now).max(cut) + delay;
        self.network.conns[conn].lost_after[end] = lost_after;
        self.at(at, What::Closed { conn, to: 1 - end });
        self.at(self.now + KEEPALIVE, What::KeepAlive { conn });
    }

    /// A connection breaks: both ends hear of it, each in its time.
    fn break_conn(&mut self, conn: ConnId) {
        for end in 0..2 {
            self.network.conns[conn].lost_after[end] = self.now;
            if self.network.conns[conn].open[end] {
                let at = self.now + self.delay();
                self.at(at, What::Closed { conn, to: end });
            }
        }
    }

    pub(crate) fn break_between(&mut self, a: Place, b: Place) {
        for conn in self.conns_between(a, b) {
            self.break_conn(conn);
        }
    }

    /// Nothing passes from `from` to `to` for a while.
    pub(crate) fn cut(&mut self, from: Place, to: Place, lasts: u64) {
        if from == to {
            return;
        }
        self.network.cuts.push((from, to, self.now + lasts));
        for conn in self.conns_between(from, to) {
            self.at(self.now + KEEPALIVE, What::KeepAlive { conn });
        }
    }

    /// Closes both ends of a connection through which nothing passes, or whose other end is gone.
    pub(crate) fn keep_alive(&mut self, conn: ConnId) {
        let Conn { ends, open, .. } = self.network.conns[conn].clone();
        if self.network.is_cut(ends[0].place, ends[1].place, self.now) {
            for end in (0..2).filter(|&end| open[end]) {
                self.network.conns[conn].lost_after = [self.now; 2];
                let at = self.now + self.dice.below(20 * MS);
                self.at(at, What::Closed { conn, to: end });
            }
        }
    }

    fn conns_between(&self, a: Place, b: Place) -> Vec<ConnId> {
        let between = |conn: &Conn| {
            let [x, y] = conn.ends.map(|end| end.place);
            (conn.open[0] || conn.open[1]) && ((x, y) == (a, b) || (x, y) == (b, a))
        };
        let conns = self.network.conns.iter().enumerate();
        conns
            .filter(|(_, conn)| between(conn))
            .map(|(id, _)| id)
            .collect()
    }

    /// The process is dead: all its connections close.
    pub(crate) fn close_all(&mut self, of: Process) {
        for conn in 0..self.network.conns.len() {
            for end in 0..2 {
                let it = &self.network.conns[conn];
                if it.open[end] && it.ends[end] == of {
                    self.close(conn, end, true);
                }
            }
        }
    }
}
