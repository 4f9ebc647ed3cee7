//! What every laboratory command gives: titled tables and plots, to print, to write as JSON, or to set in a page.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::error::Error;

/// One result of the laboratory.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// The command after `alcm lab` that prints it: `synthetic`.
    pub command: &'static str,
    /// Its title.
    pub title: String,
    /// What was done, in a sentence or three.
    pub intro: String,
    /// The results.
    pub tables: Vec<Table>,
    /// The same as pictures.
    pub plots: Vec<Plot>,
    /// What must come out the same in every run on any machine: sizes, hashes, errors, never times. Empty for a command
    /// that measures only time or this machine.
    pub record: Value,
}

/// A result and what is wrong with it.
#[derive(Debug)]
pub struct Outcome {
    /// All that was measured.
    pub section: Section,
    /// What is not as it should be; none where all is well.
    pub failures: Vec<Error>,
}

/// A picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    /// What it shows.
    pub caption: String,
    /// A whole `<svg>` element.
    pub svg: String,
}

/// Rows under named columns.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    /// Its title; empty for none.
    pub title: String,
    /// Names of the columns, each with its unit.
    pub columns: Vec<String>,
    /// The rows, each as long as there are columns.
    pub rows: Vec<Vec<Cell>>,
    /// Remarks below it.
    pub notes: Vec<String>,
}

/// A value of a table.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Nothing to say.
    Empty,
    /// Words.
    Text(String),
    /// A count or a size in bytes.
    Int(u64),
    /// A number and how many decimals are shown.
    Float(f64, usize),
    /// A number shown with three significant digits in scientific notation, 0 as 0.
    Small(f64),
    /// A number with its sign, and how many decimals are shown: gains and differences.
    Signed(f64, usize),
    /// Whether something holds.
    Bool(bool),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Cell {
    fn from(value: u64) -> Self {
        Self::Int(value)
    }
}

impl From<usize> for Cell {
    fn from(value: usize) -> Self {
        Self::Int(value as u64)
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl Cell {
    /// Whether it stands at the right of its column.
    #[must_use]
    pub fn is_number(&self) -> bool {
        matches!(self, Self::Int(_) | Self::Float(..) | Self::Small(_) | Self::Signed(..))
    }

    /// The value as JSON, with all its digits.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Empty => Value::Null,
            Self::Text(text) => json!(text),
            Self::Int(value) => json!(value),
            Self::Float(value, _) | Self::Small(value) | Self::Signed(value, _) => json!(value),
            Self::Bool(value) => json!(value),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => Ok(()),
            Self::Text(text) => f.write_str(text),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value, decimals) => write!(f, "{value:.decimals$}"),
            Self::Small(value) if *value == 0.0 => f.write_str("0"),
            Self::Small(value) => write!(f, "{value:.2e}"),
            Self::Signed(value, decimals) => write!(f, "{value:+.decimals$}"),
            Self::Bool(value) => f.write_str(if *value { "yes" } else { "no" }),
        }
    }
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|name| (*name).to_owned()).collect();
        Self { title: title.into(), columns, rows: Vec::new(), notes: Vec::new() }
    }

    /// Adds a row; it has a cell for each column.
    pub fn push<const N: usize>(&mut self, row: [Cell; N]) {
        debug_assert_eq!(N, self.columns.len(), "a row of the table {:?}", self.title);
        self.rows.push(row.into());
    }

    /// Adds a remark.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// `{"title", "rows": [{column: value}], "notes"}`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let row = |cells: &Vec<Cell>| {
            let fields = self.columns.iter().zip(cells).map(|(name, cell)| (name.clone(), cell.to_json()));
            Value::Object(fields.collect::<Map<_, _>>())
        };
        let rows: Vec<Value> = self.rows.iter().map(row).collect();
        json!({"title": self.title, "rows": rows, "notes": self.notes})
    }
}

impl fmt::Display for Table {
    /// Columns as wide as their longest value, numbers to the right.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect();
        let width_of = |column: usize, name: &str| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|text| text.chars().count());
            cells.max().unwrap_or(0).max(name.chars().count())
        };
        let widths: Vec<usize> =
            self.columns.iter().enumerate().map(|(column, name)| width_of(column, name)).collect();
        let is_number = |column: usize| {
            let mut cells = self.rows.iter().filter_map(|row| row.get(column)).filter(|c| **c != Cell::Empty);
            cells.clone().next().is_some() && cells.all(Cell::is_number)
        };
        if !self.title.is_empty() {
            writeln!(f, "{}", self.title)?;
        }
        for row in std::iter::once(&self.columns).chain(&rows) {
            let mut line = String::new();
            for (column, (text, width)) in row.iter().zip(&widths).enumerate() {
                let pad = " ".repeat(width - text.chars().count().min(*width));
                let (before, after) =
                    if is_number(column) { (pad, String::new()) } else { (String::new(), pad) };
                line += &format!("{before}{text}{after}  ");
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "  {note}"))
    }
}

impl Section {
    /// The tables and the record, without plots.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let tables: Vec<Value> = self.tables.iter().map(Table::to_json).collect();
        json!({
            "command": format!("lab {}", self.command),
            "title": self.title,
            "intro": self.intro,
            "tables": tables,
            "record": self.record,
        })
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}", self.title, self.intro)?;
        self.tables.iter().try_for_each(|table| write!(f, "\n{table}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up_and_keep_their_digits_in_json() {
        let mut table = Table::new("Sizes", &["codec", "bytes", "gain %"]);
        table.push(["a".into(), Cell::Int(12), Cell::Signed(1.234, 1)]);
        table.push(["longer".into(), Cell::Int(3456), Cell::Empty]);
        table.note("measured");
        assert_eq!(
            table.to_string(),
            "Sizes\ncodec   bytes  gain %\na          12    +1.2\nlonger   3456\n  measured\n"
        );
        assert_eq!(table.to_json()["rows"][0], json!({"codec": "a", "bytes": 12, "gain %": 1.234}));
        assert_eq!(table.to_json()["rows"][1]["gain %"], Value::Null);
        assert_eq!(Cell::Small(0.0157).to_string(), "1.57e-2");
    }
}
