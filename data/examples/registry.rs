//! Builds a dataset from the sources that cargo has unpacked on this machine and prints how fast.
//!
//! `cargo run -p lockstep-data --example registry -- [vocab_size] [max_megabytes] [out]`

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use lockstep_data::{BuildOptions, Corpus, DataError, Dataset, Progress, build};

fn main() -> Result<(), DataError> {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |at: usize, default: u64| {
        arguments
            .get(at)
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let out = arguments
        .get(3)
        .map_or_else(|| std::env::temp_dir().join("lockstep-registry"), Into::into);
    let mut options = BuildOptions::new(Corpus::CargoRegistry(None), &out, number(1, 2048) as usize);
    options.max_bytes = Some(number(2, 32) * 1_000_000);

    let start = Instant::now();
    let mut entered = start;
    let mut report = |progress: Progress| {
        if progress.done_bytes == 0 {
            entered = Instant::now();
        } else if progress.done_bytes == progress.total_bytes {
            let (seconds, megabytes) = (entered.elapsed().as_secs_f64(), progress.total_bytes as f64 / 1e6);
            println!(
                "{}: {megabytes:.1} MB in {seconds:.2} s, {:.1} MB/s",
                progress.stage,
                megabytes / seconds
            );
        }
    };
    let built = build(&options, &mut report, &AtomicBool::new(false))?;
    let (manifest, seconds) = (&built.manifest, start.elapsed().as_secs_f64());
    println!(
        "all: {seconds:.2} s{}",
        if built.reused { " (was there)" } else { "" }
    );
    let (bytes, tokens) = (manifest.train.bytes as f64, manifest.train.tokens as f64);
    println!(
        "train: {} documents, {tokens} tokens, {:.3} bytes a token",
        manifest.train.documents,
        bytes / tokens
    );
    println!(
        "validation: {} documents, {} tokens",
        manifest.validation.documents, manifest.validation.tokens
    );
    println!(
        "gzip: {:.3} bits a byte",
        manifest.gzip_bits_per_byte.unwrap_or(f64::NAN)
    );
    println!("left out: {}", manifest.skipped);
    println!("digest: {}", manifest.digest);
    println!("tokenizer: {}", manifest.files["tokenizer.json"].digest);

    let start = Instant::now();
    Dataset::open(&out)?.verify()?;
    println!("open and verify: {:.2} s", start.elapsed().as_secs_f64());
    Ok(())
}
