//! Raw text to build datasets from, and the tables that a build writes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use parquet::data_type::{ByteArrayType, Int64Type};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::record::Field;
use parquet::schema::parser::parse_message_type;

/// A spec of all files of the folder `raw`, for the text that is made here.
pub(crate) const SPEC: &str = r#"
name = "small"
[[source]]
name = "web"
path = "raw"
[language]
min_confidence = 0.0
[quality.gopher_quality]
min_stop_words = 0
[tokenizer]
vocab_size = 300
"#;

/// Lines of JSON, with a document each.
pub(crate) fn lines(numbers: std::ops::Range<u64>) -> String {
    let line = |number| serde_json::json!({ "text": text(number) }).to_string() + "\n";
    numbers.map(line).collect()
}

/// A document of English words, another for each number.
pub(crate) fn text(number: u64) -> String {
    const WORDS: [&str; 24] = [
        "the", "house", "of", "water", "and", "people", "that", "river", "have", "morning", "with", "market",
        "to", "garden", "be", "winter", "summer", "music", "paper", "teacher", "village", "station",
        "evening", "picture",
    ];
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
    let mut draw = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    };
    let mut sentence = || {
        let words: Vec<&str> = (0..8 + draw(8)).map(|_| WORDS[draw(WORDS.len())]).collect();
        let text = words.join(" ");
        format!("{}{}.", text[..1].to_uppercase(), &text[1..])
    };
    let mut paragraph = || (0..4).map(|_| sentence()).collect::<Vec<_>>().join(" ");
    (0..4).map(|_| paragraph()).collect::<Vec<_>>().join("\n\n")
}

/// A Parquet file with a column of texts and one of numbers, of these names.
pub(crate) fn table(texts: (&str, &[String]), numbers: (&str, &[i64])) -> Vec<u8> {
    let schema = format!(
        "message m {{ required binary {} (STRING); required int64 {}; }}",
        texts.0, numbers.0
    );
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let values: Vec<_> = texts.1.iter().map(|text| text.as_str().into()).collect();
    let mut column = group.next_column().unwrap().unwrap();
    let written = column.typed::<ByteArrayType>().write_batch(&values, None, None);
    written.unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let written = column.typed::<Int64Type>().write_batch(numbers.1, None, None);
    written.unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.into_inner().unwrap()
}

/// A row of `documents.parquet` or `dropped.parquet`: what is not null, as text, by column.
pub(crate) type Row = BTreeMap<String, String>;

/// The rows of a Parquet file.
pub(crate) fn rows(path: &Path) -> Vec<Row> {
    let reader = SerializedFileReader::try_from(path).unwrap();
    let cell = |(name, field): (&String, &Field)| {
        let value = match field {
            Field::Null => return None,
            Field::Str(text) => text.clone(),
            other => other.to_string(),
        };
        Some((name.clone(), value))
    };
    reader
        .get_row_iter(None)
        .unwrap()
        .map(|row| row.unwrap().get_column_iter().filter_map(cell).collect())
        .collect()
}
