//! What is read: sources, their units, and the keys of both.
//!
//! Sources are looked at before anything is done, which tells whether a dataset is there already; what is fetched is known
//! only later. So a list of addresses counts by its addresses first, and then by the digests of what they gave.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::fetch::{self, Address};
use super::run::Run;
use crate::document::{Dropped, Origin};
use crate::error::CurateError;
use crate::fetch::{Outcome, addresses};
use crate::read::{Fetched, FetchedFile, ListError, Listing, Source, SourceSettings, Unit};
use crate::spec::{Spec, Stage};
use crate::work::{Key, Work};

/// Of the files that tasks leave to each other: raised with every change, as an older program's work folder has others.
pub(super) const FORMAT: u32 = 6;

/// The sources of a spec, before anything is fetched.
pub(super) struct Sources {
    looked_at: Vec<LookedAt>,
    /// Digests of the files that the spec names beside its sources.
    files: Vec<(PathBuf, String)>,
    /// Of the spec, the listed files, the addresses of lists, and the files that the spec names.
    pub(super) key: Key,
}

/// A source as far as it is known without fetching.
enum LookedAt {
    Listed(Box<Source>, Listing),
    AtAddresses(Vec<String>),
}

/// What of a source decides what is read.
#[derive(Serialize)]
enum Content<'a> {
    Units(&'a [Unit]),
    Addresses(&'a [String]),
}

impl Sources {
    /// Lists files, and reads lists of addresses.
    pub(super) fn look_at(spec: &Spec) -> Result<Self, CurateError> {
        let look_at = |settings: &SourceSettings| match &settings.list {
            Some(list) => {
                let wrong = |problem| failed(&settings.name, ListError::Setting(problem));
                addresses(list).map(LookedAt::AtAddresses).map_err(wrong)
            }
            None => {
                let source = Source::open(settings).map_err(|error| failed(&settings.name, error))?;
                let listing = source.list().map_err(|error| failed(&settings.name, error))?;
                Ok(LookedAt::Listed(Box::new(source), listing))
            }
        };
        let looked_at: Vec<LookedAt> = spec.sources.iter().map(look_at).collect::<Result<_, _>>()?;
        let files = spec.files()?;
        let content: Vec<Content<'_>> = looked_at
            .iter()
            .map(|source| match source {
                LookedAt::Listed(_, listing) => Content::Units(&listing.units),
                LookedAt::AtAddresses(addresses) => Content::Addresses(addresses),
            })
            .collect();
        // The tokenizer counts for the dataset; what is read and filtered is the same with another.
        let key = Key::new(
            "sources",
            &(relevant(spec), content, &files, spec.tokenizer_file()?),
            &[],
        )?;
        Ok(Self {
            looked_at,
            files,
            key,
        })
    }

    /// Whether there is anything to fetch.
    pub(super) fn are_here(&self) -> bool {
        let is_here = |source: &LookedAt| matches!(source, LookedAt::Listed(..));
        self.looked_at.iter().all(is_here)
    }

    /// Fetches what is not here, and lists it.
    pub(super) fn fetch(self, run: &Run<'_>, work: &Work) -> Result<Input, CurateError> {
        let spec = run.spec;
        let mut addresses = Vec::new();
        for (source, looked_at) in self.looked_at.iter().enumerate() {
            if let LookedAt::AtAddresses(urls) = looked_at {
                addresses.extend(urls.iter().map(|url| Address { source, url }));
            }
        }
        let mut outcomes = Vec::new().into_iter();
        if !addresses.is_empty() {
            outcomes = fetch::run(run, work, &addresses)?.into_iter();
        }
        let mut input = Input {
            sources: Vec::new(),
            units: Vec::new(),
            refused: Vec::new(),
            key: self.key,
        };
        for (settings, looked_at) in spec.sources.iter().zip(self.looked_at) {
            let (source, listing) = match looked_at {
                LookedAt::Listed(source, listing) => (*source, listing),
                LookedAt::AtAddresses(urls) => {
                    let outcomes = urls.into_iter().zip(outcomes.by_ref());
                    let (files, refused) = parted(&settings.name, outcomes);
                    input.refused.extend(refused);
                    let fetched = Arc::new(Fetched::new(files, settings.format));
                    let source = Source::all_of(fetched, settings);
                    let listing = source.list().map_err(|error| failed(&settings.name, error))?;
                    (source, listing)
                }
            };
            let number = input.sources.len();
            input.sources.push(source);
            input
                .units
                .extend(listing.units.into_iter().map(|unit| (number, unit)));
            input.refused.extend(listing.dropped);
        }
        let decides = (FORMAT, relevant(spec), &input.units, &self.files);
        input.key = Key::new("input", &decides, &[])?;
        Ok(input)
    }
}

/// The units of all sources, in order.
pub(super) struct Input {
    pub(super) sources: Vec<Source>,
    /// The source's number in the spec, and the unit.
    pub(super) units: Vec<(usize, Unit)>,
    /// Files that cannot be read, and addresses that cannot be fetched.
    pub(super) refused: Vec<Dropped>,
    pub(super) key: Key,
}

/// The files that addresses gave, and those that gave none.
fn parted(
    source: &str,
    outcomes: impl Iterator<Item = (String, (Outcome, PathBuf))>,
) -> (Vec<FetchedFile>, Vec<Dropped>) {
    let (mut files, mut dropped) = (Vec::new(), Vec::new());
    for (url, (outcome, path)) in outcomes {
        match outcome {
            Outcome::Whole(whole) => files.push(FetchedFile {
                url: url.into(),
                path,
                bytes: whole.bytes,
                digest: whole.digest.into(),
                content_type: whole.content_type,
                opt_outs: whole.opt_outs,
            }),
            Outcome::Failed(failure) => dropped.push(Dropped {
                origin: Origin {
                    source: source.into(),
                    file: url.into(),
                    record: 0,
                    offset: 0,
                },
                stage: Stage::Read.name().into(),
                reason: failure.reason,
                detail: failure.detail,
                kept: None,
                language: None,
                scores: None,
            }),
        }
    }
    (files, dropped)
}

/// Why a source is not read: most often its path is not what was meant, but permissions are no matter of the spec.
fn failed(name: &str, error: ListError) -> CurateError {
    match error {
        ListError::Unreadable { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
            CurateError::Io {
                action: "read source",
                path,
                source,
            }
        }
        error => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            CurateError::Spec {
                path: None,
                problem: format!("source {name:?}: {error}{}", cause.unwrap_or_default()),
            }
        }
    }
}

/// The parts of a spec that reading and filtering do not look at are as if they were not there.
fn relevant(spec: &Spec) -> Spec {
    let stages = spec.in_order().into_iter();
    Spec {
        name: String::new(),
        stages: stages.filter(|stage| *stage != Stage::Tokenize).collect(),
        tokenizer: Default::default(),
        mix: Default::default(),
        output: Default::default(),
        dedup: crate::spec::DedupSettings {
            passages: None,
            ..spec.dedup.clone()
        },
        ..spec.clone()
    }
}
