//! WARC, the format of web archives (ISO 28500): response, resource and conversion records.

use std::ops::ControlFlow;

use super::encoding;
use super::http::{self, ContentType, Headers};
use super::input::{Broken, Input, Line};
use super::out::{At, Out};
use super::record::{Field, Record, Slot, Value};
use super::whole;

/// A longer line is no header.
const HEADER_LINE_BYTES: usize = 64 << 10;
const HEADER_LINES: usize = 1000;

/// Reads all records. Records of other types, such as requests, hold no text and are passed over; where no record begins,
/// the next line that begins one is looked for.
pub(crate) fn read(input: &mut Input, out: &mut Out<'_>) -> ControlFlow<()> {
    for record in 0.. {
        let next = match next(input, out.settings.max_record_bytes) {
            Ok(Some(next)) => next,
            Ok(None) => break,
            Err(broken) => return out.broken(record, broken),
        };
        let at = At {
            record,
            offset: next.offset,
        };
        match next.block {
            Block::Passed => {}
            Block::Refused((reason, detail)) => out.drop(at, reason, detail)?,
            Block::Held(headers, block) => document(&headers, block, at, out)?,
        }
        out.progress(input.stored())?;
    }
    ControlFlow::Continue(())
}

type Refusal = (&'static str, String);

struct Next {
    offset: u64,
    block: Block,
}

enum Block {
    Held(Headers, Vec<u8>),
    Passed,
    Refused(Refusal),
}

fn next(input: &mut Input, max_bytes: usize) -> Result<Option<Next>, Broken> {
    let offset = loop {
        match input.line(HEADER_LINE_BYTES, u64::MAX)? {
            None => return Ok(None),
            Some(Line::Whole { bytes, .. }) if bytes.trim_ascii().is_empty() => {}
            Some(Line::Whole { offset, bytes }) if bytes.starts_with(b"WARC/") => break offset,
            Some(Line::Whole { offset, .. } | Line::TooLong { offset }) => {
                skip_to_record(input)?;
                let refusal = (
                    "read.warc",
                    "no record begins here; went on at the next".to_owned(),
                );
                return Ok(Some(Next {
                    offset,
                    block: Block::Refused(refusal),
                }));
            }
        }
    };
    let block = match headers(input) {
        Ok(Ok(headers)) => block(input, headers, max_bytes),
        Ok(Err(detail)) => Ok(Block::Refused(("read.warc", detail))),
        Err(broken) => Err(broken),
    };
    let block = block.map_err(|broken| Broken { offset, ..broken })?;
    Ok(Some(Next { offset, block }))
}

/// Skips to a line that begins a record.
fn skip_to_record(input: &mut Input) -> Result<(), Broken> {
    const BEGIN: &[u8] = b"WARC/";
    loop {
        match input.peek_at_least(BEGIN.len())? {
            [] => return Ok(()),
            held if held.starts_with(BEGIN) => return Ok(()),
            _ => input.skip_line(u64::MAX)?,
        }
    }
}

/// The header fields, or what is wrong with them.
fn headers(input: &mut Input) -> Result<Result<Headers, String>, Broken> {
    let mut headers = Headers::default();
    for _ in 0..HEADER_LINES {
        match input.line(HEADER_LINE_BYTES, u64::MAX)? {
            None => return Ok(Err("the file ends within a header".to_owned())),
            Some(Line::TooLong { .. }) => return Ok(Err("a header line is too long".to_owned())),
            Some(Line::Whole { bytes, .. }) => {
                if bytes.trim_ascii().is_empty() {
                    return Ok(Ok(headers));
                }
                if !headers.push(bytes) {
                    return Ok(Err("a header line has no colon".to_owned()));
                }
            }
        }
    }
    Ok(Err(format!("the header has more than {HEADER_LINES} lines")))
}

fn block(input: &mut Input, headers: Headers, max_bytes: usize) -> Result<Block, Broken> {
    let length = headers
        .get("content-length")
        .and_then(|length| length.parse::<u64>().ok());
    let Some(length) = length else {
        return Ok(Block::Refused(("read.warc", "no Content-Length".to_owned())));
    };
    let cut_off = |found: u64| {
        let detail = format!("the file ends after {found} of the record's {length} bytes");
        Ok(Block::Refused(("read.truncated", detail)))
    };
    let kind = headers.get("warc-type").unwrap_or_default().to_ascii_lowercase();
    let is_text = matches!(kind.as_str(), "response" | "resource" | "conversion");
    let held = usize::try_from(length)
        .ok()
        .filter(|length| is_text && *length <= max_bytes);
    let Some(held) = held else {
        let found = input.skip(length)?;
        if found < length {
            return cut_off(found);
        }
        if !is_text {
            return Ok(Block::Passed);
        }
        let detail = format!("the record has {length} bytes, max_record_bytes = {max_bytes}");
        return Ok(Block::Refused(("read.too_long", detail)));
    };
    let mut block = Vec::new();
    let found = input.take(held, &mut block)?;
    if found < held {
        return cut_off(found as u64);
    }
    Ok(Block::Held(headers, block))
}

fn document(headers: &Headers, block: Vec<u8>, at: At, out: &mut Out<'_>) -> ControlFlow<()> {
    let mut record = Record::default();
    let plain = |name| {
        headers
            .get(name)
            .map(|value| value.trim_matches(['<', '>']).to_owned())
    };
    record.put_text(Field::Id, plain("warc-record-id"));
    record.put_text(Field::Url, plain("warc-target-uri"));
    record.put_text(Field::Created, plain("warc-date"));
    record.put_text(Field::Language, plain("warc-identified-content-language"));
    let mut opt_outs = headers.opt_outs();
    let mut kind = ContentType::of(headers.get("content-type").unwrap_or_default());
    let mut body = block;
    if kind.kind == "application/http" {
        let response = match http::response(&body, out.settings.max_record_bytes) {
            Ok(response) => response,
            Err((reason, detail)) => return out.drop(at, reason, detail),
        };
        kind = ContentType::of(response.headers.get("content-type").unwrap_or_default());
        opt_outs.extend(response.headers.opt_outs());
        let language = response.headers.get("content-language").map(str::to_owned);
        if let Some(language) = language {
            let slot = Slot {
                field: Field::Language,
                rank: 1,
            };
            record.put(slot, Value::Text(language.into()));
        }
        body = response.body;
    }
    let slot = Slot {
        field: Field::OptOuts,
        rank: 0,
    };
    record.put(slot, Value::List(opt_outs));
    match kind.kind.as_str() {
        "text/html" | "application/xhtml+xml" => whole::page(body, kind.charset.as_deref(), record, at, out),
        "text/plain" | "text/markdown" => match encoding::decode(body, kind.charset.as_deref()) {
            Some(decoded) => {
                record.recoded = decoded.recoded;
                record.put_text(Field::Text, Some(decoded.text));
                out.record(at, record)
            }
            None => out.drop(at, "read.binary", "not text".to_owned()),
        },
        other => {
            let other: String = other.chars().take(100).collect();
            out.drop(
                at,
                "read.content_type",
                format!("content type {other:?} is not read"),
            )
        }
    }
}
