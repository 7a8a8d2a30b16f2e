//! Made text: English to the eye of a filter, from a seed, document by document.
//!
//! Half of the words are those that half of English consists of, the others are put together of English syllables; a paragraph is
//! a line. One document in [`EVERY`] is an edit of the one before it, and one in as many has an address, a number or a
//! key of the kinds that are private.

use std::fmt::Write as _;

use crate::draw::Draw;

/// Bytes of a document on average; each has a seventh to thirteen sevenths of it.
pub const MEAN_BYTES: usize = 3500;

/// One document in so many is nearly the one before it, and one in so many has private data.
pub const EVERY: u64 = 10;

/// Of an edited document, one word in so many is another one.
const EDITED: usize = 200;

/// How many words there are beside the frequent ones.
const WORDS: usize = 20_000;

const FREQUENT: &str = "the of and to in a is that it was for on with as be at by this have from or had not are but which one you \
    were all her she there would their we him been has when who will more if no out so said what up its about into than them \
    can only other new some could time these two may then do first any my now such like our over man me even most made after \
    also did many before must through years where much your way well down should because each just those people how too \
    little state good very make world still own see men work long here get both between life being under never day same \
    another know while last might us great old year off come since against go came right used take three";

const SYLLABLES: &str = "con tion ment pre ing re ter al ed in ex per com ble de pro est ness ly er an ish under port form struct \
    gen mar ver dis mis land hand light ship ward ful less some sid cour ber ther tain cap cult dec dress ent fac fin flu \
    grav hum ject jour lect lib log man mar mem mod mor nat not ord part path ped pend phon plac press quest rad rect san \
    sci sect serv sign sol spec spir stat tempor terr test tract trib val ven vid vis voc vol";

const PRIVATE: [&str; 7] = [
    "jane.doe@example.org",
    "93.184.216.34",
    "+44 20 7946 0958",
    "4242 4242 4242 4242",
    "DE89 3704 0044 0532 0130 00",
    "536-90-4399",
    "password = \"tr0ub4dor&3x\"",
];

/// Documents of a seed.
#[derive(Debug)]
pub struct Made {
    seed: u64,
    frequent: Vec<&'static str>,
    words: Vec<String>,
}

impl Made {
    /// The documents of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let syllables: Vec<&str> = SYLLABLES.split_whitespace().collect();
        let mut draw = Draw::new(seed);
        let word = |_| {
            let count = 1 + draw.below(3).max(draw.below(2));
            (0..count).filter_map(|_| draw.one_of(&syllables)).collect()
        };
        Self {
            seed,
            words: (0..WORDS).map(word).collect(),
            frequent: FREQUENT.split_whitespace().collect(),
        }
    }

    /// Writes the document of a number into `text`, in place of what is there.
    pub fn write(&self, number: u64, text: &mut String) {
        text.clear();
        let edited = number % EVERY == EVERY - 1;
        let mut draw = self.draw(number - u64::from(edited));
        let mut edits = self.draw(!number);
        let bytes = MEAN_BYTES / 7 + draw.below(MEAN_BYTES * 12 / 7);
        while text.len() < bytes {
            for _ in 0..3 + draw.below(4) {
                self.write_sentence(&mut draw, edited.then_some(&mut edits), text);
            }
            text.pop();
            text.push('\n');
        }
        if number.is_multiple_of(EVERY)
            && let Some(private) = draw.one_of(&PRIVATE)
        {
            // A formatter of a `String` does not fail.
            let _ = writeln!(
                text,
                "For more of this write or call, at any time of the day: {private}."
            );
        }
    }

    fn write_sentence(&self, draw: &mut Draw, mut edits: Option<&mut Draw>, text: &mut String) {
        let (begin, last) = (text.len(), 5 + draw.below(16));
        for at in 0..=last {
            let mut word = self.word(draw);
            if let Some(edits) = edits.as_deref_mut()
                && edits.below(EDITED) == 0
            {
                word = self.word(edits);
            }
            text.push_str(word);
            text.push_str(match draw.below(12) {
                _ if at == last => ". ",
                0 => ", ",
                _ => " ",
            });
        }
        if let Some(first) = text.get_mut(begin..=begin) {
            first.make_ascii_uppercase();
        }
    }

    /// Frequent words by the smallest of three draws, others by the smaller of two, so that some are more frequent than others.
    fn word(&self, draw: &mut Draw) -> &str {
        let mut of = |words: usize| draw.below(words).min(draw.below(words));
        let word = if of(4) < 2 {
            let at = of(self.frequent.len()).min(of(self.frequent.len()));
            self.frequent.get(at).copied()
        } else {
            let at = of(self.words.len());
            self.words.get(at).map(String::as_str)
        };
        word.unwrap_or_default()
    }

    fn draw(&self, number: u64) -> Draw {
        // Far apart, so that streams of neighbours have nothing in common.
        Draw::new(self.seed ^ number.wrapping_mul(0xD6E8_FEB8_6659_FD93))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(seed: u64, numbers: std::ops::Range<u64>) -> Vec<String> {
        let made = Made::new(seed);
        let document = |number| {
            let mut text = String::from("what was there");
            made.write(number, &mut text);
            text
        };
        numbers.map(document).collect()
    }

    #[test]
    fn a_seed_is_one_text() {
        assert_eq!(documents(1, 5..20), documents(1, 0..20)[5..]);
        assert_ne!(documents(1, 0..2), documents(2, 0..2));
    }

    #[test]
    fn of_the_length_and_likeness_that_it_says() {
        let documents = documents(7, 0..400);
        let mean = documents.iter().map(String::len).sum::<usize>() / documents.len();
        assert!((3200..4200).contains(&mean), "{mean}");
        let alike = |a: &str, b: &str| {
            let words: std::collections::HashSet<&str> = a.split(' ').collect();
            let of_b: Vec<&str> = b.split(' ').collect();
            of_b.iter().filter(|word| words.contains(*word)).count() as f64 / of_b.len() as f64
        };
        // A short one may have no word that was edited.
        let pairs: Vec<&[String]> = documents.windows(2).skip(8).step_by(10).collect();
        for pair in &pairs {
            let alike = alike(&pair[0], &pair[1]);
            assert!(alike > 0.9, "{alike}");
        }
        let differ = pairs.iter().filter(|pair| pair[0] != pair[1]).count();
        assert!(differ * 4 > pairs.len() * 3, "{differ} of {}", pairs.len());
        assert!(
            documents
                .windows(2)
                .skip(2)
                .step_by(10)
                .all(|pair| alike(&pair[0], &pair[1]) < 0.9)
        );
    }
}
