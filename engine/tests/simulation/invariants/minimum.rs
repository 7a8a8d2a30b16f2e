//! Below the minimum the job pauses, and says so.

use lockstep_engine::job::{Command, NoteKind, Phase};

use crate::cluster::World;

impl World {
    /// After each decision of a leader.
    pub(crate) fn check_decision(&mut self, index: usize, commands: &[Command]) {
        let min = self.plan.rules.min_workers as usize;
        let Some(leader) = self.leader(index) else { return };
        let says = |command: &Command| {
            matches!(
                command,
                Command::Note {
                    kind: NoteKind::Paused,
                    ..
                }
            )
        };
        let paused = *leader.job.phase() == Phase::Paused;
        let begins = paused && !std::mem::replace(&mut leader.paused, paused);
        leader.paused = paused;
        let members = leader.job.members().len();
        let stepping = matches!(leader.job.phase(), Phase::Stepping | Phase::Finishing);
        let phase = leader.job.phase().clone();
        if begins {
            self.count("pauses below the minimum");
            if !commands.iter().any(says) {
                self.violated("it pauses without saying so");
            }
        }
        if stepping && members < min {
            self.violated(format!("{phase:?} with {members} members of at least {min}"));
        }
        if paused && members > 0 {
            self.violated("it is paused with members");
        }
    }
}
