//! JSON objects, one a line. Only the fields that are asked for are taken out of a line.

use std::borrow::Cow;
use std::fmt;
use std::ops::{ControlFlow, Range};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::input::{Input, Line};
use super::out::{At, Out};
use super::record::{self, Record, Slot, Value};
use super::settings::FieldSettings;

/// Reads the lines that begin in `range`; the input begins a byte before it, unless it is the file's first.
pub(crate) fn read(input: &mut Input, range: &Range<u64>, out: &mut Out<'_>) -> ControlFlow<()> {
    let fields = Fields::of(&out.settings.fields);
    let max_bytes = out.settings.max_record_bytes;
    if range.start > 0
        && let Err(broken) = input.skip_line(range.end)
    {
        return out.broken(broken.offset, broken);
    }
    loop {
        match input.line(max_bytes, range.end) {
            Ok(None) => return ControlFlow::Continue(()),
            Ok(Some(Line::Whole { offset, bytes })) => {
                let bytes = if offset == 0 { without_mark(bytes) } else { bytes };
                if bytes.trim_ascii().is_empty() {
                    continue;
                }
                match fields.parse(bytes) {
                    Ok(record) => out.record(At::line(offset), record)?,
                    Err((reason, detail)) => out.drop(At::line(offset), reason, detail)?,
                }
            }
            Ok(Some(Line::TooLong { offset })) => {
                let detail = format!("the line is longer than max_record_bytes = {max_bytes}");
                out.drop(At::line(offset), "read.too_long", detail)?;
            }
            Err(broken) => return out.broken(broken.offset, broken),
        }
        out.progress(input.stored())?;
    }
}

fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// The wanted fields as a tree of keys.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    key: String,
    slot: Option<Slot>,
    below: Vec<Fields>,
}

impl Fields {
    pub(crate) fn of(settings: &FieldSettings) -> Self {
        let mut root = Self::default();
        for (name, slot) in record::names(settings) {
            let mut node = &mut root;
            for key in name.split('.') {
                node = node.child(key);
            }
            node.slot.get_or_insert(slot);
            // A key may hold a dot itself.
            root.child(name).slot.get_or_insert(slot);
        }
        root
    }

    fn child(&mut self, key: &str) -> &mut Self {
        let at = match self.below.iter().position(|child| child.key == key) {
            Some(at) => at,
            None => {
                self.below.push(Self {
                    key: key.to_owned(),
                    ..Self::default()
                });
                self.below.len() - 1
            }
        };
        #[expect(clippy::indexing_slicing, reason = "found or pushed above")]
        &mut self.below[at]
    }

    /// The record of a line, or why it is none: reason and detail.
    pub(crate) fn parse<'a>(&self, line: &'a [u8]) -> Result<Record<'a>, (&'static str, String)> {
        let text = str::from_utf8(line).map_err(|error| {
            let at = error.valid_up_to();
            ("read.utf8", format!("not UTF-8 at byte {at} of the line"))
        })?;
        if !text.trim_ascii_start().starts_with('{') {
            return Err(("read.not_an_object", "the line is not a JSON object".to_owned()));
        }
        let mut record = Record::default();
        let mut deserializer = serde_json::Deserializer::from_str(text);
        Object {
            fields: self,
            record: &mut record,
        }
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end())
        .map_err(|error| ("read.json", format!("not JSON: {error}")))?;
        Ok(record)
    }
}

/// Puts the wanted fields of an object, or a wanted value itself, into a record.
struct Object<'f, 'r, 'a> {
    fields: &'f Fields,
    record: &'r mut Record<'a>,
}

impl<'a> Object<'_, '_, 'a> {
    fn put(self, value: Value<'a>) {
        if let Some(slot) = self.fields.slot {
            self.record.put(slot, value);
        }
    }
}

impl<'a> DeserializeSeed<'a> for Object<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Object<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<(), E> {
        self.put(Value::Text(Cow::Borrowed(text)));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if self.fields.slot.is_some() {
            self.put(Value::Text(Cow::Owned(text.to_owned())));
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.put(Value::Other("a boolean"));
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.put(Value::Number(number.to_string()));
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.put(Value::Number(number.to_string()));
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.put(Value::Number(number.to_string()));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = seq.next_element::<TextOf>()? {
            texts.extend(text.0);
        }
        self.put(Value::List(texts));
        Ok(())
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(child) = map.next_key_seed(Key(&self.fields.below))? {
            match child {
                Some(fields) => map.next_value_seed(Object {
                    fields,
                    record: &mut *self.record,
                })?,
                None => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        self.put(Value::Other("an object"));
        Ok(())
    }
}

/// Finds a key among those that are wanted.
struct Key<'f>(&'f [Fields]);

impl<'a, 'f> DeserializeSeed<'a> for Key<'f> {
    type Value = Option<&'f Fields>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'f> Visitor<'_> for Key<'f> {
    type Value = Option<&'f Fields>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|fields| fields.key == key))
    }
}

/// An element of a list, if it is a text.
struct TextOf(Option<String>);

impl<'a> serde::Deserialize<'a> for TextOf {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        let mut record = Record::default();
        let fields = Fields {
            slot: Some(Slot {
                field: record::Field::Id,
                rank: 0,
            }),
            ..Fields::default()
        };
        Object {
            fields: &fields,
            record: &mut record,
        }
        .deserialize(deserializer)?;
        Ok(Self(record.take_field(record::Field::Id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::record::Field;

    fn parse(line: &str) -> Result<Record<'_>, (&'static str, String)> {
        Fields::of(&FieldSettings::default()).parse(line.as_bytes())
    }

    #[test]
    fn a_record_of_dolma_is_read_as_it_is() {
        let line = r#"{"id":"7","text":"a \"b\"\n","source":"cc","added":"x","created":"2024-01-02",
            "metadata":{"url":"http://a","deep":{"url":"no"},"license":["MIT","Zlib"]}}"#;
        let mut record = parse(line).unwrap();
        assert_eq!(record.take_text().unwrap(), "a \"b\"\n");
        let mut field = |field| record.take_field(field);
        assert_eq!(field(Field::Id).as_deref(), Some("7"));
        assert_eq!(field(Field::Url).as_deref(), Some("http://a"));
        assert_eq!(field(Field::Created).as_deref(), Some("2024-01-02"));
        assert_eq!(field(Field::Licence).as_deref(), Some("MIT AND Zlib"));
        assert_eq!(field(Field::Language), None);
    }

    #[test]
    fn the_first_name_counts_wherever_it_stands() {
        let mut record = parse(r#"{"metadata":{"url":"b"},"url":"a","id":18446744073709551615}"#).unwrap();
        assert_eq!(record.take_field(Field::Url).as_deref(), Some("a"));
        assert_eq!(
            record.take_field(Field::Id).as_deref(),
            Some("18446744073709551615")
        );
        let mut record = parse(r#"{"url":null,"metadata.url":"b"}"#).unwrap();
        assert_eq!(record.take_field(Field::Url).as_deref(), Some("b"));
    }

    #[test]
    fn a_bad_line_is_told() {
        let reason = |line: &str| parse(line).and_then(|mut record| record.take_text()).unwrap_err();
        assert_eq!(reason("[1]").0, "read.not_an_object");
        assert_eq!(reason("null").0, "read.not_an_object");
        assert_eq!(reason(r#"{"text":"a"} {"#).0, "read.json");
        assert_eq!(reason(r#"{"text":"a""#).0, "read.json");
        assert_eq!(reason(r#"{"text":"\ud800"}"#).0, "read.json");
        assert_eq!(reason(r#"{"id":1}"#).0, "read.no_text");
        assert_eq!(reason(r#"{"text":null}"#).0, "read.no_text");
        assert_eq!(reason(r#"{"text":" \n"}"#).0, "read.empty");
        for (value, what) in [
            ("1.5", "a number"),
            ("[\"a\"]", "a list"),
            ("{}", "an object"),
            ("true", "a boolean"),
        ] {
            let (reason, detail) = reason(&format!("{{\"text\":{value}}}"));
            assert_eq!(reason, "read.text_type");
            assert!(detail.contains(what), "{detail}");
        }
        let invalid = Fields::of(&FieldSettings::default())
            .parse(b"{\"text\":\"a\xff\"}")
            .unwrap_err();
        assert_eq!(
            invalid,
            ("read.utf8", "not UTF-8 at byte 10 of the line".to_owned())
        );
    }

    #[test]
    fn nesting_without_end_is_an_error_and_no_overflow() {
        for open in ["[", "{\"text\":", "{\"metadata\":"] {
            let line = format!("{{\"metadata\":{}", open.repeat(200_000));
            assert_eq!(parse(&line).unwrap_err().0, "read.json");
        }
    }
}
