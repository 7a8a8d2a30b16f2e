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
                        scope.spawn(move |_| match do_one(task as usize) {
                            Ok(()) => {
                                let phase = phase.to_owned();
                                self.say(Word::Done { phase, task });
                            }
                            Err(error) => {
                                fail(error);
                                self.to_itself.send(Order::Failed).ok();
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
