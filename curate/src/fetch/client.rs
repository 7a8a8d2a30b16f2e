//! Fetches over HTTP.

use std::error::Error as _;
use std::fs;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderName, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

use super::{Failure, Outcome, Whole};
use crate::error::CurateError;
use crate::progress::Progress;
use crate::read::Headers;
use crate::work::TaskFile;

/// How often an address is tried.
const TRIES: u32 = 4;
/// Before the second try; each wait is four times the last.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// A service that asks for a longer pause is waited for no longer.
const MAX_WAIT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Without a byte.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 10;
/// Between two looks at whether to stop.
const LOOK: Duration = Duration::from_millis(100);

/// Fetches addresses, several at once if several threads ask for it. Proxies are those of the environment (`HTTPS_PROXY`).
pub(crate) struct Client {
    http: reqwest::Client,
    runtime: Runtime,
}

/// What a try gave: a failure comes with the pause that the service asks for.
type Tried = Result<Whole, (Failure, Duration)>;

impl Client {
    /// Nothing is asked for yet.
    pub(crate) fn new() -> Result<Self, String> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("lockstep/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .redirect(reqwest::redirect::Policy::limited(MAX_REDIRECTS))
            .build();
        Ok(Self {
            http: http.map_err(told)?,
            runtime: crate::runtime::start().map_err(|error| error.to_string())?,
        })
    }

    /// Fetches an address into the file `path`, which is there afterwards if all of it came. What may pass is tried again.
    ///
    /// # Errors
    /// If the file cannot be written, or whoever watches the progress wants to stop.
    pub(crate) fn fetch(
        &self,
        address: &str,
        max_bytes: u64,
        path: &Path,
        progress: &Progress,
    ) -> Result<Outcome, CurateError> {
        self.runtime.block_on(async {
            let mut wait = FIRST_WAIT;
            let mut tries = 1;
            loop {
                let (failure, pause) = match heed(progress, self.try_once(address, max_bytes, path)).await?? {
                    Ok(whole) => return Ok(Outcome::Whole(whole)),
                    Err(failed) => failed,
                };
                // What came before it was cut off.
                let _ = fs::remove_file(path);
                if !failure.is_passing || tries == TRIES {
                    return Ok(Outcome::Failed(failure));
                }
                heed(progress, sleep(pause.clamp(wait, MAX_WAIT))).await?;
                wait *= 4;
                tries += 1;
            }
        })
    }

    async fn try_once(&self, address: &str, max_bytes: u64, path: &Path) -> Result<Tried, CurateError> {
        let mut response = match self.http.get(address).send().await {
            Ok(response) => response,
            Err(error) => return Ok(Err(unreachable(error))),
        };
        if let Some(refused) = refusal(&response, max_bytes) {
            return Ok(Err(refused));
        }
        let mut file = TaskFile::create(path.to_owned())?;
        let mut hasher = blake3::Hasher::new();
        let mut bytes = 0;
        loop {
            let block = match response.chunk().await {
                Ok(Some(block)) => block,
                Ok(None) => break,
                Err(error) => return Ok(Err(unreachable(error))),
            };
            bytes += block.len() as u64;
            if bytes > max_bytes {
                return Ok(Err(too_long(max_bytes)));
            }
            hasher.update(&block);
            file.put(&block)?;
        }
        file.close()?;
        Ok(Ok(Whole {
            bytes,
            digest: hasher.finalize().to_hex().to_string(),
            etag: header(&response, ETAG),
            content_type: header(&response, CONTENT_TYPE),
            opt_outs: opt_outs(&response),
        }))
    }
}

/// The address as it is asked for and told: without what is after the `#`.
pub(super) fn parse(line: &str) -> Result<String, String> {
    let shape = format!("{line:?}: must begin with http:// or https:// and a host");
    let mut url = Url::parse(line).map_err(|error| format!("{shape}: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(shape);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must have no user or password: addresses are kept beside the documents".to_owned());
    }
    url.set_fragment(None);
    Ok(url.into())
}

/// Waits for something, and looks now and then whether to stop.
async fn heed<T>(progress: &Progress, future: impl Future<Output = T>) -> Result<T, CurateError> {
    let mut future = pin!(future);
    loop {
        progress.check()?;
        if let Ok(done) = timeout(LOOK, &mut future).await {
            return Ok(done);
        }
    }
}

/// Why what a service answers is not taken.
fn refusal(response: &Response, max_bytes: u64) -> Option<(Failure, Duration)> {
    let status = response.status();
    if status != StatusCode::OK {
        let is_passing = status.is_server_error()
            || matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
            );
        let pause = header(response, RETRY_AFTER).and_then(|seconds| seconds.parse().ok());
        let failure = Failure {
            reason: "read.http_status".into(),
            detail: format!("the service answers {status}"),
            is_passing,
        };
        return Some((failure, Duration::from_secs(pause.unwrap_or(0))));
    }
    if response.content_length().is_some_and(|bytes| bytes > max_bytes) {
        return Some(too_long(max_bytes));
    }
    // None was asked for. What is a compressed file anyhow is often sent so.
    let encoding = header(response, CONTENT_ENCODING).filter(|encoding| encoding != "identity")?;
    let is_file = [".gz", ".gzip", ".zst", ".zstd"]
        .iter()
        .any(|end| response.url().path().ends_with(end));
    (!is_file).then(|| {
        last(
            "read.content_encoding",
            format!("sent as {encoding}, which was not asked for"),
        )
    })
}

fn too_long(max_bytes: u64) -> (Failure, Duration) {
    last("read.too_long", format!("is longer than max_bytes = {max_bytes}"))
}

/// A failure that does not pass.
fn last(reason: &'static str, detail: String) -> (Failure, Duration) {
    let failure = Failure {
        reason: reason.into(),
        detail,
        is_passing: false,
    };
    (failure, Duration::ZERO)
}

fn unreachable(error: reqwest::Error) -> (Failure, Duration) {
    if error.is_redirect() {
        return last("read.redirect", told(error));
    }
    let failure = Failure {
        reason: "read.unreachable".into(),
        detail: told(error),
        is_passing: true,
    };
    (failure, Duration::ZERO)
}

/// An error with its causes; the address is known.
fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told.push_str(&format!(": {error}"));
        cause = error.source();
    }
    told
}

/// Opt-outs that the service states.
fn opt_outs(response: &Response) -> Vec<String> {
    let mut headers = Headers::default();
    for (name, value) in response.headers() {
        let line = [name.as_str().as_bytes(), b": ", value.as_bytes()].concat();
        // What is no text states nothing.
        let _ = headers.push(&line);
    }
    headers.opt_outs()
}

fn header(response: &Response, name: HeaderName) -> Option<String> {
    let value = response.headers().get(name)?;
    value.to_str().ok().map(str::to_owned)
}
