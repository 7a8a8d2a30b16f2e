//! A reader's end.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::sync::atomic::{AtomicU32, Ordering, fence};

use rustix::fs::{OFlags, SealFlags, fcntl_get_seals};

use crate::mapping::Mapping;
use crate::segment::Ticket;

/// Another process's segment, to read.
#[derive(Debug)]
pub struct View {
    mapping: Mapping,
}

impl View {
    /// Opens the segment of a ticket.
    ///
    /// # Errors
    /// When this process may not, as when it runs for another user; when there is no such segment any more; and
    /// when what is there could be cut short under its reader.
    pub fn open(ticket: &Ticket) -> io::Result<Self> {
        let Ticket {
            process,
            descriptor,
            len,
            inode,
        } = *ticket;
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
        let path = format!("/proc/{process}/fd/{descriptor}");
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let found = file.metadata()?;
        let expected = Mapping::file_len(len).map(|all| all as u64);
        let is_it = found.ino() == inode && Some(found.len()) == expected;
        // Other files have no seals.
        if !is_it || !fcntl_get_seals(&file)?.contains(SealFlags::SHRINK) {
            return Err(io::Error::other("it is another file"));
        }
        let mapping = Mapping::new(&file, len, false)?;
        Ok(Self { mapping })
    }

    /// A word. What its writer wrote before it is seen from now on.
    ///
    /// # Panics
    /// When there is no such word.
    #[must_use]
    pub fn load(&self, word: usize) -> u32 {
        let value = self.word(word).load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        value
    }

    /// Copies the data from `at` on to `into`.
    ///
    /// # Panics
    /// When it does not go so far.
    pub fn read(&self, at: usize, into: &mut [u8]) {
        self.mapping.read(at, into);
    }

    pub(crate) fn word(&self, index: usize) -> &AtomicU32 {
        self.mapping.word(index)
    }
}
