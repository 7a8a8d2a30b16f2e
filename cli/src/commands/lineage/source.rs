//! What the answers are made from: a run's ledger and spec, its dataset, and the checkpoints and exports there are.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use lockstep_coordinator::jsonl::Lines;
use lockstep_coordinator::ledger_log;
use lockstep_data::Dataset;
use lockstep_engine::ids::Step;
use lockstep_engine::ledger::{Change, Ledger};
use lockstep_engine::lineage::Use;
use lockstep_engine::order::SampleOrder;
use lockstep_trainer::checkpoint;

use crate::exports::{self, Export};
use crate::failure::Failure;

/// A run, opened.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) dataset: Dataset,
    /// Tokens of a sample, less the one that it shares with the next.
    pub(super) sequence_length: usize,
    pub(super) order: SampleOrder,
    /// All changes to the ledger.
    pub(super) history: Vec<Change>,
    /// Whether the ledger's last line was passed over.
    pub(super) torn: bool,
    pub(super) checkpoints: Vec<OnDisk>,
    pub(super) exports: Vec<Export>,
}

/// A checkpoint's folder.
#[derive(Debug)]
pub(super) struct OnDisk {
    pub(super) step: Step,
    pub(super) path: PathBuf,
    /// Digest of its weights; none where the manifest cannot be read.
    pub(super) weights: Option<String>,
}

/// A use of a sample, for programs.
#[derive(Debug, PartialEq, serde::Serialize)]
pub(super) struct Used {
    position: u64,
    sample: u64,
    pass: u64,
    worker: String,
}

impl From<&Use> for Used {
    fn from(used: &Use) -> Self {
        Self {
            position: used.position,
            sample: used.sample,
            pass: used.pass,
            worker: format!("{:#}", used.worker),
        }
    }
}

impl Source {
    /// Opens a run, over the dataset that its spec names unless another place is given.
    pub(super) fn open(run: &Path, dataset: Option<&Path>) -> anyhow::Result<Self> {
        let usage = |problem: String| Failure::Usage(format!("{}: {problem}", run.display()));
        if !run.is_dir() {
            return Err(usage("no such run; give the folder that `run` calls --out".to_owned()).into());
        }
        if !run.join(ledger_log::FILE_NAME).exists() {
            let problem = format!(
                "no {} in it: either it is not a run's folder, or the run was made by an earlier version; its \
                 coordinator writes it when it takes the job up again, as for --resume",
                ledger_log::FILE_NAME
            );
            return Err(usage(problem).into());
        }
        let Lines { values, torn } = ledger_log::read(run)?;
        let ledger = Ledger::replay(values.iter().cloned());
        if let (Some(missing), Some((last, _))) = (ledger.first_missing(), ledger.entries.last_key_value()) {
            let problem = format!(
                "{} lacks step {missing} of {last}: the run was begun by an earlier version, or its disk was full; its                  coordinator completes the file when it takes the job up again, as for --resume",
                ledger_log::FILE_NAME
            );
            return Err(usage(problem).into());
        }
        let spec = crate::commands::spec::read(&run.join("spec.toml"))?;
        let (dataset, place) = match (dataset, &spec.data.dataset) {
            (Some(given), _) => (Dataset::open(given)?, given),
            (None, Some(named)) => {
                let opened = Dataset::open(named);
                let hint =
                    "open the dataset that the run's spec names (if it was moved, say where with --dataset)";
                (opened.context(hint)?, named.as_path())
            }
            (None, None) => {
                return Err(usage("its spec names no dataset; give it with --dataset".to_owned()).into());
            }
        };
        let mut checkpoints = Vec::new();
        for (step, path) in checkpoint::list(&run.join("checkpoints"))? {
            let manifest = checkpoint::read_manifest(&path).ok();
            let trained_on = manifest.as_ref().map(|manifest| &manifest.about.dataset_digest);
            let found = dataset.manifest().digest.to_string();
            if let Some(digest) = trained_on.filter(|digest| !digest.is_empty() && **digest != found) {
                let problem = format!(
                    "trained on the dataset with digest {digest}, but {} has {found}; give the right one with --dataset",
                    place.display()
                );
                return Err(usage(problem).into());
            }
            checkpoints.push(OnDisk {
                step,
                path,
                weights: manifest.map(|manifest| manifest.weights_digest),
            });
        }
        let sequence_length = spec.batch.sequence_length;
        let samples = dataset.train().samples(sequence_length);
        Ok(Self {
            dataset,
            sequence_length,
            order: SampleOrder::new(samples, spec.train.seed),
            history: values,
            torn,
            checkpoints,
            exports: exports::read(run)?,
        })
    }
}
