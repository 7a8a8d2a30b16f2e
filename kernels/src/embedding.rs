//! The embedding: rows of a table, and the sums of what comes back to them.

use std::cell::RefCell;

use crate::matrix::MatrixMut;

/// Rows of a parallel piece.
const ROWS: usize = 64;

thread_local! {
    static ORDER: RefCell<Vec<(u32, u32)>> = const { RefCell::new(Vec::new()) };
}

/// `x`, a row for each token.
///
/// # Panics
/// When a token is outside of the table, or lengths do not fit.
pub fn embed(tokens: &[u32], table: &[f32], x: &mut [f32]) {
    let d = x.len() / tokens.len();
    for (x, &token) in x.chunks_exact_mut(d).zip(tokens) {
        x.copy_from_slice(&table[token as usize * d..][..d]);
    }
}

/// Adds each row of `dx` to the row of its token in `dtable`: tokens are sorted, and those that are alike summed in the
/// order of their rows.
///
/// # Panics
/// As [`embed`].
pub fn embed_backward(tokens: &[u32], dx: &[f32], dtable: &mut [f32]) {
    let d = dx.len() / tokens.len();
    let mut order = ORDER.take();
    order.clear();
    order.extend(tokens.iter().copied().zip(0..));
    order.sort_unstable();
    let vocabulary = dtable.len() / d;
    assert!(
        order.last().is_none_or(|last| (last.0 as usize) < vocabulary),
        "tokens below {vocabulary}"
    );
    MatrixMut::new(dtable, vocabulary, d).for_each_block(ROWS, |range, mut table| {
        let first = order.partition_point(|entry| (entry.0 as usize) < range.start);
        let here = order[first..].iter();
        for &(token, row) in here.take_while(|entry| (entry.0 as usize) < range.end) {
            let dx = &dx[row as usize * d..][..d];
            for (sum, dx) in table.row(token as usize - range.start).iter_mut().zip(dx) {
                *sum += dx;
            }
        }
    });
    ORDER.set(order);
}
