//! A dataset and a spec small enough that a step takes milliseconds, and the bits that they must give.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::Error;

/// Tokens in the dataset's vocabulary.
const VOCABULARY: usize = 300;

/// A spec in the making.
#[derive(Clone, Debug)]
pub struct Job {
    /// `job.name`
    pub name: &'static str,
    /// `train.steps`
    pub steps: u64,
    /// `checkpoint.every`
    pub every: u64,
    /// `elastic.max_workers`
    pub max_workers: u32,
    /// `elastic.spares`
    pub spares: u32,
    /// `batch.microbatches`
    pub microbatches: u32,
    /// `batch.lanes`
    pub lanes: u32,
    /// `elastic.lease_ms`
    pub lease_ms: u64,
    /// `[model]` by its lines, over the dataset's vocabulary.
    pub model: &'static str,
    /// Tokens of a sequence.
    pub length: usize,
    /// `[collective]` by its lines.
    pub collective: &'static str,
}

/// Some thirty thousand parameters.
pub const MINUTE: &str = "preset = \"nano\"\nhidden_size = 32\nintermediate_size = 48\nnum_hidden_layers = 1\n\
                          num_attention_heads = 2\nnum_key_value_heads = 1\nmax_position_embeddings = 32";

impl Job {
    /// The spec, over a built dataset.
    #[must_use]
    pub fn toml(&self, dataset: &Path) -> String {
        let Self {
            name,
            steps,
            every,
            max_workers,
            spares,
            microbatches,
            lanes,
            lease_ms,
            model,
            length,
            collective,
        } = self;
        let dataset = dataset.display().to_string();
        format!(
            "[job]\nname = \"{name}\"\n[data]\ndataset = {dataset:?}\n[model]\nvocab_size = {VOCABULARY}\n{model}\n\
             [train]\nsteps = {steps}\nseed = 7\n\
             [batch]\nmicrobatches = {microbatches}\nlanes = {lanes}\nsequences = 2\nsequence_length = {length}\n[optim]\nlearning_rate = 1e-2\n\
             [checkpoint]\nevery = {every}\nkeep = 3\n\
             [elastic]\nmin_workers = 1\nmax_workers = {max_workers}\nspares = {spares}\nlease_ms = {lease_ms}\n\
             [collective]\n{collective}\n"
        )
    }
}

/// A folder with a dataset of made-up text; removed when dropped, unless it is to be kept.
#[derive(Debug)]
pub struct Data {
    folder: TempDir,
}

impl Data {
    /// Builds it: the same bytes every time.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn build() -> Result<Self, Error> {
        let folder = tempfile::Builder::new().prefix("lockstep-drill-").tempdir();
        let folder = folder.map_err(Error::system("make a temporary folder"))?;
        let corpus = folder.path().join("corpus");
        let failed = || Error::system(format!("write {}", corpus.display()));
        fs::create_dir_all(&corpus).map_err(failed())?;
        for document in 0..400 {
            fs::write(corpus.join(format!("{document:04}.txt")), text(document, 300)).map_err(failed())?;
        }
        let dataset = folder.path().join("dataset");
        let options =
            lockstep_data::BuildOptions::new(lockstep_data::Corpus::Folder(corpus), dataset, VOCABULARY);
        lockstep_data::build(&options, &mut |_| (), &false.into())?;
        Ok(Self { folder })
    }

    /// Leaves the folder behind, with the logs of what went wrong in it; says where it is.
    pub(crate) fn keep(&mut self) -> &Path {
        self.folder.disable_cleanup(true);
        self.folder.path()
    }

    /// The folder in which there is room for runs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The dataset.
    #[must_use]
    pub fn dataset(&self) -> PathBuf {
        self.folder.path().join("dataset")
    }
}

/// About `bytes` bytes of words that follow each other by a rule, so that there is something to learn.
fn text(seed: u64, bytes: usize) -> String {
    const WORDS: [&str; 12] = [
        "let", "sum", "value", "return", "match", "step", "worker", "state", "epoch", "lane", "reduce",
        "commit",
    ];
    let mut draw = crate::draw::Draw::new(seed);
    let mut text = format!("// document {seed}\n");
    let mut word = draw.below(WORDS.len());
    while text.len() < bytes {
        let after = [" ", " ", "(", ") ", " = ", ";\n"][draw.below(6)];
        write!(text, "{}{after}", WORDS[word]).ok();
        // Two words follow each one.
        word = (word * 5 + 3 + draw.below(2)) % WORDS.len();
    }
    text
}
