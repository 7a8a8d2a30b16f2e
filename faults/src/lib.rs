//! Faults at exact points of a process, for tests and drills.
//!
//! A process passes named [`Point`]s. One environment variable, [`VARIABLE`], arms a fault at one of them; without it
//! a point costs one relaxed load. `docs/faults.md` explains the format and how drills use it.
//!
//! | module | what it does |
//! |---|---|
//! | [`plan`] | the variable's value: which point, whose, and what happens there |
//! | `armed` | this process's fault, and what it does when its point is reached |

mod armed;
pub mod plan;

pub use armed::{Unarmed, arm, flip, miscomputes, reach, spoils_frame};
pub use plan::{Action, Malformed, Plan, Point};

/// The environment variable that arms a fault.
pub const VARIABLE: &str = "LOCKSTEP_FAULT";
