//! The pure rules of a run: start reading here.
//!
//! Nothing in this crate does I/O, looks at a clock or rolls dice; time and identity are arguments. The
//! runtimes in `coordinator/` and `worker/` turn what it decides into I/O.
//!
//! | module | what it rules |
//! |---|---|
//! | [`ids`] | names and fences: jobs, nodes, workers, epochs, steps, lanes, ranks |
//! | [`spec`] | the job spec: every field, default and bound |
//! | [`job`] | the coordinator's machine for one job |
//! | [`rank`] | a rank's machine |
//! | [`tasks`] | the coordinator's machine for a build of a dataset |
//! | [`lead`] | which of several coordinators leads |
//! | [`membership`] | who takes part in an epoch |
//! | [`placement`] | which job gets which free slot |
//! | [`ledger`] | committed steps, and which samples they used |
//! | [`lineage`] | which steps and checkpoints saw a document |
//! | [`time`] | time as an argument |
//! | [`geometry`] | microbatches, lanes, the fixed tree, who computes what |
//! | [`order`] | which sample comes when |
//! | [`plants`] | bugs for tests to find |
//! | [`random`] | counter-based numbers and the keyed permutation |

pub mod geometry;
pub mod ids;
pub mod job;
pub mod lead;
pub mod ledger;
pub mod lineage;
pub mod membership;
pub mod order;
pub mod placement;
#[cfg_attr(not(feature = "plants"), doc(hidden))]
pub mod plants;
pub mod random;
pub mod rank;
pub mod spec;
pub mod tasks;
pub mod time;
