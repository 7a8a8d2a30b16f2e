//! What the processor can do, found out once.

use std::fmt;
use std::str::FromStr;
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

/// What is no name of an [`Isa`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown(String);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Isa::ALL.map(Isa::name).join(", ");
        write!(f, "`{}` is none of {names}", self.0)
    }
}

impl std::error::Error for Unknown {}

impl FromStr for Isa {
    type Err = Unknown;

    fn from_str(name: &str) -> Result<Self, Unknown> {
        let found = Self::ALL.into_iter().find(|isa| isa.name() == name);
        found.ok_or_else(|| Unknown(name.to_owned()))
    }
}

impl Isa {
    /// From the least to the most.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// What [`VARIABLE`] asks for, if it is set.
    ///
    /// # Errors
    /// When it names none; [`of_this_machine`](Self::of_this_machine) passes over it then.
    pub fn asked_for() -> Result<Option<Self>, Unknown> {
        let name = std::env::var_os(VARIABLE);
        name.map(|name| name.to_string_lossy().parse()).transpose()
    }

    /// The best of this processor, unless [`VARIABLE`] asks for less.
    #[must_use]
    pub fn of_this_machine() -> Self {
        static FOUND: OnceLock<Isa> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let best = Self::best();
            match Self::asked_for() {
                Ok(Some(asked)) => best.min(asked),
                Ok(None) | Err(_) => best,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for isa in Isa::ALL {
            assert_eq!(isa.name().parse(), Ok(isa));
        }
        let unknown = "AVX-512".parse::<Isa>().unwrap_err();
        assert_eq!(unknown.to_string(), "`AVX-512` is none of portable, avx2, avx512");
    }
}
