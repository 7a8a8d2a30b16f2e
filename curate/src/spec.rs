//! The spec of a dataset: which sources, what is done to them, and what comes out.
//!
//! One TOML file. Every table but `[[source]]` may be left out. Tables are those of the stages, which say themselves
//! what is in them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use lockstep_data::Digest;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::CurateError;
use crate::{bias, decontaminate, dedup, language, licence, normalise, pii, quality, read};

/// A stage, in the order in which they follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Files become documents.
    Read,
    /// Unicode normal form, control characters, broken encodings.
    Normalise,
    /// The language is identified, and filtered by.
    Language,
    /// Licences, opt-outs and exclusion lists.
    Licence,
    /// Quality filters.
    Quality,
    /// Overlap with evaluation sets.
    Decontaminate,
    /// Private data.
    Pii,
    /// Duplicates.
    Dedup,
    /// Who is spoken of, and whom filters drop.
    Bias,
    /// Tokens, in shards.
    Tokenize,
}

impl Stage {
    /// All, in order.
    pub const ALL: [Self; 10] = [
        Self::Read,
        Self::Normalise,
        Self::Language,
        Self::Licence,
        Self::Quality,
        Self::Decontaminate,
        Self::Pii,
        Self::Dedup,
        Self::Bias,
        Self::Tokenize,
    ];

    /// As it is written in a spec.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Normalise => "normalise",
            Self::Language => "language",
            Self::Licence => "licence",
            Self::Quality => "quality",
            Self::Decontaminate => "decontaminate",
            Self::Pii => "pii",
            Self::Dedup => "dedup",
            Self::Bias => "bias",
            Self::Tokenize => "tokenize",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The spec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spec {
    /// The dataset's name, in reports.
    pub name: String,
    /// The stages that are run, in whatever order they are given; all of them. `read` always is.
    pub stages: Vec<Stage>,
    /// Where text comes from. At least one.
    #[serde(rename = "source")]
    pub sources: Vec<read::SourceSettings>,
    /// What is mended in a text.
    pub normalise: normalise::Settings,
    /// Which languages are kept.
    pub language: language::Settings,
    /// Which licences are kept, and what is excluded.
    pub licence: licence::Settings,
    /// Which quality is kept.
    pub quality: quality::Settings,
    /// Which evaluation sets must not be in it.
    pub decontaminate: decontaminate::Settings,
    /// What is done with private data.
    pub pii: pii::Settings,
    /// What counts as seen before.
    pub dedup: DedupSettings,
    /// Who is looked for.
    pub bias: bias::Settings,
    /// The tokenizer.
    pub tokenizer: TokenizerSettings,
    /// How sources and languages are weighed.
    pub mix: MixSettings,
    /// What is written.
    pub output: OutputSettings,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            name: "dataset".to_owned(),
            stages: Stage::ALL.to_vec(),
            sources: Vec::new(),
            normalise: Default::default(),
            language: Default::default(),
            licence: Default::default(),
            quality: Default::default(),
            decontaminate: Default::default(),
            pii: Default::default(),
            dedup: Default::default(),
            bias: Default::default(),
            tokenizer: Default::default(),
            mix: Default::default(),
            output: Default::default(),
        }
    }
}

/// What counts as seen before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DedupSettings {
    /// Documents with the same text. True.
    pub exact: bool,
    /// Paragraphs and long lines seen before. Off unless the table is there.
    pub passages: Option<dedup::passages::PassageSettings>,
    /// Nearly the same documents; `false` turns it off.
    pub near: Near,
}

/// A table of settings, or `false`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Near {
    /// On with these settings.
    On(dedup::NearSettings),
    /// `false`; `true` is the defaults.
    Switch(bool),
}

impl Near {
    /// The settings, if it is on.
    #[must_use]
    pub fn settings(&self) -> Option<dedup::NearSettings> {
        match self {
            Self::On(settings) => Some(settings.clone()),
            Self::Switch(true) => Some(Default::default()),
            Self::Switch(false) => None,
        }
    }
}

/// By hand, as serde tells of an untagged enum only that none of its variants fits.
impl<'de> Deserialize<'de> for Near {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SettingsOrSwitch;

        impl<'de> Visitor<'de> for SettingsOrSwitch {
            type Value = Near;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of settings, true or false")
            }

            fn visit_bool<E>(self, is_on: bool) -> Result<Near, E> {
                Ok(Near::Switch(is_on))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Near, A::Error> {
                Deserialize::deserialize(MapAccessDeserializer::new(map)).map(Near::On)
            }
        }

        deserializer.deserialize_any(SettingsOrSwitch)
    }
}

impl Default for DedupSettings {
    fn default() -> Self {
        Self {
            exact: true,
            passages: None,
            near: Near::Switch(true),
        }
    }
}

/// The tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenizerSettings {
    /// A `tokenizer.json` that is used as it is; otherwise one is trained.
    pub path: Option<PathBuf>,
    /// Its token that ends documents. `<|endoftext|>`, which one that is trained has as token 0.
    pub end_of_text: String,
    /// Tokens in the vocabulary of one that is trained. 8192.
    pub vocab_size: usize,
    /// It learns from a uniform sample of about so many bytes. 8,000,000.
    pub sample_bytes: u64,
}

impl Default for TokenizerSettings {
    fn default() -> Self {
        Self {
            path: None,
            end_of_text: lockstep_data::tokenizer::END_OF_TEXT.to_owned(),
            vocab_size: 8192,
            sample_bytes: 8_000_000,
        }
    }
}

/// How sources and languages are weighed. Without weights and temperature, each document is used once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MixSettings {
    /// What is weighed: `source` or `language`.
    pub by: MixBy,
    /// Shares by name of source, or by code of language (ISO 639-1 or 639-3; `code` is source code, `unknown` what no language
    /// was found of); they need not add up to anything. What has none is not used.
    pub weights: BTreeMap<String, f64>,
    /// Shares follow (tokens)^(1 / temperature): 1 leaves them as they are, more evens them out. Not together with `weights`.
    pub temperature: f64,
    /// Nothing is used more often than this in one pass over the dataset. 4.
    pub max_epochs: f64,
}

/// What a mix weighs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MixBy {
    /// Sources of the spec.
    #[default]
    Source,
    /// Identified languages.
    Language,
}

impl Default for MixSettings {
    fn default() -> Self {
        Self {
            by: MixBy::Source,
            weights: BTreeMap::new(),
            temperature: 1.0,
            max_epochs: 4.0,
        }
    }
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutputSettings {
    /// Fraction of documents held out for validation. 0.01.
    pub validation_fraction: f64,
    /// A shard ends with the document that passes this size. 512,000,000.
    pub shard_bytes: u64,
}

impl Default for OutputSettings {
    fn default() -> Self {
        Self {
            validation_fraction: 0.01,
            shard_bytes: 512_000_000,
        }
    }
}

impl Spec {
    /// Reads a spec. Paths in it are relative to where the command runs.
    ///
    /// # Errors
    /// [`CurateError::Spec`] with line, field, value and bound.
    pub fn read(path: &Path) -> Result<Self, CurateError> {
        let text = fs::read_to_string(path).map_err(|error| CurateError::unreadable(path, &error))?;
        Self::parse(&text).map_err(|problem| CurateError::Spec {
            path: Some(path.to_owned()),
            problem,
        })
    }

    /// Reads a spec from text.
    ///
    /// # Errors
    /// What is wrong, with line, field, value and bound.
    pub fn parse(text: &str) -> Result<Self, String> {
        let spec: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        spec.check().map_err(|problem| match line_of(text, &problem) {
            Some(line) => format!("line {line}: {problem}"),
            None => problem,
        })?;
        Ok(spec)
    }

    /// The spec with every default, as it could be written.
    ///
    /// # Errors
    /// None that is known of.
    pub fn to_toml(&self) -> Result<String, CurateError> {
        toml::to_string(self).map_err(|error| CurateError::Spec {
            path: None,
            problem: error.to_string(),
        })
    }

    /// Digests of the files that the spec names beside its sources and its tokenizer: they decide what is kept.
    pub(crate) fn files(&self) -> Result<Vec<(PathBuf, String)>, CurateError> {
        let sets = self.decontaminate.sets.values();
        let lists = self.licence.exclude.digests.iter();
        let lexicons = self.bias.lexicons.iter();
        let files = sets.chain(lists).chain(lexicons);
        files.map(|path| Ok((path.clone(), file_digest(path)?))).collect()
    }

    /// The digest of the tokenizer that is brought, if one is.
    pub(crate) fn tokenizer_file(&self) -> Result<Option<String>, CurateError> {
        let path = self.tokenizer.path.as_deref();
        path.filter(|_| self.runs(Stage::Tokenize))
            .map(file_digest)
            .transpose()
    }

    /// The spec with absolute paths: those in it are taken from the folder `base`. Addresses stay as they are.
    #[must_use]
    pub fn rooted(mut self, base: &Path) -> Self {
        let root = |path: &mut PathBuf| *path = base.join(&path);
        for source in &mut self.sources {
            source.list.iter_mut().for_each(root);
            if source.list.is_none() && !source.path.contains("://") {
                source.path = base.join(&source.path).to_string_lossy().into_owned();
            }
        }
        self.decontaminate.sets.values_mut().for_each(root);
        self.licence.exclude.digests.iter_mut().for_each(root);
        self.bias.lexicons.iter_mut().for_each(root);
        self.tokenizer.path.iter_mut().for_each(root);
        self
    }

    /// Whether a stage is run.
    #[must_use]
    pub fn runs(&self, stage: Stage) -> bool {
        stage == Stage::Read || self.stages.contains(&stage)
    }

    /// The stages that are run, in order.
    #[must_use]
    pub fn in_order(&self) -> Vec<Stage> {
        Stage::ALL.into_iter().filter(|&stage| self.runs(stage)).collect()
    }

    /// Whether all values are within their bounds; not whether there is a source, as a spec may be of settings alone.
    ///
    /// # Errors
    /// The first that is not: field, value and bound.
    pub fn check(&self) -> Result<(), String> {
        let mut names: Vec<&str> = self.sources.iter().map(|source| source.name.as_ref()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!(
                "source.name = {:?}: there are two of this name",
                twice[0]
            ));
        }
        let of = |table: &'static str| {
            move |problem: String| {
                let named = problem.starts_with(table);
                if named {
                    problem
                } else {
                    format!("{table}.{problem}")
                }
            }
        };
        for source in &self.sources {
            source.check().map_err(of("source"))?;
        }
        self.normalise.check().map_err(of("normalise"))?;
        self.language.check().map_err(of("language"))?;
        licence::Gate::new(&self.licence).map_err(|error| error.to_string())?;
        self.quality.check().map_err(of("quality"))?;
        self.decontaminate.check().map_err(of("decontaminate"))?;
        self.pii.check().map_err(of("pii"))?;
        self.bias.check().map_err(of("bias"))?;
        if let Some(passages) = &self.dedup.passages {
            passages.check().map_err(of("dedup.passages"))?;
        }
        if let Some(near) = self.dedup.near.settings() {
            near.check().map_err(of("dedup.near"))?;
        }
        self.tokenizer.check().map_err(of("tokenizer"))?;
        self.mix.check(&names).map_err(of("mix"))?;
        self.output.check().map_err(of("output"))
    }
}

fn file_digest(path: &Path) -> Result<String, CurateError> {
    let content = fs::read(path).map_err(|error| CurateError::unreadable(path, &error))?;
    Ok(Digest::of(&content).to_string())
}

impl TokenizerSettings {
    fn check(&self) -> Result<(), String> {
        use lockstep_data::tokenizer::{MAX_VOCAB_SIZE, MIN_VOCAB_SIZE};
        if !(MIN_VOCAB_SIZE..=MAX_VOCAB_SIZE).contains(&self.vocab_size) {
            let found = self.vocab_size;
            return Err(format!(
                "vocab_size = {found}: must be from {MIN_VOCAB_SIZE} to {MAX_VOCAB_SIZE}"
            ));
        }
        if self.path.is_none() && self.end_of_text != lockstep_data::tokenizer::END_OF_TEXT {
            return Err(format!(
                "end_of_text = {:?}: is for a tokenizer that is brought; give its `path` as well",
                self.end_of_text
            ));
        }
        if self.sample_bytes == 0 {
            return Err("sample_bytes = 0: must be at least 1".to_owned());
        }
        Ok(())
    }
}

impl MixSettings {
    /// Whether documents are used other than once.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.weights.is_empty() || self.temperature != 1.0
    }

    /// The weights by what counts call sources and languages, if there are any.
    pub(crate) fn by_component(&self) -> Option<BTreeMap<&str, f64>> {
        let weights = self.weights.iter();
        let named = weights.map(|(name, weight)| (self.component(name).unwrap_or(name), *weight));
        (!self.weights.is_empty()).then(|| named.collect())
    }

    /// What counts call the source or language of this name.
    fn component<'n>(&self, name: &'n str) -> Result<&'n str, language::UnknownLanguage> {
        match (self.by, name) {
            (MixBy::Source, _) | (MixBy::Language, "code" | "unknown") => Ok(name),
            (MixBy::Language, _) => language::code(name),
        }
    }

    fn check(&self, sources: &[&str]) -> Result<(), String> {
        let Self {
            by,
            weights,
            temperature,
            max_epochs,
        } = self;
        let mut components = BTreeMap::new();
        if !(*temperature >= 1.0 && temperature.is_finite()) {
            return Err(format!("temperature = {temperature}: must be at least 1"));
        }
        if !(*max_epochs >= 1.0 && *max_epochs <= 1000.0) {
            return Err(format!("max_epochs = {max_epochs}: must be from 1 to 1000"));
        }
        if *temperature != 1.0 && !weights.is_empty() {
            return Err(format!(
                "temperature = {temperature}: either this or `weights`, not both"
            ));
        }
        for (name, weight) in weights {
            if !(*weight >= 0.0 && weight.is_finite()) {
                return Err(format!("weights.{name} = {weight}: must be at least 0"));
            }
            if *by == MixBy::Source && !sources.contains(&name.as_str()) {
                return Err(format!(
                    "weights.{name}: no source has this name; they are {}",
                    sources.join(", ")
                ));
            }
            let component = self.component(name);
            let component = component.map_err(|error| format!("weights.{name}: {error}"))?;
            if let Some(other) = components.insert(component, name) {
                return Err(format!(
                    "weights.{name}: is the same language as `{other}`; one of them is enough"
                ));
            }
        }
        if !weights.is_empty() && weights.values().all(|weight| *weight == 0.0) {
            return Err("weights: all are 0; at least one must be more".to_owned());
        }
        Ok(())
    }
}

impl OutputSettings {
    fn check(&self) -> Result<(), String> {
        let Self {
            validation_fraction,
            shard_bytes,
        } = *self;
        if !(validation_fraction > 0.0 && validation_fraction < 1.0) {
            return Err(format!(
                "validation_fraction = {validation_fraction}: must be above 0 and below 1"
            ));
        }
        if shard_bytes == 0 {
            return Err("shard_bytes = 0: must be at least 1".to_owned());
        }
        Ok(())
    }
}

/// The line of the field that a problem begins with, if it stands in the text: the last part of its path, below the
/// table of the rest.
fn line_of(text: &str, problem: &str) -> Option<usize> {
    let path = problem.split([' ', ':']).next()?;
    let (table, field) = path.rsplit_once('.').unwrap_or(("", path));
    let mut inside = table.is_empty();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            inside = header.trim_matches(['[', ']', ' ']) == table;
        } else if inside && line.split('=').next().map(str::trim) == Some(field) {
            return Some(index + 1);
        }
    }
    None
}
