//! Good bytes of each kind, to damage.

use lockstep_curate::Spec;
use lockstep_curate::bias::Lexicon;
use lockstep_data::Tokenizer;
use lockstep_data::megatron::{TokenType, write_index};
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

use crate::support::{gzip, table, warc_record, zstd};

pub(crate) fn jsonl() -> Vec<u8> {
    let lines = [
        r#"{"id":"1","text":"The quick brown fox\njumps over","metadata":{"url":"http://a","license":["MIT"]}}"#,
        r#"{"text":"caf\u00e9 😀 \ud83d\ude00","n":[1,2.5e3,-4,null,true,{"a":{}}],"created":"2024-01-01"}"#,
        "",
        r#"{"text":"third","language":"en"}"#,
    ];
    lines.join("\n").into_bytes()
}

pub(crate) fn csv() -> Vec<u8> {
    b"id,text,url\n1,\"a \"\"quoted\"\"\ntext\",http://a\n2,plain,\r\n\n3,\"caf\xc3\xa9\",x\n".to_vec()
}

pub(crate) fn html() -> Vec<u8> {
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

pub(crate) fn warc() -> Vec<u8> {
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

/// A table whose texts are encoded so, and in pages of the newer kind if they are to be.
fn encoded(texts: &[Option<&str>], rows: usize, encoding: Encoding, version: WriterVersion) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_writer_version(version)
        .set_dictionary_enabled(false)
        .set_column_encoding(ColumnPath::from("text"), encoding);
    table::with("text", texts, rows, properties.build())
}

pub(crate) fn tables() -> Vec<Vec<u8>> {
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
            tables.push(encoded(&texts, 25, encoding, version));
        }
    }
    tables
}

/// Text in several encodings.
pub(crate) fn texts() -> Vec<Vec<u8>> {
    let text = "Texte à décoder, привет, 你好. Il était une fois, dans la forêt, un château.\r\n";
    let wide = |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect();
    vec![
        text.into(),
        wide(u16::to_le_bytes),
        wide(u16::to_be_bytes),
        [b"\xff\xfe".to_vec(), wide(u16::to_le_bytes)].concat(),
        text.chars().map(|c| c as u8).collect(),
        b"# Title\n\n* one\n* [two](http://a)\n\n```rust\nlet x = 1;\n```\n\x0c\x0b\x85\n".to_vec(),
        "cafÃ© â€œquotedâ€\u{9d} e\u{301}\u{200b}\u{ad}\u{202e} \u{fffe}".into(),
        b"\x1b$B$3$s\x1b(B ~{VPND~} +AGEAYg-".to_vec(),
    ]
}

/// Compressed by what the name ends in.
pub(crate) fn packed(name: &str) -> Vec<Vec<u8>> {
    let plain = if name.contains("warc") {
        warc()
    } else {
        jsonl().repeat(20)
    };
    let pack = if name.ends_with("gz") { gzip } else { zstd };
    vec![pack(&plain), [pack(&plain[..40]), pack(&plain[40..])].concat()]
}

/// Prose with what detectors and filters look for.
pub(crate) fn prose() -> Vec<Vec<u8>> {
    let texts = [
        "Write to anna.smith@example.com or call +49 30 1234567, (212) 555-0123. From 192.168.7.9 and 2001:db8::1.",
        "Card 4111 1111 1111 1111, IBAN DE89 3704 0044 0532 0130 00, SSN 123-45-6789, token ghp_0123456789abcdefABCDEF0123456789abcd.",
        "aws_secret = \"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\"\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
        "The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog.\n\n* one ...\n* two …\n\nHe said so.[1] Privacy policy, javascript.",
        "Alle Menschen sind frei und gleich an Würde und Rechten geboren. すべての人間は、生まれながらにして自由であり。",
        "fn main() {\n    let x = 0x7f; // generated by a program\n}\n",
    ];
    texts.map(|text| text.as_bytes().to_vec()).into()
}

pub(crate) fn licences() -> Vec<Vec<u8>> {
    let statements = [
        "MIT OR Apache-2.0",
        "(MIT AND (BSD-3-Clause OR GPL-2.0-or-later WITH Classpath-exception-2.0))",
        "MIT/Apache-2.0",
        "CC BY-NC-SA 4.0 International",
        "GNU General Public License v3 or later (GPLv3+)",
        "https://creativecommons.org/licenses/by/4.0/",
        "LicenseRef-My-Own; ISC License (ISCL), NONE",
    ];
    statements.map(|text| text.as_bytes().to_vec()).into()
}

pub(crate) fn specs() -> Vec<Vec<u8>> {
    let short = "name = \"web\"\nstages = [\"pii\", \"dedup\"]\n[[source]]\nname = \"a\"\npath = \"raw/**/*.gz\"\nfields.url = [\"a\"]\n\
        [language]\nkeep = [\"eng\"]\n[licence]\ndeny = [\"proprietary\", \"GPL-*\"]\n[dedup]\nnear = false\n\
        [mix]\nweights = { a = 1e3 }\n[output]\nvalidation_fraction = 0.5\n";
    vec![short.into(), Spec::default().to_toml().unwrap().into()]
}

pub(crate) fn lexicons() -> Vec<Vec<u8>> {
    let built_in = Lexicon::built_in().unwrap();
    vec![
        toml::to_string(&built_in[0].1).unwrap().into(),
        b"language = \"eng\"\n[groups.gender]\nfemale = [\"she\", \"her own\"]\nmale = [\"he\"]\n[attributes]\ncareer = [\"office\"]\n".to_vec(),
    ]
}

/// A small tokenizer that was trained here, and one with other parts.
pub(crate) fn tokenizers() -> Vec<Vec<u8>> {
    let texts = ["the cat and the dog ate the rat in the hat; that is what they say, you see. ".repeat(3)];
    let trained = Tokenizer::train(&texts, 270).unwrap().to_json().unwrap();
    let other = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":0,"content":"<|endoftext|>","single_word":false,
        "lstrip":false,"rstrip":false,"normalized":false,"special":true}],"normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"Whitespace"},
        "post_processor":null,"decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},
        "model":{"type":"BPE","dropout":null,"unk_token":null,"vocab":{"<|endoftext|>":0,"a":1,"b":2,"ab":3},"merges":["a b"]}}"#;
    vec![trained.into(), other.into()]
}

/// An index of four documents in each width of token.
pub(crate) fn indices() -> Vec<Vec<u8>> {
    let index = |token_type| {
        let mut bytes = Vec::new();
        write_index(&mut bytes, token_type, &[3, 1, 70, 2]).unwrap();
        bytes
    };
    [TokenType::U16, TokenType::I32].map(index).into()
}
