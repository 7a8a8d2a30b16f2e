//! Workers come, go, hang and lag while a job trains; the bits know nothing of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use lockstep_proto::wire::{self, JobState};
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use support::cluster::{Coordinator, epoch, faulty_worker};
use support::job::Job;
use support::place::Place;
use support::process::Process;

/// What [`Job::long`] comes to when one worker on one machine trains it, undisturbed.
fn undisturbed() -> &'static Value {
    static SUMMARY: OnceLock<Value> = OnceLock::new();
    SUMMARY.get_or_init(|| {
        let place = Place::with(&Job::long());
        place.summary("run long.toml --local --workers 1 --out out")
    })
}

/// Twice as long, for what takes its time to come about.
fn longer() -> Job {
    Job {
        steps: 480,
        ..Job::long()
    }
}

/// What [`longer`] comes to.
fn undisturbed_longer() -> &'static Value {
    static SUMMARY: OnceLock<Value> = OnceLock::new();
    SUMMARY.get_or_init(|| {
        let place = Place::with(&longer());
        place.summary("run long.toml --local --workers 1 --out out")
    })
}

fn is_done(job: &wire::Job) -> bool {
    assert_ne!(job.state(), JobState::Failed, "{job:#?}");
    job.state() == JobState::Done
}

/// Waits for an epoch whose members are just these; returns the step after which it begins.
fn await_members(place: &Place, members: &[&str]) -> u64 {
    place.await_events("out", &format!("an epoch of {members:?}"), |events| {
        let epochs = events.iter().filter(|(kind, _)| kind == "epoch");
        let mut epochs = epochs.map(|(_, text)| epoch(text));
        epochs.find(|(_, of)| of == members).map(|(base, _)| base)
    })
}

/// Steps in the order in which they were committed: each once means that none was computed again.
fn committed(place: &Place) -> Vec<u64> {
    let step = |line: &str| {
        serde_json::from_str::<Value>(line).unwrap()["step"]
            .as_u64()
            .unwrap()
    };
    place.read("out/metrics.jsonl").lines().map(step).collect()
}

#[test]
fn growing_to_four_and_shrinking_to_two_keeps_the_bits() {
    let place = Place::with(&longer());
    let coordinator = Coordinator::start(&place);
    let at = format!("--coordinator {}", coordinator.url);
    // It waits near the end until the test has seen all that it wants to see.
    let _alpha = faulty_worker(&place, &coordinator.url, "alpha", &place.hold_before(400));
    place.run(&format!("submit long.toml --out out {at}")).code(0);
    place.await_step("out", 10);
    let _others = ["beta", "delta", "gamma"].map(|name| coordinator.worker(&place, name, 1));
    await_members(&place, &["alpha/0", "beta/0", "delta/0", "gamma/0"]);
    for name in ["delta", "gamma"] {
        place.run(&format!("drain {name} {at}")).code(0);
        place.await_none_like(&format!(
            "rank --coordinator {} --job long --node {name}",
            coordinator.url
        ));
    }
    let base = await_members(&place, &["alpha/0", "beta/0"]);
    assert!(base < 400, "{base}");
    place.let_go();
    coordinator.await_job("long", "done", is_done);
    let summary = place.same_as(undisturbed_longer(), "out");
    assert_eq!(
        (&summary["workers_min"], &summary["workers_max"]),
        (&1.into(), &4.into())
    );
    assert_eq!(committed(&place), (1..=480).collect::<Vec<_>>());
    let lost = place.events("out").into_iter().filter(|(kind, _)| kind == "lost");
    for (_, text) in lost {
        assert!(text.contains("drained"), "{text}");
    }
}

/// However long a newcomer takes to get the state, the others commit one step after another.
#[test]
fn nobody_waits_for_a_newcomer() {
    let place = Place::with(&longer());
    let coordinator = Coordinator::start(&place);
    let _alpha = coordinator.worker(&place, "alpha", 1);
    place
        .run(&format!(
            "submit long.toml --out out --coordinator {}",
            coordinator.url
        ))
        .code(0);
    place.await_step("out", 10);
    let fault = place.hold("point=during-join");
    let _beta = faulty_worker(&place, &coordinator.url, "beta", &fault);
    place.await_file("held");
    let then = place.last_step("out");
    place.await_step("out", then + 30);
    let entered = |events: &[(String, String)]| {
        let epochs = events.iter().filter(|(kind, _)| kind == "epoch");
        epochs.filter(|(_, text)| text.contains("beta/0")).count()
    };
    assert_eq!(entered(&place.events("out")), 0, "it is held");
    place.let_go();
    let base = await_members(&place, &["alpha/0", "beta/0"]);
    assert!(base >= then + 30, "{base}");
    coordinator.await_job("long", "done", is_done);
    place.same_as(undisturbed_longer(), "out");
    assert_eq!(committed(&place), (1..=480).collect::<Vec<_>>());
}

#[test]
fn a_spare_steps_in_before_the_dead_one_is_replaced() {
    let place = Place::with(&Job {
        min_workers: 2,
        max_workers: 2,
        spares: 1,
        ..Job::long()
    });
    let undisturbed = place.summary("run long.toml --local --workers 2 --out undisturbed");
    let coordinator = Coordinator::start(&place);
    let _workers = ["alpha", "beta", "gamma"].map(|name| coordinator.worker(&place, name, 1));
    place
        .run(&format!(
            "submit long.toml --out out --coordinator {}",
            coordinator.url
        ))
        .code(0);
    // Whoever was ready first is in; the third is the spare.
    let mut members = epoch(&place.await_event("out", "epoch", "epoch 1 ")).1;
    let mut all = vec!["alpha/0", "beta/0", "gamma/0"];
    all.retain(|name| !members.iter().any(|member| member == name));
    let [spare] = all[..] else {
        panic!("one spare: {members:?}");
    };
    let dead = members.remove(0);
    support::system::await_text(
        &place.path("out/workers.log"),
        "a spare that follows",
        support::PATIENCE,
        |log| {
            log.lines()
                .any(|line| line.contains(&format!("feeds {spare}")))
                .then_some(())
        },
    );
    let then = place.last_step("out");
    place.await_step("out", then + 10);
    let rank = place.ranks(dead.trim_end_matches("/0")).remove(0);
    kill_process(rank.pid, Signal::KILL).unwrap();
    let mut next = vec![members[0].as_str(), spare];
    next.sort_unstable();
    let base = await_members(&place, &next);
    coordinator.await_job("long", "done", is_done);
    place.same_as(&undisturbed, "out");
    let events = place.events("out");
    let at = |part: &str| events.iter().position(|(_, text)| text.contains(part)).unwrap();
    let (gone, entered) = (
        at(&format!("{dead} is gone")),
        at(&format!("({})", next.join(", "))),
    );
    // It follows the members, at most a step or two behind.
    let after = &events[gone..].iter().find(|(kind, _)| kind == "epoch").unwrap().1;
    assert!(base <= epoch(after).0 + 2, "{events:#?}");
    let replaced = events
        .iter()
        .rposition(|(_, text)| text.starts_with(&format!("{dead} is ready")));
    assert!(gone < entered && Some(entered) < replaced, "{events:#?}");
    assert!(!events.iter().any(|(kind, _)| kind == "paused"), "{events:#?}");
}

/// Another build in the place of a daemon's program is none of its ranks': theirs is the one that the daemon runs.
#[test]
fn a_program_that_was_replaced_starts_the_ranks_that_it_did() {
    let place = Place::with(&Job::long());
    let coordinator = Coordinator::start(&place);
    let program = place.path("lockstep");
    // Not by this process: what it starts at the same time would hold the file open, and a busy file does not start.
    let copied = Command::new("cp")
        .args([Path::new(env!("CARGO_BIN_EXE_lockstep")), &program])
        .status();
    assert!(copied.unwrap().success());
    let at = format!("--coordinator {}", coordinator.url);
    let line = format!("worker {at} --name alpha --slots 1");
    let held = place.path("held");
    let fault = format!("point=after-commit;step=60;do=hold;once={}", held.display());
    let mut command = place.command_of(&program, &line);
    let alpha = Process::start(command.env(lockstep_faults::VARIABLE, fault));
    alpha.await_err(|line| line.contains("registered with"));
    place.run(&format!("submit long.toml --out out {at}")).code(0);
    place.await_file("held");
    fs::remove_file(&program).unwrap();
    fs::write(&program, "no program").unwrap();
    let rank = place.ranks("alpha").remove(0);
    let name = fs::read_to_string(format!("/proc/{}/comm", rank.pid.as_raw_nonzero())).unwrap();
    assert_eq!(name, "lockstep\n");
    kill_process(rank.pid, Signal::KILL).unwrap();
    coordinator.await_job("long", "done", is_done);
    place.same_as(undisturbed(), "out");
}

/// It knows that a step is committed and gets no further, while its heartbeats go on: only its lanes are missing.
#[test]
fn the_lanes_of_a_slow_worker_are_computed_by_the_others() {
    let place = Place::with(&longer());
    let coordinator = Coordinator::start(&place);
    let at = format!("--coordinator {}", coordinator.url);
    let fault = place.hold("point=after-commit;step=60");
    let _alpha = coordinator.worker(&place, "alpha", 1);
    let _beta = faulty_worker(&place, &coordinator.url, "beta", &fault);
    place.run(&format!("submit long.toml --out out {at}")).code(0);
    place.await_file("held");
    let slow = "beta/0 still computes its lanes of step 61";
    place.await_event("out", "slow", slow);
    place.await_step("out", 80);
    place.let_go();
    // It comes back as a follower, the same process as before.
    place.await_events("out", "beta/0 back", |events| {
        let after = events.iter().skip_while(|(_, text)| !text.starts_with(slow));
        let mut epochs = after.filter(|(kind, _)| kind == "epoch");
        epochs
            .any(|(_, text)| text.contains("(alpha/0, beta/0)"))
            .then_some(())
    });
    coordinator.await_job("long", "done", is_done);
    place.same_as(undisturbed_longer(), "out");
    let events = place.events("out");
    assert!(!events.iter().any(|(kind, _)| kind == "lost"), "nobody left");
    let came = events
        .iter()
        .filter(|(_, text)| text.starts_with("beta/0 is ready at "));
    assert_eq!(came.count(), 1, "{events:#?}");
}

/// A frame that arrives otherwise than it was sent costs its connection, and nothing else.
#[test]
fn a_flipped_bit_on_the_wire_changes_nothing() {
    let place = Place::with(&Job::long());
    let coordinator = Coordinator::start(&place);
    let fault = format!(
        "point=before-send;step=30;do=corrupt;once={}",
        place.path("corrupted").display()
    );
    let _alpha = coordinator.worker(&place, "alpha", 1);
    let _beta = faulty_worker(&place, &coordinator.url, "beta", &fault);
    place
        .run(&format!(
            "submit long.toml --out out --coordinator {}",
            coordinator.url
        ))
        .code(0);
    coordinator.await_job("long", "done", is_done);
    assert!(place.path("corrupted").exists());
    place.same_as(undisturbed(), "out");
    let events = place.events("out");
    let epochs = events.iter().filter(|(kind, _)| kind == "epoch").count();
    assert!(epochs > 1, "the exchange began again: {events:#?}");
    assert!(!events.iter().any(|(kind, _)| kind == "lost"), "{events:#?}");
}

#[test]
fn a_rank_and_a_daemon_of_the_same_name_are_back_at_once() {
    let place = Place::with(&Job {
        steps: 100_000,
        ..Job::long()
    });
    let coordinator = Coordinator::start(&place);
    let at = format!("--coordinator {}", coordinator.url);
    let _alpha = coordinator.worker(&place, "alpha", 1);
    let beta = coordinator.worker(&place, "beta", 1);
    place.run(&format!("submit long.toml --out out {at}")).code(0);
    let together = |times: usize| {
        place.await_events("out", &format!("both, {times} times"), |events| {
            let epochs = events.iter().filter(|(kind, _)| kind == "epoch");
            let both = epochs.filter(|(_, text)| text.contains("with 2 workers (alpha/0, beta/0): "));
            (both.count() >= times).then_some(())
        });
    };
    together(1);
    kill_process(place.ranks("beta")[0].pid, Signal::KILL).unwrap();
    together(2);
    beta.signal(Signal::KILL);
    beta.finish();
    // Its name is not held back by the one before it.
    let _beta = coordinator.worker(&place, "beta", 1);
    together(3);
    place.run(&format!("cancel long {at}")).code(0);
    place.await_none_like(" rank ");
}

#[test]
fn nodes_are_listed_drained_and_let_in_again() {
    let place = Place::with(&Job {
        steps: 100_000,
        ..Job::long()
    });
    let coordinator = Coordinator::start(&place);
    let at = format!("--coordinator {}", coordinator.url);
    let _alpha = coordinator.worker(&place, "alpha", 1);
    let _beta = coordinator.worker(&place, "beta", 2);
    place.run(&format!("submit long.toml --out out {at}")).code(0);
    await_members(&place, &["alpha/0", "beta/0", "beta/1"]);
    let nodes = || place.run(&format!("nodes {at} -o json")).code(0).json();
    let all = nodes();
    let fields = |node: &Value| -> Value {
        let fields = ["node", "connected", "slots", "used", "drained"];
        fields.map(|field| node[field].clone()).to_vec().into()
    };
    assert_eq!(fields(&all[0]), serde_json::json!(["alpha", true, 1, 1, false]));
    assert_eq!(fields(&all[1]), serde_json::json!(["beta", true, 2, 2, false]));
    assert!(all[1]["silent_ms"].is_u64(), "{all:#}");
    let text = place.run(&format!("nodes {at}")).code(0).out;
    for part in ["node ", "used", "drained", "alpha", "2/2", "ms ago"] {
        assert!(text.contains(part), "`{part}`: {text}");
    }

    let drained = place.run(&format!("drain beta {at}")).code(0);
    assert!(drained.out.contains("beta is drained"), "{drained:#?}");
    await_members(&place, &["alpha/0"]);
    place.await_none_like("--node beta");
    let then = place.last_step("out");
    place.await_step("out", then + 5);
    let drained = place.run(&format!("drain beta {at} -o json")).code(0).json();
    assert_eq!(fields(&drained), serde_json::json!(["beta", true, 2, 0, true]));
    assert!(place.ranks("beta").is_empty(), "it gets no new ranks");

    let back = place.run(&format!("undrain beta {at}")).code(0);
    assert!(back.out.contains("beta may have ranks again"), "{back:#?}");
    place.await_events("out", "beta back", |events| {
        let after = events.iter().rposition(|(_, text)| text.contains("(alpha/0):"))?;
        let mut later = events[after..].iter();
        later
            .any(|(_, text)| text.contains("(alpha/0, beta/0, beta/1)"))
            .then_some(())
    });
    assert_eq!(nodes()[1]["used"], 2);
    for verb in ["drain", "undrain"] {
        place
            .run(&format!("{verb} nobody {at}"))
            .code(2)
            .says(&["no node named `nobody`", "lockstep nodes"]);
    }
    place.run(&format!("cancel long {at}")).code(0);
}
