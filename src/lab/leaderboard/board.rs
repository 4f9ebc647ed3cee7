//! Boards: folders of signed entries.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::dataset;
use super::submission::{DeviceInfo, Run, check_date, check_optional_words, check_words};
use crate::error::{Error, ErrorKind, Result};
use crate::lab::experiment::sha256;
use crate::lab::untrusted::read_file;
use crate::pipeline::train::write_file;

/// Largest entry, and most of them on a board.
const MAX_ENTRY_BYTES: u64 = 256 << 10;
const MAX_ENTRIES: usize = 10_000;
/// The field that is no part of what it signs.
const SIGNATURE: &str = "signature";

/// An entry: what was computed from the files, and what the submitter claims.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Who sent it.
    pub submitter: String,
    /// The day of the measurement.
    pub date: String,
    /// What was compressed.
    pub dataset: String,
    /// Hash of its names and bytes.
    pub dataset_sha256: String,
    /// The codec's name and level.
    pub codec: String,
    /// Its version.
    pub version: String,
    /// Computed: mean over the files of bytes ÷ compressed bytes.
    pub ratio: f64,
    /// Computed: compressed bytes of all files.
    pub compressed_bytes: u64,
    /// Computed: `ratio ÷ (cpu_seconds + 1)`.
    pub caq: f64,
    /// Computed: range of the runs' ratios, per cent.
    pub variance: f64,
    /// Computed: whether every bit came back.
    pub is_exact: bool,
    /// Computed: the largest relative L2 error of a tensor.
    pub relative_l2: f64,
    /// Measured here: processor seconds to decode a file.
    pub decode_cpu_seconds: f64,
    /// Computed: hash of names, decoders and compressed bytes.
    pub payload_sha256: String,
    /// Claimed: processor seconds to encode a file; for a baseline, measured.
    pub cpu_seconds: f64,
    /// Claimed: each run; for a baseline, measured.
    pub runs: Vec<Run>,
    /// Whether this program ran the codec itself.
    pub is_baseline: bool,
    /// Claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub energy_joules: Option<f64>,
    /// Claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_info: Option<DeviceInfo>,
    /// Claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
}

/// An entry and its signature.
#[derive(Debug, Clone, PartialEq)]
pub struct Signed {
    /// What is signed.
    pub entry: Entry,
    /// Hex digits of the SHA-256 of the entry's canonical JSON: it shows that an entry was changed, not who made it.
    pub signature: String,
}

/// `value` rounded to nine decimals. Numbers up to a million are then the same after being written and read.
#[must_use]
pub fn rounded(value: f64) -> f64 {
    (value * 1e9).round() / 1e9
}

/// JSON with sorted keys and no blanks.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut names: Vec<_> = fields.iter().collect();
            names.sort_by_key(|(name, _)| *name);
            let fields: Vec<_> = names
                .into_iter()
                .map(|(name, value)| format!("{}:{}", Value::String(name.clone()), canonical(value)))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

/// Signs `entry`.
///
/// # Errors
/// [`ErrorKind::Internal`] for an entry that is no JSON: a number that is not finite.
pub fn sign(entry: Entry) -> Result<Signed> {
    let value = to_value(&entry)?;
    Ok(Signed { signature: sha256(canonical(&value).as_bytes()), entry })
}

fn to_value(entry: &Entry) -> Result<Value> {
    serde_json::to_value(entry).map_err(|e| Error::new(ErrorKind::Internal, format!("no JSON: {e}")))
}

/// Adds `signed` to the board `dir`, which is made if it is not there.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] where the board has the same files of the same dataset and codec; as [`read`].
pub fn add(dir: &Path, signed: &Signed) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| Error::io("cannot make the folder", e).in_file(dir))?;
    let entries = read(dir)?;
    if entries.len() >= MAX_ENTRIES {
        return Err(
            Error::new(ErrorKind::LimitExceeded, format!("{MAX_ENTRIES} entries are there")).in_file(dir)
        );
    }
    if entries.iter().any(|other| is_duplicate(&other.entry, &signed.entry)) {
        let message = "a duplicate: the same compressed files of this dataset and codec are on the board";
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    let mut value = to_value(&signed.entry)?;
    value[SIGNATURE] = Value::String(signed.signature.clone());
    // Neither part comes from the submitter: a dataset that is known, and hex digits.
    let name = format!("{}-{}.json", signed.entry.dataset, signed.signature.get(..16).unwrap_or_default());
    let text = serde_json::to_string_pretty(&value)
        .map_err(|e| Error::new(ErrorKind::Internal, format!("no JSON: {e}")))?;
    write_file(&dir.join(name), (text + "\n").as_bytes(), false)
}

fn is_duplicate(one: &Entry, other: &Entry) -> bool {
    let key = |entry: &Entry| (entry.dataset.clone(), entry.codec.clone(), entry.payload_sha256.clone());
    key(one) == key(other)
}

/// All entries of the board `dir`, each checked against its signature.
///
/// # Errors
/// [`ErrorKind::ChecksumMismatch`] names the entry that was changed; [`ErrorKind::InvalidInput`] one that is none.
pub fn read(dir: &Path) -> Result<Vec<Signed>> {
    let cannot = |e| Error::io("cannot read the board", e).in_file(dir);
    let mut paths = Vec::new();
    for item in fs::read_dir(dir).map_err(cannot)? {
        let path = item.map_err(cannot)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
        if paths.len() > MAX_ENTRIES {
            return Err(
                Error::new(ErrorKind::LimitExceeded, format!("over {MAX_ENTRIES} entries")).in_file(dir)
            );
        }
    }
    paths.sort();
    paths.iter().map(|path| parse(&read_file(path, MAX_ENTRY_BYTES)?).map_err(|e| e.in_file(path))).collect()
}

fn parse(text: &[u8]) -> Result<Signed> {
    let invalid = |message: String| Error::new(ErrorKind::InvalidInput, message);
    let mut fields: Map<String, Value> =
        serde_json::from_slice(text).map_err(|e| invalid(format!("no entry: {e}")))?;
    let signature = fields.remove(SIGNATURE);
    let Some(signature) = signature.as_ref().and_then(Value::as_str) else {
        return Err(invalid("an entry without a signature".into()));
    };
    let value = Value::Object(fields);
    if sha256(canonical(&value).as_bytes()) != signature {
        let message = "was changed after it was signed: its signature does not fit";
        return Err(Error::new(ErrorKind::ChecksumMismatch, message));
    }
    let entry: Entry = serde_json::from_value(value).map_err(|e| invalid(format!("no entry: {e}")))?;
    // Anybody can sign: what is printed and sorted is checked all the same.
    check_words(&[("submitter", &entry.submitter), ("codec", &entry.codec), ("version", &entry.version)])?;
    check_optional_words(entry.device_info.as_ref(), entry.notes.as_deref())?;
    check_date(&entry.date)?;
    if !dataset::names().any(|name| name == entry.dataset) {
        return Err(invalid("an entry of an unknown dataset".into()));
    }
    Ok(Signed { entry, signature: signature.to_owned() })
}
