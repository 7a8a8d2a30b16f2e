//! The report as one page that needs nothing else.

use std::fmt::Write as _;

use super::Report;
use super::bias;
use super::chart::{self, Bar};
use crate::counts::{Histogram, Tallies, Tally};
use crate::quality::{Scale, rules};

/// Rows shown of a list that may be long.
const SHOWN: usize = 25;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1d2330; --soft: #5b6475; --paper: #ffffff; --line: #d9dee7; --bar: #3b6fb5; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --soft: #9aa4b5; --paper: #14171d; --line: #2c333f; --bar: #6c9fe0; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 900px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
p.note, td.note { color: var(--soft); } code { font-size: .9em; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .15rem 1.2rem .15rem 0; vertical-align: top; }
th { font-weight: 600; color: var(--soft); } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.tiles { display: flex; flex-wrap: wrap; gap: 1.6rem; margin: 1rem 0; } .tiles b { display: block; font-size: 1.35rem; } .tiles span { color: var(--soft); }
svg { max-width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 12px; } svg .value, svg .tick { fill: var(--soft); }
svg .bar { fill: var(--bar); } svg .axis { stroke: var(--line); } details { margin: .4rem 0; }
";

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let mut page = Page(String::new());
    page.head(report);
    page.flow(report);
    page.mix(report);
    page.tallies("Sources", "of what is kept", &report.counts.sources);
    page.languages(report);
    page.tallies("Scripts", "of what is kept", &report.counts.scripts);
    page.tallies("Licences", "of what is kept, as stated", &report.counts.licences);
    page.lengths(report);
    page.duplicates(report);
    page.private_data(report);
    page.contaminated(report);
    page.scores(report);
    if let Some(audit) = &report.bias {
        page.0.push_str(&bias::section(audit));
    }
    page.phases(report);
    page.0.push_str("</body></html>\n");
    page.0
}

struct Page(String);

impl Page {
    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        // Text in memory takes anything.
        let _ = self.0.write_fmt(text);
    }

    fn title(&mut self, title: &str, note: &str) {
        self.put(format_args!(
            "<h2>{}</h2><p class=\"note\">{}</p>",
            escape(title),
            escape(note)
        ));
    }

    fn head(&mut self, report: &Report) {
        let name = escape(&report.name);
        self.put(format_args!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><title>{name}: what is in it</title><style>{STYLE}</style></head><body>\
             <h1>{name}</h1>"
        ));
        if let Some(digest) = &report.digest {
            self.put(format_args!(
                "<p class=\"note\">digest <code>{}</code></p>",
                escape(digest)
            ));
        }
        self.0.push_str("<div class=\"tiles\">");
        let first = report
            .stages
            .first()
            .and_then(|stage| report.counts.stages.get(stage));
        let read = first.map(|flow| flow.given).unwrap_or_default();
        let kept = sum(&report.counts.sources);
        self.tile(&count(read.documents), "documents read");
        self.tile(&bytes(read.bytes), "of text read");
        self.tile(&count(kept.documents), "documents kept");
        self.tile(&percent(kept.bytes, read.bytes), "of the bytes kept");
        for split in &report.splits {
            self.tile(&count(split.tokens), &format!("tokens, {}", split.name));
        }
        self.0.push_str("</div>");
    }

    fn tile(&mut self, value: &str, what: &str) {
        self.put(format_args!(
            "<div><b>{}</b><span>{}</span></div>",
            escape(value),
            escape(what)
        ));
    }

    fn flow(&mut self, report: &Report) {
        self.title(
            "What each stage dropped, and why",
            "Documents that were given, and that went on.",
        );
        let flows = || {
            let stages = report.stages.iter();
            stages.filter_map(|stage| Some((stage, report.counts.stages.get(stage)?)))
        };
        let bars: Vec<Bar> = flows()
            .map(|(stage, flow)| Bar {
                label: stage.clone(),
                value: flow.passed.documents as f64,
                shown: count(flow.passed.documents),
                title: format!(
                    "{} of {} went on",
                    count(flow.passed.documents),
                    count(flow.given.documents)
                ),
            })
            .collect();
        self.0
            .push_str(&chart::bars(&bars, "documents that went on, by stage"));
        self.0.push_str(
            "<table><tr><th>stage</th><th>reason</th><th class=\"n\">documents</th><th class=\"n\">bytes</th><th class=\"n\">of what it was given</th></tr>",
        );
        for (stage, flow) in flows() {
            for (reason, tally) in by_size(&flow.dropped) {
                self.put(format_args!(
                    "<tr><td>{}</td><td><code>{}</code></td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
                    escape(stage),
                    escape(reason),
                    count(tally.documents),
                    bytes(tally.bytes),
                    percent(tally.documents, flow.given.documents)
                ));
            }
        }
        self.0.push_str("</table>");
        let altered: Vec<_> = flows().filter(|(_, flow)| flow.documents_altered > 0).collect();
        if altered.is_empty() {
            return;
        }
        self.0.push_str(
            "<table><tr><th>stage</th><th>what it altered</th><th class=\"n\">times</th><th class=\"n\">in documents</th></tr>",
        );
        for (stage, flow) in altered {
            for (index, (kind, times)) in flow.altered.iter().enumerate() {
                let documents = if index == 0 {
                    count(flow.documents_altered)
                } else {
                    String::new()
                };
                self.put(format_args!(
                    "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{documents}</td></tr>",
                    escape(stage),
                    escape(kind),
                    count(*times)
                ));
            }
        }
        self.0.push_str("</table>");
    }

    fn mix(&mut self, report: &Report) {
        if report.epochs.is_empty() {
            return;
        }
        self.title(
            "Mix",
            "How often documents of the training split are used in one pass over the dataset; less than once is a part of them.",
        );
        self.0.push_str(
            "<table><tr><th>of</th><th class=\"n\">times</th><th class=\"n\">share of the tokens</th></tr>",
        );
        for (name, share) in &report.epochs {
            self.put(format_args!(
                "<tr><td>{}</td><td class=\"n\">{:.3}</td><td class=\"n\">{:.1}%</td></tr>",
                escape(name),
                share.epochs,
                share.share * 100.0
            ));
        }
        self.0.push_str("</table>");
    }

    fn tallies(&mut self, title: &str, note: &str, tallies: &Tallies) {
        if tallies.is_empty() {
            return;
        }
        let all = sum(tallies);
        let rest = tallies.len().saturating_sub(SHOWN);
        let more = if rest > 0 {
            format!("{note}; {rest} more are in report.json")
        } else {
            note.to_owned()
        };
        self.title(title, &more);
        let bars: Vec<Bar> = by_size(tallies)
            .into_iter()
            .take(SHOWN)
            .map(|(name, tally)| Bar {
                label: name.to_owned(),
                value: tally.bytes as f64,
                shown: percent(tally.bytes, all.bytes),
                title: format!(
                    "{name}: {} documents, {}",
                    count(tally.documents),
                    bytes(tally.bytes)
                ),
            })
            .collect();
        self.0.push_str(&chart::bars(&bars, title));
    }

    fn languages(&mut self, report: &Report) {
        let counts = &report.counts;
        self.tallies("Languages", "of what is kept", &counts.languages);
        if counts.languages_read.is_empty() {
            return;
        }
        self.0.push_str(
            "<details open><summary>Kept of what was read, by language</summary><table><tr><th>language</th>\
             <th class=\"n\">read</th><th class=\"n\">kept</th><th class=\"n\">share</th><th class=\"n\">tokens per word</th><th class=\"n\">tokens per byte</th></tr>",
        );
        for (language, read) in by_size(&counts.languages_read).into_iter().take(SHOWN) {
            let kept = counts.languages.get(language).copied().unwrap_or_default();
            let fertility = counts.fertility.get(language).copied().unwrap_or_default();
            self.put(format_args!(
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
                escape(language),
                count(read.documents),
                count(kept.documents),
                percent(kept.documents, read.documents),
                ratio(fertility.tokens, fertility.words),
                ratio(fertility.tokens, fertility.bytes),
            ));
        }
        self.0.push_str("</table></details>");
        if counts.mixed_language.documents > 0 {
            self.put(format_args!(
                "<p class=\"note\">{} kept documents are in several languages.</p>",
                count(counts.mixed_language.documents)
            ));
        }
    }

    fn lengths(&mut self, report: &Report) {
        if report.counts.lengths.bins.is_empty() {
            return;
        }
        self.title("Lengths", "Kept documents by bytes of text, in powers of two.");
        let bins = contiguous(&report.counts.lengths, |bin| bytes(power_of_two(bin)));
        self.0
            .push_str(&chart::columns(&bins, "kept documents by bytes of text"));
    }

    fn duplicates(&mut self, report: &Report) {
        if report.counts.clusters.bins.is_empty() {
            return;
        }
        self.title(
            "Near-duplicates",
            "Clusters by the number of documents in them, in powers of two. One of each is kept.",
        );
        let bins = contiguous(&report.counts.clusters, |bin| count(power_of_two(bin)));
        self.0
            .push_str(&chart::columns(&bins, "clusters by number of documents"));
    }

    fn private_data(&mut self, report: &Report) {
        if report.counts.pii.is_empty() {
            return;
        }
        self.title(
            "Private data",
            "Found, by kind and language. What was found is in no report and no log.",
        );
        self.0
            .push_str("<table><tr><th>kind</th><th class=\"n\">found</th><th>most in</th></tr>");
        for (kind, languages) in &report.counts.pii {
            let mut most: Vec<_> = languages.iter().collect();
            most.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
            let most: Vec<String> = most
                .into_iter()
                .take(5)
                .map(|(language, found)| format!("{language} {}", count(*found)))
                .collect();
            self.put(format_args!(
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"note\">{}</td></tr>",
                escape(kind),
                count(languages.values().sum()),
                escape(&most.join(", "))
            ));
        }
        self.0.push_str("</table>");
    }

    fn contaminated(&mut self, report: &Report) {
        let Some(found) = &report.contamination else {
            return;
        };
        let note = format!(
            "Of {} documents that were looked at, {} hold an item of an evaluation set. Items that are too short are not \
             looked for, nor are {} sequences of words that too many items have.",
            count(found.documents),
            count(found.contaminated),
            count(found.common_ngrams)
        );
        self.title("Overlap with evaluations", &note);
        self.0.push_str(
            "<table><tr><th>set</th><th class=\"n\">items</th><th class=\"n\">too short</th><th class=\"n\">found</th>\
             <th class=\"n\">in documents</th></tr>",
        );
        for (name, set) in &found.sets {
            self.put(format_args!(
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
                escape(name),
                count(set.items),
                count(set.too_short),
                count(set.found.len() as u64),
                count(set.documents)
            ));
        }
        self.0.push_str("</table>");
    }

    fn scores(&mut self, report: &Report) {
        if report.counts.scores.is_empty() {
            return;
        }
        self.title(
            "Quality",
            "Scores of all documents that were scored, dropped or not: shares by twentieths, of which the last has all from 1 on, \
             and counts by powers of two.",
        );
        for (name, histogram) in &report.counts.scores {
            let rule = rules().iter().find(|rule| rule.code == name.as_str());
            let bins = contiguous(histogram, |bin| match rule.map(|rule| rule.scale) {
                Some(Scale::Count) => count(power_of_two(bin)),
                Some(Scale::Share) | None => format!("{:.2}", f64::from(bin) * f64::from(SCORE_BIN)),
            });
            self.put(format_args!("<details><summary>{}</summary>", escape(name)));
            self.0.push_str(&chart::columns(&bins, name));
            self.0.push_str("</details>");
        }
    }

    fn phases(&mut self, report: &Report) {
        if report.phases.is_empty() {
            return;
        }
        self.title(
            "Time",
            "Phases by the clock, in the process that ended the build; below them the work of their stages, in all threads and \
             processes together, those of interrupted attempts included.",
        );
        self.0
            .push_str("<table><tr><th>phase</th><th class=\"n\">seconds</th><th class=\"n\">MB/s</th></tr>");
        for phase in &report.phases {
            self.put(format_args!(
                "<tr><td>{}</td><td class=\"n\">{:.1}</td><td class=\"n\">{:.1}</td></tr>",
                escape(&phase.name),
                phase.seconds,
                phase.rate()
            ));
            for (stage, seconds) in &phase.stages {
                self.put(format_args!(
                    "<tr><td class=\"note\">· {}</td><td class=\"n note\">{seconds:.1}</td><td></td></tr>",
                    escape(stage)
                ));
            }
        }
        self.0.push_str("</table>");
    }
}

/// How wide the bins of scores are.
pub(crate) const SCORE_BIN: f32 = 0.05;

/// The least value of a bin of a histogram by powers of two.
fn power_of_two(bin: i32) -> u64 {
    u32::try_from(bin).map_or(0, |bin| 1 << bin.min(62))
}

/// The bins from the first to the last that has something, with labels.
fn contiguous(histogram: &Histogram, label: impl Fn(i32) -> String) -> Vec<(String, u64)> {
    let bins = &histogram.bins;
    let (Some((&first, _)), Some((&last, _))) = (bins.first_key_value(), bins.last_key_value()) else {
        return Vec::new();
    };
    (first..=last)
        .map(|bin| (label(bin), bins.get(&bin).copied().unwrap_or(0)))
        .collect()
}

/// Largest first.
fn by_size(tallies: &Tallies) -> Vec<(&str, Tally)> {
    let mut all: Vec<(&str, Tally)> = tallies
        .iter()
        .map(|(name, tally)| (name.as_str(), *tally))
        .collect();
    all.sort_by(|a, b| (b.1.documents, b.1.bytes, a.0).cmp(&(a.1.documents, a.1.bytes, b.0)));
    all
}

fn sum(tallies: &Tallies) -> Tally {
    let mut sum = Tally::default();
    tallies.values().for_each(|tally| sum += *tally);
    sum
}

/// A number with commas between thousands.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// In the unit that leaves up to four digits.
pub(crate) fn bytes(number: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 || value >= 100.0 {
        format!("{value:.0} {}", units[unit])
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    format!("{:.1}%", part as f64 / whole as f64 * 100.0)
}

fn ratio(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    format!("{:.2}", part as f64 / whole as f64)
}

/// Text that is safe between tags and in attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_cannot_become_markup() {
        let hostile = "</style><script>alert('x')</script>\"";
        let mut report = Report {
            name: hostile.to_owned(),
            stages: vec![hostile.to_owned()],
            ..Report::default()
        };
        report.counts.stage(hostile).drop(3, hostile, Some(hostile));
        report.counts.stage(hostile).alter([(hostile, 1)]);
        for tallies in [
            &mut report.counts.sources,
            &mut report.counts.languages,
            &mut report.counts.licences,
        ] {
            tallies.insert(hostile.to_owned(), Tally::one(5));
        }
        let page = page(&report);
        assert!(!page.contains("<script"), "{page}");
        assert_eq!(page.matches("</style>").count(), 1);
        assert!(page.contains("&lt;script&gt;"));
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(count),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [0, 999, 1500, 123_456_789].map(bytes),
            ["0 B", "999 B", "1.5 kB", "123 MB"]
        );
        assert_eq!(percent(1, 3), "33.3%");
    }

    #[test]
    fn the_page_needs_nothing_else_and_its_tags_close() {
        let mut report = Report {
            stages: vec!["read".to_owned()],
            ..Report::default()
        };
        report.counts.stage("read").pass(10, 10);
        report.counts.lengths.add_log2(10);
        report.counts.sources.insert("web".to_owned(), Tally::one(10));
        let page = page(&report);
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("src="));
        for tag in ["svg", "table", "div", "g", "details"] {
            let opened =
                page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }
}
