//! Whatever bytes there are, reading ends, holds no more than it may, and tells of all of it.
//!
//! Good bytes of each kind are damaged at random: bits are flipped, bytes are written over, pieces are cut out, repeated
//! or put in from elsewhere, and the end is cut off. `fuzz/run` looks for new paths through the same [targets] with
//! libFuzzer.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod damage;
mod samples;
#[expect(dead_code, reason = "not all of it is used here")]
#[path = "../read/support.rs"]
mod support;
mod targets;

use std::env;

use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Bytes that each target is given.
const CASES: u32 = 400;

/// A number from the environment, or the default.
fn number(variable: &str, default: u32) -> u32 {
    env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// Gives a target damaged samples, and bytes that were never anything.
fn attack(name: &str) {
    let seed = number("LOCKSTEP_FUZZ_SEED", 0);
    println!("LOCKSTEP_FUZZ_SEED={seed}");
    let target = targets::named(name).unwrap();
    let samples = (target.samples)();
    samples.iter().for_each(|sample| (target.check)(sample));
    let config = Config {
        cases: number("LOCKSTEP_FUZZ_CASES", CASES),
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let ran = runner.run(&damage::arriving(samples), |bytes| {
        (target.check)(&bytes);
        Ok(())
    });
    if let Err(error) = ran {
        panic!("{name}: {error}");
    }
}

macro_rules! attacks {
    ($($test:ident $target:literal,)*) => {
        $(#[test] fn $test() { attack($target); })*

        #[test]
        fn each_target_is_attacked() {
            let attacked = [$($target),*];
            assert!(targets::TARGETS.iter().all(|target| attacked.contains(&target.name)));
        }
    };
}

attacks! {
    jsonl "jsonl",
    csv "csv",
    html "html",
    warc "warc",
    parquet "parquet",
    text "text",
    markdown "markdown",
    code "code",
    jsonl_gzip "jsonl-gzip",
    jsonl_zstd "jsonl-zstd",
    warc_gzip "warc-gzip",
    warc_zstd "warc-zstd",
    manifest_cargo "manifest-cargo",
    manifest_npm "manifest-npm",
    manifest_python "manifest-python",
    normalise "normalise",
    language "language",
    quality "quality",
    pii "pii",
    licence "licence",
    exclusions "exclusions",
    evaluations "evaluations",
    lexicon "lexicon",
    spec "spec",
    tokenizer "tokenizer",
    index "index",
}

/// Most of what is in the good samples is read, so that what is damaged is no rubbish to begin with.
#[test]
fn tables_that_are_not_damaged_are_read() {
    for bytes in samples::tables() {
        let all = targets::read("a.parquet", &bytes);
        assert_eq!(all.documents.len(), 55, "{:?}", all.dropped);
        assert!(all.dropped.iter().all(|dropped| dropped.reason == "read.no_text"));
    }
}
