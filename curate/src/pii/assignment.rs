//! Secrets that the name they are given to gives away: `password = "…"`, `api_key: …`.

use std::ops::Range;

use super::Kind;
use super::checksum::entropy;
use super::tokens::is_aws_secret;

/// Longest name that is looked at, and shortest and longest value, in bytes.
const NAME_MAX: usize = 40;
const VALUE_MIN: usize = 8;
const VALUE_MAX: usize = 200;

/// Words of a name that stand for a secret.
const SECRETS: &[&str] = &[
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "credential",
    "credentials",
];
/// Words before `key` that do.
const KEYS: &[&str] = &[
    "api",
    "access",
    "secret",
    "private",
    "auth",
    "encryption",
    "signing",
];

/// The secret that the `=` or `:` at `at` gives to a name. `bound` is entropy per byte, in 1/65536 bits.
pub(super) fn at(bytes: &[u8], at: usize, bound: u64) -> Option<(Kind, Range<usize>)> {
    let name = name(bytes, at).filter(|name| may_be_secret(name))?;
    let words = words(name);
    if !is_secret(&words) {
        return None;
    }
    let (value, quoted) = value(bytes, at + 1)?;
    let text = bytes.get(value.clone())?;
    if !is_value(text, quoted, bound) {
        return None;
    }
    let aws = words.iter().any(|word| word == "aws") || words.windows(2).any(|w| w == ["secret", "access"]);
    let kind = if aws && is_aws_secret(text) {
        Kind::AwsSecretKey
    } else {
        Kind::Secret
    };
    Some((kind, value))
}

/// The name before the sign at `at`, without quotes.
fn name(bytes: &[u8], at: usize) -> Option<&[u8]> {
    // `:=`, `+=` and `::` end in the sign that a value follows.
    let before = bytes.get(..at)?;
    let before = before.strip_suffix(b":").unwrap_or(before).trim_ascii_end();
    let before = match before {
        [rest @ .., b'"' | b'\'' | b'`' | b']'] => rest,
        all => all,
    };
    let before = before
        .strip_suffix(b"\"")
        .or(before.strip_suffix(b"'"))
        .unwrap_or(before);
    let length = before
        .iter()
        .rev()
        .take(NAME_MAX)
        .take_while(|&&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        .count();
    before.get(before.len() - length..).filter(|name| name.len() >= 3)
}

/// Whether a name has a part that some secret's name has: most have none, and need no closer look.
fn may_be_secret(name: &[u8]) -> bool {
    [
        b"key".as_slice(),
        b"pass",
        b"secret",
        b"token",
        b"pwd",
        b"credential",
    ]
    .iter()
    .any(|part| {
        name.windows(part.len())
            .any(|window| window.eq_ignore_ascii_case(part))
    })
}

/// The words of a name in lower case: `apiKey`, `API_KEY` and `api-key` have the same two.
fn words(name: &[u8]) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut lower = false;
    for &byte in name {
        if !byte.is_ascii_alphabetic() || (lower && byte.is_ascii_uppercase()) {
            words.push(String::new());
        }
        lower = byte.is_ascii_lowercase();
        if byte.is_ascii_alphabetic()
            && let Some(word) = words.last_mut()
        {
            word.push(char::from(byte.to_ascii_lowercase()));
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn is_secret(words: &[String]) -> bool {
    words.iter().any(|word| SECRETS.contains(&word.as_str()))
        || words
            .windows(2)
            .any(|pair| KEYS.contains(&pair[0].as_str()) && pair[1] == "key")
}

/// Where the value behind a sign stands, and whether in quotes.
fn value(bytes: &[u8], from: usize) -> Option<(Range<usize>, bool)> {
    let space = |from: usize| {
        bytes[from..]
            .iter()
            .take(8)
            .take_while(|&&byte| byte == b' ' || byte == b'\t')
            .count()
    };
    // `=>` of Ruby and PHP; a second `=` compares.
    let from = from + usize::from(bytes.get(from) == Some(&b'>'));
    let start = from + space(from);
    // A prefix of a literal: b"…", r'…', f"…".
    let literal = matches!(
        bytes.get(start..start + 2),
        Some([b'b' | b'r' | b'f' | b'u', b'"' | b'\''])
    );
    let start = start + usize::from(literal);
    let quote = bytes
        .get(start)
        .copied()
        .filter(|byte| matches!(byte, b'"' | b'\'' | b'`'));
    let start = start + usize::from(quote.is_some());
    let ends = |byte: u8| match quote {
        Some(quote) => byte == quote || byte == b'\n',
        None => byte.is_ascii_whitespace() || b"\"'`,;)]}>&".contains(&byte),
    };
    let length = bytes
        .get(start..)?
        .iter()
        .take(VALUE_MAX + 1)
        .take_while(|&&byte| !ends(byte))
        .count();
    let value = start..start + length;
    let closed = quote.is_none() || bytes.get(value.end) == quote.as_ref();
    ((VALUE_MIN..=VALUE_MAX).contains(&length) && closed).then_some((value, quote.is_some()))
}

/// Whether a value is random enough, and neither text, a placeholder, nor an expression of a program.
fn is_value(text: &[u8], quoted: bool, bound: u64) -> bool {
    let classes: [fn(&u8) -> bool; 3] = [u8::is_ascii_digit, u8::is_ascii_alphabetic, |byte| {
        byte.is_ascii_punctuation() && !b"_-.:/".contains(byte)
    }];
    let [digit, letter, symbol] = classes.map(|class| text.iter().any(class));
    let mixed = letter && (digit || (quoted && symbol));
    // Without quotes it may be a name of the program: those change from letters to digits and back once or twice.
    let changes = text
        .windows(2)
        .filter(|pair| pair[0].is_ascii_digit() != pair[1].is_ascii_digit())
        .count();
    let name = !quoted
        && text
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"_.:".contains(b))
        && changes < 4;
    mixed
        && !name
        && text.iter().all(u8::is_ascii_graphic)
        && !matches!(text, [b'$' | b'{' | b'%' | b'<' | b'(' | b'[' | b'&' | b'*', ..])
        && (quoted || !text.iter().any(|byte| b"([{<\\".contains(byte)))
        && !text.iter().any(|byte| matches!(byte, b'<' | b'>'))
        && entropy(text) >= text.len() as u64 * bound
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<(Kind, &str)> {
        text.bytes()
            .enumerate()
            .filter(|(_, byte)| matches!(byte, b'=' | b':'))
            .find_map(|(i, _)| at(text.as_bytes(), i, 3 << 16).map(|(kind, range)| (kind, &text[range])))
    }

    #[test]
    fn values_given_to_telling_names() {
        for (text, value) in [
            ("password = \"tr0ub4dor&3x\"", "tr0ub4dor&3x"),
            (
                "\"api_key\": \"9f86d081884c7d659a2feaa0c55ad015\"",
                "9f86d081884c7d659a2feaa0c55ad015",
            ),
            (
                "apiKey: '9f86d081884c7d659a2feaa0c55ad015',",
                "9f86d081884c7d659a2feaa0c55ad015",
            ),
            ("export DB_PASSWORD=c0rrectH0rseBattery", "c0rrectH0rseBattery"),
            ("client.secret := `aX9-kQ2_mZ7+rT4`", "aX9-kQ2_mZ7+rT4"),
            (":token => 'k3Jx92LmQp04'", "k3Jx92LmQp04"),
            ("os.environ[\"AUTH_TOKEN\"] = \"k3Jx92LmQp04\"", "k3Jx92LmQp04"),
        ] {
            assert_eq!(found(text), Some((Kind::Secret, value)), "{text}");
        }
        let text = "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
        assert_eq!(found(text), Some((Kind::AwsSecretKey, &text[22..])));
    }

    #[test]
    fn what_is_no_secret() {
        for text in [
            "password = get_password(user1)",
            "token = response.token2",
            "password: changeme",
            "num_tokens: 1234567890",
            "tokenizer = \"gpt2-xl-1558M-v17\"",
            "api_key = \"${API_KEY_2024}\"",
            "password = \"your password 123\"",
            "secret = \"aaaaaaaa1111\"",
            "token: <SECRET>",
            "password=<SECRET>",
            "key = \"9f86d081884c7d659a2f\"",
            "keyboard: qwerty123456789asdf",
            "password == \"\"",
            "token: Token2022Account",
            r"Allow-Credentials: hell\x01o\r\nBread:",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }
}
