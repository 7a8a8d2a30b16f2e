//! What is left out whatever it says of itself.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::{Exclude, GateError};
use crate::Document;

/// Patterns, made ready.
pub(super) struct Patterns {
    sources: Globs,
    files: Globs,
    urls: Globs,
    domains: Globs,
}

/// Patterns of one field.
struct Globs {
    set: GlobSet,
    /// As they are written, by their number in the set.
    written: Vec<String>,
}

impl Globs {
    fn new(field: &'static str, patterns: &[String], folders: bool) -> Result<Self, GateError> {
        let mut builder = GlobSetBuilder::new();
        for pattern in patterns {
            let glob = GlobBuilder::new(pattern)
                .literal_separator(folders)
                .build()
                .map_err(|error| GateError::Pattern {
                    field,
                    pattern: pattern.clone(),
                    reason: error.kind().to_string(),
                })?;
            builder.add(glob);
        }
        let set = builder.build().map_err(|error| GateError::Pattern {
            field,
            pattern: patterns.join(", "),
            reason: error.kind().to_string(),
        })?;
        Ok(Self {
            set,
            written: patterns.to_vec(),
        })
    }

    fn find(&self, value: &str) -> Option<&str> {
        let first = self.set.matches(value).into_iter().min()?;
        self.written.get(first).map(String::as_str)
    }
}

impl Patterns {
    pub(super) fn new(exclude: &Exclude) -> Result<Self, GateError> {
        // A host's name excludes those below it, and letters' case makes no difference.
        let domains: Vec<String> = exclude
            .domains
            .iter()
            .map(|domain| domain.trim_matches('.').to_ascii_lowercase())
            .flat_map(|domain| [format!("*.{domain}"), domain])
            .collect();
        Ok(Self {
            sources: Globs::new("sources", &exclude.sources, false)?,
            files: Globs::new("files", &exclude.files, true)?,
            urls: Globs::new("urls", &exclude.urls, false)?,
            domains: Globs::new("domains", &domains, false)?,
        })
    }

    /// The field and the pattern that exclude the document.
    pub(super) fn find(&self, document: &Document) -> Option<(&'static str, &str)> {
        let url = document.url.as_deref();
        let host = url.and_then(host);
        let fields = [
            ("source", &self.sources, Some(&*document.origin.source)),
            ("file", &self.files, Some(&*document.origin.file)),
            ("url", &self.urls, url),
            ("domain", &self.domains, host.as_deref()),
        ];
        fields
            .into_iter()
            .find_map(|(field, globs, value)| Some((field, globs.find(value?)?)))
    }
}

/// The host of an address, in lower case, without user, port or the root's dot.
fn host(url: &str) -> Option<String> {
    let rest = url
        .split_once("://")
        .map_or(url, |(_, rest)| rest)
        .trim_start_matches('/');
    let authority = rest.split(['/', '?', '#', '\\']).next()?;
    let host = authority.rsplit('@').next()?;
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next()?,
        None => host.split(':').next()?,
    };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    (!host.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (url, expected) in [
            (
                "https://user:pass@WWW.Example.com:8080/a?b#c",
                Some("www.example.com"),
            ),
            ("//example.com", Some("example.com")),
            ("example.com/path", Some("example.com")),
            ("https://example.com./", Some("example.com")),
            ("http://[2001:db8::1]:80/", Some("2001:db8::1")),
            ("https:///", None),
            ("", None),
        ] {
            assert_eq!(host(url).as_deref(), expected, "{url}");
        }
    }
}
