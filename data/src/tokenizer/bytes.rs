//! How `tokenizer.json` writes bytes: as GPT-2 did, each as one character that can be printed.

/// The character of each byte: itself where Latin-1 can print it, else the next one from U+0100 on.
const CHARS: [char; 256] = {
    let mut chars = ['\0'; 256];
    let mut next = 256;
    let mut byte = 0;
    while byte < 256 {
        let code_point = match byte as u8 {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => byte as u32,
            _ => {
                next += 1;
                next - 1
            }
        };
        // None of these code points is a surrogate.
        if let Some(char) = char::from_u32(code_point) {
            chars[byte] = char;
        }
        byte += 1;
    }
    chars
};

/// The character of a byte.
pub(super) fn char_of(byte: u8) -> char {
    CHARS[usize::from(byte)]
}

/// The bytes that characters stand for, if each stands for one.
pub(super) fn bytes_of(text: &str) -> Option<Box<[u8]>> {
    text.chars()
        .map(|char| match char {
            '!'..='~' | '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{ff}' => Some(char as u8),
            _ => CHARS
                .iter()
                .position(|found| *found == char)
                .map(|byte| byte as u8),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    #[test]
    fn the_characters_are_those_of_the_tokenizers_crate_and_lead_back() {
        let ours: HashSet<char> = CHARS.into();
        assert_eq!(ours, ByteLevel::alphabet().into_iter().collect());
        for byte in 0..=255 {
            assert_eq!(bytes_of(&char_of(byte).to_string()), Some([byte].into()));
        }
        assert_eq!(char_of(b' '), 'Ġ');
        assert_eq!(bytes_of("a漢"), None);
    }
}
