//! A whole cluster in one thread: the coordinator's machine, the ranks' machines, and a network that delays,
//! repeats and breaks, all from one seed. Gradients are hashes: equal hashes stand for equal bits.
//!
//! `LOCKSTEP_SIM_SEEDS=N` runs seeds 0..N (default 2000); `LOCKSTEP_SIM_SEED=K` replays one and prints its story.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a broken world must stop the test"
)]

mod world;

use world::World;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text}: a whole number"))
    })
}

#[test]
fn any_order_of_deaths_and_delays_ends_in_the_same_bits() {
    let (seeds, story) = match setting("LOCKSTEP_SIM_SEED") {
        Some(seed) => (seed..seed + 1, true),
        None => (0..setting("LOCKSTEP_SIM_SEEDS").unwrap_or(2000), false),
    };
    let (mut kills, mut rollbacks, mut pauses, mut stale) = (0, 0, 0, 0);
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let replay = format!(
            "replay: LOCKSTEP_SIM_SEED={seed} cargo test -p lockstep-engine --test simulation -- --nocapture"
        );
        let result = std::panic::catch_unwind(|| {
            let mut world = World::new(seed, story);
            world.run();
            world.check_end();
            world.tally()
        });
        match result {
            Ok(tally) => {
                kills += tally.kills;
                rollbacks += tally.rollbacks;
                pauses += tally.pauses;
                stale += tally.stale;
            }
            Err(_) => panic!("seed {seed} failed; {replay}"),
        }
    }
    println!(
        "{count} seeds: {kills} kills, {rollbacks} rollbacks, {pauses} pauses, {stale} stale messages dropped"
    );
    // A simulation that meets no faults proves nothing.
    if count >= 1000 {
        assert!(kills > count && rollbacks > count / 50 && pauses > count / 50 && stale > count);
    }
}
