//! `bench scaling`: what is left of a rank's speed when there are more.

use lockstep_bench::spread::median;

use super::processes::Bench;
use super::{Beside, What, ratios, say_round};
use crate::output::{Format, table};

/// Weak scaling: how much of its speed a rank keeps when there are more, each with as much to do as before.
///
/// Whole jobs, with one thread a rank, in turn. PyTorch's are a process alone, and DDP over gloo.
#[derive(Debug, clap::Args)]
pub(crate) struct ScalingArgs {
    #[command(flatten)]
    what: What,
    /// Ranks, against one.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..=64))]
    ranks: u32,
    #[command(flatten)]
    beside: Beside,
}

#[derive(serde::Serialize)]
struct Scaling {
    model: String,
    ranks: u32,
    #[serde(flatten)]
    ours: Kept,
    torch: Option<Kept>,
}

/// Tokens per second of one rank and of all, round by round.
#[derive(Default, serde::Serialize)]
struct Kept {
    one: Vec<f64>,
    many: Vec<f64>,
    /// Of a rank's speed, the share that is kept, round by round.
    kept: Vec<f64>,
    median_kept: f64,
}

impl Kept {
    fn of(one: Vec<f64>, many: Vec<f64>, ranks: u32) -> Self {
        let a_rank: Vec<f64> = many.iter().map(|many| many / f64::from(ranks)).collect();
        let kept = ratios(&a_rank, &one);
        Self {
            median_kept: median(&kept),
            one,
            many,
            kept,
        }
    }

    fn rows(&self, who: &str) -> impl Iterator<Item = [String; 4]> {
        let rounds = self.one.iter().zip(&self.many).zip(&self.kept);
        rounds.map(move |((one, many), kept)| {
            [
                who.to_owned(),
                format!("{one:.0}"),
                format!("{many:.0}"),
                percent(*kept),
            ]
        })
    }
}

pub(crate) async fn scaling(args: ScalingArgs, format: Format) -> anyhow::Result<()> {
    args.what.parse(args.ranks)?;
    let folder = tempfile::Builder::new().prefix("lockstep-bench-").tempdir()?;
    let bench = Bench::new(&args.what, folder.path(), Some(&args.beside.python)).await?;
    let (mut one, mut many) = (Vec::new(), Vec::new());
    let (mut torch_one, mut torch_many) = (Vec::new(), Vec::new());
    for round in 0..args.what.rounds {
        say_round(round, &args.what);
        one.push(bench.job(1).await?);
        many.push(bench.job(args.ranks).await?);
        if args.beside.against.is_some() {
            torch_one.push(bench.torch(1, false).await?.tokens_per_second);
            torch_many.push(bench.torch(args.ranks, false).await?.tokens_per_second);
        }
    }
    let torch = args.beside.against.is_some();
    let result = Scaling {
        model: args.what.name(),
        ranks: args.ranks,
        ours: Kept::of(one, many, args.ranks),
        torch: torch.then(|| Kept::of(torch_one, torch_many, args.ranks)),
    };
    format.print(&result, describe)
}

fn describe(scaling: &Scaling) -> String {
    let torch = scaling.torch.iter();
    let rows = scaling.ours.rows("ours");
    let rows = rows.chain(torch.flat_map(|torch| torch.rows("PyTorch")));
    let beside = scaling.torch.as_ref().map_or(String::new(), |torch| {
        format!("; PyTorch's {}", percent(torch.median_kept))
    });
    format!(
        "{}\n\n{}: a rank of {} keeps {} of its speed (median of {} rounds){beside}",
        table(["whose", "tokens/s of one rank", "of all", "kept"], rows),
        scaling.model,
        scaling.ranks,
        percent(scaling.ours.median_kept),
        scaling.ours.kept.len(),
    )
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_of_a_rank_alone() {
        let kept = Kept::of(vec![100.0, 200.0, 100.0], vec![400.0, 400.0, 300.0], 4);
        assert_eq!((kept.kept, kept.median_kept), (vec![1.0, 0.5, 0.75], 0.75));
    }
}
