//! Addresses of a list, and what came of fetching them.

#[cfg(feature = "remote")]
mod client;
#[cfg(not(feature = "remote"))]
#[path = "none.rs"]
mod client;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub(crate) use client::Client;

/// What came of an address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// All of it was fetched.
    Whole(Whole),
    /// It was not.
    Failed(Failure),
}

/// What an address gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Whole {
    /// Its size.
    pub(crate) bytes: u64,
    /// BLAKE3 of it.
    pub(crate) digest: String,
    /// As the service named this version of it.
    pub(crate) etag: Option<String>,
    /// What the service said that it is.
    pub(crate) content_type: Option<String>,
    /// What its headers state of robots and of text and data mining.
    pub(crate) opt_outs: Vec<String>,
}

/// Why an address gave nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// As in the table of [`read`](crate::read).
    pub(crate) reason: Cow<'static, str>,
    pub(crate) detail: String,
    /// Whether it may pass by itself: the service did not answer, or said that it cannot now.
    pub(crate) is_passing: bool,
}

/// The addresses of a list, sorted, each once.
///
/// # Errors
/// File, line, what stands there and what to do about it.
pub(crate) fn addresses(list: &Path) -> Result<Vec<String>, String> {
    let text = fs::read_to_string(list)
        .map_err(|error| format!("source.list = {list:?}: cannot be read: {error}"))?;
    let mut addresses = BTreeSet::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let address = client::parse(line)
            .map_err(|problem| format!("{} line {}: {problem}", list.display(), index + 1))?;
        addresses.insert(address);
    }
    if addresses.is_empty() {
        return Err(format!(
            "source.list = {list:?}: holds no address; write one a line"
        ));
    }
    Ok(addresses.into_iter().collect())
}

#[cfg(test)]
#[cfg(feature = "remote")]
mod tests {
    use super::*;

    fn listed(text: &str) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("urls.txt");
        fs::write(&list, text).unwrap();
        addresses(&list)
    }

    #[test]
    fn a_list_has_an_address_a_line() {
        let text = "# books\nhttps://b.org/x#top\n\n http://A.org \nhttps://b.org/x\n";
        assert_eq!(listed(text).unwrap(), ["http://a.org/", "https://b.org/x"]);
    }

    #[test]
    fn what_is_no_address_is_told_with_its_line() {
        for (text, words) in [
            (
                "http://a.org\nftp://a.org/x",
                "urls.txt line 2: \"ftp://a.org/x\": must begin with http",
            ),
            ("a.org/x", "line 1"),
            ("http://", "line 1"),
            ("https://me:secret@a.org/", "user or password"),
            ("# none\n", "holds no address"),
        ] {
            let error = listed(text).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert!(!listed("https://me:secret@a.org/").unwrap_err().contains("secret"));
    }
}
