//! What a submission says: its schema, its types, and what its words may be.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::lab::schema;

/// The published schema.
pub const SCHEMA: &str = include_str!("../../../configs/submission.schema.json");

/// A submission, as its file has it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// Who sends it.
    pub submitter: String,
    /// The day of the measurement, `YYYY-MM-DD`.
    pub date: String,
    /// What was compressed.
    pub dataset: String,
    /// The codec's name and level.
    pub codec: String,
    /// Its version.
    pub version: String,
    /// Mean over the files of bytes ÷ compressed bytes.
    pub ratio: f64,
    /// Processor seconds to encode a file, mean over files and runs.
    pub cpu_seconds: f64,
    /// Each run.
    pub runs: Vec<Run>,
    /// Range of the runs' ratios, per cent.
    pub variance: f64,
    /// `ratio ÷ (cpu_seconds + 1)`.
    pub caq: f64,
    /// A bound that every tensor's error meets; `None` for a codec without loss.
    pub relative_l2: Option<f64>,
    /// Joules to encode a file, mean over the runs.
    pub energy_joules: Option<f64>,
    /// Where it was measured.
    pub device_info: Option<DeviceInfo>,
    /// Anything else.
    pub notes: Option<String>,
    /// The compressed files.
    pub files: Vec<PayloadFile>,
}

/// One run over all files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Mean over the files.
    pub ratio: f64,
    /// Mean over the files.
    pub cpu_seconds: f64,
    /// Mean over the files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub energy_joules: Option<f64>,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceInfo {
    /// As the system names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_model: Option<String>,
    /// Cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<u64>,
    /// Hardware threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u64>,
    /// Nominal clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_freq_mhz: Option<f64>,
}

/// A compressed file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PayloadFile {
    /// The dataset's file that it decodes to.
    pub name: String,
    /// What decodes it.
    pub decoder: String,
    /// A plain name in the submission's folder.
    pub path: Option<String>,
    /// The bytes themselves.
    pub base64: Option<String>,
}

impl Submission {
    /// Checks `text` against the schema and the rules that a schema cannot say.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`]: which value is wrong, and why.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let invalid = |message: String| Error::new(ErrorKind::InvalidInput, message);
        let value: Value = serde_json::from_slice(text).map_err(|e| invalid(format!("no JSON: {e}")))?;
        let schema: Value = serde_json::from_str(SCHEMA)
            .map_err(|e| Error::new(ErrorKind::Internal, format!("the schema is no JSON: {e}")))?;
        schema::check(&schema, &value).map_err(invalid)?;
        // From the text once more: it finds names that are twice there, of which a value keeps the last.
        let submission: Self = serde_json::from_slice(text).map_err(|e| invalid(e.to_string()))?;
        check_words(&[
            ("submitter", &submission.submitter),
            ("codec", &submission.codec),
            ("version", &submission.version),
        ])?;
        check_optional_words(submission.device_info.as_ref(), submission.notes.as_deref())?;
        check_date(&submission.date)?;
        Ok(submission)
    }
}

/// Checks the words of an entry or submission that need not be there.
///
/// # Errors
/// As [`check_words`].
pub fn check_optional_words(device: Option<&DeviceInfo>, notes: Option<&str>) -> Result<()> {
    let model = device.and_then(|device| device.cpu_model.as_deref());
    let words: Vec<_> = [("cpu_model", model), ("notes", notes)]
        .into_iter()
        .filter_map(|(field, text)| Some((field, text?)))
        .collect();
    check_words(&words)
}

/// One line of visible characters each, without those that markup is made of.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] names the field.
pub fn check_words(words: &[(&str, &str)]) -> Result<()> {
    for (field, text) in words {
        let bad = text.chars().find(|&c| c.is_control() || is_invisible(c) || "<>&\"|`\\[]{}".contains(c));
        if bad.is_some() || text.trim() != *text || text.is_empty() {
            let message = format!(
                "{field} \"{}\" is not one line of words: no markup, invisible characters or blanks at its ends",
                text.escape_debug()
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
    }
    Ok(())
}

/// Characters of no width and those that turn the direction of text.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A day of the Gregorian calendar, `YYYY-MM-DD`.
///
/// # Errors
/// [`ErrorKind::InvalidInput`].
pub fn check_date(date: &str) -> Result<()> {
    let field = |range: std::ops::Range<usize>| -> Option<u32> {
        let digits = date.get(range).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        digits.parse().ok()
    };
    let is_day = || -> Option<bool> {
        let (year, month, day) = (field(0..4)?, field(5..7)?, field(8..10)?);
        let dashes = date.len() == 10 && date.get(4..5) == Some("-") && date.get(7..8) == Some("-");
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let n_days = match month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 if is_leap => 29,
            2 => 28,
            _ => 0,
        };
        Some(dashes && (1..=n_days).contains(&day))
    };
    if is_day() == Some(true) {
        return Ok(());
    }
    let message = format!("\"{}\" is no date of the form YYYY-MM-DD", date.escape_debug());
    Err(Error::new(ErrorKind::InvalidInput, message))
}
