//! Clocks: time on the wall, and the processor time that the operating system books on this process.

use std::time::{Duration, Instant};

use super::stats::median;

/// What one call took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Taken {
    /// Seconds on the wall.
    pub wall_s: f64,
    /// Processor seconds of all threads of this process, user and system; where the system has no such clock, those on
    /// the wall.
    pub cpu_s: f64,
}

/// Calls `f` once, and says what it took.
pub fn time<T>(f: impl FnOnce() -> T) -> (T, Taken) {
    let (wall, cpu) = (Instant::now(), process_time());
    let result = f();
    let (cpu, wall) = (process_time().zip(cpu).map(|(end, start)| end.saturating_sub(start)), wall.elapsed());
    (result, Taken { wall_s: wall.as_secs_f64(), cpu_s: cpu.unwrap_or(wall).as_secs_f64() })
}

/// The medians of what several calls took.
#[must_use]
pub fn median_of(taken: &[Taken]) -> Taken {
    let median = |field: fn(&Taken) -> f64| median(&taken.iter().map(field).collect::<Vec<_>>());
    Taken { wall_s: median(|t| t.wall_s), cpu_s: median(|t| t.cpu_s) }
}

/// `CLOCK_PROCESS_CPUTIME_ID` (POSIX.1-2008, `clock_gettime`).
#[cfg(unix)]
fn process_time() -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};
    let now = clock_gettime(ClockId::ProcessCPUTime);
    let (seconds, nanoseconds) = (u64::try_from(now.tv_sec).ok()?, u32::try_from(now.tv_nsec).ok()?);
    Some(Duration::new(seconds, nanoseconds))
}

#[cfg(not(unix))]
fn process_time() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn sleeping_takes_no_processor_time_and_work_does() {
        let ((), slept) = time(|| std::thread::sleep(Duration::from_millis(50)));
        assert!(slept.wall_s >= 0.05);
        // Other tests share this process: only work of this one can be held against the clock.
        let (sum, worked) = time(|| {
            let start = Instant::now();
            let mut sum = 0u64;
            while start.elapsed() < Duration::from_millis(20) {
                sum = std::hint::black_box(sum.wrapping_add(1));
            }
            sum
        });
        assert!(sum > 0 && worked.cpu_s > 0.0);
    }

    #[test]
    fn medians_are_of_each_clock() {
        let taken = [(1.0, 30.0), (2.0, 10.0), (9.0, 20.0)].map(|(wall_s, cpu_s)| Taken { wall_s, cpu_s });
        assert_eq!(median_of(&taken), Taken { wall_s: 2.0, cpu_s: 20.0 });
    }
}
