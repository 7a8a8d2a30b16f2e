//! Building from a spec, and one stage alone.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use lockstep_curate::read::SourceSettings;
use lockstep_curate::{Built, CurateError, Spec, Stage};

use crate::failure::Failure;
use crate::interrupt;
use crate::output::{Format, count, table};
use crate::progress::Progress;

/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(100);

/// One stage alone: documents in, documents out.
#[derive(Debug, clap::Args)]
pub(crate) struct StageArgs {
    /// Folders, files or globs of any format that `data build` reads; without any, the sources of the spec.
    #[arg(value_name = "PATH", required_unless_present = "spec")]
    paths: Vec<String>,
    /// A spec with the settings of the stage; the defaults without.
    #[arg(long, value_name = "SPEC")]
    spec: Option<PathBuf>,
    /// The folder for the documents that are left (JSON lines under zstd), what was dropped, and the report.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs one stage over documents.
pub(crate) fn stage(stage: Stage, args: StageArgs, format: Format) -> anyhow::Result<()> {
    let mut spec = match &args.spec {
        Some(path) => Spec::read(path)?,
        None => Spec::default(),
    };
    spec.stages = match stage {
        // What is right for a text, and whom it speaks of, is a matter of its language.
        Stage::Quality | Stage::Bias => vec![Stage::Language, stage],
        _ => vec![stage],
    };
    if !args.paths.is_empty() {
        spec.sources = sources(&args.paths);
    }
    finish(&spec, &args.out, format)
}

/// A source for each path, named after it.
fn sources(paths: &[String]) -> Vec<SourceSettings> {
    let mut sources: Vec<SourceSettings> = Vec::new();
    for path in paths {
        let stem = Path::new(path)
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let stem = stem
            .filter(|stem| !stem.contains('*'))
            .unwrap_or_else(|| "input".to_owned());
        let taken = |name: &str| sources.iter().any(|source| source.name == name);
        let numbered = (2..).map(|number| format!("{stem}-{number}"));
        let name = std::iter::once(stem.clone())
            .chain(numbered)
            .find(|name| !taken(name));
        sources.push(SourceSettings {
            name: name.unwrap_or(stem),
            path: path.clone(),
            ..SourceSettings::default()
        });
    }
    sources
}

/// Builds what a spec says.
pub(crate) fn build(spec: &Path, out: &Path, format: Format) -> anyhow::Result<()> {
    finish(&Spec::read(spec)?, out, format)
}

fn finish(spec: &Spec, out: &Path, format: Format) -> anyhow::Result<()> {
    let built = watched(spec, out, format)?;
    format.print(&built.report, |_| describe(out, &built))
}

/// Builds with progress on stderr. Ctrl-C stops it; what is done stays, for the same command to go on with.
fn watched(spec: &Spec, out: &Path, format: Format) -> anyhow::Result<Built> {
    lockstep_faults::arm("data")?;
    let interrupt = interrupt::heed()?;
    let progress = lockstep_curate::Progress::default();
    let built = thread::scope(|scope| {
        let work = scope.spawn(|| lockstep_curate::build(spec, out, &progress));
        let mut shown: Option<(&str, Progress)> = None;
        while !work.is_finished() {
            if interrupt.flag().load(std::sync::atomic::Ordering::Relaxed) {
                progress.stop();
            }
            if format == Format::Text {
                show(&progress, &mut shown);
            }
            thread::park_timeout(LOOK);
        }
        if let Some((phase, bar)) = shown {
            bar.finish(&format!("{phase}: done"));
        }
        work.join()
    });
    match built {
        Ok(Err(CurateError::Interrupted)) => {
            Err(Failure::Interrupted(CurateError::Interrupted.to_string()).into())
        }
        Ok(built) => Ok(built?),
        Err(_) => Err(anyhow::anyhow!(
            "the build ended in the middle; the same command goes on where it stopped"
        )),
    }
}

/// Shows what is being done now.
fn show(progress: &lockstep_curate::Progress, shown: &mut Option<(&'static str, Progress)>) {
    let Some(now) = progress.now() else { return };
    if shown.as_ref().is_none_or(|(phase, _)| *phase != now.phase) {
        if let Some((phase, bar)) = shown.take() {
            bar.finish(&format!("{phase}: done"));
        }
        *shown = Some((now.phase, Progress::new(now.phase, now.total)));
    }
    if let Some((_, bar)) = shown {
        bar.count_from(now.since, now.found);
        let rate = now.done.saturating_sub(now.found) as f64 / now.since.elapsed().as_secs_f64();
        let message = match now.unit {
            "bytes" => format!(
                "{:.1} of {:.1} MB, {:.1} MB/s",
                now.done as f64 / 1e6,
                now.total as f64 / 1e6,
                rate / 1e6
            ),
            unit => format!("{} of {} {unit}, {rate:.0}/s", count(now.done), count(now.total)),
        };
        bar.set(now.done, now.total, &message);
    }
}

/// What was built, in a few lines.
fn describe(out: &Path, built: &Built) -> String {
    let Built {
        report,
        manifest,
        reused,
    } = built;
    let verb = if *reused { "is there already" } else { "is built" };
    let mut text = match &report.digest {
        Some(digest) => format!("dataset {} {verb}, digest {digest}\n", out.display()),
        None => format!("documents {}: {verb}\n", out.display()),
    };
    let rows = report.stages.iter().filter_map(|stage| {
        let flow = report.counts.stages.get(stage)?;
        let mut dropped: Vec<_> = flow.dropped.iter().collect();
        dropped.sort_by(|a, b| b.1.documents.cmp(&a.1.documents).then(a.0.cmp(b.0)));
        let reasons: Vec<String> = dropped
            .iter()
            .take(3)
            .map(|(reason, tally)| format!("{reason} {}", count(tally.documents)))
            .collect();
        let more = if dropped.len() > 3 { ", …" } else { "" };
        Some([
            format!("  {stage}"),
            count(flow.given.documents),
            count(flow.passed.documents),
            format!("{:.1}", flow.passed.bytes as f64 / 1e6),
            format!("{}{more}", reasons.join(", ")),
        ])
    });
    text.push_str(&table(
        ["  stage", "given", "passed", "MB", "most dropped for"],
        rows,
    ));
    text.push('\n');
    for split in &report.splits {
        text.push_str(&format!(
            "  {}: {} documents, {} tokens\n",
            split.name,
            count(split.documents),
            count(split.tokens)
        ));
    }
    if let Some(manifest) = manifest {
        text.push_str(&format!(
            "  vocabulary: {} tokens\n",
            count(manifest.vocab_size as u64)
        ));
    }
    text.push_str(&format!("  report: {}", out.join("report.html").display()));
    text
}
