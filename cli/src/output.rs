//! Results: tables for people, JSON for programs. Data goes to stdout, everything else to stderr.

use std::io::{IsTerminal as _, Write as _};

use comfy_table::{Table, presets};
pub(crate) use lockstep_curate::report::count;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

impl Format {
    /// Prints `value`, as `text` shows it or as JSON.
    pub(crate) fn print<T: serde::Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        let shown = match self {
            Self::Text => text(value),
            Self::Json => serde_json::to_string_pretty(value)?,
        };
        line(&shown)
    }
}

/// Prints a line of data. A reader that went away is no error.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{}", text.trim_end_matches('\n')) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// A table with the given header.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

fn colour(code: &str, text: &str) -> String {
    let wanted = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if wanted {
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}

/// Red, on a terminal.
pub(crate) fn red(text: &str) -> String {
    colour("1;31", text)
}

/// Bold, on a terminal.
pub(crate) fn bold(text: &str) -> String {
    colour("1", text)
}

/// A number of seconds as people say it.
pub(crate) fn seconds(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "-".to_owned();
    }
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s:02} s"),
        (h, m, _) => format!("{h} h {m:02} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [0.4, 59.6, 61.0, 3700.0, -1.0].map(seconds),
            ["0 s", "1 min 00 s", "1 min 01 s", "1 h 01 min", "-"]
        );
    }

    #[test]
    fn tables_have_no_trailing_space() {
        let shown = table(
            ["name", "n"],
            [["a".into(), "1".into()], ["long name".into(), "22".into()]],
        );
        assert!(shown.lines().all(|line| line == line.trim_end()), "{shown:?}");
    }
}
