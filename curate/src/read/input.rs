//! Bytes of a file as they come, decompressed, in lines or in blocks, with no more held than is asked for.

use std::cell::Cell;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::rc::Rc;

use memchr::memchr;

use super::formats::Compression;
use super::store::StoredFile;

/// So much is read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// A line, or that it is too long to be held.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// Without its line break.
    Whole { offset: u64, bytes: &'a [u8] },
    /// Longer than was asked for; it was skipped.
    TooLong { offset: u64 },
}

/// Where and why bytes end that should go on.
#[derive(Debug)]
pub(crate) struct Broken {
    /// Where the line or block that is broken off begins.
    pub(crate) offset: u64,
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
}

/// A buffered reader of decompressed bytes.
pub(crate) struct Input {
    inner: Box<dyn Read>,
    compression: Compression,
    /// Bytes that were read from storage.
    stored: Rc<Cell<u64>>,
    /// Whether it was storage that failed.
    failed: Rc<Cell<bool>>,
    buffer: Vec<u8>,
    /// What is filled and not yet consumed.
    filled: Range<usize>,
    /// Of the first byte that is not consumed.
    offset: u64,
    at_end: bool,
}

struct Counting {
    inner: Box<dyn Read + Send>,
    bytes: Rc<Cell<u64>>,
    failed: Rc<Cell<bool>>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer);
        let read = read.inspect_err(|_| self.failed.set(true))?;
        self.bytes.set(self.bytes.get() + read as u64);
        Ok(read)
    }
}

impl Input {
    /// Reads these bytes of a file.
    pub(crate) fn open(
        file: &dyn StoredFile,
        range: Range<u64>,
        compression: Compression,
    ) -> io::Result<Self> {
        let offset = range.start;
        let bytes = Rc::new(Cell::new(0));
        let failed = Rc::new(Cell::new(false));
        let counting = Counting {
            inner: file.read(range)?,
            bytes: Rc::clone(&bytes),
            failed: Rc::clone(&failed),
        };
        let inner: Box<dyn Read> = match compression {
            Compression::None => Box::new(counting),
            Compression::Gzip => {
                let buffered = BufReader::with_capacity(CHUNK_BYTES, counting);
                Box::new(flate2::bufread::MultiGzDecoder::new(buffered))
            }
            // Frames with a window beyond 128 MiB are refused, so that no frame decides how much memory it takes.
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(counting)?),
        };
        Ok(Self {
            inner,
            compression,
            stored: bytes,
            failed,
            buffer: vec![0; CHUNK_BYTES],
            filled: 0..0,
            offset,
            at_end: false,
        })
    }

    /// Of the next byte, after decompression.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes that were read from storage.
    pub(crate) fn stored(&self) -> u64 {
        match self.compression {
            Compression::None => self.stored.get() - self.filled.len() as u64,
            _ => self.stored.get(),
        }
    }

    /// What is buffered; more is read if nothing is. Empty at the end.
    pub(crate) fn peek(&mut self) -> Result<&[u8], Broken> {
        while self.filled.is_empty() && !self.at_end {
            self.fill()?;
        }
        Ok(self.held())
    }

    /// What is buffered, at least so many bytes unless that is the end.
    pub(crate) fn peek_at_least(&mut self, bytes: usize) -> Result<&[u8], Broken> {
        while self.filled.len() < bytes && !self.at_end {
            self.fill()?;
        }
        Ok(self.held())
    }

    /// Goes on by as many bytes of those that [`Self::peek`] showed.
    pub(crate) fn consume(&mut self, bytes: usize) {
        let bytes = bytes.min(self.filled.len());
        self.filled.start += bytes;
        self.offset += bytes as u64;
    }

    /// The next line, unless it begins at or after `before`. Of a line longer than `max_bytes` no more is read than is
    /// needed to find the next that begins before `before`.
    pub(crate) fn line(&mut self, max_bytes: usize, before: u64) -> Result<Option<Line<'_>>, Broken> {
        if self.offset >= before {
            return Ok(None);
        }
        let mut searched = 0;
        let (length, breaks) = loop {
            let unseen = self.held().get(searched..).unwrap_or_default();
            if let Some(at) = memchr(b'\n', unseen) {
                break (searched + at, 1);
            }
            searched = self.filled.len();
            if searched > max_bytes {
                break (searched, 0);
            }
            if self.at_end {
                break (searched, 0);
            }
            self.fill()?;
        };
        let offset = self.offset;
        if length > max_bytes {
            self.consume(length + breaks);
            if breaks == 0 {
                self.skip_line(before)?;
            }
            return Ok(Some(Line::TooLong { offset }));
        }
        if length == 0 && breaks == 0 {
            return Ok(None);
        }
        let start = self.filled.start;
        self.consume(length + breaks);
        let bytes = self.buffer.get(start..start + length).unwrap_or_default();
        Ok(Some(Line::Whole { offset, bytes }))
    }

    /// Skips to the beginning of the next line, or to the first byte at or after `before`.
    pub(crate) fn skip_line(&mut self, before: u64) -> Result<(), Broken> {
        while self.offset < before {
            let held = self.peek()?;
            if held.is_empty() {
                break;
            }
            let (bytes, found) = memchr(b'\n', held).map_or((held.len(), false), |at| (at + 1, true));
            self.consume(bytes);
            if found {
                break;
            }
        }
        Ok(())
    }

    /// Appends the next bytes to `block`; fewer, if that is the end.
    pub(crate) fn take(&mut self, bytes: usize, block: &mut Vec<u8>) -> Result<usize, Broken> {
        let mut left = bytes;
        while left > 0 {
            let held = self.peek()?;
            let most = held.len().min(left);
            if most == 0 {
                break;
            }
            block.extend_from_slice(held.get(..most).unwrap_or_default());
            self.consume(most);
            left -= most;
        }
        Ok(bytes - left)
    }

    /// Skips the next bytes; fewer, if that is the end.
    pub(crate) fn skip(&mut self, bytes: u64) -> Result<u64, Broken> {
        let mut left = bytes;
        while left > 0 {
            let most = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(self.peek()?.len());
            if most == 0 {
                break;
            }
            self.consume(most);
            left -= most as u64;
        }
        Ok(bytes - left)
    }

    fn held(&self) -> &[u8] {
        self.buffer.get(self.filled.clone()).unwrap_or_default()
    }

    /// Reads more, after what is filled.
    fn fill(&mut self) -> Result<(), Broken> {
        if self.filled.is_empty() {
            self.filled = 0..0;
        }
        let large = 4 * CHUNK_BYTES;
        if self.buffer.len() > large && self.filled.len() < CHUNK_BYTES {
            self.buffer.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
            self.buffer.truncate(large);
            self.buffer.shrink_to_fit();
        }
        if self.filled.end == self.buffer.len() {
            // Half a buffer is moved at most once for every half that is read.
            if self.filled.start >= self.buffer.len() / 2 {
                self.buffer.copy_within(self.filled.clone(), 0);
                self.filled = 0..self.filled.len();
            } else {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
        }
        let end = (self.filled.end + CHUNK_BYTES).min(self.buffer.len());
        let free = self.buffer.get_mut(self.filled.end..end).unwrap_or_default();
        match self.inner.read(free) {
            Ok(0) => self.at_end = true,
            Ok(read) => self.filled.end += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                self.at_end = true;
                return Err(self.broken(&error));
            }
        }
        Ok(())
    }

    fn broken(&self, error: &io::Error) -> Broken {
        let stored = self.stored.get();
        let (reason, what) = match self.compression {
            _ if error.kind() == io::ErrorKind::StaleNetworkFileHandle => {
                ("read.changed", "was written again while it was read")
            }
            _ if self.failed.get() => ("read.unreadable", "cannot be read"),
            Compression::None => ("read.unreadable", "cannot be read"),
            _ if error.kind() == io::ErrorKind::UnexpectedEof => {
                ("read.truncated", "the compressed file is cut off")
            }
            Compression::Gzip => ("read.gzip", "not gzip, or damaged"),
            Compression::Zstd => ("read.zstd", "not zstd, or damaged"),
        };
        Broken {
            offset: self.offset,
            reason,
            detail: format!("{what} within its first {stored} bytes: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::read::store::FileState;

    struct Memory(Arc<[u8]>);

    impl StoredFile for Memory {
        fn state(&self) -> io::Result<FileState> {
            Ok(FileState {
                bytes: self.0.len() as u64,
                version: None,
            })
        }

        fn read(&self, range: Range<u64>) -> io::Result<Box<dyn Read + Send>> {
            let bytes = self.0[range.start as usize..range.end as usize].to_vec();
            Ok(Box::new(io::Cursor::new(bytes)))
        }
    }

    fn input(bytes: &[u8]) -> Input {
        Input::open(&Memory(bytes.into()), 0..bytes.len() as u64, Compression::None).unwrap()
    }

    fn lines(bytes: &[u8], max_bytes: usize, before: u64) -> Vec<(u64, Option<Vec<u8>>)> {
        let mut input = input(bytes);
        let mut found = Vec::new();
        while let Some(line) = input.line(max_bytes, before).unwrap() {
            found.push(match line {
                Line::Whole { offset, bytes } => (offset, Some(bytes.to_vec())),
                Line::TooLong { offset } => (offset, None),
            });
        }
        found
    }

    #[test]
    fn lines_are_whole_or_too_long() {
        assert_eq!(lines(b"", 9, 9), []);
        assert_eq!(
            lines(b"a\n\nbc", 9, 9),
            [
                (0, Some(b"a".to_vec())),
                (2, Some(Vec::new())),
                (3, Some(b"bc".to_vec()))
            ]
        );
        assert_eq!(
            lines(b"abc\nabcd\nd\n", 3, 99),
            [(0, Some(b"abc".to_vec())), (4, None), (9, Some(b"d".to_vec()))]
        );
        assert_eq!(
            lines(b"a\nb\nc\n", 9, 3),
            [(0, Some(b"a".to_vec())), (2, Some(b"b".to_vec()))]
        );
    }

    #[test]
    fn lines_longer_than_a_chunk_are_found_and_the_buffer_shrinks_again() {
        let long = vec![b'x'; 9 * CHUNK_BYTES + 7];
        let mut text = b"a\n".repeat(CHUNK_BYTES);
        text.extend_from_slice(&long);
        text.push(b'\n');
        text.extend(b"b\n".repeat(3 * CHUNK_BYTES));
        let mut input = input(&text);
        let (mut count, mut longest) = (0, 0);
        while let Some(Line::Whole { bytes, .. }) = input.line(long.len(), u64::MAX).unwrap() {
            count += 1;
            longest = longest.max(bytes.len());
        }
        assert_eq!((count, longest), (4 * CHUNK_BYTES + 1, long.len()));
        assert_eq!(input.offset(), text.len() as u64);
        assert!(input.buffer.capacity() <= 4 * CHUNK_BYTES);
    }

    #[test]
    fn a_line_that_is_too_long_is_not_held_nor_read_past_the_range() {
        let text = vec![b'x'; 40 * CHUNK_BYTES];
        let mut input = input(&text);
        let before = 10 * CHUNK_BYTES as u64;
        assert_eq!(
            input.line(CHUNK_BYTES, before).unwrap(),
            Some(Line::TooLong { offset: 0 })
        );
        assert!(input.buffer.capacity() <= 4 * CHUNK_BYTES);
        assert!((before..before + 3 * CHUNK_BYTES as u64).contains(&input.offset()));
    }

    #[test]
    fn blocks_and_lines_mix() {
        let mut input = input(b"one\ntwothree\nfour");
        assert!(matches!(
            input.line(9, 99),
            Ok(Some(Line::Whole { bytes: b"one", .. }))
        ));
        let mut block = Vec::new();
        assert_eq!(input.take(3, &mut block).unwrap(), 3);
        assert_eq!(block, b"two");
        assert_eq!(input.skip(6).unwrap(), 6);
        assert_eq!(input.skip(9).unwrap(), 4);
        assert_eq!(input.peek().unwrap(), b"");
        assert_eq!(input.offset(), 17);
    }
}
