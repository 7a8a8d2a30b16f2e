//! How far gzip compresses a text: what any model of it should beat.

use std::io::{self, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::digest::Hasher;
use crate::error::DataError;

/// Measures how far gzip compresses a text, all in one stream.
pub struct Gzip {
    encoder: GzEncoder<Hasher>,
    text_bytes: u64,
}

impl Default for Gzip {
    fn default() -> Self {
        Self {
            encoder: GzEncoder::new(Hasher::default(), Compression::best()),
            text_bytes: 0,
        }
    }
}

impl Gzip {
    /// Takes more text in.
    ///
    /// # Errors
    /// None that is known of.
    pub fn put(&mut self, text: &[u8]) -> Result<(), DataError> {
        self.text_bytes += text.len() as u64;
        self.encoder.write_all(text).map_err(compress_failed)
    }

    /// Ends the stream; its bits per byte of text, or none without text.
    ///
    /// # Errors
    /// None that is known of.
    pub fn bits_per_byte(mut self) -> Result<Option<f64>, DataError> {
        self.encoder.try_finish().map_err(compress_failed)?;
        let compressed_bits = self.encoder.get_ref().bytes as f64 * 8.0;
        Ok((self.text_bytes > 0).then(|| compressed_bits / self.text_bytes as f64))
    }
}

fn compress_failed(error: io::Error) -> DataError {
    DataError::io("compress", Path::new("the validation text"), error)
}
