//! Time spent in each step of a run, summed over the worker threads.
//!
//! The steps are those between which blocks change hands. What happens within coding one block (splitting, planning,
//! coding symbols, planes) is too short to be timed in a run; `benches/stages.rs` measures it.

use std::fmt;
use std::time::{Duration, Instant};

/// A step whose time is kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Copying a block out of the mapped source, which includes reading it from the disk.
    Read,
    /// Planning and coding a block, and the CRC-64 of the original's bytes, which goes along with it.
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
    pub const ALL: [Self; 7] =
        [Self::Read, Self::Encode, Self::Decode, Self::Checksum, Self::Hash, Self::Write, Self::Sync];

    /// The step's name in a report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Encode => "encode",
            Self::Decode => "decode",
            Self::Checksum => "checksum",
            Self::Hash => "hash",
            Self::Write => "write",
            Self::Sync => "sync",
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

    /// The steps that took any time.
    pub fn iter(&self) -> impl Iterator<Item = (Step, Duration)> + '_ {
        Step::ALL.into_iter().map(|step| (step, self.spent(step))).filter(|(_, spent)| !spent.is_zero())
    }
}

impl fmt::Display for Timings {
    /// One line per step: name, thread seconds, share of the sum.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: Duration = self.spent.iter().sum();
        writeln!(f, "{:<10} {:>14} {:>7}", "step", "thread-seconds", "share")?;
        for (step, spent) in self.iter() {
            let share = 100.0 * spent.as_secs_f64() / total.as_secs_f64();
            writeln!(f, "{:<10} {:>14.3} {share:>6.1}%", step.name(), spent.as_secs_f64())?;
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
        assert!(b.to_string().contains("encode"));
    }
}
