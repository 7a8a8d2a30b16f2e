//! `bench allreduce`: how fast ranks of this machine add up.

use std::path::PathBuf;

use lockstep_bench::allreduce::{self, Line, Options, Route, Way};

use super::drills::{bench, beside};
use crate::failure::Failure;
use crate::output::{Format, table};

/// Measure all-reduces between rank processes of this machine.
///
/// Beside each stands what the copies that it needs take at the speed of this machine's memory, which is measured in the
/// same run. With `--against torch`, so does PyTorch's gloo backend: the two run in turn, A B A B, and the median of
/// the rounds' ratios counts.
#[derive(Debug, clap::Args)]
pub(crate) struct AllreduceArgs {
    /// Numbers of ranks.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [2, 4], value_parser = clap::value_parser!(u32).range(2..=64))]
    ranks: Vec<u32>,
    /// Bytes of the gradient; with k or m, KiB or MiB.
    #[arg(long, value_name = "BYTES,…", value_delimiter = ',', value_parser = size, default_value = "1k,64k,1m,4m,16m,64m")]
    sizes: Vec<usize>,
    /// The ways between ranks.
    #[arg(long, value_name = "WAY,…", value_delimiter = ',', value_enum, default_values_t = [Transport::Shm, Transport::Tcp])]
    transport: Vec<Transport>,
    /// Connections between two ranks over TCP, as `collective.streams` in a job.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1], value_parser = clap::value_parser!(u8).range(1..=16))]
    streams: Vec<u8>,
    /// Rounds; in each, everything is measured once.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Measure another library as well.
    #[arg(long, value_enum)]
    against: Option<Peer>,
    /// The Python to run it with.
    #[arg(
        long,
        value_name = "PROGRAM",
        env = "LOCKSTEP_PYTHON",
        default_value = "python3"
    )]
    python: PathBuf,
}

/// A rank of it.
#[derive(Debug, clap::Args)]
pub(crate) struct RankArgs {
    #[arg(value_enum)]
    transport: Transport,
    streams: usize,
    rank: u32,
    ranks: u32,
    sizes: Vec<usize>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Transport {
    /// Shared memory.
    Shm,
    /// TCP over loopback.
    Tcp,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Peer {
    /// PyTorch's gloo backend.
    Torch,
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Way::from(*self).name().fmt(f)
    }
}

impl From<Transport> for Way {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Shm => Self::Shm,
            Transport::Tcp => Self::Tcp,
        }
    }
}

fn size(text: &str) -> Result<usize, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        _ => (text, 0),
    };
    let number: usize = digits
        .parse()
        .map_err(|_| "must be a number of bytes, such as 64k".to_owned())?;
    let bytes = number
        .checked_mul(1 << shift)
        .filter(|bytes| (4..=1 << 30).contains(bytes));
    let bytes = bytes.ok_or_else(|| "must be 4 bytes at least and 1024m at most".to_owned())?;
    if bytes.is_multiple_of(4) {
        Ok(bytes)
    } else {
        Err("must be a multiple of 4, as a value has 4 bytes".to_owned())
    }
}

pub(crate) async fn run(args: AllreduceArgs, format: Format) -> anyhow::Result<()> {
    let streams = |way| match way {
        Transport::Shm => vec![1],
        Transport::Tcp => args.streams.clone(),
    };
    let each = |way: Transport| {
        let streams = streams(way).into_iter();
        streams.map(move |streams| Route {
            way: way.into(),
            streams: usize::from(streams),
        })
    };
    let options = Options {
        ranks: args.ranks,
        sizes: args.sizes,
        routes: args.transport.iter().copied().flat_map(each).collect(),
        rounds: args.rounds,
        torch: args.against.map(|Peer::Torch| args.python),
    };
    let bench = bench()?;
    let lines = beside(move || allreduce::measure(&bench, &options, |what| eprintln!("{what}"))).await?;
    format.print(&lines, |lines| {
        let head = [
            "ranks", "bytes", "way", "streams", "us", "GB/s", "bound us", "of bound", "torch us", "ratio",
        ];
        table(head, lines.iter().map(cells))
    })
}

fn cells(line: &Line) -> [String; 10] {
    let or_dash =
        |value: Option<f64>, digits| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
    [
        line.ranks.to_string(),
        line.bytes.to_string(),
        line.way.name().to_owned(),
        line.streams.to_string(),
        format!("{:.1}", line.us),
        format!("{:.3}", line.gb_per_s),
        format!("{:.1}", line.bound_us),
        format!("{:.0}%", line.share_of_bound * 100.0),
        or_dash(line.torch_us, 1),
        or_dash(line.ratio, 1),
    ]
}

pub(crate) fn rank(args: &RankArgs) -> anyhow::Result<()> {
    let route = Route {
        way: args.transport.into(),
        streams: args.streams,
    };
    let measured = allreduce::run_rank(route, args.rank, args.ranks, &args.sizes);
    measured.map_err(|error| Failure::Job(error.to_string()).into())
}
