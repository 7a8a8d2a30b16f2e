//! Reads one TOML table field by field: each field names its default and its bound once, and what is wrong
//! is said with line, field, value and bound. Keys that nobody asked for are reported with the nearest known name.

use std::fmt::{Display, Write as _};
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Everything wrong with a spec, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct SpecError {
    /// One sentence a problem: line, field, value, bound.
    pub problems: Vec<String>,
}

impl Display for SpecError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.problems.join("\n").fmt(f)
    }
}

/// A parsed file and what was found wrong with it so far.
pub(super) struct Reader<'a> {
    source: &'a str,
    problems: Vec<(usize, String)>,
    sections: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a str) -> Self {
        Self {
            source,
            problems: Vec::new(),
            sections: Vec::new(),
        }
    }

    /// The whole file as a table.
    pub(super) fn parse(&self) -> Result<Spanned<DeTable<'a>>, SpecError> {
        DeTable::parse(self.source).map_err(|error| {
            let line = error.span().map_or(1, |span| self.line(span.start));
            SpecError {
                problems: vec![format!("line {line}: {}", error.message())],
            }
        })
    }

    fn line(&self, offset: usize) -> usize {
        self.source[..offset.min(self.source.len())]
            .bytes()
            .filter(|&b| b == b'\n')
            .count()
            + 1
    }

    /// A problem at a byte offset of the file.
    fn report(&mut self, offset: usize, problem: impl Display) {
        let text = format!("line {}: {problem}", self.line(offset));
        self.problems.push((offset, text));
    }

    /// A rule between fields that does not hold.
    pub(super) fn reject(&mut self, problem: String) {
        self.problems.push((usize::MAX, problem));
    }

    /// The section `name`, empty when the file has none.
    pub(super) fn section<'t>(&mut self, root: &'t DeTable<'a>, name: &'static str) -> Section<'t, 'a> {
        self.sections.push(name);
        let table = match root.get(name) {
            None => None,
            Some(value) => match value.get_ref() {
                DeValue::Table(table) => Some(table),
                other => {
                    let problem = format!("`{name}` is {}: it must be a section, `[{name}]`", kind(other));
                    self.report(value.span().start, problem);
                    None
                }
            },
        };
        Section {
            name,
            table,
            known: Vec::new(),
        }
    }

    /// Reports sections that nobody read, and turns what was found into the verdict.
    pub(super) fn finish(mut self, root: &DeTable<'a>) -> Result<(), SpecError> {
        let known = std::mem::take(&mut self.sections);
        for (key, _) in root {
            if !known.contains(&key.get_ref().as_ref()) {
                let problem = unknown("section", key.get_ref(), &known);
                self.report(key.span().start, problem);
            }
        }
        self.problems.sort_by_key(|(offset, _)| *offset);
        let problems: Vec<String> = self.problems.into_iter().map(|(_, text)| text).collect();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(SpecError { problems })
        }
    }
}

/// One `[section]` of the file.
pub(super) struct Section<'t, 'a> {
    name: &'static str,
    table: Option<&'t DeTable<'a>>,
    known: Vec<&'static str>,
}

impl<'t, 'a> Section<'t, 'a> {
    fn find(&mut self, field: &'static str) -> Option<&'t Spanned<DeValue<'a>>> {
        self.known.push(field);
        self.table.and_then(|table| table.get(field))
    }

    fn get<T>(
        &mut self,
        reader: &mut Reader<'_>,
        field: &'static str,
        expected: impl FnOnce() -> String,
        parse: impl FnOnce(&DeValue<'a>) -> Option<T>,
    ) -> Option<T> {
        let value = self.find(field)?;
        let parsed = parse(value.get_ref());
        if parsed.is_none() {
            let shown = show(value.get_ref());
            let problem = format!("{}.{field} = {shown}: must be {}", self.name, expected());
            reader.report(value.span().start, problem);
        }
        parsed
    }

    /// A whole number within `bound`, if given.
    pub(super) fn integer(
        &mut self,
        reader: &mut Reader<'_>,
        field: &'static str,
        bound: RangeInclusive<u64>,
    ) -> Option<u64> {
        let expected = || format!("a whole number from {} to {}", bound.start(), bound.end());
        self.get(reader, field, expected, |value| {
            let number = value.as_integer()?;
            let number = u64::from_str_radix(number.as_str(), number.radix()).ok()?;
            bound.contains(&number).then_some(number)
        })
    }

    /// A number within `bound`, if given.
    pub(super) fn number(
        &mut self,
        reader: &mut Reader<'_>,
        field: &'static str,
        bound: RangeInclusive<f64>,
    ) -> Option<f64> {
        let expected = || format!("a number from {} to {}", bound.start(), bound.end());
        self.get(reader, field, expected, |value| {
            let text = value
                .as_float()
                .map(|f| f.as_str())
                .or(value.as_integer().map(|i| i.as_str()))?;
            text.parse::<f64>().ok().filter(|number| bound.contains(number))
        })
    }

    /// `true` or `false`, if given.
    pub(super) fn flag(&mut self, reader: &mut Reader<'_>, field: &'static str) -> Option<bool> {
        self.get(reader, field, || "true or false".to_owned(), DeValue::as_bool)
    }

    /// A text that `parse` accepts, if given.
    pub(super) fn text<T>(
        &mut self,
        reader: &mut Reader<'_>,
        field: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        self.get(
            reader,
            field,
            || expected.to_owned(),
            |value| parse(value.as_str()?),
        )
    }

    /// Reports the fields that nobody asked for.
    pub(super) fn finish(self, reader: &mut Reader<'_>) {
        for (key, _) in self.table.into_iter().flatten() {
            if !self.known.contains(&key.get_ref().as_ref()) {
                let problem = unknown(&format!("field of [{}]", self.name), key.get_ref(), &self.known);
                reader.report(key.span().start, problem);
            }
        }
    }
}

/// "unknown field of [train] `stepz`: did you mean `steps`?"
fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    let mut text = format!("unknown {what} `{name}`");
    match nearest(name, known) {
        Some(near) => write!(text, ": did you mean `{near}`?"),
        None => write!(text, ": known are {}", known.join(", ")),
    }
    .ok();
    text
}

/// The known name most like `name`, if one is like it at all.
#[must_use]
pub fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let score = |k: &&str| strsim::jaro_winkler(name, k);
    known
        .iter()
        .copied()
        .max_by(|a, b| score(a).total_cmp(&score(b)))
        .filter(|k| score(k) > 0.75)
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

fn show(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(flag) => flag.to_string(),
        other => kind(other).to_owned(),
    }
}
