//! Bars with rates and time left on a terminal; elsewhere a plain line every few seconds.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::{Format, seconds};

/// Between two plain lines.
const EVERY: Duration = Duration::from_secs(5);

/// One bar.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    label: String,
    started: Instant,
    said: Option<Instant>,
    total: u64,
    /// Where it stood when the rate began to count.
    first: Option<(Instant, u64)>,
    quiet: bool,
}

impl Progress {
    /// A bar up to `total`.
    pub(crate) fn new(label: &str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let template = "{prefix} {wide_bar:.cyan/dim} {percent:>3}%  {msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("━╸─"));
            }
            bar.set_prefix(label.to_owned());
            bar
        });
        Self {
            bar,
            label: label.to_owned(),
            started: Instant::now(),
            said: None,
            total,
            first: None,
            quiet: false,
        }
    }

    /// A bar for people, nothing for programs.
    pub(crate) fn for_format(format: Format, label: &str) -> Self {
        match format {
            Format::Text => Self::new(label, 0),
            Format::Json => Self::quiet(),
        }
    }

    /// One that shows nothing.
    pub(crate) fn quiet() -> Self {
        Self {
            bar: None,
            quiet: true,
            ..Self::new("", 0)
        }
    }

    /// Rate and time left count what is done after `from`, since then.
    pub(crate) fn count_from(&mut self, since: Instant, from: u64) {
        self.first = Some((since, from));
    }

    /// Moves to `done`; `message` is shown with the time left.
    pub(crate) fn set(&mut self, done: u64, total: u64, message: &str) {
        if self.quiet {
            return;
        }
        self.total = total;
        let now = Instant::now();
        let (since, from) = *self.first.get_or_insert((now, done));
        let rate = (done.saturating_sub(from)) as f64 / now.duration_since(since).as_secs_f64();
        let left = if done > from {
            (total.saturating_sub(done)) as f64 / rate
        } else {
            f64::NAN
        };
        let text = format!("{message}  left {}", seconds(left));
        match &self.bar {
            Some(bar) => {
                bar.set_length(total);
                bar.set_position(done);
                bar.set_message(text);
            }
            None if self.said.is_none_or(|said| now.duration_since(said) >= EVERY) => {
                self.said = Some(now);
                eprintln!("{} {:>3}%  {text}", self.label, done * 100 / total.max(1));
            }
            None => {}
        }
    }

    /// A line that stays, above the bar.
    pub(crate) fn say(&self, line: &str) {
        match &self.bar {
            _ if self.quiet => {}
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    /// Takes the bar away and leaves a line.
    pub(crate) fn finish(self, line: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if !self.quiet && !line.is_empty() {
            eprintln!("{line} ({})", seconds(self.started.elapsed().as_secs_f64()));
        }
    }
}
