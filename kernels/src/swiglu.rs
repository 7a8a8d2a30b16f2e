//! The gate of SwiGLU (Shazeer, 2020): `silu(gate) · up`, over rows of all gates and then all ups.

use crate::isa::for_each_isa;
use crate::matrix::MatrixMut;
use crate::numeric::sigmoid;
use crate::parallel;

/// Rows of a parallel piece.
const ROWS: usize = 32;

/// `a`, rows of `width` values, of `gate_up`, rows of twice as many.
///
/// # Panics
/// When lengths do not fit.
pub fn swiglu(gate_up: &[f32], width: usize, a: &mut [f32]) {
    let rows = a.len() / width;
    assert!(
        a.len() == rows * width && gate_up.len() == 2 * a.len(),
        "rows of {width}"
    );
    let a = MatrixMut::new(a, rows, width);
    parallel::for_each(rows.div_ceil(ROWS), |block| {
        let range = block * ROWS..((block + 1) * ROWS).min(rows);
        #[expect(unsafe_code, reason = "rows are written by several threads")]
        // SAFETY: each block of rows is written by one of the calls.
        let mut a = unsafe { a.window(range.clone(), 0..width) };
        forward(&gate_up[2 * width * range.start..2 * width * range.end], &mut a);
    });
}

for_each_isa! {
    fn forward(gate_up: &[f32], a: &mut MatrixMut<'_>) {
        for (i, row) in gate_up.chunks_exact(2 * a.cols()).enumerate() {
            let (gate, up) = row.split_at(a.cols());
            for ((a, &gate), up) in a.row(i).iter_mut().zip(gate).zip(up) {
                *a = gate * sigmoid(gate) * up;
            }
        }
    }
}

/// Turns `gate_up` into its gradient, and `da`, the gradient of `a`, into `a`, which the caller needs next.
///
/// With s = sigmoid(gate): d gate = da · up · s · (1 + gate · (1 − s)), d up = da · gate · s.
///
/// # Panics
/// When lengths do not fit.
pub fn swiglu_backward(gate_up: &mut [f32], width: usize, da: &mut [f32]) {
    let rows = da.len() / width;
    assert!(
        da.len() == rows * width && gate_up.len() == 2 * da.len(),
        "rows of {width}"
    );
    let (gate_up, da) = (
        MatrixMut::new(gate_up, rows, 2 * width),
        MatrixMut::new(da, rows, width),
    );
    parallel::for_each(rows.div_ceil(ROWS), |block| {
        let range = block * ROWS..((block + 1) * ROWS).min(rows);
        #[expect(unsafe_code, reason = "rows are written by several threads")]
        // SAFETY: each block of rows is written by one of the calls.
        let (mut gate_up, mut da) = unsafe {
            (
                gate_up.window(range.clone(), 0..2 * width),
                da.window(range, 0..width),
            )
        };
        backward(&mut gate_up, &mut da);
    });
}

fn backward(gate_up: &mut MatrixMut<'_>, da: &mut MatrixMut<'_>) {
    let width = da.cols();
    for i in 0..da.rows() {
        let (gate, up) = gate_up.row(i).split_at_mut(width);
        backward_row(gate, up, da.row(i));
    }
}

for_each_isa! {
    // Of single rows: that arguments do not overlap is known of a function's arguments alone.
    fn backward_row(gate: &mut [f32], up: &mut [f32], da: &mut [f32]) {
        for ((gate, up), da) in gate.iter_mut().zip(up).zip(da) {
            let s = sigmoid(*gate);
            let silu = *gate * s;
            let a = silu * *up;
            *gate = *da * *up * (s * (1.0 + *gate * (1.0 - s)));
            *up = *da * silu;
            *da = a;
        }
    }
}
