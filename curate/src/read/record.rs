//! A record's fields, wherever they were found.

use std::borrow::Cow;

use super::settings::FieldSettings;
use crate::document::Recoded;

/// What a field of a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Text,
    Id,
    Url,
    Language,
    Licence,
    Created,
    OptOuts,
    Kind,
    DerivedFrom,
}

/// A field and which of its names this is: the lowest that is there counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) field: Field,
    pub(crate) rank: u8,
}

/// All names with their slots, the text's first.
pub(crate) fn names(settings: &FieldSettings) -> impl Iterator<Item = (&str, Slot)> {
    let fields = [
        (Field::Text, &settings.text),
        (Field::Id, &settings.id),
        (Field::Url, &settings.url),
        (Field::Language, &settings.language),
        (Field::Licence, &settings.licence),
        (Field::Created, &settings.created),
        (Field::OptOuts, &settings.opt_outs),
        (Field::Kind, &settings.kind),
        (Field::DerivedFrom, &settings.derived_from),
    ];
    fields.into_iter().flat_map(|(field, names)| {
        let slots = (0..).map(move |rank| Slot { field, rank });
        names.iter().map(String::as_str).zip(slots)
    })
}

/// What a field holds. A field that is null is not there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Text(Cow<'a, str>),
    Number(String),
    List(Vec<String>),
    /// Anything else, by its name.
    Other(&'static str),
}

impl Value<'_> {
    /// As text; a list's texts are joined by `between`.
    fn into_text(self, between: &str) -> Option<String> {
        let text = match self {
            Self::Text(text) => text.into_owned(),
            Self::Number(number) => number,
            Self::List(texts) => texts.join(between),
            Self::Other(_) => return None,
        };
        (!text.is_empty()).then_some(text)
    }
}

/// A record, from whatever format.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record<'a> {
    values: [Option<(u8, Value<'a>)>; 9],
    /// What the text's bytes were, if they were not its UTF-8.
    pub(crate) recoded: Option<Recoded>,
}

impl<'a> Record<'a> {
    /// A record that is only a text.
    pub(crate) fn of_text(text: impl Into<Cow<'a, str>>) -> Self {
        let mut record = Self::default();
        record.put_text(Field::Text, Some(text));
        record
    }

    /// Sets a field, unless one of a better name is there. The last of one name counts.
    pub(crate) fn put(&mut self, slot: Slot, value: Value<'a>) {
        if let Some(held) = self.values.get_mut(slot.field as usize)
            && held.as_ref().is_none_or(|(rank, _)| slot.rank <= *rank)
        {
            *held = Some((slot.rank, value));
        }
    }

    /// Sets a field to a text, if there is one.
    pub(crate) fn put_text(&mut self, field: Field, text: Option<impl Into<Cow<'a, str>>>) {
        if let Some(text) = text {
            self.put(Slot { field, rank: 0 }, Value::Text(text.into()));
        }
    }

    fn take(&mut self, field: Field) -> Option<Value<'a>> {
        let (_, value) = self.values.get_mut(field as usize)?.take()?;
        Some(value)
    }

    /// The text, or why there is none: reason and detail.
    pub(crate) fn take_text(&mut self) -> Result<String, (&'static str, String)> {
        let text = match self.take(Field::Text) {
            Some(Value::Text(text)) => text,
            Some(Value::Number(_)) => return Err(wrong_type("a number")),
            Some(Value::List(_)) => return Err(wrong_type("a list")),
            Some(Value::Other(what)) => return Err(wrong_type(what)),
            None => {
                return Err((
                    "read.no_text",
                    "no text field; set fields.text if it has another name".into(),
                ));
            }
        };
        if text.trim_ascii().is_empty() || text.trim().is_empty() {
            return Err(("read.empty", "the text is empty".into()));
        }
        Ok(text.into_owned())
    }

    /// Another field than text and opt-outs, as text.
    pub(crate) fn take_field(&mut self, field: Field) -> Option<String> {
        let between = if field == Field::Licence { " AND " } else { " " };
        self.take(field)?.into_text(between)
    }

    /// The opt-outs.
    pub(crate) fn take_opt_outs(&mut self) -> Vec<String> {
        let texts = match self.take(Field::OptOuts) {
            Some(Value::List(texts)) => texts,
            Some(value) => value.into_text("").into_iter().collect(),
            None => return Vec::new(),
        };
        let parts = texts.iter().flat_map(|text| text.split(','));
        let mut outs: Vec<String> = parts
            .map(|part| part.trim().to_ascii_lowercase())
            .filter(|part| !part.is_empty())
            .collect();
        outs.sort_unstable();
        outs.dedup();
        outs
    }
}

fn wrong_type(what: &str) -> (&'static str, String) {
    (
        "read.text_type",
        format!("the text field holds {what}, not a text"),
    )
}
