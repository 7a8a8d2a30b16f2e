//! Buffers that come back, so that the steady state allocates nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A buffer that a writer thread can hold without copying.
pub(crate) type Buffer = Arc<Vec<f32>>;

/// Buffers of a few fixed lengths. One that a writer thread still holds may be given back at once: it is handed
/// out again only when nobody else has it.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: Mutex<Idle>,
    keep_bytes: usize,
}

#[derive(Debug, Default)]
struct Idle {
    by_len: HashMap<usize, Vec<Buffer>>,
    bytes: usize,
    allocated: u64,
}

impl Pool {
    /// An empty pool that keeps up to `keep_bytes` of idle buffers.
    pub(crate) fn new(keep_bytes: usize) -> Self {
        Self {
            idle: Mutex::default(),
            keep_bytes,
        }
    }

    /// A buffer of exactly `len` values that nobody else holds. What is in it is not specified.
    pub(crate) fn take(&self, len: usize) -> Buffer {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(buffers) = idle.by_len.get_mut(&len)
            && let Some(free) = buffers
                .iter_mut()
                .rposition(|buffer| Arc::get_mut(buffer).is_some())
        {
            let buffer = buffers.swap_remove(free);
            idle.bytes -= len * size_of::<f32>();
            return buffer;
        }
        idle.allocated += 1;
        drop(idle);
        Arc::new(vec![0.0; len])
    }

    /// A buffer of at least `len` values: lengths are rounded up to a power of two, so that few exist.
    pub(crate) fn take_rounded(&self, len: usize) -> Buffer {
        self.take(len.next_power_of_two())
    }

    /// Takes a buffer back.
    pub(crate) fn give(&self, buffer: Buffer) {
        let bytes = buffer.len() * size_of::<f32>();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.bytes + bytes <= self.keep_bytes {
            idle.bytes += bytes;
            idle.by_len.entry(buffer.len()).or_default().push(buffer);
        }
    }

    /// How many buffers were ever allocated.
    pub(crate) fn allocated(&self) -> u64 {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).allocated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_is_still_held_is_not_handed_out() {
        let pool = Pool::new(1 << 20);
        let held = pool.take(8);
        pool.give(held.clone());
        let other = pool.take(8);
        assert!(!Arc::ptr_eq(&held, &other));
        assert_eq!(pool.allocated(), 2);
        let address = held.as_ptr();
        drop(held);
        assert_eq!(pool.take(8).as_ptr(), address);
        assert_eq!(pool.allocated(), 2);
    }

    #[test]
    fn idle_bytes_are_bounded() {
        let pool = Pool::new(64);
        let buffers: Vec<_> = (0..4).map(|_| pool.take_rounded(7)).collect();
        assert!(buffers.iter().all(|buffer| buffer.len() == 8));
        buffers.into_iter().for_each(|buffer| pool.give(buffer));
        let _again: Vec<_> = (0..4).map(|_| pool.take(8)).collect();
        assert_eq!(pool.allocated(), 6, "two of four fit in 64 bytes");
    }
}
