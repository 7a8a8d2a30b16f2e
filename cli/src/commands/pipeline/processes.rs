//! The processes that are measured: ours and a peer's.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use lockstep_bench::pipeline::{Plan, Stage, Took, measure};

use crate::commands::speed::answer;
use crate::failure::Failure;

/// The peers' stages.
const PEERS: &str = include_str!("../../../../benches/peers/data.py");

/// Tokens of the tokenizers that are trained.
const VOCAB_SIZE: usize = 8192;

/// A stage of it, as a plan in JSON.
#[derive(Debug, clap::Args)]
pub(crate) struct StageArgs {
    plan: String,
}

/// Does one stage and says what it took.
pub(crate) fn stage(args: &StageArgs) -> anyhow::Result<()> {
    let plan: Plan = serde_json::from_str(&args.plan)?;
    println!("{}", serde_json::to_string(&measure(&plan)?)?);
    Ok(())
}

/// Where everything lies while it is measured; gone at the end.
pub(super) struct Place {
    folder: tempfile::TempDir,
    pub(super) input: PathBuf,
}

impl Place {
    pub(super) fn new(scratch: Option<&Path>) -> anyhow::Result<Self> {
        let parent = scratch.map_or_else(std::env::temp_dir, Path::to_owned);
        let folder = tempfile::Builder::new()
            .prefix("lockstep-bench-")
            .tempdir_in(&parent);
        let folder = folder.map_err(Failure::storage(format!(
            "create a folder in {}",
            parent.display()
        )))?;
        std::fs::write(folder.path().join("data.py"), PEERS)
            .map_err(Failure::storage(format!("write {}", folder.path().display())))?;
        Ok(Self {
            input: folder.path().join("input.jsonl"),
            folder,
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The processes that are measured.
pub(super) struct Bench<'a> {
    place: &'a Place,
    python: &'a Path,
    /// Of text.
    pub(super) bytes: u64,
    program: PathBuf,
}

impl<'a> Bench<'a> {
    pub(super) fn new(place: &'a Place, python: &'a Path, bytes: u64) -> anyhow::Result<Self> {
        Ok(Self {
            place,
            python,
            bytes,
            program: std::env::current_exe().context("find this program")?,
        })
    }

    /// Whether the Python has a package.
    pub(super) async fn has(&self, package: &str) -> bool {
        let mut command = tokio::process::Command::new(self.python);
        command.args(["-c", &format!("import {package}")]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().await.is_ok_and(|status| status.success())
    }

    /// A stage of ours, on so many threads.
    pub(super) async fn ours(&self, stage: Stage, threads: u32) -> anyhow::Result<Took> {
        // Whoever wants tokens needs a tokenizer.
        if stage == Stage::Tokens && !self.tokenizer("ours").exists() {
            self.process(&self.plan(Stage::Train, "ours", self.bytes), 1)
                .await?;
        }
        self.process(&self.plan(stage, "ours", self.bytes), threads).await
    }

    async fn process(&self, plan: &Plan, threads: u32) -> anyhow::Result<Took> {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(["bench", "data-stage", &serde_json::to_string(plan)?])
            .env("RAYON_NUM_THREADS", threads.to_string());
        self.in_folder(plan, command, "the stage").await
    }

    /// The peer's same stage, of so many bytes of the text.
    pub(super) async fn theirs(&self, stage: Stage, bytes: u64) -> anyhow::Result<Took> {
        let mut plan = self.plan(stage, "theirs", bytes);
        if stage == Stage::Tokens {
            plan.tokenizer = self.tokenizer("ours");
        }
        let mut command = tokio::process::Command::new(self.python);
        command
            .arg(self.place.file("data.py"))
            .arg(serde_json::to_string(&plan)?);
        self.in_folder(&plan, command, "the peer").await
    }

    /// Runs a process with the plan's folder there and empty, and removes it.
    async fn in_folder(
        &self,
        plan: &Plan,
        command: tokio::process::Command,
        who: &str,
    ) -> anyhow::Result<Took> {
        std::fs::create_dir(&plan.folder)
            .map_err(Failure::storage(format!("create {}", plan.folder.display())))?;
        let took = answer(command, &format!("{who} `{}`", plan.stage.name())).await;
        std::fs::remove_dir_all(&plan.folder)
            .map_err(Failure::storage(format!("remove {}", plan.folder.display())))?;
        took
    }

    fn plan(&self, stage: Stage, whose: &str, bytes: u64) -> Plan {
        Plan {
            stage,
            input: self.place.input.clone(),
            bytes,
            folder: self.place.file("scratch"),
            tokenizer: self.tokenizer(whose),
            ids: self.ids(whose),
            vocab_size: VOCAB_SIZE,
        }
    }

    fn tokenizer(&self, whose: &str) -> PathBuf {
        self.place.file(&format!("tokenizer-{whose}.json"))
    }

    fn ids(&self, whose: &str) -> PathBuf {
        self.place.file(&format!("ids-{whose}.bin"))
    }

    /// Whether both left the same, of stages that leave something to compare.
    pub(super) fn same(&self, stage: Stage) -> anyhow::Result<Option<bool>> {
        let read = |path: PathBuf| {
            std::fs::read(&path).map_err(Failure::storage(format!("read {}", path.display())))
        };
        Ok(match stage {
            Stage::Tokens => Some(read(self.ids("ours"))? == read(self.ids("theirs"))?),
            Stage::Train => {
                // What is learned; versions of the package write settings in ways of their own.
                let model = |whose| -> anyhow::Result<[serde_json::Value; 2]> {
                    let mut json: serde_json::Value = serde_json::from_slice(&read(self.tokenizer(whose))?)?;
                    Ok(["vocab", "merges"].map(|field| json["model"][field].take()))
                };
                Some(model("ours")? == model("theirs")?)
            }
            _ => None,
        })
    }
}
