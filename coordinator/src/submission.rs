//! A job on its way in: what must be true before it is queued, and what is written then.

use std::path::{Path, PathBuf};

use lockstep_engine::ids::{JobId, Step};
use lockstep_engine::job::{Kill, Past};
use lockstep_engine::spec::Spec;
use tonic::Status;

use crate::ledger_log;
use crate::lines::Log;
use crate::recorder::{Recorder, insist};
use crate::run::{Build, Run, Training, log_folder, unix_ms};
use crate::store::{Change, JobRecord, Kind, State, Store, StoreError};

/// A checked submission.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) name: JobId,
    /// The spec, as TOML.
    pub(crate) source: String,
    pub(crate) out: PathBuf,
    pub(crate) what: What,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum What {
    Train {
        spec: Box<Spec>,
        resume: bool,
        kills: Vec<Kill>,
    },
    Build {
        max_workers: u32,
    },
}

/// Prepares the job's folder and the ledger, and stores the job. No other job of its name may be running.
pub(crate) async fn accept(
    store: &dyn Store,
    recorder: &Recorder,
    submission: Submission,
) -> Result<Run, Status> {
    // What an earlier job of the name left to be written comes first.
    recorder.flush().await;
    let Submission {
        name,
        source,
        out,
        what,
    } = submission;
    let record = JobRecord {
        name,
        spec: source,
        out,
        submitted_ms: unix_ms(),
        state: State::Queued,
        reason: "waiting for workers".to_owned(),
        summary: None,
        step: Step(0),
        kind: Kind::Training,
    };
    match what {
        What::Train { spec, resume, kills } => train(store, record, *spec, resume, kills).await,
        What::Build { max_workers } => build(store, record, max_workers).await,
    }
}

fn stored(error: StoreError) -> Status {
    Status::internal(error.to_string())
}

async fn train(
    store: &dyn Store,
    mut record: JobRecord,
    spec: Spec,
    resume: bool,
    kills: Vec<Kill>,
) -> Result<Run, Status> {
    let name = &record.name;
    let entries = insist(|| store.ledger(name)).await.map_err(stored)?;
    let past = Past::of(&entries);
    let last = past.committed();
    let epoch = insist(|| store.epoch(name)).await.map_err(stored)?;
    let (folder, text) = (record.out.clone(), record.spec.clone());
    tokio::task::spawn_blocking(move || prepare_folder(&folder, &text, (resume, last)))
        .await
        .map_err(|error| Status::internal(error.to_string()))??;
    if resume {
        let checkpoints = insist(|| store.checkpoints(name)).await.map_err(stored)?;
        ledger_log::catch_up(record.out.clone(), entries, checkpoints).await;
        record.step = last;
    } else {
        let cut = [Change::Truncate(Step(0))];
        insist(|| store.change(name, &cut)).await.map_err(stored)?;
    }
    insist(|| store.put_job(&record)).await.map_err(stored)?;
    let known = (epoch, if resume { past } else { Past::default() });
    Ok(Run::Training(Box::new(Training::new(record, spec, kills, known))))
}

async fn build(store: &dyn Store, mut record: JobRecord, max_workers: u32) -> Result<Run, Status> {
    record.kind = Kind::Build { max_workers };
    let folder = log_folder(&record.out);
    tokio::task::spawn_blocking(move || create_folder(&folder))
        .await
        .map_err(|error| Status::internal(error.to_string()))??;
    insist(|| store.put_job(&record)).await.map_err(stored)?;
    Ok(Run::Build(Box::new(Build::new(record, max_workers))))
}

fn create_folder(folder: &Path) -> Result<(), Status> {
    std::fs::create_dir_all(folder).map_err(|error| {
        Status::failed_precondition(format!("create the job's folder {}: {error}", folder.display()))
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
    create_folder(out)?;
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
