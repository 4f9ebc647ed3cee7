//! The CRC of bytes that come piece by piece.

use crc_fast::{CrcAlgorithm, Digest};

use super::{Folded, TURN_BYTES, fold, word_before};

/// The state before the first byte; what is added to the last state.
const ENDS: u64 = u64::MAX;

/// The state that `bytes` take `state` to.
fn advance(state: u64, bytes: &[u8]) -> u64 {
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc64Nvme, state);
    digest.update(bytes);
    digest.get_state()
}

/// The CRC of bytes that arrive piece by piece.
#[derive(Debug, Clone)]
pub struct RunningCrc {
    state: u64,
    n_bytes: usize,
}

impl RunningCrc {
    /// The CRC of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: ENDS, n_bytes: 0 }
    }

    /// The CRC of what is `folded`.
    #[must_use]
    pub fn from_folded(folded: &Folded) -> Self {
        Self { state: advance(0, folded.lanes()), n_bytes: folded.n_bytes() }
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.n_bytes += bytes.len();
        self.state = match fold(self.state, bytes) {
            Some(folded) => advance(advance(0, folded.lanes()), &bytes[folded.n_bytes()..]),
            None => advance(self.state, bytes),
        };
    }

    /// The CRC of everything added.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.state ^ ENDS
    }

    /// Everything added, folded.
    #[must_use]
    pub fn folded(&self) -> Folded {
        let mut lanes = [0; TURN_BYTES];
        let (_, last) = lanes.split_at_mut(TURN_BYTES - 8);
        last.copy_from_slice(&word_before(self.state).to_le_bytes());
        Folded { lanes, n_bytes: self.n_bytes }
    }
}

impl Default for RunningCrc {
    fn default() -> Self {
        Self::new()
    }
}
