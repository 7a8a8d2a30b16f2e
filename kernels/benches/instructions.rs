//! Instructions that each kernel executes at a small size, counted by valgrind, and the most that it may: the guard
//! against slower code where clocks tell nothing, as they do on machines that are shared.
//!
//! ```text
//! cargo bench -p lockstep-kernels --bench instructions
//! ```
//!
//! It needs valgrind, and `gungraun-runner` of the version that `gungraun` has in `Cargo.lock`. A kernel that takes more than
//! its figure below and [`MARGIN`] fails it. **To renew a figure**, because a kernel has become better or does more, copy
//! what this prints as `Instructions`, into the table of `docs/benchmarks.md` too.

#![expect(missing_docs, reason = "macros make public items")]

use gungraun::prelude::*;
use gungraun::{Callgrind, EventKind, main};
use lockstep_kernels::adamw::{self, Constants, Updated};
use lockstep_kernels::attention::{Forward, Shape, attention, attention_backward};
use lockstep_kernels::embedding::{embed, embed_backward};
use lockstep_kernels::head::{Gradients, cross_entropy};
use lockstep_kernels::isa::{self, Isa};
use lockstep_kernels::matmul::{Into, matmul};
use lockstep_kernels::norm::{rms_norm, rms_norm_backward};
use lockstep_kernels::rotary::{Rotary, Turn};
use lockstep_kernels::swiglu::{swiglu, swiglu_backward};
use lockstep_kernels::{Matrix, MatrixMut};

/// What a kernel may take of its figure. Counts are the same in every run, and valgrind shows every processor as the same
/// one: this leaves room for what the compiler makes of changes nearby.
const MARGIN: f64 = 1.03;

/// Tokens, outputs and inputs of products: two blocks of terms forward, and a packed left side backward.
const LAYER: (usize, usize, usize) = (96, 320, 416);
const ATTENTION: Shape = Shape {
    sequences: 1,
    length: 400,
    heads: 2,
    kv_heads: 1,
    width: 32,
};
const TOKENS: usize = 96;
const WIDTH: usize = 128;
const VOCABULARY: usize = 512;
const EPS: f32 = 1e-5;
const PARAMETERS: usize = 20_000;

#[library_benchmark]
#[bench::matmul(args = (product()), config = measured(3_964_596))]
#[bench::matmul_dx(args = (product_dx()), config = measured(3_900_443))]
#[bench::matmul_dw(args = (product_dw()), config = measured(3_510_041))]
#[bench::attention(args = (attend()), config = measured(5_039_741))]
#[bench::attention_backward(args = (attend_backward()), config = measured(10_089_829))]
#[bench::norm(args = (normalize()), config = measured(19_541))]
#[bench::norm_backward(args = (normalize_backward()), config = measured(70_493))]
#[bench::rotary(args = (turn(Turn::Forth)), config = measured(31_843))]
#[bench::rotary_backward(args = (turn(Turn::Back)), config = measured(31_842))]
#[bench::swiglu(args = (gate()), config = measured(52_174))]
#[bench::swiglu_backward(args = (gate_backward()), config = measured(71_736))]
#[bench::head(args = (head()), config = measured(5_914_767))]
#[bench::embedding(args = (look_up()), config = measured(9_185))]
#[bench::embedding_backward(args = (look_up_backward()), config = measured(36_654))]
#[bench::adamw_norm(args = (gradient_norm()), config = measured(17_294))]
#[bench::adamw_update(args = (update()), config = measured(53_034))]
fn once(mut kernel: Kernel) -> Kernel {
    kernel();
    kernel // dropped by the caller, outside of the count
}

library_benchmark_group!(name = kernels, benchmarks = once);

main!(
    config = LibraryBenchmarkConfig::default()
        .env(isa::VARIABLE, Isa::Avx2.name()) // valgrind knows no AVX-512
        .env("RAYON_NUM_THREADS", "1"),
    library_benchmark_groups = kernels
);

/// How many instructions were counted, of which [`MARGIN`] makes the limit.
fn measured(instructions: u64) -> LibraryBenchmarkConfig {
    let most = (instructions as f64 * MARGIN) as u64;
    LibraryBenchmarkConfig::default()
        .tool(Callgrind::with_args(["--cache-sim=no"]).hard_limits([(EventKind::Ir, most)]))
        .clone()
}

type Kernel = Box<dyn FnMut()>;

/// Runs it once, so that threads and scratch are there when it is counted.
fn warm(mut kernel: impl FnMut() + 'static) -> Kernel {
    assert_eq!(
        Isa::of_this_machine(),
        Isa::Avx2,
        "the figures are of AVX2 with FMA, which valgrind offers only where the processor has them"
    );
    kernel();
    Box::new(kernel)
}

fn values(len: usize) -> Vec<f32> {
    (0..len)
        .map(|i| ((i * 7919) % 1013) as f32 / 500.0 - 1.0)
        .collect()
}

fn tokens() -> Vec<u32> {
    (0..TOKENS).map(|i| ((i * 7919) % VOCABULARY) as u32).collect()
}

fn product() -> Kernel {
    let (n, o, i) = LAYER;
    let (x, w, mut y) = (values(n * i), values(o * i), values(n * o));
    warm(move || {
        let (x_ni, w_oi) = (Matrix::new(&x, n, i), Matrix::new(&w, o, i));
        matmul(x_ni, w_oi.t(), MatrixMut::new(&mut y, n, o), Into::Fresh);
    })
}

fn product_dx() -> Kernel {
    let (n, o, i) = LAYER;
    let (dy, w, mut dx) = (values(n * o), values(o * i), values(n * i));
    warm(move || {
        let (dy_no, w_oi) = (Matrix::new(&dy, n, o), Matrix::new(&w, o, i));
        matmul(dy_no, w_oi, MatrixMut::new(&mut dx, n, i), Into::Fresh);
    })
}

fn product_dw() -> Kernel {
    let (n, o, i) = LAYER;
    let (dy, x, mut dw) = (values(n * o), values(n * i), values(o * i));
    warm(move || {
        let (dy_no, x_ni) = (Matrix::new(&dy, n, o), Matrix::new(&x, n, i));
        matmul(dy_no.t(), x_ni, MatrixMut::new(&mut dw, o, i), Into::Sum);
    })
}

fn attend() -> Kernel {
    let outputs = ATTENTION.heads * ATTENTION.width;
    let qkv = values(ATTENTION.tokens() * ATTENTION.row());
    let (mut y, mut lse) = (
        values(ATTENTION.tokens() * outputs),
        values(ATTENTION.tokens() * ATTENTION.heads),
    );
    warm(move || attention(&qkv, ATTENTION, &mut y, &mut lse))
}

fn attend_backward() -> Kernel {
    let outputs = ATTENTION.heads * ATTENTION.width;
    let qkv = values(ATTENTION.tokens() * ATTENTION.row());
    let (mut y, mut lse) = (
        values(ATTENTION.tokens() * outputs),
        values(ATTENTION.tokens() * ATTENTION.heads),
    );
    attention(&qkv, ATTENTION, &mut y, &mut lse);
    let (dy, mut dqkv) = (values(y.len()), values(qkv.len()));
    warm(move || {
        let forward = Forward {
            qkv: &qkv,
            y: &y,
            lse: &lse,
        };
        attention_backward(forward, ATTENTION, &dy, &mut dqkv);
    })
}

fn normalize() -> Kernel {
    let (x, w, mut z) = (values(TOKENS * WIDTH), values(WIDTH), values(TOKENS * WIDTH));
    warm(move || rms_norm(&x, &w, EPS, &mut z))
}

fn normalize_backward() -> Kernel {
    let (x, w, dz) = (values(TOKENS * WIDTH), values(WIDTH), values(TOKENS * WIDTH));
    let (mut dx, mut dw) = (values(x.len()), values(WIDTH));
    warm(move || rms_norm_backward(&x, &w, EPS, &dz, &mut dx, &mut dw))
}

fn turn(turn: Turn) -> Kernel {
    let (heads, width) = (4, WIDTH / 4);
    let (rotary, mut x) = (Rotary::new(TOKENS, width, 10_000.0), values(TOKENS * WIDTH));
    warm(move || rotary.turn(&mut MatrixMut::new(&mut x, TOKENS, WIDTH), heads, TOKENS, turn))
}

fn gate() -> Kernel {
    let (gate_up, mut a) = (values(2 * TOKENS * WIDTH), values(TOKENS * WIDTH));
    warm(move || swiglu(&gate_up, WIDTH, &mut a))
}

fn gate_backward() -> Kernel {
    let (mut gate_up, mut da) = (values(2 * TOKENS * WIDTH), values(TOKENS * WIDTH));
    warm(move || swiglu_backward(&mut gate_up, WIDTH, &mut da))
}

fn head() -> Kernel {
    let (h, w, targets) = (values(TOKENS * WIDTH), values(VOCABULARY * WIDTH), tokens());
    let (mut dh, mut dw) = (values(h.len()), values(w.len()));
    warm(move || {
        let gradients = Gradients {
            dh: &mut dh,
            dw: &mut dw,
            scale: 1.0 / TOKENS as f32,
        };
        std::hint::black_box(cross_entropy(&h, &w, WIDTH, &targets, Some(gradients)));
    })
}

fn look_up() -> Kernel {
    let (tokens, table, mut x) = (tokens(), values(VOCABULARY * WIDTH), values(TOKENS * WIDTH));
    warm(move || embed(&tokens, &table, &mut x))
}

fn look_up_backward() -> Kernel {
    let (tokens, dx, mut dtable) = (tokens(), values(TOKENS * WIDTH), values(VOCABULARY * WIDTH));
    warm(move || embed_backward(&tokens, &dx, &mut dtable))
}

fn gradient_norm() -> Kernel {
    let gradient = values(PARAMETERS);
    warm(move || {
        std::hint::black_box(adamw::norm(&gradient));
    })
}

fn update() -> Kernel {
    let (mut weights, gradient) = (values(PARAMETERS), values(PARAMETERS));
    let (mut first, mut second) = (vec![0.0; PARAMETERS], vec![0.0; PARAMETERS]);
    let constants = Constants {
        scale: 1.0,
        beta1: 0.9,
        beta2: 0.95,
        rest1: 0.1,
        rest2: 0.05,
        eps: 1e-8,
        rate: 1e-3,
        root: 1.0,
        keep: 0.999,
    };
    warm(move || {
        let of = Updated {
            weights: &mut weights,
            first: &mut first,
            second: &mut second,
        };
        adamw::update(of, &gradient, constants);
    })
}
