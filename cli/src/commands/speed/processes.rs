//! The processes that are measured: ours and a peer's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use lockstep_coordinator::summary::Summary;

use super::{What, peaks};
use crate::commands::run::{Job, JobOptions, finished, locally};
use crate::commands::{data, jobs};
use crate::failure::Failure;
use crate::output::Format;
use crate::progress::Progress;

/// The peer's step.
const TORCH: &str = include_str!("../../../../benches/peers/step.py");
/// What one process found.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Found {
    pub(super) step_ms: f64,
    pub(super) tokens_per_second: f64,
    pub(super) peak_bytes: u64,
}

/// The processes that are measured.
pub(super) struct Bench<'a> {
    what: &'a What,
    folder: &'a Path,
    python: Option<&'a Path>,
    program: PathBuf,
}

impl<'a> Bench<'a> {
    pub(super) async fn new(
        what: &'a What,
        folder: &'a Path,
        python: Option<&'a Path>,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        std::fs::write(folder.join("step.py"), TORCH)
            .map_err(Failure::storage(format!("write {}", folder.display())))?;
        Ok(Self {
            what,
            folder,
            python,
            program,
        })
    }

    /// A process that trains, and the best that its products reach if that is asked for.
    pub(super) async fn process(&self, path: &str, with_peak: bool) -> anyhow::Result<(Found, Option<f64>)> {
        let spec = self.folder.join("process.toml");
        std::fs::write(&spec, self.what.source(1, Path::new("no-data"))?)
            .map_err(Failure::storage(format!("write {}", spec.display())))?;
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(["bench", "train-loop", "--path", path])
            .arg(&spec)
            .env("RAYON_NUM_THREADS", "1")
            .env("CANDLE_NUM_THREADS", "1");
        let found = answer(command, "the loop").await?;
        let peak = if with_peak {
            let mut command = tokio::process::Command::new(&self.program);
            command
                .args(["bench", "products"])
                .arg(&spec)
                .env("RAYON_NUM_THREADS", "1");
            Some(answer::<f64>(command, "the products").await?)
        } else {
            None
        };
        Ok((found, peak))
    }

    /// Tokens per second of a whole job, with one thread a rank.
    pub(super) async fn job(&self, ranks: u32) -> anyhow::Result<f64> {
        let summary = self.run(ranks).await?;
        let spec = self.what.parse(ranks)?;
        let tokens = (spec.samples_per_step() * spec.batch.sequence_length as u64) as f64;
        Ok(tokens / summary.step_ms_median * 1e3)
    }

    /// The most memory that each rank of a job has had, by its slot.
    pub(super) async fn peaks(&self, ranks: u32) -> anyhow::Result<BTreeMap<u32, u64>> {
        let (summary, peaks) = peaks::of_ranks(ranks, self.run(ranks)).await;
        summary?;
        if peaks.len() == ranks as usize {
            return Ok(peaks);
        }
        Err(Failure::Job(format!(
            "of {ranks} ranks only {} were seen in /proc",
            peaks.len()
        ))
        .into())
    }

    async fn run(&self, ranks: u32) -> anyhow::Result<Summary> {
        let dataset = self.dataset()?;
        let spec = self.folder.join(format!("job-{ranks}.toml"));
        std::fs::write(&spec, self.what.source(ranks, &dataset)?)
            .map_err(Failure::storage(format!("write {}", spec.display())))?;
        let out = self.folder.join("job");
        let options = JobOptions {
            spec,
            out: Some(out.clone()),
            resume: false,
            kill: Vec::new(),
        };
        let prepared = Job::read(&options)?.prepare(Format::Json)?;
        let summary = finished(&locally(&prepared, ranks, Some(1), Progress::quiet()).await?)?;
        std::fs::remove_dir_all(&out).ok();
        Ok(summary)
    }

    fn dataset(&self) -> anyhow::Result<PathBuf> {
        if let Some(dataset) = &self.what.dataset {
            return jobs::absolute(dataset);
        }
        let path = self.folder.join("dataset");
        if !path.exists() {
            build_dataset(&path, self.what.parse(1)?.model.vocab_size)?;
        }
        Ok(path)
    }

    pub(super) async fn torch(&self, ranks: u32, compile: bool) -> anyhow::Result<Found> {
        let spec = self.what.parse(ranks)?;
        let (model, batch) = (&spec.model, &spec.batch);
        if model.tie_word_embeddings {
            return Err(Failure::Usage(
                "--against torch: the peer's head is not tied; set model.tie_word_embeddings = false"
                    .to_owned(),
            )
            .into());
        }
        let plan = serde_json::json!({
            "vocab": model.vocab_size, "width": model.hidden_size, "layers": model.num_hidden_layers,
            "heads": model.num_attention_heads, "kv_heads": model.num_key_value_heads, "ffn": model.intermediate_size,
            "length": batch.sequence_length, "sequences": batch.sequences,
            "steps": self.what.steps, "threads": 1, "compile": compile,
        });
        let python = self.python.unwrap_or(Path::new("python3"));
        let mut command = tokio::process::Command::new(python);
        if ranks > 1 {
            command.args([
                "-m",
                "torch.distributed.run",
                "--standalone",
                "--nproc-per-node",
                &ranks.to_string(),
            ]);
        }
        command
            .arg(self.folder.join("step.py"))
            .arg(plan.to_string())
            .env("OMP_NUM_THREADS", "1");
        answer(command, "PyTorch").await
    }
}

/// The last line of what a process prints, as JSON.
pub(in crate::commands) async fn answer<T: serde::de::DeserializeOwned>(
    mut command: tokio::process::Command,
    who: &str,
) -> anyhow::Result<T> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("start {who}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    match said.lines().next_back().map(serde_json::from_str) {
        Some(Ok(found)) if output.status.success() => Ok(found),
        _ => {
            let log = String::from_utf8_lossy(&output.stderr);
            let last: Vec<&str> = log.trim().lines().rev().take(3).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            Err(Failure::Job(format!("{who} failed ({}): {}", output.status, last.join("; "))).into())
        }
    }
}

/// A dataset of what cargo has unpacked on this machine.
pub(in crate::commands) fn build_dataset(path: &Path, vocabulary: usize) -> anyhow::Result<()> {
    let corpus = lockstep_data::Corpus::CargoRegistry(None);
    let options = lockstep_data::BuildOptions {
        max_bytes: Some(4_000_000),
        ..lockstep_data::BuildOptions::new(corpus, path, vocabulary)
    };
    data::build(&options, Format::Json).map(drop)
}
