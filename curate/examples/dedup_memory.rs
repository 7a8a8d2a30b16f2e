//! Near-duplicates at scale from a seed: speed of each stage, and the peak of memory.
//!
//! `cargo run --release -p lockstep-curate --example dedup_memory -- [DOCUMENTS] [BYTES] [FOLDER]`: by default 1.5
//! million documents of 3,500 bytes, 5 GB, of which one in ten is an edit of another.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lockstep_curate::dedup::bands::edges;
use lockstep_curate::dedup::{
    NearSettings, PartWriter, Parts, Signer, Slice, SortSettings, drops, read_drops,
};

/// Documents of a part, of which each is one task's.
const PART: u64 = 100_000;

/// Numbers from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((u128::from(z ^ (z >> 31)) * u128::from(bound)) >> 64) as u64
    }
}

/// Words of English lengths; the smaller of two draws, so that some are frequent.
fn words() -> Vec<String> {
    let mut random = Random(7);
    let word = |_| {
        (0..2 + random.below(4) + random.below(5))
            .map(|_| (b'a' + random.below(26) as u8) as char)
            .collect()
    };
    (0..20_000).map(word).collect()
}

/// The document of a number. Every tenth is the one before it with every 200th word, about, replaced.
fn write_document(number: u64, bytes: usize, words: &[String], text: &mut String) {
    text.clear();
    let edited = number % 10 == 9;
    let mut random = Random(number - u64::from(edited));
    let mut edits = Random(!number);
    let mut sentence = 0;
    while text.len() < bytes {
        let mut index = random.below(20_000).min(random.below(20_000));
        if edited && edits.below(200) == 0 {
            index = edits.below(20_000);
        }
        let Some(word) = words.get(index as usize) else {
            continue;
        };
        let from = text.len();
        text.push_str(word);
        if sentence == 0
            && let Some(first) = text.get_mut(from..from + 1)
        {
            first.make_ascii_uppercase();
        }
        sentence += 1;
        match random.below(14) {
            0 => {
                text.push_str(". ");
                sentence = 0;
            }
            1 => text.push_str(", "),
            _ => text.push(' '),
        }
    }
}

fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// Time that this thread spent on a processor: other work on the machine is not in it.
fn clock() -> Duration {
    let times = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = times.split(' ').next().and_then(|time| time.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

fn say(stage: &str, took: Duration, bytes: u64) {
    let mb = bytes as f64 / 1e6;
    println!(
        "{stage:<22} {:8.2} s of processor {:8.1} MB/s   peak {} MiB",
        took.as_secs_f64(),
        mb / took.as_secs_f64(),
        peak_mib()
    );
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let documents: u64 = arguments.next().map_or(Ok(1_500_000), |text| text.parse())?;
    let bytes: usize = arguments.next().map_or(Ok(3500), |text| text.parse())?;
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let scratch = tempfile::tempdir_in(folder)?;
    let folder = scratch.path();
    let settings = NearSettings::default();
    let words = words();

    // Made before the clock starts, a thousand at a time.
    let (mut texts, mut signer) = (vec![String::new(); 1000], Signer::new(&settings)?);
    let (mut signed, mut total, mut parts) = (Duration::ZERO, 0, Vec::new());
    for first in (0..documents).step_by(PART as usize) {
        let path = folder.join(format!("part-{first}"));
        let mut writer = PartWriter::create(&path, &settings)?;
        let end = documents.min(first + PART);
        for batch in (first..end).step_by(texts.len()) {
            let batch = batch..end.min(batch + texts.len() as u64);
            let made = (batch.end - batch.start) as usize;
            texts
                .iter_mut()
                .zip(batch)
                .for_each(|(text, number)| write_document(number, bytes, &words, text));
            let begun = clock();
            for text in texts.iter().take(made) {
                total += text.len() as u64;
                writer.push(signer.sign(text), settings.keep.rank(text.len(), 0.0))?;
            }
            signed += clock() - begun;
        }
        let begun = clock();
        writer.commit()?;
        signed += clock() - begun;
        parts.push(path);
    }
    say("signatures", signed, total);

    let begun = clock();
    let parts = Parts::open(&parts, &settings)?;
    let sort = SortSettings::new(folder);
    let mut tables = Vec::new();
    for band in 0..settings.bands {
        let out = folder.join(format!("edges-{band}"));
        edges(&parts, band, Slice::WHOLE, &sort, &out)?;
        tables.push(out);
    }
    let out: &Path = &folder.join("drops");
    say("bands", clock() - begun, total);
    let joined = drops(parts.documents(), &tables, None, parts.ranks(), out)?;
    let clustered = clock() - begun;
    say("bands and clusters", clustered, total);
    say("all", signed + clustered, total);
    let (mut dropped, mut expected) = (0, 0);
    for drop in read_drops(out)? {
        let drop = drop?;
        dropped += 1;
        expected += u32::from(drop.document % 10 >= 8 && drop.document / 10 == drop.kept / 10);
    }
    let edited = documents / 10;
    println!(
        "{documents} documents, {edited} edited; dropped {dropped}, of edited pairs {expected}; {joined:?}"
    );
    Ok(())
}
