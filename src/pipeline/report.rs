//! What a run did: bytes per dtype and in total, files, failures, time.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::lossy::settings::Goal;
use super::timings::{Timings, share};
use crate::dtype::Dtype;
use crate::error::Error;

/// Bytes of one dtype, or of several added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Size of the original elements, in bytes.
    pub original_bytes: u64,
    /// Size of the block records in the archives, record headers included, in bytes.
    pub stored_bytes: u64,
    /// Elements.
    pub elements: u64,
}

impl Tally {
    /// Books a block of `dtype`.
    pub fn add_block(&mut self, dtype: Dtype, original_bytes: u64, stored_bytes: u64) {
        self.original_bytes += original_bytes;
        self.stored_bytes += stored_bytes;
        self.elements += original_bytes.saturating_mul(8) / dtype.element_bits() as u64;
    }

    fn add(&mut self, other: &Self) {
        self.original_bytes += other.original_bytes;
        self.stored_bytes += other.stored_bytes;
        self.elements += other.elements;
    }

    /// Original ÷ stored; over 1 is smaller. 1 where nothing is stored.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        if self.stored_bytes == 0 { 1.0 } else { self.original_bytes as f64 / self.stored_bytes as f64 }
    }

    /// Percent of the original that is saved; negative where it grew.
    #[must_use]
    pub fn saved_percent(&self) -> f64 {
        if self.original_bytes == 0 {
            0.0
        } else {
            100.0 * (1.0 - self.stored_bytes as f64 / self.original_bytes as f64)
        }
    }

    /// Stored bits ÷ elements; 0 without elements.
    #[must_use]
    pub fn bits_per_element(&self) -> f64 {
        if self.elements == 0 { 0.0 } else { 8.0 * self.stored_bytes as f64 / self.elements as f64 }
    }
}

/// A rate goal, and what the tensors under it take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateOutcome {
    /// What was asked for; bits or a ratio.
    pub goal: Goal,
    /// The tensors that were to meet it.
    pub tally: Tally,
}

impl RateOutcome {
    /// Share of the goal by which a rate may be off and be called met.
    const MET: f64 = 0.02;

    /// What was reached, in the goal's unit: bits an element, or the ratio of a run of `total`.
    #[must_use]
    pub fn reached(&self, total: &Tally) -> f64 {
        if self.goal.is_ratio() { total.ratio() } else { self.tally.bits_per_element() }
    }

    /// What was reached of a run of `total`, as a share of the goal, less 1.
    #[must_use]
    pub fn deviation(&self, total: &Tally) -> f64 {
        self.reached(total) / self.goal.value() - 1.0
    }

    /// Whether the goal was met in a run of `total`.
    #[must_use]
    pub fn is_met(&self, total: &Tally) -> bool {
        self.deviation(total).abs() <= Self::MET
    }

    /// One line that says how the goal was met in a run of `total`.
    #[must_use]
    pub fn describe(&self, total: &Tally) -> String {
        let text = format!(
            "{} {}: {:.3} reached, {:+.2} %",
            self.goal.kind().name(),
            self.goal.value(),
            self.reached(total),
            100.0 * self.deviation(total)
        );
        if self.is_met(total) {
            return text;
        }
        text + "; missed: where elements have few values the rate leaps from step to step, or ends below the goal; elsewhere \
                --correct-rate comes closer"
    }
}

/// A file that failed, and why.
#[derive(Debug)]
pub struct Failure {
    /// Path within the tree, or as given.
    pub path: String,
    /// Why.
    pub error: Error,
}

impl Failure {
    /// The failure as a JSON object: path, kind and message.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({"path": self.path, "kind": self.error.kind().as_str(), "message": self.error.to_string()})
    }
}

/// What a lossy run did to tensors.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LossSummary {
    /// What was asked of tensors that no rule has another goal for.
    pub goal: Option<Goal>,
    /// Tensors that were quantized.
    pub lossy_tensors: u64,
    /// Tensors that could have been, and stayed exact because nothing smaller kept to the goal.
    pub exact_for_goal: u64,
    /// Tensors that a rule or the defaults keep exact.
    pub exact_by_rule: u64,
    /// Sum of (x − x̂)² over the elements of tensors that were quantized.
    pub error_sq: f64,
    /// Sum of x² over the same.
    pub value_sq: f64,
}

impl LossSummary {
    /// Adds what was done to the tensors of another part of the run.
    pub fn add(&mut self, other: &Self) {
        self.goal = self.goal.or(other.goal);
        self.lossy_tensors += other.lossy_tensors;
        self.exact_for_goal += other.exact_for_goal;
        self.exact_by_rule += other.exact_by_rule;
        self.error_sq += other.error_sq;
        self.value_sq += other.value_sq;
    }

    /// ‖x − x̂‖₂ ÷ ‖x‖₂ over all tensors that were quantized; 0 where nothing changed.
    #[must_use]
    pub fn rel_l2(&self) -> f64 {
        if self.error_sq == 0.0 { 0.0 } else { (self.error_sq / self.value_sq).sqrt() }
    }

    fn to_json(self) -> Value {
        json!({
            "goal": self.goal.map(|goal| goal.kind().name()),
            "goal_value": self.goal.map(Goal::value),
            "lossy_tensors": self.lossy_tensors,
            "exact_for_goal": self.exact_for_goal,
            "exact_by_rule": self.exact_by_rule,
            "rel_l2": self.rel_l2(),
        })
    }
}

impl fmt::Display for LossSummary {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lossy")?;
        if let Some(goal) = self.goal {
            write!(f, ", {} {}", goal.kind().name(), goal.value())?;
        }
        write!(f, ": {} tensors changed", self.lossy_tensors)?;
        for (count, why) in
            [(self.exact_for_goal, "as nothing smaller keeps to the goal"), (self.exact_by_rule, "by rule")]
        {
            if count > 0 {
                write!(f, ", {count} exact {why}")?;
            }
        }
        writeln!(f, "; relative L2 error {:.3e} over those changed", self.rel_l2())
    }
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Report {
    /// Bytes by dtype.
    pub dtypes: BTreeMap<Dtype, Tally>,
    /// Size of the original files, in bytes.
    pub original_bytes: u64,
    /// Size of the archives, in bytes; files stored as a duplicate of another count none.
    pub stored_bytes: u64,
    /// Files done, those below included.
    pub files: u64,
    /// Files found complete from an earlier run.
    pub resumed_files: u64,
    /// Files stored as the duplicate of another.
    pub duplicate_files: u64,
    /// Entries of the source that the manifest lists as failed when it was compressed, so that they are in no
    /// archive.
    pub missing_files: u64,
    /// Files in the source that a run of this program has left unfinished, which are left out.
    pub unfinished_files: u64,
    /// Bytes of tensors stored as references to others.
    pub reference_bytes: u64,
    /// Rate goals of files coded in this run, in the order in which they were met with.
    pub rates: Vec<RateOutcome>,
    /// Steps at which tensors were looked at, or counted, for the rate goals of this run.
    pub rate_steps: u64,
    /// Of a lossy run.
    pub loss: Option<LossSummary>,
    /// Wall time.
    pub elapsed: Duration,
    /// Thread time by step.
    pub timings: Timings,
    /// Files that failed, in the order of the run.
    pub failures: Vec<Failure>,
}

impl Report {
    /// Books a block.
    pub fn add_block(&mut self, dtype: Dtype, original_bytes: u64, stored_bytes: u64) {
        self.dtypes.entry(dtype).or_default().add_block(dtype, original_bytes, stored_bytes);
    }

    /// Books what tensors under a rate goal take.
    pub(crate) fn add_rate(&mut self, rate: &RateOutcome) {
        match self.rates.iter_mut().find(|known| known.goal == rate.goal) {
            Some(known) => known.tally.add(&rate.tally),
            None => self.rates.push(*rate),
        }
    }

    /// Adds what an earlier layer of the same file takes.
    pub(crate) fn add_layer_before(&mut self, before: Self) {
        for (dtype, tally) in &before.dtypes {
            self.dtypes.entry(*dtype).or_default().stored_bytes += tally.stored_bytes;
        }
        self.stored_bytes += before.stored_bytes;
        self.timings.add(&before.timings);
    }

    /// Adds what another part of the run did; wall times are not added.
    pub fn absorb(&mut self, other: Self) {
        for (dtype, tally) in &other.dtypes {
            self.dtypes.entry(*dtype).or_default().add(tally);
        }
        self.original_bytes += other.original_bytes;
        self.stored_bytes += other.stored_bytes;
        self.files += other.files;
        self.resumed_files += other.resumed_files;
        self.duplicate_files += other.duplicate_files;
        self.missing_files += other.missing_files;
        self.unfinished_files += other.unfinished_files;
        self.reference_bytes += other.reference_bytes;
        self.rate_steps += other.rate_steps;
        other.rates.iter().for_each(|rate| self.add_rate(rate));
        if let Some(loss) = &other.loss {
            self.loss.get_or_insert_default().add(loss);
        }
        self.timings.add(&other.timings);
        self.failures.extend(other.failures);
    }

    /// Whole files: sizes with headers, index and footer; elements of all dtypes.
    #[must_use]
    pub fn total(&self) -> Tally {
        Tally {
            original_bytes: self.original_bytes,
            stored_bytes: self.stored_bytes,
            elements: self.dtypes.values().map(|tally| tally.elements).sum(),
        }
    }

    /// Original bytes per second of wall time, in GB/s (10⁹).
    #[must_use]
    pub fn gigabytes_per_second(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.original_bytes as f64 / seconds / 1e9 } else { 0.0 }
    }

    /// The report as one JSON object; sizes in bytes, times in seconds. `stages` has the five of lossy coding whatever the
    /// run, each with its share of all thread time.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let row = |tally: &Tally| {
            json!({
                "original_bytes": tally.original_bytes,
                "stored_bytes": tally.stored_bytes,
                "elements": tally.elements,
                "saved_percent": tally.saved_percent(),
                "ratio": tally.ratio(),
                "bits_per_element": tally.bits_per_element(),
            })
        };
        let dtypes: serde_json::Map<String, Value> =
            self.dtypes.iter().map(|(dtype, tally)| (dtype.name().to_owned(), row(tally))).collect();
        let timings: serde_json::Map<String, Value> = self
            .timings
            .iter()
            .map(|(step, spent)| (step.name().to_owned(), json!(spent.as_secs_f64())))
            .collect();
        let stages: serde_json::Map<String, Value> = self
            .timings
            .stages()
            .iter()
            .map(|(stage, spent)| {
                let row = json!({
                    "milliseconds": 1e3 * spent.as_secs_f64(),
                    "share": share(*spent, self.timings.total()),
                });
                (stage.name().to_owned(), row)
            })
            .collect();
        let failures: Vec<Value> = self.failures.iter().map(Failure::to_json).collect();
        let rates: Vec<Value> = self
            .rates
            .iter()
            .map(|rate| {
                json!({
                    "goal": rate.goal.kind().name(),
                    "value": rate.goal.value(),
                    "reached": rate.reached(&self.total()),
                    "met": rate.is_met(&self.total()),
                })
            })
            .collect();
        json!({
            "rates": rates,
            "rate_steps": self.rate_steps,
            "files": self.files,
            "resumed_files": self.resumed_files,
            "duplicate_files": self.duplicate_files,
            "missing_files": self.missing_files,
            "unfinished_files": self.unfinished_files,
            "reference_bytes": self.reference_bytes,
            "total": row(&self.total()),
            "dtypes": dtypes,
            "loss": self.loss.map(LossSummary::to_json),
            "seconds": self.elapsed.as_secs_f64(),
            "gigabytes_per_second": self.gigabytes_per_second(),
            "thread_seconds": timings,
            "stages": stages,
            "failures": failures,
        })
    }
}

impl fmt::Display for Report {
    /// The table: a row per dtype, then the whole files.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<8} {:>16} {:>16} {:>8} {:>7} {:>8}",
            "dtype", "original bytes", "stored bytes", "saved", "ratio", "bits/el"
        )?;
        let mut row = |name: &str, tally: &Tally| {
            writeln!(
                f,
                "{name:<8} {:>16} {:>16} {:>7.2}% {:>7.3} {:>8.3}",
                tally.original_bytes,
                tally.stored_bytes,
                tally.saved_percent(),
                tally.ratio(),
                tally.bits_per_element()
            )
        };
        for (dtype, tally) in &self.dtypes {
            row(dtype.name(), tally)?;
        }
        row("total", &self.total())?;
        write!(
            f,
            "{} files, {:.2} s, {:.2} GB/s",
            self.files,
            self.elapsed.as_secs_f64(),
            self.gigabytes_per_second()
        )?;
        for (count, what) in [
            (self.resumed_files, "already complete"),
            (self.duplicate_files, "stored as duplicates of others"),
            (self.missing_files, "of the source never compressed"),
            (self.unfinished_files, "unfinished by a killed run and left out"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        writeln!(f)?;
        self.rates.iter().try_for_each(|rate| writeln!(f, "{}", rate.describe(&self.total())))?;
        self.loss.map_or(Ok(()), |loss| write!(f, "{loss}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_in_the_documented_direction() {
        let mut report = Report::default();
        report.add_block(Dtype::Bf16, 1000, 600);
        report.add_block(Dtype::F4, 100, 100);
        report.original_bytes = 1100;
        report.stored_bytes = 1000;
        let bf16 = report.dtypes[&Dtype::Bf16];
        assert_eq!(bf16.elements, 500);
        assert!((bf16.bits_per_element() - 9.6).abs() < 1e-9);
        assert!((bf16.saved_percent() - 40.0).abs() < 1e-9);
        assert!(bf16.ratio() > 1.6);
        assert_eq!(report.total().elements, 700);
        assert_eq!(report.to_json()["dtypes"]["F4"]["elements"], 200);
        assert!(report.to_string().lines().any(|line| line.starts_with("total")));
    }

    #[test]
    fn empty_report_divides_by_nothing() {
        let report = Report::default();
        assert_eq!(report.total().saved_percent(), 0.0);
        assert_eq!(report.gigabytes_per_second(), 0.0);
        assert!(report.to_string().contains("0 files"));
    }
}
