//! What a checkpoint says of itself.

use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;

use lockstep_engine::ids::Step;
use serde::{Deserialize, Serialize};

use super::Corruption;
use crate::error::{Result, StorageContext, TrainerError};
use crate::layout::Layout;

/// `manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of the format.
    pub version: u64,
    /// The last step applied.
    pub step: Step,
    /// Where it stands in its run.
    #[serde(flatten)]
    pub about: About,
    /// BLAKE3 in hexadecimal of all weights, in order, as little-endian `f32`.
    pub weights_digest: String,
    /// Elements of each flat buffer.
    pub elements: usize,
    /// Names and shapes of the parameters, in order.
    pub parameters: Vec<NamedShape>,
    /// The files, in the order of their ranges.
    pub shards: Vec<Shard>,
    /// BLAKE3 in hexadecimal of this manifest as compact JSON with this field empty.
    pub digest: String,
}

/// What the run knows and the state does not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// The next position in the sample order.
    pub cursor: u64,
    /// Seed of weights and sample order.
    pub seed: u64,
    /// `Spec::numerics_digest` of the run.
    pub config_digest: String,
    /// Digest of the dataset.
    pub dataset_digest: String,
    /// Step of the checkpoint before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Step>,
    /// How well the held-out text was predicted, if it was scored at this step; kept to a millionth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_bits_per_byte: Option<f64>,
}

impl About {
    /// With the score as a manifest keeps it: finite, and of few enough digits that JSON gives back the same.
    pub(super) fn rounded(&self) -> Self {
        let score = self.validation_bits_per_byte;
        Self {
            validation_bits_per_byte: score
                .filter(|score| score.is_finite())
                .map(|score| (score * 1e6).round() / 1e6),
            ..self.clone()
        }
    }

    /// Whether both stand at the same place of the same run. What came before and the score are no part of that.
    pub(super) fn is_same_place(&self, other: &Self) -> bool {
        let place = |about: &Self| Self {
            parent: None,
            validation_bits_per_byte: None,
            ..about.clone()
        };
        place(self) == place(other)
    }
}

/// A parameter's name and shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedShape {
    /// As exported.
    pub name: String,
    /// As exported.
    pub shape: Vec<usize>,
}

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Its name in the folder.
    pub file: String,
    /// The elements of the flat buffers that it holds.
    pub range: Range<usize>,
    /// Its size.
    pub bytes: u64,
    /// BLAKE3 in hexadecimal of the whole file.
    pub digest: String,
}

impl Shard {
    /// Checks that the file is in `folder` and of the right size.
    pub(super) fn check_size(&self, folder: &Path) -> Result<()> {
        let path = folder.join(&self.file);
        let file = || self.file.clone();
        let corruption = match fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Corruption::Missing { file: file() },
            metadata => match metadata.at("read", &path)?.len() {
                found if found == self.bytes => return Ok(()),
                found => Corruption::Size {
                    file: file(),
                    found,
                    expected: self.bytes,
                },
            },
        };
        Err(TrainerError::Corrupt {
            path: folder.to_owned(),
            corruption,
        })
    }
}

impl Manifest {
    /// Bytes of all files but the manifest.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes).sum()
    }

    /// The digest that belongs into [`Manifest::digest`].
    pub(super) fn own_digest(&self) -> String {
        let blank = Self {
            digest: String::new(),
            ..self.clone()
        };
        // Plain data with string keys always becomes JSON; if it ever did not, nothing would verify.
        let text = serde_json::to_vec(&blank).unwrap_or_default();
        blake3::hash(&text).to_hex().to_string()
    }

    /// Names and shapes of a layout.
    pub(super) fn shapes(layout: &Layout) -> Vec<NamedShape> {
        let shape = |p: &crate::layout::Parameter| NamedShape {
            name: p.name.clone(),
            shape: p.shape.clone(),
        };
        layout.parameters().iter().map(shape).collect()
    }

    /// Checks that the shards' ranges cover the buffers and that every name stays inside the folder.
    pub(super) fn check_shards(&self) -> Result<(), Corruption> {
        let malformed = |problem| {
            Err(Corruption::Malformed {
                file: super::MANIFEST.to_owned(),
                problem,
            })
        };
        let mut at = 0;
        for shard in &self.shards {
            if shard.range.start != at || shard.range.end < at {
                return malformed(format!(
                    "{} holds elements {:?}, expected a range from {at}",
                    shard.file, shard.range
                ));
            }
            if shard.file.contains(['/', '\\']) || !shard.file.starts_with("shard-") {
                return malformed(format!("`{}` is not a shard's name", shard.file));
            }
            at = shard.range.end;
        }
        if at != self.elements {
            return malformed(format!("the shards hold {at} of {} elements", self.elements));
        }
        Ok(())
    }

    /// Checks that a checkpoint belongs to a run: the same parameters, numerics and data.
    ///
    /// # Errors
    /// [`TrainerError::Mismatch`] names what differs; `path` is the checkpoint's folder.
    pub fn check_run(&self, path: &Path, layout: &Layout, expected: &About) -> Result<()> {
        let mismatch = |what: &str, found: String, expected: String| {
            Err(TrainerError::Mismatch {
                path: path.to_owned(),
                what: what.to_owned(),
                found,
                expected,
            })
        };
        let shapes = Self::shapes(layout);
        if self.parameters.len() != shapes.len() {
            return mismatch(
                "the number of parameters",
                self.parameters.len().to_string(),
                shapes.len().to_string(),
            );
        }
        for (found, wanted) in self.parameters.iter().zip(&shapes) {
            if found != wanted {
                let text = |p: &NamedShape| format!("`{}` {:?}", p.name, p.shape);
                return mismatch("a parameter", text(found), text(wanted));
            }
        }
        let found = &self.about;
        if found.config_digest != expected.config_digest {
            return mismatch(
                "the configuration",
                found.config_digest.clone(),
                expected.config_digest.clone(),
            );
        }
        if found.dataset_digest != expected.dataset_digest {
            return mismatch(
                "the dataset",
                found.dataset_digest.clone(),
                expected.dataset_digest.clone(),
            );
        }
        if found.seed != expected.seed {
            return mismatch("the seed", found.seed.to_string(), expected.seed.to_string());
        }
        Ok(())
    }
}
