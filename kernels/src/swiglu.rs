//! The gate of SwiGLU (Shazeer, 2020): `silu(gate) · up`, over rows of all gates and then all ups.

use crate::isa::for_each_isa;
use crate::matrix::MatrixMut;
use crate::numeric::sigmoid_fused;

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
    MatrixMut::new(a, rows, width).for_each_block(ROWS, |rows, mut a| {
        forward(&gate_up[2 * width * rows.start..2 * width * rows.end], &mut a);
    });
}

for_each_isa! {
    fn forward(gate_up: &[f32], a: &mut MatrixMut<'_>) {
        for (i, row) in gate_up.chunks_exact(2 * a.cols()).enumerate() {
            let (gate, up) = row.split_at(a.cols());
            for ((a, &gate), up) in a.row(i).iter_mut().zip(gate).zip(up) {
                *a = gate * sigmoid_fused(gate) * up;
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
    let da = MatrixMut::new(da, rows, width);
    MatrixMut::new(gate_up, rows, 2 * width).for_each_block_with(
        (da, ROWS),
        ROWS,
        |_, mut gate_up, mut da| {
            backward(&mut gate_up, &mut da);
        },
    );
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
            let s = sigmoid_fused(*gate);
            let silu = *gate * s;
            let a = silu * *up;
            *gate = *da * *up * (s * (1.0 + *gate * (1.0 - s)));
            *up = *da * silu;
            *da = a;
        }
    }
}
