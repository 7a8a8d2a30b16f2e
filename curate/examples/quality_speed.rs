//! How fast documents are scored, on one thread.
//!
//! `cargo run --release -p lockstep-curate --example quality_speed -- [FILE.jsonl|FILE.txt|FOLDER] [documents_of_bytes]`
//!
//! Without a file: documents of words drawn by Zipf's law from a seed. Text is cut at line breaks into documents of about
//! 3,500 bytes; of JSONL each line's `text` is a document.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use lockstep_curate::quality::{Rules, Settings};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let source = arguments.next();
    let size = arguments.next().map_or(Ok(3500), |size| size.parse())?;
    let mut documents = Vec::new();
    match &source {
        Some(path) => read(Path::new(path), size, &mut documents)?,
        None => documents = zipf(20_000, size),
    }
    let bytes: usize = documents.iter().map(String::len).sum();
    let rules = Rules::new(&Settings::default())?;
    let mut scorer = rules.scorer();
    let mut kept = 0;
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        kept = 0;
        for text in &documents {
            let scores = scorer.score(text, Some("eng"));
            kept += usize::from(rules.verdict(&scores, Some("eng"), false).is_none());
        }
        best = best.min(start.elapsed());
    }
    let megabytes = bytes as f64 / 1e6;
    println!(
        "{}: {} documents, {megabytes:.1} MB, {kept} kept: {:.1} MB/s on one thread, best of 5",
        source.as_deref().unwrap_or("Zipf"),
        documents.len(),
        megabytes / best.as_secs_f64()
    );
    Ok(())
}

/// Adds what a file or a folder's Markdown holds.
fn read(path: &Path, size: usize, documents: &mut Vec<String>) -> Result<(), Box<dyn Error>> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let is_text = entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "md" || extension == "txt");
            if entry.file_type()?.is_dir() || is_text {
                read(&entry.path(), size, documents)?;
            }
        }
        return Ok(());
    }
    let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
    if path.extension().is_some_and(|extension| extension == "jsonl") {
        for line in text.lines() {
            let record: serde_json::Value = serde_json::from_str(line)?;
            documents.extend(record["text"].as_str().map(str::to_owned));
        }
        return Ok(());
    }
    let mut document = String::new();
    for line in text.split_inclusive('\n') {
        document.push_str(line);
        if document.len() >= size {
            documents.push(std::mem::take(&mut document));
        }
    }
    documents.extend(Some(document).filter(|rest| !rest.is_empty()));
    Ok(())
}

/// Sentences, lines and paragraphs of words of 2 to 9 letters, the n-th most frequent with a probability of 1/n.
fn zipf(documents: usize, size: usize) -> Vec<String> {
    let mut state = 5_u64;
    let mut next = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let letters = b"etaoinshrdlucmfwypvbgkjqxz";
    let vocabulary: Vec<String> = (0..30_000_u64)
        .map(|rank| {
            let length = 2 + (rank.checked_ilog2().unwrap_or(0) + next() as u32 % 3) / 2;
            (0..length)
                .map(|_| char::from(letters[(next() % 26 * (next() % 26) / 26) as usize]))
                .collect()
        })
        .collect();
    (0..documents)
        .map(|_| {
            let mut text = String::new();
            let mut words = 0;
            while text.len() < size {
                let uniform = next() as f64 / (1_u64 << 31) as f64;
                let word = &vocabulary[(30_000_f64.powf(uniform) as usize - 1).min(29_999)];
                text.push_str(word);
                words += 1;
                text.push_str(match words {
                    words if words % 120 == 0 => ".\n\n",
                    words if words % 40 == 0 => ".\n",
                    words if words % 13 == 0 => ". ",
                    words if words % 7 == 0 => ", ",
                    _ => " ",
                });
            }
            text
        })
        .collect()
}
