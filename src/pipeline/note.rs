//! The encoder note of an archive (FORMAT.md, 4): which settings made it, so that `--resume` can tell.

use crate::stage::Level;

/// Raised whenever the same input and settings give other bytes.
pub const ENCODER_REVISION: u32 = 1;

/// The note of an archive made at `level`; `as_bytes` says that a file was not cut by a checkpoint's header on
/// request.
#[must_use]
pub fn encoder_note(level: Level, as_bytes: bool) -> u64 {
    let level = match level {
        Level::Fast => 0,
        Level::Default => 1,
        Level::High => 2,
    };
    level | u64::from(as_bytes) << 8 | u64::from(ENCODER_REVISION) << 32
}

/// The level that a note names, or `None` for one this version does not know.
#[must_use]
pub fn level_of(note: u64) -> Option<Level> {
    match note & 0xff {
        0 => Some(Level::Fast),
        1 => Some(Level::Default),
        2 => Some(Level::High),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_told_apart() {
        for level in [Level::Fast, Level::Default, Level::High] {
            assert_eq!(level_of(encoder_note(level, true)), Some(level));
            assert_ne!(encoder_note(level, true), encoder_note(level, false));
        }
        assert_eq!(level_of(9), None);
    }
}
