//! Files that are one document each: text, Markdown, source code, pages.

use std::io;
use std::ops::ControlFlow;

use super::encoding;
use super::formats::FileKind;
use super::html;
use super::input::Input;
use super::nearest;
use super::out::{At, Out};
use super::record::{Field, Record};
use super::settings::Format;

/// Reads the one document of a file, of which `is_changed` tells whether it changed meanwhile.
pub(crate) fn read(
    input: &mut Input,
    kind: FileKind,
    is_changed: impl FnOnce() -> io::Result<bool>,
    out: &mut Out<'_>,
) -> ControlFlow<()> {
    let at = At::default();
    let max_bytes = out.settings.max_record_bytes;
    let mut bytes = Vec::new();
    if let Err(broken) = input.take(max_bytes.saturating_add(1), &mut bytes) {
        return out.drop(at, broken.reason, broken.detail);
    }
    if bytes.len() > max_bytes {
        let detail = format!("the file is longer than max_record_bytes = {max_bytes}");
        return out.drop(at, "read.too_long", detail);
    }
    match is_changed() {
        Ok(false) => {}
        // Told once the file is done with.
        Ok(true) => return ControlFlow::Continue(()),
        Err(error) => return out.drop(at, "read.unreadable", error.to_string()),
    }
    if kind.format == Format::Html {
        return page(bytes, None, Record::default(), at, out);
    }
    let Some(decoded) = encoding::decode(bytes, None) else {
        return out.drop(at, "read.binary", "not text".to_owned());
    };
    let licence = (kind.format == Format::Code)
        .then(|| nearest::tag_in(&decoded.text))
        .flatten();
    if kind.format == Format::Code {
        out.is_code(kind.language);
    }
    let mut record = Record::of_text(decoded.text);
    record.recoded = decoded.recoded;
    record.put_text(Field::Licence, licence);
    out.record(at, record)
}

/// A page becomes a document; `record` holds what is known of it already.
pub(crate) fn page(
    bytes: Vec<u8>,
    declared: Option<&str>,
    mut record: Record<'_>,
    at: At,
    out: &mut Out<'_>,
) -> ControlFlow<()> {
    let max_bytes = out.settings.max_html_bytes;
    if bytes.len() > max_bytes {
        let detail = format!("the page is longer than max_html_bytes = {max_bytes}");
        return out.drop(at, "read.too_long", detail);
    }
    let label = match declared {
        Some(label) => Some(label.to_owned()),
        None => html::declared_encoding(&bytes),
    };
    let Some(markup) = encoding::decode(bytes, label.as_deref()) else {
        return out.drop(at, "read.binary", "not text".to_owned());
    };
    record.recoded = markup.recoded;
    match html::extract(&markup.text) {
        Ok(page) => {
            page.fill(&mut record);
            out.record(at, record)
        }
        Err((reason, detail)) => out.drop(at, reason, detail),
    }
}
