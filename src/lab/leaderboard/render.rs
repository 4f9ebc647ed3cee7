//! A board as tables: in the terminal, as Markdown, as a page of HTML.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::board::{Entry, Signed, read};
use super::dataset;
use crate::error::Result;
use crate::lab::report::{STYLE, write_table};
use crate::lab::section::{Cell, Section, Table};
use crate::lab::stats::{gain_percent, mean, median};
use crate::lab::svg::escaped;

/// The codec whose entry by this program others are compared with.
const BASELINE_CODEC: &str = "npz";
const COLUMNS: [&str; 11] = [
    "rank",
    "submitter",
    "dataset",
    "codec",
    "CAQ",
    "Δ vs npz %",
    "ratio",
    "CPU s, claimed",
    "decode CPU s, here",
    "variance %",
    "relative L2",
];

/// The tables of the board `dir`, after every signature was checked.
///
/// # Errors
/// As [`read`]: an entry that was changed is named.
pub fn render(dir: &Path) -> Result<Section> {
    let entries = read(dir)?;
    let mut summary = Table::new(
        "Datasets",
        &["dataset", "exact entries", "mean CAQ", "median CAQ", "best CAQ", "lossy entries"],
    );
    let mut tables = Vec::new();
    let mut adaptive = Table::new("Adaptive: lossy codecs, by dataset", &COLUMNS);
    for name in dataset::names() {
        let mut here: Vec<&Signed> = entries.iter().filter(|signed| signed.entry.dataset == name).collect();
        here.sort_by(|a, b| order(a, b));
        let baseline = here
            .iter()
            .find(|signed| signed.entry.is_baseline && signed.entry.codec == BASELINE_CODEC)
            .map(|signed| signed.entry.caq);
        let (exact, lossy): (Vec<_>, Vec<_>) = here.into_iter().partition(|signed| signed.entry.is_exact);
        let scores: Vec<f64> = exact.iter().map(|signed| signed.entry.caq).collect();
        if !exact.is_empty() {
            let mut table = Table::new(format!("Dataset: {name}"), &COLUMNS);
            push(&mut table, &exact, baseline);
            table.note(format!(
                "{} entries, mean CAQ {:.4}, median {:.4}.",
                scores.len(),
                mean(&scores),
                median(&scores)
            ));
            tables.push(table);
        }
        push(&mut adaptive, &lossy, baseline);
        let statistic = |value: f64| if value.is_nan() { Cell::Empty } else { Cell::Float(value, 4) };
        summary.push([
            name.into(),
            exact.len().into(),
            statistic(mean(&scores)),
            statistic(median(&scores)),
            statistic(scores.first().copied().unwrap_or(f64::NAN)),
            lossy.len().into(),
        ]);
    }
    adaptive
        .note("A lossy score means something only beside its error: the largest relative L2 of a tensor.");
    let intro = "Each entry's compressed files were decoded and compared before it was entered; ratio, CAQ, variance (the \
                 range of the runs' ratios, per cent of their mean) and error were computed anew, and every signature \
                 has just been checked. CPU seconds cannot be computed from files: they are the submitter's claim, save \
                 for baselines, which this program ran; decoding was measured where the entry was made. CAQ = ratio ÷ \
                 (CPU seconds + 1), means over the files. Ties go to the larger ratio, fewer bytes, the earlier date, \
                 then by name and signature."
        .to_owned();
    let record: Vec<Value> = entries
        .iter()
        .filter(|signed| signed.entry.is_baseline)
        .map(|Signed { entry: e, .. }| json!({"dataset": e.dataset, "codec": e.codec, "payload": e.payload_sha256}))
        .collect();
    let tables = std::iter::once(summary).chain(tables).chain(std::iter::once(adaptive));
    Ok(Section {
        command: "leaderboard render",
        title: "Leaderboard".into(),
        intro,
        tables: tables.filter(|table| !table.rows.is_empty()).collect(),
        plots: Vec::new(),
        record: Value::Array(record),
    })
}

/// Best first; no two entries are equal, so that the order of files does not matter.
fn order(a: &Signed, b: &Signed) -> std::cmp::Ordering {
    let (x, y) = (&a.entry, &b.entry);
    y.caq
        .total_cmp(&x.caq)
        .then_with(|| y.ratio.total_cmp(&x.ratio))
        .then_with(|| x.compressed_bytes.cmp(&y.compressed_bytes))
        .then_with(|| x.date.cmp(&y.date))
        .then_with(|| x.submitter.cmp(&y.submitter))
        .then_with(|| a.signature.cmp(&b.signature))
}

fn push(table: &mut Table, ranked: &[&Signed], baseline: Option<f64>) {
    for (rank, Signed { entry, .. }) in (1u64..).zip(ranked) {
        let Entry { submitter, dataset, codec, .. } = entry;
        table.push([
            rank.into(),
            submitter.as_str().into(),
            dataset.as_str().into(),
            codec.as_str().into(),
            Cell::Float(entry.caq, 4),
            baseline.map_or(Cell::Empty, |baseline| Cell::Signed(gain_percent(entry.caq, baseline), 2)),
            Cell::Float(entry.ratio, 4),
            Cell::Float(entry.cpu_seconds, 6),
            Cell::Float(entry.decode_cpu_seconds, 6),
            Cell::Float(entry.variance, 2),
            Cell::Small(entry.relative_l2),
        ]);
    }
}

/// `text` such that Markdown, GitHub's too, shows it as it is: no markup, link, mention or end of a cell.
fn markdown_text(text: &str) -> String {
    let has_address = text.to_ascii_lowercase().contains("www");
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '@' => escaped += "&#64;",
            '.' if has_address => escaped += "&#46;",
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '#' | '!' | '|' | '~' | ':' | '$' => {
                escaped.push('\\');
                escaped.push(c);
            }
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

/// `section` as Markdown.
#[must_use]
pub fn markdown(section: &Section) -> String {
    let mut text = format!("# {}\n\n{}\n", markdown_text(&section.title), markdown_text(&section.intro));
    // Writing to a string cannot fail, here and below.
    for table in &section.tables {
        let _ = write!(text, "\n## {}\n\n", markdown_text(&table.title));
        let line = |cells: &mut dyn Iterator<Item = String>| {
            cells.fold(String::from("|"), |line, cell| line + " " + &cell + " |")
        };
        let _ = writeln!(text, "{}", line(&mut table.columns.iter().map(|name| markdown_text(name))));
        let is_number =
            |column: usize| table.rows.iter().filter_map(|row| row.get(column)).any(Cell::is_number);
        let rule = |column| if is_number(column) { "---:" } else { "---" }.to_owned();
        let _ = writeln!(text, "{}", line(&mut (0..table.columns.len()).map(rule)));
        for row in &table.rows {
            let _ = writeln!(text, "{}", line(&mut row.iter().map(|cell| markdown_text(&cell.to_string()))));
        }
        table.notes.iter().for_each(|note| {
            let _ = write!(text, "\n{}\n", markdown_text(note));
        });
    }
    text
}

/// `section` as a page that needs nothing from elsewhere.
#[must_use]
pub fn html(section: &Section) -> String {
    let title = escaped(&section.title);
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p>{}</p>\n",
        escaped(&section.intro)
    );
    section.tables.iter().for_each(|table| write_table(&mut html, table));
    html + "</body>\n</html>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_text_in_markdown() {
        let hostile = "<b>a|b</b> [x](http://y) `c` **d** ![i](j) @me www.z.org\n# h ~~s~~ \\|";
        let text = markdown_text(hostile);
        assert_eq!(
            text,
            "&lt;b&gt;a\\|b&lt;/b&gt; \\[x\\](http\\://y) \\`c\\` \\*\\*d\\*\\* \\!\\[i\\](j) &#64;me www&#46;z&#46;org \
             \\# h \\~\\~s\\~\\~ \\\\\\|"
        );
        assert_eq!(markdown_text("zstd -19, 2.31"), "zstd -19, 2.31");
    }
}
