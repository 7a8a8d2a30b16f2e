//! The texts of a corpus, tokenized and written batch by batch.

use rayon::prelude::*;

use crate::error::DataError;
use crate::gzip::Gzip;
use crate::progress::{Monitor, Stage};
use crate::scan::Document;
use crate::tokenizer::Tokenizer;
use crate::writer::DatasetWriter;

/// Text in memory at a time, unless one document is larger.
const BATCH_BYTES: u64 = 8 << 20;

/// Tokenizes the documents to train on and those held out, and writes them. Gives the bits per byte that gzip makes of those
/// held out.
pub(crate) fn write(
    writer: &mut DatasetWriter<'_>,
    tokenizer: &Tokenizer,
    [train, validation]: [Vec<Document>; 2],
    monitor: &mut Monitor<'_>,
) -> Result<Option<f64>, DataError> {
    let text_bytes = train
        .iter()
        .chain(&validation)
        .map(|document| document.bytes)
        .sum();
    monitor.enter(Stage::Tokenize, text_bytes);
    let parts = || {
        let mut gzip = Gzip::default();
        part(writer, tokenizer, train, None, monitor)?;
        writer.begin_held_out()?;
        part(writer, tokenizer, validation, Some(&mut gzip), monitor)?;
        gzip.bits_per_byte()
    };
    parts().map_err(|error| match writer.expected_bytes(text_bytes) {
        0 => error,
        bytes => error.with_needed_bytes(bytes),
    })
}

fn part(
    writer: &mut DatasetWriter<'_>,
    tokenizer: &Tokenizer,
    documents: Vec<Document>,
    mut gzip: Option<&mut Gzip>,
    monitor: &mut Monitor<'_>,
) -> Result<(), DataError> {
    let stop = monitor.stop();
    for batch in batches(documents) {
        let bytes = batch.iter().map(|document| document.bytes).sum();
        let texts: Vec<String> = batch.par_iter().map(|d| d.text(stop)).collect::<Result<_, _>>()?;
        let tokens = tokenizer.encode_all(&texts, stop)?;
        for ((document, text), runs) in batch.into_iter().zip(&texts).zip(tokens) {
            if let Some(gzip) = &mut gzip {
                gzip.put(text.as_bytes())?;
            }
            writer.push(document.info(), &runs)?;
        }
        monitor.advance(bytes);
    }
    Ok(())
}

/// Cuts documents in batches of about [`BATCH_BYTES`], in order.
fn batches(documents: Vec<Document>) -> impl Iterator<Item = Vec<Document>> {
    let mut documents = documents.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut batch: Vec<Document> = documents.next().into_iter().collect();
        let mut bytes: u64 = batch.iter().map(|document| document.bytes).sum();
        while let Some(document) = documents.next_if(|next| bytes + next.bytes <= BATCH_BYTES) {
            bytes += document.bytes;
            batch.push(document);
        }
        (!batch.is_empty()).then_some(batch)
    })
}
