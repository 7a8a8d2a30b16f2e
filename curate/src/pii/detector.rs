//! Finds private data in a text.

use std::collections::BTreeMap;
use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};
use serde::{Deserialize, Serialize};

use super::context::{Dictionary, begins, ends};
use super::groups::{Groups, run};
use super::{Kind, Policy, Settings, address, assignment, card, letters, national, phone, tokens};

/// Private data that was found: what it is, and where. Never the data itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What it is.
    pub kind: Kind,
    /// The bytes of the text that it takes, on borders of characters.
    pub range: Range<usize>,
}

/// Why no detector can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DetectorError {
    /// A setting is out of its bounds.
    #[error("{0}")]
    Settings(String),
    /// The search for prefixes and words cannot be built.
    #[error("build the search for prefixes and words: {0}")]
    Search(String),
}

/// Finds private data by the settings it is made with. Shared between threads.
pub struct Detector {
    settings: Settings,
    /// Kinds that are searched for, by their place in [`Kind::ALL`].
    wanted: Vec<bool>,
    prefixes: AhoCorasick,
    dictionary: Dictionary,
    /// Entropy of a secret, per byte, in 1/65536 bits.
    secret_entropy: u64,
}

impl Detector {
    /// A detector of everything whose policy is not `off`.
    ///
    /// # Errors
    /// If a setting is out of its bounds.
    pub fn new(settings: &Settings) -> Result<Self, DetectorError> {
        settings.check().map_err(DetectorError::Settings)?;
        let prefixes = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(tokens::prefixes())
            .map_err(|error| DetectorError::Search(error.to_string()))?;
        Ok(Self {
            wanted: Kind::ALL
                .iter()
                .map(|&kind| settings.policy(kind) != Policy::Off)
                .collect(),
            prefixes,
            dictionary: Dictionary::new().map_err(|error| DetectorError::Search(error.to_string()))?,
            secret_entropy: (settings.secret_entropy * 65_536.0) as u64,
            settings: settings.clone(),
        })
    }

    /// The settings it was made with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Replaces what is in `found` by what is in `text`, by place. Findings never overlap: of those that would, the
    /// longest stays, of equally long ones the most specific kind, then the first. Takes time linear in the text.
    pub fn find(&self, text: &str, found: &mut Vec<Found>) {
        found.clear();
        self.tokens(text, found);
        self.signs(text, found);
        self.digits(text, found);
        settle(found);
    }

    fn wants(&self, kind: Kind) -> bool {
        self.wanted.get(kind as usize).is_some_and(|wanted| *wanted)
    }

    fn add(&self, found: &mut Vec<Found>, kind: Kind, range: Range<usize>) {
        if self.wants(kind) {
            found.push(Found { kind, range });
        }
    }

    /// What begins with a prefix of its own.
    fn tokens(&self, text: &str, found: &mut Vec<Found>) {
        let bytes = text.as_bytes();
        for prefix in self.prefixes.find_iter(bytes) {
            let Some((kind, range)) = tokens::at(bytes, prefix.start(), prefix.pattern().as_usize()) else {
                continue;
            };
            if kind == Kind::AwsAccessKeyId
                && self.wants(Kind::AwsSecretKey)
                && let Some(secret) = tokens::aws_secret(bytes, range.end)
            {
                self.add(found, Kind::AwsSecretKey, secret);
            }
            self.add(found, kind, range);
        }
    }

    /// What has a sign in it or before it: `@`, `:` or `=`.
    fn signs(&self, text: &str, found: &mut Vec<Found>) {
        let bytes = text.as_bytes();
        for at in memchr::memchr3_iter(b'@', b':', b'=', bytes) {
            if bytes[at] == b'@' {
                if let Some(range) = address::email(text, at) {
                    self.add(found, Kind::Email, range);
                }
                continue;
            }
            if bytes[at] == b':'
                && let Some(range) = address::ipv6(text, at, self.settings.private_addresses)
            {
                self.add(found, Kind::Ip, range);
            }
            if let Some((kind, range)) = assignment::at(bytes, at, self.secret_entropy) {
                self.add(found, kind, range);
            }
        }
    }

    /// What has digits in it: looked at where each run of digits begins.
    fn digits(&self, text: &str, found: &mut Vec<Found>) {
        let bytes = text.as_bytes();
        let mut from = 0;
        while let Some(start) = next_digit(bytes, from) {
            from = start + run(&bytes[start..], usize::MAX);
            if from - start > 20 {
                continue;
            }
            self.attached(text, start, found);
            let groups = Groups::read(bytes, start);
            if groups.total >= 4
                && groups.count >= 4
                && let Some(range) = address::ipv4(
                    text,
                    start,
                    &groups,
                    self.settings.private_addresses,
                    &self.dictionary,
                )
            {
                self.add(found, Kind::Ip, range);
            }
            if groups.total >= 8 {
                self.numbers(text, start, &groups, found);
            }
        }
    }

    /// Numbers with letters in them.
    fn attached(&self, text: &str, start: usize, found: &mut Vec<Found>) {
        let bytes = text.as_bytes();
        if let Some(from) = letters::iban_start(bytes, start)
            && begins(bytes, from)
            && let Some(end) = card::iban(bytes, from)
            && ends(bytes, end)
        {
            self.add(found, Kind::Iban, from..end);
        }
        if let Some((kind, range, words)) = letters::at(bytes, start)
            && self.wants(kind)
            && begins(bytes, range.start)
            && ends(bytes, range.end)
            && (words == national::Words::Free || self.dictionary.has(text, kind, &range))
        {
            self.add(found, kind, range);
        }
    }

    /// Numbers of digits alone.
    fn numbers(&self, text: &str, start: usize, groups: &Groups, found: &mut Vec<Found>) {
        let bytes = text.as_bytes();
        if self.wants(Kind::Phone)
            && let Some((range, words)) = phone::at(bytes, start, groups)
            && (!words || self.dictionary.has(text, Kind::Phone, &range))
        {
            self.add(found, Kind::Phone, range);
        }
        if !begins(bytes, start) {
            return;
        }
        if self.wants(Kind::Card)
            && let Some((count, words)) = card::card(groups)
        {
            let range = start..groups.ends[count - 1];
            if ends(bytes, range.end) && (!words || self.dictionary.has(text, Kind::Card, &range)) {
                self.add(found, Kind::Card, range);
            }
        }
        national::each(groups, |kind, count, words| {
            let range = start..groups.ends[count - 1];
            if self.wants(kind)
                && ends(bytes, range.end)
                && (words == national::Words::Free || self.dictionary.has(text, kind, &range))
            {
                self.add(found, kind, range);
            }
        });
    }
}

/// Where the next digit is, from `from` on.
fn next_digit(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    let blocks = rest.chunks_exact(32);
    let has_digit = |block: &[u8]| block.iter().fold(false, |any, byte| any | byte.is_ascii_digit());
    let skipped = blocks.take_while(|block| !has_digit(block)).count() * 32;
    let place = rest[skipped..].iter().position(u8::is_ascii_digit)?;
    Some(from + skipped + place)
}

/// Sorts findings by place and leaves none that overlaps a better one.
fn settle(found: &mut Vec<Found>) {
    found.sort_unstable_by_key(|found| (found.range.start, found.range.end, found.kind));
    if found
        .windows(2)
        .all(|pair| pair[0].range.end <= pair[1].range.start)
    {
        return;
    }
    found.sort_unstable_by_key(|found| (usize::MAX - found.range.len(), found.kind, found.range.start));
    // What is kept, by its end: only the first that ends behind a start can overlap what starts there.
    let mut kept: BTreeMap<usize, Found> = BTreeMap::new();
    for candidate in found.drain(..) {
        let next = kept.range(candidate.range.start + 1..).next();
        if next.is_none_or(|(_, next)| next.range.start >= candidate.range.end) {
            kept.insert(candidate.range.end, candidate);
        }
    }
    found.extend(kept.into_values());
}
