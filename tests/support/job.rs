//! A corpus, a dataset and a spec small enough that a step takes milliseconds.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use tempfile::TempDir;

/// Tokens in the shared dataset's vocabulary.
pub(crate) const VOCABULARY: usize = 300;

/// A spec in the making. The defaults take 30 steps of 16 sequences of 32 tokens.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) name: &'static str,
    pub(crate) steps: u64,
    /// `checkpoint.every`
    pub(crate) every: u64,
    /// `checkpoint.keep`
    pub(crate) keep: u64,
    pub(crate) min_workers: u32,
    pub(crate) max_workers: u32,
    /// The line of `[data]`; by default the shared dataset.
    pub(crate) data: Option<String>,
    pub(crate) seed: u64,
    /// `elastic.lease_ms`
    pub(crate) lease_ms: u64,
    /// `elastic.spares`
    pub(crate) spares: u32,
    /// `optim.learning_rate`
    pub(crate) learning_rate: f64,
    /// Sections beyond these.
    pub(crate) more: String,
    /// `checkpoint.target`: a folder.
    pub(crate) target: Option<PathBuf>,
}

impl Default for Job {
    fn default() -> Self {
        Self {
            name: "small",
            steps: 30,
            every: 10,
            keep: 3,
            min_workers: 1,
            max_workers: 4,
            data: None,
            seed: 7,
            lease_ms: 5_000,
            spares: 0,
            learning_rate: 1e-2,
            more: String::new(),
            target: None,
        }
    }
}

impl Job {
    /// One that takes long enough to be disturbed on the way.
    pub(crate) fn long() -> Self {
        Self {
            name: "long",
            steps: 240,
            every: 40,
            keep: 0,
            ..Self::default()
        }
    }

    /// The spec, over the dataset in the folder `dataset` unless it names data itself.
    pub(crate) fn toml(&self, dataset: &Path) -> String {
        let Self {
            name,
            steps,
            every,
            keep,
            min_workers,
            max_workers,
            seed,
            lease_ms,
            spares,
            learning_rate,
            more,
            ..
        } = self;
        let target = self
            .target
            .as_ref()
            .map(|folder| format!("target = \"file://{}\"\n", folder.display()));
        let target = target.unwrap_or_default();
        let data = self
            .data
            .clone()
            .unwrap_or_else(|| format!("dataset = {:?}", dataset.display().to_string()));
        format!(
            "[job]\nname = \"{name}\"\n\
             [data]\n{data}\n\
             [model]\npreset = \"nano\"\nvocab_size = {VOCABULARY}\nhidden_size = 32\nintermediate_size = 48\n\
             num_hidden_layers = 1\nnum_attention_heads = 2\nnum_key_value_heads = 1\nmax_position_embeddings = 32\n\
             [train]\nsteps = {steps}\nseed = {seed}\n\
             [batch]\nmicrobatches = 8\nsequences = 2\n\
             [optim]\nlearning_rate = {learning_rate:?}\n\
             [checkpoint]\nevery = {every}\nkeep = {keep}\n{target}\
             [elastic]\nmin_workers = {min_workers}\nmax_workers = {max_workers}\n\
             lease_ms = {lease_ms}\nspares = {spares}\n\
             {more}\n"
        )
    }
}

/// The dataset that a test binary's tests share: built for the first of them, removed with the last.
pub(crate) fn dataset() -> Arc<TempDir> {
    static SHARED: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap();
    if let Some(there) = shared.upgrade() {
        return there;
    }
    let folder = tempfile::tempdir().unwrap();
    let corpus = folder.path().join("corpus");
    write_corpus(&corpus, 400, 300);
    let options = lockstep_data::BuildOptions::new(
        lockstep_data::Corpus::Folder(corpus),
        folder.path().join("dataset"),
        VOCABULARY,
    );
    lockstep_data::build(&options, &mut |_| (), &false.into()).unwrap();
    let folder = Arc::new(folder);
    *shared = Arc::downgrade(&folder);
    folder
}

/// Writes `documents` files of about `bytes` bytes of made-up text each, the same every time.
pub(crate) fn write_corpus(folder: &Path, documents: u64, bytes: usize) {
    fs::create_dir_all(folder).unwrap();
    for document in 0..documents {
        fs::write(folder.join(format!("{document:04}.txt")), text(document, bytes)).unwrap();
    }
}

/// About `bytes` bytes of words whose letters follow each other by a rule, so that there is something to learn.
pub(crate) fn text(seed: u64, bytes: usize) -> String {
    const WORDS: [&str; 12] = [
        "let", "sum", "value", "return", "match", "step", "worker", "state", "epoch", "lane", "reduce",
        "commit",
    ];
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut draw = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut text = format!("// document {seed}\n");
    let mut word = draw(WORDS.len());
    while text.len() < bytes {
        text.push_str(WORDS[word]);
        text.push_str([" ", " ", "(", ") ", " = ", ";\n"][draw(6)]);
        // Two words follow each one.
        word = (word * 5 + 3 + draw(2)) % WORDS.len();
    }
    text
}
