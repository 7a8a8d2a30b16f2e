//! Times this crate's tokenizer against the `tokenizers` crate's, on the same text and one thread, by turns, and
//! checks that both give the same ids. Time is that of the processor, which a busy machine does not falsify.
//!
//!     cargo run --release -p lockstep-data --example tokenizer_speed -- [--tokenizer FILE] [--vocab N] [--rounds N] [--mb N] [EXTENSION:]PATH…
//!
//! Each path is a text: a file, or the files of a folder and those in it, of one extension or all.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Duration;

use lockstep_data::tokenizer::{Cuts, END_OF_TEXT, Engine, Tokenizer};
use rustix::time::{ClockId, clock_gettime};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, TokenizerImpl};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

struct Arguments {
    tokenizer: Option<String>,
    vocab_size: usize,
    rounds: usize,
    bytes: usize,
    texts: Vec<String>,
}

fn main() -> Outcome<()> {
    let arguments = arguments()?;
    // The crate would use all cores for training.
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global()?;
    for name in &arguments.texts {
        let texts = read(name, arguments.bytes)?;
        let bytes: usize = texts.iter().map(String::len).sum();
        println!("{name}: {} documents, {:.1} MB", texts.len(), megabytes(bytes));
        let json = match &arguments.tokenizer {
            Some(file) => fs::read_to_string(file)?,
            None => training(&texts, &arguments)?,
        };
        encoding(&texts, &json, arguments.rounds)?;
    }
    Ok(())
}

fn arguments() -> Outcome<Arguments> {
    let mut found = Arguments {
        tokenizer: None,
        vocab_size: 8192,
        rounds: 5,
        bytes: 8_000_000,
        texts: Vec::new(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--tokenizer" => found.tokenizer = Some(value()?),
            "--vocab" => found.vocab_size = value()?.parse()?,
            "--rounds" => found.rounds = value()?.parse()?,
            "--mb" => found.bytes = value()?.parse::<usize>()? * 1_000_000,
            _ => found.texts.push(argument),
        }
    }
    Ok(found)
}

/// The first `limit` bytes of the texts that `name` names, in the order of their paths.
fn read(name: &str, limit: usize) -> Outcome<Vec<String>> {
    let (extension, path) = match name.split_once(':') {
        Some((extension, path)) => (Some(extension), path),
        None => (None, name),
    };
    let mut texts = Vec::new();
    collect(Path::new(path), extension, &mut { limit }, &mut texts)?;
    Ok(texts)
}

fn collect(path: &Path, extension: Option<&str>, left: &mut usize, texts: &mut Vec<String>) -> Outcome<()> {
    if path.is_dir() {
        let mut entries = fs::read_dir(path)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Outcome<Vec<_>>>()?;
        entries.sort();
        for entry in entries {
            collect(&entry, extension, left, texts)?;
        }
    } else if extension.is_none_or(|wanted| path.extension().is_some_and(|found| found == wanted))
        && let Ok(text) = fs::read_to_string(path)
        && text.len() <= *left
    {
        *left -= text.len();
        texts.push(text);
    }
    Ok(())
}

/// Trains with both and returns the tokenizer, which is one.
fn training(texts: &[String], arguments: &Arguments) -> Outcome<String> {
    let texts = &parts(texts);
    let bytes: usize = texts.iter().map(String::len).sum();
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    let mut json = String::new();
    for _ in 0..arguments.rounds.min(3) {
        let (time, tokenizer) = timed(|| Tokenizer::train(texts, arguments.vocab_size));
        ours.push(time);
        json = tokenizer?.to_json()?;
        let (time, tokenizer) = timed(|| trained_by_crate(texts, arguments.vocab_size));
        theirs.push(time);
        assert!(json == tokenizer?, "both learn the same merges");
    }
    report("training", bytes, &ours, &theirs);
    Ok(json)
}

/// Texts of at most 100 KB, as longer ones are cut in training, here only.
fn parts(texts: &[String]) -> Vec<String> {
    let mut parts = Vec::new();
    for mut rest in texts.iter().map(String::as_str) {
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.floor_char_boundary(100_000));
            parts.push(part.to_owned());
            rest = after;
        }
    }
    parts
}

fn trained_by_crate(texts: &[String], vocab_size: usize) -> Outcome<String> {
    let byte_level = ByteLevel::new(false, false, true);
    let mut tokenizer: TokenizerImpl<BPE, NormalizerWrapper, ByteLevel, ByteLevel, ByteLevel> =
        TokenizerImpl::new(BPE::default());
    tokenizer
        .with_pre_tokenizer(Some(byte_level))
        .with_decoder(Some(byte_level));
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
        .build();
    tokenizer.train(&mut trainer, texts.iter())?;
    tokenizer.to_string(true)
}

fn encoding(texts: &[String], json: &str, rounds: usize) -> Outcome<()> {
    let tokenizer = Tokenizer::from_hugging_face(json)?.with_cuts(Cuts::BetweenWords);
    let mut inner: tokenizers::Tokenizer = json.parse()?;
    inner.set_encode_special_tokens(true);
    if let Engine::Crate { because } = tokenizer.engine() {
        println!("  not by our encoder: {because}");
    }
    let bytes: usize = texts.iter().map(String::len).sum();
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    let mut tokens = 0;
    for _ in 0..rounds {
        let (time, found) = timed(|| {
            texts
                .iter()
                .map(|text| tokenizer.encode(text))
                .collect::<Result<Vec<_>, _>>()
        });
        ours.push(time);
        let found = found?;
        let (time, wanted) = timed(|| {
            texts
                .iter()
                .map(|text| Ok(inner.encode_fast(text.as_str(), false)?.get_ids().to_vec()))
                .collect::<Outcome<Vec<_>>>()
        });
        theirs.push(time);
        assert!(found == wanted?, "the ids are the same");
        tokens = found.iter().map(Vec::len).sum();
    }
    report("encoding", bytes, &ours, &theirs);
    println!(
        "  {:.2} bytes a token, ids identical",
        bytes as f64 / tokens as f64
    );
    Ok(())
}

fn report(what: &str, bytes: usize, ours: &[Duration], theirs: &[Duration]) {
    let rate = |time: &Duration| megabytes(bytes) / time.as_secs_f64();
    let rates = |times: &[Duration]| median(times.iter().map(rate).collect());
    let first = |times: &[Duration]| times.first().map_or(f64::NAN, rate);
    let ratios = ours.iter().zip(theirs);
    let ratio = median(
        ratios
            .map(|(our, their)| their.as_secs_f64() / our.as_secs_f64())
            .collect(),
    );
    println!(
        "  {what}: ours {:.1} MB/s, theirs {:.1} MB/s, ratio {ratio:.1}, medians of {}; the first time {:.1} and {:.1}",
        rates(ours),
        rates(theirs),
        ours.len(),
        first(ours),
        first(theirs),
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = processor_time();
    let result = work();
    (processor_time() - start, result)
}

/// Processor time of all threads of this process.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
