//! Paragraphs and long lines that were seen before.
//!
//! A paragraph is what stands between blank lines. Its text is compared as it is, but for whitespace at both ends; so is
//! that of each line of a paragraph of several. The first occurrence, by document and by place in it, always stays.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::dedup::exact::Digest128;
use crate::dedup::sort::{Merge, Sorter};
use crate::dedup::table::{Kind, TableReader, TableWriter, finished, put_words};
use crate::dedup::{Bloom, DedupError, Slice, SortSettings};

const PASSAGES: Kind = *b"passage1";
const REMOVALS: Kind = *b"removal1";

/// Which passages are compared, and when one is removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PassageSettings {
    /// A passage that more documents than this have is removed from all but the first. 1, which is dolma's: whatever was
    /// seen before. Within a document, all repetitions are removed.
    pub max_documents: u32,
    /// Paragraphs of fewer characters are not compared. 32, ours: shorter ones are headings and the like.
    pub min_paragraph_chars: usize,
    /// Lines of fewer characters are not compared. 64, ours: shorter ones belong to lists, verses and code.
    pub min_line_chars: usize,
}

impl Default for PassageSettings {
    fn default() -> Self {
        Self {
            max_documents: 1,
            min_paragraph_chars: 32,
            min_line_chars: 64,
        }
    }
}

impl PassageSettings {
    /// Whether the values are within their bounds.
    ///
    /// # Errors
    /// Names the field, its value and the bound.
    pub fn check(&self) -> Result<(), String> {
        match self.max_documents {
            0 => Err("max_documents = 0: must be at least 1".to_owned()),
            _ => Ok(()),
        }
    }

    /// What decides how passages are numbered, as one number.
    fn numbering(&self) -> u64 {
        let mut words = Vec::new();
        put_words(
            &mut words,
            &[self.min_paragraph_chars as u64, self.min_line_chars as u64],
        );
        xxh3_64(&words)
    }
}

/// A passage that is long enough to be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage<'a> {
    /// Its text, without whitespace at its ends.
    pub text: &'a str,
    /// Where it stands: a line with its end, a paragraph without the blank lines after it.
    range: Range<usize>,
    paragraph: Paragraph,
}

/// Lines without a blank one between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Paragraph {
    start: usize,
    /// Where its last line ends.
    end: usize,
    /// Where the blank lines after it end.
    next: usize,
}

/// The passages of a text, in the order that numbers them: each paragraph before its lines.
pub fn passages<'a>(text: &'a str, settings: &PassageSettings) -> impl Iterator<Item = Passage<'a>> {
    let (min_paragraph, min_line) = (
        settings.min_paragraph_chars.max(1),
        settings.min_line_chars.max(1),
    );
    let mut at = 0;
    let paragraphs = std::iter::from_fn(move || {
        let paragraph = next_paragraph(text, at)?;
        at = paragraph.next;
        Some(paragraph)
    });
    paragraphs.flat_map(move |paragraph| {
        let body = text.get(paragraph.start..paragraph.end).unwrap_or_default();
        let whole = std::iter::once((paragraph.start..paragraph.end, min_paragraph));
        let mut start = paragraph.start;
        let lines = body.split_inclusive('\n').map(move |line| {
            start += line.len();
            (start - line.len()..start, min_line)
        });
        // A paragraph of one line is that line.
        let lines = lines.filter(move |(range, _)| range.end - range.start < body.len());
        whole.chain(lines).filter_map(move |(range, least)| {
            let text = text.get(range.clone()).unwrap_or_default().trim();
            let long = text.len() >= least && text.chars().count() >= least;
            long.then_some(Passage {
                text,
                range,
                paragraph,
            })
        })
    })
}

/// The first paragraph from a place on.
fn next_paragraph(text: &str, at: usize) -> Option<Paragraph> {
    let (mut start, mut end, mut next) = (None, at, at);
    for line in text.get(at..)?.split_inclusive('\n') {
        match (line.trim().is_empty(), start) {
            (false, Some(_)) if next > end => break,
            (false, _) => {
                start = start.or(Some(next));
                end = next + line.len();
            }
            (true, _) => {}
        }
        next += line.len();
    }
    start.map(|start| Paragraph { start, end, next })
}

/// The text without the passages of these numbers, which ascend. A paragraph that loses all of its lines goes with the
/// blank lines after it.
#[must_use]
pub fn remove(text: &str, settings: &PassageSettings, numbers: &[u32]) -> String {
    let mut rest = String::with_capacity(text.len());
    let mut copied = 0;
    let mut cut = |from: usize, to: usize| {
        rest.push_str(text.get(copied..from).unwrap_or_default());
        copied = copied.max(to);
    };
    let mut numbers = numbers.iter().peekable();
    // Up to where the paragraph at hand is gone, without a gap.
    let mut gone = 0;
    for (number, passage) in passages(text, settings).enumerate() {
        if numbers.next_if(|&&next| next as usize == number).is_none() {
            continue;
        }
        let Passage { range, paragraph, .. } = passage;
        if gone < paragraph.start {
            gone = paragraph.start;
        }
        if range.start <= gone {
            gone = gone.max(range.end);
        }
        cut(
            range.start,
            if gone == paragraph.end {
                paragraph.next
            } else {
                range.end
            },
        );
    }
    cut(text.len(), text.len());
    rest
}

/// The numbers of a text's passages that a filter has seen, in this text or in those before; it takes in the others.
/// Texts must come in the order that decides which is first. `max_documents` is taken for 1.
pub fn seen(text: &str, settings: &PassageSettings, filter: &mut Bloom) -> Vec<u32> {
    let passages = (0..).zip(passages(text, settings));
    let seen = passages.filter(|(_, passage)| filter.insert(Digest128::of(passage.text)));
    seen.map(|(number, _)| number).collect()
}

/// Writes a part: the digests of a task's passages, in their order. Nothing stands at its place before
/// [`PassageWriter::commit`].
pub struct PassageWriter {
    table: TableWriter<3>,
    settings: PassageSettings,
    documents: u64,
}

impl PassageWriter {
    /// Begins a part.
    ///
    /// # Errors
    /// If a setting is out of bounds, or the file cannot be made.
    pub fn create(path: &Path, settings: &PassageSettings) -> Result<Self, DedupError> {
        settings.check().map_err(DedupError::Setting)?;
        Ok(Self {
            table: TableWriter::create(path)?,
            settings: settings.clone(),
            documents: 0,
        })
    }

    /// Adds the next document.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn push(&mut self, text: &str) -> Result<(), DedupError> {
        for (number, passage) in (0..).zip(passages(text, &self.settings)) {
            let Digest128([a, b]) = Digest128::of(passage.text);
            self.table.push(&[a, b, place(self.documents, number)])?;
        }
        self.documents += 1;
        Ok(())
    }

    /// Ends the part and gives it its name: the number of its documents.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn commit(self) -> Result<u64, DedupError> {
        let parameters = [self.documents, self.settings.numbering(), 0, 0];
        self.table.commit(PASSAGES, parameters)?;
        Ok(self.documents)
    }
}

/// A document and a passage's number, as one number.
fn place(document: u64, number: u32) -> u64 {
    document << 32 | u64::from(number)
}

/// Writes to `out` which passages of a slice are removed from which documents, for [`read_removals`]. Parts are given
/// in the order that gives the ordinals. Slices are tasks that need nothing of each other.
///
/// Memory: two runs of the sort, and 8 bytes × `max_documents`.
///
/// # Errors
/// If a part was made under other settings, or it or the folder of the sort cannot be read or written.
pub fn removals<P: AsRef<Path>>(
    parts: &[P],
    settings: &PassageSettings,
    slice: Slice,
    sort: &SortSettings,
    out: &Path,
) -> Result<(), DedupError> {
    settings.check().map_err(DedupError::Setting)?;
    if finished(out)? {
        return Ok(());
    }
    let mut passages = Sorter::new(sort);
    let mut before = 0;
    for path in parts {
        let path = path.as_ref();
        let table = TableReader::<3>::open(path, PASSAGES)?;
        let [documents, numbering, ..] = table.parameters();
        if numbering != settings.numbering() {
            return Err(DedupError::OtherSettings {
                path: path.to_owned(),
            });
        }
        if before + documents > u64::from(u32::MAX) {
            return Err(DedupError::TooManyDocuments {
                documents: before + documents,
            });
        }
        for record in table {
            let [a, b, within] = record?;
            if slice.holds(a) {
                passages.push([a, b, within + place(before, 0)])?;
            }
        }
        before += documents;
    }
    let mut removals = Sorter::new(sort);
    let mut last: Option<[u64; 3]> = None;
    // Where the passage stands in its second to `max_documents`-th document.
    let mut pending: Vec<u64> = Vec::new();
    let mut documents = 0;
    for record in passages.finish()? {
        let [a, b, place] = record?;
        match last.replace([a, b, place >> 32]) {
            Some([x, y, document]) if (x, y) == (a, b) => {
                if document == place >> 32 {
                    removals.push([place])?;
                    continue;
                }
                documents += 1;
                pending.push(place);
                if documents > settings.max_documents {
                    for place in pending.drain(..) {
                        removals.push([place])?;
                    }
                }
            }
            _ => {
                pending.clear();
                documents = 1;
            }
        }
    }
    let mut writer = TableWriter::create(out)?;
    for record in removals.finish()? {
        writer.push(&record?)?;
    }
    writer.commit(REMOVALS, [before, 0, 0, 0])
}

/// What is removed, from the files of all slices: a document's ordinal and the numbers of its passages, for
/// [`remove`], in the order of the ordinals. Documents that stay whole are not named.
///
/// # Errors
/// If a file cannot be read; and after the last document, if one was damaged.
pub fn read_removals(
    paths: &[PathBuf],
) -> Result<impl Iterator<Item = Result<(u32, Vec<u32>), DedupError>>, DedupError> {
    let tables = paths.iter().map(|path| TableReader::<1>::open(path, REMOVALS));
    let mut places = Merge::new(tables.collect::<Result<Vec<_>, _>>()?)?.peekable();
    Ok(std::iter::from_fn(move || {
        let [first] = match places.next()? {
            Ok(place) => place,
            Err(error) => return Some(Err(error)),
        };
        let mut numbers = vec![first as u32];
        let same =
            |next: &Result<[u64; 1], DedupError>| matches!(next, Ok([next]) if next >> 32 == first >> 32);
        while let Some(Ok([next])) = places.next_if(same) {
            numbers.push(next as u32);
        }
        Some(Ok(((first >> 32) as u32, numbers)))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const ALL: PassageSettings = PassageSettings {
        max_documents: 1,
        min_paragraph_chars: 1,
        min_line_chars: 1,
    };

    fn texts<'a>(text: &'a str, settings: &PassageSettings) -> Vec<&'a str> {
        passages(text, settings).map(|passage| passage.text).collect()
    }

    /// The documents of several parts without what is removed, by way of files, in `slices` slices.
    fn deduplicated(
        parts: &[Vec<String>],
        settings: &PassageSettings,
        slices: u64,
        memory_bytes: usize,
    ) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let mut sort = SortSettings::new(folder.path());
        sort.memory_bytes = memory_bytes;
        let path = |name: String| folder.path().join(name);
        let part = |(i, texts): (usize, &Vec<String>)| {
            let mut writer = PassageWriter::create(&path(format!("part-{i}")), settings).unwrap();
            texts.iter().for_each(|text| writer.push(text).unwrap());
            assert_eq!(writer.commit().unwrap(), texts.len() as u64);
            path(format!("part-{i}"))
        };
        let files: Vec<_> = parts.iter().enumerate().map(part).collect();
        let slice = |index| {
            let out = path(format!("removals-{index}"));
            removals(&files, settings, Slice { index, of: slices }, &sort, &out).unwrap();
            out
        };
        let out: Vec<_> = (0..slices).map(slice).collect();
        let removed: BTreeMap<_, _> = read_removals(&out).unwrap().map(Result::unwrap).collect();
        let without =
            |(i, text): (u32, &String)| remove(text, settings, removed.get(&i).map_or(&[], Vec::as_slice));
        (0..).zip(parts.iter().flatten()).map(without).collect()
    }

    #[test]
    fn paragraphs_come_before_their_lines() {
        let text = "\n\n one \n\n two\nthree\n \t\n\nfour";
        assert_eq!(texts(text, &ALL), ["one", "two\nthree", "two", "three", "four"]);
        let long = PassageSettings {
            min_paragraph_chars: 5,
            min_line_chars: 4,
            ..ALL
        };
        assert_eq!(texts(text, &long), ["two\nthree", "three"]);
        assert_eq!(texts(" \n", &ALL), [""; 0]);
        assert_eq!(
            texts(
                "äöü",
                &PassageSettings {
                    min_paragraph_chars: 4,
                    ..ALL
                }
            ),
            [""; 0]
        );
    }

    #[test]
    fn what_is_removed_takes_its_blank_lines_along() {
        let text = "one\n\ntwo\nthree\n\n\nfour\n";
        for (numbers, rest) in [
            (vec![], text),
            (vec![0], "two\nthree\n\n\nfour\n"),
            (vec![1], "one\n\nfour\n"),
            (vec![2], "one\n\nthree\n\n\nfour\n"),
            (vec![3], "one\n\ntwo\n\n\nfour\n"),
            (vec![2, 3], "one\n\nfour\n"),
            (vec![1, 2, 3], "one\n\nfour\n"),
            (vec![0, 1, 4], ""),
        ] {
            assert_eq!(remove(text, &ALL, &numbers), rest, "{numbers:?}");
        }
    }

    #[test]
    fn what_more_documents_have_than_allowed_stays_in_the_first() {
        let parts = [
            vec!["a\n\nb\n\na\n".to_owned(), "b\n\nc\n".to_owned()],
            vec!["a\n\nb\n\nd\n".to_owned()],
        ];
        let two = PassageSettings {
            max_documents: 2,
            ..ALL
        };
        assert_eq!(
            deduplicated(&parts, &ALL, 1, 1 << 20),
            ["a\n\nb\n\n", "c\n", "d\n"]
        );
        assert_eq!(
            deduplicated(&parts, &two, 1, 1 << 20),
            ["a\n\nb\n\n", "c\n", "a\n\nd\n"]
        );
        assert_eq!(
            PassageSettings {
                max_documents: 0,
                ..ALL
            }
            .check()
            .unwrap_err(),
            "max_documents = 0: must be at least 1"
        );
    }

    #[test]
    fn millions_of_blank_lines_and_one_long_line_take_linear_time() {
        let text = "\n".repeat(3_000_000) + "x" + &" \n".repeat(1_000_000) + &"y".repeat(3_000_000);
        assert_eq!(texts(&text, &ALL).len(), 2);
        assert_eq!(remove(&text, &ALL, &[0]).len(), 6_000_000);
        let lines = "a line\n".repeat(500_000);
        assert_eq!(texts(&lines, &ALL).len(), 500_001);
    }

    prop_compose! {
        fn corpus()(parts in prop::collection::vec(prop::collection::vec("([a-c]{1,2}(\n|\n\n)){0,6}", 0..5), 1..4))
            -> Vec<Vec<String>> { parts }
    }

    proptest! {
        // Each case syncs many files.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn nothing_is_lost_and_nothing_is_left_twice(parts in corpus(), slices in 1u64..5, memory_bytes in 0usize..2000) {
            let rest = deduplicated(&parts, &ALL, slices, memory_bytes);
            prop_assert_eq!(&rest, &deduplicated(&parts, &ALL, 1, 1 << 20));
            let lines = |texts: &[String]| {
                let mut lines: Vec<_> = texts.iter().flat_map(|text| text.lines()).filter(|line| !line.is_empty())
                    .map(str::to_owned).collect();
                lines.sort();
                lines
            };
            let mut expected = lines(&parts.concat());
            expected.dedup();
            prop_assert_eq!(lines(&rest), expected);
        }

        #[test]
        fn a_filter_with_room_finds_what_the_sort_finds(parts in corpus()) {
            let mut filter = Bloom::new(1 << 16, 100);
            let texts = parts.concat();
            let rest: Vec<_> = texts.iter().map(|text| remove(text, &ALL, &seen(text, &ALL, &mut filter))).collect();
            prop_assert_eq!(rest, deduplicated(&parts, &ALL, 1, 1 << 20));
        }
    }
}
