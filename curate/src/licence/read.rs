//! What stands where a licence should, read as an SPDX expression.

use std::collections::HashMap;
use std::sync::LazyLock;

use spdx::{Expression, ParseMode};

/// Longest statement that is read, in bytes: nobody's licence is an essay.
const LONGEST: usize = 1_000;

/// Names without the words and signs that make no difference, and what they mean. Sources: the registries of crates, npm,
/// PyPI (classifiers) and Debian, where these are written.
const NAMES: &[(&str, &str)] = &[
    ("expat", "MIT"),
    ("mitx11", "MIT"),
    ("mitexpat", "MIT"),
    ("x11mit", "MIT"),
    ("apache", "Apache-2.0"),
    ("apache2", "Apache-2.0"),
    ("apache2.0", "Apache-2.0"),
    ("apachesoftware", "Apache-2.0"),
    ("apachesoftware2.0", "Apache-2.0"),
    ("asl2", "Apache-2.0"),
    ("asl2.0", "Apache-2.0"),
    ("al2.0", "Apache-2.0"),
    ("bsd", "BSD-3-Clause"),
    ("newbsd", "BSD-3-Clause"),
    ("modifiedbsd", "BSD-3-Clause"),
    ("revisedbsd", "BSD-3-Clause"),
    ("bsdnew", "BSD-3-Clause"),
    ("bsd3", "BSD-3-Clause"),
    ("bsd3clause", "BSD-3-Clause"),
    ("3clausebsd", "BSD-3-Clause"),
    ("bsd2", "BSD-2-Clause"),
    ("bsd2clause", "BSD-2-Clause"),
    ("2clausebsd", "BSD-2-Clause"),
    ("simplifiedbsd", "BSD-2-Clause"),
    ("bsdsimplified", "BSD-2-Clause"),
    ("freebsd", "BSD-2-Clause"),
    ("mpl", "MPL-2.0"),
    ("mpl2", "MPL-2.0"),
    ("mozillapublic2.0", "MPL-2.0"),
    ("epl", "EPL-2.0"),
    ("epl1", "EPL-1.0"),
    ("epl2", "EPL-2.0"),
    ("eclipsepublic1.0", "EPL-1.0"),
    ("eclipsepublic2.0", "EPL-2.0"),
    ("eupl", "EUPL-1.2"),
    ("boost", "BSL-1.0"),
    ("boostsoftware", "BSL-1.0"),
    ("boostsoftware1.0", "BSL-1.0"),
    ("boost1.0", "BSL-1.0"),
    ("zliblibpng", "Zlib"),
    ("psf", "PSF-2.0"),
    ("psf2", "PSF-2.0"),
    ("python", "PSF-2.0"),
    ("pythonsoftwarefoundation", "PSF-2.0"),
    ("artistic", "Artistic-2.0"),
    ("artistic2", "Artistic-2.0"),
    ("perl", "Artistic-1.0-Perl OR GPL-1.0-or-later"),
    ("perl5", "Artistic-1.0-Perl OR GPL-1.0-or-later"),
    ("sameasperl5", "Artistic-1.0-Perl OR GPL-1.0-or-later"),
    ("unlicence", "Unlicense"),
    ("cc0", "CC0-1.0"),
    ("cc01.0", "CC0-1.0"),
    ("cc0universal", "CC0-1.0"),
    ("cc01.0universal", "CC0-1.0"),
    ("cczero", "CC0-1.0"),
    ("publicdomain", "LicenseRef-public-domain"),
    ("pd", "LicenseRef-public-domain"),
    ("unlicensed", "LicenseRef-proprietary"),
    ("proprietary", "LicenseRef-proprietary"),
    ("commercial", "LicenseRef-proprietary"),
    ("allrightsreserved", "LicenseRef-proprietary"),
    ("copyrighted", "LicenseRef-proprietary"),
];

/// Phrases that are one word in what follows. In lower case.
const PHRASES: &[(&str, &str)] = &[
    (" or (at your option) any later version", "+"),
    (", or any later version", "+"),
    (" or any later version", "+"),
    (" or later", "+"),
    (" or newer", "+"),
    (" or greater", "+"),
    (" or above", "+"),
    ("creative commons", "cc"),
    ("attribution", "by"),
    ("non commercial", "nc"),
    ("noncommercial", "nc"),
    ("non-commercial", "nc"),
    ("no derivatives", "nd"),
    ("noderivatives", "nd"),
    ("noderivs", "nd"),
    ("share alike", "sa"),
    ("share-alike", "sa"),
    ("sharealike", "sa"),
];

/// Every id of SPDX, by its lower case.
static IDS: LazyLock<HashMap<String, &'static str>> = LazyLock::new(|| {
    let licences = spdx::identifiers::LICENSES.iter().map(|licence| licence.name);
    let exceptions = spdx::identifiers::EXCEPTIONS
        .iter()
        .map(|exception| exception.name);
    licences
        .chain(exceptions)
        .map(|name| (name.to_ascii_lowercase(), name))
        .collect()
});

/// What a statement says, or `None` if it is no licence that is known. `/` and `|` are read as OR, as cargo does; `,`, `;`
/// and `&` as AND; a family without its version as any version of it (GNU) or the newest (the others).
#[must_use]
pub fn read(statement: &str) -> Option<Expression> {
    if statement.len() > LONGEST {
        return None;
    }
    let statement = statement.trim();
    // `ISC License (ISCL)`: its short name behind it.
    let named = || {
        statement
            .strip_suffix(')')
            .and_then(|rest| rest.rsplit_once(" ("))
            .and_then(|(name, _)| term(name))
    };
    let expression = term(statement).or_else(named).or_else(|| operators(statement))?;
    Expression::parse_mode(&expression, ParseMode::LAX).ok()
}

/// Whether a statement says nothing: empty, or SPDX's words for that.
pub(super) fn is_missing(statement: &str) -> bool {
    let statement = statement.trim().trim_matches(['"', '\'', '[', ']', '(', ')']);
    ["", "noassertion", "none", "null", "n/a", "unknown"].contains(&&*statement.to_ascii_lowercase())
}

/// An expression with its terms made ids.
fn operators(statement: &str) -> Option<String> {
    let mut text = statement.to_ascii_lowercase();
    for (phrase, word) in PHRASES.iter().filter(|(_, word)| *word == "+") {
        text = text.replace(phrase, word);
    }
    // Signs become words, but for those inside an address.
    let mut spaced = String::with_capacity(text.len() * 2);
    for word in text.split_whitespace() {
        if word.contains("://") {
            spaced.push_str(word);
        } else {
            for char in word.chars() {
                match char {
                    '(' | ')' => spaced.extend([' ', char, ' ']),
                    '/' | '|' => spaced.push_str(" or "),
                    '&' => spaced.push_str(" and "),
                    // A list, as JSON or Python write it.
                    '[' | ']' | '"' | '\'' => {}
                    char => spaced.push(char),
                }
            }
        }
        spaced.push(' ');
    }
    let mut expression = String::new();
    let mut words: Vec<&str> = Vec::new();
    for word in spaced.split_whitespace().chain([""]) {
        let operator = match word {
            "and" => " AND ",
            "or" => " OR ",
            "with" => " WITH ",
            "(" => "(",
            ")" => ")",
            "" => "",
            word => {
                words.push(word);
                continue;
            }
        };
        // `and/or` and `||` are one operator.
        if words.is_empty() && operator.starts_with(' ') && expression.ends_with(' ') {
            continue;
        }
        if !words.is_empty() {
            let name = words.join(" ");
            words.clear();
            expression.push_str(&match term(&name) {
                Some(id) if id.contains(" OR ") => format!("({id})"),
                Some(id) => id,
                None => list(&name)?,
            });
        }
        expression.push_str(operator);
    }
    Some(expression)
}

/// Names with commas between them, all of which hold.
fn list(names: &str) -> Option<String> {
    let ids: Option<Vec<String>> = names
        .split([',', ';'])
        .filter(|name| !name.trim().is_empty())
        .map(term)
        .collect();
    ids.filter(|ids| ids.len() > 1)
        .map(|ids| format!("({})", ids.join(" AND ")))
}

/// One licence, or exception, by any of its names.
fn term(name: &str) -> Option<String> {
    let name = name.trim().trim_matches(['"', '\'', ',', ';']).trim();
    let lower = name.to_ascii_lowercase();
    if let Some(reference) = lower.strip_prefix("licenseref-") {
        let valid = !reference.is_empty()
            && reference
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
        return valid.then(|| name.to_owned());
    }
    if let Some(id) = IDS.get(lower.as_str()) {
        return Some((*id).to_owned());
    }
    if let Some(id) = lower.strip_suffix('+').and_then(|id| IDS.get(id)) {
        return Some(format!("{id}+"));
    }
    if lower.contains("://") {
        return address(&lower);
    }
    let key = key(&lower);
    NAMES
        .iter()
        .find(|(name, _)| *name == key)
        .map(|(_, id)| (*id).to_owned())
        .or_else(|| gnu(&key))
        .or_else(|| creative_commons(&key))
        .or_else(|| squeezed(&key))
}

/// A name without words that make no difference, and without signs but `.` and `+`.
fn key(lower: &str) -> String {
    let mut text = lower.to_owned();
    for (phrase, word) in PHRASES {
        text = text.replace(phrase, word);
    }
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '+');
    let idle = [
        "the",
        "license",
        "licence",
        "licenses",
        "licensed",
        "under",
        "version",
        "ver",
        "v",
        "v.",
        "osi",
        "approved",
        "dual",
        "terms",
        "of",
        "international",
        "unported",
        "generic",
    ];
    let mut key = String::new();
    for word in words.filter(|word| !word.is_empty() && !idle.contains(word)) {
        // `v2` is 2, also at the end of a name: `gplv2`.
        key.push_str(
            word.strip_prefix('v')
                .filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
                .unwrap_or(word),
        );
    }
    match key.rfind('v') {
        Some(at) if at > 0 && key[at + 1..].starts_with(|c: char| c.is_ascii_digit()) => {
            key.remove(at);
        }
        _ => {}
    }
    key
}

/// An id without its signs: `apache2.0` and `bsd2clause` are unique.
fn squeezed(key: &str) -> Option<String> {
    static SQUEEZED: LazyLock<HashMap<String, &'static str>> = LazyLock::new(|| {
        let mut ids = HashMap::new();
        for licence in spdx::identifiers::LICENSES
            .iter()
            .filter(|l| l.flags & spdx::flags::IS_DEPRECATED == 0)
        {
            ids.entry(licence.name.to_ascii_lowercase().replace(['-', '_'], ""))
                .or_insert(licence.name);
        }
        ids
    });
    SQUEEZED.get(key).map(|id| (*id).to_owned())
}

/// GNU's licences; without a version, any.
fn gnu(key: &str) -> Option<String> {
    let key = key
        .replace("afferogeneralpublic", "agpl")
        .replace("lessergeneralpublic", "lgpl")
        .replace("librarygeneralpublic", "lgpl")
        .replace("generalpublic", "gpl");
    let rest = key.strip_prefix("gnu").unwrap_or(&key);
    let (family, rest) = ["agpl", "lgpl", "gpl"]
        .iter()
        .find_map(|family| Some((*family, rest.strip_prefix(family)?)))?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(rest.len());
    let (version, suffix) = rest.split_at(end);
    let later = match suffix {
        "" | "only" => version.is_empty(),
        "+" | "orlater" => true,
        _ => return None,
    };
    let version = match (family, version) {
        ("gpl" | "agpl", "1" | "1.0") | ("gpl", "") => "1.0",
        ("gpl", "2" | "2.0") | ("lgpl", "2" | "2.0" | "") => "2.0",
        ("lgpl", "2.1") => "2.1",
        (_, "3" | "3.0") | ("agpl", "") => "3.0",
        _ => return None,
    };
    let suffix = if later { "or-later" } else { "only" };
    Some(format!("{}-{version}-{suffix}", family.to_ascii_uppercase()))
}

/// Creative Commons' licences: `cc`, the elements in any order, a version or the newest.
fn creative_commons(key: &str) -> Option<String> {
    let mut rest = key.strip_prefix("cc")?;
    let (mut by, mut nc, mut nd, mut sa) = (false, false, false, false);
    while let Some((element, behind)) = rest.split_at_checked(2) {
        match element {
            "by" => by = true,
            "nc" => nc = true,
            "nd" => nd = true,
            "sa" => sa = true,
            _ => break,
        }
        rest = behind;
    }
    let version = match rest.get(..3).filter(|v| v.contains('.')) {
        Some(version) => version,
        None if rest.is_empty() => "4.0",
        None => return None,
    };
    if !by {
        return None;
    }
    let element = |has: bool, name: &'static str| if has { name } else { "" };
    let id = format!(
        "CC-BY{}{}{}-{version}",
        element(nc, "-NC"),
        element(nd, "-ND"),
        element(sa, "-SA")
    );
    spdx::license_id(&id).map(|id| id.name.to_owned())
}

/// A licence by its address.
fn address(lower: &str) -> Option<String> {
    let (_, rest) = lower.split_once("://")?;
    let rest = rest.trim_start_matches("www.").trim_end_matches(['/', '>']);
    let mut parts = rest.split(['/', '#', '?']);
    match parts.next()? {
        "creativecommons.org" => match (parts.next()?, parts.next()?, parts.next()) {
            ("publicdomain", "zero", _) => Some("CC0-1.0".to_owned()),
            ("publicdomain", "mark", _) => Some("CC-PDM-1.0".to_owned()),
            ("licenses", elements, version) => creative_commons(&format!(
                "cc{}{}",
                elements.replace('-', ""),
                version.unwrap_or_default()
            )),
            _ => None,
        },
        "apache.org" => rest.contains("license-2.0").then(|| "Apache-2.0".to_owned()),
        "unlicense.org" => Some("Unlicense".to_owned()),
        "opensource.org" | "spdx.org" | "choosealicense.com" | "gnu.org" | "mozilla.org" => {
            let last = rest.rsplit('/').next()?;
            let last = last
                .trim_end_matches(".html")
                .trim_end_matches(".txt")
                .trim_end_matches(".en");
            if last.contains("://") { None } else { term(last) }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sloppy_statements_are_read_as_what_they_mean() {
        for (statement, expression) in [
            ("MIT", "MIT"),
            ("mit", "MIT"),
            ("MIT License", "MIT"),
            ("The MIT License (MIT)", "MIT"),
            ("MIT/Apache-2.0", "MIT OR Apache-2.0"),
            ("MIT / Apache-2.0", "MIT OR Apache-2.0"),
            ("Apache-2.0/MIT OR Zlib", "Apache-2.0 OR MIT OR Zlib"),
            ("MIT and/or Apache", "MIT AND Apache-2.0"),
            ("GPLv3", "GPL-3.0-only"),
            ("GPLv3+", "GPL-3.0-or-later"),
            ("GPL-2.0+", "GPL-2.0-or-later"),
            ("GPL v2 or later", "GPL-2.0-or-later"),
            ("GPL", "GPL-1.0-or-later"),
            ("GNU GPL v2", "GPL-2.0-only"),
            ("GNU General Public License v3.0", "GPL-3.0-only"),
            (
                "GNU General Public License v3 or later (GPLv3+)",
                "GPL-3.0-or-later",
            ),
            ("LGPLv2.1", "LGPL-2.1-only"),
            ("GNU Lesser General Public License v3", "LGPL-3.0-only"),
            ("AGPLv3", "AGPL-3.0-only"),
            ("Apache 2", "Apache-2.0"),
            ("Apache License, Version 2.0", "Apache-2.0"),
            ("Apache License, Version 2.0 OR MIT License", "Apache-2.0 OR MIT"),
            ("Apache Software License", "Apache-2.0"),
            ("BSD", "BSD-3-Clause"),
            ("BSD 3-Clause", "BSD-3-Clause"),
            ("2-clause BSD", "BSD-2-Clause"),
            ("ISC License (ISCL)", "ISC"),
            ("Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
            ("CC BY-SA 4.0", "CC-BY-SA-4.0"),
            ("cc-by-sa", "CC-BY-SA-4.0"),
            (
                "Creative Commons Attribution-ShareAlike 3.0 Unported",
                "CC-BY-SA-3.0",
            ),
            (
                "Creative Commons Attribution-NonCommercial-NoDerivs 2.0",
                "CC-BY-NC-ND-2.0",
            ),
            ("https://creativecommons.org/licenses/by-nc/4.0/", "CC-BY-NC-4.0"),
            ("http://creativecommons.org/licenses/by/3.0/us/", "CC-BY-3.0"),
            ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
            ("https://opensource.org/licenses/MIT", "MIT"),
            ("http://www.apache.org/licenses/LICENSE-2.0.txt", "Apache-2.0"),
            ("https://www.gnu.org/licenses/gpl-3.0.en.html", "GPL-3.0"),
            ("Public Domain", "LicenseRef-public-domain"),
            ("UNLICENSED", "LicenseRef-proprietary"),
            ("The Unlicense", "Unlicense"),
            ("['MIT', 'Apache-2.0']", "(MIT AND Apache-2.0)"),
            (
                "(MIT OR Apache-2.0) AND Unicode-DFS-2016",
                "(MIT OR Apache-2.0) AND Unicode-DFS-2016",
            ),
            ("Apache-2.0 WITH LLVM-exception", "Apache-2.0 WITH LLVM-exception"),
            (
                "GPLv2 with classpath-exception-2.0",
                "GPL-2.0-only WITH Classpath-exception-2.0",
            ),
            ("Perl AND MIT", "(Artistic-1.0-Perl OR GPL-1.0-or-later) AND MIT"),
        ] {
            let expected = Expression::parse_mode(expression, ParseMode::LAX).unwrap();
            assert_eq!(read(statement), Some(expected), "{statement}");
        }
        for statement in [
            "",
            "see LICENSE",
            "non-standard",
            "MIT OR",
            "OR",
            "LICENSE.txt",
            "free",
            "https://example.com",
        ] {
            assert_eq!(read(statement), None, "{statement}");
        }
    }

    #[test]
    fn every_id_is_itself() {
        for licence in spdx::identifiers::LICENSES
            .iter()
            .filter(|l| l.name != "NOASSERTION")
        {
            let expected = Expression::parse_mode(licence.name, ParseMode::LAX).unwrap();
            assert_eq!(read(licence.name), Some(expected.clone()), "{}", licence.name);
            assert_eq!(
                read(&licence.name.to_ascii_uppercase()),
                Some(expected),
                "{}",
                licence.name
            );
        }
    }

    proptest! {
        #[test]
        fn anything_is_read_without_a_panic(
            text in "(MIT|GPL|CC|BY|v2|2\\.0|or later|https://|gnu\\.org/|é|[ /,;()|&+'\"-]|AND|OR|WITH){0,12}"
        ) {
            let _ = read(&text);
        }
    }
}
