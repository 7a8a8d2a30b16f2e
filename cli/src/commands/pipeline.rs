//! `bench data`: the stages from raw text to a dataset, each beside its peer in the same run.

mod processes;

use std::path::PathBuf;

use lockstep_bench::pipeline::{Stage, Took, input};
use lockstep_bench::spread::median;

use crate::failure::Failure;
use crate::output::{Format, count, table};
use processes::{Bench, Place};

pub(crate) use processes::{StageArgs, stage};

/// datatrove is given so much of the text, in bytes, as it takes ten seconds for it.
const DATATROVE_BYTES: u64 = 1_000_000;

/// Measure the stages from raw text to a dataset, in turn with a peer's: A B A B.
///
/// Each is a process of one thread that has the text in memory, timed by its processor time, so that other work on the
/// machine is not in it; but for `read` and `build`. A whole build is timed by the clock, on one thread and on several. The
/// median of the rounds' ratios counts. datatrove is given the first megabyte, tokenizers all; its tokens must be ours.
#[derive(Debug, clap::Args)]
pub(crate) struct DataArgs {
    /// Documents of any format that `data build` reads: a folder, a file or a glob; without it, made from the seed.
    #[arg(long, value_name = "PATH")]
    input: Option<String>,
    /// Of made text.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How much text, in megabytes.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    megabytes: u64,
    /// What to measure; may be repeated.
    #[arg(long, value_name = "STAGE", default_value = "all")]
    stage: Vec<Which>,
    /// What to compare with, and nothing else; may be repeated. Without it, those that are installed.
    #[arg(long, value_name = "PEER")]
    against: Vec<Peer>,
    /// Rounds of one measurement each.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Threads of a whole build, against one.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: u32,
    /// The folder for the text and for what stages leave, by default the system's for temporary files.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// The Python that has the peers.
    #[arg(long, value_name = "PATH", env = "LOCKSTEP_PYTHON", default_value = "python3")]
    python: PathBuf,
}

/// A stage, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// All of them.
    All,
    /// JSON lines become documents.
    Read,
    /// The language and script of a document.
    Language,
    /// Gopher's quality and repetition, C4 and FineWeb.
    Filters,
    /// Documents that hold items of an evaluation.
    Decontaminate,
    /// Private data, found and replaced.
    Pii,
    /// Nearly the same documents, by MinHash: 14 bands of 8.
    Minhash,
    /// Training of a tokenizer of 8,192 tokens.
    Train,
    /// Text to tokens.
    Tokens,
    /// A whole build.
    Build,
}

impl Which {
    fn stages(self) -> &'static [Stage] {
        match self {
            Self::All => &[
                Stage::Read,
                Stage::Language,
                Stage::Filters,
                Stage::Decontaminate,
                Stage::Pii,
                Stage::Minhash,
                Stage::Train,
                Stage::Tokens,
                Stage::Build,
            ],
            Self::Read => &[Stage::Read],
            Self::Language => &[Stage::Language],
            Self::Filters => &[Stage::Filters],
            Self::Decontaminate => &[Stage::Decontaminate],
            Self::Pii => &[Stage::Pii],
            Self::Minhash => &[Stage::Minhash],
            Self::Train => &[Stage::Train],
            Self::Tokens => &[Stage::Tokens],
            Self::Build => &[Stage::Build],
        }
    }
}

/// Another program that does the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// datatrove's filters, PII formatter, and the four steps of its MinHash.
    Datatrove,
    /// The `tokenizers` package: its byte-level BPE.
    Tokenizers,
}

impl Peer {
    const ALL: [Self; 2] = [Self::Datatrove, Self::Tokenizers];

    /// The name of its package.
    fn package(self) -> &'static str {
        match self {
            Self::Datatrove => "datatrove",
            Self::Tokenizers => "tokenizers",
        }
    }

    /// Whose peer in a stage it is.
    fn of(stage: Stage) -> Option<Self> {
        match stage {
            Stage::Filters | Stage::Pii | Stage::Minhash => Some(Self::Datatrove),
            Stage::Train | Stage::Tokens => Some(Self::Tokenizers),
            Stage::Read | Stage::Language | Stage::Decontaminate | Stage::Build => None,
        }
    }
}

#[derive(serde::Serialize)]
struct Measured {
    stage: Stage,
    ours: Vec<Took>,
    megabytes_per_second: f64,
    peak_bytes: u64,
    against: Option<Compared>,
}

#[derive(serde::Serialize)]
struct Compared {
    peer: Peer,
    theirs: Vec<Took>,
    megabytes_per_second: f64,
    /// Our speed over theirs, round by round.
    ratios: Vec<f64>,
    median_ratio: f64,
    /// Whether both found the same merges, or the same tokens.
    same: Option<bool>,
}

#[derive(serde::Serialize)]
struct Built {
    threads: u32,
    one: Vec<Took>,
    many: Vec<Took>,
    /// Time by the clock on one thread over that on several, round by round.
    ratios: Vec<f64>,
    median_ratio: f64,
    peak_bytes: u64,
}

#[derive(serde::Serialize)]
struct Report {
    input: String,
    megabytes: u64,
    not_installed: Vec<Peer>,
    stages: Vec<Measured>,
    build: Option<Built>,
}

pub(crate) async fn run(args: DataArgs, format: Format) -> anyhow::Result<()> {
    let mut stages: Vec<Stage> = Vec::new();
    for &stage in args.stage.iter().flat_map(|which| which.stages()) {
        if !stages.contains(&stage) {
            stages.push(stage);
        }
    }
    let place = Place::new(args.scratch.as_deref())?;
    let bench = Bench::new(&place, &args.python, args.megabytes * 1_000_000)?;
    let peers = installed(&bench, &args, &stages).await?;
    match &args.input {
        Some(path) => input::copy(path, &place.input, bench.bytes)?,
        None => input::make(&place.input, args.seed, bench.bytes)?,
    }
    let mut report = Report {
        input: args
            .input
            .clone()
            .unwrap_or_else(|| format!("made from seed {}", args.seed)),
        megabytes: args.megabytes,
        not_installed: missing(&args, &stages, &peers),
        stages: Vec::new(),
        build: None,
    };
    for stage in stages {
        if stage == Stage::Build {
            report.build = Some(build(&bench, &args).await?);
        } else {
            let peer = Peer::of(stage).filter(|peer| peers.contains(peer));
            report
                .stages
                .push(measured(&bench, stage, peer, args.rounds).await?);
        }
    }
    format.print(&report, describe)
}

/// The peers that are wanted and there.
async fn installed(bench: &Bench<'_>, args: &DataArgs, stages: &[Stage]) -> anyhow::Result<Vec<Peer>> {
    let mut found = Vec::new();
    for peer in Peer::ALL {
        let is_asked_for = args.against.contains(&peer);
        let is_wanted = is_asked_for || args.against.is_empty();
        if !is_wanted || !stages.iter().any(|&stage| Peer::of(stage) == Some(peer)) {
            continue;
        }
        if bench.has(peer.package()).await {
            found.push(peer);
        } else if is_asked_for {
            return Err(Failure::Usage(format!(
                "--against {package}: {} cannot import it; install it (`python3 -m venv v && v/bin/pip install {package}`, \
                 docs/benchmarks.md has the versions), and give that Python by --python or LOCKSTEP_PYTHON",
                args.python.display(),
                package = peer.package(),
            ))
            .into());
        }
    }
    Ok(found)
}

/// Peers of these stages that would be compared with if they were there.
fn missing(args: &DataArgs, stages: &[Stage], found: &[Peer]) -> Vec<Peer> {
    let of_stages = |peer: &Peer| stages.iter().any(|&stage| Peer::of(stage) == Some(*peer));
    let missing = Peer::ALL
        .into_iter()
        .filter(|peer| of_stages(peer) && !found.contains(peer));
    missing.filter(|_| args.against.is_empty()).collect()
}

async fn measured(
    bench: &Bench<'_>,
    stage: Stage,
    peer: Option<Peer>,
    rounds: u32,
) -> anyhow::Result<Measured> {
    let (mut ours, mut theirs, mut same) = (Vec::new(), Vec::new(), None);
    for round in 0..rounds {
        eprintln!("{}: round {} of {rounds}", stage.name(), round + 1);
        ours.push(bench.ours(stage, 1).await?);
        if let Some(peer) = peer {
            let bytes = if peer == Peer::Datatrove {
                DATATROVE_BYTES
            } else {
                bench.bytes
            };
            theirs.push(bench.theirs(stage, bytes).await?);
            same = bench.same(stage)?.map(|is| is && same != Some(false));
        }
    }
    let speeds = |took: &[Took]| took.iter().map(Took::megabytes_per_second).collect::<Vec<f64>>();
    let (our_speeds, their_speeds) = (speeds(&ours), speeds(&theirs));
    let ratios: Vec<f64> = our_speeds
        .iter()
        .zip(&their_speeds)
        .map(|(ours, theirs)| ours / theirs)
        .collect();
    Ok(Measured {
        stage,
        megabytes_per_second: median(&our_speeds),
        peak_bytes: ours.iter().map(|took| took.peak_bytes).max().unwrap_or(0),
        ours,
        against: peer.map(|peer| Compared {
            peer,
            theirs,
            megabytes_per_second: median(&their_speeds),
            median_ratio: median(&ratios),
            ratios,
            same,
        }),
    })
}

async fn build(bench: &Bench<'_>, args: &DataArgs) -> anyhow::Result<Built> {
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for round in 0..args.rounds {
        eprintln!("build: round {} of {}", round + 1, args.rounds);
        one.push(bench.ours(Stage::Build, 1).await?);
        many.push(bench.ours(Stage::Build, args.threads).await?);
    }
    let ratios: Vec<f64> = one
        .iter()
        .zip(&many)
        .map(|(one, many)| one.seconds / many.seconds)
        .collect();
    Ok(Built {
        threads: args.threads,
        median_ratio: median(&ratios),
        ratios,
        peak_bytes: many.iter().map(|took| took.peak_bytes).max().unwrap_or(0),
        one,
        many,
    })
}

fn describe(report: &Report) -> String {
    let mebibytes = |bytes: u64| format!("{} MiB", count(bytes.div_ceil(1 << 20)));
    let rows = report.stages.iter().map(|measured| {
        let against = measured.against.as_ref();
        let of_peer = |text: &dyn Fn(&Compared) -> String| against.map_or_else(|| "-".to_owned(), text);
        [
            measured.stage.name().to_owned(),
            format!("{:.1}", measured.megabytes_per_second),
            mebibytes(measured.peak_bytes),
            of_peer(&|compared| compared.peer.package().to_owned()),
            of_peer(&|compared| format!("{:.2}", compared.megabytes_per_second)),
            of_peer(&|compared| format!("{:.1}", compared.median_ratio)),
            of_peer(&|compared| match compared.same {
                None => "-".to_owned(),
                Some(true) => "the same".to_owned(),
                Some(false) => "DIFFERENT".to_owned(),
            }),
        ]
    });
    let mut text = format!("{} MB, {}\n", report.megabytes, report.input);
    if !report.stages.is_empty() {
        let header = [
            "stage",
            "MB/s",
            "memory",
            "against",
            "its MB/s",
            "ours is times",
            "result",
        ];
        text += &format!("\n{}\n", table(header, rows));
    }
    if let Some(build) = &report.build {
        let seconds = |took: &[Took]| median(&took.iter().map(|took| took.seconds).collect::<Vec<f64>>());
        text += &format!(
            "\na whole build takes {:.1} s on one thread and {:.1} s on {}: {:.2} times as fast, {} at most\n",
            seconds(&build.one),
            seconds(&build.many),
            build.threads,
            build.median_ratio,
            mebibytes(build.peak_bytes),
        );
    }
    for peer in &report.not_installed {
        text += &format!(
            "\n{}: not installed, so not compared with; see `lockstep bench data --help`",
            peer.package()
        );
    }
    text
}
