//! What it costs to write a checkpoint, while training goes on.
//!
//! `cargo bench -p lockstep-trainer --bench checkpoint`

use std::time::{Duration, Instant};

use lockstep_engine::ids::Epoch;
use lockstep_trainer::State;
use lockstep_trainer::checkpoint::{Attempt, Piece};

const ROUNDS: usize = 7;

fn median(mut run: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            run();
            begin.elapsed()
        })
        .collect();
    times.sort();
    times[ROUNDS / 2]
}

fn main() -> std::io::Result<()> {
    let dir = tempfile::tempdir()?;
    println!(
        "{:>12} {:>8} {:>10} {:>8}",
        "parameters", "members", "write ms", "MB/s"
    );
    for (parameters, members) in [
        (1_053_824, 1),
        (5_261_568, 1),
        (5_261_568, 4),
        (33_694_208, 1),
        (33_694_208, 4),
    ] {
        let state = State::initial((0..parameters).map(|i| i as f32).collect());
        let attempt = Attempt::new(dir.path(), state.step, Epoch(1));
        let fail = std::io::Error::other;
        let piece = Piece::of(&state, 0, members).map_err(fail)?;
        let bytes = attempt.write(&piece).map_err(fail)?.shard.bytes;
        let write = median(|| drop(std::hint::black_box(attempt.write(&piece))));
        println!(
            "{parameters:>12} {members:>8} {:>10.1} {:>8.0}",
            1e3 * write.as_secs_f64(),
            bytes as f64 / 1e6 / write.as_secs_f64()
        );
        attempt.abandon().map_err(fail)?;
    }
    Ok(())
}
