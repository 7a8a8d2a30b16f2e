//! GFLOP/s of products on one thread, over the shapes of a training step, beside those of the `gemm` crate:
//!
//! ```text
//! RAYON_NUM_THREADS=1 cargo bench -p lockstep-kernels --bench matmul
//! ```

#![expect(unsafe_code, reason = "the peer's interface")]

use std::time::Instant;

use lockstep_kernels::matmul::{Into, matmul};
use lockstep_kernels::{Matrix, MatrixMut};

/// What a layer is called, and its tokens, outputs and inputs.
const SHAPES: [(&str, usize, usize, usize); 10] = [
    ("tiny, queries to values", 1024, 384, 128),
    ("tiny, down", 1024, 128, 344),
    ("small, queries to values", 2048, 768, 256),
    ("small, gates and ups", 2048, 1376, 256),
    ("small, down", 2048, 256, 688),
    ("small, head", 1024, 4096, 256),
    ("base, queries to values", 2048, 1536, 512),
    ("base, gates and ups", 2048, 2752, 512),
    ("base, down", 2048, 512, 1376),
    ("base, head", 512, 8192, 512),
];

const TRIES: usize = 12;

fn main() {
    println!(
        "{:26} {:>22} {:>22} {:>22}",
        "GFLOP/s, ours / gemm's", "forward", "dx", "dw"
    );
    for (name, n, o, i) in SHAPES {
        let (x, w, dy) = (pattern(n * i), pattern(o * i), pattern(n * o));
        let (mut y, mut dx, mut dw) = (vec![0.0; n * o], vec![0.0; n * i], vec![0.0; o * i]);
        let flops = 2.0 * (n * o * i) as f64;
        let (x_ni, w_oi, dy_no) = (
            Matrix::new(&x, n, i),
            Matrix::new(&w, o, i),
            Matrix::new(&dy, n, o),
        );
        let (row, col) = (|cols: usize| (1, cols as isize), |rows: usize| (rows as isize, 1));
        let forward = [
            best(flops, || {
                matmul(x_ni, w_oi.t(), MatrixMut::new(&mut y, n, o), Into::Fresh)
            }),
            best(flops, || {
                theirs((n, o, i), &mut y, (&x, row(i)), (&w, col(i)), false)
            }),
        ];
        let input = [
            best(flops, || {
                matmul(dy_no, w_oi, MatrixMut::new(&mut dx, n, i), Into::Fresh)
            }),
            best(flops, || {
                theirs((n, i, o), &mut dx, (&dy, row(o)), (&w, row(i)), false)
            }),
        ];
        let weight = [
            best(flops, || {
                matmul(dy_no.t(), x_ni, MatrixMut::new(&mut dw, o, i), Into::Sum)
            }),
            best(flops, || {
                theirs((o, i, n), &mut dw, (&dy, col(o)), (&x, row(i)), true)
            }),
        ];
        print!("{name:26}");
        for [ours, theirs] in [forward, input, weight] {
            print!(" {ours:>13.1} / {theirs:>6.1}");
        }
        println!();
    }
}

fn pattern(len: usize) -> Vec<f32> {
    (0..len)
        .map(|i| ((i * 7919) % 1013) as f32 / 500.0 - 1.0)
        .collect()
}

fn best(flops: f64, mut f: impl FnMut()) -> f64 {
    let time = |_| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    flops / (0..TRIES).map(time).fold(f64::INFINITY, f64::min) / 1e9
}

/// Strides are those of columns and rows.
fn theirs(
    (m, n, k): (usize, usize, usize),
    c: &mut [f32],
    (a, (a_col, a_row)): (&[f32], (isize, isize)),
    (b, (b_col, b_row)): (&[f32], (isize, isize)),
    adds: bool,
) {
    let none = gemm::Parallelism::None;
    let (to, a, b) = (c.as_mut_ptr(), a.as_ptr(), b.as_ptr());
    // SAFETY: the pointers are good for matrices of these shapes and strides.
    unsafe {
        gemm::gemm(
            m, n, k, to, 1, n as isize, adds, a, a_col, a_row, b, b_col, b_row, 1.0, 1.0, false, false,
            false, none,
        );
    }
}
