//! Copying to memory that others read.
//!
//! A plain store to a cache line that another core has read waits until that core has given it up, one line after
//! the other: 1 to 2 GB/s where this was measured. A store that goes by the caches does not wait: 25 GB/s, and what
//! was stored is then read at 15 GB/s.

/// Copies without leaving the copy in the caches, for what is not read again soon.
///
/// # Panics
/// When the lengths differ.
pub fn stream(from: &[u8], to: &mut [u8]) {
    assert_eq!(from.len(), to.len(), "a copy is as long as what is copied");
    // SAFETY: both are as long, and nothing that is borrowed mutably is borrowed otherwise.
    #[expect(unsafe_code, reason = "memory is written past the caches")]
    unsafe {
        copy(from, to.as_mut_ptr());
    }
}

/// Copies `bytes` to `to`. Whatever is stored after this is seen after it.
///
/// # Safety
/// `to` must be valid for writes of as many bytes, and not overlap with `bytes`.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "memory is written through a pointer")]
pub(crate) unsafe fn copy(bytes: &[u8], to: *mut u8) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    const LINE: usize = 64;
    let head = to.align_offset(LINE).min(bytes.len());
    let lines = (bytes.len() - head) / LINE * LINE;
    let from = bytes.as_ptr();
    // SAFETY: `from` and `to` are valid for `bytes.len()` bytes and do not overlap, as the caller promises. The three
    // parts make up exactly these: `head` bytes, whole lines, which are aligned in `to`, and the rest. SSE2 is part
    // of x86-64. The fence makes the streamed lines come before whatever is stored next, as the memory model has it.
    unsafe {
        to.copy_from_nonoverlapping(from, head);
        for at in (head..head + lines).step_by(LINE) {
            let (from, to): (*const __m128i, *mut __m128i) = (from.add(at).cast(), to.add(at).cast());
            let line = [0, 1, 2, 3].map(|i| _mm_loadu_si128(from.add(i)));
            for (i, part) in line.into_iter().enumerate() {
                _mm_stream_si128(to.add(i), part);
            }
        }
        let done = head + lines;
        to.add(done)
            .copy_from_nonoverlapping(from.add(done), bytes.len() - done);
        _mm_sfence();
    }
}

/// Copies `bytes` to `to`.
///
/// # Safety
/// `to` must be valid for writes of as many bytes, and not overlap with `bytes`.
#[cfg(not(target_arch = "x86_64"))]
#[expect(unsafe_code, reason = "memory is written through a pointer")]
pub(crate) unsafe fn copy(bytes: &[u8], to: *mut u8) {
    // SAFETY: as the caller promises.
    unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
}
