//! Sleeping until a word of another process changes, or an alarm rings in this one.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::futex;
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::segment::Segment;
use crate::view::View;

/// What wakes the threads of this process that [`sleep`].
#[derive(Debug, Default)]
pub struct Alarm {
    rung: AtomicU32,
}

impl Alarm {
    /// How often it has rung, or so.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.rung.load(Ordering::SeqCst)
    }

    /// Wakes everybody.
    pub fn ring(&self) {
        self.rung.fetch_add(1, Ordering::SeqCst);
        wake(&self.rung);
    }
}

/// Sleeps while `word` of `view` has the value `seen` and `alarm` has rung `rung` times, for `longest` at most; or
/// shorter, for no reason. Meanwhile word `asleep` of `own` is 1: who changes the other word and then sees this one
/// set must [wake](Segment::wake).
///
/// # Errors
/// When the system cannot: it needs Linux 5.16.
pub fn sleep(
    (view, word, seen): (&View, usize, u32),
    (alarm, rung): (&Alarm, u32),
    (own, asleep): (&Segment, usize),
    longest: Duration,
) -> io::Result<()> {
    let word = view.word(word);
    // Either this sees the new value, or the other end sees that it is to wake.
    own.publish(asleep, 1);
    let slept = if word.load(Ordering::Relaxed) == seen && alarm.count() == rung {
        wait_for_any([(word, seen), (&alarm.rung, rung)], longest)
    } else {
        Ok(())
    };
    own.publish(asleep, 0);
    match slept {
        Err(error) if ![Errno::AGAIN, Errno::INTR, Errno::TIMEDOUT].contains(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

fn wait_for_any(words: [(&AtomicU32, u32); 2], longest: Duration) -> Result<(), Errno> {
    let waits = words.map(|(word, seen)| {
        let mut wait = futex::Wait::new();
        wait.val = seen.into();
        wait.uaddr = futex::WaitPtr::new(word.as_ptr().cast());
        wait.flags = futex::WaitFlags::SIZE_U32;
        wait
    });
    let now = clock_gettime(ClockId::Monotonic);
    let longest = Timespec::try_from(longest).unwrap_or(Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    });
    let until = now.checked_add(longest).unwrap_or(now);
    futex::waitv(
        &waits,
        futex::WaitvFlags::empty(),
        Some(&until),
        ClockId::Monotonic,
    )
    .map(drop)
}

/// Wakes all who wait for a word to change.
pub(crate) fn wake(word: &AtomicU32) {
    // It fails for nothing that exists.
    let _ = futex::wake(word, futex::Flags::empty(), i32::MAX as u32);
}
