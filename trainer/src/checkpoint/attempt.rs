//! One try at a checkpoint: shards by all members, then sealed by one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use lockstep_engine::ids::{Epoch, Step};
use serde::{Deserialize, Serialize};

use super::{About, Corruption, MANIFEST, Manifest, Piece, Shard, VERSION, folder, temporary, tree, verify};
use crate::error::{Result, StorageContext, TrainerError};
use crate::files::{self, Staging};
use crate::layout::Layout;
use crate::state::State;
use crate::tensor_file::{BLOCK, Writer};

/// The try of one epoch's members at the checkpoint of a step.
///
/// Every member [`write`](Self::write)s its piece into one folder under a temporary name, whoever comes first makes
/// it, and hands its [`Report`] on. Who has all of them [`seal`](Self::seal)s. A try that ended half-way is removed
/// when a newer checkpoint is sealed. There is at most one try of a step in an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    dir: PathBuf,
    step: Step,
    epoch: Epoch,
}

/// What a member says of the shard that it wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The file.
    #[serde(flatten)]
    pub shard: Shard,
    /// Elements of the whole state.
    pub elements: usize,
    /// BLAKE3 in hexadecimal of the largest subtrees, of the hash over all weights, that the shard holds.
    pub subtrees: Vec<String>,
}

impl Attempt {
    /// The try of `epoch` at the checkpoint of `step` in the folder `dir`. Touches no disk.
    pub fn new(dir: impl Into<PathBuf>, step: Step, epoch: Epoch) -> Self {
        Self {
            dir: dir.into(),
            step,
            epoch,
        }
    }

    /// The step.
    #[must_use]
    pub fn step(&self) -> Step {
        self.step
    }

    /// The epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Where its files are until it is sealed.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        temporary::name(&self.dir, self.step, &format!("epoch-{}", self.epoch))
    }

    /// Writes a member's piece, durably. Writing the same piece again is harmless.
    ///
    /// # Errors
    /// [`Setting`](TrainerError::Setting) when the piece is of another step,
    /// [`DiskFull`](TrainerError::DiskFull), [`Storage`](TrainerError::Storage). Half a file is removed.
    pub fn write(&self, piece: &Piece) -> Result<Report> {
        self.write_and_tell(piece, || {})
    }

    /// The same; calls `written` as soon as the piece's values are needed no more, before they are durable.
    pub(super) fn write_and_tell(&self, piece: &Piece, written: impl FnOnce()) -> Result<Report> {
        if piece.step != self.step {
            return Err(TrainerError::Setting {
                field: "the piece's step",
                value: piece.step.to_string(),
                bound: "the step of the checkpoint",
            });
        }
        let folder = self.folder();
        fs::create_dir_all(&folder).at("create folder", &folder)?;
        let metadata = BTreeMap::from([
            ("format", "lockstep".to_owned()),
            ("step", piece.step.to_string()),
            ("range", format!("{}..{}", piece.range.start, piece.range.end)),
        ]);
        let file = piece.file();
        let path = folder.join(&file);
        let len = piece.range.len();
        let fill = |out: &mut BufWriter<File>| {
            let shape = [len];
            let mut file = Writer::new(out, &metadata, &Piece::PARTS.map(|name| (name, &shape[..])))?;
            let mut block = Vec::new();
            for part in 0..Piece::PARTS.len() {
                for at in (0..len).step_by(BLOCK) {
                    // A disk may hang, and whoever wants the values back must not wait for it.
                    piece.with(part, at..(at + BLOCK).min(len), |values| {
                        block.clear();
                        block.extend_from_slice(values);
                    })?;
                    file.put(&block)?;
                }
            }
            let look = |block, show: &mut dyn FnMut(&[f32])| piece.with(0, block, show);
            let subtrees = tree::subtrees(piece.len, &piece.range, look)?;
            written();
            Ok((file.finish(), subtrees))
        };
        let (written, subtrees) = files::write(&path, fill)
            .and_then(|written| files::sync(&folder).map(|()| written))
            .inspect_err(|_| {
                // The error that is returned says more than one of this removal would.
                let _ = fs::remove_file(&path);
            })?;
        Ok(Report {
            shard: Shard {
                file,
                range: piece.range(),
                bytes: written.bytes,
                digest: written.digest,
            },
            elements: piece.len,
            subtrees,
        })
    }

    /// Makes a checkpoint of the shards that all members reported, in any order, and returns its folder: writes
    /// the manifest, syncs, renames, syncs. Then removes tries that this one outdates.
    ///
    /// When there is a checkpoint of this step that verifies and says the same, it stays; one that does not is
    /// replaced. So sealing again what is sealed already is harmless.
    ///
    /// # Errors
    /// [`Length`](TrainerError::Length) when the shards are of another layout;
    /// [`Corrupt`](TrainerError::Corrupt) when they leave gaps, or a file is missing or of another size;
    /// [`DiskFull`](TrainerError::DiskFull), [`Storage`](TrainerError::Storage). No checkpoint has changed then.
    pub fn seal(&self, reports: Vec<Report>, layout: &Layout, about: &About) -> Result<PathBuf> {
        let manifest = self.manifest(reports, layout, about)?;
        let place = folder(&self.dir, self.step);
        let folder = self.folder();
        if is_sealed(&place, &manifest) {
            files::remove(&folder)?;
        } else if let Err(error) = self.publish(&folder, &manifest)
            // Another member, given up for dead, may have been told the same before and be faster.
            && !is_sealed(&place, &manifest)
        {
            return Err(error);
        }
        // It is sealed, whatever becomes of this; the next one tries again.
        let _ = temporary::remove_outdated(&self.dir, self.step, Some(self.epoch));
        Ok(place)
    }

    fn publish(&self, folder: &Path, manifest: &Manifest) -> Result<()> {
        for shard in &manifest.shards {
            shard.check_size(folder)?;
        }
        remove_strangers(folder, manifest)?;
        // Written elsewhere, as several may seal at once: nobody publishes, removes or writes to what another has half
        // written.
        let name = |index| temporary::name(&self.dir, self.step, &format!("manifest-{index}"));
        let (own, ()) = files::first_free(name, |path| fs::create_dir(path))?;
        let own = Staging::in_folder(own);
        own.file(MANIFEST, |out| {
            serde_json::to_writer_pretty(&mut *out, manifest)?;
            out.write_all(b"\n")
        })?;
        own.move_to(MANIFEST, folder)?;
        drop(own);
        files::sync(folder)?;
        temporary::publish(&self.dir, self.step, folder, |place| is_sealed(place, manifest))
    }

    /// Removes what was written. Only for who knows that no member writes any more.
    ///
    /// # Errors
    /// [`Storage`](TrainerError::Storage).
    pub fn abandon(&self) -> Result<()> {
        files::remove(&self.folder())
    }

    fn manifest(&self, mut reports: Vec<Report>, layout: &Layout, about: &About) -> Result<Manifest> {
        let elements = layout.len();
        for report in &reports {
            layout.check("a shard's state", report.elements)?;
        }
        // Parts may be empty, of a small model: those come before the one that begins at the same element.
        reports.sort_by_key(|report| (report.shard.range.start, report.shard.range.end));
        let mut manifest = Manifest {
            version: VERSION,
            step: self.step,
            about: about.rounded(),
            weights_digest: String::new(),
            elements,
            parameters: Manifest::shapes(layout),
            shards: reports.iter().map(|report| report.shard.clone()).collect(),
            digest: String::new(),
        };
        let corrupt = |corruption| TrainerError::Corrupt {
            path: self.folder(),
            corruption,
        };
        manifest.check_shards().map_err(corrupt)?;
        let parts = reports
            .iter()
            .map(|report| (report.shard.range.clone(), report.subtrees.as_slice()));
        manifest.weights_digest = tree::root(elements, parts).ok_or_else(|| {
            corrupt(Corruption::Malformed {
                file: "a shard's report".to_owned(),
                problem: "its digests do not fit its range".to_owned(),
            })
        })?;
        manifest.digest = manifest.own_digest();
        Ok(manifest)
    }
}

/// Writes `state` into `dir` as `shards` files (at least one) by this process alone, and returns the checkpoint's
/// folder.
///
/// # Errors
/// As [`Attempt::seal`]; nothing is left behind.
pub fn write(dir: &Path, state: &State, layout: &Layout, about: &About, shards: usize) -> Result<PathBuf> {
    let attempt = Attempt::new(dir, state.step, Epoch(0));
    let count = shards.max(1);
    let sealed = (0..count)
        .map(|index| attempt.write(&Piece::of(state, index, count)?))
        .collect::<Result<Vec<_>>>()
        .and_then(|reports| attempt.seal(reports, layout, about));
    if sealed.is_err() {
        // The error that is returned says more than one of this removal would.
        let _ = attempt.abandon();
    }
    sealed
}

/// Whether `place` holds what `manifest` describes. Shards may be cut otherwise, as by another number of members:
/// in one run, the state after a step is a function of the committed steps alone.
fn is_sealed(place: &Path, manifest: &Manifest) -> bool {
    let Ok(held) = verify(place) else {
        return false;
    };
    let same_cut = held.shards.len() == manifest.shards.len();
    held.weights_digest == manifest.weights_digest
        && held.parameters == manifest.parameters
        && held.about.is_same_place(&manifest.about)
        && (!same_cut || held.shards == manifest.shards)
}

/// Removes files that the manifest does not name, as of an earlier try of the same name.
fn remove_strangers(folder: &Path, manifest: &Manifest) -> Result<()> {
    let mut known: BTreeSet<&str> = manifest.shards.iter().map(|shard| shard.file.as_str()).collect();
    known.insert(MANIFEST);
    for entry in fs::read_dir(folder).at("list", folder)? {
        let entry = entry.at("list", folder)?;
        if !known.contains(entry.file_name().to_string_lossy().as_ref()) {
            fs::remove_file(entry.path()).at("remove", &entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `/dev/full` fails every write as a full disk does.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_named_and_leaves_no_half_shard() {
        let dir = tempfile::tempdir().unwrap();
        let attempt = Attempt::new(dir.path(), Step(0), Epoch(7));
        let piece = Piece::of(&State::initial(vec![1.0; 100_000]), 0, 1).unwrap();
        let file = attempt.folder().join(piece.file());
        fs::create_dir_all(attempt.folder()).unwrap();
        std::os::unix::fs::symlink("/dev/full", &file).unwrap();
        let error = attempt.write(&piece).unwrap_err();
        assert!(
            matches!(&error, TrainerError::DiskFull { path, .. } if *path == file),
            "{error}"
        );
        assert_eq!(fs::read_dir(attempt.folder()).unwrap().count(), 0);
        attempt.abandon().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_piece_of_another_step_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let piece = Piece::of(&State::initial(vec![1.0; 10]), 0, 1).unwrap();
        let error = Attempt::new(dir.path(), Step(3), Epoch(7))
            .write(&piece)
            .unwrap_err();
        assert!(matches!(error, TrainerError::Setting { .. }), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_report_travels_as_json() {
        let dir = tempfile::tempdir().unwrap();
        let piece = Piece::of(&State::initial(vec![1.0; 1000]), 1, 3).unwrap();
        let report = Attempt::new(dir.path(), Step(0), Epoch(7)).write(&piece).unwrap();
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        assert!(text.contains("\"file\":\"shard-2-of-3.safetensors\""), "{text}");
    }
}
