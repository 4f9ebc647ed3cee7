//! The loss table (FORMAT.md, 1.5): what a lossy archive changed, tensor by tensor, as measured on decoded values.

use crate::bits::ByteCursor;
use crate::container::footer::ContentHash;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of the table before its rows.
const HEAD_BYTES: usize = 40;
/// Bytes of one row.
const ROW_BYTES: usize = 44;

/// What the user asked of a tensor; the discriminants are on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum GoalKind {
    /// Largest |x − x̂|.
    MaxAbsError = 1,
    /// Largest |x − x̂| ÷ the largest |x| of the element's channel.
    MaxRelError = 2,
    /// ‖x − x̂‖₂ ÷ ‖x‖₂ of the tensor.
    RelL2 = 3,
    /// Mean stored bits an element over all lossy tensors.
    Bits = 4,
    /// Original bytes ÷ stored bytes of the run.
    Ratio = 5,
}

impl GoalKind {
    /// Every kind with its name.
    const TABLE: [(Self, &'static str); 5] = [
        (Self::MaxAbsError, "max-abs-error"),
        (Self::MaxRelError, "max-rel-error"),
        (Self::RelL2, "rel-l2"),
        (Self::Bits, "bits"),
        (Self::Ratio, "ratio"),
    ];

    fn from_wire_id(id: u8) -> Option<Self> {
        Self::TABLE.iter().map(|row| row.0).find(|kind| *kind as u8 == id)
    }

    /// Name, as the command line spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::TABLE.iter().find(|row| row.0 == self).map_or("", |row| row.1)
    }
}

/// What was done to one tensor, and what it cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorLoss {
    /// Position of the tensor in the checkpoint, by the order of its bytes.
    pub tensor_idx: u32,
    /// Whether the tensor is stored exactly after all, because the goal could not be reached otherwise.
    pub is_exact: bool,
    /// Whether its indices are trellis-coded.
    pub is_dependent: bool,
    /// Whether they lie on the lattice of even sums.
    pub has_even_sums: bool,
    /// Whether it was quantized in the logarithmic domain.
    pub is_log: bool,
    /// What was asked.
    pub goal: GoalKind,
    /// The goal's value, in its own unit.
    pub goal_value: f32,
    /// Quantization step; of the channel with multiplier 1 where steps differ. 0 for an exact tensor.
    pub step: f32,
    /// Largest |x − x̂|.
    pub max_abs_error: f32,
    /// Root of the mean of (x − x̂)² over all elements.
    pub error_rms: f32,
    /// Root of the mean of x² over all elements.
    pub signal_rms: f32,
    /// Elements that are 0 now and were not.
    pub newly_zero: u64,
    /// Elements that are 0 now.
    pub zeros: u64,
}

impl TensorLoss {
    /// ‖x − x̂‖₂ ÷ ‖x‖₂; 0 where nothing changed.
    #[must_use]
    pub fn rel_l2(&self) -> f64 {
        if self.error_rms == 0.0 { 0.0 } else { f64::from(self.error_rms) / f64::from(self.signal_rms) }
    }

    fn push_to(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.tensor_idx.to_le_bytes());
        let flags = [self.is_exact, self.is_dependent, self.is_log, self.has_even_sums];
        let flags = flags.into_iter().rev().fold(0, |flags, flag| flags << 1 | u8::from(flag));
        bytes.extend([self.goal as u8, flags, 0, 0]);
        let floats = [self.goal_value, self.step, self.max_abs_error, self.error_rms, self.signal_rms];
        floats.iter().for_each(|float| bytes.extend(float.to_le_bytes()));
        bytes.extend(self.newly_zero.to_le_bytes());
        bytes.extend(self.zeros.to_le_bytes());
    }

    fn read(cursor: &mut ByteCursor<'_>) -> Option<Self> {
        let tensor_idx = cursor.u32()?;
        let [goal, flags, 0, 0] = cursor.array()? else { return None };
        let goal = GoalKind::from_wire_id(goal).filter(|_| flags < 16 && flags & 10 != 10)?;
        let mut float =
            || cursor.u32().map(f32::from_bits).filter(|float| float.is_finite() && *float >= 0.0);
        let (goal_value, step, max_abs_error) = (float()?, float()?, float()?);
        let (error_rms, signal_rms) = (float()?, float()?);
        Some(Self {
            tensor_idx,
            is_exact: flags & 1 != 0,
            is_dependent: flags & 2 != 0,
            is_log: flags & 4 != 0,
            has_even_sums: flags & 8 != 0,
            goal,
            goal_value,
            step,
            max_abs_error,
            error_rms,
            signal_rms,
            newly_zero: cursor.u64()?,
            zeros: cursor.u64()?,
        })
    }
}

/// The table of an archive.
#[derive(Debug, Clone, PartialEq)]
pub struct LossTable {
    /// BLAKE3 of the file that was read, which this archive does not hold.
    pub source_hash: ContentHash,
    /// Digest of the lossy settings, so that a resumed run can tell whether they are its own.
    pub settings_digest: u64,
    /// A row for each tensor that a lossy goal was set for, by ascending `tensor_idx`.
    pub tensors: Vec<TensorLoss>,
}

impl LossTable {
    /// The row of tensor `tensor_idx`.
    #[must_use]
    pub fn tensor(&self, tensor_idx: u32) -> Option<TensorLoss> {
        let found = self.tensors.binary_search_by_key(&tensor_idx, |row| row.tensor_idx).ok()?;
        self.tensors.get(found).copied()
    }

    /// The table's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + ROW_BYTES * self.tensors.len());
        bytes.extend(self.source_hash);
        bytes.extend(self.settings_digest.to_le_bytes());
        self.tensors.iter().for_each(|tensor| tensor.push_to(&mut bytes));
        bytes
    }

    /// Reads a table, whose size says how many rows it has.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for an unknown goal or flag, a value that is no finite number of at least 0, or rows
    /// out of order.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut cursor = ByteCursor::new(bytes);
        let read = |cursor: &mut ByteCursor<'_>| {
            let (source_hash, settings_digest) = (cursor.array()?, cursor.u64()?);
            let mut tensors: Vec<TensorLoss> = Vec::new();
            while !cursor.rest().is_empty() {
                let row = TensorLoss::read(cursor)?;
                if tensors.last().is_some_and(|last| last.tensor_idx >= row.tensor_idx) {
                    return None;
                }
                tensors.push(row);
            }
            Some(Self { source_hash, settings_digest, tensors })
        };
        read(&mut cursor).ok_or_else(|| Error::new(ErrorKind::Corrupt, "the loss table breaks the format"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_what_is_refused() {
        let row = TensorLoss {
            tensor_idx: 7,
            is_exact: false,
            is_dependent: true,
            has_even_sums: false,
            is_log: false,
            goal: GoalKind::RelL2,
            goal_value: 0.01,
            step: 0.5,
            max_abs_error: 0.25,
            error_rms: 0.125,
            signal_rms: 12.5,
            newly_zero: 3,
            zeros: 1 << 40,
        };
        let table = LossTable {
            source_hash: [3; 32],
            settings_digest: 99,
            tensors: vec![TensorLoss { tensor_idx: 2, is_exact: true, ..row }, row],
        };
        let bytes = table.to_bytes();
        assert_eq!(LossTable::parse(&bytes).unwrap(), table);
        assert!((row.rel_l2() - 0.01).abs() < 1e-9);
        for end in 0..bytes.len() {
            let whole_rows = end >= HEAD_BYTES && (end - HEAD_BYTES).is_multiple_of(ROW_BYTES);
            assert_eq!(LossTable::parse(&bytes[..end]).is_ok(), whole_rows, "{end}");
        }
        for (at, value) in [(40, 7), (44, 0), (44, 6), (45, 16), (45, 10), (46, 1), (51, 0xff)] {
            let mut changed = bytes.clone();
            changed[at] = value;
            assert!(LossTable::parse(&changed).is_err(), "{at}");
        }
    }
}
