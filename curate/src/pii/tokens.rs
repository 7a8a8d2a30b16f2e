//! Keys and tokens that say by their first characters what they are.

use std::ops::Range;

use super::Kind;
use super::checksum::entropy;
use super::context::is_word;

/// What a token's text must hold.
#[derive(Clone, Copy)]
enum Check {
    /// Random enough: 3 bits per character, which no word or run of one character has.
    Entropy,
    /// GitHub's: the last six characters are the CRC-32 of those between prefix and them, in base 62 (GitHub's blog,
    /// "Behind GitHub's new authentication token formats", 2021).
    Crc,
    /// A header of JSON that names its algorithm.
    Jwt,
    /// A block up to its end.
    Pem,
}

/// A form of token.
struct Form {
    kind: Kind,
    prefix: &'static str,
    /// Characters besides letters and digits.
    others: &'static [u8],
    /// How many characters follow the prefix.
    lengths: (usize, usize),
    check: Check,
}

const fn form(kind: Kind, prefix: &'static str, others: &'static [u8], lengths: (usize, usize)) -> Form {
    Form {
        kind,
        prefix,
        others,
        lengths,
        check: Check::Entropy,
    }
}

const fn github(prefix: &'static str) -> Form {
    Form {
        kind: Kind::GithubToken,
        prefix,
        others: b"",
        lengths: (36, 36),
        check: Check::Crc,
    }
}

const FORMS: &[Form] = &[
    Form {
        kind: Kind::PrivateKey,
        prefix: "-----BEGIN ",
        others: b"",
        lengths: (0, 0),
        check: Check::Pem,
    },
    Form {
        kind: Kind::Jwt,
        prefix: "eyJ",
        others: b"-_.",
        lengths: (20, JWT_MAX),
        check: Check::Jwt,
    },
    form(Kind::AwsAccessKeyId, "AKIA", b"", (16, 16)),
    form(Kind::AwsAccessKeyId, "ASIA", b"", (16, 16)),
    form(Kind::AwsAccessKeyId, "ABIA", b"", (16, 16)),
    form(Kind::AwsAccessKeyId, "ACCA", b"", (16, 16)),
    github("ghp_"),
    github("gho_"),
    github("ghu_"),
    github("ghs_"),
    github("ghr_"),
    form(Kind::GithubToken, "github_pat_", b"_", (82, 82)),
    form(Kind::GoogleApiKey, "AIza", b"-_", (35, 35)),
    form(Kind::SlackToken, "xoxb-", b"-", (20, 250)),
    form(Kind::SlackToken, "xoxp-", b"-", (20, 250)),
    form(Kind::SlackToken, "xoxa-", b"-", (20, 250)),
    form(Kind::SlackToken, "xoxr-", b"-", (20, 250)),
    form(Kind::SlackToken, "xoxs-", b"-", (20, 250)),
    form(Kind::SlackToken, "xapp-", b"-", (20, 250)),
    form(Kind::StripeKey, "sk_live_", b"", (16, 250)),
    form(Kind::StripeKey, "sk_test_", b"", (16, 250)),
    form(Kind::StripeKey, "rk_live_", b"", (16, 250)),
    form(Kind::StripeKey, "rk_test_", b"", (16, 250)),
    form(Kind::ServiceToken, "glpat-", b"-_.", (20, 300)),
    form(Kind::ServiceToken, "hf_", b"", (34, 40)),
    form(Kind::ServiceToken, "npm_", b"", (36, 36)),
    form(Kind::ServiceToken, "pypi-AgE", b"-_", (50, 300)),
    form(Kind::ServiceToken, "sk-ant-", b"-_", (40, 300)),
    form(Kind::ServiceToken, "sk-proj-", b"-_", (40, 300)),
    form(Kind::ServiceToken, "SG.", b"-_.", (66, 66)),
];

/// Longest JWT that is read, in bytes.
const JWT_MAX: usize = 16 << 10;
/// Longest private key that is read, in bytes: RSA's of 16,384 bits have 13 kB.
const PEM_MAX: usize = 64 << 10;
/// How far behind an AWS key id its secret is looked for, in bytes.
const SECRET_BEHIND: usize = 200;

/// The prefixes to look for.
pub(super) fn prefixes() -> impl Iterator<Item = &'static str> {
    FORMS.iter().map(|form| form.prefix)
}

/// The token whose prefix, of that number, stands at `start`.
pub(super) fn at(bytes: &[u8], start: usize, prefix: usize) -> Option<(Kind, Range<usize>)> {
    let form = FORMS.get(prefix)?;
    let body = start + form.prefix.len();
    if matches!(form.check, Check::Pem) {
        return pem(bytes, body).map(|end| (form.kind, start..end));
    }
    let before = bytes[..start].last();
    if before.is_some_and(|&byte| is_word(byte) || form.others.contains(&byte)) {
        return None;
    }
    let allowed = |&&byte: &&u8| byte.is_ascii_alphanumeric() || form.others.contains(&byte);
    let mut length = bytes[body..]
        .iter()
        .take(form.lengths.1 + 1)
        .take_while(allowed)
        .count();
    // A dot or hyphen at the end is punctuation.
    while length > 0 && matches!(bytes[body + length - 1], b'.' | b'-') {
        length -= 1;
    }
    if !(form.lengths.0..=form.lengths.1).contains(&length)
        || bytes.get(body + length).is_some_and(|&b| is_word(b))
    {
        return None;
    }
    let text = bytes.get(body..body + length)?;
    let valid = match form.check {
        Check::Entropy => is_random(form.kind, text),
        Check::Crc => is_github(text),
        Check::Jwt => is_jwt(bytes.get(start..body + length)?),
        Check::Pem => false,
    };
    valid.then_some((form.kind, start..body + length))
}

fn is_random(kind: Kind, text: &[u8]) -> bool {
    // An access key id is base 32.
    let alphabet =
        kind != Kind::AwsAccessKeyId || text.iter().all(|b| matches!(b, b'A'..=b'Z' | b'2'..=b'7'));
    // Ids of sixteen characters in base 32 have 3.3 bits a character on average, and less than 2.5 never.
    let bound = if text.len() <= 16 { 5 << 15 } else { 3 << 16 };
    alphabet && entropy(text) >= text.len() as u64 * bound
}

/// The secret key behind the AWS key id that ends at `end`: 40 characters of base 64 on their own.
pub(super) fn aws_secret(bytes: &[u8], end: usize) -> Option<Range<usize>> {
    let behind = bytes.get(end..bytes.len().min(end + SECRET_BEHIND))?;
    let mut at = end;
    for word in behind.split(|&byte| !is_base64(byte)) {
        let range = at..at + word.len();
        if is_aws_secret(word) && !bytes.get(range.end).is_some_and(|&byte| is_base64(byte)) {
            return Some(range);
        }
        at += word.len() + 1;
    }
    None
}

/// Base 64 without its padding.
fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

/// Forty characters of base 64 with at least 4 bits each: random ones have 4.6 on average, a digest in hexadecimal less
/// than 4.
pub(super) fn is_aws_secret(text: &[u8]) -> bool {
    text.len() == 40 && text.iter().all(|&byte| is_base64(byte)) && entropy(text) > 40 * (4 << 16)
}

fn is_github(text: &[u8]) -> bool {
    const BASE_62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let Some((body, check)) = text.split_at_checked(text.len().saturating_sub(6)) else {
        return false;
    };
    let mut crc = flate2::Crc::new();
    crc.update(body);
    let mut rest = crc.sum();
    check.iter().rev().all(|&byte| {
        let digit = BASE_62.get((rest % 62) as usize);
        rest /= 62;
        digit == Some(&byte)
    })
}

/// Three parts of base 64, the first of which is JSON with an `alg` (RFC 7515).
fn is_jwt(text: &[u8]) -> bool {
    let mut parts = text.split(|&byte| byte == b'.');
    let (Some(header), Some(payload), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let header = base64(header).and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    !payload.is_empty() && header.is_some_and(|header| header.get("alg").is_some())
}

/// Decodes base 64 for addresses, without padding.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut width) = (0u32, 0);
    for byte in text {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        width += 6;
        if width >= 8 {
            width -= 8;
            bytes.push((bits >> width) as u8);
        }
    }
    Some(bytes)
}

/// Where the block ends whose label begins at `label`. Without an end line, where its text ends.
fn pem(bytes: &[u8], label: usize) -> Option<usize> {
    const DASHES: &[u8] = b"-----";
    let begin = bytes.get(label..bytes.len().min(label + 40))?;
    let line = memchr::memmem::find(begin, DASHES)?;
    memchr::memmem::find(&begin[..line], b"PRIVATE KEY")?;
    let body = label + line + DASHES.len();
    let rest = bytes.get(body..bytes.len().min(body + PEM_MAX))?;
    let dashes = memchr::memmem::find(rest, DASHES);
    let text = &rest[..dashes.unwrap_or(rest.len())];
    // Text of a key: base 64 in lines, perhaps with headers, with line ends as they are or as `\n`, quoted.
    let is_key = |&&byte: &&u8| is_base64(byte) || byte.is_ascii_whitespace() || b"=\\\"',:-".contains(&byte);
    let length = text.iter().take_while(is_key).count();
    if text.iter().take(length).filter(|&&byte| is_base64(byte)).count() < 32 {
        return None;
    }
    let Some(dashes) = dashes.filter(|&dashes| dashes == length) else {
        // Cut off: up to the last character of the key.
        let end = text[..length].iter().rposition(|&byte| is_base64(byte))?;
        return Some(body + end + 1);
    };
    let end = body + dashes + DASHES.len();
    let footer = bytes.get(end..bytes.len().min(end + 48))?;
    let closed = footer
        .starts_with(b"END ")
        .then(|| memchr::memmem::find(footer, DASHES))
        .flatten();
    Some(closed.map_or(body + dashes, |at| end + at + DASHES.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(text: &str) -> Option<(Kind, &str)> {
        FORMS.iter().enumerate().find_map(|(i, form)| {
            let start = text.find(form.prefix)?;
            at(text.as_bytes(), start, i).map(|(kind, range)| (kind, &text[range]))
        })
    }

    /// The token with its checksum.
    fn github_token(body: &str) -> String {
        const BASE_62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut crc = flate2::Crc::new();
        crc.update(body.as_bytes());
        let check: String = (0..6)
            .rev()
            .map(|i| char::from(BASE_62[(u64::from(crc.sum()) / 62u64.pow(i) % 62) as usize]))
            .collect();
        format!("ghp_{body}{check}")
    }

    #[test]
    fn published_tokens() {
        // AWS's documentation; a revoked token that is cited for the checksum; RFC 7519, 3.1, and jwt.io.
        for (kind, token) in [
            (Kind::AwsAccessKeyId, "AKIAIOSFODNN7EXAMPLE"),
            (Kind::GithubToken, "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"),
            (
                Kind::Jwt,
                "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
            ),
            (
                Kind::Jwt,
                "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",
            ),
        ] {
            for text in [
                token.to_owned(),
                format!("x = \"{token}\";"),
                format!("It is {token}."),
            ] {
                assert_eq!(found(&text), Some((kind, token)), "{text}");
            }
            assert_eq!(found(&format!("x{token}")), None);
        }
        for text in [
            "ghp_zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ0mLq18",
            "AKIAIOSFODNN1EXAMPLE",
            "AKIAAAAAAAAAAAAAAAAA",
            "eyJ9.eyJ9.a",
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
            "sk_live_xxxxxxxxxxxxxxxxxxxxxxxx",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }

    #[test]
    fn tokens_by_their_form() {
        let random = "q7R2mX9bT4vL8nK1wZ5cJ3hD6fG0sYpUaEoViNxBeHyQkMtW";
        let many = random.repeat(3);
        for (kind, token) in [
            (Kind::GoogleApiKey, format!("AIza{}", &random[..35])),
            (Kind::SlackToken, format!("xoxb-123456789012-{}", &random[..24])),
            (Kind::StripeKey, format!("sk_live_{}", &random[..24])),
            (Kind::ServiceToken, format!("glpat-{}", &random[..20])),
            (Kind::ServiceToken, format!("hf_{}", &random[..34])),
            (
                Kind::GithubToken,
                format!("github_pat_{}_{}", &random[..22], &many[..59]),
            ),
            (
                Kind::ServiceToken,
                format!("SG.{}.{}", &random[..22], &random[..43]),
            ),
        ] {
            assert_eq!(found(&format!("({token})")), Some((kind, token.as_str())));
        }
    }

    #[test]
    fn private_keys() {
        let body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj";
        for label in ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "] {
            for line in ["\n", "\\n", "\r\n"] {
                let key = format!(
                    "-----BEGIN {label}PRIVATE KEY-----{line}{body}{line}-----END {label}PRIVATE KEY-----"
                );
                assert_eq!(
                    found(&format!("a {key} b")),
                    Some((Kind::PrivateKey, key.as_str()))
                );
            }
        }
        let cut = format!("-----BEGIN PRIVATE KEY-----\n{body}");
        assert_eq!(
            found(&format!("{cut}\n; more text")),
            Some((Kind::PrivateKey, cut.as_str()))
        );
        for text in [
            "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----".to_owned(),
            format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----"),
            format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----"),
        ] {
            assert_eq!(found(&text), None, "{text}");
        }
    }

    #[test]
    fn the_secret_behind_a_key_id() {
        // AWS's documentation.
        let text = "AKIAIOSFODNN7EXAMPLE\naws_secret_access_key=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n";
        let range = aws_secret(text.as_bytes(), 20).unwrap();
        assert_eq!(&text[range], "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        // A git commit is no secret.
        let text = "AKIAIOSFODNN7EXAMPLE da39a3ee5e6b4b0d3255bfef95601890afd80709";
        assert_eq!(aws_secret(text.as_bytes(), 20), None);
    }

    proptest! {
        #[test]
        fn githubs_checksum_finds_any_change(body in "[A-Za-z0-9]{30}", place in 4usize..40, to in "[A-Za-z0-9]") {
            let token = github_token(&body);
            prop_assert_eq!(found(&token), Some((Kind::GithubToken, token.as_str())));
            let mut wrong = token.clone();
            wrong.replace_range(place..=place, &to);
            prop_assert_eq!(found(&wrong).is_some(), wrong == token);
        }
    }
}
