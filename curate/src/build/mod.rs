//! A dataset from a spec: phases of tasks, each done once, whenever whoever did them died.
//!
//! | phase | its tasks | leaves |
//! |---|---|---|
//! | `fetch` | one an address of a list | what it gave, or why nothing |
//! | `documents` | one a unit of input | what is kept and dropped of it, and what it looks like to the next phases |
//! | `duplicates` | one a slice for exact ones and one a band, then one that joins all, and one that joins exact ones | which documents go |
//! | `passages` | one a unit, then one a slice | which paragraphs go |
//! | `sample` | one a unit, then one that trains | the tokenizer |
//! | `tokens` | one a unit | tokens and rows of each split, or the documents as lines |
//!
//! What is left is put together in the order of the units, into the dataset, by one task that copies, reading ahead; beside it
//! the table of what was dropped is written, and gzip measured.

mod assemble;
mod batches;
mod documents;
mod dropped;
mod duplicates;
mod fetch;
mod input;
mod kept;
mod line;
mod mix;
mod row;
mod run;
mod sample;
mod tokens;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use lockstep_data::manifest::{FILE_NAME, Manifest};
use lockstep_data::staging::{is_free, resolve};

use crate::crew::{Alone, Crew, OpenTasks};
use crate::error::CurateError;
use crate::progress::Progress;
use crate::records::read_json;
use crate::report::Report;
use crate::screen::Screen;
use crate::spec::Spec;
use crate::work::{Key, Work};
use input::Sources;
use run::Run;

pub use mix::Share;

/// What tells whether a folder holds what a spec describes: the fingerprint of spec and input.
const BUILD_FILE: &str = "build.txt";
const REPORT_FILE: &str = "report.json";
/// Between two looks at whether another process has written the dataset.
const PAUSE: Duration = Duration::from_millis(200);
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a build left.
#[derive(Clone, Debug, PartialEq)]
pub struct Built {
    /// What is in it, and what is not.
    pub report: Report,
    /// The dataset's manifest, if tokens were made.
    pub manifest: Option<Manifest>,
    /// Whether it was there before, built from the same input with the same spec.
    pub reused: bool,
}

/// Builds what `spec` describes into the folder `out`, which must not exist, or be empty, or hold just that.
///
/// Runs on rayon's current pool. What is done is kept in the folder `OUT.work` beside it, where the same call goes on after
/// it was interrupted or killed, and which is gone at the end.
///
/// # Errors
/// As [`CurateError`] tells; what is done so far stays.
pub fn build(spec: &Spec, out: &Path, progress: &Progress) -> Result<Built, CurateError> {
    build_with(spec, out, progress, Arc::new(Alone))
}

/// [`build()`] by a crew: every process of it calls this with the same spec and `out`, and sees the same input.
///
/// # Errors
/// Likewise.
pub fn build_with(
    spec: &Spec,
    out: &Path,
    progress: &Progress,
    crew: Arc<dyn Crew>,
) -> Result<Built, CurateError> {
    let wrong = |problem| CurateError::Spec { path: None, problem };
    spec.check().map_err(wrong)?;
    if spec.sources.is_empty() {
        let problem = "source: there is none; add a [[source]] with `name` and `path`";
        return Err(wrong(problem.to_owned()));
    }
    let out = &resolve(out)?;
    let sources = Sources::look_at(spec)?;
    let fingerprint = Key::new("build", spec, &[&sources.key])?.to_string();
    let run = Run::new(spec, out, progress, fingerprint.clone());
    let work_folder = run.work_folder()?;
    if let Some(standing) = standing(out, &fingerprint)? {
        Work::sweep(&work_folder)?;
        return Ok(standing);
    }
    in_phases(run, sources, &crew).or_else(|error| match (crew.name(), standing(out, &fingerprint)) {
        // Another process wrote it, and has removed the work folder under this one's hands.
        (Some(_), Ok(Some(standing))) => {
            Work::sweep(&work_folder)?;
            Ok(standing)
        }
        _ => Err(error),
    })
}

fn in_phases(mut run: Run<'_>, sources: Sources, crew: &Arc<dyn Crew>) -> Result<Built, CurateError> {
    let work = Work::open(&run.work_folder()?, Arc::clone(crew))?;
    let screen = Screen::new(run.spec)?;
    let input = if sources.are_here() {
        sources.fetch(&run, &work)?
    } else {
        run.phase("fetch", |run| sources.fetch(run, &work))?
    };
    let documents = run.phase("read and filter", |run| {
        documents::run(run, &work, &input, &screen)
    })?;
    let duplicates = run.phase("find duplicates", |run| duplicates::run(run, &work, &documents))?;
    let kept = run.phase("find passages", |run| {
        kept::run(run, &work, documents, duplicates)
    })?;
    let learned = run.phase("learn the tokenizer", |run| sample::run(run, &work, &kept))?;
    let tokens = run.phase("tokenize", |run| {
        tokens::run(run, &work, &kept, &learned, &screen)
    })?;
    let written = run.phase("write", |run| {
        let (run, written) = (&*run, Mutex::new(None));
        // Processes of a crew that are both at it write in places of their own; the first to publish wins.
        let place = work.own_place("dataset");
        crew.run(OpenTasks {
            phase: &format!("write-{}", run.fingerprint.get(..Key::SHORT).unwrap_or_default()),
            tasks: 1,
            open: vec![0],
            do_one: &|_| {
                let built = assemble::run(run, &place, &screen, &kept, &learned, &tokens)?;
                *written.lock().unwrap_or_else(PoisonError::into_inner) = Some(built);
                // Before the others hear of it, as they all leave then.
                work.remove()
            },
        })?;
        Ok(written.into_inner().unwrap_or_else(PoisonError::into_inner))
    })?;
    match written {
        Some(built) => Ok(built),
        None => written_by_another(&run),
    }
}

/// What another process has written, which a file system may not show at once.
fn written_by_another(run: &Run<'_>) -> Result<Built, CurateError> {
    let since = Instant::now();
    loop {
        if let Some(standing) = standing(run.out, &run.fingerprint)? {
            return Ok(standing);
        }
        run.progress.check()?;
        if since.elapsed() > PATIENCE {
            let problem = "another process has written it; do all nodes see the same folder?";
            let source = io::Error::new(io::ErrorKind::NotFound, problem);
            return Err(CurateError::io("open the dataset", run.out, source));
        }
        thread::sleep(PAUSE);
    }
}

/// What stands at `out` already, if it is what is wanted; none if nothing stands there.
fn standing(out: &Path, fingerprint: &str) -> Result<Option<Built>, CurateError> {
    let occupied = |holds| {
        Err(CurateError::Occupied {
            path: out.to_owned(),
            holds,
        })
    };
    if is_free(out)? {
        return Ok(None);
    }
    match fs::read_to_string(out.join(BUILD_FILE)) {
        Ok(found) if found == fingerprint => {}
        Ok(_) => return occupied("holds what was built with another spec or from other input"),
        Err(_) => return occupied("holds files that no build of this kind wrote"),
    }
    let manifest = out
        .join(FILE_NAME)
        .exists()
        .then(|| Manifest::read(out))
        .transpose()?;
    Ok(Some(Built {
        report: read_json(&out.join(REPORT_FILE))?,
        manifest,
        reused: true,
    }))
}
