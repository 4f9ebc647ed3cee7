//! The settings file (YAML), and how defaults, file and flags become one set of settings.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::args::{AsBytesArg, CommonArgs, CompressArgs, IsaArg, LevelArg};
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::Isa;
use crate::pipeline::settings::CodingSettings;

/// Version of the schema.
const SCHEMA: u32 = 1;
/// Most worker threads.
const MAX_THREADS: usize = 1024;
/// Largest settings file, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The settings that a file may hold; `configs/default.yaml` documents them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one documented setting, all combinations valid")]
pub struct ConfigFile {
    /// Version of the schema; must be present in a file, and 1.
    pub version: u32,
    /// Worker threads; 0 for one per processor.
    pub threads: usize,
    /// Effort of the encoder.
    #[serde(deserialize_with = "by_name")]
    pub level: LevelArg,
    /// Instruction set.
    #[serde(deserialize_with = "by_name")]
    pub isa: IsaArg,
    /// One thread, scalar kernels.
    pub deterministic: bool,
    /// Record a SHA-256.
    pub sha256: bool,
    /// Store identical tensors and files once.
    pub dedup: bool,
    /// Which files are not coded by what they say of themselves.
    #[serde(deserialize_with = "by_name")]
    pub as_bytes: AsBytesArg,
    /// Decode each output back.
    pub verify: bool,
    /// Sync outputs to the disk before they get their names.
    pub sync: bool,
    /// Print the thread time of each step.
    pub timings: bool,
}

impl Default for ConfigFile {
    fn default() -> Self {
        Self {
            // Not 1, so that a file without its version is refused; `load` sets it for the built-in defaults.
            version: 0,
            threads: 0,
            level: LevelArg::Default,
            isa: IsaArg::Auto,
            deterministic: false,
            sha256: false,
            dedup: true,
            as_bytes: AsBytesArg::Never,
            verify: false,
            sync: false,
            timings: false,
        }
    }
}

/// Reads one of an argument's values by the name that the command line takes.
pub(super) fn by_name<'de, D: serde::Deserializer<'de>, T: clap::ValueEnum>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    let name = String::deserialize(deserializer)?;
    T::from_str(&name, false).map_err(|_| {
        let values = T::value_variants().iter().filter_map(clap::ValueEnum::to_possible_value);
        let allowed: Vec<String> = values.map(|value| value.get_name().to_owned()).collect();
        serde::de::Error::custom(format!("\"{}\", allowed are {}", name.escape_debug(), allowed.join(", ")))
    })
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

/// The text of the settings file `path`.
pub(super) fn read_settings(path: &Path) -> Result<String> {
    let unreadable = |e: std::io::Error| invalid(format!("cannot read settings: {e}"));
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if metadata.len() > MAX_BYTES {
        return Err(invalid(format!("settings have {} bytes, at most {MAX_BYTES} are read", metadata.len())));
    }
    fs::read_to_string(path).map_err(unreadable)
}

/// Settings from YAML.
pub(super) fn parse_yaml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_yaml::from_str(text).map_err(|e| invalid(format!("settings: {e}")))
}

impl ConfigFile {
    /// The settings of `path`, or the defaults without one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a file that cannot be read or does not follow the schema.
    pub fn load(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self { version: SCHEMA, ..Self::default() }) };
        read_settings(path).and_then(|text| Self::parse(&text)).map_err(|e| e.in_file(path))
    }

    /// The settings of a file's text.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`].
    pub fn parse(text: &str) -> Result<Self> {
        let config: Self = parse_yaml(text)?;
        check_version(config.version)?;
        Ok(config)
    }
}

/// Refuses settings of another schema, or without its version.
pub(super) fn check_version(version: u32) -> Result<()> {
    match version {
        SCHEMA => Ok(()),
        // What a file without one is read as.
        0 => Err(invalid(format!("settings do not say their version; add `version: {SCHEMA}`"))),
        _ => Err(invalid(format!("settings of version {version}, this program reads `version: {SCHEMA}`"))),
    }
}

/// Settings of how to run, for every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunSettings {
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Instruction set.
    pub isa: Isa,
    /// Whether `--deterministic` chose the two above.
    pub deterministic: bool,
    /// Print the thread time of each step.
    pub timings: bool,
}

impl RunSettings {
    /// Lets the flags override the file.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] where settings contradict each other or this processor.
    pub fn new(config: &ConfigFile, flags: &CommonArgs) -> Result<Self> {
        let invalid = |message: String| Err(Error::new(ErrorKind::InvalidConfig, message));
        let deterministic = flags.deterministic.unwrap_or(config.deterministic);
        let threads = flags.threads.unwrap_or(config.threads);
        let isa = flags.isa.unwrap_or(config.isa).isa();
        if threads > MAX_THREADS {
            return invalid(format!("{threads} threads asked for, at most {MAX_THREADS} are started"));
        }
        if deterministic && threads > 1 {
            return invalid(format!("deterministic runs have one thread, {threads} asked for"));
        }
        if let Some(isa) = isa.filter(|isa| deterministic && *isa != Isa::Scalar) {
            return invalid(format!("deterministic runs are scalar, {} asked for", isa.name()));
        }
        if let Some(isa) = isa.filter(|isa| !isa.available()) {
            return invalid(format!("this processor has no {}", isa.name()));
        }
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            threads: match (deterministic, threads) {
                (true, _) => 1,
                (false, 0) => processors().min(MAX_THREADS),
                (false, threads) => threads,
            },
            isa: if deterministic { Isa::Scalar } else { isa.unwrap_or_else(Isa::detect) },
            deterministic,
            timings: flags.timings.unwrap_or(config.timings),
        })
    }
}

/// How `compress` codes files: defaults, then file, then flags.
#[must_use]
pub fn coding(config: &ConfigFile, flags: &CompressArgs) -> CodingSettings {
    CodingSettings {
        level: flags.level.unwrap_or(config.level).into(),
        sha256: flags.sha256.unwrap_or(config.sha256),
        dedup: !flags.no_dedup && (flags.dedup || config.dedup),
        as_bytes: flags.as_bytes.unwrap_or(config.as_bytes).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> CommonArgs {
        CommonArgs {
            json: false,
            quiet: false,
            threads: None,
            isa: None,
            deterministic: None,
            timings: None,
            sync: None,
            config: None,
        }
    }

    #[test]
    fn documented_defaults_are_the_built_in_ones() {
        let text = include_str!("../../configs/default.yaml");
        assert_eq!(ConfigFile::parse(text).unwrap(), ConfigFile::load(None).unwrap());
        // Every setting is in the file: the names that Debug prints are the keys.
        let debug = format!("{:?}", ConfigFile::default());
        for field in debug.split(['{', ',']).skip(1).filter_map(|part| part.split(':').next()) {
            let key = format!("\n{}:", field.trim());
            assert!(text.contains(&key), "{key}");
        }
    }

    #[test]
    fn unknown_keys_values_and_versions_are_refused() {
        for text in [
            "version: 1\nlevels: high",
            "version: 1\nlevel: extreme",
            "version: 2",
            "level: high",
            "version: 1\nthreads: -1",
            "version: 1\nthreads: 1\nthreads: 2",
            "- 1",
            "version: [",
        ] {
            assert_eq!(ConfigFile::parse(text).unwrap_err().kind(), ErrorKind::InvalidConfig, "{text}");
        }
        let message = |text: &str| ConfigFile::parse(text).unwrap_err().to_string();
        assert!(message("version: 1\nlevel: extreme").contains("allowed are fast, default, high"));
        assert!(message("level: high").contains("add `version: 1`"));
        assert!(message("version: 2").contains("settings of version 2"));
    }

    #[test]
    fn flags_override_the_file_and_contradictions_are_refused() {
        let config = ConfigFile::parse("version: 1\nthreads: 3\nisa: scalar").unwrap();
        assert_eq!(RunSettings::new(&config, &flags()).unwrap().threads, 3);
        let five = CommonArgs { threads: Some(5), ..flags() };
        let run = RunSettings::new(&config, &five).unwrap();
        assert_eq!((run.threads, run.isa), (5, Isa::Scalar));
        let contradiction = CommonArgs { deterministic: Some(true), ..flags() };
        assert_eq!(RunSettings::new(&config, &contradiction).unwrap_err().kind(), ErrorKind::InvalidConfig);
        let run = RunSettings::new(&ConfigFile::default(), &contradiction).unwrap();
        assert_eq!((run.threads, run.isa), (1, Isa::Scalar));
        let many = CommonArgs { threads: Some(100_000), ..flags() };
        assert!(RunSettings::new(&config, &many).is_err());
    }
}
