//! Panics of libraries that parse what strangers wrote end here.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// The result of `parse`, or what it panicked with. Whatever it was working on must not be used again.
pub(crate) fn contained<T>(parse: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(parse)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        format!(
            "the library that reads this format panicked: {}",
            text.unwrap_or("no message")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_reason() {
        assert_eq!(contained(|| 7), Ok(7));
        let empty: &[u8] = &[];
        let told = contained(|| empty[std::hint::black_box(3)]).unwrap_err();
        assert!(told.contains("index out of bounds"), "{told}");
    }
}
