//! A reader of Megatron's indexed datasets, from the description of the format alone.

use std::fs;
use std::path::Path;

/// The documents of `prefix.bin` and `prefix.idx`, each with all its tokens.
pub(crate) fn documents(prefix: &Path) -> Vec<Vec<u32>> {
    let idx = fs::read(prefix.with_extension("idx")).unwrap();
    let bin = fs::read(prefix.with_extension("bin")).unwrap();
    let mut cursor = &idx[..];
    let mut take = |count: usize| {
        let (head, tail) = cursor.split_at(count);
        cursor = tail;
        head
    };
    assert_eq!(take(9), b"MMIDIDX\x00\x00");
    assert_eq!(take(8), [1, 0, 0, 0, 0, 0, 0, 0]);
    let width = match take(1)[0] {
        8 => 2,
        4 => 4,
        other => panic!("token type {other}"),
    };
    let long = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap()) as usize;
    let sequences = long(take(8));
    let bounds = long(take(8));
    let lengths: Vec<usize> = take(4 * sequences)
        .chunks(4)
        .map(|b| i32::from_le_bytes(b.try_into().unwrap()) as usize)
        .collect();
    let pointers: Vec<usize> = take(8 * sequences).chunks(8).map(long).collect();
    let bounds: Vec<usize> = take(8 * bounds).chunks(8).map(long).collect();
    assert!(cursor.is_empty(), "{} bytes behind the lists", cursor.len());
    assert_eq!(lengths.iter().sum::<usize>() * width, bin.len());

    let sequence = |i: usize| {
        let bytes = &bin[pointers[i]..][..lengths[i] * width];
        bytes.chunks(width).map(|b| {
            b.iter()
                .rev()
                .fold(0, |token, byte| token << 8 | u32::from(*byte))
        })
    };
    assert_eq!((bounds[0], *bounds.last().unwrap()), (0, sequences));
    bounds
        .windows(2)
        .map(|pair| (pair[0]..pair[1]).flat_map(sequence).collect())
        .collect()
}
