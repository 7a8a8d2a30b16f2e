//! What is to be told to the coordinator, kept while there is none.

use std::collections::VecDeque;
use std::time::Duration;

use lockstep_proto::wire::daemon_up::What;
use tokio::sync::mpsc;

/// Words that may wait to be taken.
const QUEUE: usize = 1024;
/// Log lines kept while there is no coordinator; beyond, the oldest go.
const KEPT_LINES: usize = 4096;

/// Words in the order in which they were said.
#[derive(Debug)]
pub(super) struct Outbox {
    words: mpsc::Receiver<What>,
    kept: VecDeque<What>,
    lines: usize,
}

impl Outbox {
    pub(super) fn new() -> (Self, mpsc::Sender<What>) {
        let (to, words) = mpsc::channel(QUEUE);
        let outbox = Self {
            words,
            kept: VecDeque::new(),
            lines: 0,
        };
        (outbox, to)
    }

    /// The next word; waits for one for ever.
    pub(super) async fn next(&mut self) -> What {
        if let Some(word) = self.kept.pop_front() {
            self.lines -= usize::from(matches!(word, What::Log(_)));
            return word;
        }
        match self.words.recv().await {
            Some(word) => word,
            None => std::future::pending().await,
        }
    }

    /// Takes words in while something else goes on, so that whoever speaks need not wait.
    pub(super) async fn keep_during<T>(&mut self, other: impl Future<Output = T>) -> T {
        tokio::pin!(other);
        loop {
            tokio::select! {
                result = &mut other => return result,
                Some(word) = self.words.recv() => self.keep(word),
            }
        }
    }

    /// Likewise for a while.
    pub(super) async fn keep_for(&mut self, time: Duration) {
        self.keep_during(tokio::time::sleep(time)).await;
    }

    fn keep(&mut self, word: What) {
        self.lines += usize::from(matches!(word, What::Log(_)));
        self.kept.push_back(word);
        if self.lines > KEPT_LINES
            && let Some(oldest) = self.kept.iter().position(|word| matches!(word, What::Log(_)))
        {
            self.kept.remove(oldest);
            self.lines -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_proto::wire::{LogLine, RankExited};

    fn line(number: usize) -> What {
        What::Log(LogLine {
            text: number.to_string(),
            ..LogLine::default()
        })
    }

    #[tokio::test]
    async fn order_is_kept_and_only_old_lines_are_dropped() {
        let (mut outbox, words) = Outbox::new();
        let extra = 10;
        let speak = async {
            words.send(What::Exited(RankExited::default())).await.unwrap();
            for number in 0..KEPT_LINES + extra {
                words.send(line(number)).await.unwrap();
            }
            while words.capacity() < QUEUE {
                tokio::task::yield_now().await;
            }
        };
        outbox.keep_during(speak).await;
        words.send(line(usize::MAX)).await.unwrap();
        assert!(
            matches!(outbox.next().await, What::Exited(_)),
            "an end is never dropped"
        );
        for number in (extra..KEPT_LINES + extra).chain([usize::MAX]) {
            assert_eq!(outbox.next().await, line(number));
        }
    }
}
