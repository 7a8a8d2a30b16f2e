//! The steady state: step after step without new buffers, and endings that leave nothing behind.

use lockstep_collective::{Partials, Transport};
use lockstep_engine::geometry::Assignment;

use crate::support::*;

#[test]
fn later_steps_need_no_new_buffers() {
    for streams in [1, 4] {
        need_no_new_buffers(&members(3, (Transport::Tcp, streams)));
    }
    need_no_new_buffers(&members_of(&["a", "a", "b"]));
}

fn need_no_new_buffers(all: &[Member]) {
    const WARM_UP: u64 = 30;
    let (lanes, len) = (4, 400_000);
    let all: Vec<&Member> = all.iter().collect();
    enter_all(1, &all);
    // Three over four lanes: two members have one each, and fold nothing; one has two.
    let fresh = Assignment::fresh(lanes, 3);
    let growth = on_all(&all, |rank, member| {
        let mut partials = Partials::new(lanes, len);
        let count = |partials: &Partials| {
            (
                partials.allocated(),
                member.endpoint.handle().stats().allocated_buffers,
            )
        };
        let mut warm = (0, 0);
        for step in 1..=4 * WARM_UP {
            compute(&mut partials, &fresh, rank, step);
            let result = reduce(member, step, &fresh, &partials).unwrap();
            if step % WARM_UP == 0 {
                assert!(result == tree_bits(lanes, len, step));
            }
            partials.clear();
            if step == WARM_UP {
                warm = count(&partials);
            }
        }
        (warm, count(&partials))
    });
    for (rank, (warm, end)) in growth.into_iter().enumerate() {
        assert!(
            warm.0 <= 2 && warm.0 == end.0,
            "partials of rank {rank}: {warm:?}, then {end:?}"
        );
        // Which frames meet in the mailbox is up to the scheduler: a late record high may need a few more, but not every
        // sixth of the steps since.
        assert!(
            end.1 < warm.1 + WARM_UP / 2,
            "payloads of rank {rank}: {warm:?}, then {end:?}"
        );
    }
    let handle = all[0].endpoint.handle();
    assert_eq!(
        (handle.stats().waiting_frames, handle.stats().waiting_bytes),
        (0, 0)
    );
}
