//! The first frame of a connection: who opens it, what for, and a secret that shows that it may.

use lockstep_engine::ids::Step;

use crate::frame::FrameError;

/// From a member to a member: frames of groups come next.
#[derive(Clone, PartialEq, Eq)]
pub struct Hello {
    /// The sender's identity in full.
    pub identity: String,
    /// The job's token.
    pub token: String,
    /// The [host](lockstep_shm::host) that it shares memory with; empty if with none.
    pub host: String,
    /// The sender's number for the link that the connection is of. A link may have several connections; one with a
    /// higher number takes the place of all that came before it.
    pub link: u64,
}

/// From a follower to its donor: the donor talks next.
#[derive(Clone, PartialEq, Eq)]
pub struct Follow {
    /// The sender's identity in full.
    pub identity: String,
    /// The job's token.
    pub token: String,
    /// The identity of whom it wants to follow.
    pub donor: String,
    /// The lowest step whose state it can use.
    pub at_least: Step,
    /// The step whose state it holds already.
    pub held: Option<Step>,
}

impl std::fmt::Debug for Hello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello")
            .field("identity", &self.identity)
            .field("host", &self.host)
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Follow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follow")
            .field("identity", &self.identity)
            .field("donor", &self.donor)
            .field("at_least", &self.at_least)
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

impl Hello {
    /// As the payload of a frame: each text as its length in four bytes, then UTF-8; the link's number in eight bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_texts(&mut bytes, &[&self.identity, &self.token, &self.host]);
        bytes.extend_from_slice(&self.link.to_le_bytes());
        bytes
    }

    /// From the payload of a frame.
    ///
    /// # Errors
    /// When it is not exactly that.
    pub fn decode(mut payload: &[u8]) -> Result<Self, FrameError> {
        let mut read = || {
            let (identity, token, host) = (text(&mut payload)?, text(&mut payload)?, text(&mut payload)?);
            let link = word(&mut payload)?;
            payload.is_empty().then_some(Self {
                identity,
                token,
                host,
                link,
            })
        };
        read().ok_or(FrameError::Hello)
    }
}

impl Follow {
    /// As the payload of a frame: the texts as in a [`Hello`], the lowest step in eight bytes, and the held one
    /// too if there is one.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_texts(&mut bytes, &[&self.identity, &self.token, &self.donor]);
        for step in [Some(self.at_least), self.held].into_iter().flatten() {
            bytes.extend_from_slice(&step.0.to_le_bytes());
        }
        bytes
    }

    /// From the payload of a frame.
    ///
    /// # Errors
    /// When it is not exactly that.
    pub fn decode(mut payload: &[u8]) -> Result<Self, FrameError> {
        let mut read = || {
            let (identity, token) = (text(&mut payload)?, text(&mut payload)?);
            let (donor, at_least) = (text(&mut payload)?, step(&mut payload)?);
            let held = if payload.is_empty() {
                None
            } else {
                Some(step(&mut payload)?)
            };
            payload.is_empty().then_some(Self {
                identity,
                token,
                donor,
                at_least,
                held,
            })
        };
        read().ok_or(FrameError::Hello)
    }
}

/// Whether two tokens are equal; takes as long wherever they differ.
pub(crate) fn same_token(found: &str, expected: &str) -> bool {
    let differing = found
        .bytes()
        .zip(expected.bytes())
        .fold(0, |acc, (a, b)| acc | (a ^ b));
    found.len() == expected.len() && differing == 0
}

fn put_texts(bytes: &mut Vec<u8>, texts: &[&str]) {
    for text in texts {
        bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
}

fn text(payload: &mut &[u8]) -> Option<String> {
    let (length, rest) = payload.split_first_chunk::<4>()?;
    let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *payload = rest;
    String::from_utf8(text.to_vec()).ok()
}

fn step(payload: &mut &[u8]) -> Option<Step> {
    word(payload).map(Step)
}

fn word(payload: &mut &[u8]) -> Option<u64> {
    let (word, rest) = payload.split_first_chunk::<8>()?;
    *payload = rest;
    Some(u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn greetings_survive_the_wire_and_cut_ones_are_refused(
            texts in prop::array::uniform3(".{0,40}"), link: u64,
        ) {
            let [identity, token, host] = texts;
            let hello = Hello { identity, token, host, link };
            let bytes = hello.encode();
            prop_assert_eq!(Hello::decode(&bytes), Ok(hello));
            for cut in 0..bytes.len() {
                prop_assert_eq!(Hello::decode(&bytes[..cut]), Err(FrameError::Hello));
            }
        }

        #[test]
        fn so_do_those_of_followers(
            texts in prop::array::uniform3(".{0,40}"), at_least: u64, held in prop::option::of(any::<u64>()),
        ) {
            let [identity, token, donor] = texts;
            let (at_least, held) = (Step(at_least), held.map(Step));
            let follow = Follow { identity, token, donor, at_least, held };
            let bytes = follow.encode();
            prop_assert_eq!(Follow::decode(&bytes), Ok(follow.clone()));
            for cut in 0..bytes.len() {
                // What is left when exactly the held step is cut off is a greeting without one.
                let without = (cut + 8 == bytes.len() && held.is_some())
                    .then(|| Follow { held: None, ..follow.clone() });
                prop_assert_eq!(Follow::decode(&bytes[..cut]).ok(), without);
            }
        }

        #[test]
        fn only_the_same_token_is_the_same(token in ".{0,40}", at: prop::sample::Index) {
            prop_assert!(same_token(&token, &token));
            let (longer, mut other) = (format!("{token}x"), token.clone().into_bytes());
            prop_assert!(!same_token(&longer, &token) && !same_token(&token, &longer));
            if !other.is_empty() {
                let at = at.index(other.len());
                other[at] = if other[at] == b'a' { b'b' } else { b'a' };
                prop_assert!(!same_token(&String::from_utf8_lossy(&other), &token));
            }
        }
    }
}
