//! `lockstep` with the built-in model.

use std::process::ExitCode;

fn main() -> ExitCode {
    lockstep::main()
}
