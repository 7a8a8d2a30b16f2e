//! `bench memory`: what training takes of memory, beside what was planned.

use std::collections::BTreeMap;

use lockstep_bench::spread::median;
use lockstep_trainer::memory::{of_process, of_rank};

use super::processes::Bench;
use super::{Beside, What, ratios, say_round};
use crate::output::{Format, table};

/// Measure the peak memory of training, beside what was planned, and PyTorch's.
///
/// Of a process that trains alone, which has one gradient; and of each rank of a whole job, by whose plan a job is refused that does not
/// fit: it has partial sums. PyTorch's is a process alone, and with several ranks
/// the first of DDP over gloo.
#[derive(Debug, clap::Args)]
pub(crate) struct MemoryArgs {
    #[command(flatten)]
    what: What,
    /// Ranks of the job.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    ranks: u32,
    #[command(flatten)]
    beside: Beside,
}

#[derive(serde::Serialize)]
struct Memory {
    model: String,
    parameters: usize,
    ranks: u32,
    peaks: Vec<Peak>,
}

/// Of one process.
#[derive(serde::Serialize)]
struct Peak {
    of: String,
    planned_bytes: u64,
    /// Round by round.
    measured_bytes: Vec<u64>,
    /// The median of the rounds, by the plan.
    of_plan: f64,
    /// PyTorch's, round by round.
    torch_bytes: Vec<u64>,
    /// The median over the rounds of ours by PyTorch's.
    ratio: Option<f64>,
}

impl Peak {
    fn new(of: String, planned_bytes: u64, measured_bytes: Vec<u64>, torch_bytes: Vec<u64>) -> Self {
        let (ours, torch) = (floats(&measured_bytes), floats(&torch_bytes));
        Self {
            of,
            planned_bytes,
            of_plan: median(&ours) / planned_bytes as f64,
            ratio: (!torch.is_empty()).then(|| median(&ratios(&ours, &torch))),
            measured_bytes,
            torch_bytes,
        }
    }

    fn cells(&self) -> [String; 6] {
        let mebibytes = |bytes: f64| format!("{:.0} MiB", bytes / f64::from(1 << 20));
        let torch = self.ratio.map(|_| mebibytes(median(&floats(&self.torch_bytes))));
        let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".to_owned());
        [
            self.of.clone(),
            mebibytes(self.planned_bytes as f64),
            mebibytes(median(&floats(&self.measured_bytes))),
            format!("{:.0}%", self.of_plan * 100.0),
            or_dash(torch),
            or_dash(self.ratio.map(|ratio| format!("{ratio:.3}"))),
        ]
    }
}

fn floats(bytes: &[u64]) -> Vec<f64> {
    bytes.iter().map(|&bytes| bytes as f64).collect()
}

pub(crate) async fn memory(args: MemoryArgs, format: Format) -> anyhow::Result<()> {
    let (what, spec) = (&args.what, args.what.parse(args.ranks)?);
    let folder = tempfile::Builder::new().prefix("lockstep-bench-").tempdir()?;
    let bench = Bench::new(what, folder.path(), Some(&args.beside.python)).await?;
    let mut process = Vec::new();
    let mut ranks: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    let (mut torch_process, mut torch_ranks) = (Vec::new(), Vec::new());
    for round in 0..what.rounds {
        say_round(round, what);
        process.push(bench.process("decoder", false).await?.0.peak_bytes);
        for (slot, bytes) in bench.peaks(args.ranks).await? {
            ranks.entry(slot).or_default().push(bytes);
        }
        if args.beside.against.is_some() {
            let alone = bench.torch(1, false).await?.peak_bytes;
            torch_process.push(alone);
            torch_ranks.push(match args.ranks {
                1 => alone,
                several => bench.torch(several, false).await?.peak_bytes,
            });
        }
    }
    let alone = Peak::new(
        "a process alone".to_owned(),
        of_process(&spec),
        process,
        torch_process,
    );
    let of_job = ranks.into_iter().map(|(slot, bytes)| {
        let of = format!("rank {slot} of {}", args.ranks);
        Peak::new(of, of_rank(&spec), bytes, torch_ranks.clone())
    });
    let result = Memory {
        model: what.name(),
        parameters: spec.model.parameters(),
        ranks: args.ranks,
        peaks: [alone].into_iter().chain(of_job).collect(),
    };
    format.print(&result, |memory| {
        let head = [
            memory.model.as_str(),
            "planned",
            "peak",
            "of the plan",
            "PyTorch's",
            "ours is times",
        ];
        table(head, memory.peaks.iter().map(Peak::cells))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_the_median_of_the_rounds() {
        let peak = Peak::new("a rank".to_owned(), 100, vec![90, 80, 99], vec![180, 200, 180]);
        assert_eq!((peak.of_plan, peak.ratio), (0.9, Some(0.5)));
        assert_eq!(
            Peak::new("a rank".to_owned(), 100, vec![90], Vec::new()).ratio,
            None
        );
    }
}
