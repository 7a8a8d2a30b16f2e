//! What a file is, by its name.

use super::settings::Format;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileKind {
    /// Never [`Format::Auto`].
    pub(crate) format: Format,
    pub(crate) compression: Compression,
    /// The programming language, by linguist's name.
    pub(crate) language: Option<&'static str>,
    /// What parts the fields of CSV.
    pub(crate) delimiter: u8,
}

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Why a file of this name is not read: reason and detail.
pub(crate) type Refusal = (&'static str, String);

impl FileKind {
    /// What the file of this name, or at this path, is. `format` forces how it is read, but compression goes by name.
    pub(crate) fn of(name: &str, format: Format) -> Result<Self, Refusal> {
        let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
        let (stem, compression) = compression(&name)?;
        let extension = match stem.rsplit_once('.') {
            Some((before, extension)) if !before.is_empty() => extension,
            _ => "",
        };
        let language = language(stem, extension);
        let found = match extension {
            // One object over many lines is no JSONL, but what is compressed is data.
            "json" if compression == Compression::None => None,
            "jsonl" | "ndjson" | "json" => Some(Format::Jsonl),
            "txt" | "text" | "rst" | "adoc" | "asciidoc" | "org" | "tex" => Some(Format::Text),
            "md" | "markdown" | "mdx" => Some(Format::Markdown),
            "html" | "htm" | "xhtml" => Some(Format::Html),
            "csv" | "tsv" => Some(Format::Csv),
            "parquet" => Some(Format::Parquet),
            "warc" | "wet" => Some(Format::Warc),
            "" if matches!(stem, "readme" | "changelog" | "changes" | "news" | "todo") => Some(Format::Text),
            _ => language.map(|_| Format::Code),
        };
        let format = match (format, found) {
            (Format::Auto, Some(found)) => found,
            (Format::Auto, None) => {
                return Err((
                    "read.format",
                    format!("no known extension (.{extension}); set format if it is text"),
                ));
            }
            (forced, _) => forced,
        };
        if format == Format::Parquet && compression != Compression::None {
            return Err((
                "read.compression",
                "a Parquet file is read from its end; decompress it first".to_owned(),
            ));
        }
        Ok(Self {
            format,
            compression,
            language: language.filter(|_| format == Format::Code),
            delimiter: if extension == "tsv" { b'\t' } else { b',' },
        })
    }
}

/// The name without the extension of what it is compressed with.
fn compression(name: &str) -> Result<(&str, Compression), Refusal> {
    let refused = |what: String| Err(("read.compression", what));
    let Some((stem, extension)) = name.rsplit_once('.') else {
        return Ok((name, Compression::None));
    };
    let with = |program: &str| {
        refused(format!(
            ".{extension} is not read; compress it anew: `{program} -dc FILE.{extension} | zstd > FILE.zst`"
        ))
    };
    match extension {
        "gz" | "gzip" | "zst" | "zstd" if stem.ends_with(".tar") => {
            refused("an archive; unpack it first".to_owned())
        }
        "tar" | "tgz" | "tbz2" | "txz" | "zip" | "7z" | "rar" | "jar" | "whl" | "crate" => {
            refused("an archive; unpack it first".to_owned())
        }
        "gz" | "gzip" => Ok((stem, Compression::Gzip)),
        "zst" | "zstd" => Ok((stem, Compression::Zstd)),
        "bz2" => with("bzip2"),
        "xz" | "lzma" => with("xz"),
        "lz4" => with("lz4"),
        "br" => with("brotli"),
        "z" => with("uncompress"),
        _ => Ok((name, Compression::None)),
    }
}

/// The language of source code, by linguist's name; extensions that several languages share are left to the most common.
fn language(name: &str, extension: &str) -> Option<&'static str> {
    let language = match extension {
        "" => match name {
            "makefile" | "gnumakefile" => "Makefile",
            "dockerfile" | "containerfile" => "Dockerfile",
            "rakefile" | "gemfile" => "Ruby",
            "jenkinsfile" => "Groovy",
            "justfile" => "Just",
            _ => return None,
        },
        "txt" if name == "cmakelists.txt" => "CMake",
        "ada" | "adb" | "ads" => "Ada",
        "asm" | "s" => "Assembly",
        "awk" => "Awk",
        "bash" | "sh" | "zsh" => "Shell",
        "bat" | "cmd" => "Batchfile",
        "bzl" | "star" => "Starlark",
        "c" | "h" => "C",
        "cc" | "cpp" | "cxx" | "hh" | "hpp" | "hxx" | "ipp" => "C++",
        "clj" | "cljc" | "cljs" | "edn" => "Clojure",
        "cmake" => "CMake",
        "coffee" => "CoffeeScript",
        "cr" => "Crystal",
        "cs" => "C#",
        "css" => "CSS",
        "cu" | "cuh" => "Cuda",
        "d" => "D",
        "dart" => "Dart",
        "el" => "Emacs Lisp",
        "elm" => "Elm",
        "erl" | "hrl" => "Erlang",
        "ex" | "exs" => "Elixir",
        "f" | "f77" | "for" => "Fortran",
        "f03" | "f08" | "f90" | "f95" => "Fortran Free Form",
        "fish" => "fish",
        "fs" | "fsi" | "fsx" => "F#",
        "glsl" | "frag" | "vert" => "GLSL",
        "go" => "Go",
        "gradle" | "groovy" => "Groovy",
        "graphql" | "gql" => "GraphQL",
        "hcl" | "tf" => "HCL",
        "hs" => "Haskell",
        "ino" => "C++",
        "java" => "Java",
        "jl" => "Julia",
        "js" | "cjs" | "mjs" | "jsx" => "JavaScript",
        "just" => "Just",
        "kt" | "kts" => "Kotlin",
        "lean" => "Lean",
        "less" => "Less",
        "lisp" | "lsp" | "cl" => "Common Lisp",
        "lua" => "Lua",
        "m" | "mm" => "Objective-C",
        "mk" => "Makefile",
        "ml" | "mli" => "OCaml",
        "mojo" => "Mojo",
        "nim" => "Nim",
        "nix" => "Nix",
        "pas" | "pp" => "Pascal",
        "php" => "PHP",
        "pl" | "pm" => "Perl",
        "proto" => "Protocol Buffer",
        "ps1" | "psm1" => "PowerShell",
        "purs" => "PureScript",
        "py" | "pyi" | "pyx" => "Python",
        "r" => "R",
        "rb" | "rake" => "Ruby",
        "rkt" => "Racket",
        "rs" => "Rust",
        "sass" => "Sass",
        "scala" | "sc" | "sbt" => "Scala",
        "scm" | "ss" => "Scheme",
        "scss" => "SCSS",
        "sol" => "Solidity",
        "sql" => "SQL",
        "sv" | "svh" => "SystemVerilog",
        "svelte" => "Svelte",
        "swift" => "Swift",
        "tcl" => "Tcl",
        "thrift" => "Thrift",
        "toml" => "TOML",
        "ts" | "cts" | "mts" => "TypeScript",
        "tsx" => "TSX",
        "v" => "Verilog",
        "vala" => "Vala",
        "vb" => "Visual Basic .NET",
        "vhd" | "vhdl" => "VHDL",
        "vim" => "Vim Script",
        "vue" => "Vue",
        "wat" | "wast" => "WebAssembly",
        "wgsl" => "WGSL",
        "yaml" | "yml" => "YAML",
        "zig" => "Zig",
        _ => return None,
    };
    Some(language)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auto(name: &str) -> Result<FileKind, Refusal> {
        FileKind::of(name, Format::Auto)
    }

    #[test]
    fn a_name_tells_format_compression_and_language() {
        let told = |name| auto(name).map(|kind| (kind.format, kind.compression, kind.language));
        let is =
            |name, format, compression| assert_eq!(told(name), Ok((format, compression, None)), "{name}");
        is("a.jsonl", Format::Jsonl, Compression::None);
        is("A.JSON.GZ", Format::Jsonl, Compression::Gzip);
        is("a.tar.d.csv.zst", Format::Csv, Compression::Zstd);
        is("CC-MAIN-1.warc.wet.gz", Format::Warc, Compression::Gzip);
        is("README", Format::Text, Compression::None);
        is("guide.md", Format::Markdown, Compression::None);
        assert_eq!(
            told("lib.rs").unwrap(),
            (Format::Code, Compression::None, Some("Rust"))
        );
        assert_eq!(told("lib.rs.gz").unwrap().2, Some("Rust"));
        assert_eq!(told("Makefile").unwrap().2, Some("Makefile"));
        assert_eq!(told("v1.2/Makefile").unwrap().2, Some("Makefile"));
        assert_eq!(auto("a.csv/.profile").unwrap_err().0, "read.format");
        assert_eq!(auto("a.tsv").unwrap().delimiter, b'\t');
    }

    #[test]
    fn what_is_not_read_says_what_to_do() {
        assert!(
            auto("a.jsonl.bz2")
                .unwrap_err()
                .1
                .contains("bzip2 -dc FILE.bz2 | zstd")
        );
        assert!(auto("a.txt.xz").unwrap_err().1.contains("xz -dc"));
        for archive in ["a.tar.gz", "a.zip", "a.tgz", "a.tar"] {
            assert_eq!(
                auto(archive).unwrap_err(),
                ("read.compression", "an archive; unpack it first".to_owned())
            );
        }
        assert_eq!(auto("a.parquet.gz").unwrap_err().0, "read.compression");
        for unknown in ["a.png", "a.json", "data", ".profile"] {
            assert_eq!(auto(unknown).unwrap_err().0, "read.format", "{unknown}");
        }
    }

    #[test]
    fn a_format_is_forced_but_compression_is_not() {
        let kind = FileKind::of("data.bin.zst", Format::Jsonl).unwrap();
        assert_eq!(
            (kind.format, kind.compression),
            (Format::Jsonl, Compression::Zstd)
        );
        assert_eq!(FileKind::of("a.rs", Format::Text).unwrap().language, None);
        assert_eq!(
            FileKind::of("a.xz", Format::Text).unwrap_err().0,
            "read.compression"
        );
    }
}
