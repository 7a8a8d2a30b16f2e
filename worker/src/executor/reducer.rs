//! A thread that reduces buckets in their order while others are still computed.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::{io, thread};

use lockstep_collective::{CollectiveError, Endpoint, Held, Partials};
use lockstep_engine::geometry::Assignment;
use lockstep_engine::ids::{Epoch, Step};
use lockstep_faults::Point;

use super::Work;
use super::buckets::{Buckets, GRADIENT};

/// A reduction for the thread.
struct Job {
    epoch: Epoch,
    step: Step,
    assignment: Assignment,
    /// What this rank holds of each bucket. It ends early if the reduction is abandoned.
    held: Receiver<Held>,
    reduced: Vec<f32>,
}

/// How it ended.
struct End {
    reduced: Vec<f32>,
    result: Result<(), CollectiveError>,
}

/// A reduction under way.
struct Flight {
    step: Step,
    held: Sender<Held>,
    /// What is there of the buckets that have not left, and how many have.
    ready: Vec<Option<Held>>,
    left: usize,
}

/// The thread's other end.
pub(super) struct Reducer {
    endpoint: Arc<Endpoint>,
    buckets: usize,
    jobs: Option<Sender<Job>>,
    ends: Receiver<End>,
    thread: Option<JoinHandle<()>>,
    flight: Option<Flight>,
    /// The mean loss and the gradient that were reduced last; nothing while a reduction is under way.
    reduced: Vec<f32>,
}

impl Reducer {
    /// Starts the thread. It sends [`Work::Wake`] when a reduction has ended.
    pub(super) fn start(endpoint: Arc<Endpoint>, buckets: &Buckets, wake: Sender<Work>) -> io::Result<Self> {
        let (jobs, jobs_out) = channel();
        let (ends_in, ends) = channel();
        let (shared, ranges) = (endpoint.clone(), buckets.ranges().to_vec());
        let len = ranges.first().map_or(0, |first| first.end);
        let work = move || {
            let wakes = Wakes(wake);
            let ends_in = ends_in; // it ends before who waits for it is woken
            for job in jobs_out {
                ends_in.send(reduce(&shared, &ranges, job)).ok();
                wakes.0.send(Work::Wake).ok();
            }
        };
        Ok(Self {
            endpoint,
            buckets: buckets.ranges().len(),
            jobs: Some(jobs),
            ends,
            thread: Some(thread::Builder::new().name("reducer".to_owned()).spawn(work)?),
            flight: None,
            reduced: vec![0.0; len],
        })
    }

    /// What was reduced last.
    pub(super) fn reduced(&self) -> &[f32] {
        &self.reduced
    }

    /// The gradient of it, without the loss.
    pub(super) fn gradient(&self) -> &[f32] {
        self.reduced.get(GRADIENT..).unwrap_or_default()
    }

    /// The same, for drills.
    pub(super) fn gradient_mut(&mut self) -> &mut [f32] {
        self.reduced.get_mut(GRADIENT..).unwrap_or_default()
    }

    /// Whether this step is under way.
    pub(super) fn reduces(&self, step: Step) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.step == step)
    }

    /// Begins the reduction of a step in an epoch. What was reduced before is overwritten.
    pub(super) fn begin(&mut self, epoch: Epoch, step: Step, assignment: Assignment) {
        self.abandon();
        let (held, held_out) = channel();
        let job = Job {
            epoch,
            step,
            assignment,
            held: held_out,
            reduced: std::mem::take(&mut self.reduced),
        };
        if let Some(jobs) = &self.jobs {
            jobs.send(job).ok();
        }
        self.flight = Some(Flight {
            step,
            held,
            ready: vec![None; self.buckets],
            left: 0,
        });
    }

    /// What this rank holds of a bucket of the step under way is final. It leaves when those before it have.
    pub(super) fn offer(&mut self, bucket: usize, partials: &Partials) {
        let Some(flight) = &mut self.flight else { return };
        flight.ready[bucket] = Some(partials.all_held());
        while let Some(held) = flight.ready.get_mut(flight.left).and_then(Option::take) {
            if flight.left == 0 {
                lockstep_faults::reach(Point::BeforeSend, flight.step.0);
            }
            flight.left += 1;
            // If the thread has given up, its end says why.
            flight.held.send(held).ok();
        }
    }

    /// How the reduction under way has ended, if it has.
    ///
    /// [`CollectiveError::Closed`] if the thread itself has.
    pub(super) fn ended(&mut self) -> Option<Result<(), CollectiveError>> {
        let end = match self.ends.try_recv() {
            Ok(end) => end,
            Err(TryRecvError::Empty) => return None,
            // The thread has panicked, and has said why.
            Err(TryRecvError::Disconnected) => return Some(Err(CollectiveError::Closed)),
        };
        self.flight = None;
        self.reduced = end.reduced;
        Some(end.result)
    }

    /// Ends a reduction that nobody wants any more; of an epoch that is over, so that it waits for nobody.
    pub(super) fn abandon(&mut self) {
        if self.flight.take().is_some()
            && let Ok(end) = self.ends.recv()
        {
            self.reduced = end.reduced;
        }
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        self.endpoint.handle().raise(Epoch(u64::MAX));
        self.flight = None;
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the runtime.
            thread.join().ok();
        }
    }
}

/// Wakes the executor also when its thread panics.
struct Wakes(Sender<Work>);

impl Drop for Wakes {
    fn drop(&mut self) {
        self.0.send(Work::Wake).ok();
    }
}

fn reduce(endpoint: &Endpoint, ranges: &[Range<usize>], job: Job) -> End {
    let Job {
        epoch,
        step,
        assignment,
        held,
        mut reduced,
    } = job;
    let result = (0u32..).zip(ranges).try_for_each(|(bucket, range)| {
        let Ok(held) = held.recv() else {
            return Ok(()); // abandoned: nobody asks how it ended
        };
        endpoint.reduce(
            (epoch, step, bucket),
            &assignment,
            &held,
            &mut reduced[range.clone()],
        )
    });
    End { reduced, result }
}
