//! `data build`, `data verify`.

use std::path::{Path, PathBuf};

use lockstep_data::{BuildOptions, Built, Corpus, Dataset};

use crate::interrupt;
use crate::output::{Format, count};
use crate::progress::Progress;

/// Build and check datasets.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Build(BuildArgs),
    Verify(VerifyArgs),
}

/// Build a dataset from a folder of text.
///
/// Exact duplicates and what is not UTF-8 are left out and counted; 1% of the documents are held out by content.
/// The same text and options give the same bytes. Nothing half-written stays behind.
#[derive(Debug, clap::Args)]
pub(crate) struct BuildArgs {
    /// The folder of text.
    #[arg(long, value_name = "DIR", required_unless_present = "cargo_registry")]
    corpus: Option<PathBuf>,
    /// Take the Rust and Markdown sources in cargo's own registry instead.
    #[arg(long, conflicts_with = "corpus")]
    cargo_registry: bool,
    /// The folder that becomes the dataset.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Tokens in the vocabulary.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    vocab_size: usize,
    /// Use a uniform sample of whole documents of at most so many MB.
    #[arg(long, value_name = "MB")]
    max_megabytes: Option<u64>,
}

/// Check every file of a dataset against its digest.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The dataset's folder.
    dataset: PathBuf,
}

pub(crate) fn run(command: Command, format: Format) -> anyhow::Result<()> {
    match command {
        Command::Build(args) => {
            let corpus = args.corpus.map_or(Corpus::CargoRegistry(None), Corpus::Folder);
            let max_bytes = args
                .max_megabytes
                .map(|megabytes| megabytes.saturating_mul(1_000_000));
            let options = BuildOptions {
                max_bytes,
                ..BuildOptions::new(corpus, &args.out, args.vocab_size)
            };
            let built = build(&options, format)?;
            format.print(&built.manifest, |_| describe(&args.out, &built))
        }
        Command::Verify(args) => {
            let dataset = Dataset::open(&args.dataset)?;
            dataset.verify()?;
            let manifest = dataset.manifest();
            format.print(manifest, |manifest| {
                format!(
                    "{}: all {} files verify, digest {}",
                    args.dataset.display(),
                    manifest.files.len(),
                    manifest.digest
                )
            })
        }
    }
}

/// Builds with progress on stderr; Ctrl-C stops it and leaves nothing behind.
pub(crate) fn build(options: &BuildOptions, format: Format) -> anyhow::Result<Built> {
    let interrupt = interrupt::heed()?;
    let mut shown = None;
    let mut report = |now: lockstep_data::Progress| {
        if format == Format::Json {
            return;
        }
        if shown.as_ref().is_none_or(|(stage, _)| *stage != now.stage) {
            if let Some((stage, bar)) = shown.take() {
                let bar: Progress = bar;
                bar.finish(&format!("{stage}: done"));
            }
            shown = Some((now.stage, Progress::new(&now.stage.to_string(), now.total_bytes)));
        }
        if let Some((_, bar)) = &mut shown {
            let megabytes = |bytes: u64| bytes as f64 / 1e6;
            let message = format!(
                "{:.1} of {:.1} MB",
                megabytes(now.done_bytes),
                megabytes(now.total_bytes)
            );
            bar.set(now.done_bytes, now.total_bytes, &message);
        }
    };
    let built = lockstep_data::build(options, &mut report, interrupt.flag());
    if let Some((stage, bar)) = shown {
        bar.finish(&if built.is_ok() {
            format!("{stage}: done")
        } else {
            format!("{stage}: stopped")
        });
    }
    Ok(built?)
}

/// A dataset in a few lines.
pub(crate) fn describe(path: &Path, built: &Built) -> String {
    let manifest = &built.manifest;
    let split = |name: &str, split: &lockstep_data::manifest::SplitRecord| {
        format!(
            "  {name:<11} {:>9} documents  {:>12} bytes  {:>11} tokens\n",
            count(split.documents),
            count(split.bytes),
            count(split.tokens)
        )
    };
    let verb = if built.reused {
        "is there already"
    } else {
        "is built"
    };
    format!(
        "dataset {} {verb}, digest {}\n{}{}  left out: {}\n  vocabulary: {} tokens",
        path.display(),
        manifest.digest,
        split("train", &manifest.train),
        split("validation", &manifest.validation),
        manifest.skipped,
        count(manifest.vocab_size as u64),
    )
}
