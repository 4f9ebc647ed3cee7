//! Coding 4, sparse: zeros marked apart, the other elements coded densely. FORMAT.md section 3.4.
//!
//! Where many elements are ±0 (gradients, pruned weights, optimizer state of dead units) their residuals are no noise.
//! Each element gets a class (0: another value, 1: +0, 2: −0), the classes are entropy-coded, and the other values
//! make a smaller block of their own.

use super::payload::{corrupt, le32, scratch};
use super::sample;
use crate::bits::ByteCursor;
use crate::entropy::plan::Effort;
use crate::entropy::rans8;
use crate::error::Result;
use crate::kernels::Isa;

const HEADER_BYTES: usize = 12;
const OTHER: u8 = 0;
const POSITIVE_ZERO: u8 = 1;
const NEGATIVE_ZERO: u8 = 2;

/// Elements of which one at least must be zero to make the coding worth its time: a zero saves the more the wider it is.
fn one_in(element_bytes: usize) -> usize {
    if element_bytes < 4 { 50 } else { 100 }
}

/// Scratch memory of the encoder.
#[derive(Debug, Default)]
pub(super) struct SparseEncoder {
    classes: Vec<u8>,
    dense: Vec<u8>,
    rans8: rans8::Encoder,
}

fn class(element: &[u8]) -> u8 {
    let Some((&top, rest)) = element.split_last() else { return OTHER };
    match top {
        0 if rest.iter().all(|&byte| byte == 0) => POSITIVE_ZERO,
        0x80 if rest.iter().all(|&byte| byte == 0) => NEGATIVE_ZERO,
        _ => OTHER,
    }
}

/// How many of `elements` are ±0. Loops that know their elements' width take a tenth of the time of one that does not.
fn count_zeros(element_bytes: usize, elements: &[u8]) -> usize {
    match element_bytes {
        2 => elements.as_chunks().0.iter().filter(|&&element| u16::from_le_bytes(element) << 1 == 0).count(),
        4 => elements.as_chunks().0.iter().filter(|&&element| u32::from_le_bytes(element) << 1 == 0).count(),
        _ => elements.chunks_exact(element_bytes).filter(|element| class(element) != OTHER).count(),
    }
}

impl SparseEncoder {
    /// Whether a sample of float elements holds enough zeros.
    pub(super) fn is_worth_it(element_bytes: usize, bytes: &[u8]) -> bool {
        let (mut n_zeros, mut n_sampled) = (0, 0);
        for run in sample::runs(bytes, element_bytes) {
            n_zeros += count_zeros(element_bytes, run);
            n_sampled += run.len() / element_bytes;
        }
        n_zeros * one_in(element_bytes) > n_sampled
    }

    /// Appends header and classes to `dst`, and returns the dense elements for the caller to code and append.
    pub(super) fn encode(
        &mut self,
        isa: Isa,
        element_bytes: usize,
        bytes: &[u8],
        dst: &mut Vec<u8>,
    ) -> &[u8] {
        let n_elements = bytes.len() / element_bytes;
        let classes = scratch(&mut self.classes, rans8::buffer_len(n_elements));
        self.dense.clear();
        for (class, element) in classes.iter_mut().zip(bytes.chunks_exact(element_bytes)) {
            *class = self::class(element);
            if *class == OTHER {
                self.dense.extend_from_slice(element);
            }
        }
        let start = dst.len();
        dst.extend([element_bytes.to_le_bytes()[0], 0, 0, 0]);
        dst.extend(le32(0));
        dst.extend(le32(self.dense.len() / element_bytes));
        let effort = Effort {
            n_tables: 8,
            segment_len: 256,
            max_symbols: 3,
            n_rounds: 0,
            count_one_in: 1,
            saves_bytes: true,
        };
        self.rans8.encode(isa, effort, 0, n_elements, classes, dst);
        let section_len = le32(dst.len() - start - HEADER_BYTES);
        dst[start + 4..start + 8].copy_from_slice(&section_len);
        &self.dense
    }

    /// Notes in the header at `start` of `dst` how the dense elements are coded.
    pub(super) fn set_inner_coding(dst: &mut [u8], start: usize, coding_id: u8) {
        if let Some(byte) = dst.get_mut(start + 1) {
            *byte = coding_id;
        }
    }
}

/// Puts the elements of `dense` in the places of those of `bytes` that are not zero, and says how many are.
pub(super) fn replace_dense(element_bytes: usize, dense: &[u8], bytes: &mut [u8]) -> u64 {
    let mut others = dense.chunks_exact(element_bytes);
    let mut n_zeros = 0;
    for element in bytes.chunks_exact_mut(element_bytes) {
        if class(element) != OTHER {
            n_zeros += 1;
        } else if let Some(other) = others.next() {
            element.copy_from_slice(other);
        }
    }
    n_zeros
}

/// Scratch memory of the decoder.
#[derive(Debug, Default)]
pub(super) struct SparseDecoder {
    classes: Vec<u8>,
    rans8: rans8::Decoder,
}

/// A sparse payload with its classes decoded.
pub(super) struct Dense<'a> {
    /// Coding id of the dense elements.
    pub(super) coding_id: u8,
    /// Their size in bytes.
    pub(super) dense_bytes: usize,
    /// Their payload.
    pub(super) payload: &'a [u8],
    element_bytes: usize,
}

impl SparseDecoder {
    /// Decodes the classes of a block of `block_bytes`.
    pub(super) fn open<'a>(&mut self, isa: Isa, payload: &'a [u8], block_bytes: usize) -> Result<Dense<'a>> {
        let mut src = ByteCursor::new(payload);
        self.open_cursor(isa, &mut src, block_bytes)
            .ok_or_else(|| corrupt("the sparse block's classes break the format"))
    }

    fn open_cursor<'a>(
        &mut self,
        isa: Isa,
        src: &mut ByteCursor<'a>,
        block_bytes: usize,
    ) -> Option<Dense<'a>> {
        let [element_bytes, coding_id, 0, 0] = src.array::<4>()? else { return None };
        let element_bytes = usize::from(element_bytes);
        let section_len = usize::try_from(src.u32()?).ok()?;
        let n_dense = usize::try_from(src.u32()?).ok()?;
        if !matches!(element_bytes, 1 | 2 | 4 | 8) || !block_bytes.is_multiple_of(element_bytes) {
            return None;
        }
        let n_elements = block_bytes / element_bytes;
        let section = src.take(section_len)?;
        let classes = scratch(&mut self.classes, rans8::buffer_len(n_elements));
        self.rans8.decode(isa, section, n_elements, classes)?;
        let classes = &classes[..n_elements];
        let n_others = classes.iter().filter(|&&class| class == OTHER).count();
        let is_valid = n_others == n_dense && classes.iter().all(|&class| class <= NEGATIVE_ZERO);
        is_valid.then_some(Dense {
            coding_id,
            dense_bytes: n_dense * element_bytes,
            payload: src.rest(),
            element_bytes,
        })
    }

    /// Fills `dst` with zeros and, in their places, the elements of `dense`.
    pub(super) fn scatter(&self, opened: &Dense<'_>, dense: &[u8], dst: &mut [u8]) {
        let mut others = dense.chunks_exact(opened.element_bytes);
        for (element, &class) in dst.chunks_exact_mut(opened.element_bytes).zip(&self.classes) {
            if class == OTHER {
                if let Some(other) = others.next() {
                    element.copy_from_slice(other);
                }
                continue;
            }
            element.fill(0);
            if let Some(top) = element.last_mut().filter(|_| class == NEGATIVE_ZERO) {
                *top = 0x80;
            }
        }
    }
}
