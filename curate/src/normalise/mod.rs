//! NFC, control characters, broken encodings: what was changed is counted.
//!
//! Readers make text of bytes, [`normalise`] makes the text uniform. Nothing is altered silently: each kind of
//! change is counted, and a text that changed is known by the digest of what it was.
//!
//! [`normalise`] is idempotent: its result, normalised again, has no changes.

mod clean;
mod compose;
mod mojibake;

use std::borrow::Cow;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// How text is made uniform.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Compose to Unicode's normalisation form C. Default: true.
    pub nfc: bool,
    /// Mend UTF-8 that was read as Latin-1 or Windows-1252 (`cafÃ©`), where that is certain. Default: true. Texts about such
    /// accidents, and tests of decoders, mean it: for source code this is better false.
    pub mend_mojibake: bool,
    /// The largest share of a text's characters that may be U+FFFD, which stands for bytes that could not be read.
    /// Default: 0.001, which is one a paragraph or so; our choice.
    pub max_replacements: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            nfc: true,
            mend_mojibake: true,
            max_replacements: 0.001,
        }
    }
}

impl Settings {
    /// Whether every value is within its bounds.
    ///
    /// # Errors
    /// Names the field, its value and the bound.
    pub fn check(&self) -> Result<(), String> {
        if (0.0..=1.0).contains(&self.max_replacements) {
            return Ok(());
        }
        Err(format!(
            "max_replacements = {}: must be from 0 to 1, as it is a share of characters",
            self.max_replacements
        ))
    }
}

/// How many changes of each kind were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changes {
    /// Line ends that were not `\n`: `\r\n`, `\r`, vertical tab, form feed, NEL, U+2028, U+2029.
    pub line_ends: u64,
    /// Control characters removed.
    pub controls: u64,
    /// C1 controls that were Windows-1252's quotes and dashes read as Latin-1, put right.
    pub windows_1252: u64,
    /// Characters removed that are not seen and do nothing where they stood: byte-order marks, zero-width spaces
    /// and joiners outside of scripts that need them, soft hyphens, direction marks without right-to-left text, tags.
    pub invisible: u64,
    /// Code points removed that Unicode says are no characters, such as U+FFFE.
    pub noncharacters: u64,
    /// Characters mended whose UTF-8 had been read as Latin-1 or Windows-1252.
    pub mojibake: u64,
    /// Letters with their marks that were not in form C.
    pub composed: u64,
}

impl Changes {
    /// Changes of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.iter().map(|(_, count)| count).sum()
    }

    /// Each kind with its count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        [
            ("line_ends", self.line_ends),
            ("controls", self.controls),
            ("windows_1252", self.windows_1252),
            ("invisible", self.invisible),
            ("noncharacters", self.noncharacters),
            ("mojibake", self.mojibake),
            ("composed", self.composed),
        ]
        .into_iter()
    }
}

impl AddAssign for Changes {
    fn add_assign(&mut self, other: Self) {
        self.line_ends += other.line_ends;
        self.controls += other.controls;
        self.windows_1252 += other.windows_1252;
        self.invisible += other.invisible;
        self.noncharacters += other.noncharacters;
        self.mojibake += other.mojibake;
        self.composed += other.composed;
    }
}

/// A text made uniform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normalised<'a> {
    /// The text, borrowed if nothing had to change.
    pub text: Cow<'a, str>,
    /// What was changed.
    pub changes: Changes,
    /// The BLAKE3 digest of the original, if anything was changed.
    pub original: Option<blake3::Hash>,
}

/// Makes `text` uniform: line ends, controls, invisible characters, mojibake, form C.
#[must_use]
pub fn normalise<'a>(text: &'a str, settings: &Settings) -> Normalised<'a> {
    let mut changes = Changes::default();
    let mut result = Cow::Borrowed(text);
    // A pass may uncover work for another: a mark that was cut off from its letter, mojibake within mojibake. The
    // latter halves the length of what it touches each time, so that passes are few.
    while let Some(next) = pass(&result, settings, &mut changes) {
        result = Cow::Owned(next);
    }
    let original = (changes.total() > 0).then(|| blake3::hash(text.as_bytes()));
    Normalised {
        text: result,
        changes,
        original,
    }
}

/// One pass of every kind of change; `None` if there was nothing to do.
fn pass(text: &str, settings: &Settings, changes: &mut Changes) -> Option<String> {
    if is_plain_ascii(text.as_bytes()) {
        return None;
    }
    let mut changed = None;
    if settings.mend_mojibake {
        changed = mojibake::mend(text, changes);
    }
    if let Some(cleaned) = clean::clean(changed.as_deref().unwrap_or(text), changes) {
        changed = Some(cleaned);
    }
    if settings.nfc
        && let Some(composed) = compose::compose(changed.as_deref().unwrap_or(text), changes)
    {
        changed = Some(composed);
    }
    changed
}

/// Whether `bytes` are printable ASCII, tabs and newlines only: nothing to do for such text.
fn is_plain_ascii(bytes: &[u8]) -> bool {
    // Without a branch in it, a block is a few vector instructions.
    let plain = |block: &[u8]| {
        let plain = |&byte: &u8| byte.wrapping_sub(b' ') < 0x5F || byte == b'\n' || byte == b'\t';
        block.iter().fold(true, |all, byte| all & plain(byte))
    };
    bytes.chunks(1024).all(plain)
}

/// Why a text is too damaged to keep, as a reason's code and its detail; `None` if it is not.
#[must_use]
pub fn verdict(text: &str, settings: &Settings) -> Option<(&'static str, String)> {
    let replacements = memchr::memmem::find_iter(text.as_bytes(), "\u{FFFD}".as_bytes()).count();
    if replacements == 0 {
        return None;
    }
    let characters = text.chars().count();
    let bound = settings.max_replacements;
    (replacements as f64 > bound * characters as f64).then(|| {
        let detail = format!(
            "{replacements} of {characters} characters are U+FFFD, over max_replacements = {bound}; convert the text to UTF-8 from \
             what it was written in, or raise the bound"
        );
        ("normalise.replacements", detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal(text: &str) -> (String, Changes) {
        let normalised = normalise(text, &Settings::default());
        assert_eq!(normalised.original.is_some(), normalised.text != text, "{text:?}");
        (normalised.text.into_owned(), normalised.changes)
    }

    #[test]
    fn plain_text_is_borrowed() {
        for text in [
            "",
            "plain\n\ttext",
            "Здравствуй, мир",
            "Ça va? 你好",
            "Zażółć gęślą jaźń",
        ] {
            let normalised = normalise(text, &Settings::default());
            assert!(matches!(normalised.text, Cow::Borrowed(_)), "{text}");
            assert_eq!(normalised.original, None);
        }
    }

    #[test]
    fn each_kind_is_counted() {
        let (text, changes) = normal("a\r\nb\rc\u{0}\u{7}d\u{FEFF}e\u{FFFE}f cafÃ© e\u{301} it\u{92}s");
        assert_eq!(text, "a\nb\ncdef café é it’s");
        let expected = Changes {
            line_ends: 2,
            controls: 2,
            windows_1252: 1,
            invisible: 1,
            noncharacters: 1,
            mojibake: 1,
            composed: 1,
        };
        assert_eq!(changes, expected);
        assert_eq!(changes.total(), 9);
        let original = normalise("a\r", &Settings::default()).original;
        assert_eq!(original, Some(blake3::hash(b"a\r")));
    }

    #[test]
    fn what_was_cut_apart_is_joined() {
        // The mark reaches its letter only after what stood between them is gone.
        assert_eq!(normal("e\u{200B}\u{301}").0, "é");
        // Twice read wrongly.
        assert_eq!(normal("cafÃƒÂ©").0, "café");
    }

    #[test]
    fn a_bound_out_of_range_is_named() {
        let settings = Settings {
            max_replacements: 1.5,
            ..Settings::default()
        };
        assert!(settings.check().unwrap_err().contains("max_replacements = 1.5"));
        assert!(Settings::default().check().is_ok());
        let unknown = toml::from_str::<Settings>("nfd = true").unwrap_err();
        assert!(unknown.to_string().contains("nfd"), "{unknown}");
    }

    #[test]
    fn a_text_full_of_replacement_characters_is_refused() {
        let (reason, detail) = verdict("a\u{FFFD}\u{FFFD}b", &Settings::default()).unwrap();
        assert_eq!(reason, "normalise.replacements");
        assert!(detail.contains("2 of 4"), "{detail}");
        assert_eq!(verdict("fine", &Settings::default()), None);
    }

    /// Text made of what this module changes, so that random text meets it often.
    fn nasty() -> impl Strategy<Value = String> {
        let pieces = vec![
            "a",
            "E",
            " ",
            "\n",
            "\r",
            "\r\n",
            "\u{0}",
            "\u{85}",
            "\u{92}",
            "\u{9D}",
            "Ã",
            "Â",
            "â",
            "€",
            "™",
            "©",
            "ï",
            "»",
            "¿",
            "ð",
            "Ÿ",
            "˜",
            "\u{80}",
            "\u{A0}",
            "\u{301}",
            "\u{327}",
            "\u{303}",
            "e",
            "Å",
            "ƒ",
            "š",
            "\u{200B}",
            "\u{200C}",
            "\u{200D}",
            "\u{FEFF}",
            "\u{AD}",
            "\u{2329}",
            "\u{2126}",
            "\u{2028}",
            "\u{202E}",
            "א",
            "ن",
            "क",
            "\u{94D}",
            "\u{93C}",
            "ไ",
            "\u{1F600}",
            "\u{1F3F4}",
            "\u{E0067}",
            "\u{FE0F}",
            "\u{FFFE}",
            "\u{FDD0}",
            "\u{1100}",
            "\u{1161}",
            "\u{11A8}",
            "가",
            "\u{F900}",
            "\u{0344}",
            "\u{180E}",
            "ᠠ",
            "´",
            "ß",
            "×",
            "\u{2ADC}",
            "か",
            "\u{3099}",
            "\u{FFFD}",
        ];
        let piece = prop_oneof![4 => proptest::sample::select(pieces).prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)];
        proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    /// UTF-8 read as Windows-1252, as browsers do it.
    fn misread(text: &str) -> String {
        encoding_rs::WINDOWS_1252
            .decode_without_bom_handling(text.as_bytes())
            .0
            .into_owned()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_second_time_changes_nothing(text in nasty()) {
            let (once, changes) = normal(&text);
            let (twice, none) = normal(&once);
            prop_assert_eq!(&once, &twice);
            prop_assert_eq!(none.total(), 0);
            prop_assert_eq!(changes.total() == 0, once == text);
            prop_assert!(unicode_normalization::is_nfc(&once));
        }

        #[test]
        fn misread_text_is_mended(word in "[a-z]{1,5}[äöüéèçñ][a-z]{1,5}", more in "[а-я]{2,9}|[ぁ-ん]{2,9}|[א-ת]{3,9}") {
            for text in [word.clone(), format!("{word} {more}"), format!("{more} “{word}” — {more}")] {
                let (mended, changes) = normal(&misread(&text));
                prop_assert_eq!(&mended, &text);
                prop_assert!(changes.mojibake > 0);
                // And what is fine stays.
                prop_assert_eq!(normal(&text), (text.clone(), Changes::default()));
            }
        }
    }
}
