//! Mapped memory.

use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU32;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::{WORDS, stream};

/// Bytes of a word with its distance to the next: a cache line, and the one that is fetched along with it.
const WORD_STRIDE: usize = 128;
/// Bytes before the first byte of data.
const CONTROL: usize = WORDS * WORD_STRIDE;

/// A shared mapping of words and `len` bytes.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to this value and to no thread. Words are atomics, and bytes are written through
// `&mut self` only, so within this process the usual rules hold.
#[expect(unsafe_code, reason = "a raw pointer is all that a mapping is")]
unsafe impl Send for Mapping {}
// SAFETY: as above; through `&self` words are loaded and stored atomically and bytes only read.
#[expect(unsafe_code, reason = "a raw pointer is all that a mapping is")]
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Bytes of a file that is mapped with `len` bytes of data.
    pub(crate) fn file_len(len: usize) -> Option<usize> {
        len.checked_add(CONTROL)
            .filter(|&all| isize::try_from(all).is_ok())
    }

    /// Maps a file of [`Self::file_len`] bytes, which must be sealed against shrinking, as it would otherwise be an
    /// access beyond its end that ends the process.
    pub(crate) fn new(file: impl AsFd, len: usize, writable: bool) -> io::Result<Self> {
        let Some(all) = Self::file_len(len) else {
            return Err(io::ErrorKind::FileTooLarge.into());
        };
        let rights = if writable {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        // SAFETY: the system chooses the place, so nothing that exists is replaced.
        #[expect(unsafe_code, reason = "memory is mapped here")]
        let base = unsafe {
            mmap(
                ptr::null_mut(),
                all,
                rights,
                MapFlags::SHARED | MapFlags::POPULATE,
                file,
                0,
            )
        }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len })
    }

    /// Bytes of data.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// A word.
    ///
    /// # Panics
    /// When there is no such word.
    pub(crate) fn word(&self, index: usize) -> &AtomicU32 {
        assert!(index < WORDS, "word {index} of {WORDS}");
        let word = self.base.as_ptr().wrapping_add(index * WORD_STRIDE);
        // SAFETY: the words lie before the bytes, aligned as the mapping is, and live as long as it does. Every
        // process accesses them as atomics only. Of a mapping that cannot be written this crate only loads, relaxed.
        #[expect(unsafe_code, reason = "a word lies in mapped memory")]
        unsafe {
            AtomicU32::from_ptr(word.cast())
        }
    }

    /// Copies bytes in.
    ///
    /// # Panics
    /// When they would not lie within the data.
    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) {
        let to = self.place(at, bytes.len());
        // SAFETY: `place` has seen that the target lies in the mapping, of which nobody has a reference, so it does
        // not overlap `bytes`. The mapping is writable: only `Segment` calls this.
        #[expect(unsafe_code, reason = "the bytes lie in mapped memory")]
        unsafe {
            stream::copy(bytes, to);
        }
    }

    /// Copies bytes out.
    ///
    /// # Panics
    /// When they do not lie within the data.
    pub(crate) fn read(&self, at: usize, into: &mut [u8]) {
        let from = self.place(at, into.len());
        // SAFETY: `place` has seen that the source lies in the mapping, of which nobody has a reference, so it does
        // not overlap `into`. Every byte is a valid `u8`. The writer does not touch what it has published until its
        // readers have told it that they are done; one that does is faulty, and what is copied then is any bytes,
        // as from a device, of which no more is required than that a checksum may fail.
        #[expect(unsafe_code, reason = "the bytes lie in mapped memory")]
        unsafe {
            ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len());
        }
    }

    /// Where `len` bytes of data at `at` lie.
    fn place(&self, at: usize, len: usize) -> *mut u8 {
        let inside = at.checked_add(len).is_some_and(|end| end <= self.len);
        assert!(inside, "{len} bytes at {at} of {}", self.len);
        self.base.as_ptr().wrapping_add(CONTROL + at)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and references into it end with `self`.
        #[expect(unsafe_code, reason = "memory is unmapped here")]
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), CONTROL + self.len) };
        // It was a mapping: there is nothing to fail.
        let _ = unmapped;
    }
}
