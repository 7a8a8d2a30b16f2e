//! Corpus in, token shards and their provenance out.
//!
//! [`build()`] turns a folder of text into a dataset: a folder of token shards in Megatron's indexed format,
//! a tokenizer, one row of provenance for each document, and a manifest with a digest of every file. The same
//! text and options give the same bytes, whatever the order of files, the number of threads or the machine. A
//! dataset is there whole or not at all: it is written under a hidden name beside its place and renamed.
//!
//! [`Dataset`] reads it back: whole windows of tokens for the trainer, by number.
//!
//! | module | concept |
//! |---|---|
//! | [`build`](mod@build) | the pipeline: read, choose, hold out, train the tokenizer, tokenize, write |
//! | [`corpus`] | where text comes from: which files, under which source, version and licence |
//! | `scan` | the first pass: is it text, its digest, which are duplicates |
//! | `select` | which documents are used, held out, or teach the tokenizer: pure functions of digests |
//! | [`tokenizer`] | byte-level BPE: trained, written, read, applied |
//! | [`megatron`] | the `.bin` and `.idx` formats |
//! | `write` | the texts, tokenized and written batch by batch |
//! | [`writer`] | a dataset written document by document: tokenizer, shards, provenance, manifest |
//! | `shards` | documents' tokens, in order, into shards of bounded size |
//! | [`documents`] | `documents.parquet`: one row a document |
//! | [`manifest`] | `dataset.json`: what a dataset holds and what it was made from |
//! | [`gzip`] | how far gzip compresses the validation text |
//! | [`staging`] | the hidden folder, its lock, and the rename that publishes it |
//! | [`dataset`] | the reader: checks, splits, windows of tokens |
//! | [`lookup`] | which document is where: `documents.parquet` read back, documents found by name |
//! | [`progress`] | what a build reports while it works |
//! | [`skip`] | why a file was left out |
//! | [`digest`] | BLAKE3 digests |
//! | [`error`] | what can go wrong, and what to do about it |

pub mod build;
pub mod corpus;
pub mod dataset;
pub mod digest;
pub mod documents;
pub mod error;
pub mod gzip;
pub mod lookup;
pub mod manifest;
pub mod megatron;
pub mod progress;
mod scan;
mod select;
mod shards;
pub mod skip;
pub mod staging;
pub mod tokenizer;
mod write;
pub mod writer;

pub use build::{BuildOptions, Built, build};
pub use corpus::Corpus;
pub use dataset::{Dataset, Split};
pub use digest::Digest;
pub use error::{DataError, ErrorKind};
pub use lookup::{DocumentRecord, Named};
pub use manifest::Manifest;
pub use progress::{Progress, Stage};
pub use shards::Part;
pub use staging::Staging;
pub use tokenizer::Tokenizer;
pub use writer::DatasetWriter;
