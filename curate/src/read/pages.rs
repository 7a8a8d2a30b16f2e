//! Pages of Parquet that are safe to be decoded: the library makes room for what a page claims to hold.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Encoding, Type as PhysicalType};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use parquet::schema::types::ColumnDescriptor;

use super::store::StoredFile;

/// Refuses pages that claim to hold more values than they can.
pub(crate) struct Guarded {
    pages: Box<dyn PageReader>,
    physical: PhysicalType,
    is_repeated: bool,
    is_optional: bool,
}

impl Guarded {
    pub(crate) fn new(pages: Box<dyn PageReader>, column: &ColumnDescriptor) -> Self {
        Self {
            pages,
            physical: column.physical_type(),
            is_repeated: column.max_rep_level() > 0,
            is_optional: column.max_def_level() > 0,
        }
    }

    /// Whether the page holds at least the bytes that its values take.
    fn is_sound(&self, page: &Page) -> bool {
        match page {
            Page::DictionaryPage { buf, num_values, .. } => {
                let least_bytes = match self.physical {
                    PhysicalType::INT32 | PhysicalType::FLOAT | PhysicalType::BYTE_ARRAY => 4,
                    PhysicalType::INT64 | PhysicalType::DOUBLE => 8,
                    PhysicalType::INT96 => 12,
                    PhysicalType::BOOLEAN | PhysicalType::FIXED_LEN_BYTE_ARRAY => 1,
                };
                u64::from(*num_values) * least_bytes <= buf.len() as u64
            }
            Page::DataPage {
                buf,
                num_values,
                encoding,
                ..
            } => {
                let mut values = buf.as_ref();
                for _ in 0..usize::from(self.is_repeated) + usize::from(self.is_optional) {
                    let Some(rest) = without_levels(values) else {
                        return false;
                    };
                    values = rest;
                }
                are_lengths_sound(*encoding, values, u64::from(*num_values))
            }
            Page::DataPageV2 {
                buf,
                num_values,
                encoding,
                def_levels_byte_len,
                rep_levels_byte_len,
                ..
            } => {
                let levels = u64::from(*def_levels_byte_len) + u64::from(*rep_levels_byte_len);
                let values = usize::try_from(levels).ok().and_then(|levels| buf.get(levels..));
                values.is_some_and(|values| are_lengths_sound(*encoding, values, u64::from(*num_values)))
            }
        }
    }
}

/// What follows levels that have their length before them.
fn without_levels(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.get(usize::try_from(u32::from_le_bytes(*length)).ok()?..)
}

/// Whether lengths that are encoded as differences are no more than the page's values.
fn are_lengths_sound(encoding: Encoding, values: &[u8], most: u64) -> bool {
    let sound = match encoding {
        Encoding::DELTA_LENGTH_BYTE_ARRAY => count_of_differences(values),
        Encoding::DELTA_BYTE_ARRAY => count_of_differences(values)
            .filter(|count| *count <= most)
            .and_then(|_| without_differences(values))
            .and_then(count_of_differences),
        _ => return true,
    };
    sound.is_some_and(|count| count <= most)
}

/// The header of a run of differences: how many values a block and how many parts it has, how many values the run has,
/// and the first of them (Parquet's `Encodings.md`, delta encoding).
fn header_of_differences(bytes: &[u8]) -> Option<([u64; 3], &[u8])> {
    let (block, rest) = number(bytes)?;
    let (parts, rest) = number(rest)?;
    let (count, rest) = number(rest)?;
    let (_, rest) = number(rest)?;
    Some(([block, parts, count], rest))
}

fn count_of_differences(bytes: &[u8]) -> Option<u64> {
    header_of_differences(bytes).map(|([_, _, count], _)| count)
}

/// What follows a run of differences.
fn without_differences(bytes: &[u8]) -> Option<&[u8]> {
    let ([block, parts, count], mut rest) = header_of_differences(bytes)?;
    let values_a_part = block.checked_div(parts)?;
    let mut left = count.saturating_sub(1);
    while left > 0 {
        let (widths, after) = number(rest)?.1.split_at_checked(usize::try_from(parts).ok()?)?;
        rest = after;
        for width in widths {
            if left == 0 {
                break;
            }
            let bytes = u64::from(*width).checked_mul(values_a_part)? / 8;
            rest = rest.get(usize::try_from(bytes).ok()?..)?;
            // A part without values would never end.
            left = left.saturating_sub(values_a_part.max(1));
        }
        if widths.is_empty() {
            return None;
        }
    }
    Some(rest)
}

impl PageReader for Guarded {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        let page = self.pages.get_next_page()?;
        match page {
            Some(page) if !self.is_sound(&page) => {
                let what = "a page claims more values than it holds".to_owned();
                Err(ParquetError::General(what))
            }
            page => Ok(page),
        }
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool, ParquetError> {
        self.pages.at_record_boundary()
    }
}

impl Iterator for Guarded {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

/// A stored file as the library reads it.
pub(crate) struct Chunks {
    file: Arc<dyn StoredFile>,
    bytes: u64,
    max_bytes: usize,
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Chunks {
    type T = BufReader<Box<dyn Read + Send>>;

    /// Called for the header of each page, which says first how large it is.
    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let mut reader = BufReader::with_capacity(4096, self.file.read(start..self.bytes.max(start))?);
        let head = reader.fill_buf()?;
        if let Some(bytes) = page_bytes(head)
            && bytes > self.max_bytes as u64
        {
            return Err(self.too_large(bytes));
        }
        Ok(reader)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        if length > self.max_bytes {
            return Err(self.too_large(length as u64));
        }
        let end = start.checked_add(length as u64).filter(|end| *end <= self.bytes);
        let end = end.ok_or_else(|| ParquetError::EOF("points past the end of the file".to_owned()))?;
        let mut bytes = Vec::with_capacity(length);
        self.file.read(start..end)?.read_to_end(&mut bytes)?;
        if bytes.len() < length {
            return Err(ParquetError::EOF("the file ends early".to_owned()));
        }
        Ok(bytes.into())
    }
}

impl Chunks {
    pub(crate) fn new(file: Arc<dyn StoredFile>, bytes: u64, max_bytes: usize) -> Self {
        Self {
            file,
            bytes,
            max_bytes,
        }
    }

    fn too_large(&self, bytes: u64) -> ParquetError {
        let most = self.max_bytes;
        ParquetError::General(format!(
            "a page or footer of {bytes} bytes, max_page_bytes = {most}"
        ))
    }
}

/// The size of a page after decompression, if these bytes are a page's header: in Thrift's compact form its first field is
/// the kind and its second the size, both numbers (`parquet.thrift`, `PageHeader`).
fn page_bytes(head: &[u8]) -> Option<u64> {
    const NEXT_FIELD_IS_A_NUMBER: u8 = 0x15;
    let rest = head.strip_prefix(&[NEXT_FIELD_IS_A_NUMBER])?;
    let (_, rest) = number(rest)?;
    let (size, _) = number(rest.strip_prefix(&[NEXT_FIELD_IS_A_NUMBER])?)?;
    // Numbers with a sign are folded: 0, -1, 1, -2, …
    Some(size >> 1)
}

/// A number of seven bits a byte, and what follows.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (at, byte) in bytes.iter().take(9).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((number, bytes.get(at + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_header_says_how_large_the_page_is() {
        // Kind 0, 300 bytes: folded 600, which is 0x58 and 4 in sevens.
        assert_eq!(page_bytes(&[0x15, 0, 0x15, 0xd8, 4, 0x15]), Some(300));
        assert_eq!(page_bytes(&[0x15, 0, 0x25, 1, 0]), None);
        assert_eq!(page_bytes(b"PAR1"), None);
        assert_eq!(page_bytes(&[]), None);
    }

    #[test]
    fn differences_are_counted_and_skipped() {
        // A block of 128 in 4 parts, 3 values, the first 7 (folded 14); the least difference 0; widths 8, 0, 0, 0.
        let mut bytes = vec![0x80, 1, 4, 3, 14, 0, 8, 0, 0, 0];
        bytes.extend([0; 32]);
        bytes.extend(*b"rest");
        assert_eq!(count_of_differences(&bytes), Some(3));
        assert_eq!(without_differences(&bytes), Some(b"rest".as_slice()));
        assert_eq!(without_differences(&[0x80, 1, 4, 1, 14, 9]), Some([9].as_slice()));
        for hostile in [
            [0x80, 1, 0, 3, 0, 0, 1, 1],
            [0, 4, 0x7f, 0, 0, 0, 0, 0],
            [0xff; 8],
        ] {
            assert_eq!(without_differences(&hostile), None);
        }
    }
}
