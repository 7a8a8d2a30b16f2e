//! Bytes as text.

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8};

use super::Settings;

/// How many bytes the guess of an encoding looks at, from the first that is not ASCII on.
const LOOKED_AT_BYTES: usize = 1 << 20;

/// Bytes made text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// The text, borrowed if the bytes were UTF-8; without a byte-order mark.
    pub text: Cow<'a, str>,
    /// The encoding's name in the WHATWG Encoding Standard.
    pub encoding: &'static str,
    /// How many U+FFFD stand for bytes that could not be read.
    pub replacements: u64,
}

/// Why bytes do not become text.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// A byte is NUL, which no text in a supported encoding has.
    #[error(
        "byte {at} is NUL: this is no text, or UTF-16 without a byte-order mark; convert it to UTF-8, or leave it out"
    )]
    Binary {
        /// Where the first is.
        at: usize,
    },
    /// Not UTF-8, and nobody wants a guess.
    #[error("byte {at} is not UTF-8; convert the text to UTF-8, or set detect_encoding = true")]
    NotUtf8 {
        /// Where the first is that is not.
        at: usize,
    },
    /// Read as the best guess, too much is missing.
    #[error(
        "{replacements} of {characters} characters are U+FFFD when read as {encoding}, over max_replacements = {bound}; convert \
         the text to UTF-8 from what it was written in, or raise the bound"
    )]
    TooManyReplacements {
        /// Characters that stand for bytes that could not be read.
        replacements: u64,
        /// Characters in all.
        characters: u64,
        /// As what it was read.
        encoding: &'static str,
        /// The largest share of replacements.
        bound: f64,
    },
}

impl DecodeError {
    /// The code that reports count by.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Binary { .. } => "normalise.binary",
            Self::NotUtf8 { .. } => "normalise.not_utf8",
            Self::TooManyReplacements { .. } => "normalise.replacements",
        }
    }
}

/// The text of `bytes`: as a byte-order mark says, else UTF-8, else as the encoding that chardetng guesses. Where nearly
/// all of it is UTF-8 it is not guessed: the few bytes that are not become U+FFFD.
///
/// # Errors
/// If the bytes are no text, or too many of them cannot be read.
pub fn decode<'a>(bytes: &'a [u8], settings: &Settings) -> Result<Decoded<'a>, DecodeError> {
    let (encoding, bytes) = match Encoding::for_bom(bytes) {
        Some((encoding, mark)) => (Some(encoding), bytes.get(mark..).unwrap_or_default()),
        None => (None, bytes),
    };
    let is_utf8 = encoding.is_none_or(|encoding| encoding == UTF_8);
    if is_utf8 && let Some(at) = memchr::memchr(0, bytes) {
        return Err(DecodeError::Binary { at });
    }
    let first_bad = match std::str::from_utf8(bytes) {
        Ok(text) if is_utf8 => {
            return Ok(Decoded {
                text: Cow::Borrowed(text),
                encoding: UTF_8.name(),
                replacements: 0,
            });
        }
        Ok(_) => 0,
        Err(error) => error.valid_up_to(),
    };
    match encoding {
        Some(encoding) => read_as(encoding, bytes, settings),
        None if is_mostly_utf8(bytes) => read_as(UTF_8, bytes, settings),
        None if settings.detect_encoding => read_as(guess(bytes, first_bad), bytes, settings),
        None => Err(DecodeError::NotUtf8 { at: first_bad }),
    }
}

fn read_as<'a>(
    encoding: &'static Encoding,
    bytes: &'a [u8],
    settings: &Settings,
) -> Result<Decoded<'a>, DecodeError> {
    let (text, had_errors) = encoding.decode_without_bom_handling(bytes);
    let mut replacements = 0;
    if had_errors {
        replacements = text.matches('\u{FFFD}').count() as u64;
        let characters = text.chars().count() as u64;
        if let Some(error) = too_many(replacements, characters, encoding.name(), settings) {
            return Err(error);
        }
    }
    Ok(Decoded {
        text,
        encoding: encoding.name(),
        replacements,
    })
}

/// The error, if so many replacements are too many.
pub(super) fn too_many(
    replacements: u64,
    characters: u64,
    encoding: &'static str,
    settings: &Settings,
) -> Option<DecodeError> {
    let bound = settings.max_replacements;
    (replacements as f64 > bound * characters as f64).then_some(DecodeError::TooManyReplacements {
        replacements,
        characters,
        encoding,
        bound,
    })
}

/// Whether sequences of UTF-8 outnumber ten to one what is none. In other encodings they are chance.
fn is_mostly_utf8(bytes: &[u8]) -> bool {
    let (mut good, mut bad) = (0_u64, 0_u64);
    for chunk in bytes.utf8_chunks() {
        good += chunk.valid().chars().filter(|c| !c.is_ascii()).count() as u64;
        bad += u64::from(!chunk.invalid().is_empty());
    }
    good > 10 * bad
}

fn guess(bytes: &[u8], first_bad: usize) -> &'static Encoding {
    let ascii = |from: usize| bytes.get(from..).unwrap_or_default();
    let first = ascii(0)
        .iter()
        .position(|byte| !byte.is_ascii())
        .unwrap_or(first_bad);
    let looked_at = ascii(first.saturating_sub(64));
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(looked_at.get(..LOOKED_AT_BYTES).unwrap_or(looked_at), true);
    detector.guess(None, Utf8Detection::Deny)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RUSSIAN: &str = "Все люди рождаются свободными и равными в своём достоинстве и правах.";
    const FRENCH: &str = "Tous les êtres humains naissent libres et égaux en dignité et en droits.";
    const JAPANESE: &str =
        "すべての人間は、生れながらにして自由であり、かつ、尊厳と権利とについて平等である。";

    #[test]
    fn encodings_are_found_out() {
        for (label, text) in [
            ("windows-1251", RUSSIAN),
            ("KOI8-R", RUSSIAN),
            ("windows-1252", FRENCH),
            ("Shift_JIS", JAPANESE),
            ("EUC-JP", JAPANESE),
        ] {
            let (bytes, encoding, unmappable) = Encoding::for_label(label.as_bytes()).unwrap().encode(text);
            assert!(!unmappable);
            let decoded = decode(&bytes, &Settings::default()).unwrap();
            assert_eq!(decoded.text, text, "{label} read as {}", decoded.encoding);
            // KOI8-U has all of KOI8-R's letters, and chardetng prefers it.
            assert!(decoded.encoding == encoding.name() || label == "KOI8-R");
        }
    }

    #[test]
    fn byte_order_marks_say_it() {
        let utf16: Vec<u8> = "\u{FEFF}Größe"
            .encode_utf16()
            .flat_map(u16::to_be_bytes)
            .collect();
        let decoded = decode(&utf16, &Settings::default()).unwrap();
        assert_eq!((decoded.text.as_ref(), decoded.encoding), ("Größe", "UTF-16BE"));
        assert_eq!(
            decode("\u{FEFF}a".as_bytes(), &Settings::default()).unwrap().text,
            "a"
        );
    }

    #[test]
    fn a_few_bad_bytes_among_utf8_are_replaced() {
        let mut bytes = RUSSIAN.repeat(20).into_bytes();
        bytes.insert(0, 0xFF);
        let decoded = decode(&bytes, &Settings::default()).unwrap();
        assert_eq!((decoded.encoding, decoded.replacements), ("UTF-8", 1));
        bytes.truncate(200);
        let error = decode(&bytes, &Settings::default()).unwrap_err();
        assert_eq!(error.reason(), "normalise.replacements");
    }

    #[test]
    fn what_is_no_text_is_refused() {
        let error = decode(b"ab\0c", &Settings::default()).unwrap_err();
        assert_eq!(error, DecodeError::Binary { at: 2 });
        let strict = Settings {
            detect_encoding: false,
            ..Settings::default()
        };
        assert_eq!(
            decode(b"caf\xE9 au lait", &strict),
            Err(DecodeError::NotUtf8 { at: 3 })
        );
    }

    proptest! {
        #[test]
        fn utf8_is_borrowed_and_no_bytes_panic(text in "[^\0\u{FEFF}]{0,40}", bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let decoded = decode(text.as_bytes(), &Settings::default()).unwrap();
            prop_assert!(matches!(decoded.text, Cow::Borrowed(same) if same == text));
            let _ = decode(&bytes, &Settings::default());
        }
    }
}
