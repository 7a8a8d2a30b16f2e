//! The framing of feeds: what was told is what is read, and nothing else ever is.

use std::io;

use proptest::prelude::*;

use super::*;

const JOB: u64 = 7;

/// A feed as told, what a follower is to make of it, and what the follower said when it asked.
#[derive(Clone, Debug)]
struct Story {
    told: Vec<Told>,
    held: Option<Step>,
    at_least: Step,
    shape: Shape,
}

impl Story {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for told in &self.told {
            told.write(&mut bytes, JOB, Epoch(3), |_| {}).unwrap();
        }
        bytes
    }

    fn advances(&self) -> Vec<Advance> {
        let advance = |told: &Told| {
            Some(match told {
                Told::Same(step) => Advance::Same { step: *step },
                Told::State { step, parts } => Advance::State {
                    step: *step,
                    parts: parts.iter().map(|part| part.to_vec()).collect(),
                },
                Told::Gradient { step, gradient } => Advance::Gradient {
                    step: *step,
                    values: gradient.as_ref().map(|gradient| gradient.to_vec()),
                },
                Told::Refused(_) | Told::Idle => return None,
            })
        };
        self.told.iter().filter_map(advance).collect()
    }

    /// What is made of `bytes`, to the error that ends it.
    fn read(&self, bytes: &[u8], gulp: usize) -> (Vec<Advance>, LossReason) {
        let mut intake = Intake {
            job: JOB,
            shape: self.shape.clone(),
            at_least: self.at_least,
            held: self.held,
            reached: None,
        };
        let (mut from, mut advances) = (Trickle { bytes, gulp }, Vec::new());
        loop {
            // What a buffer held before must not show.
            match intake.read(&mut from, |len| vec![f32::NAN; len], |_| {}) {
                Ok(advance) => advances.push(advance),
                Err(reason) => return (advances, reason),
            }
        }
    }
}

/// A connection that never gives more than a gulp.
struct Trickle<'a> {
    bytes: &'a [u8],
    gulp: usize,
}

impl Read for Trickle<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = self.gulp.min(into.len());
        self.bytes.read(&mut into[..len])
    }
}

/// Any bits but those of not-a-numbers, which do not equal themselves.
fn values(len: usize) -> impl Strategy<Value = Arc<Vec<f32>>> {
    let value = any::<u32>().prop_map(|bits| {
        let value = f32::from_bits(bits);
        if value.is_nan() { -0.0 } else { value }
    });
    prop::collection::vec(value, len).prop_map(Arc::new)
}

fn stories() -> impl Strategy<Value = Story> {
    let shapes = (prop::collection::vec(0usize..9, 0..4), 0usize..9);
    (shapes, 0u64..5, 0u8..3).prop_flat_map(|((state, gradient), first, start)| {
        let parts: Vec<_> = state.iter().map(|&len| values(len)).collect();
        let step = prop_oneof![
            values(gradient).prop_map(|values| Some(Some(values))),
            Just(Some(None)),
            Just(None)
        ];
        let steps = prop::collection::vec(step, 0..6);
        (parts, values(gradient), steps).prop_map(move |(parts, missed, steps)| {
            let (mut step, held) = (Step(first + 1), Step(first));
            let (start, held) = match start {
                0 => (Told::State { step, parts }, None),
                1 => (Told::Same(step), Some(step)),
                _ => (
                    Told::Gradient {
                        step,
                        gradient: Some(missed),
                    },
                    Some(held),
                ),
            };
            let mut told = vec![Told::Idle, start];
            for gradient in steps {
                told.push(match gradient {
                    Some(gradient) => {
                        step = step.next();
                        Told::Gradient { step, gradient }
                    }
                    None => Told::Idle,
                });
            }
            let shape = Shape {
                state: state.clone(),
                gradient,
            };
            let at_least = Step(first);
            Story {
                told,
                held,
                at_least,
                shape,
            }
        })
    })
}

proptest! {
    #[test]
    fn what_is_told_is_read(story in stories(), gulp in 1usize..200) {
        let (advances, end) = story.read(&story.bytes(), gulp);
        prop_assert_eq!(advances, story.advances());
        prop_assert_eq!(end, LossReason::Closed);
    }

    #[test]
    fn a_flipped_bit_ends_it_and_a_cut_one_loses_no_more_than_its_end(
        story in stories(), place: prop::sample::Index, bit in 0u8..8, gulp in 1usize..200,
    ) {
        let mut bytes = story.bytes();
        let at = place.index(bytes.len());
        let (before, end) = story.read(&bytes[..at], gulp);
        prop_assert!(story.advances().starts_with(&before));
        prop_assert!(matches!(end, LossReason::Closed | LossReason::Truncated));
        bytes[at] ^= 1 << bit;
        let (advances, end) = story.read(&bytes, gulp);
        prop_assert_eq!(advances, before);
        prop_assert!(matches!(end, LossReason::Frame(_)), "{:?}", end);
    }

    #[test]
    fn a_follower_takes_nothing_that_it_cannot_use(story in stories(), place: prop::sample::Index) {
        let bytes = story.bytes();
        let refused = |story: &Story, accepted: usize| {
            let (advances, end) = story.read(&bytes, 1 << 10);
            advances == story.advances()[..accepted] && matches!(end, LossReason::Frame(FrameError::Feed { .. }))
        };
        let first = story.advances()[0].step();
        let with = |at_least: Step, held: Option<Step>, state: &[usize]| {
            let (shape, told) = (Shape { state: state.to_vec(), ..story.shape }, story.told.clone());
            refused(&Story { told, held, at_least, shape }, 0)
        };
        let (at_least, held, state) = (story.at_least, story.held, story.shape.state.as_slice());
        let too_early = with(first.next(), held, state);
        prop_assert!(too_early);
        if matches!(story.told[1], Told::State { .. }) {
            let another_shape = with(at_least, held, &[state, &[0]].concat());
            prop_assert!(another_shape);
        } else {
            for other in [None, Some(first.next())] {
                let another_base = with(at_least, other, state);
                prop_assert!(another_base);
            }
        }
        // A step that is left out, or told twice.
        let told = |told: &Told| matches!(told, Told::Gradient { .. });
        let places: Vec<usize> = (2..story.told.len()).filter(|&at| told(&story.told[at])).collect();
        if let [_, .., last] = places[..] {
            let victim = places[place.index(places.len() - 1)];
            let (mut skipping, mut stuttering) = (story.clone(), story.clone());
            skipping.told.remove(victim);
            stuttering.told.insert(last, story.told[victim].clone());
            for bad in [skipping, stuttering] {
                let (advances, end) = story.read(&bad.bytes(), 1 << 10);
                prop_assert!(advances.len() < story.advances().len() && story.advances().starts_with(&advances));
                prop_assert!(matches!(end, LossReason::Frame(FrameError::Feed { .. })), "{:?}", end);
            }
        }
    }

    #[test]
    fn noise_is_never_taken_in(noise in prop::collection::vec(any::<u8>(), 0..300), story in stories()) {
        let bytes = [story.bytes(), noise.clone()].concat();
        let (advances, end) = story.read(&bytes, 64);
        prop_assert_eq!(advances, story.advances());
        prop_assert_eq!(end == LossReason::Closed, noise.is_empty());
    }
}

#[test]
fn large_parts_come_in_pieces() {
    let len = 2 * PIECE_VALUES + 3;
    let part: Vec<f32> = (0..len as u32).map(|i| i as f32).collect();
    let story = Story {
        told: vec![
            Told::State {
                step: Step(4),
                parts: vec![Arc::new(part[..PIECE_VALUES].to_vec())],
            },
            Told::Gradient {
                step: Step(5),
                gradient: Some(Arc::new(part)),
            },
        ],
        held: None,
        at_least: Step(0),
        shape: Shape {
            state: vec![PIECE_VALUES],
            gradient: len,
        },
    };
    let bytes = story.bytes();
    assert_eq!(story.read(&bytes, usize::MAX).0, story.advances());
    // Two announcements, and 1 and 3 pieces.
    let payload = 8 * 2 + 4 * (len + PIECE_VALUES);
    assert_eq!(bytes.len(), 6 * crate::frame::HEADER_BYTES + payload);
}

#[test]
fn a_refusal_is_told_in_words() {
    let mut story = Story {
        told: vec![Told::Idle, Told::Refused("not now".to_owned())],
        held: None,
        at_least: Step(0),
        shape: Shape {
            state: vec![],
            gradient: 0,
        },
    };
    let end = (Vec::new(), LossReason::Refused("not now".to_owned()));
    assert_eq!(story.read(&story.bytes(), 64), end);
    // Not in the middle: nobody says that.
    story.told.insert(
        0,
        Told::State {
            step: Step(0),
            parts: vec![],
        },
    );
    let (advances, end) = story.read(&story.bytes(), 64);
    assert_eq!(advances.len(), 1);
    assert!(matches!(end, LossReason::Frame(_)));
}
