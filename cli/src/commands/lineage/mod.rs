//! `lineage`: what of a run saw a document.
//!
//! | module | what it does |
//! |---|---|
//! | `source` | what the answers are made from: ledger, spec, dataset, checkpoints, exports |
//! | `document` | which steps, checkpoints and exports saw a document |
//! | `step` | which documents a step saw |

mod document;
mod source;
mod step;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use crate::output::Format;

/// Say which steps, checkpoints and exports of a run saw a document, or which documents a step saw.
///
/// Every sample that a step uses is a window of tokens, each token is a document's, and the run's ledger says which
/// positions of the sample order a step really used and who computed them: the answer is looked up, not estimated. Two
/// documents that border in a window are both seen by whoever uses it. A checkpoint or export has seen a document if a
/// step that made it did. Steps that were skipped changed nothing; steps that a resume or a rollback went back over do not
/// count, but what was exported from them stays marked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
                  lockstep lineage --run runs/first --document src/lib.rs\n  \
                  lockstep lineage --run runs/first --step 40\n\n\
                  IDs are the column `path` of the dataset's documents.parquet. A source with one document, or a text's\n\
                  BLAKE3 digest, will do too.")]
#[command(group = clap::ArgGroup::new("question").required(true))]
pub(crate) struct Args {
    /// The run's folder, which `run` calls --out.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// The document.
    #[arg(long, value_name = "ID", group = "question")]
    document: Option<String>,
    /// The step.
    #[arg(long, value_name = "N", group = "question")]
    step: Option<u64>,
    /// The dataset, if it is no longer where the run's spec says.
    #[arg(long, value_name = "DIR")]
    dataset: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, format: Format) -> anyhow::Result<()> {
    let source = source::Source::open(&args.run, args.dataset.as_deref())?;
    if source.torn {
        eprintln!("note: the ledger's last line is not whole (a writer died, or is at it); it is left out");
    }
    if let Some(step) = args.step {
        let answer = step::Answer::of(&source, step)?;
        return format.print(&answer, step::Answer::text);
    }
    let answer = document::Answer::of(&source, args.document.as_deref().unwrap_or_default())?;
    format.print(&answer, document::Answer::text)
}
