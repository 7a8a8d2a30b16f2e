//! Paths inside a source as text, whatever bytes a file's name holds.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// A path as text from which [`unescape`] makes the same bytes again: a backslash is doubled, and control characters and
/// bytes that are not UTF-8 are written `\xNN`, so that a name with a newline stays on one line.
pub(crate) fn escape(path: &OsStr) -> String {
    let mut escaped = String::with_capacity(path.len());
    let hex = |escaped: &mut String, bytes: &[u8]| {
        for byte in bytes {
            escaped.push_str(&format!("\\x{byte:02x}"));
        }
    };
    for chunk in path.as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' {
                escaped.push_str("\\\\");
            } else if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
                hex(&mut escaped, c.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                escaped.push(c);
            }
        }
        hex(&mut escaped, chunk.invalid());
    }
    escaped
}

/// The path that was escaped; none if the text is not what [`escape`] writes.
pub(crate) fn unescape(escaped: &str) -> Option<OsString> {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((plain, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        if let Some(after) = after.strip_prefix('\\') {
            bytes.push(b'\\');
            rest = after;
        } else {
            let digits = after.strip_prefix('x')?.get(..2)?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after.get(3..)?;
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_breaks_lines_is_escaped_and_nothing_else() {
        let escaped = |bytes: &[u8]| escape(OsStr::from_bytes(bytes));
        assert_eq!(escaped("straße/naïve.txt".as_bytes()), "straße/naïve.txt");
        assert_eq!(escaped(b"a\nb\\n\xff"), r"a\x0ab\\n\xff");
        assert_eq!(escaped("\u{2028}".as_bytes()), r"\xe2\x80\xa8");
        assert_eq!(unescape(r"a\q"), None);
        assert_eq!(unescape(r"a\x0"), None);
    }

    proptest! {
        #[test]
        fn the_same_bytes_come_back(bytes: Vec<u8>) {
            let name = OsString::from_vec(bytes);
            let escaped = escape(&name);
            prop_assert!(!escaped.chars().any(char::is_control));
            prop_assert_eq!(unescape(&escaped), Some(name));
        }

        #[test]
        fn any_text_is_unescaped_or_refused(text: String) {
            let _ = unescape(&text);
        }
    }
}
