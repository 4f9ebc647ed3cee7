//! Time spent in each step of a run, summed over the worker threads.
//!
//! The steps are those between which blocks change hands. What happens within coding one block exactly (splitting,
//! planning, coding symbols, planes) is too short to be timed in a run; `benches/stages.rs` measures it. What makes a
//! tensor lossy is five steps of its own, the stages: planning is booked on them as well as coding.

use std::fmt;
use std::time::{Duration, Instant};

use crate::stage::Part;

/// A step whose time is kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Copying a block out of the mapped source, which includes reading it from the disk.
    Read,
    /// Stage 1 of lossy coding: moments, octaves, peaks and samples of tensors.
    Statistics,
    /// Stage 2: looking for steps by what a model or a sample says of entropies and errors.
    Prediction,
    /// Stage 3: indices from elements, the reconstruction, its errors; steps that are tried included.
    Quantization,
    /// Stage 4: small elements set to zero, and the search for the threshold with all that it tries.
    Pruning,
    /// Stage 5: indices to bytes.
    Backend,
    /// Planning and coding a block exactly, and the CRC-64 of the original's bytes, which goes along with it.
    Encode,
    /// Decoding a block and comparing the CRC-64 of what came out.
    Decode,
    /// CRC-64 of records; when decoding they are read by it from the mapped archive.
    Checksum,
    /// BLAKE3 and SHA-256 of the original's bytes.
    Hash,
    /// Writing the output.
    Write,
    /// Syncing the output and giving it its name.
    Sync,
}

impl Step {
    /// Every step, in the order of a report.
    pub const ALL: [Self; 12] = [
        Self::Read,
        Self::Statistics,
        Self::Prediction,
        Self::Quantization,
        Self::Pruning,
        Self::Backend,
        Self::Encode,
        Self::Decode,
        Self::Checksum,
        Self::Hash,
        Self::Write,
        Self::Sync,
    ];
    /// The five stages of lossy coding, in order.
    pub const STAGES: [Self; 5] =
        [Self::Statistics, Self::Prediction, Self::Quantization, Self::Pruning, Self::Backend];

    /// The step's name in a report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Statistics => "statistics",
            Self::Prediction => "prediction",
            Self::Quantization => "quantization",
            Self::Pruning => "pruning",
            Self::Backend => "backend",
            Self::Encode => "encode",
            Self::Decode => "decode",
            Self::Checksum => "checksum",
            Self::Hash => "hash",
            Self::Write => "write",
            Self::Sync => "sync",
        }
    }
}

impl From<Part> for Step {
    fn from(part: Part) -> Self {
        match part {
            Part::Reading => Self::Read,
            Part::Quantization => Self::Quantization,
            Part::Pruning => Self::Pruning,
            Part::Backend => Self::Backend,
        }
    }
}

/// Thread time by [`Step`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    spent: [Duration; Step::ALL.len()],
}

impl Timings {
    /// Runs `work` and books its time on `step`.
    pub fn time<T>(&mut self, step: Step, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.spent[step as usize] += start.elapsed();
        result
    }

    /// Books `spent` on `step`.
    pub fn book(&mut self, step: Step, spent: Duration) {
        self.spent[step as usize] += spent;
    }

    /// Runs `work`, which says where each part of coding a quantized block begins, and books the time on their steps.
    pub fn time_parts<T>(&mut self, work: impl FnOnce(&mut dyn FnMut(Part)) -> T) -> T {
        let (mut start, mut step) = (Instant::now(), Step::Quantization);
        let mut enter = |part| {
            let now = Instant::now();
            self.book(step, now - start);
            (start, step) = (now, Step::from(part));
        };
        let result = work(&mut enter);
        self.book(step, start.elapsed());
        result
    }

    /// The same times, all but those of reading booked on `step`.
    #[must_use]
    pub fn all_on(&self, step: Step) -> Self {
        let mut all = Self::default();
        all.book(Step::Read, self.spent(Step::Read));
        all.book(step, self.total() - self.spent(Step::Read));
        all
    }

    /// Adds another thread's times.
    pub fn add(&mut self, other: &Self) {
        for (sum, part) in self.spent.iter_mut().zip(other.spent) {
            *sum += part;
        }
    }

    /// Time spent in `step`, summed over threads.
    #[must_use]
    pub fn spent(&self, step: Step) -> Duration {
        self.spent[step as usize]
    }

    /// The five stages of lossy coding, those that took no time too.
    #[must_use]
    pub fn stages(&self) -> [(Step, Duration); 5] {
        Step::STAGES.map(|stage| (stage, self.spent(stage)))
    }

    /// The steps of a report: those that took any time, and of a lossy run all stages.
    pub fn iter(&self) -> impl Iterator<Item = (Step, Duration)> + '_ {
        let is_lossy = self.stages().iter().any(|(_, spent)| !spent.is_zero());
        let is_shown =
            move |step: &Step| is_lossy && Step::STAGES.contains(step) || !self.spent(*step).is_zero();
        Step::ALL.into_iter().filter(is_shown).map(|step| (step, self.spent(step)))
    }

    /// All steps together.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.spent.iter().sum()
    }
}

/// `spent` as a part of `total`; 0 of nothing.
#[must_use]
pub fn share(spent: Duration, total: Duration) -> f64 {
    if total.is_zero() { 0.0 } else { spent.as_secs_f64() / total.as_secs_f64() }
}

impl fmt::Display for Timings {
    /// One line per step: name, milliseconds of thread time, share of the sum.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<12} {:>14} {:>7}", "step", "thread-ms", "share")?;
        for (step, spent) in self.iter() {
            let percent = 100.0 * share(spent, self.total());
            writeln!(f, "{:<12} {:>14.3} {percent:>6.1}%", step.name(), 1e3 * spent.as_secs_f64())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_booked_on_its_step_and_sums_over_threads() {
        let mut a = Timings::default();
        assert_eq!(a.time(Step::Encode, || std::thread::sleep(Duration::from_millis(2))), ());
        let mut b = Timings::default();
        b.add(&a);
        b.add(&a);
        assert_eq!(b.spent(Step::Encode), 2 * a.spent(Step::Encode));
        assert!(b.spent(Step::Encode) >= Duration::from_millis(4));
        assert_eq!(b.iter().count(), 1);
        assert!(b.to_string().contains("encode") && !b.to_string().contains("pruning"));
        b.book(Step::Backend, Duration::from_millis(1));
        // One stage brings the others.
        assert_eq!(b.iter().count(), 6);
        assert_eq!(b.stages()[4], (Step::Backend, Duration::from_millis(1)));
        let mut c = Timings::default();
        let answer = c.time_parts(|enter| {
            enter(Part::Pruning);
            std::thread::sleep(Duration::from_millis(2));
            enter(Part::Backend);
            7
        });
        assert!(answer == 7 && c.spent(Step::Pruning) >= Duration::from_millis(2));
        assert!(c.total() - c.spent(Step::Pruning) < c.spent(Step::Pruning));
        assert!(b.to_string().contains("pruning               0.000    0.0%"));
        b.book(Step::Read, Duration::from_millis(3));
        let on_pruning = b.all_on(Step::Pruning);
        assert_eq!((on_pruning.spent(Step::Read), on_pruning.total()), (Duration::from_millis(3), b.total()));
        assert_eq!(on_pruning.spent(Step::Backend), Duration::ZERO);
        let shares: f64 = b.iter().map(|(_, spent)| share(spent, b.total())).sum();
        assert!((shares - 1.0).abs() < 1e-9 && share(Duration::ZERO, Duration::ZERO) == 0.0);
    }
}
