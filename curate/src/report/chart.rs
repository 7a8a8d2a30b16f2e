//! Charts as SVG, in the colours of the page.

use std::fmt::Write as _;

use super::html::{count, escape};

const WIDTH: f64 = 640.0;
const ROW: f64 = 22.0;
const LABEL: f64 = 190.0;
const VALUE: f64 = 110.0;

/// A horizontal bar.
pub(crate) struct Bar {
    /// Beside it, to the left.
    pub(crate) label: String,
    /// Its length.
    pub(crate) value: f64,
    /// Beside it, to the right.
    pub(crate) shown: String,
    /// More, when the pointer rests on it.
    pub(crate) title: String,
}

/// Horizontal bars, the longest as wide as there is room.
pub(crate) fn bars(bars: &[Bar], describes: &str) -> String {
    let most = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let height = ROW * bars.len() as f64;
    let room = WIDTH - LABEL - VALUE;
    let mut svg = open(height, describes);
    for (row, bar) in bars.iter().enumerate() {
        let y = ROW * row as f64;
        let middle = y + ROW / 2.0 + 4.0;
        let length = if most > 0.0 {
            (bar.value / most * room).max(1.0)
        } else {
            0.0
        };
        let _ = write!(
            svg,
            "<g><title>{}</title><text class=\"label\" x=\"{:.1}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"bar\" x=\"{LABEL}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"{:.1}\" rx=\"2\"/>\
             <text class=\"value\" x=\"{:.1}\" y=\"{middle:.1}\">{}</text></g>",
            escape(&bar.title),
            LABEL - 8.0,
            escape(&shortened(&bar.label)),
            y + 4.0,
            ROW - 8.0,
            LABEL + length + 6.0,
            escape(&bar.shown),
        );
    }
    svg.push_str("</svg>");
    svg
}

/// Columns side by side: counts by bin, of which only some have a label.
pub(crate) fn columns(bins: &[(String, u64)], describes: &str) -> String {
    const TALL: f64 = 120.0;
    let most = bins.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    let wide = (WIDTH / bins.len().max(1) as f64).min(48.0);
    let every = bins.len().div_ceil(10).max(1);
    let mut svg = open(TALL + 18.0, describes);
    let _ = write!(
        svg,
        "<line class=\"axis\" x1=\"0\" y1=\"{TALL}\" x2=\"{:.1}\" y2=\"{TALL}\"/>",
        wide * bins.len() as f64
    );
    for (index, (label, documents)) in bins.iter().enumerate() {
        let x = wide * index as f64;
        let tall = *documents as f64 / most as f64 * (TALL - 4.0);
        let _ = write!(
            svg,
            "<g><title>{}: {}</title><rect class=\"bar\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{tall:.1}\"/></g>",
            escape(label),
            count(*documents),
            x + 1.0,
            TALL - tall,
            (wide - 2.0).max(1.0),
        );
        if index % every == 0 {
            let _ = write!(
                svg,
                "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x + 1.0,
                TALL + 13.0,
                escape(label)
            );
        }
    }
    svg.push_str("</svg>");
    svg
}

fn open(height: f64, describes: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"{}\">",
        escape(describes)
    )
}

/// What fits beside a bar.
fn shortened(label: &str) -> String {
    const FITS: usize = 28;
    if label.chars().count() <= FITS {
        return label.to_owned();
    }
    label.chars().take(FITS - 1).chain(['…']).collect()
}
