//! What the processor can do, found out once.

use std::sync::OnceLock;

/// The instructions that kernels use. All of them give the same bits: every operation is written out element by
/// element, fused where it says so, and no sum is reordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What every processor has. Fused multiplication and addition may be slow here.
    Portable,
    /// AVX2 and FMA, 8 values at a time.
    Avx2,
    /// AVX-512 F, VL, DQ and BW, 16 values at a time.
    Avx512,
}

/// Names one of [`Isa`], to use less than there is.
pub const VARIABLE: &str = "LOCKSTEP_ISA";

impl Isa {
    /// The best of this processor, unless [`VARIABLE`] asks for less.
    #[must_use]
    pub fn of_this_machine() -> Self {
        static FOUND: OnceLock<Isa> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let best = Self::best();
            match std::env::var(VARIABLE).as_deref() {
                Ok("portable") => Self::Portable,
                Ok("avx2") => best.min(Self::Avx2),
                _ => best,
            }
        })
    }

    #[cfg(target_arch = "x86_64")]
    fn best() -> Self {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw");
        match (avx2, avx512) {
            (_, true) => Self::Avx512,
            (true, false) => Self::Avx2,
            (false, false) => Self::Portable,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn best() -> Self {
        Self::Portable
    }

    /// Its name, as in [`VARIABLE`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

/// Compiles a function once for each [`Isa`], and calls the best that the processor has. The body is plain code of
/// which the compiler makes vectors: elementwise operations and [sums in lanes](crate::numeric) have the same bits
/// whatever their width.
macro_rules! for_each_isa {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $type),*) $(-> $ret)? {
            #[inline(always)]
            fn portable($($arg: $type),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $type),*) $(-> $ret)? { portable($($arg),*) }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
            fn avx512($($arg: $type),*) $(-> $ret)? { portable($($arg),*) }

            match $crate::isa::Isa::of_this_machine() {
                #[cfg(target_arch = "x86_64")]
                #[expect(unsafe_code, reason = "calls code for instructions that were detected")]
                // SAFETY: the processor has them.
                $crate::isa::Isa::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                #[expect(unsafe_code, reason = "calls code for instructions that were detected")]
                // SAFETY: the processor has them.
                $crate::isa::Isa::Avx2 => unsafe { avx2($($arg),*) },
                _ => portable($($arg),*),
            }
        }
    };
}
pub(crate) use for_each_isa;
