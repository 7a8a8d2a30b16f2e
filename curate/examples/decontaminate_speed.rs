//! How fast documents are scanned for items of evaluations, on one thread: `decontaminate_speed FILE`. The file is cut
//! into documents of about 3.5 kB at line ends; every hundredth line of more than 100 bytes is an item.

use std::time::Instant;

use lockstep_curate::decontaminate::{IndexBuilder, Report, Scratch, Settings};

/// Bytes of a document.
const DOCUMENT: usize = 3_500;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("give a file of text")?;
    let corpus = std::fs::read_to_string(path)?;
    let mut builder = IndexBuilder::new(&Settings::default())?;
    let started = Instant::now();
    for (line, text) in corpus
        .lines()
        .filter(|line| line.len() > 100)
        .step_by(100)
        .enumerate()
    {
        builder.add(
            "lines",
            line as u64,
            &serde_json::json!({ "text": text }).to_string(),
        )?;
    }
    let index = builder.finish();
    let built = started.elapsed();
    let (mut report, mut scratch) = (Report::new(&index), Scratch::default());
    let items = report.sets.get("lines").map_or(0, |set| set.items);
    println!("index of {items} items: {built:.0?}");
    let started = Instant::now();
    let mut rest = corpus.as_str();
    while !rest.is_empty() {
        let least = rest.ceil_char_boundary(DOCUMENT.min(rest.len()));
        let end = rest[least..].find('\n').map_or(rest.len(), |at| least + at + 1);
        let (document, behind) = rest.split_at(end);
        report.add(&index, &index.scan(document, &mut scratch));
        rest = behind;
    }
    let rate = corpus.len() as f64 / 1e6 / started.elapsed().as_secs_f64();
    println!(
        "scan: {rate:.0} MB/s, {} of {} documents hold an item",
        report.contaminated, report.documents
    );
    Ok(())
}
