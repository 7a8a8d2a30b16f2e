//! The way to the coordinator: there may be several of which one leads, and the leader may change at any time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use lockstep_proto::wire::jobs_client::JobsClient;
use lockstep_proto::{LEADER_KEY, wire};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

use crate::Error;

/// A silent peer is given up after these two: sooner than its lease runs out.
const KEEPALIVE_INTERVAL: Duration = Duration::from_millis(500);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_millis(1_250);
/// How long one coordinator may take to answer before the next is asked.
const ANSWER: Duration = Duration::from_secs(1);
/// How long a person waits while coordinators elect a leader.
const ELECTION: Duration = Duration::from_secs(10);
/// Between two rounds over all coordinators.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a coordinator's word on who leads is followed before it is a new round's turn.
const HOPS: usize = 3;

/// URLs of coordinators, any of which knows the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints(Vec<String>);

impl FromStr for Endpoints {
    type Err = Error;

    /// Reads URLs with commas between them.
    fn from_str(text: &str) -> Result<Self, Error> {
        let read = |url: &str| {
            let url = url.trim().trim_end_matches('/');
            let invalid = |problem: String| Error::Address {
                address: url.to_owned(),
                problem,
            };
            let uri: Uri = url.parse().map_err(|error| invalid(format!("{error}")))?;
            match uri.scheme_str() {
                Some("http") if uri.authority().is_some() => Ok(url.to_owned()),
                _ => Err(invalid("not a URL".to_owned())),
            }
        };
        text.split(',').map(read).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// A way to the leader.
#[derive(Clone, Debug)]
pub struct Leader {
    /// An open connection.
    pub channel: Channel,
    /// The URL that was reached.
    pub url: String,
}

impl Endpoints {
    /// Finds the leader within `patience`: asks one coordinator after the other, and follows what they say.
    ///
    /// # Errors
    /// When no leader is found in time: the last reason.
    pub async fn leader(&self, patience: Duration) -> Result<Leader, Error> {
        self.find(patience, |_| true).await
    }

    /// Finds the leader for a person, who is told at once when no coordinator is there at all. While there are some
    /// and they elect a leader, it waits.
    ///
    /// # Errors
    /// As [`Endpoints::leader`].
    pub async fn leader_now(&self) -> Result<Leader, Error> {
        self.find(ELECTION, |error| matches!(error, Error::Leaderless(_)))
            .await
    }

    async fn find(&self, patience: Duration, may_change: impl Fn(&Error) -> bool) -> Result<Leader, Error> {
        let deadline = Instant::now() + patience;
        loop {
            let mut worst = None;
            for url in &self.0 {
                match self.ask(url).await {
                    Ok(leader) => return Ok(leader),
                    // That somebody answered says more than that another did not.
                    Err(error) if matches!(worst, Some(Error::Leaderless(_))) => drop(error),
                    Err(error) => worst = Some(error),
                }
            }
            let error = worst.unwrap_or_else(|| Error::Leaderless("no coordinator is named".to_owned()));
            if !may_change(&error) || Instant::now() + PAUSE >= deadline {
                return Err(error);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks the coordinator at `url`, and whom it calls the leader.
    async fn ask(&self, url: &str) -> Result<Leader, Error> {
        let mut url = url.to_owned();
        let mut said = None;
        for _ in 0..HOPS {
            let channel = match (connect(&url).await, said) {
                (Ok(channel), _) => channel,
                (Err(error), None) => return Err(error),
                (Err(error), Some(said)) => return Err(Error::Leaderless(format!("{said}; {error}"))),
            };
            let mut client = JobsClient::new(channel.clone());
            let asked = client.leader(wire::LeaderRequest {});
            let status = match tokio::time::timeout(ANSWER, asked).await {
                Ok(Ok(_)) => return Ok(Leader { channel, url }),
                // Of a version that knows no standbys; it will say so itself.
                Ok(Err(status)) if status.code() == Code::Unimplemented => {
                    return Ok(Leader { channel, url });
                }
                Ok(Err(status)) => status,
                Err(_) => Status::unavailable(format!("no answer within {} ms", ANSWER.as_millis())),
            };
            said = Some(format!("{url}: {}", status.message()));
            match named_leader(&status) {
                Some(next) if next != url => url = next,
                _ => break,
            }
        }
        Err(Error::Leaderless(said.unwrap_or_default()))
    }
}

/// The leader's URL in a coordinator's answer that it does not lead itself.
fn named_leader(status: &Status) -> Option<String> {
    let value = status.metadata().get(LEADER_KEY)?;
    value.to_str().ok().map(str::to_owned)
}

/// Opens a channel to the coordinator at `address`, a URL.
async fn connect(address: &str) -> Result<Channel, Error> {
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|error| Error::Address {
        address: address.to_owned(),
        problem: error.to_string(),
    })?;
    let channel = endpoint
        .connect_timeout(ANSWER)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
        .connect()
        .await;
    channel.map_err(|error| Error::Unreachable {
        address: address.to_owned(),
        problem: innermost(&error),
    })
}

/// The last cause in a chain of errors, which says most.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

impl Error {
    /// A refusal in the coordinator's words.
    pub(crate) fn refused(status: &Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::FailedPrecondition => Self::Version(message),
            Code::Unavailable | Code::Cancelled | Code::Unknown => Self::Lost(message),
            _ => Self::Refused(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_urls_are_read_and_shown_as_they_were_given() {
        let read: Endpoints = "http://a:7070, http://b:7070/".parse().unwrap();
        assert_eq!(read.to_string(), "http://a:7070,http://b:7070");
        for (bad, named) in [
            ("", "coordinator ``"),
            ("http://a:7070,", "coordinator ``"),
            ("a:7070", "`a:7070`"),
            ("http://a:7070,https://b", "`https://b`"),
            ("nonsense", "http://HOST:PORT"),
        ] {
            let error = bad.parse::<Endpoints>().unwrap_err().to_string();
            assert!(error.contains(named), "{bad}: {error}");
        }
    }
}
