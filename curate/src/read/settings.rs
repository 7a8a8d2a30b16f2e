//! `[[source]]`: what is read, and how.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use super::place::Place;
use super::walk::Globs;

/// How files are read; decided by a file's extension unless it is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// By the extension of each file.
    #[default]
    Auto,
    /// Each file is a document.
    Text,
    /// Each file is a document, in Markdown.
    Markdown,
    /// Each file is a page, whose main content is the document.
    Html,
    /// Each file is source code.
    Code,
    /// Each line is a JSON object.
    Jsonl,
    /// A header, then a record a row; fields may be quoted.
    Csv,
    /// A row is a record.
    Parquet,
    /// Pages as a crawler kept them: response, resource and conversion records.
    Warc,
}

/// A source of text: one `[[source]]` table of a spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceSettings {
    /// Its name, which documents carry.
    pub name: String,
    /// A folder, a file, or a glob such as `crawl/**/*.warc.gz`, in which `*` stays within a folder. In a build with the
    /// feature `remote` also in an object store: `s3://bucket/crawl/*.warc.gz`, `gs://`, `az://`, `abfs://`, `abfss://` or,
    /// by way of the same library, `file:///`.
    pub path: String,
    /// Instead of a path, a file of http and https addresses, one a line, that are fetched; lines that begin with `#` are
    /// passed over. Needs `network`, and a build with the feature `remote`.
    pub list: Option<PathBuf>,
    /// Whether the addresses of `list` may be fetched. False.
    pub network: bool,
    /// What is longer at an address is dropped, in bytes. 1 GiB.
    pub max_bytes: u64,
    /// How files are read.
    pub format: Format,
    /// Which fields of a record are what.
    pub fields: FieldSettings,
    /// The licence where neither the record nor the nearest manifest or licence file states one: an SPDX expression.
    pub licence: Option<String>,
    /// The language where the record states none.
    pub language: Option<String>,
    /// Whether all of it is source code; files with an extension of source code are, anyhow.
    pub code: bool,
    /// Globs of the files that are read; all, if there are none. A glob without `/` is matched against names, another
    /// against the path inside the source.
    pub include: Vec<String>,
    /// Globs of files and folders that are left out.
    pub exclude: Vec<String>,
    /// Whether symbolic links are followed. A folder is read once, however many links lead to it.
    pub follow_links: bool,
    /// About how many bytes are read in one go, as they are stored. Default: a 64th of the source, from 2 to 64 MiB, so that
    /// the parts of a small source are enough for several cores, and those of a large one are few.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit_bytes: Option<u64>,
    /// Longer records and files are dropped without being held, in bytes after decompression.
    pub max_record_bytes: usize,
    /// Longer HTML pages are dropped, in bytes: a page takes a hundred times its size while it is taken apart.
    pub max_html_bytes: usize,
    /// Parquet pages that say to take more than this are not decompressed, in bytes. Pages in gzip, brotli or the old LZ4
    /// that take more than they say are only found out once they are decompressed.
    pub max_page_bytes: usize,
}

impl Default for SourceSettings {
    fn default() -> Self {
        Self {
            name: String::new(),
            path: String::new(),
            list: None,
            network: false,
            max_bytes: 1 << 30,
            format: Format::Auto,
            fields: FieldSettings::default(),
            licence: None,
            language: None,
            code: false,
            include: Vec::new(),
            exclude: Vec::new(),
            follow_links: false,
            unit_bytes: None,
            max_record_bytes: 64 << 20,
            max_html_bytes: 2 << 20,
            max_page_bytes: 256 << 20,
        }
    }
}

impl SourceSettings {
    /// Whether all values are within their bounds.
    ///
    /// # Errors
    /// Names the field, its value and its bound.
    pub fn check(&self) -> Result<(), String> {
        if self.name.is_empty() || self.name.contains(|c: char| c.is_control() || c == '/') {
            return Err(format!(
                "source.name = {:?}: must be a name without `/` and control characters",
                self.name
            ));
        }
        match &self.list {
            None if self.path.is_empty() => {
                return Err(format!(
                    "source.path = \"\": must be a folder, a file or a glob (source {:?})",
                    self.name
                ));
            }
            Some(list) if !self.path.is_empty() => {
                return Err(format!("source.list = {list:?}: either this or `path`, not both"));
            }
            Some(list) if !self.network => {
                return Err(format!(
                    "source.list = {list:?}: nothing is fetched unless it is asked for; set network = true in this \
                     [[source]] (source {:?})",
                    self.name
                ));
            }
            _ => Place::of(&self.path)?,
        };
        let sizes = [
            ("max_bytes", Some(self.max_bytes)),
            ("unit_bytes", self.unit_bytes),
            ("max_record_bytes", Some(self.max_record_bytes as u64)),
            ("max_html_bytes", Some(self.max_html_bytes as u64)),
            ("max_page_bytes", Some(self.max_page_bytes as u64)),
        ];
        for (name, bytes) in sizes {
            let Some(bytes) = bytes else { continue };
            if bytes == 0 || bytes > 1 << 40 {
                return Err(format!("source.{name} = {bytes}: must be 1 to {}", 1_u64 << 40));
            }
        }
        Globs::of("source.include", &self.include)?;
        Globs::of("source.exclude", &self.exclude)?;
        self.fields.check()
    }
}

/// Names of a record's fields. Each is one name or several, of which the first that the record has counts; a name such as
/// `metadata.url` leads into objects. The default reads what dolma, FineWeb and C4 write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FieldSettings {
    /// The text.
    #[serde(deserialize_with = "one_or_more")]
    pub text: Vec<String>,
    /// The record's id.
    #[serde(deserialize_with = "one_or_more")]
    pub id: Vec<String>,
    /// Its address.
    #[serde(deserialize_with = "one_or_more")]
    pub url: Vec<String>,
    /// Its language.
    #[serde(deserialize_with = "one_or_more")]
    pub language: Vec<String>,
    /// Its licence. Of a list of licences all hold: they are joined by `AND`.
    #[serde(deserialize_with = "one_or_more")]
    pub licence: Vec<String>,
    /// When it was made.
    #[serde(deserialize_with = "one_or_more")]
    pub created: Vec<String>,
    /// Opt-outs: a text with commas, or a list of texts.
    #[serde(deserialize_with = "one_or_more")]
    pub opt_outs: Vec<String>,
    /// `code` where it is source code; anything else is prose.
    #[serde(deserialize_with = "one_or_more")]
    pub kind: Vec<String>,
    /// The name of the document that it was made of, which is kept with it.
    #[serde(deserialize_with = "one_or_more")]
    pub derived_from: Vec<String>,
}

impl Default for FieldSettings {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self {
            text: names(&["text"]),
            id: names(&["id"]),
            url: names(&["url", "metadata.url"]),
            language: names(&["language", "metadata.language"]),
            licence: names(&["licence", "license", "metadata.licence", "metadata.license"]),
            created: names(&["created", "timestamp", "date"]),
            opt_outs: names(&["opt_outs", "metadata.opt_outs"]),
            kind: names(&["metadata.kind"]),
            derived_from: names(&["metadata.derived_from"]),
        }
    }
}

/// So many names a field may have: which of them counts is kept in a byte.
const MAX_NAMES: usize = 16;

impl FieldSettings {
    fn check(&self) -> Result<(), String> {
        if self.text.is_empty() {
            return Err("source.fields.text = []: must name at least one field".to_owned());
        }
        for (field, names) in self.all() {
            let field = format!("source.fields.{field}");
            if names.len() > MAX_NAMES {
                return Err(format!(
                    "{field}: {} names: must be at most {MAX_NAMES}",
                    names.len()
                ));
            }
            if let Some(name) = names.iter().find(|name| name.split('.').any(str::is_empty)) {
                return Err(format!("{field} = {name:?}: must be names joined by single dots"));
            }
        }
        Ok(())
    }

    fn all(&self) -> [(&'static str, &[String]); 9] {
        [
            ("text", &self.text),
            ("id", &self.id),
            ("url", &self.url),
            ("language", &self.language),
            ("licence", &self.licence),
            ("created", &self.created),
            ("opt_outs", &self.opt_outs),
            ("kind", &self.kind),
            ("derived_from", &self.derived_from),
        ]
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a text, or a list of texts")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(match OneOrMore::deserialize(deserializer)? {
        OneOrMore::One(name) => vec![name],
        OneOrMore::More(names) => names,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(toml: &str) -> Result<SourceSettings, String> {
        let settings: SourceSettings = toml::from_str(toml).map_err(|error| error.message().to_owned())?;
        settings.check().map(|()| settings)
    }

    #[test]
    fn a_table_of_a_spec_is_read() {
        let settings = parsed(
            "name = \"wiki\"\npath = \"wiki/*.jsonl.zst\"\nformat = \"jsonl\"\nexclude = [\"drafts\"]\n\
             [fields]\ntext = \"content\"\nurl = [\"url\", \"meta.link\"]",
        )
        .unwrap();
        assert_eq!(settings.fields.text, ["content"]);
        assert_eq!(settings.fields.url, ["url", "meta.link"]);
        assert_eq!(settings.fields.id, ["id"]);
        let text = toml::to_string(&settings).unwrap();
        assert_eq!(toml::from_str::<SourceSettings>(&text).unwrap(), settings);
    }

    #[test]
    fn an_error_names_field_value_and_bound() {
        let refused = |toml: &str| parsed(&format!("{toml}\n")).unwrap_err();
        let named = |rest: &str| refused(&format!("name = \"a\"\npath = \"b\"\n{rest}"));
        assert!(refused("path = \"x\"").starts_with("source.name = \"\": must be"));
        assert!(refused("name = \"x\"").starts_with("source.path = \"\": must be"));
        assert!(named("list = \"c\"").starts_with("source.list = \"c\": either this or `path`"));
        let off = refused("name = \"a\"\nlist = \"urls.txt\"");
        assert!(
            off.starts_with("source.list = \"urls.txt\"") && off.contains("set network = true"),
            "{off}"
        );
        assert!(parsed("name = \"a\"\nlist = \"urls.txt\"\nnetwork = true").is_ok());
        assert!(refused("name = \"a\"\npath = \"http://a/b\"").contains("source.list"));
        assert!(named("max_bytes = 0").starts_with("source.max_bytes = 0: must be 1 to"));
        assert!(named("unit_bytes = 0").starts_with("source.unit_bytes = 0: must be 1 to"));
        assert!(named("max_record_bytes = 0").starts_with("source.max_record_bytes = 0"));
        assert!(named("include = [\"a[\"]").starts_with("source.include = \"a[\""));
        assert!(named("fields.text = []").starts_with("source.fields.text = []"));
        assert!(named("fields.url = \"a..b\"").starts_with("source.fields.url = \"a..b\""));
        assert!(named("colour = 1").contains("unknown field `colour`"));
        assert!(named("fields.texts = \"a\"").contains("unknown field `texts`"));
        assert!(named("format = \"doc\"").contains("unknown variant `doc`"));
    }
}
