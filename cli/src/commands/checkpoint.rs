//! `checkpoint ls`, `verify`, `prune`, `export`.

use std::path::{Path, PathBuf};

use lockstep_data::Dataset;
use lockstep_trainer::checkpoint::{self, Policy};
use lockstep_trainer::{Export, decoder};

use crate::exports::Exports;
use crate::failure::Failure;
use crate::output::{Format, count, table};

/// List, verify, prune and export checkpoints.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List a run's checkpoints.
    Ls {
        /// The run's folder.
        run: PathBuf,
    },
    /// Check a checkpoint, or all of a run, against their digests.
    Verify {
        /// A checkpoint's folder (`…/step-00000100`) or a run's.
        path: PathBuf,
    },
    /// Delete the checkpoints of a run that are not to be kept. The newest that verifies always stays.
    Prune {
        /// The run's folder. Nothing may be training into it.
        run: PathBuf,
        /// Keep so many of the newest.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        keep: u64,
        /// Keep those, too, whose step is a multiple of N.
        #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
        keep_every: u64,
        /// Keep those N, too, that have the fewest validation bits per byte.
        #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
        keep_best: u64,
    },
    /// Write a checkpoint as a model in Hugging Face's layout, and record that in the run's folder.
    Export {
        /// A checkpoint's folder, or a run's for its newest checkpoint that verifies.
        path: PathBuf,
        /// The folder that becomes the model.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

#[derive(serde::Serialize)]
struct Row {
    step: u64,
    path: PathBuf,
    /// None when the checkpoint does not verify, as with the two that follow.
    weights_blake3: Option<String>,
    shards: Option<usize>,
    validation_bits_per_byte: Option<f64>,
    /// Of what is there.
    bytes: u64,
    problem: Option<String>,
}

pub(crate) fn run(command: Command, format: Format) -> anyhow::Result<()> {
    match command {
        Command::Ls { run } => list(&run, format),
        Command::Verify { path } => verify(&path, format),
        Command::Prune {
            run,
            keep,
            keep_every,
            keep_best,
        } => {
            let policy = Policy {
                keep,
                keep_every,
                keep_best,
            };
            let deleted = checkpoint::prune(&folder_of(&run)?, &policy)?;
            let reply = serde_json::json!({ "deleted": deleted });
            format.print(&reply, |_| match &deleted[..] {
                [] => "nothing to delete".to_owned(),
                steps => {
                    let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
                    format!("deleted the checkpoints of steps {}", steps.join(", "))
                }
            })
        }
        Command::Export { path, out } => {
            let written = export(&path, &out)?;
            let reply = serde_json::json!({ "model": out, "step": written });
            format.print(&reply, |_| {
                format!("{} holds the model of step {written}", out.display())
            })
        }
    }
}

fn is_checkpoint(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with("step-"))
}

/// The folder of a run's checkpoints, given the run's or that folder itself.
fn folder_of(run: &Path) -> anyhow::Result<PathBuf> {
    let inside = run.join("checkpoints");
    if inside.is_dir() {
        return Ok(inside);
    }
    if run.is_dir() && !checkpoint::list(run)?.is_empty() {
        return Ok(run.to_owned());
    }
    Err(Failure::Usage(format!(
        "{} holds no checkpoints; give a run's folder",
        run.display()
    ))
    .into())
}

fn list(run: &Path, format: Format) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for (step, path) in checkpoint::list(&folder_of(run)?)? {
        let bytes = std::fs::read_dir(&path)
            .map(|entries| {
                entries
                    .flatten()
                    .filter_map(|e| e.metadata().ok())
                    .map(|m| m.len())
                    .sum()
            })
            .unwrap_or(0);
        let (manifest, problem) = match checkpoint::verify(&path) {
            Ok(manifest) => (Some(manifest), None),
            Err(error) => (None, Some(error.to_string())),
        };
        rows.push(Row {
            step: step.0,
            path,
            shards: manifest.as_ref().map(|m| m.shards.len()),
            validation_bits_per_byte: manifest.as_ref().and_then(|m| m.about.validation_bits_per_byte),
            weights_blake3: manifest.map(|m| m.weights_digest),
            bytes,
            problem,
        });
    }
    format.print(&rows, |rows| {
        let cells = rows.iter().map(|row| {
            let state = row.problem.as_ref().or(row.weights_blake3.as_ref());
            [
                row.step.to_string(),
                row.shards.map_or("-".to_owned(), |shards| shards.to_string()),
                count(row.bytes),
                row.validation_bits_per_byte
                    .map_or("-".to_owned(), |score| format!("{score:.4}")),
                state.cloned().unwrap_or_default(),
            ]
        });
        table(["step", "shards", "bytes", "bits/byte", "weights"], cells)
    })
}

fn verify(path: &Path, format: Format) -> anyhow::Result<()> {
    let all = if is_checkpoint(path) {
        vec![path.to_owned()]
    } else {
        checkpoint::list(&folder_of(path)?)?
            .into_iter()
            .map(|(_, path)| path)
            .collect()
    };
    let mut good = Vec::new();
    for path in all {
        let manifest = checkpoint::verify(&path)?;
        good.push(serde_json::json!({ "path": path, "step": manifest.step, "weights_blake3": manifest.weights_digest }));
    }
    format.print(&good, |good| format!("{} checkpoints verify", good.len()))
}

/// Exports the checkpoint at `path`, or the newest of a run that verifies, and returns its step.
pub(crate) fn export(path: &Path, out: &Path) -> anyhow::Result<u64> {
    let (found, run) = if is_checkpoint(path) {
        let run = path.parent().and_then(Path::parent).unwrap_or(Path::new("."));
        (path.to_owned(), run.to_owned())
    } else {
        let (found, skipped) = checkpoint::newest_valid(&folder_of(path)?)?;
        for skipped in skipped {
            eprintln!("skipped: {}", skipped.reason);
        }
        let found =
            found.ok_or_else(|| Failure::Job(format!("no checkpoint in {} verifies", path.display())))?;
        (found.path, path.to_owned())
    };
    let loaded = checkpoint::load(&found)?;
    let spec = super::spec::read(&run.join("spec.toml"))?;
    let dataset = spec.data.dataset.clone();
    let dataset =
        dataset.ok_or_else(|| Failure::Usage(format!("{}: data.dataset is missing", run.display())))?;
    let dataset = Dataset::open(&dataset)?;
    let layout = decoder::layout(&spec.model)?;
    let tokenizer = dataset.tokenizer_path();
    let export = Export {
        model: &spec.model,
        tokenizer: &tokenizer,
        end_of_text: dataset.manifest().eos_id,
    };
    let record = Exports::open(&run)?;
    export.write(out, &layout, &loaded.state.weights)?;
    let step = loaded.manifest.step.0;
    record.record(step, out, &loaded.manifest.weights_digest)?;
    Ok(step)
}
