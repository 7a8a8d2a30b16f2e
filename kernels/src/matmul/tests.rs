use proptest::prelude::*;

use super::*;

fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// What the documentation of the module says, word by word.
fn by_definition(a: Matrix<'_>, b: Matrix<'_>, held: f32, i: usize, j: usize, into: Into) -> f32 {
    let at = |m: Matrix<'_>, i: usize, j: usize| m.data[i * m.row + j * m.col];
    let mut total = (into == Into::Sum).then_some(held);
    for k0 in (0..a.cols).step_by(KC) {
        let block = (k0..(k0 + KC).min(a.cols)).fold(0.0f32, |sum, k| at(a, i, k).mul_add(at(b, k, j), sum));
        total = Some(total.map_or(block, |total| total + block));
    }
    total.unwrap_or(0.0)
}

/// Compares every bit of a product with the definition, and what is beside the result with what it was.
fn is_as_defined(
    (m, n, k): (usize, usize, usize),
    (a_t, b_t): (bool, bool),
    into: Into,
    gap: usize,
    seed: u64,
) {
    let matrix = |rows: usize, cols: usize, transposed: bool, seed| {
        let (r, c) = if transposed { (cols, rows) } else { (rows, cols) };
        (values(r.max(1) * (c + gap), seed), r, c)
    };
    let (a, a_rows, a_cols) = matrix(m, k, a_t, seed);
    let (b, b_rows, b_cols) = matrix(k, n, b_t, seed ^ 1);
    let a = Matrix::strided(&a, a_rows, a_cols, a_cols + gap);
    let b = Matrix::strided(&b, b_rows, b_cols, b_cols + gap);
    let (a, b) = (if a_t { a.t() } else { a }, if b_t { b.t() } else { b });
    let before = values(m * (n + gap), seed ^ 2);
    let mut c = before.clone();
    matmul(a, b, MatrixMut::strided(&mut c, m, n, n + gap), into);
    for (at, (found, held)) in c.iter().zip(&before).enumerate() {
        let (i, j) = (at / (n + gap), at % (n + gap));
        let expected = if j < n {
            by_definition(a, b, *held, i, j, into)
        } else {
            *held
        };
        assert_eq!(found.to_bits(), expected.to_bits(), "({i}, {j})");
    }
}

/// More rows, columns and terms than are packed at a time, and a left side that is.
#[test]
fn blocks_of_all_axes_meet() {
    for a_t in [false, true] {
        for into in [Into::Fresh, Into::Sum] {
            is_as_defined((MC + 5, NC + 33, 3), (a_t, !a_t), into, 1, 9);
        }
    }
    is_as_defined((MC + 5, DIRECT + 1, KC + 3), (true, true), Into::Sum, 0, 10);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Few columns and, of a transposed left side, enough that it is packed.
    #[test]
    fn elements_are_as_defined(
        m in 1usize..60, n in prop_oneof![3 => 1usize..90, 1 => DIRECT + 1..DIRECT + 45],
        k in prop_oneof![0usize..40, 370usize..790], a_t: bool, b_t: bool, adds: bool, gap in 0usize..5, seed: u64,
    ) {
        let into = if adds { Into::Sum } else { Into::Fresh };
        is_as_defined((m, n, k), (a_t, b_t), into, gap, seed);
    }

    /// One packed matrix, used in parts.
    #[test]
    fn parts_of_a_packed_matrix_are_parts_of_the_product(
        m in 1usize..30, n in 33usize..100, k in 385usize..800, terms in 1usize..256, seed: u64,
    ) {
        let (a, b) = (values(m * k, seed), values(k * n, seed ^ 1));
        let (a, b) = (Matrix::new(&a, m, k), Matrix::new(&b, k, n));
        let mut packed = Packed::default();
        packed.pack(b);
        let (mut whole, mut part) = (vec![0.0; m * n], vec![0.0; m * (n - NR)]);
        matmul(a, b, MatrixMut::new(&mut whole, m, n), Into::Fresh);
        packed.multiply(a, NR..n, MatrixMut::new(&mut part, m, n - NR), Into::Fresh);
        for i in 0..m {
            prop_assert_eq!(&whole[i * n + NR..(i + 1) * n], &part[i * (n - NR)..(i + 1) * (n - NR)]);
        }
        // Some terms from the second block on.
        let terms = KC..(KC + terms).min(k);
        let (left, right) = (a.window(0..m, terms.clone()), b.window(terms.clone(), 0..n));
        let (mut expected, mut found) = (vec![0.0; m * n], vec![0.0; m * n]);
        matmul(left, right, MatrixMut::new(&mut expected, m, n), Into::Fresh);
        packed.multiply_terms(left, terms, MatrixMut::new(&mut found, m, n), Into::Fresh);
        prop_assert_eq!(expected, found);
    }
}

#[test]
#[should_panic(expected = "the result's shape")]
fn shapes_that_do_not_fit_are_refused() {
    let (a, mut c) = ([0.0; 6], [0.0; 6]);
    matmul(
        Matrix::new(&a, 2, 3),
        Matrix::new(&a, 3, 2),
        MatrixMut::new(&mut c, 2, 3),
        Into::Fresh,
    );
}

/// Several threads compute several products at once, each waiting for pieces of its own.
#[test]
fn products_inside_of_products_do_not_disturb_each_other() {
    use rayon::prelude::*;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let (m, n, k) = (3 * MC, 40, 60);
    let (a, b) = (values(m * k, 1), values(k * n, 2));
    let product = || {
        let mut c = vec![0.0; m * n];
        matmul(
            Matrix::new(&a, m, k),
            Matrix::new(&b, k, n),
            MatrixMut::new(&mut c, m, n),
            Into::Fresh,
        );
        c
    };
    let alone = product();
    let all: Vec<Vec<f32>> = pool.install(|| (0..24).into_par_iter().map(|_| product()).collect());
    assert!(all.iter().all(|c| *c == alone));
}
