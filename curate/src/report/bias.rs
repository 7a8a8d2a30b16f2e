//! The audit's part of the page.

use std::fmt::Write as _;

use super::html::{bytes, count, escape, percent};
use crate::bias::{Association, Effect, Report, Row};

/// Rows shown of a table; all are in `report.json`.
const SHOWN: usize = 20;

/// Whom the text speaks of, what they are near, and whom filters drop, as tables.
pub(super) fn section(report: &Report) -> String {
    let mut section = String::from(
        "<h2>Bias audit</h2><p class=\"note\">Who is there, what is said near whom, and whom each filter drops. \
         Intervals are of 95%. All rows are in report.json.</p>",
    );
    for (dimension, rows) in &report.representation {
        let sampled = if report.sampled.contains(dimension) {
            ", of a sample of names"
        } else {
            ""
        };
        let title = format!("By {}{sampled}: the most bytes kept", dimension.name());
        let header = ["name", "documents", "kept", "bytes kept", "share"];
        section.push_str(&table(&title, &header, 1, rows, of_row));
    }
    let header = [
        "language",
        "group",
        "attribute",
        "mentions",
        "near",
        "log odds",
        "from",
        "to",
    ];
    let mut associations: Vec<&Association> = report.associations.iter().collect();
    associations.sort_by(|a, b| certainty(b).total_cmp(&certainty(a)));
    section.push_str(&table(
        "What a group is near, against the other groups of its axis: the surest",
        &header,
        3,
        associations,
        of_association,
    ));
    let header = [
        "by",
        "name",
        "filter",
        "documents",
        "dropped",
        "rate",
        "of the mean",
        "from",
        "to",
    ];
    section.push_str(&table(
        "What each filter drops, over what it drops of all",
        &header,
        3,
        &report.effects,
        of_effect,
    ));
    section
}

/// How far an interval keeps from 0, which is no association; below 0 if 0 is in it.
fn certainty(association: &Association) -> f64 {
    let (low, high) = association.interval;
    low.max(-high)
}

/// A table that can be folded away, of the first rows; nothing, if there are none. The first columns are words, the others
/// numbers.
fn table<T, const N: usize>(
    title: &str,
    header: &[&str; N],
    words: usize,
    rows: impl IntoIterator<Item = T>,
    cells: fn(T) -> [String; N],
) -> String {
    let mut rows = rows.into_iter().take(SHOWN).peekable();
    if rows.peek().is_none() {
        return String::new();
    }
    let class = |column: usize| if column < words { "" } else { " class=\"n\"" };
    let mut table = format!("<details open><summary>{}</summary><table><tr>", escape(title));
    // Text in memory takes anything.
    for (column, name) in header.iter().enumerate() {
        let _ = write!(table, "<th{}>{}</th>", class(column), escape(name));
    }
    for row in rows {
        table.push_str("</tr><tr>");
        for (column, cell) in cells(row).iter().enumerate() {
            let _ = write!(table, "<td{}>{}</td>", class(column), escape(cell));
        }
    }
    table.push_str("</tr></table></details>");
    table
}

fn of_row(row: &Row) -> [String; 5] {
    [
        row.name.clone(),
        count(row.documents),
        percent(row.kept_documents, row.documents),
        bytes(row.kept_bytes),
        format!("{:.1}%", 100.0 * row.share),
    ]
}

fn of_association(association: &Association) -> [String; 8] {
    let (low, high) = association.interval;
    [
        association.language.clone(),
        format!("{}/{}", association.axis, association.group),
        association.attribute.clone(),
        count(association.mentions),
        count(association.near),
        format!("{:+.2}", association.log_odds),
        format!("{low:+.2}"),
        format!("{high:+.2}"),
    ]
}

fn of_effect(effect: &Effect) -> [String; 9] {
    let (low, high) = effect.ratio_interval;
    [
        effect.dimension.name().to_owned(),
        effect.name.clone(),
        effect.reason.clone(),
        count(effect.documents),
        count(effect.dropped),
        format!("{:.1}%", 100.0 * effect.rate),
        format!("{:.2}", effect.ratio),
        format!("{low:.2}"),
        format!("{high:.2}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bias::Dimension;

    fn report(rows: usize) -> Report {
        let name = |number: usize| format!("<b>{number}");
        let row = |number| Row {
            name: name(number),
            documents: 4000,
            kept_documents: 1000,
            kept_bytes: 1500,
            share: 0.5,
        };
        let association = |number: usize| Association {
            language: "eng".to_owned(),
            axis: "axis".to_owned(),
            group: name(number),
            attribute: "career".to_owned(),
            mentions: 1,
            near: 1,
            other_mentions: 1,
            other_near: 1,
            log_odds: 0.0,
            interval: (number as f64 - 1.0, number as f64 + 1.0),
        };
        Report {
            all: Default::default(),
            representation: [(Dimension::Source, (0..rows).map(row).collect())].into(),
            sampled: vec![Dimension::Source],
            associations: (0..rows).map(association).collect(),
            effects: Vec::new(),
        }
    }

    #[test]
    fn tables_are_short_safe_and_the_surest_first() {
        let page = section(&report(100));
        assert!(
            !page.contains("<b>")
                && page.contains("&lt;b&gt;19</td><td class=\"n\">4,000</td><td class=\"n\">25.0%")
        );
        assert!(!page.contains("&lt;b&gt;20</td>"));
        let (first, second) = (
            page.find("axis/&lt;b&gt;99").unwrap(),
            page.find("axis/&lt;b&gt;98").unwrap(),
        );
        assert!(first < second && !page.contains("axis/&lt;b&gt;79<"));
        assert_eq!(page.matches("<table>").count(), 2, "effects have none");
        assert_eq!(page.matches("<tr>").count(), page.matches("</tr>").count());
    }

    #[test]
    fn nothing_found_is_no_table() {
        assert!(!section(&report(0)).contains("<table>"));
    }
}
