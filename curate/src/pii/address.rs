//! E-mail and IP addresses.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::Kind;
use super::context::{Dictionary, begins, ends, is_word};
use super::groups::{Groups, Separator};

/// Longest local part (RFC 5321, 4.5.3.1.1).
const LOCAL_MAX: usize = 64;
/// Longest domain name and label (RFC 1035, 2.3.4).
const DOMAIN_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// Ends of file names that no top-level domain has: `icon@2x.png` is no address.
const FILES: &[&str] = &[
    "png", "jpg", "jpeg", "gif", "svg", "webp", "css", "html", "json", "js", "ts", "tsx", "xml", "tar", "gz",
];

/// The address around the `@` at `at`.
pub(super) fn email(text: &str, at: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let mut from = at;
    // Letters of Latin, which is U+00C0 to U+024F, may stand in an address; of other scripts, text without spaces does.
    for (place, char) in text[..at].char_indices().rev().take(LOCAL_MAX + 1) {
        let allowed = match char {
            '\u{c0}'..='\u{24f}' => true,
            c => c.is_ascii_alphanumeric() || "._%+-'&".contains(c),
        };
        if !allowed {
            break;
        }
        from = place;
    }
    let quoted = bytes[from..at]
        .iter()
        .take_while(|byte| b".'-&%+".contains(byte))
        .count();
    from += quoted;
    let local = bytes.get(from..at)?;
    if local.is_empty()
        || local.len() > LOCAL_MAX
        || local.last() == Some(&b'.')
        || local.windows(2).any(|w| w == b"..")
    {
        return None;
    }
    let start = at + 1;
    let length = bytes[start..]
        .iter()
        .take(DOMAIN_MAX + 1)
        .take_while(|&&byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
        .count();
    let domain = text.get(start..start + length)?.trim_end_matches(['.', '-']);
    is_domain(domain).then(|| from..start + domain.len())
}

/// Two labels or more, the last of letters.
fn is_domain(domain: &str) -> bool {
    let Some((rest, top)) = domain.rsplit_once('.') else {
        return false;
    };
    let label = |label: &str| {
        (1..=LABEL_MAX).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    let letters = top.len() >= 2 && top.bytes().all(|byte| byte.is_ascii_alphabetic());
    // `left-pad@17.0.2.beta` is a version.
    let numbers = rest
        .split('.')
        .filter(|label| label.bytes().all(|byte| byte.is_ascii_digit()))
        .count();
    domain.len() <= DOMAIN_MAX
        && (letters || top.starts_with("xn--"))
        && rest.split('.').chain([top]).all(label)
        && numbers < 2
        && !FILES.iter().any(|file| top.eq_ignore_ascii_case(file))
}

/// Four numbers below this are more often a section or version than an address.
const SMALL: u8 = 32;
/// Words near four small numbers that say that they are an address, and no section or version.
pub(super) const CONTEXT: &[&str] = &[
    "ip",
    "ips",
    "ipv4",
    "addr",
    "address",
    "host",
    "server",
    "dns",
    "ping",
    "gateway",
    "proxy",
    "resolver",
    "nameserver",
    "http",
    "https",
    "ssh",
    "tcp",
    "udp",
    "port",
    "from",
    "adresse",
    "dirección",
    "indirizzo",
];
/// Words before an address that say that it is a version or section.
const VERSIONS: &[&str] = &[
    "version", "ver", "release", "firmware", "build", "v", "section", "sec", "chapter", "clause",
];

/// The IPv4 address that the groups at `start` are.
pub(super) fn ipv4(
    text: &str,
    start: usize,
    groups: &Groups,
    private: bool,
    dictionary: &Dictionary,
) -> Option<Range<usize>> {
    if !groups.is(&groups.lengths[..4], &[Separator::Dot]) || groups.count < 4 {
        return None;
    }
    let bytes = text.as_bytes();
    let range = start..groups.ends[3];
    // In `Firefox/3.0.1.2` a slash follows a word; in `//3.0.1.2` another slash.
    if !begins(bytes, start) || !ends(bytes, range.end) || bytes.get(start.wrapping_sub(1)) == Some(&b'.') {
        return None;
    }
    let address: Ipv4Addr = text.get(range.clone())?.parse().ok()?;
    if !private && !is_public_v4(address) {
        return None;
    }
    let before = text.get(text.floor_char_boundary(start.saturating_sub(10))..start)?;
    let last = before
        .trim_end()
        .rsplit(|c: char| !c.is_alphanumeric())
        .find(|word| !word.is_empty());
    if last.is_some_and(|word| VERSIONS.iter().any(|version| word.eq_ignore_ascii_case(version))) {
        return None;
    }
    let small = address.octets().iter().all(|&octet| octet < SMALL);
    (!small || dictionary.has(text, Kind::Ip, &range)).then_some(range)
}

/// Whether an address leads anywhere in the internet (IANA IPv4 special-purpose address registry).
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || a >= 224
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b)))
}

/// The IPv6 address whose first `:` is at `at`.
pub(super) fn ipv6(text: &str, at: usize, private: bool) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let first = bytes[..at]
        .iter()
        .rev()
        .take(5)
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let from = at - first;
    let before = bytes[..from].last();
    if first > 4 || before.is_some_and(|&byte| is_word(byte) || byte == b':' || byte == b'.') {
        return None;
    }
    let length = bytes[at..]
        .iter()
        .take(46)
        .take_while(|&&byte| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.')
        .count();
    let written = text.get(from..at + length)?;
    let written = written.strip_suffix('.').unwrap_or(written);
    // A colon behind an address ends a clause; two are part of it.
    let written = match written.strip_suffix(':') {
        Some(shorter) if !shorter.ends_with(':') => shorter,
        _ => written,
    };
    let end = from + written.len();
    if bytes.get(end).is_some_and(|&byte| is_word(byte)) {
        return None;
    }
    let address: Ipv6Addr = written.parse().ok()?;
    // Without a digit, `a::b` is more likely a path in a program.
    let digit = written.bytes().any(|byte| byte.is_ascii_digit());
    (is_public_v6(address) || (private && digit)).then_some(from..end)
}

/// Global unicast but documentation, benchmarks and ORCHIDs (IANA IPv6 special-purpose address registry).
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, ..] = address.segments();
    a & 0xe000 == 0x2000
        && !(a == 0x2001 && b == 0xdb8)
        && !(a == 0x3fff && b < 0x1000)
        && !(a == 0x2001 && b == 2 && c == 0)
        && !(a == 0x2001 && (0x10..0x30).contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(text: &str) -> Option<&str> {
        email(text, text.find('@')?).map(|range| &text[range])
    }

    #[test]
    fn emails() {
        for (text, address) in [
            ("Write to jane.doe+x@example.co.uk.", "jane.doe+x@example.co.uk"),
            ("<joe@example.com>", "joe@example.com"),
            ("'joe@example.com'", "joe@example.com"),
            (
                "mailto:joe_99@mail-1.example.org?subject",
                "joe_99@mail-1.example.org",
            ),
            ("邮箱foo@163.com。", "foo@163.com"),
            ("josé@example.es", "josé@example.es"),
            ("o'hara@example.ie", "o'hara@example.ie"),
            ("a@xn--bcher-kva.xn--p1ai", "a@xn--bcher-kva.xn--p1ai"),
            ("@jane@mastodon.social"[1..].as_ref(), "jane@mastodon.social"),
            ("...joe@example.com", "joe@example.com"),
        ] {
            assert_eq!(found(text), Some(address));
        }
        for text in [
            "@jane",
            "jane@",
            "jane@localhost",
            "icon@2x.png",
            "left-pad@17.0.2.beta",
            "a@b.c",
            "a..b@example.com",
            "a.@example.com",
            "@Override",
            "a@-x.com",
            "a@x..com",
            "medium.com/@jane.doe",
            "x@1.2.3.4",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
        assert_eq!(found(&format!("{}@example.com", "a".repeat(65))), None);
        assert_eq!(found(&format!("a@{}.com", "a".repeat(64))), None);
    }

    fn v6(text: &str, private: bool) -> Option<&str> {
        ipv6(text, text.find(':')?, private).map(|range| &text[range])
    }

    #[test]
    fn addresses_of_version_6() {
        // Google's and Cloudflare's public resolvers.
        for text in [
            "2001:4860:4860::8888",
            "2606:4700:4700::1111",
            "2606:4700:4700:0:0:0:0:64",
        ] {
            assert_eq!(v6(text, false), Some(text));
            assert_eq!(v6(&format!("[{text}]:443"), false), Some(text));
            assert_eq!(v6(&format!("at {text}."), false), Some(text));
            assert_eq!(v6(&format!("x{text}"), false), None);
        }
        // RFC 3849, 4193, 4291.
        for text in [
            "2001:db8::1",
            "fd12:3456:789a::1",
            "fe80::1",
            "::1",
            "2001:db8:85a3::8a2e:370:7334",
        ] {
            assert_eq!(v6(text, false), None);
            assert_eq!(v6(text, true), Some(text));
        }
        for text in [
            "std::vec",
            "a::b",
            "Face::Add",
            "12:30:45",
            "::",
            "2001:4860:4860:8888",
            "2023:11",
        ] {
            assert_eq!(v6(text, true), None, "{text}");
        }
    }

    fn v4(text: &str, private: bool) -> Option<&str> {
        let start = text.find(|c: char| c.is_ascii_digit())?;
        let dictionary = Dictionary::new().unwrap();
        ipv4(
            text,
            start,
            &Groups::read(text.as_bytes(), start),
            private,
            &dictionary,
        )
        .map(|range| &text[range])
    }

    #[test]
    fn addresses_of_version_4() {
        for (text, address) in [
            ("93.184.216.34", "93.184.216.34"),
            ("from 8.8.8.8, port 53", "8.8.8.8"),
            ("http://93.184.216.34:8080/", "93.184.216.34"),
            ("93.184.216.0/24", "93.184.216.0"),
            ("It is 93.184.216.34.", "93.184.216.34"),
        ] {
            assert_eq!(v4(text, false), Some(address));
        }
        for text in [
            "1.2.3.4",
            "3.10.4.1",
            "section 93.3.17.1",
            "version 93.184.216.34",
            "v93.184.216.34",
            "Firefox/93.184.216.34",
            "256.1.1.1",
            "93.184.216",
            "93.184.216.34.5",
            "93.184.216.034",
            "093.184.216.34",
            "93.184.216.34a",
        ] {
            assert_eq!(v4(text, true), None, "{text}");
        }
        // RFC 1918, 5737, 6598, 2544, 3927, 1112.
        for text in [
            "10.11.12.113",
            "172.16.0.10",
            "192.168.0.10",
            "127.0.0.10",
            "192.0.2.10",
            "198.51.100.10",
            "203.0.113.10",
            "100.64.0.10",
            "198.18.0.10",
            "169.254.0.10",
            "224.0.0.10",
            "255.255.255.255",
            "0.0.0.110",
        ] {
            assert_eq!(v4(text, false), None, "{text}");
            assert_eq!(v4(text, true), Some(text));
        }
    }

    proptest! {
        #[test]
        fn found_addresses_are_the_standard_librarys(octets: [u8; 4], words: [u16; 8]) {
            let address = Ipv4Addr::from(octets).to_string();
            let text = format!("host ip {address}");
            prop_assert_eq!(v4(&text, true), Some(address.as_str()));
            let address = Ipv6Addr::from(words);
            let text = address.to_string();
            prop_assert_eq!(v6(&text, false), is_public_v6(address).then_some(text.as_str()));
        }

        #[test]
        fn anything_is_read_without_a_panic(text in "[a1é:.@ 漢-]{0,40}") {
            for (at, char) in text.char_indices() {
                match char {
                    '@' => drop(email(&text, at)),
                    ':' => drop(ipv6(&text, at, true)),
                    _ => {}
                }
            }
        }
    }
}
