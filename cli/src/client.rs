//! Speaks to a coordinator, and follows a job to its end.

use lockstep_proto::wire;
use lockstep_proto::wire::jobs_client::JobsClient;
use lockstep_worker::endpoints::Endpoints;
use tonic::transport::Channel;

use crate::output::{bold, count};
use crate::progress::Progress;

/// The coordinator that is asked when none is named.
pub(crate) const DEFAULT: &str = "http://127.0.0.1:7070";

/// Which coordinators to ask.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct At {
    /// The coordinator's URL; of several, all or some with commas between them: the one that leads is found.
    #[arg(long = "coordinator", value_name = "URL,…", default_value = DEFAULT, env = "LOCKSTEP_COORDINATOR")]
    pub(crate) coordinators: Endpoints,
}

/// Opens a channel to the coordinator that leads.
pub(crate) async fn connect(coordinators: &Endpoints) -> anyhow::Result<JobsClient<Channel>> {
    let leader = coordinators.leader_now().await?;
    Ok(JobsClient::new(leader.channel).max_decoding_message_size(64 << 20))
}

/// The name of a state, as people and programs see it.
pub(crate) fn state_name(job: &wire::Job) -> &'static str {
    match job.state() {
        wire::JobState::Unspecified => "unknown",
        wire::JobState::Queued => "queued",
        wire::JobState::Running => "running",
        wire::JobState::Paused => "paused",
        wire::JobState::Done => "done",
        wire::JobState::Failed => "failed",
        wire::JobState::Cancelled => "cancelled",
    }
}

/// Whether nothing more will happen to a job.
pub(crate) fn is_over(job: &wire::Job) -> bool {
    matches!(
        job.state(),
        wire::JobState::Done | wire::JobState::Failed | wire::JobState::Cancelled
    )
}

/// Shows a job's progress until it is over, and returns it as it ended.
pub(crate) async fn follow(
    client: &mut JobsClient<Channel>,
    name: &str,
    mut progress: Progress,
) -> anyhow::Result<wire::Job> {
    let request = wire::JobRequest {
        name: name.to_owned(),
    };
    let mut updates = client.watch(request.clone()).await?.into_inner();
    let (mut steps, mut tokens_per_step) = (0, 0.0);
    let mut state = String::new();
    while let Some(update) = updates.message().await? {
        match update.what {
            Some(wire::update::What::Job(job)) => {
                steps = job.steps;
                if let Ok(spec) = lockstep_engine::spec::Spec::parse(&job.spec) {
                    tokens_per_step = (spec.samples_per_step() * spec.batch.sequence_length as u64) as f64;
                }
                let now = format!("{}: {}", state_name(&job), job.reason);
                if is_over(&job) {
                    let line = format!("{name} is {}", bold(state_name(&job)));
                    progress.finish(&line);
                    return Ok(job);
                }
                if now != state && job.state() != wire::JobState::Running {
                    progress.say(&format!("{name} is {now}"));
                }
                state = now;
            }
            Some(wire::update::What::Commit(commit)) => {
                let rate = if commit.milliseconds > 0.0 {
                    tokens_per_step / commit.milliseconds * 1e3
                } else {
                    0.0
                };
                let message = format!(
                    "step: {}  loss: {:.4}  tps: {}  workers: {}",
                    commit.step,
                    commit.loss,
                    count(rate as u64),
                    commit.workers
                );
                progress.set(commit.step, steps, &message);
            }
            Some(wire::update::What::Note(note)) => match note.kind.as_str() {
                "joined" | "ended" => {}
                _ => progress.say(&format!("  {}", note.text)),
            },
            None => {}
        }
    }
    // The stream ended before the job did.
    Ok(client.get(request).await?.into_inner())
}
