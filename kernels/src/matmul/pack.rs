//! Copies of parts of matrices in the order in which tiles read them.

use std::ops::Range;

use super::KC;
use super::tile::{MR, NR};
use crate::isa::Isa;
use crate::matrix::Matrix;
use crate::scratch::Buffer;

/// Panels of [`MR`] interleaved rows of a transposed matrix; each has room for [`KC`] terms.
pub(super) fn pack_a(a: Matrix<'_>, rows: Range<usize>, terms: Range<usize>, into: &mut Buffer) {
    let panels = rows.len().div_ceil(MR);
    into.grow(panels * MR * KC);
    // Row by row of what is read, which lies side by side.
    for (step, k) in terms.enumerate() {
        let row = &a.data[k * a.col + rows.start..k * a.col + rows.end];
        let (whole, rest) = row.as_chunks::<MR>();
        let places = into[step * MR..].chunks_mut(MR * KC);
        for (place, from) in places.zip(whole) {
            place[..MR].copy_from_slice(from);
        }
        if !rest.is_empty() {
            let at = whole.len() * MR * KC + step * MR;
            into[at..at + rest.len()].copy_from_slice(rest);
        }
    }
}

/// Panels of [`NR`] columns, term by term; what is missing of the last one is zero.
pub(super) fn pack_b(b: Matrix<'_>, terms: Range<usize>, cols: Range<usize>, into: &mut Buffer) {
    into.grow(cols.len().div_ceil(NR) * NR * terms.len());
    pack_b_into(b, terms, cols, into);
}

/// The same, where there is room for it.
pub(super) fn pack_b_into(b: Matrix<'_>, terms: Range<usize>, cols: Range<usize>, into: &mut [f32]) {
    let depth = terms.len();
    for (first, panel) in cols.clone().step_by(NR).zip(into.chunks_exact_mut(NR * depth)) {
        let count = (cols.end - first).min(NR);
        if b.col == 1 {
            for (step, k) in panel.chunks_exact_mut(NR).zip(terms.clone()) {
                let from = &b.data[k * b.row + first..];
                if count == NR {
                    step.copy_from_slice(&from[..NR]);
                } else {
                    step[..count].copy_from_slice(&from[..count]);
                    step[count..].fill(0.0);
                }
            }
        } else {
            if count < NR {
                panel.fill(0.0);
            }
            let column = |j: usize| {
                let from = (first + j) * b.col;
                &b.data[from + terms.start..from + terms.end]
            };
            let mut done = 0;
            while count - done >= SQUARE && transposes_squares() {
                let columns = std::array::from_fn(|j| column(done + j));
                transpose_squares(columns, &mut panel[done..]);
                done += SQUARE;
            }
            let whole = if done > 0 { depth / SQUARE * SQUARE } else { 0 };
            for j in 0..count {
                let from = if j < done { whole } else { 0 };
                let steps = panel.chunks_exact_mut(NR).zip(column(j));
                for (step, &value) in steps.skip(from) {
                    step[j] = value;
                }
            }
        }
    }
}

/// Columns that are transposed at once.
const SQUARE: usize = 8;

fn transposes_squares() -> bool {
    cfg!(target_arch = "x86_64") && Isa::of_this_machine() >= Isa::Avx2
}

/// Writes columns side by side to rows of [`NR`] values, for as long as there are whole squares.
fn transpose_squares(columns: [&[f32]; SQUARE], into: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "calls code for instructions that were detected")]
    // SAFETY: `transposes_squares` was asked.
    unsafe {
        x86::transpose_squares(columns, into);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (columns, into);
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "instructions that were detected")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{NR, SQUARE};

    /// # Safety
    /// The processor has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn transpose_squares(columns: [&[f32]; SQUARE], into: &mut [f32]) {
        let depth = columns.iter().map(|column| column.len()).min().unwrap_or(0);
        for k in (0..depth / SQUARE * SQUARE).step_by(SQUARE) {
            let rows = &mut into[k * NR..(k + SQUARE - 1) * NR + SQUARE];
            // SAFETY: `k + SQUARE` is at most the length of each column, and `rows` was checked to reach to the last
            // element that is written.
            unsafe {
                let c = columns.map(|column| _mm256_loadu_ps(column.as_ptr().add(k)));
                let pair = |a, b| (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                let ((a0, a1), (a2, a3)) = (pair(c[0], c[1]), pair(c[2], c[3]));
                let ((b0, b1), (b2, b3)) = (pair(c[4], c[5]), pair(c[6], c[7]));
                let four = |a, b| (_mm256_shuffle_ps::<0x44>(a, b), _mm256_shuffle_ps::<0xee>(a, b));
                let ((p0, p1), (p2, p3)) = (four(a0, a2), four(a1, a3));
                let ((q0, q1), (q2, q3)) = (four(b0, b2), four(b1, b3));
                let halves = [(p0, q0), (p1, q1), (p2, q2), (p3, q3)];
                for (i, (p, q)) in halves.into_iter().enumerate() {
                    let to = rows.as_mut_ptr();
                    _mm256_storeu_ps(to.add(i * NR), _mm256_permute2f128_ps::<0x20>(p, q));
                    _mm256_storeu_ps(to.add((i + 4) * NR), _mm256_permute2f128_ps::<0x31>(p, q));
                }
            }
        }
    }
}
