//! Names that no reader looks at: `.tmp-step-NNNNNNNN-WHAT`.
//!
//! | WHAT | what | removed |
//! |---|---|---|
//! | `epoch-E` | a try of that epoch | once a newer step is sealed, or the same one in that epoch or a later |
//! | `fetch-I` | a copy on its way in | once a newer step is sealed |
//! | `manifest-I` | what a member that seals writes | when it has; else once a newer step is sealed |
//! | `pruned`, `replaced` | what was a checkpoint | at once |

use std::fs;
use std::path::{Path, PathBuf};

use lockstep_engine::ids::{Epoch, Step};

use super::folder;
use crate::error::{Result, StorageContext};
use crate::files;

const PREFIX: &str = ".tmp-step-";

/// The temporary folder in `dir` for `what` of `step`.
pub(super) fn name(dir: &Path, step: Step, what: &str) -> PathBuf {
    dir.join(format!("{PREFIX}{:08}-{what}", step.0))
}

/// Makes the folder `source`, whose files are synced, the checkpoint of `step`, durably; or drops it when there is one
/// that `is_good`, which then stays. Another process may be doing the same.
pub(super) fn publish(dir: &Path, step: Step, source: &Path, is_good: impl Fn(&Path) -> bool) -> Result<()> {
    let place = folder(dir, step);
    let aside = name(dir, step, "replaced");
    lockstep_faults::reach(lockstep_faults::Point::BeforeRename, step.0);
    // This fails when there is a folder with something in it.
    if let Err(error) = fs::rename(source, &place) {
        if is_good(&place) {
            return files::remove(source);
        }
        if !place.exists() {
            return Err(error).at("rename to", &place);
        }
        files::remove(&aside)?;
        fs::rename(&place, &aside).at("move aside", &place)?;
        fs::rename(source, &place).at("rename to", &place)?;
    }
    files::sync(dir)?;
    files::remove(&aside)
}

/// Removes the checkpoint of `step`: it has lost its name before it loses a file.
pub(super) fn remove_checkpoint(dir: &Path, step: Step) -> Result<()> {
    let place = folder(dir, step);
    let doomed = name(dir, step, "pruned");
    files::remove(&doomed)?;
    fs::rename(&place, &doomed).at("remove", &place)?;
    files::sync(dir)?;
    files::remove(&doomed)
}

/// Removes what is of no use any more once `sealed` is a checkpoint, made by a try of `epoch` if that is known. Never
/// a try that may still become one.
pub(super) fn remove_outdated(dir: &Path, sealed: Step, epoch: Option<Epoch>) -> Result<()> {
    for entry in fs::read_dir(dir).at("list", dir)? {
        let entry = entry.at("list", dir)?;
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
            continue;
        };
        let (step, what) = rest.split_once('-').unwrap_or((rest, ""));
        let Ok(step) = step.parse().map(Step) else {
            continue;
        };
        let attempt = what
            .strip_prefix("epoch-")
            .and_then(|epoch| epoch.parse().ok().map(Epoch));
        let lost =
            step == sealed && attempt.is_some_and(|attempt| epoch.is_some_and(|epoch| attempt <= epoch));
        if step < sealed || lost || matches!(what, "pruned" | "replaced") {
            files::remove(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_still_become_a_checkpoint_stays() {
        let dir = tempfile::tempdir().unwrap();
        let gone = [
            ".tmp-step-00000039",
            ".tmp-step-00000039-epoch-9",
            ".tmp-step-00000039-fetch-0",
            ".tmp-step-00000040-epoch-6",
            ".tmp-step-00000040-epoch-7",
            ".tmp-step-00000050-pruned",
            ".tmp-step-00000050-replaced",
        ];
        let stay = [
            ".tmp-export-model",
            ".tmp-step-00000040-epoch-8",
            ".tmp-step-00000040-fetch-0",
            ".tmp-step-00000040-manifest-0",
            ".tmp-step-00000041-epoch-1",
            ".tmp-step-x-epoch-1",
            "step-00000001",
        ];
        for name in gone.iter().chain(&stay) {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("file"), "x").unwrap();
        }
        remove_outdated(dir.path(), Step(40), Some(Epoch(7))).unwrap();
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, stay);
    }
}
