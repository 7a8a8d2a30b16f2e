//! What ranks wrote down while they worked: when they took an epoch, and how long their tasks took.
//!
//! Lines of `workers.log` are `NODE/SLOT TIME LEVEL TARGET: TEXT`, with the time in UTC by RFC 3339. All processes of
//! a drill share this machine's clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a rank did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It has taken the epoch: nothing of an older one has any effect on it or from it.
    Fenced(u64),
    /// It is in the epoch, and connected; before that it finishes the lane that it is computing.
    Entered(u64),
    /// It computed a lane, for so long.
    Computed(Duration),
}

/// A deed, by whom and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// `NODE/SLOT`.
    pub who: String,
    /// When it was done.
    pub at: SystemTime,
    /// What.
    pub deed: Deed,
}

/// Reads a whole log. Lines of other kinds are left out.
#[must_use]
pub fn read(log: &str) -> Vec<Traced> {
    let mut began: Vec<(&str, SystemTime)> = Vec::new();
    let mut traced = Vec::new();
    for line in log.lines() {
        let mut words = line.splitn(3, ' ');
        let (Some(who), Some(time), Some(text)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let Some(at) = parse_time(time) else { continue };
        let mut deed = |deed| {
            let who = who.to_owned();
            traced.push(Traced { who, at, deed });
        };
        if text.contains("begins task=Compute") {
            began.retain(|(of, _)| *of != who);
            began.push((who, at));
        } else if text.contains("ends end=") {
            let place = began.iter().position(|(of, _)| *of == who);
            if let Some((_, since)) = place.map(|place| began.swap_remove(place)) {
                deed(Deed::Computed(at.duration_since(since).unwrap_or_default()));
            }
        } else if let Some(epoch) = number_after(text, "is fenced by the epoch epoch=") {
            deed(Deed::Fenced(epoch));
        } else if let Some(epoch) = number_after(text, "holds the epoch epoch=") {
            deed(Deed::Entered(epoch));
        }
    }
    traced
}

fn number_after(text: &str, words: &str) -> Option<u64> {
    text.split_once(words)?.1.trim().parse().ok()
}

/// `2026-11-25T10:37:43.323878Z`.
fn parse_time(text: &str) -> Option<SystemTime> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers =
        |text: &str, by: char| -> Option<Vec<u64>> { text.split(by).map(|n| n.parse().ok()).collect() };
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [year, month, day] = numbers(date, '-')?[..] else {
        return None;
    };
    let [hours, minutes, seconds] = numbers(clock, ':')?[..] else {
        return None;
    };
    if year < 1970 || !(1..=12).contains(&month) {
        return None;
    }
    // Days since 1970 with years that begin in March (Howard Hinnant, "chrono-compatible low-level date algorithms").
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = 365 * year + year / 4 - year / 100 + year / 400 + day_of_year;
    let since_1970 = days.checked_sub(719_468)? * 86_400 + hours * 3600 + minutes * 60 + seconds;
    let nanoseconds = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(UNIX_EPOCH + Duration::new(since_1970, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_microsecond() {
        let unix = |text| {
            parse_time(text)
                .unwrap()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .as_micros()
        };
        assert_eq!(unix("1970-01-01T00:00:00.000001Z"), 1);
        assert_eq!(unix("2000-02-29T12:00:00Z"), 951_825_600_000_000);
        assert_eq!(unix("2026-11-25T10:37:43.323878Z"), 1_795_603_063_323_878);
        for bad in [
            "",
            "now",
            "2026-11-25 10:37:43Z",
            "2026-13-25T10:37:43Z",
            "2026-11-25T10:37Z",
        ] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn tasks_of_several_ranks_are_kept_apart() {
        let log = "\
a/0 2026-11-25T10:00:00.000000Z DEBUG w::executor: begins task=Compute { step: Step(1), lane: Lane(0) }
b/0 2026-11-25T10:00:00.500000Z DEBUG w::executor: begins task=Compute { step: Step(1), lane: Lane(1) }
a/0 2026-11-25T10:00:01.000000Z DEBUG w::executor: ends end=Done
a/0 2026-11-25T10:00:01.100000Z DEBUG w::executor: begins task=Reduce { epoch: Epoch(1), step: Step(1) }
a/0 2026-11-25T10:00:01.200000Z DEBUG w::executor: ends end=Done
b/0 2026-11-25T10:00:01.500000Z DEBUG w::executor: ends end=Done
b/0 2026-11-25T10:00:01.900000Z DEBUG w::session: is fenced by the epoch epoch=2
b/0 2026-11-25T10:00:02.000000Z DEBUG w::executor: holds the epoch epoch=2
b/0 thread panicked
";
        let deeds: Vec<_> = read(log)
            .into_iter()
            .map(|traced| (traced.who, traced.deed))
            .collect();
        let second = Duration::from_secs(1);
        let expected = [
            ("a/0".to_owned(), Deed::Computed(second)),
            ("b/0".to_owned(), Deed::Computed(second)),
            ("b/0".to_owned(), Deed::Fenced(2)),
            ("b/0".to_owned(), Deed::Entered(2)),
        ];
        assert_eq!(deeds, expected);
    }
}
