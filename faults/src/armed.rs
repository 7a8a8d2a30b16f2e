//! This process's fault, and what it does when its point is reached.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};

use crate::VARIABLE;
use crate::plan::{Action, Malformed, Plan, Point};

/// The longest that a thread is held.
const LONGEST_HOLD: Duration = Duration::from_secs(30);
/// Between two looks for the file that ends a hold.
const LOOK: Duration = Duration::from_millis(2);

static IS_ARMED: AtomicBool = AtomicBool::new(false);
static FAULT: OnceLock<Fault> = OnceLock::new();
static SPOILS: AtomicBool = AtomicBool::new(false);
static MISCOMPUTES: AtomicBool = AtomicBool::new(false);

/// Why no fault could be armed.
#[derive(Debug, thiserror::Error)]
pub enum Unarmed {
    /// The variable's value cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The variable is not UTF-8.
    #[error("{VARIABLE} is not UTF-8; unset it, or see docs/faults.md")]
    NotText,
}

#[derive(Debug)]
struct Fault {
    plan: Plan,
    me: String,
    may_begin: AtomicBool,
    happened: Mutex<Happened>,
}

/// How often it happened here, and in which step the last time.
#[derive(Debug, Default)]
struct Happened {
    times: u64,
    step: Option<u64>,
}

/// Arms the fault that the environment names for this process, `me`: `NODE/SLOT`, or `coordinator`. To be called
/// once, at the start.
///
/// # Errors
/// When the variable is set to something that is no plan.
pub fn arm(me: &str) -> Result<(), Unarmed> {
    let Some(value) = std::env::var_os(VARIABLE) else {
        return Ok(());
    };
    let plan: Plan = value.to_str().ok_or(Unarmed::NotText)?.parse()?;
    if plan.who.as_deref().is_none_or(|who| who == me) {
        let fault = Fault {
            may_begin: AtomicBool::new(plan.after.is_none()),
            happened: Mutex::default(),
            me: me.to_owned(),
            plan,
        };
        IS_ARMED.store(FAULT.set(fault).is_ok(), Ordering::Relaxed);
    }
    Ok(())
}

/// Says that this process is at `point` of `step`. Where a fault is armed there, it happens before this returns.
#[inline]
pub fn reach(point: Point, step: u64) {
    if IS_ARMED.load(Ordering::Relaxed)
        && let Some(fault) = FAULT.get()
        && fault.begins(point, step)
    {
        fault.act();
    }
}

/// Whether the frame that is about to be sent is to be spoilt; true for one frame.
#[inline]
pub fn spoils_frame() -> bool {
    IS_ARMED.load(Ordering::Relaxed) && SPOILS.swap(false, Ordering::Relaxed)
}

/// Whether a bit of what was just computed is to be [flipped](flip); true once.
#[inline]
pub fn miscomputes() -> bool {
    IS_ARMED.load(Ordering::Relaxed) && MISCOMPUTES.swap(false, Ordering::Relaxed)
}

/// Flips a high bit of the first value's fraction: it stays finite.
pub fn flip(values: &mut [f32]) {
    if let Some(value) = values.first_mut() {
        *value = f32::from_bits(value.to_bits() ^ (1 << 21));
    }
}

impl Fault {
    /// Whether the fault is here, now, and nobody else's.
    fn begins(&self, point: Point, step: u64) -> bool {
        if self.plan.after == Some(point) {
            self.may_begin.store(true, Ordering::Relaxed);
        }
        point == self.plan.point
            && self.plan.step.is_none_or(|wanted| wanted == step)
            && self.may_begin.load(Ordering::Relaxed)
            && self.is_due(step)
    }

    fn is_due(&self, step: u64) -> bool {
        let mut happened = self.happened.lock().unwrap_or_else(PoisonError::into_inner);
        if happened.times >= self.plan.times || happened.step == Some(step) {
            return false;
        }
        let is_mine = happened.times > 0 || self.take_marker(step);
        let times = if is_mine {
            happened.times + 1
        } else {
            self.plan.times
        };
        *happened = Happened {
            times,
            step: Some(step),
        };
        is_mine
    }

    /// Creates the marker, which says who has the fault.
    fn take_marker(&self, step: u64) -> bool {
        let pid = getpid();
        let line = format!("{pid} {} {} {step}\n", self.me, self.plan.point.name());
        let created = File::create_new(&self.plan.once).and_then(|mut file| file.write_all(line.as_bytes()));
        if let Err(error) = &created
            && error.kind() != ErrorKind::AlreadyExists
        {
            eprintln!("{VARIABLE}: create {}: {error}", self.plan.once.display());
        }
        created.is_ok()
    }

    fn act(&self) {
        match self.plan.action {
            // A signal to oneself is delivered before the call returns.
            Action::Kill => drop(kill_process(getpid(), Signal::KILL)),
            Action::Stop => drop(kill_process(getpid(), Signal::STOP)),
            Action::Exit => std::process::exit(1),
            Action::Corrupt => SPOILS.store(true, Ordering::Relaxed),
            Action::Miscompute => MISCOMPUTES.store(true, Ordering::Relaxed),
            Action::Hold => hold(&self.plan.once),
        }
    }
}

fn hold(marker: &Path) {
    let mut go = marker.as_os_str().to_owned();
    go.push(".go");
    let deadline = Instant::now() + LONGEST_HOLD;
    while !Path::new(&go).exists() && Instant::now() < deadline {
        std::thread::sleep(LOOK);
    }
}
