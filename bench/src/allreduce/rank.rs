//! One rank process: connects to the others, and measures.

use std::io::{self, BufRead as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use lockstep_collective::{CollectiveError, Endpoint, Group, Partials, Peer, Transport};
use lockstep_engine::geometry::{Assignment, Node};
use lockstep_engine::ids::{Epoch, Lane, Rank, Step};

use super::{Found, Route, Way};
use crate::Error;
use crate::spread::Spread;

/// Runs before those that count.
const WARM_UP: usize = 3;

/// Says on standard output where it listens, reads from standard input where all do, measures with them, prints what it
/// found, and stays until its standard input ends.
///
/// # Errors
/// When the others are not there or fail, when the result is wrong, and when the way cannot be taken.
pub fn run(Route { way, streams }: Route, rank: u32, ranks: u32, sizes: &[usize]) -> Result<(), Error> {
    let name = |rank: u32| format!("bench/{rank}");
    let options = lockstep_collective::Options {
        transport: match way {
            Way::Shm => Transport::Auto,
            Way::Tcp => Transport::Tcp,
        },
        streams,
        ..lockstep_collective::Options::new((Ipv4Addr::LOCALHOST, 0).into(), 1, name(rank))
    };
    let endpoint = Endpoint::bind(options).map_err(failed)?;
    println!("{}", endpoint.local_addr());
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(Error::system("read where the others listen"))?;
    let addresses: Result<Vec<SocketAddr>, _> = line.split_whitespace().map(str::parse).collect();
    let addresses = addresses.map_err(|error| Error::Usage(format!("where the others listen: {error}")))?;
    let members = (0..ranks).zip(addresses).map(|(rank, address)| Peer {
        identity: name(rank),
        address,
    });
    let group = Group {
        epoch: Epoch(1),
        rank: Rank(rank),
        members: members.collect(),
    };
    endpoint.enter(group).map_err(failed)?;
    let lanes = ranks.next_power_of_two();
    let mut member = Member {
        assignment: Assignment::fresh(lanes, ranks),
        rank: Rank(rank),
        step: Step(0),
        barrier: Partials::new(lanes, 1),
        endpoint,
    };
    member.fill_barrier()?;
    let found: Result<Vec<Found>, Error> = sizes.iter().map(|&bytes| member.measure(bytes)).collect();
    let found = found?;
    if way == Way::Shm && member.endpoint.handle().stats().shared_reductions == 0 {
        return Err(Error::Drill("shared memory could not be used here".to_owned()));
    }
    let text = serde_json::to_string(&found).map_err(|error| Error::Drill(error.to_string()))?;
    writeln!(io::stdout(), "{text}").map_err(Error::system("print the figures"))?;
    // Until nobody needs anything of this rank any more.
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map(drop)
        .map_err(Error::system("wait for the others"))
}

fn failed(error: CollectiveError) -> Error {
    Error::Drill(error.to_string())
}

/// A rank, and what it needs to meet the others.
struct Member {
    endpoint: Endpoint,
    assignment: Assignment,
    rank: Rank,
    step: Step,
    barrier: Partials,
}

impl Member {
    fn fill_barrier(&mut self) -> Result<(), Error> {
        for lane in self.assignment.lanes_of(self.rank) {
            let value = self.barrier.buffer();
            put(&mut self.barrier, lane, value)?;
        }
        Ok(())
    }

    /// Waits until all are here.
    fn meet(&mut self) -> Result<(), Error> {
        self.step = self.step.next();
        let all = std::slice::from_ref(&(0..1));
        self.endpoint
            .all_reduce(self.step, all, &self.assignment, &self.barrier, &mut [0.0])
            .map_err(failed)
    }

    fn measure(&mut self, bytes: usize) -> Result<Found, Error> {
        let values = bytes / size_of::<f32>();
        let lanes = self.assignment.owners().len() as u32;
        let mut partials = Partials::new(lanes, values);
        for lane in self.assignment.lanes_of(self.rank) {
            let mut gradient = partials.buffer();
            for (i, to) in gradient.iter_mut().enumerate() {
                *to = value(lane.0, i);
            }
            put(&mut partials, lane, gradient)?;
        }
        let mut out = vec![0.0; values];
        let repeats = ((256 << 20) / bytes).clamp(5, 200) + WARM_UP;
        let (mut reduce, mut copy) = (Vec::new(), Vec::new());
        for _ in 0..repeats {
            self.meet()?;
            self.step = self.step.next();
            let began = Instant::now();
            self.endpoint
                .all_reduce(
                    self.step,
                    std::slice::from_ref(&(0..values)),
                    &self.assignment,
                    &partials,
                    &mut out,
                )
                .map_err(failed)?;
            reduce.push(began.elapsed());
        }
        for (i, found) in out.iter().enumerate().step_by(997) {
            if found.to_bits() != tree(Node::root(lanes), i).to_bits() {
                return Err(Error::Drill(format!("value {i} of {bytes} bytes is wrong")));
            }
        }
        let source = vec![1.0f32; values];
        for _ in 0..repeats {
            self.meet()?;
            let began = Instant::now();
            std::hint::black_box(&mut out).copy_from_slice(std::hint::black_box(&source));
            copy.push(began.elapsed());
        }
        Ok(Found {
            bytes,
            reduce_us: median_us(reduce.split_off(WARM_UP)),
            memcpy_us: median_us(copy.split_off(WARM_UP)),
        })
    }
}

fn put(partials: &mut Partials, lane: Lane, values: Vec<f32>) -> Result<(), Error> {
    let inserted = partials.insert(Node::leaf(lane), values);
    inserted.map_err(|error| Error::Drill(error.to_string()))
}

fn value(lane: u32, i: usize) -> f32 {
    (i as u32 ^ lane.wrapping_mul(0x9E37_79B9)) as f32 * 1e-3
}

/// What must come out at a place.
fn tree(node: Node, i: usize) -> f32 {
    match node.children() {
        None => value(node.start, i),
        Some((left, right)) => tree(left, i) + tree(right, i),
    }
}

fn median_us(times: Vec<Duration>) -> f64 {
    Spread::of(times.iter().map(|time| time.as_secs_f64() * 1e6).collect()).p50
}
