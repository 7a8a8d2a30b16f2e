//! ISO 639 codes of the languages that are identified.

/// A language that is not identified, so that a filter by it would be a mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}`: no language that is identified has this code; the nearest is `{nearest}` ({name})")]
pub struct UnknownLanguage {
    /// What was given.
    pub given: String,
    /// The nearest code in ISO 639-3.
    pub nearest: &'static str,
    /// Its English name.
    pub name: &'static str,
}

/// ISO 639-3, ISO 639-1 (empty if there is none), English name; sorted.
#[rustfmt::skip]
const LANGUAGES: [(&str, &str, &str); 80] = [
    ("afr", "af", "Afrikaans"), ("aka", "ak", "Akan"), ("amh", "am", "Amharic"), ("ara", "ar", "Arabic"),
    ("aze", "az", "Azerbaijani"), ("bel", "be", "Belarusian"), ("ben", "bn", "Bengali"), ("bod", "bo", "Tibetan"),
    ("bul", "bg", "Bulgarian"), ("cat", "ca", "Catalan"), ("ccp", "", "Chakma"), ("ces", "cs", "Czech"),
    ("chr", "", "Cherokee"), ("cmn", "zh", "Mandarin Chinese"), ("cym", "cy", "Welsh"), ("dan", "da", "Danish"),
    ("deu", "de", "German"), ("div", "dv", "Dhivehi"), ("ell", "el", "Greek"), ("eng", "en", "English"),
    ("epo", "eo", "Esperanto"), ("est", "et", "Estonian"), ("fin", "fi", "Finnish"), ("fra", "fr", "French"),
    ("guj", "gu", "Gujarati"), ("heb", "he", "Hebrew"), ("hin", "hi", "Hindi"), ("hrv", "hr", "Croatian"),
    ("hun", "hu", "Hungarian"), ("hye", "hy", "Armenian"), ("iii", "ii", "Nuosu"), ("ind", "id", "Indonesian"),
    ("ita", "it", "Italian"), ("jav", "jv", "Javanese"), ("jpn", "ja", "Japanese"), ("kan", "kn", "Kannada"),
    ("kat", "ka", "Georgian"), ("khm", "km", "Khmer"), ("kor", "ko", "Korean"), ("lao", "lo", "Lao"),
    ("lat", "la", "Latin"), ("lav", "lv", "Latvian"), ("lit", "lt", "Lithuanian"), ("mal", "ml", "Malayalam"),
    ("mar", "mr", "Marathi"), ("mkd", "mk", "Macedonian"), ("mon", "mn", "Mongolian"), ("mya", "my", "Burmese"),
    ("nep", "ne", "Nepali"), ("nld", "nl", "Dutch"), ("nob", "nb", "Norwegian Bokmål"), ("nqo", "", "N'Ko"),
    ("ori", "or", "Odia"), ("pan", "pa", "Punjabi"), ("pes", "fa", "Persian"), ("pol", "pl", "Polish"),
    ("por", "pt", "Portuguese"), ("ron", "ro", "Romanian"), ("rus", "ru", "Russian"), ("sat", "", "Santali"),
    ("sin", "si", "Sinhala"), ("slk", "sk", "Slovak"), ("slv", "sl", "Slovenian"), ("sna", "sn", "Shona"),
    ("spa", "es", "Spanish"), ("srp", "sr", "Serbian"), ("swe", "sv", "Swedish"), ("tam", "ta", "Tamil"),
    ("tel", "te", "Telugu"), ("tgl", "tl", "Tagalog"), ("tha", "th", "Thai"), ("tuk", "tk", "Turkmen"),
    ("tur", "tr", "Turkish"), ("ukr", "uk", "Ukrainian"), ("urd", "ur", "Urdu"), ("uzb", "uz", "Uzbek"),
    ("vai", "", "Vai"), ("vie", "vi", "Vietnamese"), ("yid", "yi", "Yiddish"), ("zul", "zu", "Zulu"),
];

/// Other codes for the same: macrolanguages, the individual languages that they mostly stand for, and Norwegian, whose
/// two standards are not told apart.
#[rustfmt::skip]
const ALIASES: [(&str, &str); 20] = [
    ("arb", "ara"), ("azj", "aze"), ("ekk", "est"), ("fas", "pes"), ("fat", "aka"), ("fil", "tgl"), ("iw", "heb"),
    ("khk", "mon"), ("lvs", "lav"), ("nn", "nob"), ("nno", "nob"), ("no", "nob"), ("nor", "nob"), ("npi", "nep"),
    ("ory", "ori"), ("sh", "hrv"), ("twi", "aka"), ("uzn", "uzb"), ("ydd", "yid"), ("zho", "cmn"),
];

/// The codes in ISO 639-3 of all languages that are identified, in order.
pub fn codes() -> impl Iterator<Item = &'static str> {
    LANGUAGES.iter().map(|(code, _, _)| *code)
}

/// The English name of a language by its code in ISO 639-3.
#[must_use]
pub fn name(language: &str) -> Option<&'static str> {
    let row = LANGUAGES.iter().find(|(code, _, _)| *code == language);
    row.map(|(_, _, name)| *name)
}

/// The code in ISO 639-3 for a code in ISO 639-3 or 639-1, with or without a region: `deu`, `de`, `de-AT`, `DE_at`.
///
/// # Errors
/// If no language that is identified has that code; the error names the nearest one.
pub fn code(given: &str) -> Result<&'static str, UnknownLanguage> {
    let lower = given.trim().to_lowercase();
    let plain = lower.split(['-', '_']).next().unwrap_or_default();
    let plain = ALIASES
        .iter()
        .find(|(alias, _)| *alias == plain)
        .map_or(plain, |(_, code)| code);
    let known = LANGUAGES
        .iter()
        .find(|(three, two, _)| *three == plain || (!two.is_empty() && *two == plain));
    known.map(|(code, _, _)| *code).ok_or_else(|| {
        let (nearest, name) = nearest(&lower);
        UnknownLanguage {
            given: given.to_owned(),
            nearest,
            name,
        }
    })
}

/// The language whose name or code is most like `given`, which is in lower case.
fn nearest(given: &str) -> (&'static str, &'static str) {
    let mut best = ("eng", "English");
    let mut likest = 0.0;
    for (three, two, name) in LANGUAGES {
        let like = [three, two, &name.to_lowercase()]
            .iter()
            .map(|known| strsim::jaro_winkler(known, given))
            .fold(0.0, f64::max);
        if like > likest {
            (best, likest) = ((three, name), like);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_has_what_is_identified() {
        assert!(LANGUAGES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for language in whatlang::Lang::all() {
            assert!(name(language.code()).is_some(), "{language}");
        }
        for (alias, code) in ALIASES {
            assert!(name(code).is_some(), "{alias} = {code}");
            assert!(
                LANGUAGES.iter().all(|row| row.0 != alias && row.1 != alias),
                "{alias}"
            );
        }
    }

    #[test]
    fn codes_of_both_lengths_and_with_regions() {
        for (given, expected) in [
            ("deu", "deu"),
            ("de", "deu"),
            ("de-AT", "deu"),
            ("PT_br", "por"),
            ("zh-Hant", "cmn"),
        ] {
            assert_eq!(code(given), Ok(expected));
        }
        for given in ["nb", "nn", "no", "nor"] {
            assert_eq!(code(given), Ok("nob"));
        }
    }

    #[test]
    fn the_nearest_code_is_named() {
        for (given, nearest) in [
            ("german", "deu"),
            ("enn", "eng"),
            ("fr3", "fra"),
            ("Spansh", "spa"),
        ] {
            let error = code(given).unwrap_err();
            assert_eq!(error.nearest, nearest, "{given}");
            assert!(error.to_string().contains(given));
        }
    }
}
