//! The documents that are left once duplicates are known, as they are left.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::documents::Documents;
use super::duplicates::{Duplicate, Duplicates};
use super::run::Run;
use crate::curated::Curated;
use crate::dedup::passages::{self, PassageSettings, PassageWriter};
use crate::dedup::{Slice, SortSettings};
use crate::error::CurateError;
use crate::records::Records;
use crate::spec::Stage;
use crate::work::{Key, Work};

const PASSAGES: &str = "passages";
const REMOVALS: &str = "removals";

/// All documents, and what becomes of them.
pub(super) struct Kept {
    pub(super) documents: Documents,
    pub(super) duplicates: Duplicates,
    /// Which passages go, by ordinal.
    removals: BTreeMap<u64, Vec<u32>>,
    settings: Option<PassageSettings>,
    pub(super) key: Key,
}

/// What became of a document.
pub(super) enum Fate {
    /// It stays; how many bytes were taken out of its text.
    Stays(Curated, usize),
    /// Another one stays in its place.
    Duplicate(Curated, Duplicate),
    /// Nothing is left of it once passages are gone that were there before.
    Repeats(Curated),
}

impl Kept {
    /// What becomes of each document of a task, with its ordinal.
    pub(super) fn fates(
        &self,
        task: usize,
    ) -> Result<impl Iterator<Item = Result<(u64, Fate), CurateError>>, CurateError> {
        let first = self.documents.firsts.get(task).copied().unwrap_or(0);
        let records = Records::<Curated>::open(&self.documents.documents(task))?;
        Ok((first..)
            .zip(records)
            .map(|(ordinal, record)| Ok((ordinal, self.fate(ordinal, record?)))))
    }

    fn fate(&self, ordinal: u64, mut document: Curated) -> Fate {
        if let Some(duplicate) = self.duplicates.get(ordinal) {
            return Fate::Duplicate(document, *duplicate);
        }
        let (Some(settings), Some(numbers)) = (&self.settings, self.removals.get(&ordinal)) else {
            return Fate::Stays(document, 0);
        };
        let text = passages::remove(&document.text, settings, numbers);
        if text.trim().is_empty() {
            return Fate::Repeats(document);
        }
        let removed = document.text.len().saturating_sub(text.len());
        document.original.get_or_insert(document.digest);
        document.digest = lockstep_data::Digest::of(text.as_bytes());
        document.text = text;
        Fate::Stays(document, removed)
    }
}

/// Finds passages that were there before, if the spec asks for it: among documents that stay, so that nothing goes because
/// it stood in one that went.
pub(super) fn run(
    run: &mut Run<'_>,
    work: &Work,
    documents: Documents,
    duplicates: Duplicates,
) -> Result<Kept, CurateError> {
    let settings = run
        .spec
        .dedup
        .passages
        .clone()
        .filter(|_| run.spec.runs(Stage::Dedup));
    let key = Key::new("passages", &settings, &[&documents.key, &duplicates.key])?;
    let mut kept = Kept {
        documents,
        duplicates,
        removals: BTreeMap::new(),
        settings: None,
        key,
    };
    let Some(settings) = settings else { return Ok(kept) };
    let (tasks, slices) = (kept.documents.tasks(), kept.documents.slices());
    run.progress
        .enter("find passages", (tasks + slices) as u64, "tasks");
    let phase = work.phase("passages", &kept.key)?;
    phase.run(
        tasks,
        run.progress,
        |_| 1,
        |task, folder| {
            let mut writer = PassageWriter::create(&folder.join(PASSAGES), &settings)?;
            for fate in kept.fates(task)? {
                run.progress.check()?;
                match fate? {
                    (_, Fate::Stays(document, _)) => writer.push(&document.text)?,
                    // It counts, so that ordinals stay what they are.
                    _ => writer.push("")?,
                }
            }
            writer.commit()?;
            run.progress.advance(1);
            Ok(())
        },
    )?;
    let parts: Vec<PathBuf> = (0..tasks).map(|task| phase.task(task).join(PASSAGES)).collect();
    let removals = work.phase("removals", &kept.key)?;
    removals.run(
        slices,
        run.progress,
        |_| 1,
        |index, folder| {
            let (sort, out) = (SortSettings::new(folder), folder.join(REMOVALS));
            let slice = Slice::new(index, slices);
            passages::removals(&parts, &settings, slice, &sort, &out)?;
            run.progress.advance(1);
            Ok(())
        },
    )?;
    let removals: Vec<PathBuf> = (0..slices)
        .map(|task| removals.task(task).join(REMOVALS))
        .collect();
    for removal in passages::read_removals(&removals)? {
        let (ordinal, numbers) = removal?;
        kept.removals.insert(u64::from(ordinal), numbers);
    }
    kept.settings = Some(settings);
    Ok(kept)
}
