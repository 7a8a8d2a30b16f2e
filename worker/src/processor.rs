//! Which instructions the kernels use here, for who wonders why steps take long.

use lockstep_trainer::isa::{Isa, Unknown, VARIABLE};

/// Logs it, and warns of what is odd about it.
pub(crate) fn tell() {
    let used = Isa::of_this_machine();
    tracing::info!("instructions of the kernels: {}", used.name());
    for warning in warnings(used, Isa::asked_for()) {
        tracing::warn!("{warning}");
    }
}

fn warnings(used: Isa, asked_for: Result<Option<Isa>, Unknown>) -> Vec<String> {
    let unknown = asked_for.err();
    let unknown = unknown.map(|unknown| format!("{VARIABLE}: {unknown}; it is passed over"));
    let slow = (used == Isa::Portable && cfg!(target_arch = "x86_64"))
        .then(|| "the kernels do without AVX2: steps take many times as long as with it".to_owned());
    unknown.into_iter().chain(slow).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_of_unknown_names_and_of_slow_instructions() {
        let unknown = || "avx".parse::<Isa>().map(Some);
        assert_eq!(warnings(Isa::Avx2, Ok(Some(Isa::Avx512))), [""; 0]);
        assert_eq!(
            warnings(Isa::Avx512, unknown()),
            ["LOCKSTEP_ISA: `avx` is none of portable, avx2, avx512; it is passed over"]
        );
        let slow = warnings(Isa::Portable, Ok(None));
        assert_eq!(slow.len(), usize::from(cfg!(target_arch = "x86_64")), "{slow:?}");
        assert!(slow.iter().all(|slow| slow.contains("AVX2")), "{slow:?}");
    }
}
