//! Digits as they are written: groups, and what separates them.

/// More groups than any number that is looked for has.
pub(super) const MAX_GROUPS: usize = 8;
/// More digits than any number that is looked for has.
pub(super) const MAX_DIGITS: usize = 20;

/// What separates two groups of digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Separator {
    /// A space, also one that does not break.
    Space,
    /// A hyphen, also one that does not break, or an en dash.
    Hyphen,
    Dot,
    Slash,
    /// `(`, with a space before it or without.
    Open,
    /// `)`, with a space or hyphen behind it or without.
    Close,
}

/// Groups of digits, one separator between each, from where one group begins.
#[derive(Debug)]
pub(super) struct Groups {
    /// How many.
    pub(super) count: usize,
    /// The digits of each.
    pub(super) lengths: [u8; MAX_GROUPS],
    /// Where each ends in the text.
    pub(super) ends: [usize; MAX_GROUPS],
    /// What follows each but the last.
    pub(super) separators: [Separator; MAX_GROUPS],
    /// The digits of all, as values.
    digits: [u8; MAX_DIGITS],
    /// How many digits there are.
    pub(super) total: usize,
}

impl Groups {
    /// Reads the groups from `start`, where a digit is. A group that would make them too many is left out.
    pub(super) fn read(bytes: &[u8], start: usize) -> Self {
        let mut groups = Self {
            count: 0,
            lengths: [0; MAX_GROUPS],
            ends: [start; MAX_GROUPS],
            separators: [Separator::Space; MAX_GROUPS],
            digits: [0; MAX_DIGITS],
            total: 0,
        };
        let mut at = start;
        while groups.count < MAX_GROUPS {
            let length = run(&bytes[at..], MAX_DIGITS + 1 - groups.total);
            let Some(room) = groups.digits.get_mut(groups.total..groups.total + length) else {
                break;
            };
            room.iter_mut()
                .zip(&bytes[at..])
                .for_each(|(to, byte)| *to = byte - b'0');
            groups.total += length;
            at += length;
            groups.lengths[groups.count] = length as u8;
            groups.ends[groups.count] = at;
            groups.count += 1;
            let Some((separator, width)) = separator(&bytes[at..]) else {
                break;
            };
            if !bytes.get(at + width).is_some_and(u8::is_ascii_digit) {
                break;
            }
            groups.separators[groups.count - 1] = separator;
            at += width;
        }
        groups
    }

    /// The digits of the first `count` groups.
    pub(super) fn digits(&self, count: usize) -> &[u8] {
        let length: usize = self.lengths.iter().take(count).map(|&l| usize::from(l)).sum();
        self.digits.get(..length).unwrap_or(&[])
    }

    /// Whether the first groups have these lengths and separators; one separator stands for all.
    pub(super) fn is(&self, lengths: &[u8], separators: &[Separator]) -> bool {
        let between = &self.separators[..lengths.len().saturating_sub(1).min(self.count)];
        self.count >= lengths.len()
            && self.lengths.starts_with(lengths)
            && match separators {
                [one] => between.iter().all(|s| s == one),
                all => between == all,
            }
    }
}

/// How many digits `bytes` begins with, `limit` at most.
pub(super) fn run(bytes: &[u8], limit: usize) -> usize {
    bytes
        .iter()
        .take(limit)
        .take_while(|byte| byte.is_ascii_digit())
        .count()
}

/// The separator that `bytes` begins with, and its bytes.
fn separator(bytes: &[u8]) -> Option<(Separator, usize)> {
    Some(match bytes {
        [b' ', b'(', ..] => (Separator::Open, 2),
        [b')', b' ' | b'-', ..] => (Separator::Close, 2),
        [b' ', ..] => (Separator::Space, 1),
        [b'-', ..] => (Separator::Hyphen, 1),
        [b'.', ..] => (Separator::Dot, 1),
        [b'/', ..] => (Separator::Slash, 1),
        [b'(', ..] => (Separator::Open, 1),
        [b')', ..] => (Separator::Close, 1),
        // No-break space; narrow no-break, thin and figure space; no-break hyphen, hyphen, figure and en dash.
        [0xc2, 0xa0, ..] => (Separator::Space, 2),
        [0xe2, 0x80, 0xaf | 0x89 | 0x87, ..] => (Separator::Space, 3),
        [0xe2, 0x80, 0x90..=0x93, ..] => (Separator::Hyphen, 3),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_as_they_are_written() {
        let groups = Groups::read(b"4012-8888-8888-1881 4", 0);
        assert_eq!((groups.count, groups.total), (5, 17));
        assert!(groups.is(&[4, 4, 4, 4], &[Separator::Hyphen]));
        assert!(!groups.is(&[4, 4, 4, 4, 1], &[Separator::Hyphen]));
        assert!(groups.is(&[4, 4], &[Separator::Hyphen]));
        assert_eq!(groups.digits(2), [4, 0, 1, 2, 8, 8, 8, 8]);
        assert_eq!(groups.ends[3], 19);
        let groups = Groups::read("1\u{a0}85\u{2011}7".as_bytes(), 0);
        assert!(groups.is(&[1, 2, 1], &[Separator::Space, Separator::Hyphen]));
        let groups = Groups::read(b"44 (0)20 ", 0);
        assert!(groups.is(&[2, 1, 2], &[Separator::Open, Separator::Close]));
        // The twentieth digit is the last that fits; a longer group is not begun.
        assert_eq!(Groups::read(&[b'1'; 20], 0).total, 20);
        assert_eq!(Groups::read(&[b'1'; 21], 0).count, 0);
        assert_eq!(Groups::read(b"1 11111111111111111111", 0).count, 1);
    }
}
