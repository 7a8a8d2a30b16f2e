//! Errors to exit codes. The codes are part of the interface: they are listed in `lockstep --help`.

use std::process::ExitCode;

use lockstep_coordinator::jsonl::JsonlError;
use lockstep_curate::CurateError;
use lockstep_data::{DataError, ErrorKind};
use lockstep_engine::spec::SpecError;
use lockstep_trainer::TrainerError;
use lockstep_trainer::checkpoint::Corruption;

/// The table shown by `lockstep --help`.
pub(crate) const TABLE: &str = "\
Exit codes:
    0  success
    1  the job failed, or anything not listed here
    2  wrong usage, or a spec with problems
    3  a corpus or dataset that cannot be used
    4  a coordinator or address that cannot be had
    5  versions that cannot work together
    6  a checkpoint, shard or model that is damaged
    7  storage: disk full, no permission, or a file that cannot be read or written
  130  interrupted";

/// The exit code of what was interrupted.
pub(crate) const INTERRUPTED: u8 = 130;

/// A failure of the command line's own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Job(String),
    #[error("{0}")]
    Interrupted(String),
    #[error("{action}: {source}")]
    Storage { action: String, source: std::io::Error },
}

impl Failure {
    pub(crate) fn storage(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::Storage { action, source }
    }
}

/// Shows the error on stderr and picks its code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("{} {}", crate::output::red("error:"), in_words(error));
    ExitCode::from(code(error))
}

/// Whether the coordinator went away in the middle.
pub(crate) fn is_lost_connection(error: &anyhow::Error) -> bool {
    use tonic::Code;
    let lost =
        |status: &tonic::Status| matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::Unknown);
    error.downcast_ref::<tonic::Status>().is_some_and(lost)
}

/// The chain of causes, each once; of a refusal by the coordinator, its words alone.
fn in_words(error: &anyhow::Error) -> String {
    let mut words: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = match cause.downcast_ref::<tonic::Status>() {
            Some(status) if status.code() == tonic::Code::Unknown => {
                format!("lost the coordinator: {}", status.message())
            }
            Some(status) => status.message().to_owned(),
            None => cause.to_string(),
        };
        // Many errors quote their source.
        if !words.iter().any(|said| said.contains(&text)) {
            words.push(text);
        }
        if cause.is::<tonic::Status>() {
            break;
        }
    }
    words.join(": ")
}

fn code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(code_of).unwrap_or(1)
}

fn of_kind(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Input | ErrorKind::Output => 3,
        ErrorKind::Permission | ErrorKind::Storage => 7,
        ErrorKind::Damaged => 6,
        ErrorKind::Interrupted => INTERRUPTED,
        ErrorKind::System => 1,
    }
}

fn code_of(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(failure) = cause.downcast_ref::<Failure>() {
        return Some(match failure {
            Failure::Usage(_) => 2,
            Failure::Job(_) => 1,
            Failure::Interrupted(_) => INTERRUPTED,
            Failure::Storage { .. } => 7,
        });
    }
    if cause.is::<SpecError>() {
        return Some(2);
    }
    if let Some(data) = cause.downcast_ref::<DataError>() {
        return Some(of_kind(data.kind()));
    }
    if let Some(curate) = cause.downcast_ref::<CurateError>() {
        return Some(match curate {
            CurateError::Spec { .. } => 2,
            other => of_kind(other.kind()),
        });
    }
    if let Some(lines) = cause.downcast_ref::<JsonlError>() {
        return Some(match lines {
            JsonlError::Line { .. } => 6,
            JsonlError::Io { .. } => 7,
        });
    }
    if let Some(trainer) = cause.downcast_ref::<TrainerError>() {
        return Some(match trainer {
            TrainerError::Corrupt {
                corruption: Corruption::Missing { .. },
                ..
            } => 6,
            TrainerError::Corrupt { .. }
            | TrainerError::NotAModel { .. }
            | TrainerError::Tokenizer { .. } => 6,
            TrainerError::Version { .. } => 5,
            TrainerError::Setting { .. } | TrainerError::Mismatch { .. } | TrainerError::Occupied { .. } => 2,
            TrainerError::DiskFull { .. } | TrainerError::Storage { .. } | TrainerError::Target { .. } => 7,
            _ => 1,
        });
    }
    if let Some(worker) = cause.downcast_ref::<lockstep_worker::Error>() {
        use lockstep_worker::Error;
        return Some(match worker {
            Error::Address { .. } => 2,
            Error::Unreachable { .. } | Error::Leaderless(_) | Error::Refused(_) | Error::Lost(_) => 4,
            Error::Version(_) => 5,
            Error::Damaged(_) => 6,
            Error::Evicted(_) | Error::Fatal(_) | Error::System { .. } => 1,
        });
    }
    if let Some(coordinator) = cause.downcast_ref::<lockstep_coordinator::Error>() {
        use lockstep_coordinator::Error;
        return Some(match coordinator {
            Error::Listen { .. } => 4,
            Error::Advertise { .. } => 2,
            Error::Store(_) => 7,
            Error::Recorder(_) | Error::Serve(_) => 1,
        });
    }
    if let Some(status) = cause.downcast_ref::<tonic::Status>() {
        use tonic::Code;
        return Some(match status.code() {
            Code::InvalidArgument | Code::AlreadyExists | Code::NotFound | Code::FailedPrecondition => 2,
            Code::Unavailable | Code::Cancelled | Code::Unknown | Code::DeadlineExceeded => 4,
            _ => 1,
        });
    }
    cause.is::<tonic::transport::Error>().then_some(4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn the_code_follows_the_kind_of_error_through_any_context() {
        let spec = lockstep_engine::spec::Spec::parse("[train]\nsteps = 0\n").unwrap_err();
        assert_eq!(
            code(&Err::<(), _>(spec).context("read spec.toml").unwrap_err()),
            2
        );
        assert_eq!(code(&Failure::Interrupted(String::new()).into()), 130);
        assert_eq!(code(&tonic::Status::unavailable("gone").into()), 4);
        assert_eq!(code(&anyhow::anyhow!("anything")), 1);
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert_eq!(code(&Failure::storage("write")(full).into()), 7);
    }
}
