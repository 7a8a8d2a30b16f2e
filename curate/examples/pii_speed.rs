//! How fast private data is found and replaced, on one thread: `pii_speed [FILE]`. The file is cut into documents of
//! about 3.5 kB at line ends; without one, English of a seeded generator, with private data in every tenth document.

use std::time::Instant;

use lockstep_curate::pii::{Counts, Detector, Settings};

/// Bytes of a document.
const DOCUMENT: usize = 3_500;
/// Bytes of the made-up corpus.
const CORPUS: usize = 32 << 20;
const WORDS: &[&str] = &[
    "the",
    "of",
    "and",
    "to",
    "in",
    "a",
    "that",
    "it",
    "was",
    "for",
    "on",
    "with",
    "people",
    "between",
    "government",
    "history",
    "water",
    "number",
    "language",
    "because",
    "different",
    "through",
    "school",
    "which",
    "their",
    "other",
    "small",
    "letters,",
    "found.",
    "(see",
    "above)",
    "city:",
    "world's",
    "well-known",
];
const NUMBERS: &[&str] = &[
    "1998",
    "3.5",
    "12,000",
    "2",
    "17",
    "2023-11-12",
    "10:30",
    "1,000,000",
];
const PRIVATE: &[&str] = &[
    "jane.doe@example.org",
    "93.184.216.34",
    "+44 20 7946 0958",
    "4242 4242 4242 4242",
    "DE89 3704 0044 0532 0130 00",
    "536-90-4399",
    "password = \"tr0ub4dor&3x\"",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let corpus = match std::env::args_os().nth(1) {
        Some(path) => std::fs::read_to_string(path)?,
        None => made_up(),
    };
    let documents = cut(&corpus);
    let detector = Detector::new(&Settings::default())?;
    let mut found = Vec::new();
    for (name, replaces) in [("find", false), ("clean", true)] {
        let mut counts = Counts::default();
        let started = Instant::now();
        for document in &documents {
            if replaces {
                counts.merge(&detector.clean(document).counts);
            } else {
                detector.find(document, &mut found);
                counts.add(&found);
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let rate = corpus.len() as f64 / 1e6 / seconds;
        println!(
            "{name}: {rate:.0} MB/s, {} documents, {}",
            documents.len(),
            serde_json::to_string(&counts)?
        );
    }
    Ok(())
}

fn cut(corpus: &str) -> Vec<&str> {
    let mut documents = Vec::new();
    let mut rest = corpus;
    while rest.len() > DOCUMENT {
        let least = rest.ceil_char_boundary(DOCUMENT);
        let end = rest[least..].find('\n').map_or(rest.len(), |at| least + at + 1);
        let (document, behind) = rest.split_at(end);
        documents.push(document);
        rest = behind;
    }
    documents.push(rest);
    documents
}

fn made_up() -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    };
    let mut text = String::with_capacity(CORPUS + 100);
    while text.len() < CORPUS {
        // About 600 words a document; two in a hundred are numbers.
        let words = match draw(6_000) {
            0 => PRIVATE,
            1..120 => NUMBERS,
            _ => WORDS,
        };
        text.push_str(words[draw(words.len())]);
        text.push(if draw(80) == 0 { '\n' } else { ' ' });
    }
    text
}
