//! All-reduces between rank processes of this machine, against memory's own speed and against PyTorch.
//!
//! | module | what it does |
//! |---|---|
//! | `rank` | one rank process: connects to the others, and measures |
//!
//! The bound that memory sets: between processes that share memory, each of which writes its own alone, everything
//! that one gives to others is copied once, and everything that it gets from others is copied once. A member of `n`
//! gives its partials of the others' shares, `(n-1)/n` of the gradient, and the sum of its own, `1/n`; it gets
//! `(n-1)/n` of partials, and `(n-1)/n` of sums. That makes `(3n-2)/n` gradients to copy, at the speed that `memcpy`
//! has while all members copy at the same time. Nothing is added for additions, checksums and waiting.

mod rank;

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::spread::Spread;
use crate::{Bench, Error};

pub use rank::run as run_rank;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Numbers of ranks.
    pub ranks: Vec<u32>,
    /// Bytes of the gradient.
    pub sizes: Vec<usize>,
    /// The ways to go.
    pub routes: Vec<Route>,
    /// Rounds; in each, everything is measured once, in turn.
    pub rounds: u32,
    /// The Python that has PyTorch, to measure its gloo backend as well.
    pub torch: Option<PathBuf>,
}

/// The way between ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Shared memory.
    Shm,
    /// TCP over loopback.
    Tcp,
}

impl Way {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Tcp => "tcp",
        }
    }
}

/// How two ranks are connected.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The way.
    pub way: Way,
    /// Connections.
    pub streams: usize,
}

/// What a rank process found for a size.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Found {
    /// Bytes of the gradient.
    pub bytes: usize,
    /// Median microseconds of an all-reduce.
    pub reduce_us: f64,
    /// Median microseconds to copy as many bytes, while all ranks do.
    pub memcpy_us: f64,
}

/// A line of the result: medians over the rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Ranks.
    pub ranks: u32,
    /// Bytes of the gradient.
    pub bytes: usize,
    /// The way between them.
    pub way: Way,
    /// Connections between two ranks.
    pub streams: usize,
    /// Microseconds of an all-reduce, of the rank that takes longest.
    pub us: f64,
    /// Bytes of the gradient by that time.
    pub gb_per_s: f64,
    /// Microseconds that the copies take.
    pub bound_us: f64,
    /// The bound by what it took.
    pub share_of_bound: f64,
    /// Microseconds that PyTorch takes.
    pub torch_us: Option<f64>,
    /// How many times as long PyTorch takes.
    pub ratio: Option<f64>,
}

/// Measures in rounds, A B A B; `say` hears what is being measured.
///
/// # Errors
/// When a rank cannot be started or fails, or somebody asks for the end.
pub fn measure(bench: &Bench, options: &Options, say: impl Fn(&str)) -> Result<Vec<Line>, Error> {
    let mut lines = Vec::new();
    for &ranks in &options.ranks {
        let mut ours: Vec<Vec<Vec<Found>>> = vec![Vec::new(); options.routes.len()];
        let mut torch = Vec::new();
        for round in 1..=options.rounds {
            for (found, &route) in ours.iter_mut().zip(&options.routes) {
                let (name, streams) = (route.way.name(), route.streams);
                say(&format!(
                    "{ranks} ranks, {name}, {streams} streams, round {round}"
                ));
                found.push(measure_ours(bench, ranks, route, options)?);
            }
            if let Some(python) = &options.torch {
                say(&format!("{ranks} ranks, PyTorch, round {round}"));
                torch.push(measure_torch(bench, python, ranks, &options.sizes)?);
            }
        }
        for (found, &Route { way, streams }) in ours.iter().zip(&options.routes) {
            for (index, &bytes) in options.sizes.iter().enumerate() {
                let over =
                    |value: &dyn Fn(usize) -> f64| Spread::of((0..found.len()).map(value).collect()).p50;
                let us = over(&|round| found[round][index].reduce_us);
                let copies = (3.0 * f64::from(ranks) - 2.0) / f64::from(ranks);
                let bound_us = over(&|round| found[round][index].memcpy_us * copies);
                let torch_us = |round: usize| -> f64 { torch[round][index] };
                let has_torch = !torch.is_empty();
                lines.push(Line {
                    ranks,
                    bytes,
                    way,
                    streams,
                    us,
                    gb_per_s: bytes as f64 / us / 1e3,
                    bound_us,
                    share_of_bound: bound_us / us,
                    torch_us: has_torch.then(|| over(&torch_us)),
                    ratio: has_torch.then(|| over(&|round| torch_us(round) / found[round][index].reduce_us)),
                });
            }
        }
    }
    Ok(lines)
}

/// Processes that are killed when they are no longer wanted.
struct Ranks(Vec<Child>);

impl Drop for Ranks {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Ranks {
    fn start(command: impl Fn(u32) -> Command, ranks: u32) -> Result<Self, Error> {
        let mut children = Self(Vec::new());
        for rank in 0..ranks {
            let mut command = command(rank);
            command
                .env_remove(lockstep_faults::VARIABLE)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped());
            let child = command
                .spawn()
                .map_err(Error::system(format!("start rank {rank}")))?;
            children.0.push(child);
        }
        Ok(children)
    }

    /// The next line of each.
    fn lines(&mut self) -> Result<Vec<String>, Error> {
        let line = |child: &mut Child| {
            let mut line = String::new();
            if let Some(stdout) = &mut child.stdout {
                // Byte by byte: what comes after the line is read later.
                BufReader::with_capacity(1, stdout).read_line(&mut line)?;
            }
            Ok(line.trim().to_owned())
        };
        let lines: io::Result<_> = self.0.iter_mut().map(line).collect();
        lines.map_err(Error::system("read what a rank says"))
    }

    /// Lets all end, and sees that they end well; the line that each has printed before.
    fn finish(mut self, what: &str) -> Result<Vec<String>, Error> {
        let said = self.lines()?;
        // No rank leaves before all have what they need from it.
        self.0.iter_mut().for_each(|child| drop(child.stdin.take()));
        for (rank, child) in self.0.iter_mut().enumerate() {
            let status = child
                .wait()
                .map_err(Error::system(format!("wait for rank {rank}")))?;
            if !status.success() {
                return Err(Error::Drill(format!("rank {rank} of {what} failed: {status}")));
            }
        }
        Ok(said)
    }
}

fn measure_ours(bench: &Bench, ranks: u32, route: Route, options: &Options) -> Result<Vec<Found>, Error> {
    if bench.stop.is_cancelled() {
        return Err(Error::Interrupted);
    }
    let Route { way, streams } = route;
    let command = |rank: u32| {
        let mut command = Command::new(&bench.program);
        command
            .args(["bench", "allreduce-rank", way.name()])
            .args([streams.to_string(), rank.to_string(), ranks.to_string()])
            .args(options.sizes.iter().map(ToString::to_string));
        command
    };
    let mut children = Ranks::start(command, ranks)?;
    let addresses = children.lines()?.join(" ");
    for child in &mut children.0 {
        if let Some(stdin) = &mut child.stdin {
            writeln!(stdin, "{addresses}").map_err(Error::system("tell a rank of the others"))?;
        }
    }
    let said = children.finish(&format!("{ranks} over {}", way.name()))?;
    let found: Result<Vec<Vec<Found>>, _> = said.iter().map(|line| serde_json::from_str(line)).collect();
    let found = found.map_err(|error| Error::Drill(format!("a rank says no figures: {error}")))?;
    slowest(&found, options.sizes.len())
}

/// Of each size what the rank has found for which it took longest: who adds up what others send is done sooner than they.
fn slowest(ranks: &[Vec<Found>], sizes: usize) -> Result<Vec<Found>, Error> {
    let of = |size: usize| {
        let found = ranks.iter().map(|found| found.get(size).copied());
        let found: Option<Vec<Found>> = found.collect();
        found?
            .into_iter()
            .max_by(|a, b| a.reduce_us.total_cmp(&b.reduce_us))
    };
    let slowest: Option<Vec<Found>> = (0..sizes).map(of).collect();
    slowest.ok_or_else(|| Error::Drill("a rank left out a size".to_owned()))
}

/// Microseconds of each size.
fn measure_torch(bench: &Bench, python: &Path, ranks: u32, sizes: &[usize]) -> Result<Vec<f64>, Error> {
    if bench.stop.is_cancelled() {
        return Err(Error::Interrupted);
    }
    let folder = tempfile::tempdir().map_err(Error::system("create a folder"))?;
    let script = folder.path().join("allreduce.py");
    std::fs::write(&script, include_str!("../../../benches/peers/allreduce.py"))
        .map_err(Error::system("write the script"))?;
    let command = |rank: u32| {
        let mut command = Command::new(python);
        command
            .arg(&script)
            .args([rank.to_string(), ranks.to_string()])
            .arg(folder.path().join("meeting"))
            .args(sizes.iter().map(ToString::to_string))
            .env("OMP_NUM_THREADS", "1")
            .env("GLOO_SOCKET_IFNAME", "lo")
            .stderr(Stdio::null());
        command
    };
    let what = format!(
        "{ranks} of PyTorch with `{}`, which needs `pip install torch numpy`,",
        python.display()
    );
    let said = Ranks::start(command, ranks)?.finish(&what)?;
    // Rank 0 speaks for all: it knows of the slowest.
    let said = said.first().map_or("", String::as_str);
    let found: std::collections::BTreeMap<usize, f64> = serde_json::from_str(said)
        .map_err(|error| Error::Drill(format!("PyTorch says no figures: {error}")))?;
    let of = |size: &usize| found.get(size).copied();
    sizes
        .iter()
        .map(|size| of(size).ok_or_else(|| Error::Drill(format!("PyTorch left out {size} bytes"))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_all_reduce_takes_as_long_as_the_last_rank() {
        let found = |bytes, reduce_us| Found {
            bytes,
            reduce_us,
            memcpy_us: 1.0,
        };
        let ranks = [
            vec![found(4, 2.0), found(8, 5.0)],
            vec![found(4, 3.0), found(8, 4.0)],
        ];
        let times = slowest(&ranks, 2)
            .unwrap()
            .into_iter()
            .map(|found| found.reduce_us);
        assert_eq!(times.collect::<Vec<_>>(), [3.0, 5.0]);
        assert!(slowest(&[vec![found(4, 2.0)], Vec::new()], 1).is_err());
    }
}
