//! Writing a checkpoint.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use lockstep_engine::ids::Step;

use super::{About, MANIFEST, Manifest, Shard, TEMPORARY, VERSION, folder, verify};
use crate::error::{Result, StorageContext, TrainerError};
use crate::files::{self, Staging};
use crate::layout::Layout;
use crate::state::State;
use crate::tensor_file::{self, Entry};

/// Writes `state` into `dir` as `shards` files (at least one) and returns the checkpoint's folder.
///
/// When `dir` already has a checkpoint of this step that verifies and says the same, it stays; one that does
/// not is replaced.
///
/// # Errors
/// [`DiskFull`](TrainerError::DiskFull), [`Storage`](TrainerError::Storage) and
/// [`Length`](TrainerError::Length); nothing is left behind.
pub fn write(dir: &Path, state: &State, layout: &Layout, about: &About, shards: usize) -> Result<PathBuf> {
    let mut writer = Writer::begin(dir, state.step, shards)?;
    for index in 0..writer.shards() {
        writer.shard(index, state)?;
    }
    writer.commit(layout, about, &state.weights_digest())
}

/// A checkpoint being written, shard by shard. Dropping it removes what was written.
///
/// There is one writer of a folder at a time: beginning removes what another left unfinished.
pub struct Writer {
    dir: PathBuf,
    step: Step,
    staging: Staging,
    shards: Vec<Option<Shard>>,
}

impl Writer {
    /// Begins the checkpoint of `step` in `dir`, of `shards` files (at least one).
    ///
    /// # Errors
    /// [`DiskFull`](TrainerError::DiskFull), [`Storage`](TrainerError::Storage).
    pub fn begin(dir: &Path, step: Step, shards: usize) -> Result<Self> {
        fs::create_dir_all(dir).at("create folder", dir)?;
        for entry in fs::read_dir(dir).at("list", dir)? {
            let entry = entry.at("list", dir)?;
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                files::remove(&entry.path())?;
            }
        }
        let staging = Staging::new(dir.join(format!("{TEMPORARY}{:08}", step.0)))?;
        Ok(Self {
            dir: dir.to_owned(),
            step,
            staging,
            shards: vec![None; shards.max(1)],
        })
    }

    /// Number of shards.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Where the files are until the commit.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.staging.path()
    }

    /// Writes shard `index`, counted from 0: its part of `state`, of sizes that differ by at most one element.
    ///
    /// # Errors
    /// [`Length`](TrainerError::Length) when the moments are not as long as the weights,
    /// [`Setting`](TrainerError::Setting) when there is no such shard,
    /// [`DiskFull`](TrainerError::DiskFull), [`Storage`](TrainerError::Storage).
    pub fn shard(&mut self, index: usize, state: &State) -> Result<()> {
        let expected = state.weights.len();
        for (what, found) in [
            ("the first moment", state.first.len()),
            ("the second moment", state.second.len()),
        ] {
            if found != expected {
                return Err(TrainerError::Length {
                    what,
                    found,
                    expected,
                });
            }
        }
        if index >= self.shards() {
            let bound = "below the number of shards";
            return Err(TrainerError::Setting {
                field: "shard",
                value: index.to_string(),
                bound,
            });
        }
        let range = part(expected, index, self.shards());
        let file = format!("shard-{}-of-{}.safetensors", index + 1, self.shards());
        let shape = [range.len()];
        let entries = [
            Entry {
                name: "weights",
                shape: &shape,
                values: &state.weights[range.clone()],
            },
            Entry {
                name: "first",
                shape: &shape,
                values: &state.first[range.clone()],
            },
            Entry {
                name: "second",
                shape: &shape,
                values: &state.second[range.clone()],
            },
        ];
        let metadata = BTreeMap::from([
            ("format", "lockstep".to_owned()),
            ("step", self.step.to_string()),
            ("range", format!("{}..{}", range.start, range.end)),
        ]);
        let written = self
            .staging
            .file(&file, |out| tensor_file::write(out, &metadata, &entries))?;
        self.shards[index] = Some(Shard {
            file,
            range,
            bytes: written.bytes,
            digest: written.digest,
        });
        Ok(())
    }

    /// Writes the manifest and moves the checkpoint into place. `weights_digest` is that of the whole state.
    ///
    /// # Errors
    /// [`Length`](TrainerError::Length) when a shard was not written,
    /// [`DiskFull`](TrainerError::DiskFull), [`Storage`](TrainerError::Storage).
    pub fn commit(self, layout: &Layout, about: &About, weights_digest: &str) -> Result<PathBuf> {
        let Self {
            dir,
            step,
            staging,
            shards,
        } = self;
        let shards: Vec<Shard> = shards.into_iter().flatten().collect();
        layout.check(
            "the checkpoint",
            shards.iter().map(|shard| shard.range.len()).sum(),
        )?;
        let mut manifest = Manifest {
            version: VERSION,
            step,
            about: about.clone(),
            weights_digest: weights_digest.to_owned(),
            elements: layout.len(),
            parameters: Manifest::shapes(layout),
            shards,
            digest: String::new(),
        };
        manifest.digest = manifest.own_digest();
        staging.file(MANIFEST, |out| {
            serde_json::to_writer_pretty(&mut *out, &manifest)?;
            out.write_all(b"\n")
        })?;
        let place = folder(&dir, step);
        let aside = dir.join(format!("{TEMPORARY}{:08}-replaced", step.0));
        if place.exists() {
            if verify(&place).is_ok_and(|held| held == manifest) {
                return Ok(place);
            }
            fs::rename(&place, &aside).at("move aside", &place)?;
        }
        lockstep_faults::reach(lockstep_faults::Point::BeforeRename, step.0);
        staging.publish(&place)?;
        files::remove(&aside)?;
        Ok(place)
    }
}

/// The `index`-th of `count` consecutive parts of `0..len`.
fn part(len: usize, index: usize, count: usize) -> Range<usize> {
    let cut = |i: usize| (len as u128 * i as u128 / count as u128) as usize;
    cut(index)..cut(index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn state(n: usize) -> State {
        State::initial((0..n).map(|i| i as f32).collect())
    }

    proptest! {
        #[test]
        fn parts_tile(len in 0usize..10_000, count in 1usize..20) {
            let parts: Vec<_> = (0..count).map(|i| part(len, i, count)).collect();
            prop_assert_eq!(parts.iter().cloned().flatten().collect::<Vec<_>>(), (0..len).collect::<Vec<_>>());
            prop_assert!(parts.iter().all(|p| p.len() == len / count || p.len() == len.div_ceil(count)));
        }
    }

    /// `/dev/full` fails every write as a full disk does.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_named_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::begin(dir.path(), Step(3), 1).unwrap();
        let file = writer.path().join("shard-1-of-1.safetensors");
        std::os::unix::fs::symlink("/dev/full", &file).unwrap();
        let error = writer.shard(0, &state(100_000)).unwrap_err();
        assert!(
            matches!(&error, TrainerError::DiskFull { path, .. } if *path == file),
            "{error}"
        );
        drop(writer);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_shard_that_cannot_be_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::begin(dir.path(), Step(3), 2).unwrap();
        assert!(matches!(
            writer.shard(2, &state(10)),
            Err(TrainerError::Setting { field: "shard", .. })
        ));
        let torn = State {
            second: vec![0.0; 9],
            ..state(10)
        };
        assert!(matches!(
            writer.shard(0, &torn),
            Err(TrainerError::Length {
                found: 9,
                expected: 10,
                ..
            })
        ));
    }

    #[test]
    fn an_abandoned_writer_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::begin(dir.path(), Step(3), 2).unwrap();
        writer.shard(1, &state(10)).unwrap();
        drop(writer);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
