//! The main content of a page.

use dom_smoothie::{Config, Readability, TextMode};
use memchr::{memchr, memchr_iter, memmem};

use super::contain::contained;
use super::record::{Field, Record, Slot, Value};

/// Deeper pages are not taken apart: the parser and the search for the main content take the square of the depth or
/// more (measured: 5,000 nested elements take ten seconds, 500 take 0.15).
const MAX_DEPTH: usize = 256;
/// Elements with more attributes are not parsed: the parser compares each with each.
const MAX_ATTRIBUTES: usize = 512;
/// How far in a page its encoding is declared, by the HTML standard.
const DECLARED_WITHIN_BYTES: usize = 1024;

/// What a page says.
#[derive(Debug, Default)]
pub(crate) struct Page {
    text: String,
    url: Option<String>,
    language: Option<String>,
    created: Option<String>,
    opt_outs: Vec<String>,
}

impl Page {
    /// Sets what the record does not hold yet; opt-outs of both hold.
    pub(crate) fn fill(self, record: &mut Record<'_>) {
        record.put_text(Field::Text, Some(self.text));
        let weakest = |field| Slot { field, rank: u8::MAX };
        let mut fill = |field, value: Option<String>| {
            if let Some(value) = value {
                record.put(weakest(field), Value::Text(value.into()));
            }
        };
        fill(Field::Url, self.url);
        fill(Field::Language, self.language);
        fill(Field::Created, self.created);
        let mut opt_outs = record.take_opt_outs();
        opt_outs.extend(self.opt_outs);
        record.put(weakest(Field::OptOuts), Value::List(opt_outs));
    }
}

/// The encoding that a `meta` element declares.
pub(crate) fn declared_encoding(bytes: &[u8]) -> Option<String> {
    let head = bytes
        .get(..DECLARED_WITHIN_BYTES)
        .unwrap_or(bytes)
        .to_ascii_lowercase();
    memmem::find_iter(&head, b"<meta").find_map(|at| {
        let rest = head.get(at..)?;
        let element = rest.get(..memchr(b'>', rest)?)?;
        let after = element.get(memmem::find(element, b"charset")? + 7..)?;
        let value = after.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
        let value = value
            .strip_prefix(b"\"")
            .or(value.strip_prefix(b"'"))
            .unwrap_or(value);
        let ends = |byte: &u8| matches!(byte, b'"' | b'\'' | b';' | b' ' | b'/' | b'>');
        let label = value.split(ends).next()?;
        (!label.is_empty()).then(|| String::from_utf8_lossy(label).into_owned())
    })
}

/// The main content, or all text if there is none, or why neither: reason and detail.
pub(crate) fn extract(markup: &str) -> Result<Page, (&'static str, String)> {
    check_shape(markup.as_bytes()).map_err(|detail| ("read.html", detail))?;
    contained(|| taken_apart(markup)).map_err(|detail| ("read.panicked", detail))
}

fn taken_apart(markup: &str) -> Page {
    let config = Config {
        disable_json_ld: true,
        text_mode: TextMode::Formatted,
        ..Config::default()
    };
    let Ok(mut page) = Readability::new(markup, None, Some(config)) else {
        return Page::default();
    };
    let language = page
        .doc
        .select("html")
        .attr("lang")
        .map(|lang| lang.trim().to_owned());
    let mut found = Page {
        opt_outs: opt_outs(&page),
        language: language.filter(|lang| !lang.is_empty()),
        ..Page::default()
    };
    if is_too_deep(&page) {
        found.text = all_text(&page);
        return found;
    }
    match page.parse() {
        Ok(article) if !article.text_content.trim().is_empty() => {
            found.text = article.text_content.to_string();
            found.url = article.url.map(|url| url.to_string());
            found.created = article.published_time.map(|time| time.to_string());
        }
        // The search changed the page, so that it is parsed anew.
        _ => {
            if let Ok(page) = Readability::new(markup, None, None) {
                found.text = all_text(&page);
            }
        }
    }
    found
}

fn all_text(page: &Readability) -> String {
    page.doc
        .select("script, style, noscript, template, head, iframe, svg")
        .remove();
    page.doc.formatted_text().trim().to_owned()
}

fn opt_outs(page: &Readability) -> Vec<String> {
    let metas = page.doc.select("meta[name][content]");
    let stated = metas.iter().flat_map(|meta| {
        let name = meta.attr_or("name", "").trim().to_ascii_lowercase();
        let content = meta.attr_or("content", "");
        match name.as_str() {
            "robots" => directives(&content),
            "tdm-reservation" if content.trim() == "1" => vec!["tdm-reservation".to_owned()],
            _ => Vec::new(),
        }
    });
    stated.collect()
}

/// The opt-outs among the directives of `robots`, which all begin with `no`. What is said to one robot alone counts for all.
pub(crate) fn directives(value: &str) -> Vec<String> {
    let directive = |part: &str| {
        let part = part
            .rsplit(':')
            .next()
            .unwrap_or(part)
            .trim()
            .to_ascii_lowercase();
        part.starts_with("no").then_some(part)
    };
    value.split(',').filter_map(directive).collect()
}

fn is_too_deep(page: &Readability) -> bool {
    let mut depth = 0_usize;
    let root = page.doc.root();
    let mut node = root;
    loop {
        if let Some(child) = node.first_child() {
            node = child;
            depth += 1;
            if depth > MAX_DEPTH {
                return true;
            }
            continue;
        }
        loop {
            if node.id == root.id {
                return false;
            }
            if let Some(next) = node.next_sibling() {
                node = next;
                break;
            }
            let Some(parent) = node.parent() else {
                return false;
            };
            node = parent;
            depth = depth.saturating_sub(1);
        }
    }
}

/// Refuses what would take the parser the square of its length, by a look at the tags alone. An end tag ends only what
/// the parser surely ends too, so that the depth found is rather too large than too small.
fn check_shape(markup: &[u8]) -> Result<(), String> {
    let mut open: Vec<&[u8]> = Vec::new();
    let mut skipped_to = 0;
    let mut comments_end = true;
    for at in memchr_iter(b'<', markup) {
        if at < skipped_to {
            continue;
        }
        let rest = markup.get(at + 1..).unwrap_or_default();
        if comments_end && rest.starts_with(b"!--") {
            let end = memmem::find(rest, b"-->");
            comments_end = end.is_some();
            skipped_to = end.map_or(0, |end| at + end);
            continue;
        }
        let (ends, rest) = match rest.strip_prefix(b"/") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let length = rest
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-')
            .count();
        let name = rest.get(..length).unwrap_or_default();
        if !name.first().is_some_and(u8::is_ascii_alphabetic) {
            continue;
        }
        let tag_bytes = memchr(b'>', rest).unwrap_or(rest.len());
        let tag = rest.get(length..tag_bytes).unwrap_or_default();
        skipped_to = at + tag_bytes;
        if tag.len() > MAX_ATTRIBUTES && attributes(tag) > MAX_ATTRIBUTES {
            return Err(format!("an element has more than {MAX_ATTRIBUTES} attributes"));
        }
        if ends_by_itself(name) {
            continue;
        }
        if ends {
            let same = |held: &&[u8]| held.eq_ignore_ascii_case(name);
            if let Some(found) = open.iter().rposition(same) {
                let passed = open.get(found + 1..).unwrap_or_default();
                if passed.iter().all(|name| is_one_of(name, PHRASES)) {
                    open.truncate(found);
                }
            }
            continue;
        }
        // Only in drawings does a slash end an element.
        if tag.ends_with(b"/") && open.last().is_some_and(|name| is_one_of(name, DRAWINGS)) {
            continue;
        }
        open.push(name);
        if open.len() > MAX_DEPTH {
            return Err(format!("elements are nested more than {MAX_DEPTH} deep"));
        }
        if is_one_of(name, RAW_TEXTS) {
            skipped_to = skipped_to.max(at + 1 + end_of_raw_text(rest, name));
        }
    }
    Ok(())
}

/// About how many attributes a tag has: what lies between spaces and slashes, if it is not quoted.
fn attributes(tag: &[u8]) -> usize {
    let mut quote = None;
    let mut count = 0;
    for &byte in tag {
        match (quote, byte) {
            (Some(open), _) if open == byte => quote = None,
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b' ' | b'\t' | b'\n' | b'\r' | b'\x0c' | b'/') => count += 1,
            _ => {}
        }
    }
    count
}

/// Where the end tag of an element that holds raw text begins; 0 if there is none.
fn end_of_raw_text(rest: &[u8], name: &[u8]) -> usize {
    let is_end = |at: &usize| {
        let tag = rest.get(at + 2..at + 2 + name.len());
        tag.is_some_and(|tag| tag.eq_ignore_ascii_case(name))
    };
    memmem::find_iter(rest, b"</").find(is_end).unwrap_or(0)
}

fn ends_by_itself(name: &[u8]) -> bool {
    is_one_of(name, VOIDS)
}

fn is_one_of(name: &[u8], names: &[&str]) -> bool {
    names
        .iter()
        .any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
}

/// Elements that hold no elements.
const RAW_TEXTS: &[&str] = &[
    "script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes",
];
/// Elements without an end tag, or whose end tag may be left out.
#[rustfmt::skip]
const VOIDS: &[&str] = &[
    "area", "base", "body", "br", "col", "colgroup", "dd", "dt", "embed", "head", "hr", "html", "img", "input", "li",
    "link", "meta", "optgroup", "option", "p", "param", "rp", "rt", "source", "tbody", "td", "tfoot", "th", "thead",
    "tr", "track", "wbr",
];
/// Elements inside a line, which an end tag around them ends.
#[rustfmt::skip]
const PHRASES: &[&str] = &[
    "a", "b", "big", "code", "em", "font", "i", "nobr", "s", "small", "span", "strike", "strong", "tt", "u",
];
/// Elements that hold shapes.
#[rustfmt::skip]
const DRAWINGS: &[&str] = &[
    "svg", "g", "defs", "symbol", "clippath", "mask", "lineargradient", "radialgradient", "pattern", "marker", "filter",
    "math",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn record(markup: &str) -> Record<'static> {
        let mut record = Record::default();
        extract(markup).unwrap().fill(&mut record);
        record
    }

    #[test]
    fn the_main_content_is_taken_and_the_rest_is_not() {
        let paragraph =
            "Bread is made of flour, water and salt, and of time, which matters most of all of them. ";
        let article = format!(
            "<article><h2>On bread</h2><p>{0}</p><p>{0}</p></article>",
            paragraph.repeat(8)
        );
        let markup = format!(
            "<html lang=de><head><title>Bread</title><meta name=robots content='index, NoAI, googlebot: noindex'>\
             <meta name='tdm-reservation' content=1><style>p {{}}</style></head><body>\
             <nav><ul><li><a href=/>Home</a><li><a href=/shop>Shop</a></ul></nav>{article}\
             <footer>Imprint</footer><script>track()</script></body></html>"
        );
        let mut record = record(&markup);
        let text = record.take_text().unwrap();
        assert!(text.starts_with("On bread\n\nBread is made of flour"), "{text}");
        assert!(!text.contains("Shop") && !text.contains("track"), "{text}");
        assert_eq!(record.take_field(Field::Language).as_deref(), Some("de"));
        assert_eq!(record.take_opt_outs(), ["noai", "noindex", "tdm-reservation"]);
    }

    #[test]
    fn without_main_content_all_text_is_taken() {
        let mut few = record("<title>t</title><body><script>no</script><table><tr><td>one<td>two</table>");
        let text = few.take_text().unwrap();
        assert!(
            text.contains("one") && text.contains("two") && !text.contains("no"),
            "{text}"
        );
        assert_eq!(
            record("<script>x</script>").take_text().unwrap_err().0,
            "read.empty"
        );
    }

    #[test]
    fn the_encoding_is_declared_in_either_way() {
        let told = |markup: &str| declared_encoding(markup.as_bytes());
        assert_eq!(
            told("<META CHARSET=Windows-1251>").as_deref(),
            Some("windows-1251")
        );
        let long = "<meta name=a><meta http-equiv='content-type' content='text/html; charset=koi8-r'>";
        assert_eq!(told(long).as_deref(), Some("koi8-r"));
        assert_eq!(told("<meta charset=''>"), None);
        assert_eq!(told("charset=latin1"), None);
    }

    #[test]
    fn pages_that_take_the_square_of_their_length_are_refused() {
        let refused = |markup: String| extract(&markup).unwrap_err().0 == "read.html";
        assert!(refused("<div>".repeat(50_000)));
        assert!(refused("<table><tr><td>".repeat(50_000)));
        assert!(refused("<span><div></span>".repeat(50_000)));
        assert!(refused("<b>".repeat(50_000)));
        let attributes: String = (0..50_000).map(|i| format!("a{i}=1 ")).collect();
        assert!(refused(format!("<p {attributes}>")));
        assert!(refused(format!("<img{}>", "/a".repeat(50_000))));
        assert!(refused(format!("<div><!-- {}", "<div>".repeat(50_000))));
    }

    #[test]
    fn ordinary_pages_are_not_refused() {
        let many = "<div><p>a<p>b<ul><li>c<li>d</ul><b>x<i>y</b></i><br><img src=a></div>".repeat(2000);
        check_shape(many.as_bytes()).unwrap();
        let script = format!("<script>{}</script>", "if (a <b) '<div>';".repeat(2000));
        check_shape(script.as_bytes()).unwrap();
        let drawing = format!("<svg><g>{}</g></svg>", "<path d='M 0 0'/>".repeat(2000));
        check_shape(drawing.as_bytes()).unwrap();
        check_shape(format!("<a title='{}'>", "a b ".repeat(2000)).as_bytes()).unwrap();
    }
}
