//! One leadership from its beginning to its end: the actor and the recorder live as long as it does.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::actor::{Actor, Office};
use crate::leadership::{Role, Seat};
use crate::message::Message;
use crate::recorder::{Recorder, Word};
use crate::services::Standing;
use crate::store::{Store, StoreError};

/// Messages that may wait for the actor.
const INBOX: usize = 4096;
/// How long a coordinator that stops may take to write what it knows.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Leads whenever the seat is this coordinator's, and says in `standing` who does. Returns after `shutdown`.
///
/// # Errors
/// When the store fails, or the recorder cannot be started.
pub(crate) async fn follow(
    mut seat: Seat,
    standing: &watch::Sender<Standing>,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    while !shutdown.is_cancelled() {
        match seat.role() {
            Role::Standby { leader } => {
                standing.send_replace(Standing::Standby {
                    leader: leader.clone(),
                });
                // Whoever reads this and asks is told the same.
                if let Some(leader) = leader {
                    tracing::info!("{leader} leads; this coordinator stands by");
                }
                tokio::select! {
                    () = seat.changed() => {}
                    () = shutdown.cancelled() => {}
                }
            }
            Role::Leading(store) => {
                let end = lead(store, &mut seat, standing, shutdown).await?;
                // Before anything of it is dropped, so that its streams end with the right word.
                standing.send_replace(Standing::Standby { leader: None });
                end.close().await;
                if let Some(error) = end.deposed {
                    seat.deposed(error).await?;
                }
            }
        }
    }
    seat.leave().await;
    Ok(())
}

/// What is left of a leadership.
struct End {
    /// How the store said that another leads, if that is why.
    deposed: Option<StoreError>,
    /// Whether there is time to write what is known.
    in_order: bool,
    recorder: Recorder,
    over: CancellationToken,
    actor: Option<tokio::task::JoinHandle<()>>,
}

impl End {
    async fn close(&self) {
        if let Some(actor) = &self.actor {
            actor.abort();
        }
        if self.in_order {
            tokio::time::timeout(LAST_WORDS, self.recorder.flush()).await.ok();
        }
        self.over.cancel();
    }
}

/// Takes up where the store left off, and goes on until the seat is lost or the coordinator stops.
async fn lead(
    store: Arc<dyn Store>,
    seat: &mut Seat,
    standing: &watch::Sender<Standing>,
    shutdown: &CancellationToken,
) -> Result<End, Error> {
    standing.send_replace(Standing::Rising);
    let (inbox, messages) = mpsc::channel(INBOX);
    let (deposed_in, mut deposed) = mpsc::channel(1);
    let over = CancellationToken::new();
    let recorder = Recorder::start(
        Arc::clone(&store),
        over.clone(),
        listen(inbox.downgrade(), deposed_in.clone()),
    )
    .map_err(Error::Recorder)?;
    let office = Office {
        store,
        recorder: recorder.clone(),
        inbox: inbox.clone(),
        over: over.clone(),
        deposed: deposed_in,
    };
    let mut end = End {
        deposed: None,
        in_order: false,
        recorder,
        over,
        actor: None,
    };
    let actor = tokio::select! {
        actor = Actor::take_up(office) => match actor {
            Ok(actor) => actor,
            Err(error) if error.is_deposition() => {
                end.deposed = Some(error);
                return Ok(end);
            }
            Err(error) => return Err(error.into()),
        },
        () = seat.changed() => return Ok(end),
        () = shutdown.cancelled() => return Ok(end),
    };
    end.actor = Some(tokio::spawn(actor.run(messages)));
    standing.send_replace(Standing::Leading(inbox));
    tokio::select! {
        () = seat.changed() => {}
        error = deposed.recv() => end.deposed = error,
        () = shutdown.cancelled() => end.in_order = true,
    }
    Ok(end)
}

/// Passes the recorder's words on to the actor.
fn listen(
    inbox: mpsc::WeakSender<Message>,
    deposed: mpsc::Sender<StoreError>,
) -> impl Fn(Word) + Send + 'static {
    move |word| {
        let message = match word {
            Word::Recorded { job, epoch, step } => Message::Recorded { job, epoch, step },
            Word::Failed { job, reason } => Message::RecordsFailed { job, reason },
            Word::Away(problem) => Message::StoreAway(problem),
            Word::Note { job, text } => Message::StorageNote { job, text },
            Word::Deposed(error) => {
                deposed.try_send(error).ok();
                return;
            }
        };
        if let Some(inbox) = inbox.upgrade() {
            inbox.blocking_send(message).ok();
        }
    }
}
