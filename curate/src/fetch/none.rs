//! In place of the client, in builds without one.

use std::path::Path;

use super::Outcome;
use crate::error::CurateError;
use crate::progress::Progress;

const NONE: &str =
    "this build fetches nothing; build with `--features remote`, or fetch the files into a folder";

/// There is none.
pub(crate) enum Client {}

impl Client {
    pub(crate) fn new() -> Result<Self, String> {
        Err(NONE.to_owned())
    }

    pub(crate) fn fetch(&self, _: &str, _: u64, _: &Path, _: &Progress) -> Result<Outcome, CurateError> {
        match *self {}
    }
}

pub(super) fn parse(_: &str) -> Result<String, String> {
    Err(NONE.to_owned())
}
