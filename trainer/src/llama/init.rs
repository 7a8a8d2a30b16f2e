//! Initial weights, from counters: no order of creation, no state.

use lockstep_engine::random::Stream;
use lockstep_engine::spec::ModelSpec;
use rayon::prelude::*;

/// Standard deviation of a matrix.
const DEVIATION: f64 = 0.02;

/// Pairs of normals that a parallel task draws.
const BLOCK: usize = 4096;

/// The initial values of the parameter `name`.
pub(crate) fn weights(spec: &ModelSpec, seed: u64, name: &str, shape: &[usize]) -> Vec<f32> {
    let len = shape.iter().product();
    if shape.len() < 2 {
        return vec![1.0; len];
    }
    let writes_to_residual = name.contains("o_proj") || name.contains("down_proj");
    let residual_writes = 2.0 * spec.num_hidden_layers as f64;
    let deviation = if writes_to_residual {
        DEVIATION / residual_writes.sqrt()
    } else {
        DEVIATION
    };
    let stream = Stream::new(seed, site(name));
    let mut values = vec![0.0f32; len];
    values
        .par_chunks_mut(2 * BLOCK)
        .enumerate()
        .for_each(|(block, values)| {
            for (i, pair) in values.chunks_mut(2).enumerate() {
                let drawn = stream.normal_pair((block * BLOCK + i) as u64);
                for (value, x) in pair.iter_mut().zip(drawn) {
                    *value = (deviation * x) as f32;
                }
            }
        });
    values
}

/// The stream of a parameter: the first eight bytes of its name's BLAKE3 digest.
fn site(name: &str) -> u64 {
    let digest = blake3::hash(name.as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_engine::spec::presets;

    #[test]
    fn scales_are_as_documented() {
        let spec = &presets()[0].model; // two layers: 2 · layers = 4
        let deviation = |name: &str| {
            let values = weights(spec, 1, name, &[300, 300]);
            let squares: f64 = values.iter().map(|&x| f64::from(x).powi(2)).sum();
            (squares / values.len() as f64).sqrt()
        };
        // Standard error of a deviation over 90,000 draws: 0.24 %.
        for (name, expected) in [
            ("a.q_proj.weight", 0.02),
            ("a.o_proj.weight", 0.01),
            ("a.down_proj.weight", 0.01),
        ] {
            assert!((deviation(name) / expected - 1.0).abs() < 0.01, "{name}");
        }
        assert_eq!(weights(spec, 1, "a.layernorm.weight", &[3]), [1.0; 3]);
    }

    #[test]
    fn values_depend_on_seed_and_name_and_not_on_size() {
        let spec = &presets()[0].model;
        let draw = |seed, name, n| weights(spec, seed, name, &[n, 1]);
        assert_eq!(draw(1, "a", 100), draw(1, "a", 20_001)[..100]);
        assert_ne!(draw(1, "a", 100), draw(2, "a", 100));
        assert_ne!(draw(1, "a", 100), draw(1, "b", 100));
    }
}
