//! The stages that look at one document: what is kept of it, or why it is not.

use std::borrow::Cow;
use std::fs;
use std::path::Path;
use std::time::Instant;

use lockstep_data::Digest;

use crate::bias::{self, Auditor, Lexicon, Observed};
use crate::counts::{Counts, Tally, entry};
use crate::curated::{Curated, DocumentLanguage};
use crate::decontaminate::{self, Index, IndexBuilder, Policy, Scratch};
use crate::document::{Document, Dropped};
use crate::error::CurateError;
use crate::licence::Gate;
use crate::pii::Detector;
use crate::quality::{Rules, Scale, Scorer, Scores};
use crate::report::SCORE_BIN;
use crate::spec::{Spec, Stage};
use crate::spent::Spent;
use crate::{language, licence, normalise, pii};

/// The stages of a spec, ready for use by any number of threads.
pub(crate) struct Screen {
    spec: Spec,
    rules: Rules,
    gate: Gate,
    /// None without sets to look for.
    evaluations: Option<Index>,
    /// Their names, in the order of their numbers.
    sets: Vec<String>,
    detector: Detector,
    /// None without an audit.
    auditor: Option<Auditor>,
}

/// A thread's own buffers, and what it counted.
pub(crate) struct Screener<'s> {
    screen: &'s Screen,
    scorer: Scorer<'s>,
    scratch: Scratch,
    pub(crate) counts: Counts,
    pub(crate) audit: bias::Counts,
    pub(crate) contamination: decontaminate::Report,
    pub(crate) spent: Spent,
}

/// Why a document is dropped.
type Verdict = (&'static str, String);

impl Screen {
    /// Prepares the stages: reads evaluation sets, lexicons and exclusion lists.
    pub(crate) fn new(spec: &Spec) -> Result<Self, CurateError> {
        let rules = Rules::new(&spec.quality).map_err(|problem| wrong(format!("quality: {problem}")))?;
        let mut gate = Gate::new(&spec.licence).map_err(|error| wrong(error.to_string()))?;
        for path in &spec.licence.exclude.digests {
            let list = text_of(path)?;
            let added = gate.exclude_digests(&list);
            added.map_err(|error| wrong(format!("{}: {error}", path.display())))?;
        }
        let auditor = spec.runs(Stage::Bias).then(|| auditor(&spec.bias)).transpose()?;
        Ok(Self {
            rules,
            gate,
            evaluations: evaluations(spec)?,
            sets: spec.decontaminate.sets.keys().cloned().collect(),
            detector: Detector::new(&spec.pii).map_err(|error| wrong(error.to_string()))?,
            auditor,
            spec: spec.clone(),
        })
    }

    /// Buffers for a thread.
    pub(crate) fn screener(&self) -> Screener<'_> {
        Screener {
            screen: self,
            scorer: self.rules.scorer(),
            scratch: Scratch::default(),
            counts: Counts::default(),
            audit: bias::Counts::default(),
            contamination: self.contamination(),
            spent: Spent::default(),
        }
    }

    /// Counts a document in that is kept, or dropped for a reason, if there is an audit.
    pub(crate) fn observe(&self, counts: &mut bias::Counts, document: &Curated, dropped: Option<&str>) {
        if let Some(auditor) = &self.auditor {
            auditor.observe(
                counts,
                &Observed {
                    text: &document.text,
                    language: document.language.code.as_deref(),
                    script: document.language.script.as_deref(),
                    source: &document.origin.source,
                    url: document.url.as_deref(),
                    dropped,
                },
            );
        }
    }

    /// What is looked for, of which nothing is found yet.
    pub(crate) fn contamination(&self) -> decontaminate::Report {
        let index = self.evaluations.as_ref();
        index.map(decontaminate::Report::new).unwrap_or_default()
    }

    /// What the audit says, if there is one.
    pub(crate) fn audit(&self, counts: &bias::Counts) -> Option<bias::Report> {
        Some(self.auditor.as_ref()?.report(counts))
    }
}

fn wrong(problem: String) -> CurateError {
    CurateError::Spec { path: None, problem }
}

fn text_of(path: &Path) -> Result<String, CurateError> {
    fs::read_to_string(path).map_err(|error| CurateError::unreadable(path, &error))
}

/// An auditor with the lexicons of the settings, or those that come with the program.
fn auditor(settings: &bias::Settings) -> Result<Auditor, CurateError> {
    let failed = |error: bias::LexiconError| wrong(format!("bias: {error}"));
    let given = settings.lexicons.iter().map(|path| {
        let name = path.display().to_string();
        let lexicon = Lexicon::parse(&name, &text_of(path)?).map_err(failed)?;
        Ok((name, lexicon))
    });
    let mut lexicons = given.collect::<Result<Vec<_>, CurateError>>()?;
    if lexicons.is_empty() {
        lexicons = Lexicon::built_in().map_err(failed)?;
    }
    Auditor::new(settings.clone(), &lexicons).map_err(failed)
}

/// The index of the evaluation sets, if there are any.
fn evaluations(spec: &Spec) -> Result<Option<Index>, CurateError> {
    let settings = &spec.decontaminate;
    if !spec.runs(Stage::Decontaminate) || settings.sets.is_empty() {
        return Ok(None);
    }
    let mut builder = IndexBuilder::new(settings).map_err(|error| wrong(error.to_string()))?;
    for (set, path) in &settings.sets {
        for (number, line) in (0..).zip(text_of(path)?.lines()) {
            builder
                .add(set, number, line)
                .map_err(|error| CurateError::Spec {
                    path: Some(path.clone()),
                    problem: error.to_string(),
                })?;
        }
    }
    Ok(Some(builder.finish()))
}

impl Screener<'_> {
    /// Puts a document, whose text has this digest, through the stages.
    pub(crate) fn screen(&mut self, mut document: Document, before: Digest) -> Result<Curated, Box<Dropped>> {
        let bytes = document.text.len();
        let read = self.counts.stage(Stage::Read.name());
        read.pass(bytes, bytes);
        // Other encodings than UTF-8 by their names, and bytes that are lost.
        if let Some(recoded) = &document.recoded {
            let from = (recoded.from, u64::from(recoded.from != "UTF-8"));
            read.alter([from, ("replaced", recoded.replaced)]);
        }
        let mut found = Findings::default();
        for stage in self.screen.spec.in_order() {
            let (given, since) = (document.text.len(), Instant::now());
            let passed = match stage {
                Stage::Normalise => self.normalise(&mut document),
                Stage::Language => self.language(&document, &mut found),
                Stage::Licence => self.licence(&mut document, &before),
                Stage::Quality => self.quality(&mut document, &mut found),
                Stage::Decontaminate => self.decontaminate(&mut document, &mut found),
                Stage::Pii => self.pii(&mut document, &mut found),
                Stage::Read | Stage::Dedup | Stage::Bias | Stage::Tokenize => continue,
            };
            self.spent.on(stage, since);
            let flow = self.counts.stage(stage.name());
            if let Err((reason, detail)) = passed {
                flow.drop(given, reason, found.language.code.as_deref());
                self.score_dropped(&document, &mut found);
                let dropped = curated(document, found, before);
                self.screen.observe(&mut self.audit, &dropped, Some(reason));
                return Err(Box::new(Dropped {
                    origin: dropped.origin,
                    stage: stage.name().into(),
                    reason: reason.into(),
                    detail,
                    kept: None,
                    language: dropped.language.code,
                    scores: dropped.scores,
                }));
            }
            flow.pass(given, document.text.len());
        }
        Ok(curated(document, found, before))
    }

    fn normalise(&mut self, document: &mut Document) -> Result<(), Verdict> {
        let settings = &self.screen.spec.normalise;
        if let Some(verdict) = normalise::verdict(&document.text, settings) {
            return Err(verdict);
        }
        let normalised = normalise::normalise(&document.text, settings);
        let flow = self.counts.stage(Stage::Normalise.name());
        flow.alter(normalised.changes.iter());
        let altered = owned(normalised.text);
        replace(&mut document.text, altered);
        if document.text.trim().is_empty() {
            return Err(("normalise.empty", "nothing is left of the text".to_owned()));
        }
        Ok(())
    }

    fn language(&mut self, document: &Document, found: &mut Findings) -> Result<(), Verdict> {
        let bytes = Tally::one(document.text.len());
        if document.is_code {
            *entry(&mut self.counts.languages_read, "code") += bytes;
            return Ok(());
        }
        let settings = &self.screen.spec.language;
        let identified = language::identify(&document.text);
        let language = identified.language.unwrap_or("unknown");
        *entry(&mut self.counts.languages_read, language) += bytes;
        found.language = DocumentLanguage {
            code: identified.language.map(str::to_owned),
            script: identified.script.map(str::to_owned),
            confidence: identified.confidence as f32,
            // No share is -0.
            other_share: identified.other_share() as f32 + 0.0,
            is_mixed: settings.is_mixed(&identified),
        };
        let claimed = document.language.as_deref();
        let false_claim = || language::verdict_on_claim(&identified, claimed?, settings);
        let verdict = language::verdict(&identified, settings).or_else(false_claim);
        verdict.map_or(Ok(()), Err)
    }

    fn licence(&mut self, document: &mut Document, before: &Digest) -> Result<(), Verdict> {
        let bytes = document.recoded.as_ref().map(|recoded| recoded.original);
        let digests = [Some(*before), bytes].into_iter().flatten();
        let digests: Vec<[u8; 32]> = digests.map(|digest| *digest.as_bytes()).collect();
        if let Some(verdict) = self.screen.gate.verdict(document, &digests) {
            return Err(verdict);
        }
        // As what it means, so that reports count one licence under one name.
        if let Some(read) = document.licence.as_deref().and_then(licence::read) {
            document.licence = Some(read.to_string());
        }
        Ok(())
    }

    fn quality(&mut self, document: &mut Document, found: &mut Findings) -> Result<(), Verdict> {
        let language = found.language.code.as_deref();
        let scores = self.scorer.score(&document.text, language);
        for rule in self.screen.rules.applying(language, document.is_code) {
            let Some(value) = rule.value(&scores) else {
                continue;
            };
            let histogram = entry(&mut self.counts.scores, rule.code);
            match rule.scale {
                Scale::Share => histogram.add_linear(value.min(1.0) as f32, SCORE_BIN),
                Scale::Count => histogram.add_log2(value as u64),
            }
        }
        let verdict = self.screen.rules.verdict(&scores, language, document.is_code);
        found.scores = Some(Box::new(scores));
        if let Some(reason) = verdict {
            return Err((reason.code, reason.detail));
        }
        if self.screen.spec.quality.clean_lines && !document.is_code {
            let cleaned = self.scorer.clean(&document.text, language);
            let flow = self.counts.stage(Stage::Quality.name());
            flow.alter(cleaned.lines.changes());
            let cleaned = owned(cleaned.text);
            replace(&mut document.text, cleaned);
            if document.text.is_empty() {
                return Err((
                    "c4.lines",
                    "no line is left that ends as a sentence does".to_owned(),
                ));
            }
        }
        Ok(())
    }

    /// What an earlier stage drops has scores too: so thresholds can be chosen by all documents.
    fn score_dropped(&mut self, document: &Document, found: &mut Findings) {
        let has_text = !document.text.trim().is_empty();
        if found.scores.is_none() && has_text && self.screen.spec.runs(Stage::Quality) {
            let since = Instant::now();
            let language = found.language.code.as_deref();
            found.scores = Some(Box::new(self.scorer.score(&document.text, language)));
            self.spent.on(Stage::Quality, since);
        }
    }

    fn decontaminate(&mut self, document: &mut Document, found: &mut Findings) -> Result<(), Verdict> {
        let Some(index) = &self.screen.evaluations else {
            return Ok(());
        };
        let contamination = index.scan(&document.text, &mut self.scratch);
        self.contamination.add(index, &contamination);
        if contamination.is_empty() {
            return Ok(());
        }
        let mut sets: Vec<u32> = contamination.matches.iter().map(|found| found.set).collect();
        sets.dedup();
        for set in sets {
            let name = self.screen.sets.get(set as usize).cloned();
            found.contaminated.push(name.unwrap_or_default());
        }
        if let Some(verdict) = index.verdict(&contamination) {
            return Err(verdict);
        }
        if index.settings().policy == Policy::Cut {
            let cut = owned(index.cut(&document.text, &mut self.scratch)?);
            if let Some(cut) = &cut {
                let bytes = document.text.len().saturating_sub(cut.len()) as u64;
                let flow = self.counts.stage(Stage::Decontaminate.name());
                flow.alter([("cut_bytes", bytes)]);
            }
            replace(&mut document.text, cut);
        }
        Ok(())
    }

    fn pii(&mut self, document: &mut Document, found: &mut Findings) -> Result<(), Verdict> {
        let cleaned = self.screen.detector.clean(&document.text);
        let language = found.language.code.as_deref().unwrap_or("unknown");
        for (kind, count) in &cleaned.counts.0 {
            *entry(entry(&mut self.counts.pii, kind.name()), language) += count;
            found.pii.insert(kind.name().to_owned(), *count);
        }
        if let Some(verdict) = cleaned.verdict {
            return Err(verdict);
        }
        let redacted = owned(cleaned.text);
        if redacted.is_some() {
            let settings = self.screen.detector.settings();
            let kinds = cleaned.counts.0.iter();
            let kinds = kinds.filter(|(kind, _)| settings.policy(**kind) == pii::Policy::Redact);
            let flow = self.counts.stage(Stage::Pii.name());
            flow.alter(kinds.map(|(kind, count)| (kind.name(), *count)));
        }
        replace(&mut document.text, redacted);
        Ok(())
    }
}

/// What stages found out of a document.
#[derive(Default)]
struct Findings {
    language: DocumentLanguage,
    scores: Option<Box<Scores>>,
    pii: std::collections::BTreeMap<String, u64>,
    contaminated: Vec<String>,
}

/// A document, which had this digest once, and what was found out of it.
fn curated(document: Document, found: Findings, before: Digest) -> Curated {
    let digest = Digest::of(document.text.as_bytes());
    let bytes = document.recoded.map(|recoded| recoded.original);
    Curated {
        origin: document.origin,
        digest,
        original: bytes.or((digest != before).then_some(before)),
        text: document.text,
        id: document.id,
        url: document.url,
        licence: document.licence,
        created: document.created,
        is_code: document.is_code,
        opt_outs: document.opt_outs,
        derived_from: document.derived_from,
        language: found.language,
        scores: found.scores,
        pii: found.pii,
        contaminated: found.contaminated,
    }
}

/// The text, if it is another than it was.
fn owned(text: Cow<'_, str>) -> Option<String> {
    match text {
        Cow::Borrowed(_) => None,
        Cow::Owned(text) => Some(text),
    }
}

/// Puts an altered text in the place of the one that it was made of.
fn replace(text: &mut String, altered: Option<String>) {
    if let Some(altered) = altered {
        *text = altered;
    }
}
