//! Energy of the processor: counted by it (Intel's and AMD's RAPL, as the powercap tree of Linux shows it), or modelled.
//!
//! A package's counter `energy_uj` counts microjoules of all that runs on it, idling included, and begins again at 0
//! after `max_energy_range_uj`. It is brought up to date about once a millisecond, so short work has to be repeated.

use std::fs;
use std::path::{Path, PathBuf};

use super::clock::{Taken, time};

/// Where Linux shows the counters.
pub const POWERCAP: &str = "/sys/class/powercap";

/// Watts of a busy core that the model takes, those of the original report's.
pub const DEFAULT_WATTS: f64 = 35.0;

/// The counter of one package.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Zone {
    energy: PathBuf,
    range_uj: u64,
}

/// The counters of all packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rapl {
    zones: Vec<Zone>,
}

fn read_number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Microjoules between two readings of a counter, which may have begun again once in between.
#[must_use]
pub fn counted_uj(before: u64, after: u64, range_uj: u64) -> u64 {
    if after >= before { after - before } else { range_uj.saturating_sub(before).saturating_add(after) }
}

impl Rapl {
    /// The packages' counters below `root`, usually [`POWERCAP`]; `None` where there is none, or where one may not be
    /// read.
    #[must_use]
    pub fn open(root: &Path) -> Option<Self> {
        let mut zones = Vec::new();
        for entry in fs::read_dir(root).ok()?.flatten() {
            let (path, file_name) = (entry.path(), entry.file_name());
            // Zones within a package have a second colon and a name of their own; `psys` holds packages and more.
            let is_zone = file_name.to_str().is_some_and(|name| name.starts_with("intel-rapl:"));
            let name = fs::read_to_string(path.join("name")).unwrap_or_default();
            if is_zone && name.trim().starts_with("package") {
                let energy = path.join("energy_uj");
                read_number(&energy)?;
                zones.push(Zone { energy, range_uj: read_number(&path.join("max_energy_range_uj"))? });
            }
        }
        zones.sort_by(|a, b| a.energy.cmp(&b.energy));
        (!zones.is_empty()).then_some(Self { zones })
    }

    /// Packages counted.
    #[must_use]
    pub fn n_packages(&self) -> usize {
        self.zones.len()
    }

    /// The counters now; `None` where one is gone.
    fn read(&self) -> Option<Vec<u64>> {
        self.zones.iter().map(|zone| read_number(&zone.energy)).collect()
    }

    fn joules(&self, before: &[u64], after: &[u64]) -> f64 {
        let counted = self.zones.iter().zip(before.iter().zip(after));
        counted.map(|(zone, (before, after))| counted_uj(*before, *after, zone.range_uj) as f64).sum::<f64>()
            / 1e6
    }
}

/// Where joules come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Meter {
    /// The processor's own counters.
    Rapl(Rapl),
    /// No measurement: these watts for each second that a core is busy with this process.
    Model {
        /// Watts of a busy core.
        watts: f64,
    },
}

/// Energy and time of one call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spent {
    /// Joules; `None` where a counter went away while it ran.
    pub joules: Option<f64>,
    /// Seconds.
    pub taken: Taken,
}

impl Meter {
    /// The counters below `root` where there are any, the model otherwise.
    #[must_use]
    pub fn open(root: &Path, watts: f64) -> Self {
        Rapl::open(root).map_or(Self::Model { watts }, Self::Rapl)
    }

    /// What it is, as tables show it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Rapl(rapl) => format!("RAPL, {} package(s)", rapl.n_packages()),
            Self::Model { watts } => format!("model: {watts} W × processor seconds"),
        }
    }

    /// Calls `work` again and again until `min_s` seconds have passed, once at least, and gives the mean of a call.
    ///
    /// # Errors
    /// The first error of `work`.
    pub fn measure<E>(&self, min_s: f64, mut work: impl FnMut() -> Result<(), E>) -> Result<Spent, E> {
        let before = if let Self::Rapl(rapl) = self { rapl.read() } else { None };
        let mut n_calls = 0.0;
        let (result, taken) = time(|| {
            let start = std::time::Instant::now();
            loop {
                work()?;
                n_calls += 1.0;
                if start.elapsed().as_secs_f64() >= min_s {
                    return Ok(());
                }
            }
        });
        result?;
        let joules = match self {
            Self::Model { watts } => Some(modelled_joules(*watts, taken.cpu_s)),
            Self::Rapl(rapl) => before.zip(rapl.read()).map(|(before, after)| rapl.joules(&before, &after)),
        };
        let taken = Taken { wall_s: taken.wall_s / n_calls, cpu_s: taken.cpu_s / n_calls };
        Ok(Spent { joules: joules.map(|joules| joules / n_calls), taken })
    }
}

/// `watts × seconds` of busy cores.
#[must_use]
pub fn modelled_joules(watts: f64, cpu_s: f64) -> f64 {
    watts * cpu_s
}

/// CAQ-E of the original report: `ratio ÷ (joules + seconds)`, seconds being processor time of encoding.
///
/// It adds quantities of different units, and it is not CAQ with energy: there is no `+ 1`. With modelled joules it is
/// `ratio ÷ ((watts + 1) × seconds)`, a measure of speed and nothing else.
#[must_use]
pub fn caq_e(ratio: f64, joules: f64, seconds: f64) -> f64 {
    ratio / (joules + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(root: &Path, zone: &str, name: &str, energy: &str) -> PathBuf {
        let dir = root.join(zone);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("name"), format!("{name}\n")).unwrap();
        fs::write(dir.join("max_energy_range_uj"), "1000000\n").unwrap();
        fs::write(dir.join("energy_uj"), energy).unwrap();
        dir.join("energy_uj")
    }

    #[test]
    fn packages_are_summed_and_counters_may_begin_again() {
        assert_eq!((counted_uj(10, 25, 1000), counted_uj(990, 20, 1000)), (15, 30));
        let root = tempfile::tempdir().unwrap();
        let first = zone(root.path(), "intel-rapl:0", "package-0", "100000\n");
        let second = zone(root.path(), "intel-rapl:1", "package-1", "900000\n");
        zone(root.path(), "intel-rapl:0:0", "core", "0\n");
        zone(root.path(), "intel-rapl:2", "psys", "0\n");
        let meter = Meter::open(root.path(), 35.0);
        assert_eq!(meter.name(), "RAPL, 2 package(s)");
        let spent = meter.measure(0.0, || {
            fs::write(&first, "400000\n").unwrap();
            fs::write(&second, "100000\n").unwrap();
            Ok::<_, ()>(())
        });
        // 0.3 J, and 0.2 J over the end of the range.
        assert!((spent.unwrap().joules.unwrap() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn without_readable_counters_there_is_a_model() {
        let root = tempfile::tempdir().unwrap();
        let model = Meter::Model { watts: 35.0 };
        assert_eq!(Meter::open(&root.path().join("absent"), 35.0), model);
        assert_eq!(Meter::open(root.path(), 35.0), model);
        zone(root.path(), "intel-rapl:0", "package-0", "no number");
        assert_eq!(Meter::open(root.path(), 35.0), model, "a counter that may not be read");
        let mut n_calls = 0;
        let spent = model.measure(0.01, || {
            n_calls += 1;
            Ok::<_, ()>(())
        });
        let spent = spent.unwrap();
        assert!(n_calls > 1 && (spent.joules.unwrap() / spent.taken.cpu_s - 35.0).abs() < 1e-9);
        assert_eq!(model.measure(0.0, || Err("broken")), Err("broken"));
    }

    #[test]
    fn a_counter_that_goes_away_leaves_no_number() {
        let root = tempfile::tempdir().unwrap();
        let energy = zone(root.path(), "intel-rapl:0", "package-0", "5\n");
        let meter = Meter::open(root.path(), 35.0);
        let spent = meter.measure(0.0, || fs::remove_file(&energy)).unwrap();
        assert_eq!(spent.joules, None);
    }

    #[test]
    fn the_score_is_the_reports_own() {
        assert_eq!(caq_e(3.0, 1.0, 0.5), 2.0);
        // 35 W × 0.1 s = 3.5 J; 1.8 ÷ 3.6.
        assert!((caq_e(1.8, modelled_joules(35.0, 0.1), 0.1) - 0.5).abs() < 1e-12);
    }
}
