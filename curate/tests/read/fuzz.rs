//! Whatever bytes there are, reading ends, holds no more than it may, and tells of all of it.
//!
//! Good files are damaged at random, from seeds that proptest prints: bits are flipped, bytes are written over, pieces are
//! cut out, copied or swapped, and the end is cut off.

use std::panic;
use std::sync::{Arc, Once};

use lockstep_curate::read::SourceSettings;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::WriterVersion;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::support::{All, MadeUp, gzip, read_from, settings, table, warc_record, zstd};

/// Most that any reader may hold, with the settings of [`small`].
const MOST_BYTES: u64 = 32 << 20;

#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Write(Index, Vec<u8>),
    CutOut(Index, Index),
    Repeat(Index, Index, u8),
    Truncate(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let bytes = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        prop::collection::vec(any::<u8>(), 1..9),
        Just(vec![0xff; 4]),
        Just(vec![0; 8]),
        Just(b"99999999".to_vec()),
        Just(b"\"".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"<table><div>".to_vec()),
    ];
    let at = any::<Index>;
    prop_oneof![
        6 => (at(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        4 => (at(), bytes).prop_map(|(at, bytes)| Damage::Write(at, bytes)),
        2 => (at(), at()).prop_map(|(from, to)| Damage::CutOut(from, to)),
        1 => (at(), at(), 1..20_u8).prop_map(|(from, to, times)| Damage::Repeat(from, to, times)),
        1 => at().prop_map(Damage::Truncate),
    ]
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        if bytes.is_empty() {
            break;
        }
        let length = bytes.len();
        let ordered = |a: &Index, b: &Index| {
            let (a, b) = (a.index(length), b.index(length));
            a.min(b)..a.max(b)
        };
        match damage {
            Damage::Flip(at, bit) => bytes[at.index(length)] ^= 1 << bit,
            Damage::Write(at, new) => {
                let at = at.index(length);
                let end = (at + new.len()).min(length);
                bytes.splice(at..end, new.iter().copied());
            }
            Damage::CutOut(from, to) => drop(bytes.drain(ordered(from, to))),
            Damage::Repeat(from, to, times) => {
                let range = ordered(from, to);
                let piece = bytes[range.clone()].repeat(usize::from(*times));
                bytes.splice(range, piece);
            }
            Damage::Truncate(at) => bytes.truncate(at.index(length)),
        }
    }
    bytes
}

fn small() -> SourceSettings {
    SourceSettings {
        max_record_bytes: 256 << 10,
        max_html_bytes: 32 << 10,
        max_page_bytes: 1 << 20,
        ..settings("/".as_ref())
    }
}

/// Panics of libraries are expected, and are not printed: to look up a backtrace takes memory, which is measured here.
fn silence_libraries() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !panic
                .location()
                .is_some_and(|location| location.file().contains("/registry/src/"))
            {
                print(panic);
            }
        }));
    });
}

/// Reads a file twice, and checks what must hold.
fn read(name: &str, bytes: Vec<u8>) -> Result<All, TestCaseError> {
    silence_libraries();
    let store = MadeUp::of(name, Arc::<[u8]>::from(bytes));
    let mut all = All::default();
    let used = allocation_counter::measure(|| all = read_from(&store, &small()));
    prop_assert!(used.bytes_max < MOST_BYTES, "{} held", used.bytes_max);
    prop_assert!(!all.documents.is_empty() || !all.dropped.is_empty());
    prop_assert_eq!(&read_from(&store, &small()), &all);
    for dropped in &all.dropped {
        prop_assert!(dropped.reason.starts_with("read."));
    }
    Ok(all)
}

fn jsonl() -> Vec<u8> {
    let lines = [
        r#"{"id":"1","text":"The quick brown fox\njumps over","metadata":{"url":"http://a","license":["MIT"]}}"#,
        r#"{"text":"caf\u00e9 😀 \ud83d\ude00","n":[1,2.5e3,-4,null,true,{"a":{}}],"created":"2024-01-01"}"#,
        "",
        r#"{"text":"third","language":"en"}"#,
    ];
    lines.join("\n").into_bytes()
}

fn csv() -> Vec<u8> {
    b"id,text,url\n1,\"a \"\"quoted\"\"\ntext\",http://a\n2,plain,\r\n\n3,\"caf\xc3\xa9\",x\n".to_vec()
}

fn html() -> Vec<u8> {
    let paragraph =
        "<p>Words of some <b>weight</b>, with commas, and <a href='/x'>links</a> &amp; entities.</p>"
            .repeat(6);
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>T</title><style>p {{}}</style></head>\
         <body><div class=nav><ul><li>one<li>two</ul></div><article><h1>T</h1>{paragraph}<table><tr><td>1<td>2</table>\
         <svg><path d='M0'/></svg><pre> a\n b</pre></article><!-- c --><script>let a = '<div>';</script></body></html>"
    )
    .into_bytes()
}

fn warc() -> Vec<u8> {
    let mut page =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let html = html();
    page.extend(
        format!("{:x}\r\n", html.len())
            .bytes()
            .chain(html)
            .chain(*b"\r\n0\r\n\r\n"),
    );
    let mut zipped =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\n\r\n".to_vec();
    zipped.extend(gzip(b"Hello, world, it is compressed."));
    [
        warc_record("warcinfo", "application/warc-fields", b"software: x\r\n"),
        warc_record("response", "application/http", &page),
        warc_record("response", "application/http", &zipped),
        warc_record("conversion", "text/plain", b"Plain text."),
    ]
    .concat()
}

fn tables() -> Vec<Vec<u8>> {
    let texts: Vec<String> = (0..60)
        .map(|i| format!("text number {}", i % 11).repeat(3))
        .collect();
    let texts: Vec<Option<&str>> = texts
        .iter()
        .map(|text| (text.len() != 42).then_some(text.as_str()))
        .collect();
    let compressed = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::LZ4_RAW,
        Compression::GZIP(Default::default()),
        Compression::ZSTD(Default::default()),
    ];
    let mut tables: Vec<_> = compressed
        .map(|codec| table::of("text", &texts, 25, codec))
        .into();
    for encoding in [
        Encoding::PLAIN,
        Encoding::DELTA_LENGTH_BYTE_ARRAY,
        Encoding::DELTA_BYTE_ARRAY,
    ] {
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            tables.push(table::encoded(&texts, 25, encoding, version));
        }
    }
    tables
}

#[test]
fn tables_that_are_not_damaged_are_read() {
    for bytes in tables() {
        let all = read("a.parquet", bytes).unwrap();
        assert_eq!(all.documents.len(), 55, "{:?}", all.dropped);
        assert!(all.dropped.iter().all(|dropped| dropped.reason == "read.no_text"));
    }
}

fn some_damage() -> impl Strategy<Value = Vec<Damage>> {
    prop::collection::vec(damage(), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn jsonl_of_any_bytes(damages in some_damage()) {
        let bytes = damaged(jsonl(), &damages);
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
        let all = read("a.jsonl", bytes)?;
        prop_assert_eq!(all.documents.len() + all.dropped.len(), lines.max(1));
    }

    #[test]
    fn csv_of_any_bytes(damages in some_damage()) {
        read("a.csv", damaged(csv(), &damages))?;
    }

    #[test]
    fn pages_of_any_bytes(damages in some_damage()) {
        let all = read("a.html", damaged(html(), &damages))?;
        prop_assert_eq!(all.documents.len() + all.dropped.len(), 1);
    }

    #[test]
    fn crawls_of_any_bytes(damages in some_damage()) {
        read("a.warc", damaged(warc(), &damages))?;
    }

    #[test]
    fn tables_of_any_bytes(damages in some_damage(), table: Index) {
        read("a.parquet", damaged(table.get(&tables()).clone(), &damages))?;
    }

    #[test]
    fn compressed_files_of_any_bytes(damages in some_damage(), format in 0..4_usize) {
        let plain = [jsonl().repeat(20), warc()].into_iter().nth(format / 2).unwrap();
        let name = ["a.jsonl.gz", "a.jsonl.zst", "a.warc.gz", "a.warc.zst"][format];
        let bytes = if name.ends_with("gz") { gzip(&plain) } else { zstd(&plain) };
        read(name, damaged(bytes, &damages))?;
    }

    #[test]
    fn text_in_any_encoding(bytes in prop::collection::vec(any::<u8>(), 1..2000), damages in some_damage()) {
        read("a.txt", bytes)?;
        let wide = "Texte à décoder, привет, 你好. ".encode_utf16().flat_map(u16::to_le_bytes).collect();
        read("a.txt", damaged(wide, &damages))?;
    }

    #[test]
    fn noise_in_every_format(bytes in prop::collection::vec(any::<u8>(), 1..600)) {
        for name in ["a.jsonl", "a.csv", "a.html", "a.warc", "a.parquet", "a.jsonl.gz", "a.warc.zst", "a.rs"] {
            read(name, bytes.clone())?;
        }
    }
}
