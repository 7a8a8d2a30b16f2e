//! What all phases of a build share.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::counts::Counts;
use crate::error::CurateError;
use crate::progress::Progress;
use crate::report::{PhaseReport, Report};
use crate::screen::Screen;
use crate::spec::Spec;
use crate::spent::Spent;
use crate::{bias, decontaminate};

/// A build under way.
pub(super) struct Run<'r> {
    pub(super) spec: &'r Spec,
    pub(super) out: &'r Path,
    pub(super) progress: &'r Progress,
    /// Of spec and input.
    pub(super) fingerprint: String,
    /// What was counted in all phases so far.
    pub(super) counts: Counts,
    /// What the audit counted so far.
    pub(super) audit: bias::Counts,
    /// What was found of evaluation sets.
    pub(super) contamination: decontaminate::Report,
    /// What the stages of the phase under way took.
    pub(super) spent: Spent,
    /// Bytes that the phase under way went through.
    pub(super) bytes: u64,
    pub(super) phases: Vec<PhaseReport>,
}

impl<'r> Run<'r> {
    pub(super) fn new(spec: &'r Spec, out: &'r Path, progress: &'r Progress, fingerprint: String) -> Self {
        Self {
            spec,
            out,
            progress,
            fingerprint,
            counts: Counts::default(),
            audit: bias::Counts::default(),
            contamination: decontaminate::Report::default(),
            spent: Spent::default(),
            bytes: 0,
            phases: Vec::new(),
        }
    }

    /// The folder for what is not finished, beside the place of the dataset.
    pub(super) fn work_folder(&self) -> Result<PathBuf, CurateError> {
        let Some(name) = self.out.file_name() else {
            return Err(CurateError::Occupied {
                path: self.out.to_owned(),
                holds: "is no path that ends in a name",
            });
        };
        let mut name = name.to_owned();
        name.push(".work");
        Ok(self.out.with_file_name(name))
    }

    /// Does a phase and notes what it took.
    pub(super) fn phase<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&mut Self) -> Result<T, CurateError>,
    ) -> Result<T, CurateError> {
        self.progress.check()?;
        let started = Instant::now();
        self.bytes = 0;
        let done = work(self)?;
        self.phases.push(PhaseReport {
            name: name.to_owned(),
            seconds: started.elapsed().as_secs_f64(),
            bytes: self.bytes,
            stages: std::mem::take(&mut self.spent).0,
        });
        Ok(done)
    }

    /// The report, as far as the build has come.
    pub(super) fn report(&self, screen: &Screen) -> Report {
        Report {
            name: self.spec.name.clone(),
            stages: self.spec.in_order().iter().map(ToString::to_string).collect(),
            counts: self.counts.clone(),
            bias: screen.audit(&self.audit),
            contamination: Some(self.contamination.clone()).filter(|found| !found.sets.is_empty()),
            phases: self.phases.clone(),
            ..Report::default()
        }
    }
}
