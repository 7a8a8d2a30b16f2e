//! UTF-8 that was read as Latin-1 or Windows-1252, mended where that is certain.
//!
//! A run of characters that Windows-1252 has beyond ASCII is mended if its bytes are UTF-8 from end to end, each
//! character in it is assigned, and at least one stands where nobody writes it: `Ã©`, or `â€™`. A letter and a closing
//! quote, as in `É»`, are no proof, as people write them. Such runs are mended only if some other run of the text is
//! proven, and no run contradicts.

use std::ops::Range;

use unicode_script::{Script, UnicodeScript as _};

use super::Changes;

/// Bytes 0x80 to 0x9F in Windows-1252, as the WHATWG Encoding Standard has them.
#[rustfmt::skip]
pub(super) const WINDOWS_1252_HIGH: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8D}', 'Ž', '\u{8F}',
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9D}', 'ž', 'Ÿ',
];

/// The byte beyond ASCII that reads as `c`, in Windows-1252 or Latin-1.
fn byte_of(c: char) -> Option<u8> {
    match c {
        '\u{80}'..='\u{FF}' => u8::try_from(u32::from(c)).ok(),
        'Œ'..='˜' | '–'..='™' => {
            let place = WINDOWS_1252_HIGH.iter().position(|&high| high == c)?;
            u8::try_from(0x80 + place).ok()
        }
        _ => None,
    }
}

/// Whether people write the character of this byte right after a letter: closing quotes, dashes, signs, and the letters
/// ƒ, Š, Œ, Ž, š, œ, ž and Ÿ, as in Northern Sámi `ášši`.
fn follows_letters(byte: u8) -> bool {
    matches!(
        byte,
        0x82..=0x85 | 0x8A..=0x8C | 0x8E | 0x91..=0x97 | 0x99..=0x9C | 0x9E..=0xA0 | 0xAA | 0xAB | 0xAD | 0xAE | 0xB0
            | 0xB2..=0xB4 | 0xB7 | 0xB9..=0xBB
    )
}

/// What the bytes of a run say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Evidence {
    /// Not UTF-8: the text means what it says.
    Against,
    /// UTF-8, by chance perhaps.
    Weak,
    /// UTF-8, and no text that anyone writes.
    Proof,
}

/// Judges a run by its bytes and by the character before it.
fn judge(bytes: &[u8], before: Option<char>) -> Evidence {
    let Ok(meant) = std::str::from_utf8(bytes) else {
        return Evidence::Against;
    };
    let several = meant.chars().nth(1).is_some();
    let mut evidence = Evidence::Weak;
    for (i, c) in meant.char_indices() {
        if c.is_control() || c.script() == Script::Unknown {
            return Evidence::Against;
        }
        let Some((&lead, rest)) = bytes.get(i..i + c.len_utf8()).and_then(<[u8]>::split_first) else {
            return Evidence::Against;
        };
        let odd = rest.iter().filter(|&&byte| !follows_letters(byte)).count();
        // The lead of two bytes reads as a capital letter; right after a small one nobody writes that.
        let odd_capital = i == 0 && before.is_some_and(|c| c.is_ascii_lowercase());
        let after_digit = i == 0 && before.is_some_and(|c| c.is_ascii_digit());
        let proof = match lead {
            0xC2 => odd > 0 || odd_capital || after_digit,
            0xC3..=0xC5 => odd > 0 || odd_capital,
            0xC6..=0xD6 => (several && odd > 0) || odd_capital,
            0xD7..=0xDF => several && odd > 0,
            0xE2 | 0xF0.. => odd > 0,
            _ => odd == 2 || (several && odd > 0),
        };
        if proof {
            evidence = Evidence::Proof;
        }
    }
    evidence
}

/// Runs of characters beyond ASCII that Windows-1252 has, with their bytes.
struct Runs<'a> {
    text: &'a str,
    at: usize,
    /// Whether to pass over runs that cannot be UTF-8 at a glance.
    suspicious_only: bool,
}

impl Runs<'_> {
    /// The next run from `at` on, whose bytes are put in `bytes`.
    fn next(&mut self, bytes: &mut Vec<u8>) -> Option<Range<usize>> {
        if self.suspicious_only {
            self.at = self.run_around(next_suspicious(self.text.as_bytes(), self.at)?);
        }
        bytes.clear();
        let mut start = self.at;
        for (i, c) in self.text[self.at..].char_indices() {
            match byte_of(c) {
                Some(byte) => {
                    if bytes.is_empty() {
                        start = self.at + i;
                    }
                    bytes.push(byte);
                }
                None if bytes.is_empty() => {}
                None => {
                    let run = start..self.at + i;
                    self.at = run.end;
                    return Some(run);
                }
            }
        }
        self.at = self.text.len();
        (!bytes.is_empty()).then_some(start..self.at)
    }

    /// Where the run that `inside` is in begins; at the earliest where the last one ended.
    fn run_around(&self, inside: usize) -> usize {
        let passed = &self.text[self.at..inside];
        let outside = passed.char_indices().rev().find(|&(_, c)| byte_of(c).is_none());
        outside.map_or(self.at, |(i, c)| self.at + i + c.len_utf8())
    }
}

/// The next place from `from` on where a letter from `Â` to `ô`, which is U+00C3 and another byte in UTF-8, is followed
/// by a character that Windows-1252 has at 0x80 to 0xBF.
fn next_suspicious(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += memchr::memchr(0xC3, bytes.get(at..)?)?;
        if let Some([0x82..=0xB4, 0xC2 | 0xC5 | 0xC6 | 0xCB | 0xE2]) = bytes.get(at + 1..at + 3) {
            return Some(at);
        }
        at += 1;
    }
}

/// `text` with its mojibake mended; `None` if it has none for certain.
pub(super) fn mend(text: &str, changes: &mut Changes) -> Option<String> {
    let mut bytes = Vec::new();
    let mut candidates: Vec<(Range<usize>, Evidence)> = Vec::new();
    let mut runs = Runs {
        text,
        at: 0,
        suspicious_only: true,
    };
    while let Some(run) = runs.next(&mut bytes) {
        let evidence = judge(&bytes, text[..run.start].chars().next_back());
        if evidence != Evidence::Against {
            candidates.push((run, evidence));
        }
    }
    if candidates
        .iter()
        .all(|(_, evidence)| *evidence != Evidence::Proof)
    {
        return None;
    }
    let any_weak = candidates.iter().any(|(_, evidence)| *evidence == Evidence::Weak);
    let mend_weak = any_weak && {
        let mut runs = Runs {
            text,
            at: 0,
            suspicious_only: false,
        };
        let mut contradicted = false;
        while let Some(_run) = runs.next(&mut bytes) {
            contradicted |= judge(&bytes, None) == Evidence::Against;
        }
        !contradicted
    };
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for (run, evidence) in candidates {
        if evidence == Evidence::Weak && !mend_weak {
            continue;
        }
        let meant: Vec<u8> = text[run.clone()].chars().filter_map(byte_of).collect();
        if let Ok(meant) = std::str::from_utf8(&meant) {
            out.push_str(&text[copied..run.start]);
            out.push_str(meant);
            copied = run.end;
            changes.mojibake += meant.chars().count() as u64;
        }
    }
    out.push_str(&text[copied..]);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mended(text: &str) -> String {
        mend(text, &mut Changes::default()).unwrap_or_else(|| text.to_owned())
    }

    #[test]
    fn the_table_is_the_encoding_standards() {
        for byte in 0x80..=0xFF_u8 {
            let decoded = encoding_rs::WINDOWS_1252
                .decode_without_bom_handling(&[byte])
                .0
                .into_owned();
            assert_eq!(decoded.chars().next().and_then(byte_of), Some(byte));
        }
    }

    #[test]
    fn what_is_certain_is_mended() {
        for (broken, meant) in [
            ("cafÃ©", "café"),
            ("Ã‰cole", "École"),
            ("donâ€™t", "don’t"),
            ("â€œquotedâ€\u{9d}", "“quoted”"),
            ("20Â°C, Â£5", "20°C, £5"),
            ("cÅ“ur", "cœur"),
            ("ZwiÄ…zek", "Związek"),
            ("ÐŸÑ€Ð¸Ð²ÐµÑ‚", "Привет"),
            ("ðŸ˜€", "😀"),
            ("ã\u{81}“ã‚“ã\u{81}«", "こんに"),
        ] {
            assert_eq!(mended(broken), meant);
        }
        // Alone, the first word is no proof; the second one gives it.
        assert_eq!(mended("Å»ycie"), "Å»ycie");
        assert_eq!(mended("Å»ycie piÄ™kne jest"), "Życie piękne jest");
        // But here something else in the text says that it was read rightly.
        assert_eq!(mended("Å»ycie piÄ™kne été"), "Å»ycie piękne été");
    }

    #[test]
    fn what_people_write_stays() {
        for text in [
            "CAFÉ» et « É… » – É’",
            "passé…» dit-elle, à”… ó…”»",
            "IRMÃ” AMANHÃ… É—",
            "naïve façade, créée",
            "almmolaš ášši, Náššuvnnaid, Ãš Åž ČÖŽÜŸ",
            "«Â» et la lettre Â\u{A0}: «Ã»",
            "2×½ ×² ß“ gemäß§ 5, Fuß§ 5",
            "Ångström Ä. Ö— Ü“ Ø…",
            "¿Qué? ¡Sí! º ª ñ…",
            "MÜLLER® STRÖM™ CÔTÉ°",
            "ÀÉÈÙÂÊÎÔÛ ÄÖÜß",
        ] {
            assert_eq!(mended(text), text);
        }
    }
}
