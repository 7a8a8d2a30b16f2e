//! How long an all-reduce takes between threads on loopback.
//!
//! ```text
//! cargo bench -p lockstep-collective [-- [tcp] [hosts=HOSTS] [RANKS [BYTES [REPEATS]]]]
//! ```
//!
//! One JSON line a size and number of ranks: median and best microseconds, algorithm bandwidth (bytes / median)
//! and bus bandwidth (algorithm bandwidth x 2(n-1)/n). A rank holds one lane; all start from a barrier, and the time is
//! rank 0's. With `hosts`, the ranks act as if they were of so many, one after the other; `tcp_bytes` is what all ranks
//! give to TCP in an all-reduce.

use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use lockstep_collective::{CollectiveError, Endpoint, Group, Options, Partials, Peer, Transport};
use lockstep_engine::geometry::{Assignment, Node};
use lockstep_engine::ids::{Epoch, Lane, Rank, Step};

const SIZES: [usize; 6] = [1 << 10, 1 << 16, 1 << 20, 1 << 22, 1 << 24, 1 << 26];
const WARM_UP: usize = 3;

fn main() -> Result<(), CollectiveError> {
    // Cargo adds flags of its own.
    let mut chosen = std::env::args().filter_map(|argument| argument.parse::<usize>().ok());
    let (ranks, bytes, repeats) = (chosen.next(), chosen.next(), chosen.next());
    let hosts = std::env::args().find_map(|argument| argument.strip_prefix("hosts=")?.parse().ok());
    let transport = match std::env::args().any(|argument| argument == "tcp") {
        true => Transport::Tcp,
        false => Transport::Auto,
    };
    for ranks in ranks.map_or(vec![2, 4], |ranks| vec![ranks as u32]) {
        for bytes in bytes.map_or(SIZES.to_vec(), |bytes| vec![bytes]) {
            let (mut times, tcp_bytes) = measure((ranks, hosts), bytes, transport, repeats)?;
            times.sort_unstable();
            let (best, median) = (times[0], times[times.len() / 2]);
            let gigabytes_per_second = bytes as f64 / median.as_secs_f64() / 1e9;
            let bus = gigabytes_per_second * 2.0 * f64::from(ranks - 1) / f64::from(ranks);
            println!(
                "{{\"ranks\": {ranks}, \"bytes\": {bytes}, \"median_us\": {:.1}, \"best_us\": {:.1}, \
                 \"algbw_GBps\": {gigabytes_per_second:.3}, \"busbw_GBps\": {bus:.3}, \"tcp_bytes\": {tcp_bytes}}}",
                median.as_secs_f64() * 1e6,
                best.as_secs_f64() * 1e6,
            );
        }
    }
    Ok(())
}

fn measure(
    (ranks, hosts): (u32, Option<u32>),
    bytes: usize,
    transport: Transport,
    repeats: Option<usize>,
) -> Result<(Vec<Duration>, u64), CollectiveError> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let endpoints: Vec<Endpoint> = (0..ranks)
        .map(|rank| {
            Endpoint::bind(Options {
                transport,
                host: hosts.map(|hosts| format!("host {}", rank * hosts / ranks)),
                ..Options::new(any, 1, format!("bench/{rank}"))
            })
        })
        .collect::<Result<_, _>>()?;
    let members: Vec<Peer> = (0u32..)
        .zip(&endpoints)
        .map(|(rank, endpoint)| Peer {
            identity: format!("bench/{rank}"),
            address: endpoint.local_addr(),
        })
        .collect();
    let lanes = ranks.next_power_of_two();
    let assignment = Assignment::fresh(lanes, ranks);
    let repeats = repeats.unwrap_or_else(|| ((256 << 20) / bytes).clamp(5, 200)) + WARM_UP;
    let barrier = Barrier::new(endpoints.len());
    let run = |rank: u32, endpoint: &Endpoint| -> Result<Vec<Duration>, CollectiveError> {
        endpoint.enter(Group {
            epoch: Epoch(1),
            rank: Rank(rank),
            members: members.clone(),
        })?;
        let values = bytes / size_of::<f32>();
        let mut partials = Partials::new(lanes, values);
        let mut gradient = partials.buffer();
        gradient
            .iter_mut()
            .zip(0u32..)
            .for_each(|(value, i)| *value = (i ^ rank) as f32 * 1e-3);
        let inserted = partials.insert(Node::leaf(Lane(rank)), gradient);
        debug_assert_eq!(inserted, Ok(()));
        let mut out = vec![0.0; values];
        let mut times = Vec::new();
        for repeat in 0..repeats {
            barrier.wait();
            let start = Instant::now();
            endpoint.all_reduce(
                Step(repeat as u64 + 1),
                std::slice::from_ref(&(0..values)),
                &assignment,
                &partials,
                &mut out,
            )?;
            times.push(start.elapsed());
        }
        barrier.wait();
        Ok(times.split_off(WARM_UP))
    };
    let times = thread::scope(|scope| {
        let run = &run;
        let others: Vec<_> = (1u32..)
            .zip(&endpoints[1..])
            .map(|(rank, endpoint)| scope.spawn(move || run(rank, endpoint)))
            .collect();
        let times = run(0, &endpoints[0]);
        for other in others {
            if let Ok(result) = other.join() {
                result?;
            }
        }
        times
    })?;
    let over_tcp = |endpoint: &Endpoint| {
        let stats = endpoint.handle().stats();
        stats.sent_bytes - stats.shared_bytes
    };
    let sent: u64 = endpoints.iter().map(over_tcp).sum();
    Ok((times, sent / repeats as u64))
}
