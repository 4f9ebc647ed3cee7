//! Coding 2, zstd: a frame of the bytes as they are or shuffled to byte planes. FORMAT.md section 3.2.

use super::payload::{corrupt, scratch};
use super::{Coding, Level};
use crate::error::Result;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, compress_bound};

/// Contexts for whole blocks and for planes.
pub(super) struct ZstdEncoder {
    blocks: Compressor<'static>,
    pub(super) planes: Compressor<'static>,
    shuffled: Vec<u8>,
}

/// zstd levels: for bytes and planes, and for blocks of repeated elements.
fn levels(level: Level) -> (i32, i32) {
    match level {
        Level::Fast => (1, 3),
        Level::Default => (7, 5),
        Level::High => (19, 19),
    }
}

fn compressor(level: i32) -> Compressor<'static> {
    let mut compressor = Compressor::new(level).unwrap_or_default();
    // What is left is coded at the default level: zstd refuses only unknown parameters, and these are known.
    let _ = compressor.set_parameter(CParameter::ContentSizeFlag(false));
    compressor
}

impl ZstdEncoder {
    pub(super) fn new(level: Level) -> Self {
        let (bytes, repeats) = levels(level);
        let mut blocks = compressor(repeats);
        // Weights scaled by row repeat their mantissas: three bytes of four.
        let min_match = if level == Level::High { 3 } else { 4 };
        let _ = blocks.set_parameter(CParameter::MinMatch(min_match));
        Self { blocks, planes: compressor(bytes), shuffled: Vec::new() }
    }

    /// Appends the smaller of the frames of `bytes` and of its planes of `unit_bytes` (none if 1) to `dst`, behind a byte
    /// that says which; [`Coding::Stored`], and nothing appended, if neither is smaller than `bytes`.
    pub(super) fn encode(&mut self, bytes: &[u8], unit_bytes: usize, dst: &mut Vec<u8>) -> Coding {
        let start = dst.len();
        let compressor = if unit_bytes > 1 { &mut self.blocks } else { &mut self.planes };
        let plain = append(compressor, 1, bytes, dst).unwrap_or(usize::MAX);
        if unit_bytes > 1 && bytes.len().is_multiple_of(unit_bytes) {
            let middle = dst.len();
            let shuffled = scratch(&mut self.shuffled, bytes.len());
            shuffle(bytes, unit_bytes, shuffled);
            let unit = unit_bytes.to_le_bytes()[0];
            let turned = append(compressor, unit, shuffled, dst).unwrap_or(usize::MAX);
            if turned < plain {
                dst.drain(start..middle);
            } else {
                dst.truncate(middle);
            }
        }
        if dst.len() > start && dst.len() - start < bytes.len() {
            return Coding::Zstd;
        }
        dst.truncate(start);
        Coding::Stored
    }
}

/// Appends `unit` and a frame of `bytes`; the appended length, or `None` and nothing appended if zstd failed.
fn append(compressor: &mut Compressor<'static>, unit: u8, bytes: &[u8], dst: &mut Vec<u8>) -> Option<usize> {
    let start = dst.len();
    dst.push(unit);
    dst.resize(start + 1 + compress_bound(bytes.len()), 0);
    let result = compressor.compress_to_buffer(bytes, &mut dst[start + 1..]);
    dst.truncate(start + result.as_ref().map_or(0, |len| 1 + len));
    result.ok().map(|len| 1 + len)
}

/// Puts byte `i` of each element into plane `i`. `max(1)`: a block within a sparse one may be empty.
fn shuffle(bytes: &[u8], unit_bytes: usize, dst: &mut [u8]) {
    for (offset, plane) in dst.chunks_exact_mut((bytes.len() / unit_bytes).max(1)).enumerate() {
        plane.iter_mut().zip(bytes[offset..].iter().step_by(unit_bytes)).for_each(|(dst, &byte)| *dst = byte);
    }
}

fn unshuffle(planes: &[u8], unit_bytes: usize, dst: &mut [u8]) {
    for (offset, plane) in planes.chunks_exact((dst.len() / unit_bytes).max(1)).enumerate() {
        dst[offset..].iter_mut().step_by(unit_bytes).zip(plane).for_each(|(dst, &byte)| *dst = byte);
    }
}

/// Contexts for decoding.
pub(super) struct ZstdDecoder {
    pub(super) planes: Decompressor<'static>,
    shuffled: Vec<u8>,
}

impl ZstdDecoder {
    pub(super) fn new() -> Self {
        Self { planes: Decompressor::new().unwrap_or_default(), shuffled: Vec::new() }
    }

    /// Decodes `payload` into all of `dst`.
    pub(super) fn decode(&mut self, payload: &[u8], dst: &mut [u8]) -> Result<()> {
        let (&unit, frame) =
            payload.split_first().ok_or_else(|| corrupt("a zstd block's payload is empty"))?;
        let unit_bytes = usize::from(unit);
        if !matches!(unit_bytes, 1 | 2 | 4 | 8) || !dst.len().is_multiple_of(unit_bytes) {
            return Err(corrupt("a zstd block's planes do not fit its size"));
        }
        let target = if unit_bytes > 1 { scratch(&mut self.shuffled, dst.len()) } else { &mut *dst };
        let len =
            self.planes.decompress_to_buffer(frame, target).map_err(|_| corrupt("zstd refuses the frame"))?;
        if len != target.len() {
            return Err(corrupt("a zstd frame holds less than its block"));
        }
        if unit_bytes > 1 {
            let shuffled = scratch(&mut self.shuffled, len);
            unshuffle(shuffled, unit_bytes, dst);
        }
        Ok(())
    }
}
