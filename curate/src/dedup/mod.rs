//! The same document, paragraph or nearly the same document again.
//!
//! Three ways to find what was seen before, all by the same pattern. Each task writes a **part**: what its documents
//! look like, in their order. Over all parts, tasks that need nothing of each other sort **slices** of what the parts
//! say, on disk, and write what is equal. One last pass over that, with four bytes of memory for each document,
//! says what to drop:
//!
//! ```text
//! exact   text ─ digest ────────► part ─ edges (slice) ──────────┐
//! near    text ─ MinHash bands ─► part ─ edges (band, slice) ────┴► compare (slice) ─► drops: document, kept, size
//! passage text ─ digests ───────► part ─ removals (slice) ───────────────────────────► removals: document, passages
//! ```
//!
//! A document's **ordinal** is its place in all parts, one after the other in the order in which they are given.
//! That order decides what is "first"; nothing else does: the same parts in the same order give the same files,
//! however the work is sliced and in whatever order its tasks run.
//!
//! Every file appears under its name only when it is whole, synced and renamed, and ends in its length and checksum
//! ([`finished`] looks for them). Each function that makes a file leaves one alone that is finished. What a killed
//! process leaves behind is hidden, ends in `.partial`, and can be removed whenever no task runs.
//!
//! | module | concept |
//! |---|---|
//! | [`settings`] | what is a near-duplicate, which of a cluster stays, how much memory a sort takes |
//! | [`exact`] | documents whose text is the same |
//! | [`passages`] | paragraphs and long lines that were seen before |
//! | [`bloom`] | the same in a fixed amount of memory, at a known rate of error |
//! | [`shingles`] | words, and the hashes of every five of them |
//! | [`minhash`] | signatures: how similar two documents are from 112 numbers each |
//! | [`part`] | the file of a task's signatures |
//! | [`bands`] | documents that share a bucket of a band |
//! | [`clusters`] | who is joined to whom, and who stays |
//! | [`sort`], [`table`] | external sort and its files |

pub mod bands;
pub mod bloom;
pub mod clusters;
mod error;
pub mod exact;
pub mod minhash;
pub mod part;
pub mod passages;
pub mod settings;
pub mod shingles;
pub mod sort;
pub mod table;

pub use bloom::Bloom;
pub use clusters::{Duplicate, compare, drops, read_drops};
pub use error::DedupError;
pub use minhash::{Signature, Signer};
pub use part::{PartWriter, Parts};
pub use settings::{Keep, NearSettings, Slice, SortSettings};
pub use table::finished;
