//! The writer's end.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fstat, memfd_create};
use rustix::process::getpid;

use crate::mapping::Mapping;
use crate::wait;

/// Memory that this process has made, and that nobody else can write.
#[derive(Debug)]
pub struct Segment {
    mapping: Mapping,
    file: OwnedFd,
    inode: u64,
}

/// Where another process of the host finds a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The process that made it.
    pub process: u32,
    /// Its descriptor there.
    pub descriptor: u32,
    /// Bytes of data.
    pub len: u64,
    /// The number of the file: another one at the same place is not it.
    pub inode: u64,
}

impl Segment {
    /// Makes one of `len` bytes of data. All of its memory is there from the beginning: later writes cannot fail.
    ///
    /// # Errors
    /// When the system has no such memory to give.
    pub fn create(len: usize) -> io::Result<Self> {
        let Some(all) = Mapping::file_len(len) else {
            return Err(io::ErrorKind::FileTooLarge.into());
        };
        let file = memfd_create("lockstep", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        fallocate(&file, FallocateFlags::empty(), 0, all as u64)?;
        let mapping = Mapping::new(&file, len, true)?;
        // From now on nobody can map it to write, this process included.
        fcntl_add_seals(
            &file,
            SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL,
        )?;
        let inode = fstat(&file)?.st_ino;
        Ok(Self { mapping, file, inode })
    }

    /// Where others find it, while this process has it.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket {
            process: getpid().as_raw_pid().unsigned_abs(),
            descriptor: self.file.as_raw_fd().unsigned_abs(),
            len: self.mapping.len() as u64,
            inode: self.inode,
        }
    }

    /// Copies `bytes` to the data from `at` on.
    ///
    /// # Panics
    /// When they would not lie within the data.
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        self.mapping.write(at, bytes);
    }

    /// Sets a word. Whoever sees it sees all that was written before; and of two who set a word and then load the
    /// other's, one at least sees what the other has set.
    ///
    /// # Panics
    /// When there is no such word.
    pub fn publish(&self, word: usize, value: u32) {
        self.mapping.word(word).store(value, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// Wakes all who [sleep](crate::sleep) on a word.
    ///
    /// # Panics
    /// When there is no such word.
    pub fn wake(&self, word: usize) {
        wait::wake(self.mapping.word(word));
    }
}
