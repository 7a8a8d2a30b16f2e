//! Causal attention with grouped queries (Ainslie et al., 2023), tiled, with an online softmax (Dao et al.,
//! "FlashAttention", 2022): scores exist for a tile of queries and keys at a time.
//!
//! Rows are tokens: all query heads, then all key heads, then all value heads. Sequence and head are computed
//! alone, tiles in a fixed order.

use std::cell::RefCell;
use std::ops::Range;

use crate::isa::for_each_isa;
use crate::matmul::{Into, KC, Packed, matmul};
use crate::matrix::{Matrix, MatrixMut};
use crate::numeric::{dot, exp_fused, max, sum};
use crate::parallel;
use crate::scratch::Buffer;

/// Queries of a tile.
const QUERIES: usize = 96;
/// Keys of a tile: as many as products sum at a time.
const KEYS: usize = KC;
/// Queries, or keys, of a strip. Where a tile lies across the diagonal, products are computed strip by strip, and end where
/// the last of its queries sees nothing any more.
const STRIP: usize = 48;

/// The axes.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Sequences.
    pub sequences: usize,
    /// Tokens of each.
    pub length: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Values of a head.
    pub width: usize,
}

impl Shape {
    /// Tokens of all sequences.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.sequences * self.length
    }

    /// Values of a row: queries, keys and values of a token.
    #[must_use]
    pub fn row(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.width
    }

    /// The most values that a thread keeps.
    #[must_use]
    pub fn scratch(&self) -> usize {
        // Keys and values, straight and transposed, panels of 32 columns at least.
        let packed = 2 * self.length * self.width.next_multiple_of(32)
            + 2 * self.length.next_multiple_of(32) * self.width;
        packed + 2 * (QUERIES * KEYS + QUERIES)
    }

    fn query(&self, head: usize) -> Range<usize> {
        head * self.width..(head + 1) * self.width
    }

    fn key(&self, head: usize) -> Range<usize> {
        self.query(self.heads + head)
    }

    fn value(&self, head: usize) -> Range<usize> {
        self.query(self.heads + self.kv_heads + head)
    }

    /// Rows of a tile, with as many of its keys as they see: in strips if they do not see all.
    fn strips(
        queries: &Range<usize>,
        keys: &Range<usize>,
    ) -> impl Iterator<Item = (Range<usize>, usize)> + use<> {
        let (first, keys) = (queries.start, keys.clone());
        let strip = if keys.end <= first + 1 { QUERIES } else { STRIP };
        Self::tiles(queries.len(), strip).filter_map(move |rows| {
            let seen = (first + rows.end).min(keys.end).saturating_sub(keys.start);
            (seen > 0).then_some((rows, seen))
        })
    }

    /// Keys of a tile, with the first row that sees any of them.
    fn seen_from(
        queries: &Range<usize>,
        keys: &Range<usize>,
    ) -> impl Iterator<Item = (Range<usize>, usize)> + use<> {
        let (first, len, all_see) = (
            queries.start,
            keys.len(),
            queries.start.saturating_sub(keys.start).min(keys.len()),
        );
        let (start, end) = (keys.start, queries.end - first);
        let whole = (all_see > 0).then_some((0..all_see, 0));
        let strips = (all_see..len)
            .step_by(STRIP)
            .map(move |at| (at..(at + STRIP).min(len), start + at - first));
        whole.into_iter().chain(strips).filter(move |&(_, row)| row < end)
    }

    fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    fn tiles(length: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
        (0..length)
            .step_by(size)
            .map(move |first| first..(first + size).min(length))
    }
}

/// What a thread needs for a head.
#[derive(Default)]
struct Scratch {
    keys_t: Packed,
    keys: Packed,
    values: Packed,
    values_t: Packed,
    scores: Buffer,
    dscores: Buffer,
    largest: Buffer,
    totals: Buffer,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Scratch {
    fn prepare(&mut self) {
        self.scores.grow(QUERIES * KEYS);
        self.dscores.grow(QUERIES * KEYS);
        self.largest.grow(QUERIES);
        self.totals.grow(QUERIES);
    }
}

/// `y` (tokens, heads · width) and, for the backward, `lse` (sequences · heads, length): the logarithm of each softmax's
/// denominator.
///
/// # Panics
/// When lengths do not fit.
pub fn attention(qkv: &[f32], shape: Shape, y: &mut [f32], lse: &mut [f32]) {
    let Shape {
        sequences,
        length,
        heads,
        kv_heads,
        width,
    } = shape;
    assert!(
        heads.is_multiple_of(kv_heads),
        "{heads} heads in groups of {kv_heads}"
    );
    let qkv = Matrix::new(qkv, shape.tokens(), shape.row());
    let y = MatrixMut::new(y, shape.tokens(), heads * width);
    let lse = MatrixMut::new(lse, sequences * heads, length);
    parallel::for_each(sequences * kv_heads, |unit| {
        let (sequence, kv_head) = (unit / kv_heads, unit % kv_heads);
        let rows = sequence * length..(sequence + 1) * length;
        // Taken, not borrowed: while this thread waits for others it may be given another unit.
        let mut scratch = SCRATCH.take();
        scratch.prepare();
        scratch
            .keys_t
            .pack(qkv.window(rows.clone(), shape.key(kv_head)).t());
        scratch
            .values
            .pack(qkv.window(rows.clone(), shape.value(kv_head)));
        let group = heads / kv_heads;
        for head in kv_head * group..(kv_head + 1) * group {
            let queries = qkv.window(rows.clone(), shape.query(head));
            let lse_row = sequence * heads + head;
            #[expect(unsafe_code, reason = "heads are written by several threads")]
            // SAFETY: each head of a sequence is written by one of the calls.
            let (mut y, mut lse) = unsafe {
                (
                    y.window(rows.clone(), shape.query(head)),
                    lse.window(lse_row..lse_row + 1, 0..length),
                )
            };
            forward_head(queries, shape, &mut scratch, &mut y, lse.row(0));
        }
        SCRATCH.set(scratch);
    });
}

fn forward_head(q: Matrix<'_>, shape: Shape, scratch: &mut Scratch, y: &mut MatrixMut<'_>, lse: &mut [f32]) {
    let (length, width) = (shape.length, shape.width);
    for queries in Shape::tiles(length, QUERIES) {
        let count = queries.len();
        let tile = q.window(queries.clone(), 0..width);
        let (largest, totals) = (&mut scratch.largest[..count], &mut scratch.totals[..count]);
        largest.fill(f32::NEG_INFINITY);
        totals.fill(0.0);
        #[expect(unsafe_code, reason = "a part of the result at a time")]
        // SAFETY: the result is borrowed as a whole, and nothing else of it is in use.
        let mut y = unsafe { y.window(queries.clone(), 0..width) };
        for keys in Shape::tiles(queries.end, KEYS) {
            let scores = &mut scratch.scores[..count * keys.len()];
            multiply_seen(&scratch.keys_t, tile, (&queries, &keys), scores);
            soften(
                scores,
                shape.scale(),
                queries.start,
                keys.clone(),
                largest,
                totals,
                &mut y,
            );
            let into = if keys.start == 0 { Into::Fresh } else { Into::Sum };
            let scores = Matrix::new(scores, count, keys.len());
            add_up_seen(&scratch.values, scores, (&queries, &keys), &mut y, into);
        }
        divide(&mut y, totals);
        for ((lse, largest), total) in lse[queries].iter_mut().zip(largest).zip(totals) {
            *lse = *largest + libm::logf(*total);
        }
    }
}

for_each_isa! {
    /// Scores to exponentials, relative to the largest so far of each row; what was summed before is scaled accordingly.
    fn soften(
        scores: &mut [f32], scale: f32, first: usize, keys: Range<usize>, largest: &mut [f32], totals: &mut [f32],
        y: &mut MatrixMut<'_>,
    ) {
        for (i, row) in scores.chunks_exact_mut(keys.len()).enumerate() {
            let seen = (first + i + 1).clamp(keys.start, keys.end) - keys.start;
            let (row, hidden) = row.split_at_mut(seen);
            hidden.fill(0.0);
            if row.is_empty() {
                continue;
            }
            for x in row.iter_mut() {
                *x *= scale;
            }
            let found = max(row);
            let new = if largest[i] >= found { largest[i] } else { found };
            for x in row.iter_mut() {
                *x = exp_fused(*x - new);
            }
            let total = sum(row);
            if keys.start > 0 {
                let shrink = exp_fused(largest[i] - new);
                for y in y.row(i) {
                    *y *= shrink;
                }
                totals[i] = totals[i] * shrink + total;
            } else {
                totals[i] = total;
            }
            largest[i] = new;
        }
    }
}

for_each_isa! {
    fn divide(y: &mut MatrixMut<'_>, totals: &[f32]) {
        for (i, total) in totals.iter().enumerate() {
            let factor = 1.0 / total;
            for y in y.row(i) {
                *y *= factor;
            }
        }
    }
}

/// What the forward saw and gave.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// Queries, keys and values.
    pub qkv: &'a [f32],
    /// The result.
    pub y: &'a [f32],
    /// Logarithms of the denominators.
    pub lse: &'a [f32],
}

/// `dqkv`, which is replaced, of `dy`.
///
/// With P = exp(scores − lse), recomputed: dV = Pᵀ dY, dP = dY Vᵀ, dS = P (dP − Σ dy·y) / sqrt(width), dQ = dS K,
/// dK = dSᵀ Q.
///
/// # Panics
/// When lengths do not fit.
pub fn attention_backward(forward: Forward<'_>, shape: Shape, dy: &[f32], dqkv: &mut [f32]) {
    let Shape {
        length,
        heads,
        kv_heads,
        width,
        ..
    } = shape;
    assert!(
        heads.is_multiple_of(kv_heads),
        "{heads} heads in groups of {kv_heads}"
    );
    let qkv = Matrix::new(forward.qkv, shape.tokens(), shape.row());
    let (y, dy) = (
        Matrix::new(forward.y, shape.tokens(), heads * width),
        Matrix::new(dy, shape.tokens(), heads * width),
    );
    let lse = Matrix::new(forward.lse, shape.sequences * heads, length);
    let dqkv = MatrixMut::new(dqkv, shape.tokens(), shape.row());
    parallel::for_each(shape.sequences * kv_heads, |unit| {
        let (sequence, kv_head) = (unit / kv_heads, unit % kv_heads);
        let rows = sequence * length..(sequence + 1) * length;
        let (keys, values) = (
            qkv.window(rows.clone(), shape.key(kv_head)),
            qkv.window(rows.clone(), shape.value(kv_head)),
        );
        // Taken, not borrowed: while this thread waits for others it may be given another unit.
        let mut scratch = SCRATCH.take();
        scratch.prepare();
        scratch.keys_t.pack(keys.t());
        scratch.keys.pack(keys);
        scratch.values_t.pack(values.t());
        #[expect(unsafe_code, reason = "heads are written by several threads")]
        // SAFETY: each key and value head of a sequence is written by one of the calls.
        let (mut dk, mut dv) = unsafe {
            (
                dqkv.window(rows.clone(), shape.key(kv_head)),
                dqkv.window(rows.clone(), shape.value(kv_head)),
            )
        };
        for i in 0..length {
            dk.row(i).fill(0.0);
            dv.row(i).fill(0.0);
        }
        let group = heads / kv_heads;
        for head in kv_head * group..(kv_head + 1) * group {
            let columns = shape.query(head);
            #[expect(unsafe_code, reason = "heads are written by several threads")]
            // SAFETY: each query head of a sequence is written by one of the calls.
            let mut dq = unsafe { dqkv.window(rows.clone(), columns.clone()) };
            let head = Head {
                q: qkv.window(rows.clone(), columns.clone()),
                y: y.window(rows.clone(), columns.clone()),
                dy: dy.window(rows.clone(), columns),
                lse: lse.row(sequence * heads + head),
            };
            backward_head(head, shape, &mut scratch, &mut dq, &mut dk, &mut dv);
        }
        SCRATCH.set(scratch);
    });
}

/// One head of one sequence.
#[derive(Clone, Copy)]
struct Head<'a> {
    q: Matrix<'a>,
    y: Matrix<'a>,
    dy: Matrix<'a>,
    lse: &'a [f32],
}

/// The products of a tile of rows with keys, or values, as far as they are seen.
fn multiply_seen(
    packed: &Packed,
    rows: Matrix<'_>,
    (queries, keys): (&Range<usize>, &Range<usize>),
    into: &mut [f32],
) {
    let into = MatrixMut::new(into, rows.rows, keys.len());
    for (strip, seen) in Shape::strips(queries, keys) {
        #[expect(unsafe_code, reason = "a part of the result at a time")]
        // SAFETY: the result is borrowed as a whole, and nothing else of it is in use.
        let into = unsafe { into.window(strip.clone(), 0..seen) };
        let rows = rows.window(strip, 0..rows.cols);
        packed.multiply(rows, keys.start..keys.start + seen, into, Into::Fresh);
    }
}

/// Adds up values, or keys, by the scores of a tile, as far as they are seen.
fn add_up_seen(
    packed: &Packed,
    scores: Matrix<'_>,
    (queries, keys): (&Range<usize>, &Range<usize>),
    sums: &mut MatrixMut<'_>,
    into: Into,
) {
    for (strip, seen) in Shape::strips(queries, keys) {
        #[expect(unsafe_code, reason = "a part of the result at a time")]
        // SAFETY: the result is borrowed as a whole, and nothing else of it is in use.
        let sums = unsafe { sums.window(strip.clone(), 0..sums.cols()) };
        let scores = scores.window(strip, 0..seen);
        packed.multiply_terms(scores, keys.start..keys.start + seen, sums, into);
    }
}

#[expect(unsafe_code, reason = "a part of the results at a time")]
fn backward_head(
    head: Head<'_>,
    shape: Shape,
    scratch: &mut Scratch,
    dq: &mut MatrixMut<'_>,
    dk: &mut MatrixMut<'_>,
    dv: &mut MatrixMut<'_>,
) {
    let width = shape.width;
    for queries in Shape::tiles(shape.length, QUERIES) {
        let count = queries.len();
        let (q, dy) = (
            head.q.window(queries.clone(), 0..width),
            head.dy.window(queries.clone(), 0..width),
        );
        let pulls = &mut scratch.totals[..count];
        for (pull, i) in pulls.iter_mut().zip(queries.clone()) {
            *pull = pulled(head.y.row(i), head.dy.row(i));
        }
        for keys in Shape::tiles(queries.end, KEYS) {
            let shape_of_tile = (count, keys.len());
            let scores = &mut scratch.scores[..count * keys.len()];
            let dscores = &mut scratch.dscores[..count * keys.len()];
            multiply_seen(&scratch.keys_t, q, (&queries, &keys), scores);
            multiply_seen(&scratch.values_t, dy, (&queries, &keys), dscores);
            harden(
                scores,
                dscores,
                shape.scale(),
                queries.start,
                keys.clone(),
                &head.lse[queries.clone()],
                pulls,
            );
            let (scores, dscores) = (
                Matrix::new(scores, count, shape_of_tile.1),
                Matrix::new(dscores, count, shape_of_tile.1),
            );
            // SAFETY: the results are borrowed as wholes, and nothing else of them is in use.
            let mut dq = unsafe { dq.window(queries.clone(), 0..width) };
            let into = if keys.start == 0 { Into::Fresh } else { Into::Sum };
            add_up_seen(&scratch.keys, dscores, (&queries, &keys), &mut dq, into);
            for (seen, first) in Shape::seen_from(&queries, &keys) {
                let at = keys.start + seen.start..keys.start + seen.end;
                // SAFETY: as above.
                let (dk, dv) = unsafe { (dk.window(at.clone(), 0..width), dv.window(at, 0..width)) };
                let rows = first..count;
                let (q, dy) = (
                    q.window(rows.clone(), 0..width),
                    dy.window(rows.clone(), 0..width),
                );
                matmul(dscores.window(rows.clone(), seen.clone()).t(), q, dk, Into::Sum);
                matmul(scores.window(rows, seen).t(), dy, dv, Into::Sum);
            }
        }
    }
}

for_each_isa! {
    fn pulled(y: &[f32], dy: &[f32]) -> f32 {
        dot(y, dy)
    }
}

for_each_isa! {
    /// Scores to probabilities, and the probabilities' gradients to those of the scores.
    fn harden(
        scores: &mut [f32], dscores: &mut [f32], scale: f32, first: usize, keys: Range<usize>, lse: &[f32], pulls: &[f32],
    ) {
        let rows = scores.chunks_exact_mut(keys.len()).zip(dscores.chunks_exact_mut(keys.len()));
        for (i, (row, drow)) in rows.enumerate() {
            let seen = (first + i + 1).clamp(keys.start, keys.end) - keys.start;
            row[seen..].fill(0.0);
            drow[seen..].fill(0.0);
            let (lse, pull) = (lse[i], pulls[i]);
            for (p, dp) in row[..seen].iter_mut().zip(&mut drow[..seen]) {
                *p = exp_fused((*p).mul_add(scale, -lse));
                *dp = *p * (*dp - pull) * scale;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Products inside of units are divided among threads too, so a thread that waits for a part of one may be given
    /// another unit.
    #[test]
    fn units_that_wait_for_others_do_not_disturb_each_other() {
        let shape = Shape {
            sequences: 3,
            length: 400,
            heads: 8,
            kv_heads: 8,
            width: 8,
        };
        let values = |len: usize| {
            (0..len)
                .map(|i| ((i * 7919) % 1013) as f32 / 506.0 - 1.0)
                .collect::<Vec<f32>>()
        };
        let qkv = values(shape.tokens() * shape.row());
        let outputs = shape.tokens() * shape.heads * shape.width;
        let dy = values(outputs);
        let both = || {
            let (mut y, mut lse) = (
                vec![0.0; outputs],
                vec![0.0; shape.sequences * shape.heads * shape.length],
            );
            attention(&qkv, shape, &mut y, &mut lse);
            let mut dqkv = vec![0.0; qkv.len()];
            let forward = Forward {
                qkv: &qkv,
                y: &y,
                lse: &lse,
            };
            attention_backward(forward, shape, &dy, &mut dqkv);
            (y, dqkv)
        };
        let on = |threads| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap()
        };
        let alone = on(1).install(both);
        let many = on(6);
        for _ in 0..30 {
            assert!(many.install(both) == alone);
        }
    }
}
