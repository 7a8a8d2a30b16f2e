//! Bugs that tests plant, to see that the simulation finds them. Without the feature `plants` there are none.

/// A bug, where a check or a duty is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// A report counts whatever epoch it is of.
    ReportOfAnyEpoch,
    /// A rank applies what it has reduced before it is committed.
    ApplyBeforeCommit,
    /// A rank keeps lanes that are folded into subtrees which it can not use.
    KeepWhatIsLost,
    /// A lane's samples are counted twice, and nobody adds them up.
    CountTwice,
    /// A step is committed when half of the members have reported.
    CommitOnHalf,
    /// A rank takes the commit of any epoch.
    CommitOfAnyEpoch,
    /// The ledger is not cut back.
    NoTruncate,
    /// A checkpoint counts although the ledger does not reach it.
    CheckpointBeyondLedger,
    /// A follower that is behind is said to hold the state.
    NearIsThere,
    /// Partials of a disputed step are kept.
    KeepDisputed,
    /// A follower whose donor is gone gets no other.
    OrphanForever,
    /// A closed connection does not count before the lease is over.
    WaitForLease,
    /// A step that is skipped is recorded as if it was not.
    SkipUnrecorded,
    /// A checkpoint is sealed before anybody has compared the state.
    SealAtOnce,
    /// The state of a worker that missed that the job went back counts.
    NoFence,
    /// A torn run of skipped steps counts.
    TornRun,
    /// A task's result counts although its state was forgotten.
    ForgetNothing,
    /// The job is done before its last checkpoint is.
    EndWithoutCheckpoint,
    /// More members than the most that the job may have.
    NoMaximum,
    /// It goes on below the minimum.
    NoMinimum,
    /// Steps stay to which wrong weights may have contributed.
    KeepTainted,
}

#[cfg(feature = "plants")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Plant>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug into all machines of this thread, or none.
#[cfg(feature = "plants")]
pub fn plant(plant: Option<Plant>) {
    PLANTED.set(plant);
}

/// Whether this bug is planted here.
#[cfg(feature = "plants")]
pub(crate) fn planted(plant: Plant) -> bool {
    PLANTED.get() == Some(plant)
}

/// Whether this bug is planted here: never.
#[cfg(not(feature = "plants"))]
pub(crate) const fn planted(_: Plant) -> bool {
    false
}
