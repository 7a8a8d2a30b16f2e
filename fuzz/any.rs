//! Gives what libFuzzer makes up to the target that `LOCKSTEP_FUZZ_TARGET` names, beginning with its good samples.

#![no_main]

#[path = "../curate/tests/fuzz/samples.rs"]
mod samples;
#[path = "../curate/tests/read/support.rs"]
#[expect(dead_code, reason = "not all of it is used here")]
mod support;
#[path = "../curate/tests/fuzz/targets.rs"]
mod targets;

use std::sync::LazyLock;
use std::{env, fs};

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&targets::Target> = LazyLock::new(|| {
    let name = env::var("LOCKSTEP_FUZZ_TARGET").expect("LOCKSTEP_FUZZ_TARGET names a target");
    targets::named(&name).unwrap_or_else(|| {
        let names: Vec<_> = targets::TARGETS.iter().map(|target| target.name).collect();
        panic!("no target {name}; they are {}", names.join(", "))
    })
});

fuzz_target!(
    init: {
        // What the run begins with: read after this.
        let folder = env::var("LOCKSTEP_FUZZ_CORPUS").expect("LOCKSTEP_FUZZ_CORPUS is a folder");
        for (number, sample) in (TARGET.samples)().into_iter().enumerate() {
            fs::write(format!("{folder}/sample-{number}"), sample).expect("write a sample");
        }
    },
    |bytes: &[u8]| (TARGET.check)(bytes)
);
