//! One stage over the documents of a file: what it does, and what that took.

use std::fmt::Display;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use lockstep_curate::decontaminate::{self, IndexBuilder, Scratch};
use lockstep_curate::dedup::bands::edges;
use lockstep_curate::dedup::{
    NearSettings, PartWriter, Parts, Signer, Slice, SortSettings, drops, read_drops,
};
use lockstep_curate::pii::{self, Detector};
use lockstep_curate::quality::{self, Rules};
use lockstep_curate::read::SourceSettings;
use lockstep_curate::{Progress, Spec, language};
use lockstep_data::tokenizer::{Cuts, END_OF_TEXT, Tokenizer};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::{Stage, Took, input};
use crate::Error;

/// Documents that are read between two looks at the clock.
const BATCH: usize = 256;

/// What a process, ours or a peer's, is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The stage.
    pub stage: Stage,
    /// The documents: JSON lines.
    pub input: PathBuf,
    /// Bytes of text that are looked at, or a document more.
    pub bytes: u64,
    /// An empty folder, for what the stage leaves.
    pub folder: PathBuf,
    /// The tokenizer, for `tokens`; written by `train`.
    pub tokenizer: PathBuf,
    /// Where `tokens` leaves the ids, 4 bytes each.
    pub ids: PathBuf,
    /// Tokens of a trained tokenizer.
    pub vocab_size: usize,
}

/// Does what the plan says, in this process.
///
/// # Errors
/// If the input cannot be read, or the stage fails.
pub fn measure(plan: &Plan) -> Result<Took, Error> {
    let mut meter = Meter::default();
    match plan.stage {
        Stage::Read => read(plan, &mut meter)?,
        Stage::Language => meter.each(plan, |text| Ok(language::identify(text).language.is_some()))?,
        Stage::Filters => filters(plan, &mut meter)?,
        Stage::Decontaminate => decontaminate(plan, &mut meter)?,
        Stage::Pii => {
            let detector = Detector::new(&pii::Settings::default()).map_err(failed("pii"))?;
            meter.each(plan, |text| Ok(detector.clean(text).verdict.is_none()))?;
        }
        Stage::Minhash => minhash(plan, &mut meter)?,
        Stage::Train => train(plan, &mut meter)?,
        Stage::Tokens => tokens(plan, &mut meter)?,
        Stage::Build => build(plan, &mut meter)?,
    }
    meter.took.peak_bytes = peak_bytes()?;
    Ok(meter.took)
}

fn failed<E: Display>(stage: &'static str) -> impl Fn(E) -> Error {
    move |error| Error::Drill(format!("{stage}: {error}"))
}

/// What was done so far, and the time that it took.
#[derive(Default)]
struct Meter {
    took: Took,
}

impl Meter {
    fn timed<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (clock, processor) = (Instant::now(), processor_seconds());
        let done = work();
        self.took.processor_seconds += processor_seconds() - processor;
        self.took.seconds += clock.elapsed().as_secs_f64();
        done
    }

    /// Times what is done with each document, and not how it is read; `work` says whether it is kept.
    fn each(&mut self, plan: &Plan, mut work: impl FnMut(&str) -> Result<bool, Error>) -> Result<(), Error> {
        self.batches(plan, |texts| {
            texts
                .iter()
                .try_fold(0, |kept, text| Ok(kept + u64::from(work(text)?)))
        })
    }

    fn batches(
        &mut self,
        plan: &Plan,
        mut work: impl FnMut(&mut Vec<String>) -> Result<u64, Error>,
    ) -> Result<(), Error> {
        let mut texts = Vec::with_capacity(BATCH);
        let mut done = |texts: &mut Vec<String>| {
            let kept = self.timed(|| work(texts))?;
            self.took.kept += kept;
            texts.clear();
            Ok::<(), Error>(())
        };
        let (mut bytes, mut documents, mut outcome) = (0, 0, Ok(()));
        input::each(&plan.input.display().to_string(), &mut |text| {
            bytes += text.len() as u64;
            documents += 1;
            texts.push(text);
            if texts.len() == BATCH {
                outcome = done(&mut texts);
            }
            if outcome.is_err() || bytes >= plan.bytes {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        outcome?;
        done(&mut texts)?;
        self.took.bytes = bytes;
        self.took.documents = documents;
        Ok(())
    }
}

fn read(plan: &Plan, meter: &mut Meter) -> Result<(), Error> {
    let mut took = Took::default();
    let read = meter.timed(|| {
        input::each(&plan.input.display().to_string(), &mut |text| {
            took.bytes += text.len() as u64;
            took.documents += 1;
            if took.bytes >= plan.bytes {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
    });
    (meter.took.bytes, meter.took.documents, meter.took.kept) = (took.bytes, took.documents, took.documents);
    read
}

fn filters(plan: &Plan, meter: &mut Meter) -> Result<(), Error> {
    let rules = Rules::new(&quality::Settings::default()).map_err(failed("filters"))?;
    let mut scorer = rules.scorer();
    meter.each(plan, |text| {
        let scores = scorer.score(text, Some("eng"));
        Ok(rules.verdict(&scores, Some("eng"), false).is_none())
    })
}

/// Looks for every hundredth line that is long enough to be an item.
fn decontaminate(plan: &Plan, meter: &mut Meter) -> Result<(), Error> {
    let mut items =
        IndexBuilder::new(&decontaminate::Settings::default()).map_err(failed("decontaminate"))?;
    let mut number = 0;
    Meter::default().each(plan, |text| {
        for line in text.lines().filter(|line| line.len() > 100) {
            number += 1;
            if number % 100 == 0 {
                let item = serde_json::json!({ "text": line }).to_string();
                items
                    .add("lines", number, &item)
                    .map_err(failed("decontaminate"))?;
            }
        }
        Ok(true)
    })?;
    let (index, mut scratch) = (items.finish(), Scratch::default());
    meter.each(plan, |text| Ok(index.scan(text, &mut scratch).is_empty()))
}

fn minhash(plan: &Plan, meter: &mut Meter) -> Result<(), Error> {
    let settings = NearSettings::default();
    let (part, out) = (plan.folder.join("signatures"), plan.folder.join("drops"));
    let mut signer = Signer::new(&settings).map_err(failed("minhash"))?;
    let mut writer = PartWriter::create(&part, &settings).map_err(failed("minhash"))?;
    meter.each(plan, |text| {
        let rank = settings.keep.rank(text.len(), 0.0);
        writer.push(signer.sign(text), rank).map_err(failed("minhash"))?;
        Ok(true)
    })?;
    let clusters = || {
        writer.commit()?;
        let parts = Parts::open(&[part], &settings)?;
        let sort = SortSettings::new(&plan.folder);
        let mut tables = Vec::new();
        for band in 0..settings.bands {
            let table = plan.folder.join(format!("edges-{band}"));
            edges(&parts, band, Slice::new(0, 1), &sort, &table)?;
            tables.push(table);
        }
        drops(parts.documents(), &tables, parts.ranks(), &out)?;
        Ok(read_drops(&out)?.count() as u64)
    };
    let dropped = meter
        .timed(clusters)
        .map_err(failed::<lockstep_curate::dedup::DedupError>("minhash"))?;
    meter.took.kept -= dropped;
    Ok(())
}

/// All texts at once, as training needs them.
fn texts(plan: &Plan) -> Result<(Vec<String>, Took), Error> {
    let (mut all, mut reader) = (Vec::new(), Meter::default());
    reader.batches(plan, |texts| {
        all.append(texts);
        Ok(0)
    })?;
    reader.took.kept = reader.took.documents;
    (reader.took.seconds, reader.took.processor_seconds) = (0.0, 0.0);
    Ok((all, reader.took))
}

fn train(plan: &Plan, meter: &mut Meter) -> Result<(), Error> {
    let (texts, read) = texts(plan)?;
    meter.took = read;
    let tokenizer = meter.timed(|| Tokenizer::train(&texts, plan.vocab_size))?;
    let written = fs::write(&plan.tokenizer, tokenizer.to_json()?);
    written.map_err(Error::system(format!("write {}", plan.tokenizer.display())))
}

fn tokens(plan: &Plan, meter: &mut Meter) -> Result<(), Error> {
    let tokenizer = Tokenizer::open(&plan.tokenizer, END_OF_TEXT)?.with_cuts(Cuts::BetweenWords);
    let mut ids = Vec::new();
    meter.each(plan, |text| {
        ids.extend(tokenizer.encode(text)?);
        Ok(true)
    })?;
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    fs::write(&plan.ids, bytes).map_err(Error::system(format!("write {}", plan.ids.display())))
}

/// By the defaults, with a tokenizer of the plan's size.
fn build(plan: &Plan, meter: &mut Meter) -> Result<(), Error> {
    let mut spec = Spec {
        name: "bench".to_owned(),
        sources: vec![SourceSettings {
            name: "input".to_owned(),
            path: plan.input.display().to_string(),
            ..SourceSettings::default()
        }],
        ..Spec::default()
    };
    spec.tokenizer.vocab_size = plan.vocab_size;
    let out = plan.folder.join("dataset");
    let built = meter.timed(|| lockstep_curate::build(&spec, &out, &Progress::default()));
    let built = built.map_err(failed("build"))?;
    let read = built.report.counts.stages.get("read");
    let given = read.map(|flow| flow.given).unwrap_or_default();
    (meter.took.bytes, meter.took.documents) = (given.bytes, given.documents);
    meter.took.kept = built.report.splits.iter().map(|split| split.documents).sum();
    Ok(())
}

/// Time on processors of all threads of this process, in seconds.
fn processor_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The most memory that was resident.
fn peak_bytes() -> Result<u64, Error> {
    let status = Path::new("/proc/self/status");
    let text = fs::read_to_string(status).map_err(Error::system("read /proc/self/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kib.unwrap_or(0) * 1024)
}
