//! Bytes as they arrive: whole, damaged in a few places, or noise.

use proptest::prelude::*;
use proptest::sample::Index;

/// One of the samples with some damage, and at times bytes that were never anything.
pub(crate) fn arriving(samples: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let noise = prop::collection::vec(any::<u8>(), 0..600);
    let damages = prop::collection::vec(damage(), 0..6);
    let damaged = (any::<Index>(), any::<Index>(), damages).prop_map(move |(one, other, damages)| {
        let other: &Vec<u8> = other.get(&samples);
        damaged(one.get(&samples).clone(), other, &damages)
    });
    prop_oneof![1 => noise, 9 => damaged]
}

/// What parsers look for, and numbers at the edges of what they hold.
const MAGIC: &[&[u8]] = &[
    &[0; 8],
    &[0xff; 4],
    &[0xff, 0xff, 0xff, 0x7f],
    &[0xed, 0xa0, 0x80],
    b"99999999",
    b"-1",
    b"1e999",
    b"\"",
    b"\n",
    b"\r\n\r\n",
    b"\\u0000",
    b"<table><div>",
    b"&#x110000;",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\x1f\x8b\x08",
    b"\x28\xb5\x2f\xfd",
    b"PAR1",
    b"WARC/1.0\r\n",
    b"[[",
];

/// What may happen to bytes.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Write(Index, Vec<u8>),
    CutOut(Index, Index),
    Repeat(Index, Index, u8),
    Truncate(Index),
    /// A piece of another sample is put in.
    Splice(Index, Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let bytes = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        prop::collection::vec(any::<u8>(), 1..9),
        proptest::sample::select(MAGIC).prop_map(<[u8]>::to_vec),
    ];
    let at = any::<Index>;
    prop_oneof![
        6 => (at(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        4 => (at(), bytes).prop_map(|(at, bytes)| Damage::Write(at, bytes)),
        2 => (at(), at()).prop_map(|(from, to)| Damage::CutOut(from, to)),
        1 => (at(), at(), 1..20_u8).prop_map(|(from, to, times)| Damage::Repeat(from, to, times)),
        1 => at().prop_map(Damage::Truncate),
        1 => (at(), at(), at()).prop_map(|(at, from, to)| Damage::Splice(at, from, to)),
    ]
}

/// The bytes after all that happened to them; `other` is where pieces come from.
fn damaged(mut bytes: Vec<u8>, other: &[u8], damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        if bytes.is_empty() {
            break;
        }
        let length = bytes.len();
        let ordered = |a: &Index, b: &Index, length: usize| {
            let (a, b) = (a.index(length), b.index(length));
            a.min(b)..a.max(b)
        };
        match damage {
            Damage::Flip(at, bit) => bytes[at.index(length)] ^= 1 << bit,
            Damage::Write(at, new) => {
                let at = at.index(length);
                let end = (at + new.len()).min(length);
                bytes.splice(at..end, new.iter().copied());
            }
            Damage::CutOut(from, to) => drop(bytes.drain(ordered(from, to, length))),
            Damage::Repeat(from, to, times) => {
                let range = ordered(from, to, length);
                let piece = bytes[range.clone()].repeat(usize::from(*times));
                bytes.splice(range, piece);
            }
            Damage::Truncate(at) => bytes.truncate(at.index(length)),
            Damage::Splice(at, from, to) => {
                let at = at.index(length);
                let piece = &other[ordered(from, to, other.len().max(1))];
                bytes.splice(at..at, piece.iter().copied());
            }
        }
    }
    bytes
}
