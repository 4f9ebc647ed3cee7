//! `lab reproduce`: the exact results of the whole laboratory as a record, and a later run held against it.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::section::{Cell, Section, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::context::Context;

/// Version of the record's layout.
const RECORD_VERSION: u64 = 1;
/// Largest record that is read.
const MAX_RECORD_BYTES: u64 = 16 << 20;
/// Most differences that are listed.
const MAX_DIFFERENCES: usize = 50;
/// Longest value that is shown of a difference, in characters.
const MAX_SHOWN: usize = 80;

/// What `sections` gave that must come out the same on any machine, with the settings, the version and this machine.
#[must_use]
pub fn record(ctx: &Context<'_>, settings: &Value, sections: &[Section]) -> Value {
    let results = sections.iter().filter(|section| !section.record.is_null());
    let results: Map<String, Value> =
        results.map(|section| (section.command.to_owned(), section.record.clone())).collect();
    json!({
        "record_version": RECORD_VERSION,
        "alcm": env!("CARGO_PKG_VERSION"),
        "settings": settings,
        "machine": machine(ctx),
        "results": results,
    })
}

/// The machine that a run is on, in words.
#[must_use]
pub fn machine(ctx: &Context<'_>) -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    json!({
        "cpu": model.map(|(_, model)| model.trim()),
        "processors": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "os": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "isa": ctx.isa.name(),
        "threads": ctx.pool.current_num_threads(),
    })
}

/// Reads a record.
///
/// # Errors
/// [`ErrorKind::Io`]; [`ErrorKind::LimitExceeded`] for a file that is too large; [`ErrorKind::InvalidInput`] for one that
/// is no record.
pub fn read(path: &Path) -> Result<Value> {
    let cannot_read = |e| Error::io("cannot read", e).in_file(path);
    let len = fs::metadata(path).map_err(cannot_read)?.len();
    if len > MAX_RECORD_BYTES {
        let message = format!("{len} bytes, a record has at most {MAX_RECORD_BYTES}");
        return Err(Error::new(ErrorKind::LimitExceeded, message).in_file(path));
    }
    let invalid =
        |message: String| Error::new(ErrorKind::InvalidInput, format!("no record: {message}")).in_file(path);
    let text = fs::read_to_string(path).map_err(cannot_read)?;
    let record: Value = serde_json::from_str(&text).map_err(|e| invalid(e.to_string()))?;
    let version = record.get("record_version").and_then(Value::as_u64);
    if version != Some(RECORD_VERSION) {
        return Err(invalid(format!("version {version:?}, known is {RECORD_VERSION}")));
    }
    if record.get("results").and_then(Value::as_object).is_none_or(Map::is_empty) {
        return Err(invalid("it holds no results".into()));
    }
    Ok(record)
}

/// Every place at which the settings and results of `new` are not those of `old`, with both values. Versions and machines
/// may differ, times are in neither.
#[must_use]
pub fn differences(old: &Value, new: &Value) -> Table {
    let mut table = Table::new("Differences", &["place", "record", "this run"]);
    for part in ["settings", "results"] {
        compare(part, &old[part], &new[part], &mut table);
    }
    let n_differences = table.rows.len();
    if n_differences > MAX_DIFFERENCES {
        table.rows.truncate(MAX_DIFFERENCES);
        table.note(format!("and {} more", n_differences - MAX_DIFFERENCES));
    }
    for part in ["alcm", "machine"] {
        if old[part] != new[part] {
            table.note(format!("not compared: {part} was {}, is {}", shown(&old[part]), shown(&new[part])));
        }
    }
    table
}

fn compare(place: &str, old: &Value, new: &Value, table: &mut Table) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let only_new = b.keys().filter(|key| !a.contains_key(*key));
            for key in a.keys().chain(only_new) {
                let side = |object: &Map<String, Value>| object.get(key).cloned().unwrap_or_default();
                compare(&format!("{place}.{key}"), &side(a), &side(b), table);
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            for idx in 0..a.len().max(b.len()) {
                let side = |list: &[Value]| list.get(idx).cloned().unwrap_or_default();
                compare(&format!("{place}[{idx}]"), &side(a), &side(b), table);
            }
        }
        _ if old == new => {}
        _ => table.push([Cell::from(place), shown(old).into(), shown(new).into()]),
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= MAX_SHOWN {
        return text;
    }
    text.chars().take(MAX_SHOWN).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Value {
        json!({
            "record_version": 1, "alcm": "0.1.0", "settings": {"runs": 1}, "machine": {"cpu": "a"},
            "results": {"synthetic": {"sizes": [1, 2, 3], "sha256": "00ff"}},
        })
    }

    #[test]
    fn only_settings_and_results_are_held_against_a_record() {
        let old = example();
        assert!(differences(&old, &old).rows.is_empty());
        let mut new = example();
        new["machine"]["cpu"] = json!("b");
        new["alcm"] = json!("0.2.0");
        let table = differences(&old, &new);
        assert!(table.rows.is_empty() && table.notes.len() == 2, "{table}");
        new["results"]["synthetic"]["sizes"][1] = json!(7);
        assert_eq!(
            differences(&old, &new).rows,
            [vec!["results.synthetic.sizes[1]".into(), "2".into(), "7".into()]]
        );
    }

    #[test]
    fn what_is_missing_or_added_is_a_difference() {
        let old = example();
        for change in ["removed", "added", "shorter", "settings"] {
            let mut new = example();
            match change {
                "removed" => new["results"] = json!({"other": 1}),
                "added" => new["results"]["more"] = json!(0),
                "shorter" => new["results"]["synthetic"]["sizes"] = json!([1, 2]),
                _ => new["settings"]["runs"] = json!(2),
            }
            assert!(!differences(&old, &new).rows.is_empty(), "{change}");
        }
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.json");
        fs::write(&path, example().to_string()).unwrap();
        assert_eq!(read(&path).unwrap(), example());
        let cases = [
            "",
            "[]",
            "{}",
            r#"{"record_version": 2, "results": {"a": 1}}"#,
            r#"{"record_version": 1, "results": {}}"#,
        ];
        for text in cases {
            fs::write(&path, text).unwrap();
            assert_eq!(read(&path).unwrap_err().kind(), ErrorKind::InvalidInput, "{text}");
        }
    }
}
