//! One tile of a product: the innermost loops, once for each instruction set.
//!
//! Each element of a tile is `Σₖ a[i][k] · b[k][j]`, k going up, fused, from zero, whatever the tile's size: so the
//! bits do not depend on the instruction set.

/// The most rows of a tile.
pub(super) const MR: usize = 12;
/// Columns of a panel of `b`.
pub(super) const NR: usize = 32;

/// How the elements of `a` lie.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// Terms of a row side by side, rows so far apart.
    Rows(usize),
    /// Rows of a term side by side, terms so far apart.
    Terms(usize),
}

impl Order {
    /// Where row `i` begins.
    pub(super) fn row(self, i: usize) -> usize {
        match self {
            Self::Rows(distance) => i * distance,
            Self::Terms(_) => i,
        }
    }

    pub(super) fn at(self, i: usize, k: usize) -> usize {
        match self {
            Self::Rows(distance) => i * distance + k,
            Self::Terms(distance) => k * distance + i,
        }
    }
}

/// A tile to compute: `c[i][j] (+)= Σₖ a[i][k] · b[k][j]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    /// Terms of each sum.
    pub(super) depth: usize,
    /// Up to [`MR`] rows.
    pub(super) a: *const f32,
    pub(super) a_order: Order,
    /// A panel of `depth` rows of [`NR`] values.
    pub(super) b: *const f32,
    /// The first element of the result, and the distance of its rows.
    pub(super) c: *mut f32,
    pub(super) c_row: usize,
    /// What of the tile there is.
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Whether to add to what is there.
    pub(super) add: bool,
}

/// Computes a tile.
///
/// # Safety
/// The pointers are good for what [`Tile`] says, `c` for writing, and nobody else uses that part of it.
#[expect(unsafe_code, reason = "the inner loops work on pointers")]
pub(super) unsafe fn portable(tile: &Tile) {
    for i in 0..tile.rows {
        let mut sums = [0.0f32; NR];
        for k in 0..tile.depth {
            let at = tile.a_order.at(i, k);
            // SAFETY: inside of both panels, as `i` < MR and `k` < depth.
            let (a, b) = unsafe {
                (
                    *tile.a.add(at),
                    std::slice::from_raw_parts(tile.b.add(k * NR), NR),
                )
            };
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = a.mul_add(*b, *sum);
            }
        }
        // SAFETY: this row of the tile is the caller's alone.
        let c = unsafe { std::slice::from_raw_parts_mut(tile.c.add(i * tile.c_row), tile.cols) };
        for (c, sum) in c.iter_mut().zip(sums) {
            *c = if tile.add { *c + sum } else { sum };
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "the inner loops work on pointers, with instructions that were detected"
)]
pub(super) mod x86 {
    use std::arch::x86_64::*;

    use super::{NR, Order, Tile};

    /// Calls `$body` with the number of rows as a constant.
    macro_rules! by_rows {
        ($rows:expr, $body:ident, $tile:expr, $($count:literal)*) => {
            match $rows {
                // SAFETY: as of the caller.
                $($count => unsafe {
                    match $tile.a_order {
                        Order::Rows(distance) => $body::<$count, true>($tile, distance),
                        Order::Terms(distance) => $body::<$count, false>($tile, distance),
                    }
                },)*
                _ => {}
            }
        };
    }

    /// See [`super::portable`].
    ///
    /// # Safety
    /// As there; and the processor has AVX-512 F.
    #[target_feature(enable = "avx512f")]
    pub(in super::super) unsafe fn avx512(tile: &Tile) {
        by_rows!(tile.rows, rows_512, tile, 1 2 3 4 5 6 7 8 9 10 11 12);
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn rows_512<const ROWS: usize, const BY_ROWS: bool>(tile: &Tile, distance: usize) {
        let (row, step) = if BY_ROWS { (distance, 1) } else { (1, distance) };
        let mask = |from: usize| -> __mmask16 {
            let there = tile.cols.saturating_sub(from).min(16);
            ((1u32 << there) - 1) as __mmask16
        };
        let masks = [mask(0), mask(16)];
        let (mut a, mut b) = (tile.a, tile.b);
        // SAFETY: all within the panels, and the masked part of the tile.
        unsafe {
            for i in 0..ROWS {
                let c = tile.c.add(i * tile.c_row);
                _mm_prefetch::<_MM_HINT_T0>(c.cast());
                _mm_prefetch::<_MM_HINT_T0>(c.wrapping_add(16).cast());
            }
            let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
            for _ in 0..tile.depth {
                let columns = [_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16))];
                for (i, sums) in sums.iter_mut().enumerate() {
                    let a = _mm512_set1_ps(*a.add(i * row));
                    sums[0] = _mm512_fmadd_ps(a, columns[0], sums[0]);
                    sums[1] = _mm512_fmadd_ps(a, columns[1], sums[1]);
                }
                a = a.add(step);
                b = b.add(NR);
            }
            for (i, sums) in sums.iter().enumerate() {
                let c = tile.c.add(i * tile.c_row);
                for (v, (&sum, &mask)) in sums.iter().zip(&masks).enumerate() {
                    let c = c.wrapping_add(16 * v);
                    let sum = if tile.add {
                        _mm512_add_ps(_mm512_maskz_loadu_ps(mask, c), sum)
                    } else {
                        sum
                    };
                    _mm512_mask_storeu_ps(c, mask, sum);
                }
            }
        }
    }

    /// See [`super::portable`].
    ///
    /// # Safety
    /// As there; and the processor has AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(in super::super) unsafe fn avx2(tile: &Tile) {
        // Half of the registers there: a tile is computed in quarters.
        for row in (0..tile.rows).step_by(6) {
            for col in (0..tile.cols).step_by(16) {
                let a = tile.a_order.row(row);
                // SAFETY: within the tile.
                let quarter = unsafe {
                    Tile {
                        a: tile.a.add(a),
                        b: tile.b.add(col),
                        c: tile.c.add(row * tile.c_row + col),
                        rows: (tile.rows - row).min(6),
                        cols: (tile.cols - col).min(16),
                        ..*tile
                    }
                };
                by_rows!(quarter.rows, rows_256, &quarter, 1 2 3 4 5 6);
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn rows_256<const ROWS: usize, const BY_ROWS: bool>(tile: &Tile, distance: usize) {
        let (row, step) = if BY_ROWS { (distance, 1) } else { (1, distance) };
        let (mut a, mut b) = (tile.a, tile.b);
        // SAFETY: all within the panels; what is stored is within the part of the tile that there is.
        unsafe {
            let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
            for _ in 0..tile.depth {
                let columns = [_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8))];
                for (i, sums) in sums.iter_mut().enumerate() {
                    let a = _mm256_set1_ps(*a.add(i * row));
                    sums[0] = _mm256_fmadd_ps(a, columns[0], sums[0]);
                    sums[1] = _mm256_fmadd_ps(a, columns[1], sums[1]);
                }
                a = a.add(step);
                b = b.add(NR);
            }
            for (i, sums) in sums.iter().enumerate() {
                let c = tile.c.add(i * tile.c_row);
                if tile.cols == 16 {
                    for (v, &sum) in sums.iter().enumerate() {
                        let c = c.add(8 * v);
                        let sum = if tile.add {
                            _mm256_add_ps(_mm256_loadu_ps(c), sum)
                        } else {
                            sum
                        };
                        _mm256_storeu_ps(c, sum);
                    }
                    continue;
                }
                let mut row = [0.0f32; 16];
                _mm256_storeu_ps(row.as_mut_ptr(), sums[0]);
                _mm256_storeu_ps(row.as_mut_ptr().add(8), sums[1]);
                for (j, &sum) in row.iter().enumerate().take(tile.cols) {
                    let c = c.add(j);
                    *c = if tile.add { *c + sum } else { sum };
                }
            }
        }
    }
}
