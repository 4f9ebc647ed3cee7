//! What a run of compress is asked to do, already checked for contradictions by the caller's types.

use super::lossy::settings::LossySettings;
use crate::stage::Level;
use crate::storage::Durability;

/// When a file is not cut by its header although its name says that it is a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AsBytes {
    /// A malformed checkpoint is an error.
    #[default]
    Never,
    /// A malformed checkpoint is coded as a file of another format.
    Malformed,
    /// Every file is coded as plain bytes.
    All,
}

/// How files are coded; the part of the settings that determines the archives' bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodingSettings {
    /// Effort of the encoder.
    pub level: Level,
    /// Whether archives and manifest carry a SHA-256 besides the BLAKE3.
    pub sha256: bool,
    /// Whether identical tensors and files are stored once, and near copies within a file as differences.
    pub dedup: bool,
    /// When checkpoints are not cut by their headers.
    pub as_bytes: AsBytes,
}

impl Default for CodingSettings {
    fn default() -> Self {
        Self { level: Level::Default, sha256: false, dedup: true, as_bytes: AsBytes::Never }
    }
}

/// What a run of compress does with its outputs and sources.
#[derive(Debug, Clone, PartialEq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one flag of the command line, all combinations valid"
)]
pub struct CompressOptions {
    /// How files are coded.
    pub coding: CodingSettings,
    /// Which tensors may change, and by how much; `None` to keep every bit.
    pub lossy: Option<LossySettings>,
    /// Replace outputs that exist.
    pub force: bool,
    /// Keep outputs that exist and are complete, made from the same source by the same settings.
    pub resume: bool,
    /// Decode each output back and compare hashes before it gets its name.
    pub verify: bool,
    /// Remove each source file after all outputs are verified and synced; implies `verify`.
    pub remove_source: bool,
    /// Sync each output to the disk before it gets its name.
    pub sync: bool,
}

impl CompressOptions {
    /// Whether outputs that exist may be replaced.
    pub(crate) fn replaces(&self) -> bool {
        self.force || self.resume
    }

    /// What outputs must outlive; sources are only removed for what a loss of power leaves.
    pub(crate) fn durability(&self) -> Durability {
        if self.sync || self.remove_source { Durability::PowerLoss } else { Durability::ProcessEnd }
    }
}
