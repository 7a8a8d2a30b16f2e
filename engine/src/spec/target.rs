//! Where checkpoints are copied to.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A place for copies of checkpoints, written as a URL.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(into = "String")]
pub enum Target {
    /// `file:///path`: a folder, as of another disk or a shared file system. The path is taken as it is written.
    Folder(PathBuf),
    /// `s3://bucket/prefix`: a bucket of an S3-compatible service.
    S3 {
        /// The bucket.
        bucket: String,
        /// What every key begins with; may be empty. It neither begins nor ends with `/`.
        prefix: String,
    },
}

/// A text that is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` must be {expected}", expected = Target::EXPECTED)]
pub struct InvalidTarget(String);

impl Target {
    pub(super) const EXPECTED: &str = "`file:///` and the absolute path of a folder, or `s3://bucket/prefix`";
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let invalid = || InvalidTarget(text.to_owned());
        if let Some(path) = text.strip_prefix("file://") {
            let path = Path::new(path);
            let names_a_folder = path.is_absolute() && path.file_name().is_some();
            return names_a_folder
                .then(|| Self::Folder(path.to_owned()))
                .ok_or_else(invalid);
        }
        let place = text.strip_prefix("s3://").ok_or_else(invalid)?;
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let prefix = prefix.trim_end_matches('/');
        // The rules for names of buckets that hold everywhere; keys may be nearly anything.
        let fits = (3..=63).contains(&bucket.len())
            && bucket
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
            && (prefix.is_empty() || prefix.split('/').all(|part| !matches!(part, "" | "." | "..")));
        fits.then(|| Self::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
        .ok_or_else(invalid)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "file://{}", path.display()),
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_written() {
        for text in ["file:///a b/c", "s3://abc", "s3://my-bucket/a/b"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert_eq!("s3://abc/x/".parse::<Target>().unwrap().to_string(), "s3://abc/x");
        for text in [
            "",
            "runs/copies",
            "/runs/copies",
            "file://",
            "file:///",
            "file://relative/path",
            "s3://",
            "s3://ab",
            "s3://Upper/x",
            "s3://abc//x",
            "s3://abc/../x",
            "gs://abc/x",
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains("must be `file:///`"), "{text}: {error}");
        }
    }
}
