//! Ctrl-C and SIGTERM, for the verbs that have something to end in order.
//!
//! A verb calls [`heed`] before its first output: from then on no signal takes its default action, so what
//! a person sees can already be interrupted safely.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio_util::sync::CancellationToken;

use crate::failure;

/// Whether somebody asked this process to end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt {
    flag: Arc<AtomicBool>,
    token: CancellationToken,
}

static HEEDED: Mutex<Option<Interrupt>> = Mutex::new(None);

/// Takes over both signals for the rest of the process; they are seen through what this returns, however often it is
/// called. A second Ctrl-C ends the process there and then.
pub(crate) fn heed() -> std::io::Result<Interrupt> {
    let mut heeded = HEEDED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(interrupt) = &*heeded {
        return Ok(interrupt.clone());
    }
    let interrupt = Interrupt::default();
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let raised = interrupt.clone();
    std::thread::Builder::new()
        .name("interrupt".into())
        .spawn(move || {
            for signal in &mut signals {
                if signal == SIGINT && raised.flag.load(Ordering::Relaxed) {
                    std::process::exit(failure::INTERRUPTED.into());
                }
                raised.flag.store(true, Ordering::Relaxed);
                raised.token.cancel();
            }
        })?;
    Ok(heeded.insert(interrupt).clone())
}

impl Interrupt {
    /// Set once somebody asked, for work that looks now and then.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.flag
    }

    /// Cancelled once somebody asked.
    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Waits until somebody asks.
    pub(crate) async fn asked(&self) {
        self.token.cancelled().await;
    }
}
