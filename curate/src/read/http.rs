//! An HTTP response as it was kept: its headers, and its body in plain.

use std::io::Read;

use memchr::memmem;

use super::html;

/// Headers beyond this are not HTTP.
const HEADER_BYTES: usize = 256 << 10;

/// Header fields, of WARC and of HTTP.
#[derive(Debug, Default)]
pub(crate) struct Headers(Vec<(String, String)>);

impl Headers {
    /// Takes in a line `name: value`; one that begins with a space goes on with the last. False if it is neither.
    pub(crate) fn push(&mut self, line: &[u8]) -> bool {
        let line = String::from_utf8_lossy(line.trim_ascii_end());
        if line.starts_with([' ', '\t']) {
            let Some((_, value)) = self.0.last_mut() else {
                return false;
            };
            value.push(' ');
            value.push_str(line.trim());
            return true;
        }
        let Some((name, value)) = line.split_once(':') else {
            return false;
        };
        self.0
            .push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        true
    }

    /// The first value of a field; `name` in lower case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let same = self.0.iter().find(|(field, _)| field == name);
        same.map(|(_, value)| value.as_str())
    }

    /// All values of a field; `name` in lower case.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let same = self.0.iter().filter(move |(field, _)| field == name);
        same.map(|(_, value)| value.as_str())
    }

    /// Opt-outs that the sender states.
    pub(crate) fn opt_outs(&self) -> Vec<String> {
        let mut outs: Vec<String> = self.all("x-robots-tag").flat_map(html::directives).collect();
        if self
            .get("tdm-reservation")
            .is_some_and(|value| value.trim() == "1")
        {
            outs.push("tdm-reservation".to_owned());
        }
        outs
    }
}

/// What a `Content-Type` says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ContentType {
    /// Without parameters, in lower case.
    pub(crate) kind: String,
    pub(crate) charset: Option<String>,
}

impl ContentType {
    pub(crate) fn of(value: &str) -> Self {
        let mut parts = value.split(';');
        let kind = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
        let charset = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            let value = value.trim().trim_matches(['"', '\'']);
            (name.trim().eq_ignore_ascii_case("charset") && !value.is_empty()).then(|| value.to_owned())
        });
        Self { kind, charset }
    }
}

/// A response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) headers: Headers,
    /// Without the encodings of its transfer and content.
    pub(crate) body: Vec<u8>,
}

/// Takes a response apart; reason and detail where that fails. No more than `max_bytes` of the body are decompressed.
pub(crate) fn response(bytes: &[u8], max_bytes: usize) -> Result<Response, (&'static str, String)> {
    let not_http = |detail: &str| ("read.http", detail.to_owned());
    let head = bytes.get(..HEADER_BYTES).unwrap_or(bytes);
    let mut at = 0;
    let mut lines = std::iter::from_fn(|| {
        let rest = head.get(at..)?;
        let end = memchr::memchr(b'\n', rest)?;
        at += end + 1;
        let line = rest.get(..end)?.trim_ascii_end();
        (!line.is_empty()).then_some(line)
    });
    let status = lines.next().unwrap_or_default();
    if !status.starts_with(b"HTTP/") {
        return Err(not_http("the record holds no HTTP status line"));
    }
    let code =
        String::from_utf8_lossy(status.split(|byte| *byte == b' ').nth(1).unwrap_or_default()).into_owned();
    if code != "200" {
        let code: String = code.chars().take(16).collect();
        return Err(("read.http_status", format!("HTTP status {code:?}")));
    }
    let mut headers = Headers::default();
    // A line that is no header is left out, as browsers do.
    for line in lines {
        let _ = headers.push(line);
    }
    let mut body = bytes.get(at..).unwrap_or_default().to_vec();
    let is_chunked = |value: &str| value.to_ascii_lowercase().contains("chunked");
    if headers.all("transfer-encoding").any(is_chunked)
        && let Some(plain) = dechunked(&body)
    {
        body = plain;
    }
    let encoding = headers
        .get("content-encoding")
        .unwrap_or_default()
        .to_ascii_lowercase();
    let body = match encoding.as_str() {
        "" | "identity" => body,
        "gzip" | "x-gzip" if !body.starts_with(&[0x1f, 0x8b]) => body,
        "gzip" | "x-gzip" => limited(flate2::read::MultiGzDecoder::new(body.as_slice()), max_bytes)?,
        "deflate" if body.first().is_some_and(|byte| byte & 0x0f == 8) => {
            limited(flate2::read::ZlibDecoder::new(body.as_slice()), max_bytes)?
        }
        "deflate" => limited(flate2::read::DeflateDecoder::new(body.as_slice()), max_bytes)?,
        "zstd" => match zstd::stream::read::Decoder::new(body.as_slice()) {
            Ok(decoder) => limited(decoder, max_bytes)?,
            Err(error) => return Err(("read.content_encoding", error.to_string())),
        },
        other => {
            let other: String = other.chars().take(64).collect();
            return Err((
                "read.content_encoding",
                format!("content encoding {other:?} is not read"),
            ));
        }
    };
    Ok(Response { headers, body })
}

fn limited(decoder: impl Read, max_bytes: usize) -> Result<Vec<u8>, (&'static str, String)> {
    let mut plain = Vec::new();
    decoder
        .take(max_bytes as u64 + 1)
        .read_to_end(&mut plain)
        .map_err(|error| ("read.content_encoding", format!("the body is damaged: {error}")))?;
    if plain.len() > max_bytes {
        let detail = format!("the body is longer than max_record_bytes = {max_bytes}");
        return Err(("read.too_long", detail));
    }
    Ok(plain)
}

/// The body without its chunks' sizes; none if it has none, as crawlers often keep it. A chunk cut short ends it.
fn dechunked(body: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(body.len());
    let mut rest = body;
    loop {
        let end = memmem::find(rest.get(..rest.len().min(64))?, b"\n");
        let Some(end) = end else {
            return (!plain.is_empty()).then_some(plain);
        };
        let size = rest.get(..end)?;
        let size = size.split(|byte| *byte == b';').next()?.trim_ascii();
        let size = usize::from_str_radix(str::from_utf8(size).ok()?, 16).ok()?;
        if size == 0 {
            return Some(plain);
        }
        rest = rest.get(end + 1..)?;
        plain.extend_from_slice(rest.get(..size).unwrap_or(rest));
        rest = rest.get(size..).unwrap_or_default();
        rest = rest.strip_prefix(b"\r").unwrap_or(rest);
        rest = rest.strip_prefix(b"\n").unwrap_or(rest);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn body(headers: &str, body: &[u8]) -> Result<Vec<u8>, (&'static str, String)> {
        let mut bytes = format!("HTTP/1.1 200 OK\r\n{headers}\r\n").into_bytes();
        bytes.extend_from_slice(body);
        response(&bytes, 1000).map(|response| response.body)
    }

    #[test]
    fn the_body_is_plain_whatever_it_was_sent_in() {
        assert_eq!(body("", b"a\r\n\r\nb").unwrap(), b"a\r\n\r\nb");
        let chunks = b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
        assert_eq!(body("Transfer-Encoding: chunked\r\n", chunks).unwrap(), b"abcde");
        assert_eq!(
            body("Transfer-Encoding: chunked\r\n", b"not chunked").unwrap(),
            b"not chunked"
        );
        assert_eq!(
            body("Transfer-Encoding: chunked\r\n", b"9\r\nabc").unwrap(),
            b"abc"
        );
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"hello").unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(body("content-encoding: gzip\r\n", &gzip).unwrap(), b"hello");
        assert_eq!(body("content-encoding: gzip\r\n", b"hello").unwrap(), b"hello");
        assert_eq!(
            body("content-encoding: gzip\r\n", &gzip[..12]).unwrap_err().0,
            "read.content_encoding"
        );
        assert_eq!(
            body("content-encoding: br\r\n", b"x").unwrap_err().0,
            "read.content_encoding"
        );
    }

    #[test]
    fn a_bomb_is_not_decompressed() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&vec![0; 1 << 20]).unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(
            body("content-encoding: gzip\r\n", &gzip).unwrap_err().0,
            "read.too_long"
        );
    }

    #[test]
    fn headers_tell_type_and_opt_outs() {
        let bytes =
            b"HTTP/1.1 200\r\nX-Robots-Tag: noai, max-snippet: 20\r\nx-robots-tag: otherbot: noindex\r\n\
            TDM-Reservation: 1\r\nContent-Type: text/HTML;\r\n charset=\"utf-8\"\r\n\r\n";
        let response = response(bytes, 9).unwrap();
        assert_eq!(
            response.headers.opt_outs(),
            ["noai", "noindex", "tdm-reservation"]
        );
        let kind = ContentType::of(response.headers.get("content-type").unwrap());
        assert_eq!(
            (kind.kind.as_str(), kind.charset.as_deref()),
            ("text/html", Some("utf-8"))
        );
    }

    #[test]
    fn what_is_no_good_response_is_told() {
        assert_eq!(response(b"", 9).unwrap_err().0, "read.http");
        assert_eq!(
            response(b"HTTP/1.1 404 Not Found\r\n\r\n", 9).unwrap_err().0,
            "read.http_status"
        );
        assert_eq!(response(b"HTTP/1.1", 9).unwrap_err().0, "read.http");
    }
}
