//! SPDX gate, opt-outs, exclusion lists.
//!
//! A [`Gate`] decides by what a document's record says of itself and by what the user keeps out: an exclusion by digest
//! first (this is what erasure uses), then by pattern, then opt-outs, then the licence.
//!
//! Licences are SPDX expressions, evaluated over AND, OR and WITH: of an OR, one allowed licence is enough. What is no
//! SPDX expression but commonly written, such as `MIT/Apache-2.0`, `GPLv3` or the address of a Creative Commons licence,
//! is read as what it means ([`fn@read`]). Settings name licences, families of them (`BSD-*`), or groups of them.

mod exclude;
mod gate;
mod groups;
mod opt_out;
mod read;
mod settings;

pub use gate::{Gate, GateError};
pub use groups::{GROUPS, members};
pub use read::read;
pub use settings::{Exclude, Missing, Settings};
