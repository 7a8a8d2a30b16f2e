//! Listing, verifying and loading checkpoints.

use std::fs::{self, File};
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use lockstep_engine::ids::Step;

use super::{Corruption, MANIFEST, Manifest, Piece, Shard, VERSION, step_of};
use crate::error::{Result, StorageContext, TrainerError};
use crate::state::State;
use crate::tensor_file;

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
    let mut parts = [(); 3].map(|()| Vec::with_capacity(manifest.elements));
    for shard in &manifest.shards {
        shard.check_size(path)?;
        let file = path.join(&shard.file);
        let mut source = Digested::new(BufReader::new(File::open(&file).at("read", &file)?));
        let appended = append(&mut parts, shard, &mut source);
        let digest = source.digest_of_all().at("read", &file)?;
        check_digest(path, &shard.file, &digest, &shard.digest)?;
        appended.map_err(|problem| {
            corrupt(
                path,
                Corruption::Malformed {
                    file: shard.file.clone(),
                    problem,
                },
            )
        })?;
    }
    let state = State::new(manifest.step, parts);
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

/// Reads a shard's tensors to the end of what was read of those before.
fn append(parts: &mut [Vec<f32>; 3], shard: &Shard, source: &mut impl Read) -> Result<(), String> {
    let mut file = tensor_file::Reader::new(source, shard.bytes).map_err(|error| error.to_string())?;
    for (name, values) in Piece::PARTS.into_iter().zip(parts) {
        file.append(name, &[shard.range.len()], values)?;
    }
    Ok(())
}

/// What is read, digested on the way.
struct Digested<R> {
    source: R,
    hasher: blake3::Hasher,
}

impl<R: Read> Digested<R> {
    fn new(source: R) -> Self {
        let hasher = blake3::Hasher::new();
        Self { source, hasher }
    }

    /// BLAKE3 in hexadecimal of what was read and of all that is left.
    fn digest_of_all(mut self) -> std::io::Result<String> {
        self.hasher.update_reader(self.source)?;
        Ok(self.hasher.finalize().to_hex().to_string())
    }
}

impl<R: Read> Read for Digested<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}
