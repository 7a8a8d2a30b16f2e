//! Raw text in, documents worth training on out.
//!
//! Every judgement of a document is a pure function of its text and of the spec: the same input and spec give the same
//! bytes, whatever the number of threads, of processes, or of times that it was interrupted.
//!
//! | module | concept |
//! |---|---|
//! | [`spec`] | the spec: sources, settings of each stage, what comes out |
//! | [`build`](mod@build) | phases of tasks, from the spec to a dataset, resumed after any death |
//! | [`document`] | a document, where it comes from, and what is left out with a reason |
//! | [`read`] | text, Markdown, HTML, source trees, JSONL, CSV, Parquet, WARC as documents |
//! | [`normalise`] | NFC, control characters, broken encodings: what was changed is counted |
//! | [`language`] | which language and script, how surely, and whether there are several |
//! | [`words`] | words, sentences, lines and paragraphs, as all filters count them |
//! | [`quality`] | Gopher, C4, FineWeb and code: scores, and the thresholds that drop |
//! | [`dedup`] | the same document, paragraph or nearly the same document again |
//! | [`pii`] | e-mail, phone, cards, national ids, keys: found, validated, redacted |
//! | [`licence`] | SPDX gate, opt-outs, exclusion lists |
//! | [`decontaminate`] | documents that hold questions of an evaluation |
//! | [`bias`] | whom the text speaks of, and whom a filter drops |
//! | `screen` | the stages that look at one document |
//! | [`counts`] | what went in, came out, and why not |
//! | [`report`] | `report.html` and `report.json` |
//! | [`progress`] | what a build does now, and the wish to stop |
//! | [`crew`] | who does the tasks: the threads of one process, or of several |
//! | `fetch`, `runtime` | addresses of lists, and what came of them |
//! | `work`, `records` | the work folder: tasks that are done or not, and their files |
//! | [`error`] | what can go wrong, and what to do about it |

pub mod bias;
pub mod build;
pub mod counts;
pub mod crew;
pub mod curated;
pub mod decontaminate;
pub mod dedup;
pub mod document;
pub mod error;
mod fetch;
pub mod language;
pub mod licence;
pub mod normalise;
pub mod pii;
pub mod progress;
pub mod quality;
pub mod read;
mod records;
pub mod report;
#[cfg(feature = "remote")]
mod runtime;
mod screen;
pub mod spec;
mod spent;
pub mod words;
mod work;

pub use build::{Built, build, build_with};
pub use curated::Curated;
pub use document::{Document, Dropped, Origin};
pub use error::CurateError;
pub use progress::Progress;
pub use report::Report;
pub use spec::{Spec, Stage};
