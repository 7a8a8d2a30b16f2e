//! `data build`, the stages as verbs of their own, `data submit`, `data show`, `data diff`, `data verify`.

mod curate;
mod diff;
mod show;
mod submit;

use std::path::{Path, PathBuf};

use lockstep_curate::Stage;
use lockstep_data::{BuildOptions, Built, Corpus, Dataset};

use crate::interrupt;
use crate::output::{Format, count};
use crate::progress::Progress;

/// Build datasets from raw text, and look into them.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Build(BuildArgs),
    /// Read files of any format as documents.
    Read(curate::StageArgs),
    /// Make text uniform: Unicode form C, control characters, broken encodings.
    Normalise(curate::StageArgs),
    /// Identify languages, and filter by them.
    Language(curate::StageArgs),
    /// Filter by licence, opt-outs and exclusion lists.
    Licence(curate::StageArgs),
    /// Score and filter quality: Gopher, C4, FineWeb, code.
    Quality(curate::StageArgs),
    /// Find text of evaluation sets.
    Decontaminate(curate::StageArgs),
    /// Find and redact private data.
    Pii(curate::StageArgs),
    /// Drop documents that are there twice, or nearly.
    Dedup(curate::StageArgs),
    /// Audit whom the text speaks of, and whom filters drop.
    Bias(curate::StageArgs),
    /// Make tokens of documents that other stages have left: train or load a tokenizer, and write a dataset.
    Tokenize(curate::StageArgs),
    Submit(submit::Args),
    Show(show::Args),
    Diff(diff::Args),
    Verify(VerifyArgs),
}

/// Build a dataset from a spec, or from a folder of text.
///
/// From a spec: reads text, Markdown, HTML, source code, JSONL, CSV, Parquet and WARC, in folders or, in a program built
/// with `--features remote`, in object stores and at addresses; makes it uniform; filters by language, licence and quality;
/// drops duplicates; redacts private data; trains or loads a tokenizer; and writes tokens with the provenance of each
/// document, what was dropped and why, and a report. The least spec is
///
///   [[source]]
///   name = "web"
///   path = "raw/*.jsonl.gz"
///
/// Interrupted or killed, the same command goes on where it stopped: what is done lies in OUT.work until the end. The
/// same spec and input give the same bytes.
///
/// From a folder: every UTF-8 file is a document; exact duplicates are left out; 1% is held out. Interrupted, it begins
/// again.
#[derive(Debug, clap::Args)]
pub(crate) struct BuildArgs {
    /// The spec.
    #[arg(value_name = "SPEC", required_unless_present_any = ["corpus", "cargo_registry"])]
    spec: Option<PathBuf>,
    /// A folder of text, instead of a spec.
    #[arg(long, value_name = "DIR", conflicts_with = "spec")]
    corpus: Option<PathBuf>,
    /// The Rust and Markdown sources in cargo's own registry, instead of a spec.
    #[arg(long, conflicts_with_all = ["corpus", "spec"])]
    cargo_registry: bool,
    /// The folder that becomes the dataset.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Tokens in the vocabulary; a spec has it under `[tokenizer]`.
    #[arg(long, value_name = "N", default_value_t = 1024, conflicts_with = "spec")]
    vocab_size: usize,
    /// Use a uniform sample of whole documents of at most so many MB.
    #[arg(long, value_name = "MB", conflicts_with = "spec")]
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
        Command::Submit(args) => super::block_on(submit::run(args, format)),
        Command::Build(BuildArgs {
            spec: Some(spec),
            out,
            ..
        }) => curate::build(&spec, &out, format),
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
        Command::Read(args) => curate::stage(Stage::Read, args, format),
        Command::Normalise(args) => curate::stage(Stage::Normalise, args, format),
        Command::Language(args) => curate::stage(Stage::Language, args, format),
        Command::Licence(args) => curate::stage(Stage::Licence, args, format),
        Command::Quality(args) => curate::stage(Stage::Quality, args, format),
        Command::Decontaminate(args) => curate::stage(Stage::Decontaminate, args, format),
        Command::Pii(args) => curate::stage(Stage::Pii, args, format),
        Command::Dedup(args) => curate::stage(Stage::Dedup, args, format),
        Command::Bias(args) => curate::stage(Stage::Bias, args, format),
        Command::Tokenize(args) => curate::stage(Stage::Tokenize, args, format),
        Command::Show(args) => show::run(&args, format),
        Command::Diff(args) => diff::run(&args, format),
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
