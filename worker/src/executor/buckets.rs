//! A gradient in the buckets in which it is reduced.
//!
//! The buffer that is reduced holds the mean loss first, then the flat gradient. A backward comes to its end with the last
//! bucket of the layout first and the first last, so this is the order in which buckets leave. The loss rides in front of
//! the bucket that leaves last.

use std::ops::Range;

use lockstep_collective::{Partials, Precision};
use lockstep_engine::geometry::Node;
use lockstep_engine::ids::Lane;
use lockstep_trainer::{Gradient, Layout};

use super::reducer::Reducer;

/// Where the gradient begins in the buffer that is reduced.
pub(super) const GRADIENT: usize = 1;

/// The buckets, in the order in which they leave.
#[derive(Clone, Debug)]
pub(super) struct Buckets {
    /// In the buffer that is reduced.
    ranges: Vec<Range<usize>>,
    /// In which of them each bucket of the layout is.
    places: Vec<usize>,
    /// How precise gradients are; the loss always is as it was computed.
    precision: Precision,
}

impl Buckets {
    /// Neighbours of the layout's are put together until they have `least` values. The loss rides with the last, if that is
    /// as precise.
    pub(super) fn of(layout: &Layout, least: usize, precision: Precision) -> Self {
        let (mut ranges, mut places) = (Vec::<Range<usize>>::new(), vec![0; layout.buckets().len()]);
        for (index, bucket) in layout.buckets().iter().enumerate().rev() {
            let bucket = bucket.start + GRADIENT..bucket.end + GRADIENT;
            match ranges.last_mut().filter(|last| last.len() < least) {
                Some(last) => last.start = bucket.start,
                None => ranges.push(bucket),
            }
            places[index] = ranges.len() - 1;
        }
        match ranges.last_mut().filter(|_| precision == Precision::F32) {
            Some(last) => last.start = 0,
            None => ranges.push(0..GRADIENT),
        }
        Self {
            ranges,
            places,
            precision,
        }
    }

    /// No partials yet, of steps of so many lanes.
    pub(super) fn partials(&self, lanes: u32) -> Vec<Partials> {
        let precision = |range: &Range<usize>| match range.start {
            0 => Precision::F32,
            _ => self.precision,
        };
        let partials = |range| Partials::with_precision(lanes, Range::len(range), precision(range));
        self.ranges.iter().map(partials).collect()
    }

    /// Their places in the buffer that is reduced.
    pub(super) fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }

    /// What the layout calls what is in one of them.
    fn name(&self, place: usize) -> String {
        let is_here = |&(_, &other): &(usize, &usize)| other == place;
        let mut inside = self
            .places
            .iter()
            .enumerate()
            .filter(is_here)
            .map(|(index, _)| index);
        match (inside.next(), inside.next_back()) {
            (Some(first), Some(last)) => format!("buckets {first} to {last} of its layout"),
            (Some(only), None) => format!("bucket {only} of its layout"),
            (None, _) => "the loss".to_owned(),
        }
    }

    /// How many buckets of the layout are in each; the loss counts as one.
    fn parts(&self) -> Vec<usize> {
        let mut parts = vec![0; self.ranges.len()];
        self.places.iter().for_each(|&place| parts[place] += 1);
        parts.iter_mut().last().into_iter().for_each(|last| *last += 1);
        parts
    }
}

/// The gradient of a lane under way. In its last microbatch buckets go to the partials as soon as they are whole, and on
/// to the other members if this lane was all that their reduction waits for here.
pub(super) struct LaneGradient<'a> {
    lane: Lane,
    buckets: &'a Buckets,
    partials: &'a mut [Partials],
    reducer: Option<&'a mut Reducer>,
    values: Vec<Vec<f32>>,
    /// What each bucket still waits for; nothing is known before the last microbatch.
    missing: Option<Vec<usize>>,
    /// What a network adds to a bucket that has left: it is thrown away.
    late: Vec<f32>,
    problem: Option<String>,
}

impl<'a> LaneGradient<'a> {
    /// Zeros.
    pub(super) fn new(
        lane: Lane,
        buckets: &'a Buckets,
        partials: &'a mut [Partials],
        reducer: Option<&'a mut Reducer>,
    ) -> Self {
        Self {
            lane,
            buckets,
            values: partials.iter().map(Partials::buffer).collect(),
            partials,
            reducer,
            missing: None,
            late: Vec::new(),
            problem: None,
        }
    }

    /// The microbatch that comes is the lane's last.
    pub(super) fn end_with_next(&mut self) {
        self.missing = Some(self.buckets.parts());
    }

    /// Adds the mean loss of a microbatch.
    pub(super) fn add_loss(&mut self, mean: f32) {
        let last = self.values.len() - 1;
        if let Some(sum) = self.values[last].first_mut() {
            *sum += mean;
        }
        self.part_is_done(last);
    }

    /// Whether all went well; if not, what went wrong.
    pub(super) fn end(self) -> Result<(), String> {
        let lane = self.lane;
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        match self.missing.iter().flatten().position(|&missing| missing > 0) {
            Some(bucket) => Err(format!(
                "the network did not say of all of {} in lane {lane} that it is done: call `Gradient::done` once for each bucket of its \
                 layout",
                self.buckets.name(bucket)
            )),
            None => Ok(()),
        }
    }

    /// What went wrong first is what counts.
    fn fails(&mut self, problem: impl FnOnce(Lane) -> String) {
        self.problem.get_or_insert_with(|| problem(self.lane));
    }

    /// Whether a bucket has left.
    fn is_gone(&self, bucket: usize) -> bool {
        self.missing.as_ref().is_some_and(|missing| missing[bucket] == 0)
    }

    fn part_is_done(&mut self, bucket: usize) {
        let Some(missing) = &mut self.missing else { return };
        let Some(left) = missing[bucket].checked_sub(1) else {
            return;
        };
        missing[bucket] = left;
        if left > 0 {
            return;
        }
        let values = std::mem::take(&mut self.values[bucket]);
        if let Err(error) = self.partials[bucket].insert(Node::leaf(self.lane), values) {
            self.fails(|lane| format!("fold lane {lane}: {error}"));
        }
        if let Some(reducer) = &mut self.reducer {
            reducer.offer(bucket, &self.partials[bucket]);
        }
    }
}

impl Gradient for LaneGradient<'_> {
    fn at(&mut self, range: Range<usize>) -> &mut [f32] {
        let range = range.start + GRADIENT..range.end + GRADIENT;
        // They descend.
        let bucket = self
            .buckets
            .ranges
            .partition_point(|bucket| bucket.start > range.start);
        if self.is_gone(bucket) {
            let name = self.buckets.name(bucket);
            self.fails(|lane| {
                format!(
                    "the network added to {name} in lane {lane} after it had said of all of it that it is done: call `Gradient::done` of \
                     a bucket after the last `Gradient::at` in it"
                )
            });
            self.late.clear();
            self.late.resize(range.len(), 0.0);
            return &mut self.late;
        }
        let start = self.buckets.ranges[bucket].start;
        &mut self.values[bucket][range.start - start..range.end - start]
    }

    fn done(&mut self, bucket: usize) {
        self.part_is_done(self.buckets.places[bucket]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(sizes: &[usize], least: usize, precision: Precision) -> (Layout, Buckets) {
        let parameters = (0..)
            .zip(sizes)
            .map(|(i, &size): (usize, _)| (format!("p{i}"), vec![size], false));
        let each: Vec<Range<usize>> = (0..sizes.len()).map(|i| i..i + 1).collect();
        let layout = Layout::new(parameters, &each).unwrap();
        let buckets = Buckets::of(&layout, least, precision);
        (layout, buckets)
    }

    #[test]
    fn small_ones_are_put_together_and_the_loss_leaves_last() {
        let (_, found) = buckets(&[5, 10, 7, 2, 9], 10, Precision::F32);
        assert_eq!(found.ranges(), [23..34, 6..23, 0..6]);
        assert_eq!(found.places, [2, 1, 1, 0, 0]);
        assert_eq!(found.parts(), [2, 2, 2]);
        let (_, one) = buckets(&[3, 4], 10, Precision::F32);
        assert_eq!((one.ranges()[0].clone(), one.parts()), (0..8, vec![3]));
        let (_, apart) = buckets(&[3, 4], 10, Precision::Bf16);
        assert_eq!(
            (apart.ranges(), apart.parts()),
            ([1..8, 0..1].as_slice(), vec![2, 1])
        );
    }

    #[test]
    fn a_lane_is_folded_as_its_buckets_are_done() {
        let (layout, buckets) = buckets(&[2, 20, 30], 10, Precision::F32);
        let mut partials = buckets.partials(1);
        let mut lane = LaneGradient::new(Lane(0), &buckets, &mut partials, None);
        for microbatch in 0..2 {
            if microbatch == 1 {
                lane.end_with_next();
            }
            for (index, bucket) in layout.buckets().iter().enumerate().rev() {
                lane.at(bucket.clone())
                    .iter_mut()
                    .for_each(|value| *value += index as f32);
                lane.done(index);
            }
            lane.add_loss(0.5);
        }
        lane.end().unwrap();
        let mut reduced = vec![f32::NAN; layout.len() + GRADIENT];
        for (partials, range) in partials.iter().zip(buckets.ranges()) {
            let (node, values) = partials.iter().next().unwrap();
            assert_eq!(node, Node::root(1));
            reduced[range.clone()].copy_from_slice(values);
        }
        let runs = [(1.0, 1), (0.0, 2), (2.0, 20), (4.0, 30)];
        let expected = runs
            .into_iter()
            .flat_map(|(value, count)| std::iter::repeat_n(value, count));
        assert!(reduced.into_iter().eq(expected));
    }

    /// What is said of a lane of three buckets when a network does this with it.
    fn problem_of(network: impl FnOnce(&mut LaneGradient<'_>)) -> String {
        let (_, buckets) = buckets(&[2, 20, 30], 10, Precision::F32);
        let mut partials = buckets.partials(1);
        let mut lane = LaneGradient::new(Lane(0), &buckets, &mut partials, None);
        lane.end_with_next();
        network(&mut lane);
        lane.add_loss(0.5);
        lane.end().unwrap_err()
    }

    #[test]
    fn a_network_that_is_not_done_or_goes_on_after_it_is_told() {
        let silent = problem_of(|lane| lane.done(2));
        assert!(
            silent.contains("not say of all of bucket 1 of its layout in lane 0"),
            "{silent}"
        );
        let late = problem_of(|lane| {
            (0..3).rev().for_each(|bucket| lane.done(bucket));
            lane.at(22..52).fill(1.0);
        });
        assert!(
            late.contains("added to bucket 2 of its layout in lane 0 after"),
            "{late}"
        );
    }
}
