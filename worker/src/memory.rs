//! Whether a rank's memory is there.

use std::path::Path;

use lockstep_engine::spec::Spec;
use lockstep_trainer::memory;

/// Refuses a plan that does not fit what this machine has left, before anything of it is allocated.
///
/// # Errors
/// The numbers, and what to change.
pub(crate) fn check(spec: &Spec) -> Result<(), String> {
    let available = available().unwrap_or(u64::MAX);
    fits(spec, rayon::current_num_threads() as u64, available)
}

fn fits(spec: &Spec, threads: u64, available: u64) -> Result<(), String> {
    let others = threads.saturating_sub(1).saturating_mul(memory::of_thread(spec));
    let planned = memory::of_rank(spec).saturating_add(others);
    if planned > available {
        return Err(refusal(spec, planned, available));
    }
    Ok(())
}

fn refusal(spec: &Spec, planned: u64, available: u64) -> String {
    let mebibytes = |bytes: u64| bytes >> 20;
    let state = 3 * 4 * spec.model.parameters() as u64;
    format!(
        "a rank of this job takes about {} MiB, {} of them for weights and moments; this machine has {} MiB left. Lower \
         batch.sequences = {}, set memory.recompute = \"block\", choose fewer batch.lanes or a smaller model, or run fewer \
         ranks on this machine",
        mebibytes(planned),
        mebibytes(state),
        mebibytes(available),
        spec.batch.sequences,
    )
}

/// Bytes that can still be had: of the machine, or of this process's control groups (version 2) if one of them has less.
/// What files occupy in memory counts as free, as the system gives it back. `None` where the system does not say.
fn available() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
        Some(kibibytes << 10)
    });
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap_or_default();
    let root = Path::new("/sys/fs/cgroup");
    let groups = Path::new(own)
        .ancestors()
        .filter_map(|group| left_of(&root.join(group)));
    machine.into_iter().chain(groups).min()
}

/// What a control group has left, if it has a limit.
fn left_of(group: &Path) -> Option<u64> {
    let read = |file: &str| std::fs::read_to_string(group.join(file)).ok();
    let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
    let (most, used) = (number("memory.max")?, number("memory.current")?);
    let stat = read("memory.stat").unwrap_or_default();
    let files: u64 = stat
        .lines()
        .filter_map(|line| {
            line.strip_prefix("inactive_file ")
                .or_else(|| line.strip_prefix("active_file "))
        })
        .filter_map(|bytes| bytes.parse::<u64>().ok())
        .sum();
    Some(most.saturating_sub(used.saturating_sub(files)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_does_not_fit_is_refused_with_numbers() {
        let model = "hidden_size = 8192\nintermediate_size = 65536\nnum_hidden_layers = 100";
        let source = |model: &str| format!("[model]\npreset = \"nano\"\n{model}\n[data]\ncorpus = \".\"\n");
        let refused = check(&Spec::parse(&source(model)).unwrap()).unwrap_err();
        for word in ["MiB", "batch.sequences", "memory.recompute"] {
            assert!(refused.contains(word), "{refused}");
        }
        assert_eq!(check(&Spec::parse(&source("")).unwrap()), Ok(()));
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }

    /// Each packs the keys and values of a sequence.
    #[test]
    fn threads_take_their_part() {
        let spec = "[model]\npreset = \"nano\"\nmax_position_embeddings = 8192\n[data]\ncorpus = \".\"\n";
        let (spec, available) = (Spec::parse(spec).unwrap(), 2 << 30);
        assert_eq!(fits(&spec, 4, available), Ok(()));
        let refused = fits(&spec, 1000, available).unwrap_err();
        assert!(refused.contains("2048 MiB left"), "{refused}");
    }

    /// As much of everything as a spec can ask for: more bytes than can be counted.
    #[test]
    fn the_largest_plan_is_refused_as_others_are() {
        for recompute in ["none", "block"] {
            let source = format!(
                "[model]\npreset = \"nano\"\nvocab_size = 1048576\nhidden_size = 65536\nintermediate_size = 262144\n\
                 num_hidden_layers = 1024\nnum_attention_heads = 1024\nmax_position_embeddings = 1048576\n\
                 [batch]\nmicrobatches = 65536\nlanes = 65536\nsequences = 65536\n\
                 [memory]\nrecompute = {recompute:?}\n[data]\ncorpus = \".\"\n"
            );
            let refused = check(&Spec::parse(&source).unwrap()).unwrap_err();
            for part in ["about 17592186044415 MiB", "batch.sequences = 65536"] {
                assert!(refused.contains(part), "{refused}");
            }
        }
    }
}
