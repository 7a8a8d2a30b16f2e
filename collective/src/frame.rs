//! The frame: a header of 64 bytes, then the payload.
//!
//! All numbers are little-endian. Offsets in bytes:
//!
//! | at | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `LKST` |
//! | 4 | 2 | version |
//! | 6 | 1 | kind |
//! | 7 | 1 | zero |
//! | 8 | 8 | job |
//! | 16 | 8 | epoch |
//! | 24 | 8 | step |
//! | 32 | 4 | bucket |
//! | 36 | 4 | chunk |
//! | 40 | 4 | first lane of the node |
//! | 44 | 4 | lanes of the node |
//! | 48 | 8 | length of the payload in bytes |
//! | 56 | 4 | CRC-32C of the payload |
//! | 60 | 4 | CRC-32C of bytes 0 to 59 |

use lockstep_engine::geometry::Node;
use lockstep_engine::ids::{Epoch, Step};

use crate::limits::{MAX_HELLO_BYTES, MAX_PARTS, MAX_PAYLOAD_BYTES};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 64;

const MAGIC: [u8; 4] = *b"LKST";
const VERSION: u16 = 5;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The first of a connection to a member: a [`Hello`](crate::greeting::Hello).
    Hello = 1,
    /// A partial of a member, or of all of its host, at `node` of piece `chunk` of `bucket`, for the piece's owner.
    Partial = 2,
    /// The reduced piece `chunk` of `bucket`, from its owner.
    Reduced = 3,
    /// In a feed: the state as of `step` comes, in [`Values`](Self::Values). The payload is the number of values
    /// of each part, in eight bytes.
    State = 4,
    /// The last of a connection to a member that the sender's group, of the frame's epoch, no longer has.
    Bye = 5,
    /// The first of a connection to a donor: a [`Follow`](crate::greeting::Follow).
    Follow = 6,
    /// In a feed: the follower holds the state of `step`, and so does the donor.
    Same = 7,
    /// In a feed: the reduced gradient of `step` comes, as a [`State`](Self::State) of one part; of none if the
    /// step was skipped.
    Gradient = 8,
    /// In a feed: piece `chunk` of part `bucket` of what was announced.
    Values = 9,
    /// In a feed: there is nothing to tell, and the donor is alive.
    Idle = 10,
    /// The only one of a feed: the donor does not take this follower, and says why in UTF-8.
    Refused = 11,
    /// Where the sender's segment of shared memory is, in 24 bytes; nothing if it has none. See `agreement`.
    Segment = 12,
    /// The sender has opened the segments of all other members of its host.
    Ready = 13,
}

impl Kind {
    const ALL: [Self; 13] = [
        Self::Hello,
        Self::Partial,
        Self::Reduced,
        Self::State,
        Self::Bye,
        Self::Follow,
        Self::Same,
        Self::Gradient,
        Self::Values,
        Self::Idle,
        Self::Refused,
        Self::Segment,
        Self::Ready,
    ];

    fn from_wire(found: u8) -> Result<Self, FrameError> {
        Self::ALL
            .into_iter()
            .find(|&kind| kind as u8 == found)
            .ok_or(FrameError::Kind { found })
    }

    /// The most bytes of its payload, and what these are a multiple of.
    fn bounds(self) -> (u64, u64) {
        match self {
            Self::Hello | Self::Follow | Self::Refused => (MAX_HELLO_BYTES, 1),
            Self::Partial | Self::Reduced | Self::Values => (MAX_PAYLOAD_BYTES, size_of::<f32>() as u64),
            Self::State => (8 * MAX_PARTS as u64, 8),
            Self::Gradient => (8, 8),
            Self::Segment => (24, 24),
            Self::Bye | Self::Same | Self::Idle | Self::Ready => (0, 1),
        }
    }
}

/// Everything that a frame says about its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is for.
    pub kind: Kind,
    /// The tag of the job that both ends belong to.
    pub job: u64,
    /// The sender's epoch.
    pub epoch: Epoch,
    /// The step that the payload is of.
    pub step: Step,
    /// Index of the bucket, or of the part of what a feed tells.
    pub bucket: u32,
    /// Index of the piece in its bucket or part.
    pub chunk: u32,
    /// The tree node of a partial.
    pub node: Node,
    /// Bytes of the payload.
    pub length: u64,
    /// CRC-32C of the payload.
    pub payload_crc: u32,
}

/// Why a frame is not one of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It does not start as ours do.
    #[error("magic {found:02x?}: the other end speaks another protocol")]
    Magic {
        /// The four bytes.
        found: [u8; 4],
    },
    /// It is of another version of this format.
    #[error("version {found} where this build speaks {VERSION}: run the same build everywhere")]
    Version {
        /// The version.
        found: u16,
    },
    /// The header's checksum fails.
    #[error("the header's checksum fails: look for a bad link or memory")]
    HeaderChecksum,
    /// The payload's checksum fails.
    #[error("the payload's checksum fails: look for a bad link or memory")]
    PayloadChecksum,
    /// There is no such kind, or not at this place.
    #[error("unexpected kind {found}")]
    Kind {
        /// The kind's number.
        found: u8,
    },
    /// The payload is too long.
    #[error("a payload of {length} bytes where at most {limit} are allowed")]
    Oversize {
        /// Bytes announced.
        length: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The payload is not a whole number of values, or of lengths.
    #[error("a payload of {length} bytes is not a whole number of what it holds")]
    Ragged {
        /// Bytes announced.
        length: u64,
    },
    /// It belongs to another job.
    #[error("job {found:016x} where {expected:016x} is run: two jobs share an address")]
    Job {
        /// The frame's job.
        found: u64,
        /// The endpoint's job.
        expected: u64,
    },
    /// A greeting that cannot be read.
    #[error("a malformed greeting")]
    Hello,
    /// A greeting with another token.
    #[error("a greeting with the wrong token")]
    Token,
    /// A frame of a feed that is not the one that comes next, or that this follower cannot use.
    #[error("{found} where {expected} is expected")]
    Feed {
        /// What the frame says.
        found: String,
        /// What fits.
        expected: String,
    },
}

impl Header {
    /// A header without payload, of the kind that concerns no step.
    #[must_use]
    pub fn bare(kind: Kind, job: u64, epoch: Epoch) -> Self {
        let node = Node { start: 0, len: 0 };
        Self {
            kind,
            job,
            epoch,
            step: Step(0),
            bucket: 0,
            chunk: 0,
            node,
            length: 0,
            payload_crc: 0,
        }
    }

    /// The same, announcing `payload`.
    #[must_use]
    pub fn announcing(self, payload: &[u8]) -> Self {
        Self {
            length: payload.len() as u64,
            payload_crc: crc_fast::crc32_iscsi(payload),
            ..self
        }
    }

    /// As bytes for the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(&MAGIC);
        put(&VERSION.to_le_bytes());
        put(&[self.kind as u8, 0]);
        put(&self.job.to_le_bytes());
        put(&self.epoch.0.to_le_bytes());
        put(&self.step.0.to_le_bytes());
        put(&self.bucket.to_le_bytes());
        put(&self.chunk.to_le_bytes());
        put(&self.node.start.to_le_bytes());
        put(&self.node.len.to_le_bytes());
        put(&self.length.to_le_bytes());
        put(&self.payload_crc.to_le_bytes());
        let crc = crc_fast::crc32_iscsi(&bytes[..HEADER_BYTES - 4]);
        bytes[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// From bytes of the wire.
    ///
    /// # Errors
    /// When any check fails: magic, version, checksum, kind, and the bounds of the payload's length.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let magic = field(bytes, 0);
        if magic != MAGIC {
            return Err(FrameError::Magic { found: magic });
        }
        let version = u16::from_le_bytes(field(bytes, 4));
        if version != VERSION {
            return Err(FrameError::Version { found: version });
        }
        if u32::from_le_bytes(field(bytes, 60)) != crc_fast::crc32_iscsi(&bytes[..HEADER_BYTES - 4]) {
            return Err(FrameError::HeaderChecksum);
        }
        let kind = Kind::from_wire(bytes[6])?;
        let length = u64::from_le_bytes(field(bytes, 48));
        let (limit, multiple) = kind.bounds();
        if length > limit {
            return Err(FrameError::Oversize { length, limit });
        }
        if length % multiple != 0 {
            return Err(FrameError::Ragged { length });
        }
        let word = |at| u32::from_le_bytes(field(bytes, at));
        let long = |at| u64::from_le_bytes(field(bytes, at));
        Ok(Self {
            kind,
            job: long(8),
            epoch: Epoch(long(16)),
            step: Step(long(24)),
            bucket: word(32),
            chunk: word(36),
            node: Node {
                start: word(40),
                len: word(44),
            },
            length,
            payload_crc: word(56),
        })
    }

    /// Whether this is the payload that was announced.
    ///
    /// # Errors
    /// When its checksum is another.
    pub fn check(&self, payload: &[u8]) -> Result<(), FrameError> {
        let same = payload.len() as u64 == self.length && crc_fast::crc32_iscsi(payload) == self.payload_crc;
        if same {
            Ok(())
        } else {
            Err(FrameError::PayloadChecksum)
        }
    }
}

/// The `N` bytes at a place that is known to exist.
fn field<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers() -> impl Strategy<Value = Header> {
        let kinds = prop::sample::select(Kind::ALL.as_slice());
        (kinds, any::<[u64; 4]>(), any::<[u32; 5]>()).prop_map(|(kind, long, word)| Header {
            kind,
            job: long[0],
            epoch: Epoch(long[1]),
            step: Step(long[2]),
            bucket: word[0],
            chunk: word[1],
            node: Node {
                start: word[2],
                len: word[3],
            },
            length: (long[3] % (kind.bounds().0 + 1)) / 24 * 24,
            payload_crc: word[4],
        })
    }

    proptest! {
        #[test]
        fn headers_survive_the_wire(header in headers()) {
            prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn every_flipped_bit_of_a_header_is_seen(header in headers()) {
            let good = header.encode();
            for bit in 0..HEADER_BYTES * 8 {
                let mut bad = good;
                bad[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(Header::decode(&bad).is_err(), "bit {}", bit);
            }
        }

        #[test]
        fn every_flipped_bit_of_a_payload_is_seen(payload in prop::collection::vec(any::<u8>(), 1..80)) {
            let header = Header::bare(Kind::Values, 1, Epoch(1)).announcing(&payload);
            prop_assert_eq!(header.check(&payload), Ok(()));
            for bit in 0..payload.len() * 8 {
                let mut bad = payload.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                prop_assert_eq!(header.check(&bad), Err(FrameError::PayloadChecksum));
            }
            prop_assert!(header.check(&payload[1..]).is_err());
        }

        #[test]
        fn noise_is_never_a_header(noise in prop::collection::vec(any::<u8>(), HEADER_BYTES)) {
            prop_assert!(Header::decode(noise.as_slice().try_into().unwrap()).is_err());
        }
    }

    #[test]
    fn lengths_are_bounded_by_kind() {
        for (kind, limit) in [
            (Kind::Hello, MAX_HELLO_BYTES),
            (Kind::Partial, MAX_PAYLOAD_BYTES),
            (Kind::State, 8 * MAX_PARTS as u64),
            (Kind::Gradient, 8),
            (Kind::Bye, 0),
        ] {
            let length = limit + 8;
            let header = Header {
                length,
                ..Header::bare(kind, 0, Epoch(0))
            };
            assert_eq!(
                Header::decode(&header.encode()),
                Err(FrameError::Oversize { length, limit })
            );
        }
        let ragged = Header {
            length: 6,
            ..Header::bare(Kind::Reduced, 0, Epoch(0))
        };
        assert_eq!(
            Header::decode(&ragged.encode()),
            Err(FrameError::Ragged { length: 6 })
        );
        let huge = Header {
            length: u64::MAX,
            ..Header::bare(Kind::State, 0, Epoch(0))
        };
        assert!(matches!(
            Header::decode(&huge.encode()),
            Err(FrameError::Oversize { .. })
        ));
    }
}
