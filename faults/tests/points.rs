//! Faults in real processes: this test starts itself anew with the variable set.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use lockstep_faults::{Point, VARIABLE, arm, reach, spoils_frame};

/// Passes three points of two steps and says after each that it is still there; does nothing when run as a test.
#[test]
fn passes_points() {
    let Ok(me) = std::env::var("ME") else { return };
    arm(&me).unwrap();
    for step in 1..=2 {
        for point in [Point::BeforeSend, Point::DuringReduce, Point::AfterCommit] {
            reach(point, step);
            let spoilt = if spoils_frame() { " spoilt" } else { "" };
            println!("passed {} {step}{spoilt}", point.name());
        }
    }
}

fn start(me: &str, plan: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["passes_points", "--exact", "--nocapture"])
        .env("ME", me)
        .env(VARIABLE, plan)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The signal that ended it, and the points that it passed.
fn ran(child: Child) -> (Option<i32>, Vec<String>) {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let passed = text
        .lines()
        .filter_map(|line| line.split_once("passed ").map(|(_, what)| what.to_owned()));
    (output.status.signal(), passed.collect())
}

fn plan(folder: &Path, rest: &str) -> String {
    format!("once={}/marker;{rest}", folder.display())
}

#[test]
fn a_kill_happens_at_its_point_and_step_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let kill = plan(folder.path(), "point=during-reduce;step=2;do=kill");
    let (signal, passed) = ran(start("beta/0", &kill));
    assert_eq!(signal, Some(9));
    assert_eq!(
        passed.last().map(String::as_str),
        Some("before-send 2"),
        "{passed:?}"
    );
    let marker = std::fs::read_to_string(folder.path().join("marker")).unwrap();
    assert!(marker.ends_with(" beta/0 during-reduce 2\n"), "{marker}");
    // The one that is started in its place lives.
    let (signal, passed) = ran(start("beta/0", &kill));
    assert_eq!((signal, passed.len()), (None, 6));
}

#[test]
fn it_happens_to_whom_it_is_meant_for_and_after_what_it_waits_for() {
    let folder = tempfile::tempdir().unwrap();
    let kill = plan(
        folder.path(),
        "point=before-send;after=after-commit;who=beta/0;do=kill",
    );
    assert_eq!(ran(start("alpha/0", &kill)).0, None);
    let (signal, passed) = ran(start("beta/0", &kill));
    assert_eq!((signal, passed.len()), (Some(9), 3), "{passed:?}");
}

#[test]
fn one_frame_is_spoilt() {
    let folder = tempfile::tempdir().unwrap();
    let (_, passed) = ran(start("a/0", &plan(folder.path(), "point=before-send;do=corrupt")));
    let spoilt: Vec<_> = passed.iter().filter(|what| what.ends_with(" spoilt")).collect();
    assert_eq!(spoilt, ["before-send 1 spoilt"]);
}

#[test]
fn a_hold_ends_when_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("marker.go");
    std::fs::write(&go, "").unwrap();
    let (signal, passed) = ran(start("a/0", &plan(folder.path(), "point=before-send;do=hold")));
    assert_eq!((signal, passed.len()), (None, 6));
}

#[test]
fn a_value_that_is_no_plan_stops_the_start() {
    let output = start("a/0", "point=here").wait_with_output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("must be one of before-send"), "{text}");
}
