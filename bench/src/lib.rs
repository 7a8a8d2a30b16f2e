//! Drills with real processes: faults at exact points, partitions, and what recovery takes.
//!
//! | module | what it does |
//! |---|---|
//! | [`allreduce`] | all-reduces between processes, against memory's speed and PyTorch |
//! | [`cell`] | the chaos matrix: faults, points, targets, which cells there are and which make no sense |
//! | [`chaos`] | runs a cell of it, and judges the result |
//! | [`cluster`] | real processes of this program: coordinators, node daemons, ranks |
//! | [`machine`] | where they run: namespaces, or loopback under as many names |
//! | [`netns`] | hosts as network namespaces whose links can be cut and slowed down |
//! | `scene` | inflicts a cell's fault when its moment has come |
//! | `etcd` | a real etcd, which coordinators keep their store in |
//! | [`disk`] | a small disk that can be filled |
//! | [`soak`](mod@soak) | many random faults in one run |
//! | [`trace`] | what ranks wrote down: epochs taken, lanes computed |
//! | [`figures`] | the figures of recovery, by their definitions |
//! | [`recovery`] | what it takes to get over a death, a silence, a replacement |
//! | `takeover` | how long a run stands still when the coordinator that leads is killed |
//! | [`goodput`] | what is left of a run's speed under regular deaths; what a checkpoint costs |
//! | [`overlap`] | what it saves to reduce a gradient while it is computed |
//! | [`pipeline`] | how fast the stages from raw text to a dataset are |
//! | [`streams`] | what a verdict takes with very many workers, which are simulated |
//! | [`spread`] | medians and percentiles |
//! | [`watch`] | what the coordinator says of a job, and when |
//! | [`work`] | a dataset and a spec small enough that a step takes milliseconds |
//! | `draw` | choices from a seed |
//! | `system` | processes by their tag, ends of processes, changes of files |
//! | [`error`] | what can go wrong with a drill itself |
//!
//! Everything is done from outside, through the command line, gRPC and signals; only the points at which a fault
//! happens are inside the processes (`lockstep-faults`).

pub mod allreduce;
pub mod cell;
pub mod chaos;
pub mod cluster;
pub mod disk;
mod draw;
pub mod error;
mod etcd;
pub mod figures;
pub mod goodput;
pub mod machine;
pub mod netns;
pub mod overlap;
pub mod pipeline;
pub mod recovery;
mod scene;
pub mod soak;
pub mod spread;
pub mod streams;
mod system;
mod takeover;
pub mod trace;
pub mod watch;
pub mod work;

pub use cluster::Bench;
pub use error::Error;
pub use system::is_root;
