//! `validate` and `presets`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use lockstep_engine::spec::{self, Spec};
use lockstep_trainer::memory;

use crate::failure::Failure;
use crate::output::{Format, count, line, table};

/// Check a spec and show it with every default.
///
/// All problems are told at once, each with its line, field, value and bound.
#[derive(Debug, clap::Args)]
pub(crate) struct ValidateArgs {
    /// The spec, a TOML file.
    spec: PathBuf,
}

/// Reads and checks a spec file.
pub(crate) fn read(path: &Path) -> anyhow::Result<Spec> {
    let source = std::fs::read_to_string(path)
        .map_err(Failure::storage(format!("read the spec {}", path.display())))?;
    Spec::parse(&source).with_context(|| format!("{} has problems", path.display()))
}

pub(crate) fn validate(args: &ValidateArgs, format: Format) -> anyhow::Result<()> {
    let spec = read(&args.spec)?;
    let text = spec.to_toml()?;
    format.print(&spec, |spec| {
        let tokens = spec.samples_per_step() * spec.batch.sequence_length as u64;
        format!(
            "# {} is valid: {} parameters, {} tokens a step, {} in all; a rank takes about {} MiB of memory\n{text}",
            args.spec.display(),
            count(spec.model.parameters() as u64),
            count(tokens),
            count(tokens.saturating_mul(spec.train.steps)),
            memory::of_rank(spec) >> 20
        )
    })
}

/// Takes the name of a preset, of those that there are.
pub(crate) fn preset() -> clap::builder::PossibleValuesParser {
    spec::presets()
        .iter()
        .map(|preset| preset.name)
        .collect::<Vec<_>>()
        .into()
}

pub(crate) fn presets(format: Format) -> anyhow::Result<()> {
    let presets = spec::presets();
    if format == Format::Json {
        let shapes: std::collections::BTreeMap<_, _> = presets.iter().map(|p| (p.name, &p.model)).collect();
        return format.print(&shapes, |_| String::new());
    }
    let rows = presets.iter().map(|preset| {
        let m = &preset.model;
        [
            preset.name.to_owned(),
            count(m.parameters() as u64),
            m.vocab_size.to_string(),
            m.hidden_size.to_string(),
            m.num_hidden_layers.to_string(),
            format!("{}/{}", m.num_attention_heads, m.num_key_value_heads),
            m.intermediate_size.to_string(),
            m.max_position_embeddings.to_string(),
            preset.about.to_owned(),
        ]
    });
    let header = [
        "name",
        "parameters",
        "vocab",
        "hidden",
        "layers",
        "heads/kv",
        "ffn",
        "length",
        "for",
    ];
    line(&table(header, rows))
}
