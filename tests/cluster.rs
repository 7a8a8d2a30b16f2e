//! A cluster as a person uses it from several terminals: a coordinator, node daemons, and the verbs for jobs.

mod support;

use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use lockstep_proto::wire::JobState;
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use support::PATIENCE;
use support::cluster::{Coordinator, epoch, faulty_worker};
use support::job::Job;
use support::place::Place;
use support::process::Process;
use support::system::{await_end, await_text};

/// How long a process may take to leave when told to.
const PROMPTLY: Duration = Duration::from_secs(20);

/// The weights of [`Job::long`] when one worker on one machine trains it, undisturbed.
fn locally() -> &'static Value {
    static WEIGHTS: OnceLock<Value> = OnceLock::new();
    WEIGHTS.get_or_init(|| {
        let place = Place::with(&Job::long());
        let summary = place.summary("run long.toml --local --workers 1 --out out");
        summary["weights_blake3"].clone()
    })
}

/// So few that not even a small job could run, were it not for what the system allows beyond.
#[test]
fn what_a_shell_allows_of_open_files_is_raised() {
    let place = Place::with(&Job::default());
    let binary = place.command("run small.toml --local --workers 2 --out out");
    let mut limited = place.command_of(Path::new("/bin/sh"), "");
    limited.args(["-c", "ulimit -Sn 16 && exec \"$0\" \"$@\""]);
    limited.arg(binary.get_program()).args(binary.get_args());
    Process::start(&mut limited).finish().code(0);
}

/// The summary of a job that ended well, after checking that it knows nothing of what happened on the way.
#[expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
fn same_as_locally(place: &Place, out: &str) -> Value {
    let summary: Value = serde_json::from_str(&place.read(&format!("{out}/summary.json"))).unwrap();
    assert_eq!(summary["weights_blake3"], *locally(), "{summary:#}");
    assert_eq!(
        (&summary["samples_missed"], &summary["samples_repeated"]),
        (&0.into(), &0.into()),
        "{summary:#}"
    );
    assert_eq!(summary["samples"], Job::long().steps * 16);
    summary
}

fn is_done(job: &lockstep_proto::wire::Job) -> bool {
    assert_ne!(job.state(), JobState::Failed, "{job:#?}");
    job.state() == JobState::Done
}

#[test]
fn a_job_is_submitted_watched_and_done() {
    let place = Place::with(&Job {
        min_workers: 2,
        ..Job::long()
    });
    let coordinator = Coordinator::start(&place);
    let at = format!("--coordinator {}", coordinator.url);
    assert_eq!(
        place.run(&format!("list {at} -o json")).code(0).json(),
        serde_json::json!([])
    );
    // It is not over before the test has seen that it runs.
    let workers = [
        coordinator.worker(&place, "alpha", 1),
        faulty_worker(&place, &coordinator.url, "beta", &place.hold_before(200)),
    ];

    let submitted = place
        .run(&format!("submit long.toml --out out {at} -o json"))
        .code(0)
        .json();
    assert_eq!(
        (&submitted["name"], &submitted["steps"]),
        (&"long".into(), &240.into())
    );
    let logs = place.start(&format!("logs -f long {at}"));
    let events = place.start(&format!("events -f long {at}"));
    place.await_step("out", 5);

    let status = place.run(&format!("status long {at} -o json")).code(0).json();
    assert_eq!(status["state"], "running", "{status:#}");
    assert!(status["step"].as_u64().unwrap() >= 5, "{status:#}");
    assert!(status["loss"].as_f64().unwrap() > 0.0 && status["tokens_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(status["workers"].as_array().unwrap().len(), 2, "{status:#}");
    let text = place.run(&format!("status long {at}")).code(0);
    assert!(
        text.out.contains("long: running") && text.out.contains("alpha/0, beta/0"),
        "{text:#?}"
    );
    let listed = place.run(&format!("list {at} -o json")).code(0).json();
    assert_eq!(
        (&listed[0]["name"], &listed[0]["state"]),
        (&"long".into(), &"running".into())
    );
    // Its name is taken while it runs.
    place
        .run(&format!("submit long.toml --out elsewhere {at}"))
        .code(2)
        .says(&["a job named `long` is not over yet", "lockstep cancel long"]);
    place.let_go();

    // Both follow to the end of the job by themselves.
    let logs = logs.finish().code(0);
    assert!(
        logs.out.contains("step: 3  loss: ") && logs.out.contains("alpha/0 "),
        "{logs:#?}"
    );
    let events = events.finish().code(0);
    let kinds: Vec<Value> = events
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for kind in ["joined", "epoch", "checkpoint", "ended"] {
        assert!(
            kinds.iter().any(|event| event["kind"] == kind),
            "{kind}: {events:#?}"
        );
    }
    coordinator.await_job("long", "done", is_done);
    let summary = same_as_locally(&place, "out");
    assert_eq!(
        (&summary["workers_min"], &summary["workers_max"]),
        (&2.into(), &2.into())
    );
    let status = place.run(&format!("status long {at} -o json")).code(0).json();
    assert_eq!((&status["state"], &status["step"]), (&"done".into(), &240.into()));
    assert_eq!(status["summary"], summary);
    place.await_none_like(" rank ");

    for process in workers.into_iter().chain([coordinator.process]) {
        process.signal(Signal::TERM);
        process.finish_within(PROMPTLY).code(0);
    }
    place.await_nobody();
}

#[test]
fn a_cancelled_job_frees_its_workers_and_keeps_its_checkpoints() {
    let job = Job {
        steps: 100_000,
        ..Job::long()
    };
    let place = Place::with(&job);
    let coordinator = Coordinator::start(&place);
    let at = format!("--coordinator {}", coordinator.url);
    let _worker = coordinator.worker(&place, "alpha", 2);
    place.run(&format!("submit long.toml --out out {at}")).code(0);
    let step = place.await_first_checkpoint("out");
    let cancelled = place.run(&format!("cancel long {at} -o json")).code(0).json();
    assert_eq!(cancelled["state"], "cancelled", "{cancelled:#}");
    assert!(
        cancelled["reason"]
            .as_str()
            .unwrap()
            .starts_with("cancelled after step ")
    );
    place.await_none_like(" rank ");
    let checkpoint = format!("out/checkpoints/step-{step:08}");
    assert!(place.path(&checkpoint).is_dir());
    assert!(!place.path("out/summary.json").exists());
    place.run(&format!("checkpoint verify {checkpoint}")).code(0);
    // The workers are free for the next one.
    place.write(&Job::default());
    place.run(&format!("submit small.toml --out small {at}")).code(0);
    coordinator.await_job("small", "done", is_done);
    place
        .run(&format!("cancel nobody {at}"))
        .code(2)
        .says(&["no job named `nobody`", "lockstep list"]);
}

#[test]
fn a_node_that_dies_takes_its_ranks_along_and_nothing_else() {
    let place = Place::with(&Job {
        min_workers: 1,
        ..Job::long()
    });
    let coordinator = Coordinator::start(&place);
    let _alpha = coordinator.worker(&place, "alpha", 2);
    let beta = coordinator.worker(&place, "beta", 2);
    let at = format!("--coordinator {}", coordinator.url);
    place.run(&format!("submit long.toml --out out {at}")).code(0);
    place.await_step("out", 20);
    beta.signal(Signal::KILL);
    assert_eq!(beta.finish_within(PROMPTLY).signal, Some(9));
    place.await_none_like("--node beta");
    let job = coordinator.await_job("long", "done", is_done);
    assert!(job.epoch > 1, "{job:#?}");
    same_as_locally(&place, "out");
    let events = place.run(&format!("events long {at}")).code(0).out;
    assert!(
        events.contains("beta/0 is gone") && events.contains("beta/1 is gone"),
        "{events}"
    );
}

/// Nothing is closed when a process hangs: its lease tells, or that the others have to wait for its lanes. Awake again, it
/// is out.
#[test]
fn a_rank_that_hangs_is_given_up_and_harms_nobody_when_it_wakes() {
    let place = Place::with(&Job {
        lease_ms: 1_000,
        ..Job::long()
    });
    let coordinator = Coordinator::start(&place);
    let _alpha = coordinator.worker(&place, "alpha", 2);
    let _beta = coordinator.worker(&place, "beta", 1);
    let at = format!("--coordinator {}", coordinator.url);
    place.run(&format!("submit long.toml --out out {at}")).code(0);
    place.await_step("out", 30);
    let all = place.processes();
    let hung = all
        .iter()
        .find(|process| process.command.contains("--node beta"))
        .unwrap()
        .pid;
    kill_process(hung, Signal::STOP).unwrap();
    let reasons = ["nothing heard from it for 1000 ms", "beta/0 is too slow"];
    let given_up = |events: &str| reasons.iter().find(|reason| events.contains(**reason)).map(drop);
    await_text(
        &place.path("out/events.jsonl"),
        "that it is given up",
        PATIENCE,
        given_up,
    );
    kill_process(hung, Signal::CONT).unwrap();
    coordinator.await_job("long", "done", is_done);
    let summary = same_as_locally(&place, "out");
    assert_eq!(summary["workers_max"], 3, "{summary:#}");
    assert!(
        await_end(hung, std::time::Instant::now() + PATIENCE),
        "the one that was given up leaves"
    );
}

#[test]
fn a_coordinator_that_dies_is_started_again_and_its_job_goes_on() {
    let place = Place::with(&Job {
        min_workers: 2,
        ..Job::long()
    });
    let coordinator = Coordinator::start(&place);
    let workers = [
        coordinator.worker(&place, "alpha", 1),
        coordinator.worker(&place, "beta", 1),
    ];
    let at = format!("--coordinator {}", coordinator.url);
    place.run(&format!("submit long.toml --out out {at}")).code(0);
    place.await_step("out", 100);
    let address = coordinator.address().to_owned();
    coordinator.process.signal(Signal::KILL);
    assert_eq!(coordinator.process.finish_within(PROMPTLY).signal, Some(9));
    assert!(
        !place.path("out/summary.json").exists(),
        "killed too late to matter"
    );

    let last = place.last_step("out");

    let coordinator = Coordinator::start_at(&place, &address);
    let again = place.await_event("out", "epoch", "going on from the state that they hold");
    let (base, _) = epoch(&again);
    // A commit may be recorded by a coordinator that died before it could tell of it.
    assert!(base + 1 >= last, "{again} instead of after step {last}");
    let job = coordinator.await_job("long", "done", is_done);
    assert!(job.epoch > 1, "epochs go on from those before: {job:#?}");
    // Each was ready twice at one port of its own: the same processes, and no others.
    let joined = place
        .events("out")
        .into_iter()
        .filter(|(kind, _)| kind == "joined");
    let mut joined: Vec<String> = joined.map(|(_, text)| text).collect();
    joined.sort();
    let half: Vec<&String> = joined.iter().step_by(2).collect();
    let other: Vec<&String> = joined.iter().skip(1).step_by(2).collect();
    assert_eq!((half.len(), half), (2, other), "their addresses are the same");
    let summary = same_as_locally(&place, "out");
    assert_eq!(summary["steps"], 240);
    let listed = place.run(&format!("list {at} -o json")).code(0).json();
    assert_eq!(
        (&listed[0]["state"], &listed[0]["step"]),
        (&"done".into(), &240.into())
    );
    place.await_none_like(" rank ");
    drop(workers);
}

#[test]
fn sigterm_ends_coordinator_and_worker_at_once_in_the_middle_of_a_job() {
    let place = Place::with(&Job {
        steps: 100_000,
        ..Job::long()
    });
    let coordinator = Coordinator::start(&place);
    let at = format!("--coordinator {}", coordinator.url);
    let alpha = coordinator.worker(&place, "alpha", 1);
    let beta = coordinator.worker(&place, "beta", 1);
    place.run(&format!("submit long.toml --out out {at}")).code(0);
    place.await_step("out", 3);
    alpha.signal(Signal::TERM);
    let ran = alpha.finish_within(PROMPTLY).code(0);
    assert!(ran.took < PROMPTLY, "{ran:#?}");
    place.await_none_like("--node alpha");
    coordinator.process.signal(Signal::TERM);
    coordinator.process.finish_within(PROMPTLY).code(0);
    // A daemon and its ranks wait for the next coordinator, but not for longer than they are wanted.
    beta.await_err(|line| line.contains("waiting for it"));
    assert_eq!(place.ranks("beta").len(), 1);
    beta.signal(Signal::INT);
    beta.finish_within(PROMPTLY).code(0);
    place.await_nobody();
}

#[test]
fn a_second_job_queues_behind_the_first() {
    let place = Place::with(&Job {
        max_workers: 1,
        ..Job::long()
    });
    let second = Job {
        max_workers: 1,
        ..Job::default()
    };
    place.write(&second);
    let coordinator = Coordinator::start(&place);
    let at = format!("--coordinator {}", coordinator.url);
    let _worker = coordinator.worker(&place, "alpha", 1);
    place.run(&format!("submit long.toml --out first {at}")).code(0);
    place.await_step("first", 3);
    let queued = place
        .run(&format!("submit small.toml --out second {at} -o json"))
        .code(0)
        .json();
    assert_eq!(
        (&queued["state"], &queued["reason"]),
        (&"queued".into(), &"waiting for workers".into())
    );
    coordinator.await_job("long", "done", is_done);
    coordinator.await_job("small", "done", is_done);
    let events = |name: &str| -> Vec<Value> {
        let text = fs::read_to_string(place.path(&format!("{name}/events.jsonl"))).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let time = |event: Option<&Value>| event.unwrap()["time_ms"].as_u64().unwrap();
    let (first, second) = (events("first"), events("second"));
    assert!(time(second.first()) >= time(first.last()), "{second:#?}");
}

#[test]
fn a_job_waits_for_its_minimum_and_pauses_below_it() {
    let place = Place::with(&Job {
        min_workers: 2,
        ..Job::long()
    });
    let coordinator = Coordinator::start(&place);
    let at = format!("--coordinator {}", coordinator.url);
    let _alpha = coordinator.worker(&place, "alpha", 1);
    place.run(&format!("submit long.toml --out out {at}")).code(0);
    let status = place.run(&format!("status long {at} -o json")).code(0).json();
    assert_ne!(status["state"], "done");
    assert_eq!(status["step"], 0, "one of two needed: {status:#}");
    let waiting = |job: &lockstep_proto::wire::Job| {
        matches!(job.state(), JobState::Queued | JobState::Paused) && job.reason.contains("worker")
    };
    coordinator.await_job("long", "waiting for workers", waiting);

    let beta = coordinator.worker(&place, "beta", 1);
    place.await_step("out", 20);
    beta.signal(Signal::KILL);
    drop(beta);
    let paused = coordinator.await_job("long", "paused", |job| job.state() == JobState::Paused);
    assert_eq!(paused.reason, "1 workers, at least 2 are needed");
    assert!(paused.step < 240, "{paused:#?}");

    let _gamma = coordinator.worker(&place, "gamma", 1);
    coordinator.await_job("long", "done", is_done);
    let summary = same_as_locally(&place, "out");
    assert_eq!(
        (&summary["workers_min"], &summary["workers_max"]),
        (&2.into(), &2.into())
    );
}
