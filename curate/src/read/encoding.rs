//! Which encoding bytes are in, and the text that they are.

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use lockstep_data::Digest;
use memchr::{memchr, memmem};

use crate::document::Recoded;

/// Text, and what its bytes were if they were not just that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) text: String,
    pub(crate) recoded: Option<Recoded>,
}

/// So many bytes tell whether it is text at all.
const LOOKED_AT_BYTES: usize = 8192;

/// The text, by the first of these that tells: a byte order mark; that it is UTF-8; `declared` by whoever sent it; that it
/// is UTF-8 but for a few bytes, which become U+FFFD; a guess by chardetng, as browsers make it. None if it is not text.
pub(crate) fn decode(bytes: Vec<u8>, declared: Option<&str>) -> Option<Decoded> {
    if let Some((encoding, _)) = Encoding::for_bom(&bytes) {
        return Some(decoded(encoding, bytes));
    }
    let head = bytes.get(..LOOKED_AT_BYTES).unwrap_or(&bytes);
    if memchr(0, &bytes).is_some() {
        return utf_16(head).map(|encoding| decoded(encoding, bytes));
    }
    if is_binary(head) {
        return None;
    }
    // Of the encodings in use only ISO-2022-JP looks like ASCII and is not.
    let escapes = memmem::find(&bytes, b"\x1b$").is_some();
    if !escapes && str::from_utf8(&bytes).is_ok() {
        return Some(decoded(UTF_8, bytes));
    }
    let declared = declared.and_then(|label| Encoding::for_label(label.trim().as_bytes()));
    // Bytes without NUL that claim to be UTF-16 are not, and the standard takes them for UTF-8.
    let encoding = match declared.map(Encoding::output_encoding) {
        Some(encoding) if encoding != UTF_8 => encoding,
        _ if is_nearly_utf_8(&bytes) && !escapes => UTF_8,
        _ => {
            let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
            detector.feed(&bytes, true);
            detector.guess(None, Utf8Detection::Allow)
        }
    };
    Some(decoded(encoding, bytes))
}

fn decoded(encoding: &'static Encoding, bytes: Vec<u8>) -> Decoded {
    // A byte order mark tells UTF-8 and UTF-16 alone, whatever the bytes are said to be.
    let (text, used, is_damaged) = encoding.decode(&bytes);
    let is_plain = used == UTF_8 && !is_damaged;
    let recoded = (!is_plain).then(|| Recoded {
        from: used.name(),
        replaced: if is_damaged {
            replaced(used, &bytes, &text)
        } else {
            0
        },
        original: Digest::of(&bytes),
    });
    let text = match text {
        Cow::Owned(text) => text,
        Cow::Borrowed(text) if text.len() == bytes.len() => String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        Cow::Borrowed(text) => text.to_owned(),
    };
    Decoded { text, recoded }
}

/// How many U+FFFD of a text stand for bytes that were wrong.
fn replaced(encoding: &'static Encoding, bytes: &[u8], text: &str) -> u64 {
    let replaced = if encoding == UTF_8 {
        let wrong = |chunk: &std::str::Utf8Chunk<'_>| !chunk.invalid().is_empty();
        bytes.utf8_chunks().filter(wrong).count()
    } else {
        text.matches('\u{FFFD}').count()
    };
    replaced as u64
}

/// UTF-16 of a script whose upper byte is often 0, told by which bytes are 0.
fn utf_16(head: &[u8]) -> Option<&'static Encoding> {
    let zeros = |first| {
        head.iter()
            .skip(first)
            .step_by(2)
            .filter(|&&byte| byte == 0)
            .count()
    };
    let (even, odd) = (zeros(0), zeros(1));
    let pairs = head.len() / 2;
    if odd * 10 > pairs * 3 && even * 50 <= pairs {
        Some(UTF_16LE)
    } else if even * 10 > pairs * 3 && odd * 50 <= pairs {
        Some(UTF_16BE)
    } else {
        None
    }
}

/// Text has hardly any control characters.
fn is_binary(head: &[u8]) -> bool {
    let is_control = |byte: &&u8| matches!(byte, 0..=8 | 14..=26 | 28..=31 | 127);
    head.iter().filter(is_control).count() * 50 > head.len()
}

/// Whether sequences of several bytes are right at least ten times as often as wrong.
fn is_nearly_utf_8(bytes: &[u8]) -> bool {
    let (mut right, mut wrong) = (0_usize, 0_usize);
    for chunk in bytes.utf8_chunks() {
        let leads = |byte: &&u8| **byte >= 0xc0;
        right += chunk.valid().as_bytes().iter().filter(leads).count();
        wrong += usize::from(!chunk.invalid().is_empty());
    }
    right >= 10 * wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    const GERMAN: &str = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich, sagt Günther.";
    const RUSSIAN: &str =
        "Съешь же ещё этих мягких французских булок, да выпей чаю. Все люди рождаются свободными.";
    const JAPANESE: &str =
        "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。";

    /// The text alone.
    fn decode(bytes: Vec<u8>, declared: Option<&str>) -> Option<String> {
        super::decode(bytes, declared).map(|decoded| decoded.text)
    }

    fn encoded(label: &str, text: &str) -> Vec<u8> {
        Encoding::for_label(label.as_bytes())
            .unwrap()
            .encode(text)
            .0
            .into_owned()
    }

    #[test]
    fn what_was_encoded_comes_back() {
        for (label, text) in [
            ("utf-8", GERMAN),
            ("windows-1252", GERMAN),
            ("windows-1251", RUSSIAN),
            ("koi8-r", RUSSIAN),
            ("shift_jis", JAPANESE),
            ("euc-jp", JAPANESE),
            ("iso-2022-jp", JAPANESE),
        ] {
            let bytes = encoded(label, text);
            assert_eq!(
                decode(bytes.clone(), None).as_deref(),
                Some(text),
                "{label}, guessed"
            );
            assert_eq!(
                decode(bytes, Some(label)).as_deref(),
                Some(text),
                "{label}, declared"
            );
        }
        for (text, marked) in [(GERMAN, false), (RUSSIAN, true), (JAPANESE, true)] {
            let text_marked = if marked {
                format!("\u{feff}{text}")
            } else {
                text.to_owned()
            };
            let little = text_marked.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let big = text_marked.encode_utf16().flat_map(u16::to_be_bytes).collect();
            assert_eq!(decode(little, None).as_deref(), Some(text));
            assert_eq!(decode(big, None).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_is_utf_8_is_not_what_it_claims_to_be() {
        assert_eq!(decode(GERMAN.into(), Some("iso-8859-1")).as_deref(), Some(GERMAN));
        assert_eq!(
            decode(format!("\u{feff}{GERMAN}").into(), None).as_deref(),
            Some(GERMAN)
        );
        assert_eq!(decode(GERMAN.into(), Some("no such")).as_deref(), Some(GERMAN));
    }

    #[test]
    fn another_encoding_is_named() {
        let from = |bytes| {
            super::decode(bytes, None)
                .unwrap()
                .recoded
                .map(|recoded| recoded.from)
        };
        assert_eq!(from(GERMAN.into()), None);
        assert_eq!(from(format!("\u{feff}{GERMAN}").into()), None);
        assert_eq!(from(encoded("windows-1251", RUSSIAN)), Some("windows-1251"));
        let marked = format!("\u{feff}{RUSSIAN}");
        assert_eq!(
            from(marked.encode_utf16().flat_map(u16::to_be_bytes).collect()),
            Some("UTF-16BE")
        );
    }

    #[test]
    fn a_few_wrong_bytes_do_not_make_it_another_encoding() {
        let mut bytes = RUSSIAN.as_bytes().to_vec();
        bytes.extend_from_slice(b" \xff end");
        for mark in ["", "\u{FEFF}"] {
            let bytes = [mark.as_bytes(), &bytes].concat();
            let decoded = super::decode(bytes.clone(), None).unwrap();
            assert_eq!(decoded.text, format!("{RUSSIAN} \u{fffd} end"));
            let recoded = Recoded {
                from: "UTF-8",
                replaced: 1,
                original: Digest::of(&bytes),
            };
            assert_eq!(decoded.recoded, Some(recoded));
        }
    }

    #[test]
    fn what_is_no_text_is_told() {
        assert_eq!(decode(b"\x7fELF\x02\x01\x01\0\0\0\0\x03".to_vec(), None), None);
        let noise: Vec<u8> = (0..4096_u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 | 1)
            .collect();
        assert_eq!(decode(noise, None), None);
        assert_eq!(decode(Vec::new(), None).as_deref(), Some(""));
    }
}
