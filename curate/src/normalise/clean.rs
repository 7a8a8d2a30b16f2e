//! Line ends, controls, invisible characters and non-characters.
//!
//! Whether an invisible character does something depends on what stands before it; only on that, and on whether the
//! text has right-to-left letters, so that a second look finds nothing more.

use unicode_script::{Script, UnicodeScript as _};

use super::Changes;
use super::mojibake::WINDOWS_1252_HIGH;

/// What to do with a character.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Keep,
    LineEnd,
    Control,
    /// A C1 control: a control, or Windows-1252 read as Latin-1.
    C1,
    Nel,
    /// Not seen; `Invisible::does_something` knows the rest.
    Invisible,
    Noncharacter,
}

fn fate(c: char) -> Fate {
    match c {
        '\t' | '\n' => Fate::Keep,
        '\r' | '\u{B}' | '\u{C}' | '\u{2028}' | '\u{2029}' => Fate::LineEnd,
        '\0'..='\u{1F}' | '\u{7F}' => Fate::Control,
        ' '..='\u{7E}' => Fate::Keep,
        '\u{85}' => Fate::Nel,
        '\u{80}'..='\u{9F}' => Fate::C1,
        '\u{AD}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' => Fate::Invisible,
        // Word joiner, invisible operators, isolates, deprecated shapers.
        '\u{2060}'..='\u{206F}' => Fate::Invisible,
        '\u{FEFF}' | '\u{FFF9}'..='\u{FFFC}' | '\u{E0001}' | '\u{E0020}'..='\u{E007F}' => Fate::Invisible,
        '\u{FDD0}'..='\u{FDEF}' => Fate::Noncharacter,
        _ if u32::from(c) & 0xFFFE == 0xFFFE => Fate::Noncharacter,
        _ => Fate::Keep,
    }
}

/// Scripts whose letters take another shape, or break elsewhere, next to a zero-width joiner or non-joiner.
fn needs_joiners(script: Script) -> bool {
    use Script as S;
    matches!(
        script,
        S::Arabic
            | S::Syriac
            | S::Nko
            | S::Mongolian
            | S::Phags_Pa
            | S::Mandaic
            | S::Manichaean
            | S::Adlam
            | S::Hanifi_Rohingya
            | S::Devanagari
            | S::Bengali
            | S::Gurmukhi
            | S::Gujarati
            | S::Oriya
            | S::Tamil
            | S::Telugu
            | S::Kannada
            | S::Malayalam
            | S::Sinhala
            | S::Tibetan
            | S::Myanmar
            | S::Khmer
            | S::Balinese
            | S::Javanese
            | S::Tai_Tham
            | S::Chakma
            | S::Grantha
            | S::Newa
            | S::Kaithi
            | S::Sharada
            | S::Tirhuta
            | S::Brahmi
            | S::Meetei_Mayek
            | S::Sundanese
            | S::Lepcha
            | S::Limbu
            | S::Saurashtra
            | S::Cham
    )
}

/// Scripts that write no spaces, where a zero-width space marks where a word ends.
fn needs_zero_width_space(script: Script) -> bool {
    use Script as S;
    matches!(
        script,
        S::Thai
            | S::Lao
            | S::Khmer
            | S::Myanmar
            | S::Tai_Tham
            | S::Tai_Le
            | S::New_Tai_Lue
            | S::Tai_Viet
            | S::Javanese
            | S::Balinese
            | S::Tibetan
    )
}

fn is_right_to_left(c: char) -> bool {
    matches!(c, '\u{590}'..='\u{8FF}' | '\u{FB1D}'..='\u{FDCF}' | '\u{FDF0}'..='\u{FDFF}' | '\u{FE70}'..='\u{FEFC}'
        | '\u{10800}'..='\u{10FFF}' | '\u{1E800}'..='\u{1EFFF}')
}

/// Emoji are joined to one by a zero-width joiner. No character in here changes under NFC.
fn is_emoji(c: char) -> bool {
    matches!(c, '\u{FE0F}' | '\u{2600}'..='\u{27BF}' | '\u{1F000}'..='\u{1FAFF}')
}

/// What has been kept so far, as far as it decides about what follows.
struct Before<'a> {
    text: &'a str,
    /// The last character kept.
    last: char,
    /// The script of the last character kept that has one of its own; a mark has its letter's.
    script: Script,
    /// Whether what was kept ends in a black flag and tags, which spell an emoji.
    in_flag: bool,
    /// Whether the text has right-to-left letters; found out when first asked.
    right_to_left: Option<bool>,
}

impl Before<'_> {
    fn keep(&mut self, c: char) {
        self.last = c;
        self.in_flag = c == '\u{1F3F4}' || (self.in_flag && matches!(c, '\u{E0020}'..='\u{E007E}'));
        // Most text is not looked up in the table.
        self.script = match c {
            '\0'..='\u{2FF}' => Script::Latin,
            _ => match c.script() {
                Script::Inherited => self.script,
                script => script,
            },
        };
    }

    /// Whether the invisible `c` changes how the text reads.
    fn does_something(&mut self, c: char) -> bool {
        match c {
            '\u{200B}' => self.last != c && needs_zero_width_space(self.script),
            '\u{200C}' => self.last != c && needs_joiners(self.script),
            '\u{200D}' => self.last != c && (needs_joiners(self.script) || is_emoji(self.last)),
            '\u{180E}' => self.last != c && self.script == Script::Mongolian,
            '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => {
                let text = self.text;
                *self
                    .right_to_left
                    .get_or_insert_with(|| text.chars().any(is_right_to_left))
            }
            '\u{E0020}'..='\u{E007F}' => self.in_flag,
            _ => false,
        }
    }
}

/// `text` without what [`Changes`] lists as removed, and with `\n` only; `None` if it is so already.
pub(super) fn clean(text: &str, changes: &mut Changes) -> Option<String> {
    let first = text.char_indices().find(|&(_, c)| fate(c) != Fate::Keep)?.0;
    let mut out = String::with_capacity(text.len());
    let mut before = Before {
        text,
        last: ' ',
        script: Script::Common,
        in_flag: false,
        right_to_left: None,
    };
    out.push_str(&text[..first]);
    // Far enough back for a script: marks beyond that are no text.
    let back: Vec<char> = text[..first].chars().rev().take(64).collect();
    back.into_iter().rev().for_each(|c| before.keep(c));
    // Next to other C1 controls NEL is Windows-1252's ellipsis; alone it is a line end.
    let mut nel_is_ellipsis = None;
    let mut is_ellipsis =
        || *nel_is_ellipsis.get_or_insert_with(|| text[first..].chars().any(|c| windows_1252(c).is_some()));
    let mut characters = text[first..].chars().peekable();
    while let Some(c) = characters.next() {
        let kept = match fate(c) {
            Fate::Keep => Some(c),
            Fate::LineEnd => {
                if c == '\r' {
                    characters.next_if_eq(&'\n');
                }
                changes.line_ends += 1;
                Some('\n')
            }
            Fate::Nel if is_ellipsis() => {
                changes.windows_1252 += 1;
                Some('…')
            }
            Fate::Nel => {
                changes.line_ends += 1;
                Some('\n')
            }
            Fate::C1 => match windows_1252(c) {
                Some(meant) => {
                    changes.windows_1252 += 1;
                    Some(meant)
                }
                None => {
                    changes.controls += 1;
                    None
                }
            },
            Fate::Control => {
                changes.controls += 1;
                None
            }
            Fate::Noncharacter => {
                changes.noncharacters += 1;
                None
            }
            Fate::Invisible if before.does_something(c) => Some(c),
            Fate::Invisible => {
                changes.invisible += 1;
                None
            }
        };
        if let Some(c) = kept {
            before.keep(c);
            out.push(c);
        }
    }
    (out != text).then_some(out)
}

/// What a C1 control but NEL is in Windows-1252, if it is anything.
fn windows_1252(c: char) -> Option<char> {
    let meant = match c {
        '\u{85}' => None,
        '\u{80}'..='\u{9F}' => WINDOWS_1252_HIGH.get(c as usize - 0x80).copied(),
        _ => None,
    };
    meant.filter(|&meant| meant != c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn cleans(text: &str, expected: &str) {
        let cleaned = clean(text, &mut Changes::default());
        assert_eq!(cleaned.as_deref().unwrap_or(text), expected);
        assert_eq!(cleaned.is_some(), text != expected);
    }

    #[test]
    fn joiners_stay_where_scripts_need_them() {
        for text in [
            "می\u{200C}خواهم",
            "क्\u{200D}ष",
            "\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467}",
            "❤\u{FE0F}\u{200D}\u{1F525}",
        ] {
            cleans(text, text);
        }
        // A space in Khmer, and a flag spelt with tags.
        let scotland = "\u{1F3F4}\u{E0067}\u{E0062}\u{E0073}\u{E0063}\u{E0074}\u{E007F}";
        for text in ["ភាសា\u{200B}ខ្មែរ", scotland] {
            cleans(text, text);
        }
        cleans("zero\u{200B}width\u{200C}\u{200D}", "zerowidth");
        cleans("hidden\u{E0068}\u{E0069}", "hidden");
        cleans("soft\u{AD}hyphen", "softhyphen");
    }

    #[test]
    fn direction_marks_stay_in_right_to_left_text_only() {
        cleans("שלום \u{200E}(abc)", "שלום \u{200E}(abc)");
        cleans("access\u{202E}level", "accesslevel");
    }

    #[test]
    fn line_ends_become_newlines() {
        cleans(
            "a\r\nb\rc\r\r\nd\u{C}e\u{B}f\u{85}g\u{2028}h",
            "a\nb\nc\n\nd\ne\nf\ng\nh",
        );
    }

    #[test]
    fn latin_1_that_was_windows_1252() {
        cleans("\u{93}it\u{92}s\u{94}\u{85} \u{80}5 \u{81}", "“it’s”… €5 ");
    }
}
