//! `exports.jsonl` in a run's folder: which models were exported from it.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use lockstep_coordinator::jsonl;

use crate::failure::Failure;

const FILE_NAME: &str = "exports.jsonl";

/// A model that was exported.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Export {
    /// The step of its checkpoint.
    pub(crate) step: u64,
    /// Where it was written, absolute.
    pub(crate) path: PathBuf,
    /// When, in milliseconds since 1970.
    pub(crate) time_ms: u64,
    /// Digest of its weights, in order, as little-endian `f32`.
    pub(crate) weights_blake3: String,
}

/// The exports of a run, open for one more: opened before the model is written, so that none goes unrecorded for want
/// of permission.
#[derive(Debug)]
pub(crate) struct Exports {
    path: PathBuf,
    file: File,
}

impl Exports {
    pub(crate) fn open(run: &Path) -> anyhow::Result<Self> {
        let path = run.join(FILE_NAME);
        let file = jsonl::open(&path)?;
        Ok(Self { path, file })
    }

    /// Records the model that was just written to `out`.
    pub(crate) fn record(mut self, step: u64, out: &Path, weights: &str) -> anyhow::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let export = Export {
            step,
            path: std::path::absolute(out)?,
            time_ms: now.as_millis() as u64,
            weights_blake3: weights.to_owned(),
        };
        let line = serde_json::to_string(&export)? + "\n";
        let written = self
            .file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.sync_data());
        let problem = Failure::storage(format!(
            "{} is written, but not recorded in {}",
            out.display(),
            self.path.display()
        ));
        Ok(written.map_err(problem)?)
    }
}

/// The exports of a run, oldest first; none where it has no record of any.
pub(crate) fn read(run: &Path) -> anyhow::Result<Vec<Export>> {
    let path = run.join(FILE_NAME);
    if path.exists() {
        Ok(jsonl::read(&path)?.values)
    } else {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_are_read_back_in_order() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(read(run.path()).unwrap(), []);
        for step in [20, 10] {
            let exports = Exports::open(run.path()).unwrap();
            exports.record(step, Path::new("model"), "ab").unwrap();
        }
        let found = read(run.path()).unwrap();
        let steps: Vec<u64> = found.iter().map(|export| export.step).collect();
        assert_eq!(steps, [20, 10]);
        assert!(found[0].path.is_absolute() && found[0].time_ms <= found[1].time_ms);
    }
}
