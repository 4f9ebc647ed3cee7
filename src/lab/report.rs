//! `lab report`: every section on one self-contained page, without scripts and without anything from elsewhere.

use std::fmt::Write;

use serde_json::Value;

use super::section::{Cell, Section, Table};
use super::svg::escaped;

/// Tables of the original report, what it stated, and the command that measures the same.
const ORIGINAL: [(&str, &str, &str); 17] = [
    ("CAQ score, compression ratio", "1.33 → 1.60, +20.14 %", "alcm lab synthetic"),
    ("CAQ gain by epoch", "+17.88 % to +22.45 %", "alcm lab synthetic"),
    ("CPU time", "0.005 s both", "alcm lab synthetic, alcm lab compare"),
    ("Entropy loss", "0.0074", "alcm lab ablation, alcm train"),
    ("Model characteristics: parameters, memory", "~450, 2 KB", "alcm lab memory"),
    ("Acceptance criteria", "CAQ gain ≥ 5 %, variance ≤ 1.5 %", "alcm lab synthetic, alcm lab variance"),
    ("Variance analysis", "4.37 %", "alcm lab variance, alcm lab robust"),
    ("Determinism checks", "seed 42", "alcm lab reproduce"),
    ("Resource requirements", "~500 MB RAM", "alcm lab memory"),
    ("Bundle statistics", "CAQ 4.85, 3.12, 4.20", "alcm lab bundles run"),
    ("Leaderboard statistics, adaptive entries", "4.47, 1.60", "alcm lab leaderboard render"),
    ("Compression pipeline timing", "5.0 ms", "alcm lab timing"),
    ("Memory footprint", "48 KB", "alcm lab memory"),
    ("Comparison of methods", "1.00 to 1.60", "alcm lab compare"),
    ("Impact: storage, transfer, distributed training", "750 → 625 MB", "alcm lab impact"),
    ("Test coverage", "69 tests", "cargo test --release"),
    (
        "Future targets: +25 %, variance < 1.5 %, real checkpoints",
        "planned",
        "alcm lab synthetic, variance, curves",
    ),
];

/// The style of pages.
pub(crate) const STYLE: &str = "
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent);
  --faint: color-mix(in srgb, currentColor 5%, transparent); --quiet: color-mix(in srgb, currentColor 68%, transparent); }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 2rem 1.25rem 4rem; font: 16px/1.55 system-ui, sans-serif;
  background: Canvas; color: CanvasText; }
h1 { font-size: 1.9rem; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.35rem; margin: 3.2rem 0 .4rem; padding-top: 1.1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.8rem 0 .5rem; }
p { margin: .4rem 0 1rem; max-width: 46rem; }
nav { display: flex; flex-wrap: wrap; gap: .4rem; margin: 1.4rem 0; }
nav a { padding: .18rem .65rem; border: 1px solid var(--line); border-radius: 1rem; font-size: .875rem;
  text-decoration: none; color: inherit; }
nav a:hover { background: var(--faint); }
code { font: .875em ui-monospace, monospace; background: var(--faint); padding: .1em .35em; border-radius: .25em; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: .5rem; }
.tall { max-height: 30rem; overflow-y: auto; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .38rem .75rem; text-align: left; white-space: nowrap; }
th { font-weight: 600; background: color-mix(in srgb, CanvasText 6%, Canvas); position: sticky; top: 0; }
tr + tr td { border-top: 1px solid var(--line); }
.number { text-align: right; }
td.text { white-space: normal; min-width: 8rem; }
.notes { margin: .5rem 0 0; padding-left: 1.1rem; font-size: .85rem; color: var(--quiet); }
.quiet { color: var(--quiet); font-size: .9rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); gap: 1.2rem; margin-top: 1.4rem; }
figure { margin: 0; padding: .9rem; border: 1px solid var(--line); border-radius: .5rem; min-width: 0; }
figure svg { display: block; width: 100%; max-width: 46rem; height: auto; margin: 0 auto; }
figcaption { font-size: .875rem; font-weight: 600; margin-bottom: .5rem; overflow-wrap: anywhere; }
";

/// Rows from which on a table scrolls by itself.
const TALL_ROWS: usize = 20;

/// The page of `sections`, made on `machine`.
#[must_use]
pub fn page(sections: &[Section], machine: &Value) -> String {
    let mut html = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>ALCM laboratory</title>\n",
    );
    html += &format!("<style>{STYLE}</style>\n</head>\n<body>\n<h1>ALCM laboratory</h1>\n");
    let version = env!("CARGO_PKG_VERSION");
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(
        html,
        "<p>Every number below was measured by the command beside it, on decoded data, in one run.</p>\n\
         <p class=\"quiet\">alcm {version}; {}</p>\n<nav aria-label=\"Sections\">",
        escaped(&machine_text(machine))
    );
    for section in sections {
        let _ = writeln!(html, "<a href=\"#{}\">{}</a>", anchor(section), escaped(&section.title));
    }
    html += "</nav>\n";
    original(&mut html);
    for section in sections {
        let _ = writeln!(
            html,
            "<section id=\"{}\">\n<h2>{}</h2>\n<p><code>alcm lab {}</code></p>\n<p>{}</p>",
            anchor(section),
            escaped(&section.title),
            escaped(section.command),
            escaped(&section.intro)
        );
        section.tables.iter().for_each(|table| write_table(&mut html, table));
        if !section.plots.is_empty() {
            html += "<div class=\"plots\">\n";
            for plot in &section.plots {
                let _ = writeln!(
                    html,
                    "<figure><figcaption>{}</figcaption>\n{}</figure>",
                    escaped(&plot.caption),
                    plot.svg
                );
            }
            html += "</div>\n";
        }
        html += "</section>\n";
    }
    html + "</body>\n</html>\n"
}

/// A name for links, which holds no blank.
fn anchor(section: &Section) -> String {
    escaped(&section.command.replace(' ', "-"))
}

fn machine_text(machine: &Value) -> String {
    let word = |key: &str| match &machine[key] {
        Value::String(text) => text.clone(),
        Value::Null => "unknown".to_owned(),
        other => other.to_string(),
    };
    format!(
        "{}, {} processors, {} {}, {} kernels, {} threads",
        word("cpu"),
        word("processors"),
        word("os"),
        word("architecture"),
        word("isa"),
        word("threads")
    )
}

fn original(html: &mut String) {
    let mut table = Table::new(
        "The original report's tables, and what measures them here",
        &["table", "it stated", "command"],
    );
    for (name, stated, command) in ORIGINAL {
        table.push([name.into(), stated.into(), command.into()]);
    }
    table.note("What it stated is quoted, not reproduced: most of it does not reproduce.");
    write_table(html, &table);
}

/// Appends `table`; whatever it holds stays text.
pub(crate) fn write_table(html: &mut String, table: &Table) {
    if !table.title.is_empty() {
        let _ = writeln!(html, "<h3>{}</h3>", escaped(&table.title));
    }
    let tall = if table.rows.len() > TALL_ROWS { " tall" } else { "" };
    let _ = write!(html, "<div class=\"wide{tall}\" tabindex=\"0\"><table>\n<thead><tr>");
    let class =
        |cell: Option<&Cell>| if cell.is_some_and(Cell::is_number) { " class=\"number\"" } else { "" };
    for (column, name) in table.columns.iter().enumerate() {
        // A column begins with a blank now and then; its first value tells what it is.
        let first = table.rows.iter().filter_map(|row| row.get(column)).find(|cell| **cell != Cell::Empty);
        let _ = write!(html, "<th{}>{}</th>", class(first), escaped(name));
    }
    *html += "</tr></thead>\n<tbody>\n";
    for row in &table.rows {
        *html += "<tr>";
        for cell in row {
            let class = match cell {
                Cell::Text(text) if text.chars().count() > 40 => " class=\"text\"",
                cell => class(Some(cell)),
            };
            let _ = write!(html, "<td{class}>{}</td>", escaped(&cell.to_string()));
        }
        *html += "</tr>\n";
    }
    *html += "</tbody></table></div>\n";
    if !table.notes.is_empty() {
        *html += "<ul class=\"notes\">";
        for note in &table.notes {
            let _ = write!(html, "<li>{}</li>", escaped(note));
        }
        *html += "</ul>\n";
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::lab::section::Plot;
    use crate::lab::svg::bars;

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_markup_stays_text() {
        let hostile = "<img src=x onerror=alert(1)>";
        let mut table = Table::new(hostile, &[hostile]);
        table.push([hostile.into()]);
        table.note(hostile);
        let svg = bars(&[(hostile.into(), 1.0)], hostile);
        let section = Section {
            command: "test",
            title: hostile.into(),
            intro: hostile.into(),
            tables: vec![table],
            plots: vec![Plot { caption: hostile.into(), svg }],
            record: Value::Null,
        };
        let html = page(&[section], &json!({"cpu": hostile}));
        assert!(!html.contains("<img") && !html.contains("<script"));
        // The only address is the name of the SVG namespace, which nobody fetches.
        assert_eq!(
            html.matches("http").count(),
            html.matches("http://www.w3.org/2000/svg").count() + 1,
            "http-equiv"
        );
        for tag in ["section", "table", "div", "figure", "svg", "ul", "nav", "tbody"] {
            let (opened, closed) =
                (html.matches(&format!("<{tag}")).count(), html.matches(&format!("</{tag}>")).count());
            assert_eq!(opened, closed, "{tag}");
        }
    }
}
