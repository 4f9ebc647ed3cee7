//! Blocks that were coded while their tensor was planned: a step that has been tried on a whole tensor and holds need
//! not be tried again when the file is written.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::checkpoint::BlockSpan;
use crate::container::{BlockInfo, Piece};
use crate::stage::{BlockLoss, QuantSpec};
use crate::storage::{FileIdentity, HugeMemory};

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
    /// Where record header and payload are; `None` where there was no room for them.
    pub(crate) record: Option<Range<usize>>,
    pub(crate) loss: BlockLoss,
}

/// A tensor's blocks by their offsets in the file.
pub(crate) struct KeptTensor {
    /// The file's, when the blocks were read.
    pub(crate) identity: FileIdentity,
    pub(crate) spec: QuantSpec,
    pub(crate) blocks: HashMap<u64, KeptBlock>,
}

/// The number of a file, and the offset of one of its tensors.
pub(crate) type TensorPlace = (usize, u64);

/// What is kept in a run.
pub(crate) struct KeptBlocks {
    kept: Mutex<Kept>,
    /// The records, once no more are to come.
    records: HugeMemory,
}

impl Default for KeptBlocks {
    fn default() -> Self {
        Self { kept: Mutex::default(), records: HugeMemory::new(0) }
    }
}

struct Kept {
    tensors: HashMap<TensorPlace, KeptTensor>,
    memory: HugeMemory,
    /// Records in the memory that somebody may still ask for.
    n_records: usize,
}

impl Default for Kept {
    fn default() -> Self {
        Self { tensors: HashMap::new(), memory: HugeMemory::new(MAX_BYTES), n_records: 0 }
    }
}

impl Kept {
    /// Lets go of as many records as are in `blocks`. Their room comes back when all others have gone, too.
    fn release<'b>(&mut self, blocks: impl Iterator<Item = &'b KeptBlock>) {
        self.n_records -= blocks.filter(|block| block.record.is_some()).count();
        if self.n_records == 0 {
            self.memory.clear();
        }
    }
}

impl KeptBlocks {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is room for records of `n_bytes`; others may take it meanwhile.
    pub(crate) fn has_room(&self, n_bytes: usize) -> bool {
        self.lock().memory.free_bytes() >= n_bytes
    }

    /// Ends the time in which records are put aside: from now on they can be taken.
    pub(crate) fn seal(&mut self) {
        let kept = self.kept.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.records = std::mem::replace(&mut kept.memory, HugeMemory::new(0));
    }

    /// Puts a record aside, if there is room.
    pub(crate) fn store(&self, record: &[u8]) -> Option<Range<usize>> {
        let mut kept = self.lock();
        let range = kept.memory.push(record)?;
        kept.n_records += 1;
        Some(range)
    }

    /// Keeps the blocks of a tensor in place of those that were kept of it.
    pub(crate) fn put(&self, place: TensorPlace, tensor: KeptTensor) {
        self.forget(place);
        self.lock().tensors.insert(place, tensor);
    }

    /// Forgets what is kept of a tensor.
    pub(crate) fn forget(&self, place: TensorPlace) {
        let mut kept = self.lock();
        if let Some(tensor) = kept.tensors.remove(&place) {
            kept.release(tensor.blocks.values());
        }
    }

    /// Forgets what is kept of a file that is not the same as when it was planned.
    pub(crate) fn retain(&self, file_idx: usize, identity: FileIdentity) {
        let mut kept = self.lock();
        let is_stale =
            |place: &TensorPlace, tensor: &mut KeptTensor| place.0 == file_idx && tensor.identity != identity;
        let stale: Vec<KeptTensor> = kept.tensors.extract_if(is_stale).map(|(_, tensor)| tensor).collect();
        stale.iter().for_each(|tensor| kept.release(tensor.blocks.values()));
    }

    /// The block at `span` of a tensor that is quantized by `spec`, if it has been coded, and its record.
    pub(crate) fn take(
        &self,
        place: TensorPlace,
        span: &BlockSpan,
        spec: &QuantSpec,
    ) -> Option<(KeptBlock, &[u8])> {
        let mut kept = self.lock();
        let tensor = kept.tensors.get_mut(&place).filter(|tensor| tensor.spec == *spec)?;
        let block = tensor.blocks.remove(&span.offset)?;
        let is_same = block.info.decoded_bytes as usize == span.len;
        let record = block.record.clone().filter(|_| is_same).and_then(|range| self.records.get(range))?;
        Some((block, record))
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
            row_lens: Vec::new(),
            choice: Choice::Rounded(Rounding::Nearest),
            backend: IndexBackend::Rans,
        }
    }

    fn span(offset: u64, len: usize) -> BlockSpan {
        BlockSpan { offset, len, dtype: Dtype::F32, row_len: 0, row_start: 0 }
    }

    fn tensor(kept: &KeptBlocks, record: &[u8]) -> KeptTensor {
        let piece = Piece::hash(100, &[0; 8]);
        let block = KeptBlock {
            info: BlockInfo::new(Dtype::F32, Coding::Quantized, 8, 2).unwrap(),
            decoded_crc: 0,
            source_piece: piece.clone(),
            piece,
            record: kept.store(record),
            loss: BlockLoss::default(),
        };
        KeptTensor { identity: identity(5), spec: spec(1.0), blocks: HashMap::from([(100, block)]) }
    }

    #[test]
    fn a_block_is_given_once_and_only_as_it_was_coded() {
        let mut kept = KeptBlocks::default();
        let (other, empty) = ((3, 200), (3, 300));
        kept.put(PLACE, tensor(&kept, b"record"));
        kept.put(other, tensor(&kept, b"another"));
        kept.put(empty, KeptTensor { blocks: HashMap::new(), ..tensor(&kept, b"") });
        kept.seal();
        let take = |place, offset, len, step| {
            kept.take(place, &span(offset, len), &spec(step)).map(|(_, record)| record)
        };
        assert_eq!(take((2, 100), 100, 8, 1.0), None);
        assert_eq!(take(PLACE, 100, 8, 2.0), None);
        assert_eq!(take(PLACE, 108, 8, 1.0), None);
        assert_eq!(take(PLACE, 100, 8, 1.0), Some(&b"record"[..]));
        assert_eq!(take(PLACE, 100, 8, 1.0), None);
        assert_eq!(take(other, 100, 4, 1.0), None);
        assert_eq!(take(empty, 100, 8, 1.0), None);
        assert!(!kept.has_room(1) && kept.store(b"late").is_none());
    }

    #[test]
    fn what_is_kept_of_a_changed_file_is_forgotten() {
        let kept = KeptBlocks::default();
        kept.put(PLACE, tensor(&kept, b"record"));
        kept.retain(2, identity(6));
        kept.retain(3, identity(5));
        assert_eq!(kept.lock().tensors.len(), 1);
        kept.retain(3, identity(6));
        assert!(kept.lock().tensors.is_empty() && kept.has_room(MAX_BYTES));
    }

    #[test]
    fn room_is_bounded_and_comes_back_when_all_is_gone() {
        let kept = KeptBlocks::default();
        assert!(kept.has_room(MAX_BYTES) && !kept.has_room(MAX_BYTES + 1));
        kept.put(PLACE, tensor(&kept, &[1; 40]));
        // In place of what is there.
        kept.put(PLACE, tensor(&kept, &[2; 50]));
        assert!(kept.has_room(MAX_BYTES - 90) && !kept.has_room(MAX_BYTES - 89));
        kept.forget(PLACE);
        assert!(kept.has_room(MAX_BYTES));
    }
}
