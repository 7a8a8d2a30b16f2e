//! `data submit`: a build as a job of the cluster.

use std::path::{Path, PathBuf};

use lockstep_curate::{CurateError, Spec};
use lockstep_engine::ids::JobId;
use lockstep_proto::wire;

use crate::client::{self, At};
use crate::commands::jobs::{absolute, queued};
use crate::output::Format;

/// Queue the build of a dataset at a coordinator and return at once.
///
/// The worker daemons of the cluster do its tasks, each once, whichever of them die; the bytes are those of `data build`
/// on one machine. The sources, and the folder of the dataset, must be paths that every node sees.
///
/// Follow it with `lockstep status NAME` and `lockstep events -f NAME`; end it with `lockstep cancel NAME`. What is done is
/// kept beside the dataset: submitted again, it goes on from there.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    at: At,
    /// The spec of the dataset, as of `data build`.
    #[arg(value_name = "SPEC")]
    spec: PathBuf,
    /// The folder that becomes the dataset.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The job's name; by default the spec's `name`.
    #[arg(long)]
    name: Option<String>,
    /// Use no more slots of the nodes than so many; by default all that are free.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_workers: Option<u32>,
}

pub(super) async fn run(args: Args, format: Format) -> anyhow::Result<()> {
    let spec = Spec::read(&args.spec)?;
    let name: JobId = args.name.unwrap_or_else(|| spec.name.clone()).parse()?;
    if spec.sources.is_empty() {
        return Err(CurateError::Spec {
            path: Some(args.spec),
            problem: "source: there is none; add a [[source]] with `name` and `path`".to_owned(),
        }
        .into());
    }
    // As `data build` reads them: from where this command was given.
    let spec = spec.rooted(&absolute(Path::new("."))?);
    let request = wire::BuildRequest {
        name: name.to_string(),
        spec: spec.to_toml()?,
        out: absolute(&args.out)?.display().to_string(),
        max_workers: args.max_workers.unwrap_or(0),
    };
    let mut client = client::connect(&args.at.coordinators).await?;
    let job = client.build(request).await?.into_inner();
    queued(job, "events", format)
}
