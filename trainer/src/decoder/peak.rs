//! What products reach by themselves.

use std::time::Instant;

use lockstep_engine::spec::ModelSpec;
use lockstep_kernels::matmul::{Into, matmul};
use lockstep_kernels::{Matrix, MatrixMut, head};

use super::memory::Sizes;

const TRIES: usize = 8;

/// The most GFLOP/s that a product of a step over `tokens` tokens reaches, of those of its shapes forward and backward, on
/// this thread pool.
#[must_use]
pub fn peak_gflops(spec: &ModelSpec, tokens: usize) -> f64 {
    let Sizes { hidden, ffn, qkv } = Sizes::new(spec);
    let rows = head::chunk(spec.vocab_size).min(tokens);
    let shapes = [
        (tokens, qkv, hidden),
        (tokens, hidden, hidden),
        (tokens, 2 * ffn, hidden),
        (tokens, hidden, ffn),
        (rows, spec.vocab_size, hidden),
    ];
    shapes.into_iter().map(best).fold(0.0, f64::max)
}

/// Of `n` rows with `i` inputs and `o` outputs.
fn best((n, o, i): (usize, usize, usize)) -> f64 {
    let values = |len: usize| {
        (0..len)
            .map(|at| (at % 1013) as f32 / 500.0 - 1.0)
            .collect::<Vec<f32>>()
    };
    let (x, w, dy) = (values(n * i), values(o * i), values(n * o));
    let (mut y, mut dx, mut dw) = (vec![0.0; n * o], vec![0.0; n * i], vec![0.0; o * i]);
    let (x, w, dy) = (
        Matrix::new(&x, n, i),
        Matrix::new(&w, o, i),
        Matrix::new(&dy, n, o),
    );
    let mut seconds = f64::INFINITY;
    for _ in 0..TRIES {
        let started = Instant::now();
        matmul(x, w.t(), MatrixMut::new(&mut y, n, o), Into::Fresh);
        let forward = Instant::now();
        matmul(dy, w, MatrixMut::new(&mut dx, n, i), Into::Fresh);
        let input = Instant::now();
        matmul(dy.t(), x, MatrixMut::new(&mut dw, o, i), Into::Sum);
        let times = [forward - started, input - forward, input.elapsed()];
        seconds = times
            .into_iter()
            .map(|time| time.as_secs_f64())
            .fold(seconds, f64::min);
    }
    2.0 * (n * o * i) as f64 / seconds / 1e9
}
