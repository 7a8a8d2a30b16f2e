//! Listing, verifying and loading checkpoints.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use lockstep_engine::ids::Step;
use safetensors::SafeTensors;

use super::{Corruption, MANIFEST, Manifest, Shard, VERSION, step_of};
use crate::error::{Result, StorageContext, TrainerError};
use crate::state::{State, from_little_endian};

/// A checkpoint in memory.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// What it says of itself.
    pub manifest: Manifest,
    /// The state to restore.
    pub state: State,
}

/// A checkpoint on disk that verifies.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its folder.
    pub path: PathBuf,
    /// What it says of itself.
    pub manifest: Manifest,
}

/// A checkpoint that was passed over.
#[derive(Debug)]
pub struct Skipped {
    /// Its folder.
    pub path: PathBuf,
    /// Why.
    pub reason: TrainerError,
}

/// The checkpoints in `dir` by their names, oldest first; none when there is no such folder. Temporary names are
/// ignored, and nothing is verified.
///
/// # Errors
/// [`TrainerError::Storage`].
pub fn list(dir: &Path) -> Result<Vec<(Step, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.at("list", dir)?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry.at("list", dir)?;
        if let Some(step) = step_of(&entry.file_name().to_string_lossy()) {
            all.push((step, entry.path()));
        }
    }
    all.sort();
    Ok(all)
}

/// Reads every byte of the checkpoint in the folder `path` and checks it against its digests.
///
/// # Errors
/// [`TrainerError::Corrupt`] names the file, the digest expected and the one found; [`TrainerError::Version`];
/// [`TrainerError::Storage`].
pub fn verify(path: &Path) -> Result<Manifest> {
    let manifest = glance(path)?;
    for shard in &manifest.shards {
        let file = path.join(&shard.file);
        let mut hasher = blake3::Hasher::new();
        File::open(&file)
            .and_then(|file| hasher.update_reader(file).map(|_| ()))
            .at("read", &file)?;
        check_digest(path, &shard.file, &hasher.finalize().to_hex(), &shard.digest)?;
    }
    Ok(manifest)
}

/// Checks the manifest of the checkpoint in the folder `path`, and that its files are there and of the right size. Reads none
/// of them.
///
/// # Errors
/// As [`verify`].
pub fn glance(path: &Path) -> Result<Manifest> {
    let manifest = read_manifest(path)?;
    for shard in &manifest.shards {
        shard.check_size(path)?;
    }
    Ok(manifest)
}

/// Loads and verifies the checkpoint in the folder `path`.
///
/// # Errors
/// As [`verify`].
pub fn load(path: &Path) -> Result<Checkpoint> {
    let manifest = read_manifest(path)?;
    let empty = || Vec::with_capacity(manifest.elements);
    let mut state = State {
        step: manifest.step,
        weights: empty(),
        first: empty(),
        second: empty(),
    };
    for shard in &manifest.shards {
        shard.check_size(path)?;
        let file = path.join(&shard.file);
        let bytes = fs::read(&file).at("read", &file)?;
        check_digest(path, &shard.file, &blake3::hash(&bytes).to_hex(), &shard.digest)?;
        append(&mut state, shard, &bytes).map_err(|problem| {
            corrupt(
                path,
                Corruption::Malformed {
                    file: shard.file.clone(),
                    problem,
                },
            )
        })?;
    }
    check_digest(
        path,
        "the weights",
        &state.weights_digest(),
        &manifest.weights_digest,
    )?;
    Ok(Checkpoint { manifest, state })
}

/// The newest checkpoint in `dir` that verifies, and those newer that do not, newest first.
///
/// # Errors
/// [`TrainerError::Storage`] when `dir` cannot be listed.
pub fn newest_valid(dir: &Path) -> Result<(Option<Found>, Vec<Skipped>)> {
    let mut skipped = Vec::new();
    for (_, path) in list(dir)?.into_iter().rev() {
        match verify(&path) {
            Ok(manifest) => return Ok((Some(Found { path, manifest }), skipped)),
            Err(reason) => skipped.push(Skipped { path, reason }),
        }
    }
    Ok((None, skipped))
}

pub(super) fn corrupt(path: &Path, corruption: Corruption) -> TrainerError {
    TrainerError::Corrupt {
        path: path.to_owned(),
        corruption,
    }
}

/// The manifest of the checkpoint in the folder `path`, checked against its own digest alone.
///
/// # Errors
/// [`TrainerError::Corrupt`], [`TrainerError::Version`], [`TrainerError::Storage`].
pub fn read_manifest(path: &Path) -> Result<Manifest> {
    let file = path.join(MANIFEST);
    match fs::read(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(corrupt(
            path,
            Corruption::Missing {
                file: MANIFEST.to_owned(),
            },
        )),
        text => parse_manifest(path, &text.at("read", &file)?),
    }
}

/// As [`read_manifest`], of its `text`; `path` is for errors.
pub(super) fn parse_manifest(path: &Path, text: &[u8]) -> Result<Manifest> {
    let malformed = |error: serde_json::Error| {
        corrupt(
            path,
            Corruption::Malformed {
                file: MANIFEST.to_owned(),
                problem: error.to_string(),
            },
        )
    };
    let value: serde_json::Value = serde_json::from_slice(text).map_err(malformed)?;
    // The version first: another format need not have this one's fields.
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(found) if found != VERSION => {
            return Err(TrainerError::Version {
                path: path.to_owned(),
                found,
                expected: VERSION,
            });
        }
        _ => {}
    }
    let manifest: Manifest = serde_json::from_value(value).map_err(malformed)?;
    check_digest(path, MANIFEST, &manifest.own_digest(), &manifest.digest)?;
    manifest
        .check_shards()
        .map_err(|corruption| corrupt(path, corruption))?;
    Ok(manifest)
}

pub(super) fn check_digest(path: &Path, file: &str, found: &str, expected: &str) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let (found, expected) = (found.to_owned(), expected.to_owned());
    Err(corrupt(
        path,
        Corruption::Digest {
            file: file.to_owned(),
            found,
            expected,
        },
    ))
}

fn append(state: &mut State, shard: &Shard, bytes: &[u8]) -> Result<(), String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let buffers = [
        ("weights", &mut state.weights),
        ("first", &mut state.first),
        ("second", &mut state.second),
    ];
    for (name, buffer) in buffers {
        let tensor = file.tensor(name).map_err(|error| error.to_string())?;
        if tensor.dtype() != safetensors::Dtype::F32 || tensor.shape() != [shard.range.len()] {
            let (dtype, shape) = (tensor.dtype(), tensor.shape());
            return Err(format!(
                "`{name}` is {dtype:?} {shape:?}, expected F32 [{}]",
                shard.range.len()
            ));
        }
        buffer.extend(from_little_endian(tensor.data()));
    }
    Ok(())
}
