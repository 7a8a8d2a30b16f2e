//! Scripts: how many letters of each, and which have one language.

use unicode_script::{Script, UnicodeScript as _};

/// How many letters of each script a text has. Where a letter is a syllable or a word, it counts for several, so that
/// shares of a mixed document are those of what is said.
#[derive(Default)]
pub(super) struct Letters(Vec<(Script, u64)>);

impl Letters {
    pub(super) fn of(text: &str) -> Self {
        let mut letters = Self::default();
        let (mut latin, mut run) = (0, (Script::Common, 0));
        for c in text.chars() {
            if c.is_ascii() {
                latin += u64::from(c.is_ascii_alphabetic());
                continue;
            }
            let script = c.script();
            if matches!(script, Script::Common | Script::Inherited | Script::Unknown) {
                continue;
            }
            if script != run.0 {
                letters.count(run.0, run.1);
                run = (script, 0);
            }
            run.1 += 1;
        }
        letters.count(run.0, run.1);
        letters.count(Script::Latin, latin);
        letters
    }

    fn count(&mut self, script: Script, letters: u64) {
        if letters == 0 {
            return;
        }
        self.put(script, letters * letters_per_sign(script));
    }

    fn put(&mut self, script: Script, letters: u64) {
        match self.0.iter_mut().find(|(other, _)| *other == script) {
            Some((_, count)) => *count += letters,
            None => self.0.push((script, letters)),
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        for &(script, letters) in &other.0 {
            self.put(script, letters);
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.0.iter().map(|(_, letters)| letters).sum()
    }

    /// The script with the most letters; names decide ties.
    pub(super) fn main(&self) -> Option<Script> {
        self.most(|_, letters| letters)
    }

    /// The script with the most signs, whatever each is worth; names decide ties.
    pub(super) fn most_written(&self) -> Option<Script> {
        self.most(|script, letters| letters / letters_per_sign(script))
    }

    /// How many signs of a script there are.
    pub(super) fn written(&self, script: Script) -> u64 {
        let found = self.0.iter().find(|(other, _)| *other == script);
        found.map_or(0, |(_, letters)| letters / letters_per_sign(script))
    }

    fn most(&self, worth: impl Fn(Script, u64) -> u64) -> Option<Script> {
        let most = self.0.iter().max_by(|a, b| {
            let (first, second) = (worth(a.0, a.1), worth(b.0, b.1));
            first.cmp(&second).then(b.0.short_name().cmp(a.0.short_name()))
        });
        most.map(|(script, _)| *script)
    }
}

/// How many letters a sign is worth: about as many as the English Universal Declaration of Human Rights has letters for
/// each sign of the Chinese, Japanese and Korean ones.
fn letters_per_sign(script: Script) -> u64 {
    match script {
        Script::Han => 3,
        Script::Hiragana | Script::Katakana | Script::Hangul | Script::Yi => 2,
        _ => 1,
    }
}

/// The language of a script that is written for one only, or for one nearly always.
pub(super) fn only_language(script: Script) -> Option<&'static str> {
    use Script as S;
    Some(match script {
        S::Armenian => "hye",
        S::Bengali => "ben",
        S::Chakma => "ccp",
        S::Cherokee => "chr",
        S::Ethiopic => "amh",
        S::Georgian => "kat",
        S::Greek => "ell",
        S::Gujarati => "guj",
        S::Gurmukhi => "pan",
        S::Hangul => "kor",
        S::Javanese => "jav",
        S::Kannada => "kan",
        S::Khmer => "khm",
        S::Lao => "lao",
        S::Malayalam => "mal",
        S::Mongolian => "mon",
        S::Myanmar => "mya",
        S::Nko => "nqo",
        S::Ol_Chiki => "sat",
        S::Oriya => "ori",
        S::Sinhala => "sin",
        S::Tagalog => "tgl",
        S::Tamil => "tam",
        S::Telugu => "tel",
        S::Thaana => "div",
        S::Thai => "tha",
        S::Tibetan => "bod",
        S::Vai => "vai",
        S::Yi => "iii",
        _ => return None,
    })
}

/// Whether there are several languages of this script, and they are told apart.
pub(super) fn is_known(script: Script) -> bool {
    use Script as S;
    matches!(
        script,
        S::Latin | S::Cyrillic | S::Arabic | S::Devanagari | S::Hebrew | S::Han | S::Hiragana | S::Katakana
    )
}
