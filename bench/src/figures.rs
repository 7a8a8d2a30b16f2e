//! The figures of recovery, each by its definition, beside what it must reach and a reference.

use serde::Serialize;

use crate::chaos::undisturbed;
use crate::cluster::Bench;
use crate::recovery::Faults;
use crate::spread::Spread;
use crate::work::Data;
use crate::{Error, goodput, is_root, recovery, streams, system, takeover};

/// Checkpoints whose cost is measured, one each 100 steps, as by default.
const INTERVALS: u64 = 6;

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// SIGKILLs, for each figure that is a distribution.
    pub kills: u64,
    /// SIGSTOPs, cuts where this process is root, and deaths of leaders where there is an etcd.
    pub silences: u64,
    /// Pairs of windows of 30 s without and with deaths.
    pub pairs: u32,
    /// Simulated workers.
    pub streams: u32,
}

/// A bound that a figure must keep.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// At most.
    AtMost(f64),
    /// At least.
    AtLeast(f64),
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What it is.
    pub what: &'static str,
    /// Its value; not there when it could not be measured here.
    pub value: Option<f64>,
    /// Of what.
    pub unit: &'static str,
    /// Values that it was taken from.
    pub n: usize,
    /// What it must reach, if anything.
    pub bound: Option<Bound>,
    /// What torchft 0.2 did on this class of machine with 5.3 million parameters and 2 replicas; published by us, not
    /// run here.
    pub reference: Option<&'static str>,
}

impl Figure {
    /// Whether it keeps its bound; nothing when it has none or was not measured.
    #[must_use]
    pub fn holds(&self) -> Option<bool> {
        let (value, bound) = self.value.zip(self.bound)?;
        Some(match bound {
            Bound::AtMost(most) => value <= most,
            Bound::AtLeast(least) => value >= least,
        })
    }
}

fn figure(what: &'static str, unit: &'static str, value: f64, n: usize, bound: Bound) -> Figure {
    Figure {
        what,
        value: (n > 0 && value.is_finite()).then_some(value),
        unit,
        n,
        bound: Some(bound),
        reference: None,
    }
}

/// A figure that explains another one, and need not reach anything.
fn aside(what: &'static str, values: Vec<f64>) -> Figure {
    let spread = Spread::of(values);
    Figure {
        bound: None,
        ..figure(what, "ms", spread.p50, spread.n, Bound::AtMost(f64::INFINITY))
    }
}

/// The percentiles of a distribution in milliseconds, each with its bound and name.
fn percentiles(names: [&'static str; 2], values: Vec<f64>, [p50, p99]: [f64; 2]) -> [Figure; 2] {
    let spread = Spread::of(values);
    [
        figure(names[0], "ms", spread.p50, spread.n, Bound::AtMost(p50)),
        figure(names[1], "ms", spread.p99, spread.n, Bound::AtMost(p99)),
    ]
}

/// Measures all of them, one after another; `say` hears what is being measured.
///
/// # Errors
/// When a run does not come through as it must.
pub fn measure(bench: &Bench, options: Options, say: impl Fn(&str)) -> Result<Vec<Figure>, Error> {
    let data = Data::build()?;
    let mut figures = Vec::new();
    let faults = Faults {
        kills: options.kills,
        stops: options.silences,
        cuts: if is_root() { options.silences } else { 0 },
        spare: false,
    };
    say("the undisturbed run");
    let job = recovery::job("faulted", recovery::steps(faults), 0, 0);
    let weights = undisturbed(bench, &data, &job)?;
    say("deaths and silences");
    let found = recovery::measure(bench, &data, faults, Some(&weights))?;
    figures.extend(percentiles(
        [
            "SIGKILL to every survivor holding the new epoch, old ones fenced off, p50",
            "SIGKILL to every survivor holding the new epoch, old ones fenced off, p99",
        ],
        found.kill_to_epoch_ms,
        [50.0, 250.0],
    ));
    figures.push(aside(
        "… and in it, connected, the lane at hand computed, p50",
        found.kill_to_entry_ms,
    ));
    let mut commits = percentiles(
        [
            "SIGKILL to the next commit, less recomputation, p50",
            "SIGKILL to the next commit, less recomputation, p99",
        ],
        found.kill_to_commit_ms,
        [300.0, 1000.0],
    );
    commits[0].reference = Some("5030 ms");
    figures.extend(commits);
    for (what, values) in [
        (
            "SIGSTOP to the next epoch (lease 2 s), most",
            found.stop_to_epoch_ms,
        ),
        ("cut to the next epoch (lease 2 s), most", found.cut_to_epoch_ms),
    ] {
        let spread = Spread::of(values);
        figures.push(figure(what, "ms", spread.max, spread.n, Bound::AtMost(2500.0)));
    }
    let spread = Spread::of(found.exec_to_contribution_ms);
    let what = "start of a replacement's process to its first commit, p50";
    figures.push(Figure {
        reference: Some("7300 ms"),
        ..figure(what, "ms", spread.p50, spread.n, Bound::AtMost(1500.0))
    });
    let spread = Spread::of(found.join_excess);
    let what = "what the others lose when it joins, in shares of a step, p50";
    figures.push(figure(
        what,
        "%",
        spread.p50 * 100.0,
        spread.n,
        Bound::AtMost(100.0),
    ));
    say("deaths of the coordinator that leads");
    let job = recovery::job("takeover", takeover::steps(options.silences), 0, 0);
    let weights = undisturbed(bench, &data, &job)?;
    let spread = Spread::of(takeover::measure(bench, &data, options.silences, &weights)?);
    let what = "SIGKILL of the leader (lease 2 s) to the next commit under another, most";
    figures.push(figure(what, "ms", spread.max, spread.n, Bound::AtMost(3000.0)));
    say("deaths beside a warm spare");
    let spared = Faults {
        stops: 0,
        cuts: 0,
        spare: true,
        ..faults
    };
    let found = recovery::measure(bench, &data, spared, None)?;
    let spread = Spread::of(found.kill_to_spare_ms);
    let what = "SIGKILL to the first lane that a warm spare has computed, p50";
    figures.push(figure(what, "ms", spread.p50, spread.n, Bound::AtMost(300.0)));
    figures.push(aside(
        "… to the first commit of all members, the spare among them, p50",
        found.kill_to_full_ms,
    ));
    figures.extend(under_deaths(bench, &data, options, &say)?);
    say("checkpoints");
    let share = goodput::checkpoint_stall(bench, &data, 100, INTERVALS)? * 100.0;
    let what = "training stalled by a checkpoint, of its interval";
    figures.push(figure(what, "%", share, INTERVALS as usize, Bound::AtMost(1.0)));
    say("the protocol against a plain loop");
    let (ratio, rounds) = overhead(bench)?;
    let what = "the protocol's cost with no faults, of the step";
    figures.push(Figure {
        reference: Some("0 to 1%"),
        ..figure(what, "%", (ratio - 1.0) * 100.0, rounds, Bound::AtMost(1.0))
    });
    say("simulated workers");
    let streams = streams::measure(bench, options.streams, 50)?;
    let what = "verdict with 1,000 simulated workers, p99";
    figures.push(figure(
        what,
        "ms",
        streams.verdict_ms.p99,
        streams.verdict_ms.n,
        Bound::AtMost(50.0),
    ));
    let what = "coordinator's processor time a step and worker, 1,000 workers";
    figures.push(figure(
        what,
        "ms",
        streams.coordinator_cpu_ms,
        1,
        Bound::AtMost(1.0),
    ));
    Ok(figures)
}

fn under_deaths(
    bench: &Bench,
    data: &Data,
    options: Options,
    say: &impl Fn(&str),
) -> Result<Vec<Figure>, Error> {
    let mut figures = Vec::new();
    let cases = [
        (
            false,
            "goodput with a SIGKILL every 15 s and immediate restart",
            90.0,
            Some("about 60%"),
        ),
        (true, "goodput with a SIGKILL every 15 s and a spare", 95.0, None),
    ];
    for (spare, what, least, reference) in cases {
        say(what);
        let measured = goodput::measure(bench, data, options.pairs, spare)?;
        let value = measured.ratio * 100.0;
        figures.push(Figure {
            reference,
            ..figure(what, "%", value, measured.kills, Bound::AtLeast(least))
        });
        if !spare {
            let what = "steps dropped or repeated over these deaths";
            let dropped = measured.steps_dropped as f64;
            figures.push(Figure {
                reference: Some("24 samples a kill"),
                ..figure(what, "", dropped, measured.kills, Bound::AtMost(0.0))
            });
            let what = "coordinator's processor time a step and worker, 2 workers";
            let value = measured.coordinator_cpu_ms;
            figures.push(figure(what, "ms", value, 1, Bound::AtMost(1.0)));
        }
    }
    Ok(figures)
}

/// The ratio that `lockstep bench overhead` finds, and its rounds.
fn overhead(bench: &Bench) -> Result<(f64, usize), Error> {
    let mut command = std::process::Command::new(&bench.program);
    command
        .args(["bench", "overhead", "--rounds", "21", "-o", "json"])
        .env_remove(lockstep_faults::VARIABLE);
    let output = system::output_of(&mut command, &bench.stop)?;
    let found: serde_json::Value = serde_json::from_slice(&output).unwrap_or_default();
    let (ratio, rounds) = (found["median_ratio"].as_f64(), found["rounds"].as_array());
    let found = ratio.zip(rounds.map(Vec::len));
    found.ok_or_else(|| Error::Drill("`lockstep bench overhead` says no ratio".to_owned()))
}
