//! A rank's stream to the coordinator that leads, opened again when it breaks.

use std::time::Duration;

use lockstep_proto::wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{Error, connect};

/// How long a rank holds its state without any coordinator.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two tries, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Messages that may wait for the coordinator.
const QUEUE: usize = 256;

/// An open stream.
pub(crate) struct Link {
    coordinator: String,
    hello: wire::RankHello,
    pub(crate) up: mpsc::Sender<wire::RankUp>,
    pub(crate) down: Streaming<wire::RankDown>,
    pub(crate) welcome: wire::Welcome,
}

type Parts = (
    mpsc::Sender<wire::RankUp>,
    Streaming<wire::RankDown>,
    wire::Welcome,
);

impl Link {
    /// Opens the stream; `None` if the job is over.
    pub(crate) async fn open(coordinator: &str, hello: wire::RankHello) -> Result<Option<Self>, Error> {
        let parts = open(coordinator, &hello).await?;
        Ok(parts.map(|(up, down, welcome)| Self {
            coordinator: coordinator.to_owned(),
            hello,
            up,
            down,
            welcome,
        }))
    }

    /// Opens it again, to whichever coordinator leads now; `false` if the job is over.
    pub(crate) async fn reopen(&mut self) -> Result<bool, Error> {
        let began = tokio::time::Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            match open(&self.coordinator, &self.hello).await {
                Ok(Some((up, down, welcome))) => {
                    (self.up, self.down, self.welcome) = (up, down, welcome);
                    return Ok(true);
                }
                Ok(None) => return Ok(false),
                Err(error @ (Error::Lost(_) | Error::Unreachable { .. })) => {
                    if began.elapsed() >= PATIENCE {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

async fn open(coordinator: &str, hello: &wire::RankHello) -> Result<Option<Parts>, Error> {
    let mut client = connect(coordinator).await?;
    let (up, messages) = mpsc::channel(QUEUE);
    let hello = wire::rank_up::What::Hello(hello.clone());
    up.send(wire::RankUp { what: Some(hello) })
        .await
        .map_err(|_| Error::Lost("its stream is closed".to_owned()))?;
    let reply = client
        .rank(ReceiverStream::new(messages))
        .await
        .map_err(|status| Error::refused(&status))?;
    let mut down = reply.into_inner();
    let first = down.message().await.map_err(|status| Error::refused(&status))?;
    match first.and_then(|message| message.what) {
        Some(wire::rank_down::What::Welcome(welcome)) => Ok(Some((up, down, welcome))),
        Some(wire::rank_down::What::Ended(_)) => Ok(None),
        other => Err(Error::Lost(format!("expected a welcome, got {other:?}"))),
    }
}
