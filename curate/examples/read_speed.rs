//! How fast a thread reads: `read_speed [PATH]`, of a source of yours, or else of files that it makes.

use std::error::Error;
use std::fs;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use lockstep_curate::read::{self, Read, SourceSettings};

const MADE_BYTES: usize = 256 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(path) = std::env::args().nth(1) {
        return measure(&path, 0);
    }
    let folder = tempfile::tempdir()?;
    let made = folder.path().join("plain.jsonl");
    let bytes = make(&made)?;
    let plain = fs::read(&made)?;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&plain)?;
    fs::write(folder.path().join("small.jsonl.gz"), gzip.finish()?)?;
    fs::write(
        folder.path().join("small.jsonl.zst"),
        zstd::encode_all(plain.as_slice(), 3)?,
    )?;
    for name in ["plain.jsonl", "small.jsonl.gz", "small.jsonl.zst"] {
        measure(&folder.path().join(name).to_string_lossy(), bytes)?;
    }
    Ok(())
}

/// Documents of 3.5 KB on average, as text of the web has: mostly ASCII, some letters of two bytes, a line break every
/// hundred characters.
fn make(path: &Path) -> Result<usize, Box<dyn Error>> {
    let words = [
        "the",
        "of",
        "and",
        "straße",
        "language",
        "training",
        "a",
        "is",
        "\"quoted\"",
        "model,",
        "naïve",
        "text.",
    ];
    let mut state = 1_u64;
    let mut next = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut file = std::io::BufWriter::new(fs::File::create(path)?);
    let mut bytes = 0;
    while bytes < MADE_BYTES {
        let mut text = String::new();
        let length = 500 + next(6000);
        while text.len() < length {
            text.push_str(words.get(next(words.len())).copied().unwrap_or_default());
            text.push(if next(16) == 0 { '\n' } else { ' ' });
        }
        let record = serde_json::json!({
            "id": bytes.to_string(), "text": text, "source": "made", "added": "2024-01-01T00:00:00Z",
            "metadata": { "url": "http://example.org/", "scores": [0.25, 0.5, 0.75] },
        });
        let line = record.to_string();
        writeln!(file, "{line}")?;
        bytes += line.len() + 1;
    }
    file.flush()?;
    Ok(bytes)
}

/// Best of three, since other programs run too.
fn measure(path: &str, plain_bytes: usize) -> Result<(), Box<dyn Error>> {
    let settings = SourceSettings {
        name: "speed".to_owned(),
        path: path.to_owned(),
        ..SourceSettings::default()
    };
    let stored = read::list(&settings)?.bytes();
    let (mut best, mut documents, mut dropped, mut text_bytes) = (f64::INFINITY, 0_u64, 0_u64, 0);
    for _ in 0..3 {
        (documents, dropped, text_bytes) = (0, 0, 0);
        let begin = Instant::now();
        read::read_all(&settings, &mut |read| {
            match read {
                Read::Document(document) => {
                    documents += 1;
                    text_bytes += document.text.len();
                }
                Read::Dropped(_) => dropped += 1,
                Read::Progress(_) => {}
            }
            ControlFlow::Continue(())
        })?;
        best = best.min(begin.elapsed().as_secs_f64());
    }
    let rate = |bytes: usize| bytes as f64 / 1e6 / best;
    println!(
        "{path}: {documents} documents, {dropped} dropped, {:.1} MB stored, {best:.3} s: {:.0} MB/s stored, {:.0} MB/s \
         of text{}",
        stored as f64 / 1e6,
        rate(stored as usize),
        rate(text_bytes),
        if plain_bytes > 0 {
            format!(", {:.0} MB/s decompressed", rate(plain_bytes))
        } else {
            String::new()
        }
    );
    Ok(())
}
