//! The build's side: it waits for tasks, and does them.

use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Mutex, PoisonError};

use lockstep_curate::CurateError;
use lockstep_curate::crew::{Crew, OpenTasks};
use lockstep_engine::tasks::Entry;
use tokio::sync::mpsc;

/// What the build is told. What is of another phase than the one that it is in is old.
pub(super) enum Order {
    /// Do this task.
    Do { phase: String, task: u32 },
    /// All tasks are done.
    Over { phase: String },
    /// A task failed here.
    Failed,
    /// Stop at once.
    Stop,
}

/// What the build says.
pub(super) enum Word {
    /// It has come to a phase.
    Entered(Entry),
    /// A task is done.
    Done { phase: String, task: u32 },
}

/// One process of a crew whose tasks the coordinator gives out. They are done by rayon's threads.
pub(super) struct Remote {
    name: String,
    words: mpsc::Sender<Word>,
    orders: Mutex<Receiver<Order>>,
    to_itself: Sender<Order>,
}

impl Remote {
    /// `name` is unlike that of any other process; `to_itself` leads to `orders`.
    pub(super) fn new(
        name: String,
        words: mpsc::Sender<Word>,
        to_itself: Sender<Order>,
        orders: Receiver<Order>,
    ) -> Self {
        Self {
            name,
            words,
            orders: Mutex::new(orders),
            to_itself,
        }
    }

    fn say(&self, word: Word) {
        // Nobody hears it if the job is over: then it is of no use.
        self.words.blocking_send(word).ok();
    }
}

/// Says that a task failed, unless it is forgotten.
struct Alarm<'a>(&'a Sender<Order>);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.0.send(Order::Failed).ok();
    }
}

impl Crew for Remote {
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn run(&self, tasks: OpenTasks<'_>) -> Result<(), CurateError> {
        let OpenTasks {
            phase,
            tasks,
            open,
            do_one,
        } = tasks;
        if open.is_empty() {
            return Ok(());
        }
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        self.say(Word::Entered(Entry {
            phase: phase.to_owned(),
            tasks: tasks as u32,
            open: open.into_iter().map(|task| task as u32).collect(),
            holds: Vec::new(),
            room: rayon::current_num_threads() as u32,
        }));
        let failure = Mutex::new(None);
        let fail = |error: CurateError| {
            let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert(error);
        };
        rayon::in_place_scope(|scope| {
            loop {
                match orders.recv() {
                    Ok(Order::Do { phase: of, task }) if of == phase => {
                        scope.spawn(move |_| {
                            // Also if it panics: the scope ends, and panics as well.
                            let alarm = Alarm(&self.to_itself);
                            match do_one(task as usize) {
                                Ok(()) => {
                                    let phase = phase.to_owned();
                                    self.say(Word::Done { phase, task });
                                    std::mem::forget(alarm);
                                }
                                Err(error) => fail(error),
                            }
                        })
                    }
                    Ok(Order::Over { phase: of }) if of == phase => break,
                    Ok(Order::Do { .. } | Order::Over { .. }) => {}
                    Ok(Order::Failed) => break,
                    Ok(Order::Stop) | Err(_) => {
                        fail(CurateError::Interrupted);
                        break;
                    }
                }
            }
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// Has the tasks of a phase done, all of which are given out at once.
    fn run(
        do_one: &(dyn Fn(usize) -> Result<(), CurateError> + Sync),
        over: bool,
    ) -> Result<(), CurateError> {
        let (words, _heard) = mpsc::channel(16);
        let (to, orders) = std::sync::mpsc::channel();
        let phase = || "read-1".to_owned();
        for task in 0..3 {
            // Of another phase: old, and not done.
            let (other, of) = ("read-0".to_owned(), phase());
            to.send(Order::Do {
                phase: other,
                task: 9,
            })
            .unwrap();
            to.send(Order::Do { phase: of, task }).unwrap();
        }
        if over {
            to.send(Order::Over { phase: phase() }).unwrap();
        }
        let remote = Remote::new("-1".to_owned(), words, to, orders);
        remote.run(OpenTasks {
            phase: "read-1",
            tasks: 3,
            open: vec![0, 1, 2],
            do_one,
        })
    }

    #[test]
    fn what_is_given_is_done_and_a_task_that_fails_or_panics_ends_the_phase() {
        let done = Mutex::new(Vec::new());
        let note = |task: usize| {
            done.lock().unwrap().push(task);
            Ok(())
        };
        run(&note, true).unwrap();
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, [0, 1, 2]);
        let fails = |task: usize| {
            if task == 1 {
                Err(CurateError::Interrupted)
            } else {
                Ok(())
            }
        };
        assert!(matches!(run(&fails, false), Err(CurateError::Interrupted)));
        let panics = |task: usize| -> Result<(), CurateError> {
            assert!(task != 1, "task 1 panics");
            Ok(())
        };
        assert!(catch_unwind(AssertUnwindSafe(|| run(&panics, false))).is_err());
    }
}
