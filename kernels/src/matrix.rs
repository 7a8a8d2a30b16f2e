//! Matrices in slices.

use std::marker::PhantomData;
use std::ops::Range;

use crate::parallel;

/// A matrix that is read: `rows` × `cols`, element (i, j) at `i · row + j · col`, one of the two strides being 1.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row: usize,
    pub(crate) col: usize,
}

impl<'a> Matrix<'a> {
    /// Rows one after the other.
    ///
    /// # Panics
    /// When `data` is too short.
    #[must_use]
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// Rows that begin `stride` apart.
    ///
    /// # Panics
    /// When `data` is too short.
    #[must_use]
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        check(data.len(), rows, cols, stride);
        Self {
            data,
            rows,
            cols,
            row: stride,
            col: 1,
        }
    }

    /// The transposed of it.
    #[must_use]
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row: self.col,
            col: self.row,
            ..self
        }
    }

    /// A part of an untransposed one.
    pub(crate) fn window(self, rows: Range<usize>, cols: Range<usize>) -> Self {
        Self::strided(
            &self.data[rows.start * self.row + cols.start..],
            rows.len(),
            cols.len(),
            self.row,
        )
    }

    /// A row of an untransposed one.
    pub(crate) fn row(self, i: usize) -> &'a [f32] {
        &self.data[i * self.row..][..self.cols]
    }
}

/// A matrix that is written: rows that begin `stride` apart.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    data: *mut f32,
    rows: usize,
    cols: usize,
    stride: usize,
    of: PhantomData<&'a mut [f32]>,
}

#[expect(unsafe_code, reason = "parts of one matrix are written by several threads")]
// SAFETY: it is a borrow of its elements alone, as a `&mut [f32]` is.
unsafe impl Send for MatrixMut<'_> {}
#[expect(unsafe_code, reason = "parts of one matrix are written by several threads")]
// SAFETY: a shared one gives access to elements only by `window`, whose caller sees to it that nobody shares them.
unsafe impl Sync for MatrixMut<'_> {}

impl<'a> MatrixMut<'a> {
    /// Rows one after the other.
    ///
    /// # Panics
    /// When `data` is too short.
    #[must_use]
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// Rows that begin `stride` apart.
    ///
    /// # Panics
    /// When `data` is too short.
    #[must_use]
    pub fn strided(data: &'a mut [f32], rows: usize, cols: usize, stride: usize) -> Self {
        check(data.len(), rows, cols, stride);
        Self {
            data: data.as_mut_ptr(),
            rows,
            cols,
            stride,
            of: PhantomData,
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// The first element.
    pub(crate) fn pointer(&self) -> *mut f32 {
        self.data
    }

    /// A part of it.
    ///
    /// # Safety
    /// While it lives, nobody else uses its elements.
    #[expect(unsafe_code, reason = "only the caller knows that parts are disjoint")]
    pub(crate) unsafe fn window(&self, rows: Range<usize>, cols: Range<usize>) -> MatrixMut<'_> {
        assert!(
            rows.end <= self.rows && cols.end <= self.cols,
            "a window of {rows:?} x {cols:?}"
        );
        MatrixMut {
            // SAFETY: inside of the matrix.
            data: unsafe { self.data.add(rows.start * self.stride + cols.start) },
            rows: rows.len(),
            cols: cols.len(),
            stride: self.stride,
            of: PhantomData,
        }
    }

    /// Calls `work` with each block of `size` rows, and which they are, on all threads.
    pub(crate) fn for_each_block(
        self,
        size: usize,
        work: impl Fn(Range<usize>, MatrixMut<'_>) + Send + Sync,
    ) {
        let none = MatrixMut::new(&mut [], 0, 0);
        self.for_each_block_with((none, 0), size, |rows, block, _| work(rows, block));
    }

    /// The same, with the blocks of another matrix beside them, of so many rows each.
    pub(crate) fn for_each_block_with(
        self,
        (other, other_size): (MatrixMut<'_>, usize),
        size: usize,
        work: impl Fn(Range<usize>, MatrixMut<'_>, MatrixMut<'_>) + Send + Sync,
    ) {
        parallel::for_each(self.rows.div_ceil(size), |block| {
            let part = |of: &MatrixMut<'_>, size: usize| {
                let first = (block * size).min(of.rows);
                first..(first + size).min(of.rows)
            };
            let (rows, others) = (part(&self, size), part(&other, other_size));
            #[expect(unsafe_code, reason = "blocks are written by several threads")]
            // SAFETY: both matrices are this call's alone, and blocks do not overlap: each is used once.
            let (mine, beside) = unsafe {
                (
                    self.window(rows.clone(), 0..self.cols),
                    other.window(others, 0..other.cols),
                )
            };
            work(rows, mine, beside);
        });
    }

    /// A row.
    #[expect(unsafe_code, reason = "rows are disjoint")]
    pub(crate) fn row(&mut self, i: usize) -> &mut [f32] {
        assert!(i < self.rows);
        // SAFETY: `cols` elements of a row are inside of the matrix, which is borrowed for as long.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(i * self.stride), self.cols) }
    }

    /// The same, for as short as this borrow.
    pub(crate) fn reborrow(&mut self) -> MatrixMut<'_> {
        MatrixMut {
            data: self.data,
            of: PhantomData,
            ..*self
        }
    }
}

fn check(len: usize, rows: usize, cols: usize, stride: usize) {
    let fits = rows == 0 || cols == 0 || (cols <= stride && (rows - 1) * stride + cols <= len);
    assert!(
        fits,
        "a matrix of {rows} x {cols}, {stride} apart, in {len} values"
    );
}
