//! Which job gets which free slot: first come, first served, and whoever runs already comes first.

use crate::ids::{JobId, NodeId};

/// What a job that is not over wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Which.
    pub job: JobId,
    /// Ranks that it has, running or starting.
    pub placed: u32,
    /// It starts only when so many slots are free.
    pub min_workers: u32,
    /// It takes no more than so many.
    pub max_workers: u32,
}

/// A slot of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// Where.
    pub node: NodeId,
    /// Which, counted from 0.
    pub slot: u32,
}

/// Fills the `free` slots, in their order, with the jobs' `demands`, in order of submission.
///
/// Jobs that have ranks get their replacements first. Then queued jobs start, in order; one that does not fit
/// holds back those behind it, so that a large job is not starved by small ones.
#[must_use]
pub fn place(demands: &[Demand], free: &[Slot]) -> Vec<(JobId, Slot)> {
    let mut free = free.iter().cloned();
    let mut placed = Vec::new();
    let (running, queued): (Vec<&Demand>, Vec<&Demand>) =
        demands.iter().partition(|demand| demand.placed > 0);
    for demand in running {
        let wanted = demand.max_workers.saturating_sub(demand.placed) as usize;
        placed.extend(free.by_ref().take(wanted).map(|slot| (demand.job.clone(), slot)));
    }
    for demand in queued {
        if free.len() < demand.min_workers as usize {
            break;
        }
        let wanted = demand.max_workers as usize;
        placed.extend(free.by_ref().take(wanted).map(|slot| (demand.job.clone(), slot)));
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(count: u32) -> Vec<Slot> {
        (0..count)
            .map(|slot| Slot {
                node: "n".parse().unwrap(),
                slot,
            })
            .collect()
    }

    fn demand(job: &str, placed: u32, min_workers: u32, max_workers: u32) -> Demand {
        Demand {
            job: job.parse().unwrap(),
            placed,
            min_workers,
            max_workers,
        }
    }

    fn counts(demands: &[Demand], free: u32) -> Vec<usize> {
        let placed = place(demands, &slots(free));
        demands
            .iter()
            .map(|demand| placed.iter().filter(|(job, _)| *job == demand.job).count())
            .collect()
    }

    #[test]
    fn replacements_come_first_then_the_queue_in_order() {
        let demands = [demand("queued", 0, 2, 4), demand("running", 3, 1, 4)];
        assert_eq!(counts(&demands, 1), [0, 1]);
        assert_eq!(counts(&demands, 2), [0, 1], "one slot is left, two are needed");
        assert_eq!(counts(&demands, 4), [3, 1]);
        assert_eq!(counts(&demands, 9), [4, 1]);
    }

    #[test]
    fn a_large_job_is_not_starved_by_small_ones_behind_it() {
        assert_eq!(
            counts(&[demand("large", 0, 4, 4), demand("small", 0, 1, 1)], 3),
            [0, 0]
        );
        assert_eq!(
            counts(&[demand("large", 0, 4, 4), demand("small", 0, 1, 1)], 5),
            [4, 1]
        );
    }

    #[test]
    fn no_slot_is_given_twice() {
        let placed = place(
            &[demand("a", 1, 1, 3), demand("b", 0, 1, 3), demand("c", 0, 1, 3)],
            &slots(6),
        );
        let mut used: Vec<&Slot> = placed.iter().map(|(_, slot)| slot).collect();
        used.sort();
        used.dedup();
        assert_eq!(used.len(), placed.len());
    }
}
