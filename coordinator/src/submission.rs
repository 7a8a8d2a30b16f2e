//! A job on its way in: what must be true before it is queued, and what is written then.

use std::path::{Path, PathBuf};

use lockstep_engine::ids::{Epoch, Step};
use lockstep_engine::job::{Kill, Past};
use lockstep_engine::spec::Spec;
use tonic::Status;

use crate::ledger_log;
use crate::lines::Log;
use crate::recorder::{Recorder, insist};
use crate::run::unix_ms;
use crate::store::{Change, JobRecord, State, Store, StoreError};

/// A checked submission.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) source: String,
    pub(crate) spec: Spec,
    pub(crate) out: PathBuf,
    pub(crate) resume: bool,
    pub(crate) kills: Vec<Kill>,
}

/// A job that is stored.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) record: JobRecord,
    pub(crate) spec: Spec,
    pub(crate) kills: Vec<Kill>,
    /// The last epoch that the store knows, and what the ledger says.
    pub(crate) known: (Epoch, Past),
}

/// Prepares the run's folder and the ledger, and stores the job. No other job of its name may be running.
pub(crate) async fn accept(
    store: &dyn Store,
    recorder: &Recorder,
    submission: Submission,
) -> Result<Accepted, Status> {
    let Submission {
        source,
        spec,
        out,
        resume,
        kills,
    } = submission;
    let name = spec.job.name.clone();
    // What an earlier job of the name left to be written comes first.
    recorder.flush().await;
    let stored = |error: StoreError| Status::internal(error.to_string());
    let entries = insist(|| store.ledger(&name)).await.map_err(stored)?;
    let past = Past::of(&entries);
    let last = past.committed();
    let epoch = insist(|| store.epoch(&name)).await.map_err(stored)?;
    let (folder, text) = (out.clone(), source.clone());
    tokio::task::spawn_blocking(move || prepare_folder(&folder, &text, (resume, last)))
        .await
        .map_err(|error| Status::internal(error.to_string()))??;
    if resume {
        let checkpoints = insist(|| store.checkpoints(&name)).await.map_err(stored)?;
        ledger_log::catch_up(out.clone(), entries, checkpoints).await;
    } else {
        let cut = [Change::Truncate(Step(0))];
        insist(|| store.change(&name, &cut)).await.map_err(stored)?;
    }
    let record = JobRecord {
        name,
        spec: source,
        out,
        submitted_ms: unix_ms(),
        state: State::Queued,
        reason: "waiting for workers".to_owned(),
        summary: None,
        step: if resume { last } else { Step(0) },
    };
    insist(|| store.put_job(&record)).await.map_err(stored)?;
    Ok(Accepted {
        record,
        spec,
        kills,
        known: (epoch, if resume { past } else { Past::default() }),
    })
}

fn prepare_folder(out: &Path, source: &str, (resume, last): (bool, Step)) -> Result<(), Status> {
    let used = std::fs::read_dir(out.join("checkpoints")).is_ok_and(|mut entries| entries.next().is_some());
    if !resume && used {
        return Err(Status::failed_precondition(format!(
            "{} holds checkpoints of an earlier run; pass --resume to go on from them, or another --out",
            out.display()
        )));
    }
    if resume && last == Step(0) {
        return Err(Status::failed_precondition(
            "nothing to resume: this coordinator's ledger has no committed step of this job; start it without --resume",
        ));
    }
    std::fs::create_dir_all(out).map_err(|error| {
        Status::failed_precondition(format!("create the run folder {}: {error}", out.display()))
    })?;
    let spec_file = out.join("spec.toml");
    std::fs::write(&spec_file, source)
        .map_err(|error| Status::failed_precondition(format!("write {}: {error}", spec_file.display())))?;
    if !resume {
        // Of an attempt that never reached a checkpoint.
        for log in Log::ALL {
            std::fs::remove_file(out.join(log.file_name())).ok();
        }
    }
    Ok(())
}
