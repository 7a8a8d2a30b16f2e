//! The first pass: every candidate is read once, and what is text becomes a document. Only digests are kept.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;

use crate::corpus::{Candidate, Provenance};
use crate::digest::{Digest, Hasher};
use crate::documents::DocumentInfo;
use crate::error::DataError;
use crate::progress::{Monitor, Stage, Stop};
use crate::skip::{SkipReason, Skipped};

/// Files read between two reports of progress.
const BATCH: usize = 256;

/// A file of text whose content no earlier file has.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its path inside the corpus.
    pub(crate) id: String,
    /// Size of its content.
    pub(crate) bytes: u64,
    /// Digest of its content.
    pub(crate) digest: Digest,
    /// Whose it is.
    pub(crate) provenance: Arc<Provenance>,
}

/// What a corpus holds.
#[derive(Debug)]
pub(crate) struct Listing {
    /// Every document, sorted by id.
    pub(crate) documents: Vec<Document>,
    /// Digest over id, size, content and provenance of them all.
    pub(crate) digest: Digest,
}

impl Document {
    /// What the table of documents says of it.
    pub(crate) fn info(self) -> DocumentInfo {
        let Self {
            id,
            bytes,
            digest,
            provenance,
            ..
        } = self;
        DocumentInfo {
            id,
            source: provenance.source.clone(),
            version: provenance.version.clone(),
            licence: provenance.licence.clone(),
            digest,
            bytes,
            extras: Vec::new(),
        }
    }

    /// Reads the text, the second time.
    ///
    /// # Errors
    /// If it is not what it was the first time.
    pub(crate) fn text(&self, stop: Stop<'_>) -> Result<String, DataError> {
        stop.check()?;
        let changed = || DataError::CorpusChanged {
            path: self.path.clone(),
        };
        let content = fs::read(&self.path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => changed(),
            _ => DataError::io("read", &self.path, error),
        })?;
        if Digest::of(&content) != self.digest {
            return Err(changed());
        }
        String::from_utf8(content).map_err(|_| changed())
    }
}

/// Reads all candidates, in parallel; keeps what is text and drops all but the first of equal ones.
pub(crate) fn scan(
    candidates: Vec<Candidate>,
    skipped: &mut Skipped,
    monitor: &mut Monitor<'_>,
) -> Result<Listing, DataError> {
    let stop = monitor.stop();
    monitor.enter(
        Stage::Read,
        candidates.iter().map(|candidate| candidate.bytes).sum(),
    );
    let mut documents = Vec::new();
    let mut seen = HashSet::new();
    let mut candidates = candidates.into_iter();
    loop {
        let batch: Vec<Candidate> = candidates.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            break;
        }
        let bytes = batch.iter().map(|candidate| candidate.bytes).sum();
        let read: Vec<_> = batch
            .into_par_iter()
            .map(|candidate| read(candidate, stop))
            .collect::<Result<_, _>>()?;
        for outcome in read {
            match outcome {
                Ok(document) if seen.insert(document.digest) => documents.push(document),
                Ok(_) => skipped.add(SkipReason::Duplicate),
                Err(reason) => skipped.add(reason),
            }
        }
        monitor.advance(bytes);
    }
    let digest = digest_of(&documents);
    Ok(Listing { documents, digest })
}

/// A document, or why it is none.
fn read(candidate: Candidate, stop: Stop<'_>) -> Result<Result<Document, SkipReason>, DataError> {
    stop.check()?;
    let Candidate {
        path, id, provenance, ..
    } = candidate;
    let content = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Ok(Err(SkipReason::Unreadable));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(DataError::CorpusChanged { path });
        }
        content => content.map_err(|error| DataError::io("read", &path, error))?,
    };
    Ok(if content.is_empty() {
        Err(SkipReason::Empty)
    } else if content.contains(&0) {
        Err(SkipReason::Binary)
    } else if std::str::from_utf8(&content).is_err() {
        Err(SkipReason::NotUtf8)
    } else {
        Ok(Document {
            path,
            id,
            bytes: content.len() as u64,
            digest: Digest::of(&content),
            provenance,
        })
    })
}

fn digest_of(documents: &[Document]) -> Digest {
    let mut hasher = Hasher::default();
    for Document {
        id,
        bytes,
        digest,
        provenance,
        ..
    } in documents
    {
        hasher.field(id.as_bytes());
        hasher.update(&bytes.to_le_bytes());
        hasher.update(digest.as_bytes());
        hasher.field(provenance.source.as_bytes());
        for optional in [&provenance.version, &provenance.licence] {
            hasher.update(&[u8::from(optional.is_some())]);
            hasher.field(optional.as_deref().unwrap_or_default().as_bytes());
        }
    }
    hasher.digest()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A document that is nowhere on disk.
    pub(crate) fn document(id: &str, content: &str, bytes: u64) -> Document {
        let provenance = Arc::new(Provenance::of_source("test"));
        let digest = Digest::of(content.as_bytes());
        Document {
            path: PathBuf::from(id),
            id: id.to_owned(),
            bytes,
            digest,
            provenance,
        }
    }

    #[test]
    fn the_listings_digest_sees_every_field() {
        let base = document("a", "text", 4);
        let other = |change: &dyn Fn(&mut Document)| {
            let mut document = base.clone();
            change(&mut document);
            digest_of(&[document])
        };
        let known = |version, licence| Provenance {
            version,
            licence,
            ..Provenance::of_source("test")
        };
        let digests = [
            digest_of(&[]),
            other(&|_| ()),
            other(&|d| d.id = "b".into()),
            other(&|d| d.bytes = 5),
            other(&|d| d.digest = Digest::of(b"other")),
            other(&|d| d.provenance = Arc::new(Provenance::of_source("other"))),
            other(&|d| d.provenance = Arc::new(known(Some("1".into()), None))),
            other(&|d| d.provenance = Arc::new(known(None, Some("1".into())))),
            other(&|d| d.provenance = Arc::new(known(None, Some(String::new())))),
        ];
        assert_eq!(digests.iter().collect::<HashSet<_>>().len(), digests.len());
    }
}
