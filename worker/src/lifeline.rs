//! A child that must not outlive its parent reads a pipe that only the parent writes to: the kernel closes it
//! whatever way the parent dies.

use std::io::Read as _;

/// Calls `ended` once, from a thread of its own, when standard input ends. For a child whose standard input is a
/// pipe that its parent holds open.
///
/// # Errors
/// When no thread can be started.
pub fn watch(ended: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let wait = move || {
        let mut byte = [0];
        while matches!(std::io::stdin().read(&mut byte), Ok(1..)) {}
        ended();
    };
    std::thread::Builder::new().name("lifeline".into()).spawn(wait)?;
    Ok(())
}
