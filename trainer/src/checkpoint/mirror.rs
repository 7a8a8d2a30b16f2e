//! Copies of checkpoints at a target: a folder elsewhere, or a bucket.
//!
//! A copy has the names and bytes of the checkpoint. Shards come first, each read back and compared, the manifest
//! last; what has no manifest is no checkpoint. Removal is the other way round.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use lockstep_engine::ids::Step;
use lockstep_engine::spec::Target;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload, WriteMultipart};

use super::reader::{check_digest, corrupt, parse_manifest};
use super::retention::list_whole;
use super::{
    Corruption, Found, MANIFEST, Manifest, Policy, Shard, Skipped, folder, folder_name, newest_valid,
    retained, step_of, temporary, verify,
};
use crate::error::{Result, StorageContext, TrainerError};
use crate::files;

/// Sent or asked for at once. A service takes at most 10,000 parts: enough for shards of 160 GB.
const BLOCK: usize = 16 << 20;
/// Parts on their way at once.
const PARTS: usize = 2;
/// How often a checkpoint is tried, each time with the next one, before it is given up.
const TRIES: u32 = 3;

/// The copies at a target.
pub struct Mirror {
    target: Target,
    store: Box<dyn ObjectStore>,
    prefix: Key,
    runtime: tokio::runtime::Runtime,
    /// How often a step could not be copied.
    failures: BTreeMap<Step, u32>,
}

/// What an update of the copies did.
#[derive(Debug, Default)]
pub struct Mirrored {
    /// The steps copied, newest first.
    pub copied: Vec<Step>,
    /// The steps whose copies were deleted, as they are not to be kept.
    pub deleted: Vec<Step>,
    /// What could not be copied. Nothing is lost: the checkpoint itself is as it was.
    pub failed: Vec<Failed>,
}

/// A checkpoint that could not be copied.
#[derive(Debug)]
pub struct Failed {
    /// Its step.
    pub step: Step,
    /// Why.
    pub reason: TrainerError,
    /// Whether it is tried again with the next update.
    pub retried: bool,
}

/// What was brought from a target.
#[derive(Debug, Default)]
pub struct Fetched {
    /// The checkpoint that is now in the folder; none when it has one as new, or the target has none.
    pub found: Option<Found>,
    /// Newer ones at the target that are damaged.
    pub skipped: Vec<Skipped>,
}

/// Brings the newest checkpoint of `target` that verifies into the folder `dir`, if `dir` has none as new that does.
///
/// # Errors
/// [`TrainerError::Target`] when the target cannot be read: what it holds is unknown then, so nobody should begin from
/// something older. [`DiskFull`](TrainerError::DiskFull) and [`Storage`](TrainerError::Storage) of `dir`.
pub fn fetch(target: &Target, dir: &Path) -> Result<Fetched> {
    Mirror::open(target)?.fetch(dir)
}

impl Mirror {
    /// Opens a target; its folder is made if need be, a bucket must be there. The service's address and credentials
    /// come from the environment, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT`.
    ///
    /// # Errors
    /// [`TrainerError::Target`], also when this build has no support for it.
    pub fn open(target: &Target) -> Result<Self> {
        let (store, prefix) = match target {
            Target::Folder(path) => (open_folder(target, path)?, Key::default()),
            Target::S3 { bucket, prefix } => (open_bucket(target, bucket, &[])?, Key::from(prefix.as_str())),
        };
        Self::over(target, store, prefix)
    }

    fn over(target: &Target, store: Box<dyn ObjectStore>, prefix: Key) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| failed(target, "start", error))?;
        Ok(Self {
            target: target.clone(),
            store,
            prefix,
            runtime,
            failures: BTreeMap::new(),
        })
    }

    /// As given.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Copies the checkpoints of `dir` that `policy` keeps and the target lacks, the newest first, then deletes the
    /// copies that `policy` does not keep. The newest copy always stays.
    ///
    /// # Errors
    /// [`TrainerError::Target`] when the target cannot be listed, [`TrainerError::Storage`] when `dir` cannot be. What
    /// goes wrong with one checkpoint is in [`Mirrored::failed`]; it is tried again with the next update, three
    /// times at most.
    pub fn update(&mut self, dir: &Path, policy: &Policy) -> Result<Mirrored> {
        let local = list_whole(dir)?;
        let mut remote = self.manifests()?;
        let score = |manifest: &Manifest| (manifest.step, manifest.about.validation_bits_per_byte);
        let mut all: BTreeMap<Step, Option<f64>> = remote.values().flatten().map(score).collect();
        all.extend(local.iter().map(|(_, manifest)| score(manifest)));
        let wanted = retained(&all.into_iter().collect::<Vec<_>>(), policy);

        let mut done = Mirrored::default();
        for (path, manifest) in local.into_iter().rev() {
            let step = manifest.step;
            let is_there = remote.get(&step) == Some(&Some(manifest.clone()));
            let failures = self.failures.get(&step).copied().unwrap_or(0);
            if is_there || !wanted.contains(&step) || failures >= TRIES {
                continue;
            }
            match self.runtime.block_on(self.upload(&path, &manifest)) {
                Ok(()) => {
                    remote.insert(step, Some(manifest));
                    done.copied.push(step);
                }
                Err(reason) => {
                    self.failures.insert(step, failures + 1);
                    done.failed.push(Failed {
                        step,
                        reason,
                        retried: failures + 1 < TRIES,
                    });
                }
            }
        }
        let held: Vec<_> = remote.values().flatten().map(score).collect();
        let kept = retained(&held, policy);
        let newest = kept.last().copied().unwrap_or_default();
        for (step, manifest) in remote {
            // What has no good manifest is the rest of a try; one that is newer may still be under way.
            let goes = match manifest {
                Some(_) => !kept.contains(&step),
                None => step < newest,
            };
            if goes {
                self.runtime.block_on(self.remove(step))?;
                done.deleted.push(step);
            }
        }
        self.failures.retain(|step, _| wanted.contains(step));
        Ok(done)
    }

    /// As [`fetch`], of this target.
    ///
    /// # Errors
    /// As [`fetch`].
    pub fn fetch(&self, dir: &Path) -> Result<Fetched> {
        let held = newest_valid(dir)?.0.map(|found| found.manifest.step);
        let mut fetched = Fetched::default();
        for step in self.steps()?.into_iter().rev() {
            if Some(step) <= held {
                break;
            }
            match self.runtime.block_on(self.download(step, dir)) {
                Ok(manifest) => {
                    let path = folder(dir, step);
                    fetched.found = Some(Found { path, manifest });
                    break;
                }
                Err(reason @ (TrainerError::Corrupt { .. } | TrainerError::Version { .. })) => {
                    let path = self.shown(step);
                    fetched.skipped.push(Skipped { path, reason });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(fetched)
    }

    /// The steps that the target has something of.
    fn steps(&self) -> Result<BTreeSet<Step>> {
        let prefix = (!self.prefix.as_ref().is_empty()).then_some(&self.prefix);
        let listed = self
            .runtime
            .block_on(self.store.list_with_delimiter(prefix))
            .map_err(|error| failed(&self.target, "list", error))?;
        let names = listed.common_prefixes.iter();
        Ok(names.filter_map(|key| step_of(key.filename()?)).collect())
    }

    /// The steps that the target has something of, each with its manifest if that is whole.
    fn manifests(&self) -> Result<BTreeMap<Step, Option<Manifest>>> {
        let read = |step| match self.runtime.block_on(self.manifest(step)) {
            Ok((manifest, _)) => Ok((step, Some(manifest))),
            Err(TrainerError::Corrupt { .. } | TrainerError::Version { .. }) => Ok((step, None)),
            Err(error) => Err(error),
        };
        self.steps()?.into_iter().map(read).collect()
    }

    async fn manifest(&self, step: Step) -> Result<(Manifest, Vec<u8>)> {
        let mut text = Vec::new();
        self.read(step, MANIFEST, |block| text.write_all(block)).await?;
        let manifest = parse_manifest(&self.shown(step), &text)?;
        Ok((manifest, text))
    }

    async fn upload(&self, path: &Path, manifest: &Manifest) -> Result<()> {
        let step = manifest.step;
        // What is there is of another history, or torn: while it is replaced, it is no checkpoint.
        self.remove(step).await?;
        for shard in &manifest.shards {
            self.send(step, path, shard).await?;
            self.check(step, shard, |_| Ok(())).await?;
        }
        let file = path.join(MANIFEST);
        let text = fs::read(&file).at("read", &file)?;
        self.store
            .put(&self.key(step, MANIFEST), PutPayload::from(text))
            .await
            .map_err(|error| self.failed("write", step, MANIFEST, error))?;
        let (held, _) = self.manifest(step).await?;
        check_digest(&self.shown(step), MANIFEST, &held.digest, &manifest.digest)
    }

    /// Sends a shard, unless its bytes are not what the manifest says.
    async fn send(&self, step: Step, path: &Path, shard: &Shard) -> Result<()> {
        let file = path.join(&shard.file);
        let failed = |error| self.failed("write", step, &shard.file, error);
        let mut source = File::open(&file).at("read", &file)?;
        let key = self.key(step, &shard.file);
        let upload = self.store.put_multipart(&key).await.map_err(failed)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, BLOCK);
        let mut hasher = blake3::Hasher::new();
        let mut block = vec![0; BLOCK.min(shard.bytes as usize + 1)];
        loop {
            let read = source.read(&mut block).at("read", &file)?;
            if read == 0 {
                break;
            }
            hasher.update(&block[..read]);
            upload.wait_for_capacity(PARTS).await.map_err(failed)?;
            upload.write(&block[..read]);
        }
        if let Err(damage) = check_digest(path, &shard.file, &hasher.finalize().to_hex(), &shard.digest) {
            upload.abort().await.map_err(failed)?;
            return Err(damage);
        }
        upload.finish().await.map(drop).map_err(failed)
    }

    async fn download(&self, step: Step, dir: &Path) -> Result<Manifest> {
        let (manifest, text) = self.manifest(step).await?;
        fs::create_dir_all(dir).at("create folder", dir)?;
        let staging = Staging::new(dir, step)?;
        for shard in &manifest.shards {
            let file = staging.0.join(&shard.file);
            let mut out = File::create(&file).at("write", &file)?;
            self.check(step, shard, |block| out.write_all(block)).await?;
            out.sync_all().at("write", &file)?;
        }
        files::write(&staging.0.join(MANIFEST), |out| out.write_all(&text))?;
        files::sync(&staging.0)?;
        // Another process of this run may have been faster.
        temporary::publish(dir, step, &staging.0, |place| verify(place).is_ok())?;
        Ok(manifest)
    }

    /// Reads a shard of the target into `sink`, and checks its size and digest.
    async fn check(
        &self,
        step: Step,
        shard: &Shard,
        mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<()> {
        let mut hasher = blake3::Hasher::new();
        let found = self
            .read(step, &shard.file, |block| {
                hasher.update(block);
                sink(block)
            })
            .await?;
        if found != shard.bytes {
            let (file, expected) = (shard.file.clone(), shard.bytes);
            return Err(corrupt(
                &self.shown(step),
                Corruption::Size {
                    file,
                    found,
                    expected,
                },
            ));
        }
        let digest = hasher.finalize().to_hex();
        check_digest(&self.shown(step), &shard.file, &digest, &shard.digest)
    }

    /// Reads a file of the target into `sink`, and returns its length.
    async fn read(
        &self,
        step: Step,
        file: &str,
        mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<u64> {
        let key = self.key(step, file);
        let told = |error| self.failed("read", step, file, error);
        let bytes = self.store.head(&key).await.map_err(told)?.size;
        let mut at = 0;
        while at < bytes {
            let end = bytes.min(at + BLOCK as u64);
            let block = self.store.get_range(&key, at..end).await.map_err(told)?;
            sink(&block).at("write a copy of", Path::new(file))?;
            at = end;
        }
        Ok(bytes)
    }

    /// Removes what the target has of `step`, the manifest first.
    async fn remove(&self, step: Step) -> Result<()> {
        let told = |error| self.failed("remove", step, "", error);
        let prefix = self.prefix.clone().join(folder_name(step));
        let listed = self
            .store
            .list_with_delimiter(Some(&prefix))
            .await
            .map_err(told)?;
        let mut keys: Vec<Key> = listed.objects.into_iter().map(|object| object.location).collect();
        keys.sort_by_key(|key| key.filename() != Some(MANIFEST));
        for key in keys {
            self.store.delete(&key).await.map_err(told)?;
        }
        if let Target::Folder(path) = &self.target {
            // Empty now, or not there; a bucket has no folders.
            let _ = fs::remove_dir(folder(path, step));
        }
        Ok(())
    }

    fn key(&self, step: Step, file: &str) -> Key {
        self.prefix.clone().join(folder_name(step)).join(file)
    }

    /// The checkpoint of `step` at the target, as errors name it.
    fn shown(&self, step: Step) -> PathBuf {
        PathBuf::from(format!("{}/{}", self.target, folder_name(step)))
    }

    fn failed(&self, verb: &str, step: Step, file: &str, error: object_store::Error) -> TrainerError {
        match error {
            object_store::Error::NotFound { .. } => corrupt(
                &self.shown(step),
                Corruption::Missing {
                    file: file.to_owned(),
                },
            ),
            error => failed(
                &self.target,
                &format!("{verb} {}/{file}", folder_name(step)),
                error,
            ),
        }
    }
}

/// A folder for a copy on its way in, that no other process has; removed if it does not become a checkpoint.
struct Staging(PathBuf);

impl Staging {
    fn new(dir: &Path, step: Step) -> Result<Self> {
        let name = |index| temporary::name(dir, step, &format!("fetch-{index}"));
        files::first_free(name, |path| fs::create_dir(path)).map(|(path, ())| Self(path))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Gone if it was renamed into place; what stays otherwise is removed with the next checkpoint.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn failed(target: &Target, action: &str, error: impl std::fmt::Display) -> TrainerError {
    TrainerError::Target {
        target: target.to_string(),
        action: action.to_owned(),
        problem: error.to_string(),
    }
}

fn open_folder(target: &Target, path: &Path) -> Result<Box<dyn ObjectStore>> {
    fs::create_dir_all(path).map_err(|error| failed(target, "create folder", error))?;
    let store = LocalFileSystem::new_with_prefix(path).map_err(|error| failed(target, "open", error))?;
    Ok(Box::new(store.with_fsync(true)))
}

#[cfg(feature = "s3")]
fn open_bucket(target: &Target, bucket: &str, options: &[(&str, &str)]) -> Result<Box<dyn ObjectStore>> {
    use object_store::aws::AmazonS3Builder;
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    for (key, value) in options {
        let key = key.parse().map_err(|error| failed(target, "open", error))?;
        builder = builder.with_config(key, *value);
    }
    let store = builder.build().map_err(|error| failed(target, "open", error))?;
    Ok(Box::new(store))
}

#[cfg(not(feature = "s3"))]
fn open_bucket(target: &Target, _: &str, _: &[(&str, &str)]) -> Result<Box<dyn ObjectStore>> {
    let problem = "this build cannot; build with `--features s3`, or name a folder";
    Err(failed(target, "open", problem))
}

#[cfg(test)]
mod tests;
