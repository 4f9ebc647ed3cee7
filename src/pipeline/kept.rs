//! Blocks that were coded while their tensor was planned: a step that has been tried on a whole tensor and holds need
//! not be tried again when the file is written.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::checkpoint::BlockSpan;
use crate::container::{BlockInfo, Piece};
use crate::stage::{BlockLoss, QuantSpec};
use crate::storage::FileIdentity;

/// Most bytes of records that are kept. What has no room is coded again in its turn.
const MAX_BYTES: usize = 64 << 20;

/// A block's record and what is known of it.
pub(crate) struct KeptBlock {
    pub(crate) info: BlockInfo,
    pub(crate) decoded_crc: u64,
    /// Of the bytes that were read.
    pub(crate) source_piece: Piece,
    /// Of the bytes that the archive will hold.
    pub(crate) piece: Piece,
    /// Record header and payload.
    pub(crate) record: Vec<u8>,
    pub(crate) loss: BlockLoss,
}

/// A tensor's blocks by their offsets in the file.
pub(crate) struct KeptTensor {
    /// The file's, when the blocks were read.
    pub(crate) identity: FileIdentity,
    pub(crate) spec: QuantSpec,
    pub(crate) blocks: HashMap<u64, KeptBlock>,
}

impl KeptTensor {
    fn n_bytes(&self) -> usize {
        self.blocks.values().map(|block| block.record.len()).sum()
    }
}

/// The number of a file, and the offset of one of its tensors.
pub(crate) type TensorPlace = (usize, u64);

/// What is kept in a run.
#[derive(Default)]
pub(crate) struct KeptBlocks {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    tensors: HashMap<TensorPlace, KeptTensor>,
    /// Of all records, and room that has been promised.
    n_bytes: usize,
}

impl KeptBlocks {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Promises room for records of `n_bytes`, if there is so much.
    pub(crate) fn reserve(&self, n_bytes: usize) -> bool {
        let mut kept = self.lock();
        let has_room = kept.n_bytes.saturating_add(n_bytes) <= MAX_BYTES;
        if has_room {
            kept.n_bytes += n_bytes;
        }
        has_room
    }

    /// Gives back a promise of [`Self::reserve`].
    pub(crate) fn release(&self, n_bytes: usize) {
        let mut kept = self.lock();
        kept.n_bytes = kept.n_bytes.saturating_sub(n_bytes);
    }

    /// Keeps the blocks of a tensor in place of those that were kept of it.
    pub(crate) fn put(&self, place: TensorPlace, tensor: KeptTensor) {
        self.forget(place);
        let mut kept = self.lock();
        kept.n_bytes += tensor.n_bytes();
        kept.tensors.insert(place, tensor);
    }

    /// Forgets what is kept of a tensor.
    pub(crate) fn forget(&self, place: TensorPlace) {
        let mut kept = self.lock();
        if let Some(tensor) = kept.tensors.remove(&place) {
            kept.n_bytes = kept.n_bytes.saturating_sub(tensor.n_bytes());
        }
    }

    /// Forgets what is kept of a file that is not the same as when it was planned.
    pub(crate) fn retain(&self, file_idx: usize, identity: FileIdentity) {
        let mut kept = self.lock();
        let Kept { tensors, n_bytes } = &mut *kept;
        tensors.retain(|place, tensor| {
            let stays = place.0 != file_idx || tensor.identity == identity;
            *n_bytes = n_bytes.saturating_sub(if stays { 0 } else { tensor.n_bytes() });
            stays
        });
    }

    /// The block at `span` of a tensor that is quantized by `spec`, if it has been coded.
    pub(crate) fn take(&self, place: TensorPlace, span: &BlockSpan, spec: &QuantSpec) -> Option<KeptBlock> {
        let mut kept = self.lock();
        let tensor = kept.tensors.get_mut(&place).filter(|tensor| tensor.spec == *spec)?;
        let block = tensor.blocks.remove(&span.offset)?;
        kept.n_bytes = kept.n_bytes.saturating_sub(block.record.len());
        (block.info.decoded_bytes as usize == span.len).then_some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;
    use crate::kernels::quantize::Rounding;
    use crate::stage::{Choice, Coding, Domain, IndexBackend};

    const PLACE: TensorPlace = (3, 100);

    fn identity(modified_ns: i128) -> FileIdentity {
        FileIdentity { len: 1, modified_ns, changed_ns: 0, inode: (0, 0) }
    }

    fn spec(step: f32) -> QuantSpec {
        QuantSpec {
            step,
            domain: Domain::Linear,
            channels: None,
            prune_below: 0.0,
            choice: Choice::Uniform(Rounding::Nearest),
            backend: IndexBackend::Rans,
        }
    }

    fn span(offset: u64, len: usize) -> BlockSpan {
        BlockSpan { offset, len, dtype: Dtype::F32, row_len: 0 }
    }

    fn tensor(record_len: usize) -> KeptTensor {
        let piece = Piece::hash(100, &[0; 8]);
        let block = KeptBlock {
            info: BlockInfo::new(Dtype::F32, Coding::Quantized, 8, 2).unwrap(),
            decoded_crc: 0,
            source_piece: piece.clone(),
            piece,
            record: vec![0; record_len],
            loss: BlockLoss::default(),
        };
        KeptTensor { identity: identity(5), spec: spec(1.0), blocks: HashMap::from([(100, block)]) }
    }

    #[test]
    fn a_block_is_given_once_and_only_as_it_was_coded() {
        let kept = KeptBlocks::default();
        kept.put(PLACE, tensor(34));
        assert!(kept.take((2, 100), &span(100, 8), &spec(1.0)).is_none());
        assert!(kept.take(PLACE, &span(100, 8), &spec(2.0)).is_none());
        assert!(kept.take(PLACE, &span(108, 8), &spec(1.0)).is_none());
        assert!(kept.take(PLACE, &span(100, 8), &spec(1.0)).is_some());
        assert!(kept.take(PLACE, &span(100, 8), &spec(1.0)).is_none());
        kept.put(PLACE, tensor(34));
        assert!(kept.take(PLACE, &span(100, 4), &spec(1.0)).is_none());
    }

    #[test]
    fn what_is_kept_of_a_changed_file_is_forgotten() {
        let kept = KeptBlocks::default();
        kept.put(PLACE, tensor(34));
        kept.retain(2, identity(6));
        kept.retain(3, identity(5));
        assert_eq!(kept.lock().tensors.len(), 1);
        kept.retain(3, identity(6));
        assert!(kept.lock().tensors.is_empty() && kept.lock().n_bytes == 0);
    }

    #[test]
    fn room_is_bounded_and_comes_back() {
        let kept = KeptBlocks::default();
        assert!(!kept.reserve(usize::MAX) && kept.reserve(MAX_BYTES) && !kept.reserve(1));
        kept.release(MAX_BYTES);
        kept.put(PLACE, tensor(40));
        // In place of what is there.
        kept.put(PLACE, tensor(50));
        assert!(!kept.reserve(MAX_BYTES - 49) && kept.reserve(MAX_BYTES - 50));
        kept.release(MAX_BYTES - 50);
        kept.forget(PLACE);
        assert_eq!(kept.lock().n_bytes, 0);
    }
}
