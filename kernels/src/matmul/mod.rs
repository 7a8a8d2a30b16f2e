//! Products of matrices, with fixed bits.
//!
//! An element of `c = a · b` is summed in blocks of [`KC`] terms: each block from zero, fused, in order, then added
//! to what there is. Neither the processor nor the number of threads nor the place of an element in the matrix plays
//! a part, which libraries of this kind, whose blocks are fitted to caches, do not promise. The blocking is that of Goto and
//! van de Geijn ("Anatomy of High-Performance Matrix Multiplication", 2008).

mod pack;
mod tile;

use std::cell::RefCell;
use std::ops::Range;

use crate::isa::Isa;
use crate::matrix::{Matrix, MatrixMut};
use crate::scratch::Buffer;
use pack::{pack_a, pack_b, pack_b_into};
use tile::{MR, NR, Order, Tile};

/// Terms of a block of a sum. It decides the bits.
pub const KC: usize = 384;
/// Rows of `a` that are packed at a time, to stay in the second-level cache.
const MC: usize = 20 * MR;
/// Columns of `b` that are packed at a time.
const NC: usize = 128 * NR;

/// With so few columns, a transposed `a` is read where it lies: to pack it would not pay.
const DIRECT: usize = 256;

/// What is done with what the result holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Into {
    /// It is replaced.
    Fresh,
    /// It is added to.
    Sum,
}

/// `c = a · b` or `c += a · b`.
///
/// # Panics
/// When the shapes do not fit.
pub fn matmul(a: Matrix<'_>, b: Matrix<'_>, mut c: MatrixMut<'_>, into: Into) {
    let (n, k) = (b.cols, b.rows);
    assert_eq!((c.rows(), c.cols()), (a.rows, n), "the result's shape");
    if k == 0 && into == Into::Fresh {
        (0..c.rows()).for_each(|i| c.row(i).fill(0.0));
    }
    // Taken, not borrowed: while this thread waits for others it may be given another product to compute.
    let mut packed = PACKED_B.take();
    for j0 in (0..n).step_by(NC) {
        let cols = j0..(j0 + NC).min(n);
        for k0 in (0..k).step_by(KC) {
            let terms = k0..(k0 + KC).min(k);
            pack_b(b, terms.clone(), cols.clone(), &mut packed);
            #[expect(unsafe_code, reason = "a part of the result at a time")]
            // SAFETY: the result is borrowed as a whole, and these columns by nobody else.
            let c = unsafe { c.window(0..a.rows, cols.clone()) };
            let add = into == Into::Sum || k0 > 0;
            multiply(a, terms.clone(), &packed, terms.len(), c, add);
        }
    }
    PACKED_B.set(packed);
}

/// The most values that a thread keeps for layers of up to so many inputs and outputs, forward and backward.
#[must_use]
pub fn scratch(inputs: usize, outputs: usize) -> usize {
    let left = if inputs > DIRECT { MC * KC } else { 0 };
    left + outputs.min(NC).div_ceil(NR) * NR * inputs.min(KC)
}

/// The right side of several products, packed once.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    data: Buffer,
    terms: usize,
    cols: usize,
}

impl Packed {
    /// Packs a matrix.
    pub(crate) fn pack(&mut self, b: Matrix<'_>) {
        (self.terms, self.cols) = (b.rows, b.cols);
        let panels = b.cols.div_ceil(NR) * NR;
        self.data.grow(panels * b.rows);
        for k0 in (0..b.rows).step_by(KC) {
            let terms = k0..(k0 + KC).min(b.rows);
            pack_b_into(b, terms, 0..b.cols, &mut self.data[k0 * panels..]);
        }
    }

    /// `c = a · b[.., cols]`, or added to `c`; `cols` begins at a multiple of [`NR`].
    pub(crate) fn multiply(&self, a: Matrix<'_>, cols: Range<usize>, c: MatrixMut<'_>, into: Into) {
        assert_eq!(
            (a.cols, c.rows(), c.cols()),
            (self.terms, a.rows, cols.len()),
            "shapes"
        );
        self.part(a, 0, cols, c, into);
    }

    /// `c = a · b[terms]`, or added to `c`; `terms` begins at a multiple of [`KC`].
    pub(crate) fn multiply_terms(&self, a: Matrix<'_>, terms: Range<usize>, c: MatrixMut<'_>, into: Into) {
        assert_eq!(
            (a.cols, c.rows(), c.cols()),
            (terms.len(), a.rows, self.cols),
            "shapes"
        );
        self.part(a, terms.start, 0..self.cols, c, into);
    }

    fn part(&self, a: Matrix<'_>, first: usize, cols: Range<usize>, mut c: MatrixMut<'_>, into: Into) {
        assert!(first.is_multiple_of(KC) && first + a.cols <= self.terms);
        assert!(cols.start.is_multiple_of(NR) && cols.end <= self.cols);
        let panels = self.cols.div_ceil(NR) * NR;
        for k0 in (0..a.cols).step_by(KC) {
            let terms = k0..(k0 + KC).min(a.cols);
            let packed = (self.terms - first - k0).min(KC);
            let from = &self.data[(first + k0) * panels + cols.start * packed..];
            multiply(a, terms, from, packed, c.reborrow(), into == Into::Sum || k0 > 0);
        }
    }
}

/// `c (+)= a[.., terms] · b`, where `b` is packed in panels of `packed` terms, of which the first are used.
fn multiply(a: Matrix<'_>, terms: Range<usize>, b: &[f32], packed: usize, c: MatrixMut<'_>, add: bool) {
    let (kernel, cols) = (kernel(), c.cols());
    c.for_each_block(MC, |rows, c| {
        let depth = terms.len();
        if a.col == 1 || cols <= DIRECT {
            let (order, row) = match a.col {
                1 => (Order::Rows(a.row), a.row),
                col => (Order::Terms(col), 1),
            };
            let data = &a.data[rows.start * a.row + terms.start * a.col..];
            tiles(kernel, Left { data, order, row }, b, (depth, packed), &c, add);
            return;
        }
        PACKED_A.with_borrow_mut(|panels| {
            pack_a(a, rows, terms.clone(), panels);
            let left = Left {
                data: panels,
                order: Order::Terms(MR),
                row: KC,
            };
            tiles(kernel, left, b, (depth, packed), &c, add);
        });
    });
}

/// The left side of some tiles.
#[derive(Clone, Copy)]
struct Left<'a> {
    data: &'a [f32],
    order: Order,
    /// A tile begins so many times the index of its first row behind the beginning.
    row: usize,
}

/// All tiles of packed panels.
#[expect(unsafe_code, reason = "the inner loops work on pointers")]
fn tiles(
    kernel: TileFn,
    a: Left<'_>,
    b: &[f32],
    (depth, packed): (usize, usize),
    c: &MatrixMut<'_>,
    add: bool,
) {
    let (rows, cols) = (c.rows(), c.cols());
    assert!(0 < depth && depth <= packed && depth <= KC && b.len() >= cols.div_ceil(NR) * NR * packed);
    for (j, b) in (0..cols).step_by(NR).zip(b.chunks_exact(NR * packed)) {
        for i in (0..rows).step_by(MR) {
            let (count, left) = ((rows - i).min(MR), &a.data[i * a.row..]);
            assert!(a.order.at(count - 1, depth - 1) < left.len());
            // SAFETY: `left` reaches to the last element that is used, as asserted; `b` is a whole panel with at least
            // `depth` terms; the tile is inside of `c`, which is borrowed by the caller alone; and the code is of
            // instructions that the processor has.
            unsafe {
                kernel(&Tile {
                    depth,
                    a: left.as_ptr(),
                    a_order: a.order,
                    b: b.as_ptr(),
                    c: c.pointer().add(i * c.stride() + j),
                    c_row: c.stride(),
                    rows: count,
                    cols: (cols - j).min(NR),
                    add,
                });
            }
        }
    }
}

thread_local! {
    static PACKED_A: RefCell<Buffer> = const { RefCell::new(Buffer::empty()) };
    static PACKED_B: RefCell<Buffer> = const { RefCell::new(Buffer::empty()) };
}

type TileFn = unsafe fn(&Tile);

/// The tile's code for this processor.
fn kernel() -> TileFn {
    match Isa::of_this_machine() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => tile::x86::avx512,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => tile::x86::avx2,
        _ => tile::portable,
    }
}

#[cfg(test)]
mod tests;
