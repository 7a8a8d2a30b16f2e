//! Which licences, opt-outs and sources a document may have.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::opt_out::Directive;

/// What happens to a document whose licence is not there, or cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// It stays.
    Keep,
    /// It is dropped.
    Drop,
}

/// The table `licence` of a spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Licences that are allowed: SPDX ids, with an exception or not, families such as `BSD-*`, or groups such as
    /// `permissive`. Default: none, which allows all that `deny` does not name.
    pub allow: Vec<String>,
    /// Licences that are not. Where both lists name one, the closer name decides: `GPL-2.0 WITH Classpath-exception-2.0`
    /// before `GPL-2.0`, that before `GPL-*`, that before `copyleft`; equally close, `deny`. Default: `proprietary`.
    pub deny: Vec<String>,
    /// What happens where no licence is stated. Default: `keep`.
    pub missing: Missing,
    /// What happens where something is stated that is no licence known to SPDX. Default: `keep`.
    pub unknown: Missing,
    /// Opt-outs that drop a document. Default: all that speak of machine learning or mining; not `noindex` and
    /// `noarchive`, which speak of search.
    pub opt_outs: Vec<Directive>,
    /// What is left out whatever it says.
    pub exclude: Exclude,
}

/// The table `licence.exclude`: what is left out whatever its licence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Exclude {
    /// Sources by name, as globs.
    pub sources: Vec<String>,
    /// Files by their path inside the source, as globs in which `*` stays inside a folder.
    pub files: Vec<String>,
    /// Addresses, as globs.
    pub urls: Vec<String>,
    /// Hosts of addresses, as globs; `example.com` also excludes what is below it.
    pub domains: Vec<String>,
    /// Files with digests of texts in them, one of 64 hexadecimal digits a line.
    pub digests: Vec<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            deny: vec!["proprietary".to_owned()],
            missing: Missing::Keep,
            unknown: Missing::Keep,
            opt_outs: Directive::LEARNING.to_vec(),
            exclude: Exclude::default(),
        }
    }
}
