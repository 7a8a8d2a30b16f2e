//! Where each parameter lies in the flat buffers.

use std::ops::Range;

use crate::error::{Result, TrainerError};

/// One parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name, as in exported files.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its place in the flat buffers, in elements.
    pub range: Range<usize>,
    /// Whether weight decay applies.
    pub decays: bool,
}

/// Whether weight decay applies to a parameter, if its model does not say otherwise: to matrices that are no embeddings.
pub(crate) fn decays(name: &str, shape: &[usize]) -> bool {
    shape.len() >= 2 && !name.contains("embed")
}

/// All parameters, in order, without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    parameters: Vec<Parameter>,
    buckets: Vec<Range<usize>>,
}

impl Layout {
    /// From the name and shape of each parameter, and whether weight decay applies to it, in order; and consecutive
    /// ranges of parameter indices whose gradients are reduced together.
    ///
    /// # Errors
    /// [`TrainerError::Shape`] when two parameters share a name, one is empty, or the buckets are not
    /// consecutive ranges that cover all parameters.
    pub fn new(
        parameters: impl IntoIterator<Item = (String, Vec<usize>, bool)>,
        buckets: &[Range<usize>],
    ) -> Result<Self> {
        let mut at = 0;
        let place = |(name, shape, decays): (String, Vec<usize>, bool)| {
            let start = at;
            at += shape.iter().product::<usize>();
            Parameter {
                range: start..at,
                name,
                shape,
                decays,
            }
        };
        Self::of(parameters.into_iter().map(place).collect(), buckets)
    }

    fn of(parameters: Vec<Parameter>, buckets: &[Range<usize>]) -> Result<Self> {
        let problem = |problem: String| Err(TrainerError::Shape { problem });
        for (i, parameter) in parameters.iter().enumerate() {
            if parameter.range.is_empty() {
                return problem(format!("parameter `{}` is empty", parameter.name));
            }
            if parameters[..i].iter().any(|other| other.name == parameter.name) {
                return problem(format!("two parameters are called `{}`", parameter.name));
            }
        }
        let mut at = 0;
        for bucket in buckets {
            if bucket.start != at || bucket.end <= at {
                return problem(format!(
                    "bucket {bucket:?} of parameters must start at {at} and not be empty"
                ));
            }
            at = bucket.end;
        }
        if at != parameters.len() {
            return problem(format!(
                "the buckets cover {at} of {} parameters",
                parameters.len()
            ));
        }
        let flat = |bucket: &Range<usize>| {
            let start = parameters.get(bucket.start).map_or(0, |p| p.range.start);
            start..parameters.get(bucket.end - 1).map_or(0, |p| p.range.end)
        };
        let buckets = buckets.iter().map(flat).collect();
        Ok(Self { parameters, buckets })
    }

    /// The parameters, in order.
    #[must_use]
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Consecutive ranges of elements that cover the buffer, each reduced as a whole.
    #[must_use]
    pub fn buckets(&self) -> &[Range<usize>] {
        &self.buckets
    }

    /// Elements of a flat buffer.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parameters.last().map_or(0, |p| p.range.end)
    }

    /// Whether there is nothing to train.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parameters.is_empty()
    }

    /// The parameter called `name`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|p| p.name == name)
    }

    /// A flat buffer of zeros.
    #[must_use]
    pub fn zeros(&self) -> Vec<f32> {
        vec![0.0; self.len()]
    }

    /// Checks the length of a flat buffer.
    pub(crate) fn check(&self, what: &'static str, found: usize) -> Result<()> {
        let expected = self.len();
        if found == expected {
            Ok(())
        } else {
            Err(TrainerError::Length {
                what,
                found,
                expected,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parameters(sizes: &[usize]) -> Vec<Parameter> {
        let mut at = 0;
        let make = |(i, &size): (usize, &usize)| {
            at += size;
            Parameter {
                name: format!("p{i}"),
                shape: vec![size],
                range: at - size..at,
                decays: false,
            }
        };
        sizes.iter().enumerate().map(make).collect()
    }

    proptest! {
        #[test]
        fn buckets_tile_the_buffer(sizes in prop::collection::vec((1usize..50, any::<bool>()), 1..20)) {
            let (sizes, cuts): (Vec<usize>, Vec<bool>) = sizes.into_iter().unzip();
            let mut ends: Vec<usize> = (1..sizes.len()).filter(|&i| cuts[i]).collect();
            ends.push(sizes.len());
            let starts = std::iter::once(0).chain(ends.iter().copied());
            let buckets: Vec<_> = starts.zip(&ends).map(|(start, &end)| start..end).collect();
            let layout = Layout::of(parameters(&sizes), &buckets).unwrap();
            let covered: Vec<usize> = layout.buckets().iter().cloned().flatten().collect();
            prop_assert_eq!(covered, (0..layout.len()).collect::<Vec<_>>());
            for (bucket, indices) in layout.buckets().iter().zip(&buckets) {
                for parameter in &layout.parameters()[indices.clone()] {
                    prop_assert!(bucket.start <= parameter.range.start && parameter.range.end <= bucket.end);
                }
            }
        }
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "lists of one bucket")]
    fn buckets_that_leave_gaps_are_refused() {
        for bad in [
            vec![],
            vec![0..1],
            vec![0..1, 2..3],
            vec![0..2, 1..3],
            vec![0..3, 3..3],
            vec![0..4],
        ] {
            assert!(Layout::of(parameters(&[1, 2, 3]), &bad).is_err(), "{bad:?}");
        }
        let mut twins = parameters(&[1, 1]);
        twins[1].name = "p0".to_owned();
        assert!(
            Layout::of(twins, &[0..2])
                .unwrap_err()
                .to_string()
                .contains("`p0`")
        );
        assert!(Layout::of(parameters(&[1, 0]), &[0..2]).is_err());
    }
}
