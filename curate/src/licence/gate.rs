//! Decides whether a document may be used.

use std::collections::HashSet;

use spdx::{AdditionItem, LicenseItem, LicenseReq};

use super::exclude::Patterns;
use super::{Missing, Settings, groups, opt_out, read};
use crate::Document;

/// Characters of a record's statement that are shown.
const SHOWN: usize = 80;

/// Why no gate can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// An entry of `allow` or `deny` is no licence.
    #[error(
        "licence.{field}: `{entry}` is no SPDX id, family such as `BSD-*`, or group ({})", groups::GROUPS.join(", ")
    )]
    Licence {
        /// `allow` or `deny`.
        field: &'static str,
        /// The entry.
        entry: String,
    },
    /// A pattern is no glob.
    #[error("licence.exclude.{field}: `{pattern}`: {reason}")]
    Pattern {
        /// The field.
        field: &'static str,
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A line of a list of digests is none.
    #[error("line {line}: not a digest; expected 64 hexadecimal digits, an empty line, or `#` and a remark")]
    Digest {
        /// The line, from 1.
        line: usize,
    },
}

/// Decides whether a document may be used. Shared between threads.
pub struct Gate {
    settings: Settings,
    allow: Vec<Entry>,
    deny: Vec<Entry>,
    patterns: Patterns,
    digests: HashSet<[u8; 32]>,
}

/// What a list names, from the farthest to the closest.
#[derive(Debug)]
enum Entry {
    Group(&'static [&'static str]),
    /// All that begin so.
    Family(String),
    /// Whatever exception it comes with, as exceptions only permit more.
    Licence(String),
    /// With this exception.
    With(String, String),
}

impl Gate {
    /// A gate without digests: [`Gate::exclude_digests`] adds those of the files that the settings name.
    ///
    /// # Errors
    /// If an entry is no licence, family or group, or a pattern no glob.
    pub fn new(settings: &Settings) -> Result<Self, GateError> {
        Ok(Self {
            allow: entries("allow", &settings.allow)?,
            deny: entries("deny", &settings.deny)?,
            patterns: Patterns::new(&settings.exclude)?,
            digests: HashSet::new(),
            settings: settings.clone(),
        })
    }

    /// Excludes the texts with these digests: 64 hexadecimal digits a line, perhaps with a remark behind a space or `#`.
    ///
    /// # Errors
    /// If a line is none; then nothing is added.
    pub fn exclude_digests(&mut self, list: &str) -> Result<usize, GateError> {
        let mut digests = Vec::new();
        for (number, line) in list.lines().enumerate() {
            let Some(word) = line
                .split([' ', '\t', '#'])
                .find(|word| !word.is_empty())
                .filter(|_| !line.trim_start().starts_with('#'))
            else {
                continue;
            };
            let digest =
                blake3::Hash::from_hex(word.trim()).map_err(|_| GateError::Digest { line: number + 1 })?;
            digests.push(*digest.as_bytes());
        }
        let added = digests.len();
        self.digests.extend(digests);
        Ok(added)
    }

    /// Why a document is dropped, if it is: a code and what exactly. `digests` are BLAKE3 of its text as it was read, and of
    /// its bytes if they are others.
    #[must_use]
    pub fn verdict(&self, document: &Document, digests: &[[u8; 32]]) -> Option<(&'static str, String)> {
        if let Some(digest) = digests.iter().find(|digest| self.digests.contains(*digest)) {
            return Some((
                "exclude.digest",
                blake3::Hash::from_bytes(*digest).to_hex().to_string(),
            ));
        }
        if let Some((field, pattern)) = self.patterns.find(document) {
            return Some(("exclude.pattern", format!("{field} matches {pattern}")));
        }
        let opted = document
            .opt_outs
            .iter()
            .find_map(|text| opt_out::find(text, &self.settings.opt_outs));
        if let Some(statement) = opted {
            return Some(("consent.opt_out", shown(statement)));
        }
        self.licence(document.licence.as_deref())
    }

    fn licence(&self, statement: Option<&str>) -> Option<(&'static str, String)> {
        let Some(statement) = statement.filter(|statement| !read::is_missing(statement)) else {
            let drops = self.settings.missing == Missing::Drop;
            return drops.then(|| ("licence.missing", "no licence is stated".to_owned()));
        };
        let Some(expression) = read(statement) else {
            return (self.settings.unknown == Missing::Drop).then(|| ("licence.unknown", shown(statement)));
        };
        let refused = expression
            .evaluate_with_failures(|requirement| self.allows(requirement))
            .err()?;
        let refused: Vec<String> = refused
            .iter()
            .map(|requirement| requirement.req.to_string())
            .collect();
        Some((
            "licence.denied",
            format!("{} of {}", refused.join(", "), shown(statement)),
        ))
    }

    /// Whether one licence of an expression is allowed: the closest entry decides, and of equally close ones `deny`.
    fn allows(&self, requirement: &LicenseReq) -> bool {
        let id = match &requirement.license {
            LicenseItem::Spdx { id, .. } => id.name.to_owned(),
            LicenseItem::Other(reference) => reference.to_string(),
        };
        let id = base(&id);
        let addition = requirement.addition.as_ref().map(|addition| match addition {
            AdditionItem::Spdx(exception) => exception.name.to_owned(),
            AdditionItem::Other(reference) => reference.to_string(),
        });
        let closest = |entries: &[Entry]| {
            entries
                .iter()
                .filter_map(|entry| entry.closeness(id, addition.as_deref()))
                .max()
        };
        match (closest(&self.allow), closest(&self.deny)) {
            (allow, Some(deny)) => allow.is_some_and(|allow| allow > deny),
            (None, None) => self.allow.is_empty(),
            (Some(_), None) => true,
        }
    }
}

impl Entry {
    /// How close the entry names a licence, if it does.
    fn closeness(&self, id: &str, addition: Option<&str>) -> Option<u8> {
        match self {
            Self::Group(members) => members
                .iter()
                .any(|member| groups::names(base(member), id))
                .then_some(0),
            Self::Family(family) => id.starts_with(family.as_str()).then_some(1),
            Self::Licence(licence) => (licence == id).then_some(2),
            Self::With(licence, exception) => {
                (licence == id && addition == Some(exception.as_str())).then_some(3)
            }
        }
    }
}

/// An id without `-only` or `-or-later`: the version is what matters, and whoever may choose a later one may choose this.
fn base(id: &str) -> &str {
    id.strip_suffix("-only")
        .or_else(|| id.strip_suffix("-or-later"))
        .unwrap_or(id)
}

fn entries(field: &'static str, list: &[String]) -> Result<Vec<Entry>, GateError> {
    let unknown = |entry: &String| GateError::Licence {
        field,
        entry: entry.clone(),
    };
    list.iter()
        .map(|entry| {
            if let Some(members) = groups::members(entry) {
                return Ok(Entry::Group(members));
            }
            if let Some(family) = entry.strip_suffix('*') {
                let known = spdx::identifiers::LICENSES
                    .iter()
                    .any(|licence| licence.name.starts_with(family));
                return if known {
                    Ok(Entry::Family(family.to_owned()))
                } else {
                    Err(unknown(entry))
                };
            }
            let expression = read(entry).ok_or_else(|| unknown(entry))?;
            let mut requirements = expression.requirements();
            let (Some(one), None) = (requirements.next(), requirements.next()) else {
                return Err(unknown(entry));
            };
            let licence = one.req.license.to_string();
            let licence = base(licence.trim_end_matches('+')).to_owned();
            Ok(match &one.req.addition {
                Some(addition) => Entry::With(licence, addition.to_string()),
                None => Entry::Licence(licence),
            })
        })
        .collect()
}

/// A record's statement, cut.
fn shown(statement: &str) -> String {
    statement
        .chars()
        .filter(|char| !char.is_control())
        .take(SHOWN)
        .collect()
}
