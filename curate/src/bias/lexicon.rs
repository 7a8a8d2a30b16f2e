//! Words that tell whom a text speaks of, and in what terms: files that users may replace.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::language;

use super::words::{WORD_BYTES, lower_words};

/// The most groups, and the most attributes, of one lexicon: each has a bit of a word of the machine.
const MOST: usize = 64;

/// The lexicons that come with the crate.
const BUILT_IN: [(&str, &str); 4] = [
    ("deu.toml", include_str!("../../lexicons/deu.toml")),
    ("eng.toml", include_str!("../../lexicons/eng.toml")),
    ("fra.toml", include_str!("../../lexicons/fra.toml")),
    ("spa.toml", include_str!("../../lexicons/spa.toml")),
];

/// Why a lexicon cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LexiconError {
    /// Not a lexicon's TOML.
    #[error("lexicon {name}: {message}")]
    Toml {
        /// The lexicon.
        name: String,
        /// What the parser says.
        message: String,
    },
    /// Its language is none.
    #[error("lexicon {name}: language = {error}")]
    Language {
        /// The lexicon.
        name: String,
        /// What is wrong.
        error: language::UnknownLanguage,
    },
    /// Two lexicons for a language.
    #[error("lexicon {name}: there is another one for `{language}`; put their words in one file")]
    Twice {
        /// The second lexicon.
        name: String,
        /// The language of both.
        language: String,
    },
    /// Something is too many.
    #[error("lexicon {name}: {count} {what}; at most {MOST} are counted, so leave some out")]
    TooMany {
        /// The lexicon.
        name: String,
        /// Groups or attributes.
        what: &'static str,
        /// How many there are.
        count: usize,
    },
    /// An entry is not found as a word.
    #[error(
        "lexicon {name}: {list}: `{word}` is not one word of at most {WORD_BYTES} bytes; give single words"
    )]
    NotAWord {
        /// The lexicon.
        name: String,
        /// The list that it is in.
        list: String,
        /// The entry.
        word: String,
    },
    /// A word in two groups that are compared with each other.
    #[error("lexicon {name}: `{word}` is in two groups of groups.{axis}; leave it in one")]
    TwoGroups {
        /// The lexicon.
        name: String,
        /// The groups' axis.
        axis: String,
        /// The word.
        word: String,
    },
}

/// Groups and attributes of one language, as written in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lexicon {
    /// The language of its words, as a code in ISO 639-3 or 639-1.
    pub language: String,
    /// Words by axis, such as `gender`, and by group. Groups of an axis are compared with each other.
    pub groups: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    /// Words by attribute, such as `career`.
    #[serde(default)]
    pub attributes: BTreeMap<String, Vec<String>>,
}

impl Lexicon {
    /// Reads a lexicon's TOML; `name` is for errors.
    ///
    /// # Errors
    /// If it is no TOML, or has other fields.
    pub fn parse(name: &str, toml: &str) -> Result<Self, LexiconError> {
        toml::from_str(toml).map_err(|error| LexiconError::Toml {
            name: name.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })
    }

    /// The lexicons that come with the crate, with their names.
    ///
    /// # Errors
    /// None, as a test reads them all.
    pub fn built_in() -> Result<Vec<(String, Self)>, LexiconError> {
        let parse = |(name, toml): &(&str, &str)| Ok(((*name).to_owned(), Self::parse(name, toml)?));
        BUILT_IN.iter().map(parse).collect()
    }
}

/// What a word is evidence of: a bit for each group and attribute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) groups: u64,
    pub(super) attributes: u64,
}

/// A lexicon made ready for looking words up.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    pub(super) language: &'static str,
    /// Axis and group of each bit.
    pub(super) groups: Vec<(String, String)>,
    /// Attribute of each bit.
    pub(super) attributes: Vec<String>,
    pub(super) words: HashMap<String, Marks>,
}

impl Compiled {
    pub(super) fn new(name: &str, lexicon: &Lexicon) -> Result<Self, LexiconError> {
        let language = language::code(&lexicon.language).map_err(|error| LexiconError::Language {
            name: name.to_owned(),
            error,
        })?;
        let mut compiled = Self {
            language,
            groups: Vec::new(),
            attributes: lexicon.attributes.keys().cloned().collect(),
            words: HashMap::new(),
        };
        for (axis, groups) in &lexicon.groups {
            let first = compiled.groups.len();
            compiled
                .groups
                .extend(groups.keys().map(|group| (axis.clone(), group.clone())));
            check_count(name, "groups", compiled.groups.len())?;
            let of_axis = (first..compiled.groups.len()).fold(0, |bits, bit| bits | 1 << bit);
            for (bit, (group, words)) in (first..).zip(groups) {
                for given in words {
                    let marks = compiled.marks(name, || format!("groups.{axis}.{group}"), given)?;
                    if marks.groups & of_axis & !(1 << bit) != 0 {
                        return Err(LexiconError::TwoGroups {
                            name: name.to_owned(),
                            axis: axis.clone(),
                            word: given.clone(),
                        });
                    }
                    marks.groups |= 1 << bit;
                }
            }
        }
        check_count(name, "attributes", compiled.attributes.len())?;
        for (bit, (attribute, words)) in lexicon.attributes.iter().enumerate() {
            for given in words {
                compiled
                    .marks(name, || format!("attributes.{attribute}"), given)?
                    .attributes |= 1 << bit;
            }
        }
        Ok(compiled)
    }

    /// The marks of an entry of `list`.
    fn marks(
        &mut self,
        name: &str,
        list: impl Fn() -> String,
        given: &str,
    ) -> Result<&mut Marks, LexiconError> {
        let mut words = Vec::new();
        lower_words(given, |word| words.push(word.map(str::to_owned)));
        match <[Option<String>; 1]>::try_from(words) {
            Ok([Some(word)]) => Ok(self.words.entry(word).or_default()),
            _ => Err(LexiconError::NotAWord {
                name: name.to_owned(),
                list: list(),
                word: given.to_owned(),
            }),
        }
    }
}

fn check_count(name: &str, what: &'static str, count: usize) -> Result<(), LexiconError> {
    if count <= MOST {
        return Ok(());
    }
    Err(LexiconError::TooMany {
        name: name.to_owned(),
        what,
        count,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(toml: &str) -> Result<Compiled, LexiconError> {
        Compiled::new("test.toml", &Lexicon::parse("test.toml", toml)?)
    }

    #[test]
    fn those_that_come_with_the_crate_are_right() {
        let lexicons = Lexicon::built_in().unwrap();
        assert_eq!(lexicons.len(), BUILT_IN.len());
        for (name, lexicon) in lexicons {
            let compiled = Compiled::new(&name, &lexicon).unwrap();
            assert_eq!(format!("{}.toml", compiled.language), name);
            assert!(compiled.groups.len() > 5 && compiled.attributes.len() == 5);
        }
    }

    #[test]
    fn words_are_looked_up_in_lower_case() {
        let compiled = compile(
            "language = 'de'\ngroups.gender.female = ['Frau']\nattributes.family = ['frau', 'KÜCHE']",
        )
        .unwrap();
        let both = Marks {
            groups: 1,
            attributes: 1,
        };
        assert_eq!(compiled.words.get("frau"), Some(&both));
        assert!(compiled.words.contains_key("küche"));
        assert_eq!(compiled.language, "deu");
    }

    #[test]
    fn mistakes_are_named() {
        for (toml, part) in [
            ("language = 'de'", "groups"),
            ("language = 'dex'\ngroups = {}", "`dex`"),
            (
                "language = 'de'\ngroups.a.b = ['two words']",
                "groups.a.b: `two words`",
            ),
            ("language = 'de'\ngroups.a.b = ['']", "groups.a.b: ``"),
            (
                "language = 'de'\ngroups.a = { b = ['x'], c = ['X'] }",
                "`X` is in two groups of groups.a",
            ),
            ("language = 'de'\ngroups = {}\nattribute = {}", "attribute"),
        ] {
            let error = compile(toml).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("test.toml"), "{error}");
        }
        let many: Vec<_> = (0..65).map(|i| format!("groups.a.g{i} = ['w{i}']")).collect();
        let error = compile(&format!("language = 'de'\n{}", many.join("\n"))).unwrap_err();
        assert!(error.to_string().contains("65 groups"), "{error}");
    }
}
