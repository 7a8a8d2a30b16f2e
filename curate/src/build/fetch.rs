//! The phase before all: what the addresses of lists lead to is fetched, once.

use std::path::PathBuf;

use rayon::ThreadPoolBuilder;

use super::input::FORMAT;
use super::run::Run;
use crate::error::CurateError;
use crate::fetch::{Client, Outcome};
use crate::records::{read_json, write_json};
use crate::work::{Key, Work};

const BODY: &str = "body";
const OUTCOME: &str = "outcome.json";

/// So many addresses are fetched at once: fetching is mostly waiting.
const AT_ONCE: usize = 8;

/// An address to fetch.
pub(super) struct Address<'a> {
    /// The source's number in the spec.
    pub(super) source: usize,
    pub(super) url: &'a str,
}

/// What came of each address, and where that is, in the order of the addresses. An address that failed is not tried again
/// by the build that goes on, unless none of its source answered.
pub(super) fn run(
    run: &Run<'_>,
    work: &Work,
    addresses: &[Address<'_>],
) -> Result<Vec<(Outcome, PathBuf)>, CurateError> {
    let sources = &run.spec.sources;
    let max_bytes = |address: &Address<'_>| sources.get(address.source).map_or(0, |source| source.max_bytes);
    let decides: Vec<_> = addresses
        .iter()
        .map(|address| (address.url, max_bytes(address)))
        .collect();
    let phase = work.phase("fetch", &Key::new("fetch", &(FORMAT, decides), &[])?)?;
    let wrong = |problem| CurateError::Spec { path: None, problem };
    let client = Client::new().map_err(wrong)?;
    let pool = ThreadPoolBuilder::new().num_threads(AT_ONCE).build();
    let pool = pool.map_err(|error| wrong(error.to_string()))?;
    run.progress.enter("fetch", addresses.len() as u64, "addresses");
    pool.install(|| {
        phase.run(
            addresses.len(),
            run.progress,
            |_| 1,
            |task, folder| {
                let Some(address) = addresses.get(task) else {
                    return Ok(());
                };
                let body = folder.join(BODY);
                let outcome = client.fetch(address.url, max_bytes(address), &body, run.progress)?;
                run.progress.advance(1);
                write_json(folder.join(OUTCOME), &outcome)
            },
        )
    })?;
    let outcomes: Vec<(Outcome, PathBuf)> = (0..addresses.len())
        .map(|task| {
            let folder = phase.task(task);
            Ok((read_json(&folder.join(OUTCOME))?, folder.join(BODY)))
        })
        .collect::<Result<_, CurateError>>()?;
    for (number, source) in sources.iter().enumerate() {
        let of_this = addresses.iter().zip(&outcomes);
        let of_this = of_this.filter(|(address, _)| address.source == number);
        if let Some(detail) = silence(of_this.map(|(_, (outcome, _))| outcome)) {
            phase.remove()?;
            return Err(CurateError::Unreachable {
                source_name: source.name.clone(),
                problem: format!("none of its addresses answers; of the first: {detail}"),
            });
        }
    }
    Ok(outcomes)
}

/// The detail of the first, if all are failures that may pass by themselves.
fn silence<'o>(outcomes: impl Iterator<Item = &'o Outcome>) -> Option<&'o str> {
    let mut first = None;
    for outcome in outcomes {
        match outcome {
            Outcome::Failed(failure) if failure.is_passing => first = first.or(Some(&*failure.detail)),
            _ => return None,
        }
    }
    first
}
