//! A rank's stream to the coordinator that leads, opened again when it breaks.

use std::time::Duration;

use lockstep_proto::wire;
use lockstep_proto::wire::nodes_client::NodesClient;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::Error;
use crate::endpoints::{Endpoints, Leader};

/// How long a rank holds its state without any coordinator.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two tries to open a stream to a leader that was found.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the coordinator may take to answer a process that cannot go on.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Messages that may wait for the coordinator.
const QUEUE: usize = 256;

/// An open stream.
#[derive(Debug)]
pub(crate) struct Link {
    coordinators: Endpoints,
    hello: wire::RankHello,
    /// The URL of the leader that it goes to.
    pub(crate) leader: String,
    pub(crate) up: mpsc::Sender<wire::RankUp>,
    pub(crate) down: Streaming<wire::RankDown>,
    pub(crate) welcome: wire::Welcome,
}

impl Link {
    /// Opens the stream to whichever coordinator leads; `None` if the job is over.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Leaderless`] or [`Error::Lost`] when that did not succeed for five minutes; what
    /// trying again would not change, at once.
    pub(crate) async fn open(
        coordinators: &Endpoints,
        hello: wire::RankHello,
    ) -> Result<Option<Self>, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let leader = coordinators.leader(left).await?;
            match greet(coordinators, leader, &hello).await {
                // It led a moment ago.
                Err(Error::Lost(_)) if Instant::now() + PAUSE < deadline => tokio::time::sleep(PAUSE).await,
                result => return result,
            }
        }
    }

    /// Opens it again, to whichever coordinator leads now; `false` if the job is over.
    ///
    /// # Errors
    /// As [`Link::open`].
    pub(crate) async fn reopen(&mut self) -> Result<bool, Error> {
        match Self::open(&self.coordinators, self.hello.clone()).await? {
            Some(link) => {
                *self = link;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Tells the coordinator why this rank cannot go on, and waits until it has answered with the job's end: leaving
    /// earlier could cut the message off, and the next process would meet the same problem.
    pub(crate) async fn last_words(&mut self, reason: String) -> Error {
        let fatal = wire::rank_up::What::Fatal(wire::Fatal {
            reason: reason.clone(),
        });
        let said = async {
            self.up.send(wire::RankUp { what: Some(fatal) }).await.ok();
            while let Ok(Some(message)) = self.down.message().await {
                if matches!(message.what, Some(wire::rank_down::What::Ended(_))) {
                    return;
                }
            }
        };
        tokio::time::timeout(LAST_WORDS, said).await.ok();
        Error::Fatal(reason)
    }
}

async fn greet(
    coordinators: &Endpoints,
    leader: Leader,
    hello: &wire::RankHello,
) -> Result<Option<Link>, Error> {
    let (up, messages) = mpsc::channel(QUEUE);
    let what = Some(wire::rank_up::What::Hello(hello.clone()));
    let closed = |_| Error::Lost("its stream is closed".to_owned());
    up.send(wire::RankUp { what }).await.map_err(closed)?;
    let refused = |status: Status| Error::refused(&status);
    let reply = NodesClient::new(leader.channel)
        .rank(ReceiverStream::new(messages))
        .await
        .map_err(refused)?;
    let mut down = reply.into_inner();
    let first = down.message().await.map_err(refused)?;
    match first.and_then(|message| message.what) {
        Some(wire::rank_down::What::Welcome(welcome)) => Ok(Some(Link {
            coordinators: coordinators.clone(),
            hello: hello.clone(),
            leader: leader.url,
            up,
            down,
            welcome,
        })),
        Some(wire::rank_down::What::Ended(_)) => Ok(None),
        other => Err(Error::Lost(format!("expected a welcome, got {other:?}"))),
    }
}
