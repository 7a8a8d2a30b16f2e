//! The loss curve: a self-contained SVG file, and a few lines for the terminal.

use std::fmt::Write as _;

/// Mean of the points that fall into each of `columns` equal stretches.
fn columns(values: &[f64], columns: usize) -> Vec<f64> {
    let columns = columns.min(values.len()).max(1);
    let edge = |i: usize| i * values.len() / columns;
    (0..columns)
        .filter_map(|i| values.get(edge(i)..edge(i + 1)).filter(|part| !part.is_empty()))
        .map(|part| part.iter().sum::<f64>() / part.len() as f64)
        .collect()
}

fn bounds(values: &[f64]) -> (f64, f64) {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if high - low < 1e-9 {
        (low - 0.5, high + 0.5)
    } else {
        (low, high)
    }
}

/// The curve in `rows` lines of at most `width` characters, with a scale.
pub(crate) fn terminal(losses: &[f64], width: usize, rows: usize) -> String {
    if losses.is_empty() {
        return String::new();
    }
    let points = columns(losses, width.saturating_sub(9));
    let (low, high) = bounds(&points);
    let mut out = String::new();
    for row in 0..rows {
        // Each row is eight levels tall.
        let floor = (rows - 1 - row) as f64 * 8.0;
        let cells: String = points
            .iter()
            .map(|point| {
                let level = ((point - low) / (high - low) * (rows as f64 * 8.0 - 1.0)).round() + 1.0 - floor;
                [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'][level.clamp(0.0, 8.0) as usize]
            })
            .collect();
        let scale = high - (high - low) * row as f64 / (rows - 1).max(1) as f64;
        writeln!(out, "{scale:>7.3} │{}", cells.trim_end()).ok();
    }
    let label = format!(" step {}", losses.len());
    write!(
        out,
        "        └{}{label}",
        "─".repeat(points.len().saturating_sub(label.len()))
    )
    .ok();
    out
}

/// The curve as SVG, marked where workers were lost.
pub(crate) fn svg(title: &str, losses: &[f64], marks: &[usize]) -> String {
    const WIDTH: f64 = 760.0;
    const HEIGHT: f64 = 400.0;
    const LEFT: f64 = 60.0;
    const TOP: f64 = 48.0;
    const BOTTOM: f64 = 352.0;
    let (low, high) = if losses.is_empty() {
        (0.0, 1.0)
    } else {
        bounds(losses)
    };
    let x = |step: f64| LEFT + (WIDTH - LEFT - 20.0) * step / (losses.len().max(2) - 1) as f64;
    let y = |loss: f64| BOTTOM - (BOTTOM - TOP) * (loss - low) / (high - low);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"26\" font-size=\"15\" font-weight=\"bold\">{}</text>\n",
        escape(title)
    );
    for tick in 0..=4 {
        let loss = low + (high - low) * f64::from(tick) / 4.0;
        let at = y(loss);
        writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{loss:.2}</text>",
            WIDTH - 20.0,
            LEFT - 8.0,
            at + 4.0
        )
        .ok();
        let step = (losses.len().max(1) - 1) as f64 * f64::from(tick) / 4.0;
        writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x(step),
            BOTTOM + 18.0,
            step.round() + 1.0
        )
        .ok();
    }
    for &step in marks {
        let at = x(step.saturating_sub(1) as f64);
        writeln!(
            out,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\" stroke=\"#c33\" stroke-dasharray=\"4 3\"/><text x=\"{at:.1}\" y=\"{}\" fill=\"#c33\" text-anchor=\"middle\">worker lost</text>",
            TOP - 4.0
        )
        .ok();
    }
    let points: Vec<String> = losses
        .iter()
        .enumerate()
        .map(|(i, loss)| format!("{:.1},{:.1}", x(i as f64), y(*loss)))
        .collect();
    writeln!(
        out,
        "<polyline fill=\"none\" stroke=\"#26c\" stroke-width=\"1.5\" points=\"{}\"/>",
        points.join(" ")
    )
    .ok();
    writeln!(
        out,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">step</text>",
        (WIDTH + LEFT) / 2.0,
        HEIGHT - 8.0
    )
    .ok();
    writeln!(out, "<text x=\"16\" y=\"{TOP}\" transform=\"rotate(-90 16 200)\" text-anchor=\"middle\">loss (nats per token)</text>\n</svg>").ok();
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminal_curve_falls_where_the_loss_falls() {
        let losses: Vec<f64> = (0..200).map(|i| 7.0 - f64::from(i) * 0.02).collect();
        let shown = terminal(&losses, 60, 6);
        let rows: Vec<usize> = shown
            .lines()
            .take(6)
            .map(|line| line.chars().skip(9).filter(|c| *c != ' ').count())
            .collect();
        assert!(
            rows.len() == 6 && rows.is_sorted() && rows[0] < rows[5],
            "{shown}"
        );
        assert!(shown.lines().all(|line| line.chars().count() <= 60), "{shown}");
        assert!(terminal(&[], 60, 6).is_empty() && terminal(&[1.0], 60, 6).contains("step 1"));
    }

    #[test]
    fn the_svg_has_a_point_for_each_step_and_stays_inside() {
        let losses = [5.0, 4.0, 4.5, 3.0];
        let svg = svg("a < b", &losses, &[2]);
        assert!(svg.contains("a &lt; b") && svg.contains("worker lost"));
        let points = svg.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        let points: Vec<(f64, f64)> = points
            .split(' ')
            .map(|p| {
                p.split_once(',')
                    .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
                    .unwrap()
            })
            .collect();
        assert_eq!(points.len(), 4);
        assert!(
            points
                .iter()
                .all(|(x, y)| (60.0..=740.0).contains(x) && (48.0..=352.0).contains(y))
        );
        assert!(points[3].1 > points[0].1, "lower loss is drawn lower");
    }
}
