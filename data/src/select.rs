//! Which documents are used, which are held out, and which teach the tokenizer.
//!
//! Each choice is a pure function of the documents' content: a document draws a number for each choice from
//! its own digest, so renaming a file or adding another never moves it from one split to the other (but for
//! the one document that keeps a tiny corpus from having an empty split). The draws are different words of
//! the digest: were they the same, a budget would fill itself with held-out documents.

use crate::digest::Digest;
use crate::error::DataError;
use crate::scan::Document;
use crate::skip::{SkipReason, Skipped};

/// What a document draws a number for.
#[derive(Clone, Copy)]
enum Draw {
    HoldOut = 0,
    Budget = 1,
    Tokenizer = 2,
}

fn draw(digest: &Digest, draw: Draw) -> u64 {
    digest.word(draw as usize)
}

/// A uniform sample of whole documents, of at most `max_bytes` bytes in all, in the order given. Documents
/// are tried in the order of their draws; one that does not fit in what is left is passed over.
///
/// # Errors
/// If not a single document fits.
pub(crate) fn within_budget(
    documents: Vec<Document>,
    max_bytes: Option<u64>,
    skipped: &mut Skipped,
) -> Result<Vec<Document>, DataError> {
    let Some(max_bytes) = max_bytes else {
        return Ok(documents);
    };
    let mut order: Vec<usize> = (0..documents.len()).collect();
    order.sort_unstable_by_key(|&i| (draw(&documents[i].digest, Draw::Budget), i));
    let mut left = max_bytes;
    let mut chosen = vec![false; documents.len()];
    for i in order {
        if let Some(rest) = left.checked_sub(documents[i].bytes) {
            (left, chosen[i]) = (rest, true);
        }
    }
    if !chosen.contains(&true) {
        let smallest_bytes = documents.iter().map(|d| d.bytes).min().unwrap_or(0);
        return Err(DataError::BudgetTooSmall {
            max_bytes,
            smallest_bytes,
        });
    }
    let (kept, over): (Vec<_>, Vec<_>) = documents.into_iter().zip(chosen).partition(|(_, chosen)| *chosen);
    over.iter().for_each(|_| skipped.add(SkipReason::OverBudget));
    Ok(kept.into_iter().map(|(document, _)| document).collect())
}

/// Splits documents in those to train on and those held out, each in the order given: about `fraction` of
/// them is held out, and where there are two or more documents, neither side is empty.
pub(crate) fn hold_out(documents: Vec<Document>, fraction: f64) -> (Vec<Document>, Vec<Document>) {
    let number = |document: &Document| draw(&document.digest, Draw::HoldOut);
    // 2^64 as a float: a draw over it is uniform in [0, 1].
    let held = |document: &Document| (number(document) as f64) < fraction * 18_446_744_073_709_551_616.0;
    let (mut validation, mut train): (Vec<_>, Vec<_>) = documents.into_iter().partition(held);
    if validation.is_empty() && train.len() > 1 {
        let least = (0..train.len()).min_by_key(|&i| number(&train[i]));
        validation.extend(least.map(|i| train.remove(i)));
    } else if train.is_empty() {
        let most = (0..validation.len()).max_by_key(|&i| number(&validation[i]));
        train.extend(most.map(|i| validation.remove(i)));
    }
    (train, validation)
}

/// The documents that teach the tokenizer, with how many leading bytes of each: a uniform sample of
/// `max_bytes` in all, of which only the last document is cut.
pub(crate) fn tokenizer_sample(documents: &[Document], max_bytes: u64) -> Vec<(&Document, u64)> {
    let mut order: Vec<&Document> = documents.iter().collect();
    order.sort_unstable_by_key(|d| (draw(&d.digest, Draw::Tokenizer), d.digest));
    let mut left = max_bytes;
    let mut sample = Vec::new();
    for document in order {
        let bytes = document.bytes.min(left);
        if bytes == 0 {
            break;
        }
        left -= bytes;
        sample.push((document, bytes));
    }
    sample
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::tests::document;
    use proptest::prelude::*;

    fn corpus(count: usize) -> Vec<Document> {
        (0..count)
            .map(|i| document(&format!("{i:05}"), &format!("text {i}"), 100))
            .collect()
    }

    #[test]
    fn about_the_fraction_is_held_out_also_under_a_budget() {
        // 20,000 draws at 1%: mean 200, standard deviation 14; five of them allowed.
        let (train, validation) = hold_out(corpus(20_000), 0.01);
        assert!((130..270).contains(&validation.len()), "{}", validation.len());
        assert_eq!(train.len() + validation.len(), 20_000);
        // 5,000 of them, chosen by a draw of its own: mean 50, standard deviation 7.
        let chosen = within_budget(corpus(20_000), Some(500_000), &mut Skipped::default()).unwrap();
        assert_eq!(chosen.len(), 5_000);
        let (_, validation) = hold_out(chosen, 0.01);
        assert!((15..85).contains(&validation.len()), "{}", validation.len());
    }

    #[test]
    fn no_document_fits_a_tiny_budget() {
        let error = within_budget(corpus(3), Some(99), &mut Skipped::default()).unwrap_err();
        assert!(error.to_string().contains("at least 100"), "{error}");
    }

    #[test]
    fn a_lone_document_is_trained_on() {
        for fraction in [1e-9, 0.999_999_999] {
            let (train, validation) = hold_out(corpus(1), fraction);
            assert_eq!((train.len(), validation.len()), (1, 0));
        }
    }

    proptest! {
        #[test]
        fn two_documents_or_more_leave_neither_split_empty(count in 2usize..40, fraction in 1e-9f64..0.999_999_999) {
            let (train, validation) = hold_out(corpus(count), fraction);
            prop_assert!(!train.is_empty() && !validation.is_empty());
            for split in [&train, &validation] {
                prop_assert!(split.windows(2).all(|pair| pair[0].id < pair[1].id));
            }
        }

        #[test]
        fn a_budget_is_kept_and_the_rest_counted(count in 1usize..60, max_bytes in 100u64..8000) {
            let mut skipped = Skipped::default();
            let chosen = within_budget(corpus(count), Some(max_bytes), &mut skipped).unwrap();
            prop_assert_eq!(chosen.len() as u64, (max_bytes / 100).min(count as u64));
            prop_assert_eq!(chosen.len() as u64 + skipped.count(SkipReason::OverBudget), count as u64);
        }

        #[test]
        fn the_tokenizers_sample_is_as_large_as_asked(count in 1usize..60, max_bytes in 1u64..8000) {
            let documents = corpus(count);
            let sample = tokenizer_sample(&documents, max_bytes);
            let bytes: u64 = sample.iter().map(|(_, bytes)| bytes).sum();
            prop_assert_eq!(bytes, max_bytes.min(count as u64 * 100));
            prop_assert!(sample.iter().rev().skip(1).all(|(_, bytes)| *bytes == 100));
        }
    }
}
