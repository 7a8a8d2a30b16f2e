//! How fast members are: who is slow and at what, how many lanes each gets, and when the others wait no longer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::{Job, note};
use crate::geometry::Assignment;
use crate::ids::{Rank, WorkerId};
use crate::job::{Command, NoteKind, Phase};
use crate::time::Instant;

/// Undisturbed steps that are remembered, and how many it takes to say what is usual.
const REMEMBERED: usize = 32;
const ENOUGH: usize = 5;
/// A step is late after the median and so many median absolute deviations, but not before twice the median and
/// [`GRACE`]: on a busy machine single steps take long.
const DEVIATIONS: u32 = 8;
const GRACE: Duration = Duration::from_millis(100);
/// Weights are whole numbers up to this; the fastest member has it.
const FULL_SPEED: u32 = 8;
/// Lanes are given out anew when the slowest member would have taken at most this part of its time in so many steps, one
/// after another.
const WORTH_IT: f64 = 0.8;
const PERSISTENCE: usize = 16;
/// A member is called slow when its lanes take so many times the median.
const SLOW: f64 = 1.5;
/// Of a newer measurement, in the running mean of a lane's time.
const NEWER: f64 = 0.125;

/// What was measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    /// Of the last undisturbed steps.
    steps: VecDeque<Duration>,
    /// When the step in flight was begun, or begun again.
    began: Option<Instant>,
    disturbed: bool,
    /// Who has computed its lanes of the step in flight.
    done: BTreeSet<WorkerId>,
    /// Seconds a lane, by worker.
    lane_seconds: BTreeMap<WorkerId, f64>,
    /// By rank, of the epoch.
    weights: Vec<u32>,
    /// Steps in a row after which it would have been worth it to give lanes out anew.
    lopsided: usize,
    /// Attempts to hasten the exchange of the step in flight.
    nudges: u32,
}

impl Pace {
    pub(super) fn computed(&mut self, worker: WorkerId, lanes: u32, took: Duration) {
        if lanes > 0 {
            let seconds = took.as_secs_f64() / f64::from(lanes);
            let mean = self.lane_seconds.entry(worker.clone()).or_insert(seconds);
            *mean += NEWER * (seconds - *mean);
        }
        self.done.insert(worker);
    }

    /// A step begins. It is disturbed when it began before, among other members.
    pub(super) fn begin(&mut self, now: Instant, again: bool) {
        self.disturbed |= again;
        self.began = Some(now);
        self.done.clear();
    }

    pub(super) fn committed(&mut self, now: Instant) {
        self.nudges = 0;
        let took = self.began.take().map(|began| now.since(began));
        if !std::mem::take(&mut self.disturbed)
            && let Some(took) = took
        {
            if self.steps.len() == REMEMBERED {
                self.steps.pop_front();
            }
            self.steps.push_back(took);
        }
    }

    pub(super) fn forget(&mut self, worker: &WorkerId) {
        self.lane_seconds.remove(worker);
        self.done.remove(worker);
    }

    /// How long a step may take before it is late; `None` until there is a usual time.
    fn deadline(&self) -> Option<Duration> {
        if self.steps.len() < ENOUGH {
            return None;
        }
        let median = median(self.steps.iter().copied())?;
        let deviation = median_of_deviations(&self.steps, median)?;
        Some((median + deviation * DEVIATIONS).max(median * 2) + GRACE)
    }

    /// By which the lanes of the epoch are given out, one weight a rank.
    pub(super) fn weights(&self) -> &[u32] {
        &self.weights
    }

    /// Weights by measured speed; all equal until every member's is known.
    fn measured(&self, members: &[WorkerId]) -> Vec<u32> {
        let times: Option<Vec<f64>> = members
            .iter()
            .map(|member| self.lane_seconds.get(member).copied())
            .collect();
        let times = times.unwrap_or_default();
        let fastest = times.iter().copied().fold(f64::INFINITY, f64::min);
        if times.is_empty() || fastest <= 0.0 {
            return vec![1; members.len()];
        }
        let weight = |time: &f64| ((f64::from(FULL_SPEED) * fastest / time).round() as u32).max(1);
        times.iter().map(weight).collect()
    }

    /// The time of the slowest member, in seconds, when lanes are given out by these weights.
    fn slowest(&self, members: &[WorkerId], lanes: u32, weights: &[u32]) -> f64 {
        let assignment = Assignment::weighted(lanes, weights);
        let time = |(rank, member): (u32, &WorkerId)| {
            let load = assignment.lanes_of(Rank(rank)).count() as f64;
            load * self.lane_seconds.get(member).copied().unwrap_or_default()
        };
        (0u32..).zip(members).map(time).fold(0.0, f64::max)
    }
}

fn median(times: impl Iterator<Item = Duration>) -> Option<Duration> {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

fn median_of_deviations(times: &VecDeque<Duration>, from: Duration) -> Option<Duration> {
    median(times.iter().map(|&time| time.abs_diff(from)))
}

impl Job {
    /// Weights of the members of a new epoch.
    pub(super) fn weigh(&mut self, members: &[WorkerId]) -> Vec<u32> {
        let weights = self.pace.measured(members);
        self.pace.weights.clone_from(&weights);
        self.pace.lopsided = 0;
        weights
    }

    /// Looks whether the step that is about to be committed would have been enough faster with lanes given out by what
    /// was measured.
    pub(super) fn compare_speeds(&mut self) {
        let pace = &self.pace;
        let lanes = self.rules.geometry.lanes;
        let slowest = |weights: &[u32]| pace.slowest(&self.members, lanes, weights);
        let worth_it = pace.weights.len() == self.members.len()
            && slowest(&pace.measured(&self.members)) <= WORTH_IT * slowest(&pace.weights);
        self.pace.lopsided = if worth_it { pace.lopsided + 1 } else { 0 };
    }

    /// Whether lanes are to be given out anew.
    pub(super) fn is_lopsided(&self) -> bool {
        self.pace.lopsided >= PERSISTENCE
    }

    /// The slowest member, and what it is slow at, if one stands out.
    #[must_use]
    pub fn slowest(&self) -> Option<(WorkerId, String)> {
        let time = |member: &WorkerId| self.pace.lane_seconds.get(member).copied();
        let mut times: Vec<(f64, &WorkerId)> =
            self.members.iter().filter_map(|m| Some((time(m)?, m))).collect();
        times.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (median, &(most, worker)) = (times.get((times.len().max(1) - 1) / 2)?.0, times.last()?);
        (times.len() > 1 && most > SLOW * median).then(|| {
            let text = format!(
                "computing: {:.0} ms a lane, the median is {:.0} ms",
                most * 1e3,
                median * 1e3
            );
            (worker.clone(), text)
        })
    }

    /// When a step is late: others compute the lanes of whoever is not done, and it follows them instead. What it
    /// brings before that is as good as theirs. When everybody is done, the exchange is at fault.
    pub(super) fn mind_the_slow(&mut self, now: Instant, out: &mut Vec<Command>) {
        let (Some(began), Some(deadline)) = (self.pace.began, self.pace.deadline()) else {
            return;
        };
        let late = now.since(began) > deadline;
        if !late || self.phase != Phase::Stepping || !self.condemned.is_empty() {
            return;
        }
        let slow: Vec<WorkerId> = self
            .members
            .iter()
            .filter(|member| !self.pace.done.contains(*member))
            .cloned()
            .collect();
        let step = self.committed().next();
        if slow.is_empty() {
            if now.since(began) > deadline + self.rules.lease {
                self.nudge(now, out);
            }
            return;
        }
        let rest = self.members.len() - slow.len();
        if slow.len() * 2 > self.members.len() || rest < self.rules.min_workers as usize {
            return;
        }
        let names: Vec<String> = slow.iter().map(ToString::to_string).collect();
        let names = names.join(", ");
        let text = format!(
            "{names} still computes its lanes of step {step} after {} ms; the others compute them too",
            now.since(began).as_millis()
        );
        out.push(note(NoteKind::Slow, text));
        for worker in &slow {
            if let Some(peer) = self.peers.get_mut(worker) {
                // It may come back once it has shown that it lives.
                peer.at = None;
                peer.donor = None;
            }
        }
        self.members.retain(|member| !slow.contains(member));
        slow.iter().for_each(|worker| self.orphan(worker));
        self.announce(now, &format!("{names} is too slow"), out);
    }

    /// The exchange of a step hangs although everybody has computed: connect anew, and the next time without those
    /// who have nothing to report.
    fn nudge(&mut self, now: Instant, out: &mut Vec<Command>) {
        let step = self.committed().next();
        self.pace.nudges += 1;
        let silent = self
            .members
            .iter()
            .find(|member| !self.reports.contains_key(*member))
            .cloned();
        match silent {
            Some(worker) if self.pace.nudges > 1 && !self.reports.is_empty() => {
                let reason = format!("it does not get through with the exchange of step {step}");
                self.evict(now, &worker, &reason, out);
            }
            _ => self.announce(now, "the exchange hangs; connecting anew", out),
        }
    }
}
