//! Coding 2, zstd: a frame of the bytes as they are or shuffled to byte planes, or of a short text by a dictionary. FORMAT.md
//! section 3.2.

use super::payload::{corrupt, keep_shorter, scratch};
use super::{Coding, Level};
use crate::error::Result;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, compress_bound};

/// What headers of checkpoints and the settings beside them consist of: content for a frame to refer to, without tables.
static DICTIONARY: &[u8] = include_bytes!("zstd_dictionary.txt");
/// The payload's first byte where the frame needs [`DICTIONARY`].
const BY_DICTIONARY: u8 = 0;
/// What such a frame is stored without.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Longest bytes that the dictionary is tried on; longer ones know their words themselves.
const TEXT_BYTES: usize = 32 << 10;

/// Contexts for whole blocks and for planes, and for short texts once there is one.
pub(super) struct ZstdEncoder {
    blocks: Compressor<'static>,
    pub(super) planes: Compressor<'static>,
    texts: Option<Compressor<'static>>,
    text_level: i32,
    shuffled: Vec<u8>,
}

/// zstd levels: for bytes and planes, for blocks of repeated elements, and for short texts.
fn levels(level: Level) -> (i32, i32, i32) {
    match level {
        Level::Fast => (1, 3, 3),
        Level::Default => (7, 5, 9),
        Level::High => (19, 19, 19),
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
        let (bytes, repeats, text_level) = levels(level);
        let mut blocks = compressor(repeats);
        // Weights scaled by row repeat their mantissas: three bytes of four.
        let min_match = if level == Level::High { 3 } else { 4 };
        let _ = blocks.set_parameter(CParameter::MinMatch(min_match));
        Self { blocks, planes: compressor(bytes), texts: None, text_level, shuffled: Vec::new() }
    }

    /// Appends the smallest of the frames of `bytes`, of its planes of `unit_bytes` (none if 1), and of short bytes by the
    /// dictionary to `dst`, behind a byte that says which; [`Coding::Stored`], and nothing appended, if neither is smaller than `bytes`.
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
        } else if bytes.len() <= TEXT_BYTES {
            let middle = dst.len();
            self.append_by_dictionary(bytes, dst);
            if dst.len() > middle && middle > start {
                keep_shorter(dst, start, middle);
            }
        }
        if dst.len() > start && dst.len() - start < bytes.len() {
            return Coding::Zstd;
        }
        dst.truncate(start);
        Coding::Stored
    }

    /// Appends a frame of `bytes` that needs the dictionary; nothing if zstd failed.
    fn append_by_dictionary(&mut self, bytes: &[u8], dst: &mut Vec<u8>) {
        let start = dst.len();
        let texts = self.texts.get_or_insert_with(|| {
            let mut texts = compressor(self.text_level);
            // As above: a context without it is still one, and the frame then tells that it is not as expected.
            let _ = texts.set_dictionary(self.text_level, DICTIONARY);
            texts
        });
        let is_done = append(texts, BY_DICTIONARY, bytes, dst).is_some();
        let frame = start + 1;
        if is_done && dst.get(frame..).is_some_and(|frame| frame.starts_with(&MAGIC)) {
            dst.drain(frame..frame + MAGIC.len());
        } else {
            dst.truncate(start);
        }
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
    texts: Option<Decompressor<'static>>,
    shuffled: Vec<u8>,
}

impl ZstdDecoder {
    pub(super) fn new() -> Self {
        Self { planes: Decompressor::new().unwrap_or_default(), texts: None, shuffled: Vec::new() }
    }

    /// Decodes `payload` into all of `dst`.
    pub(super) fn decode(&mut self, payload: &[u8], dst: &mut [u8]) -> Result<()> {
        let (&unit, frame) =
            payload.split_first().ok_or_else(|| corrupt("a zstd block's payload is empty"))?;
        if unit == BY_DICTIONARY {
            return self.decode_by_dictionary(frame, dst);
        }
        let unit_bytes = usize::from(unit);
        if !matches!(unit_bytes, 1 | 2 | 4 | 8) || !dst.len().is_multiple_of(unit_bytes) {
            return Err(corrupt("a zstd block's planes do not fit its size"));
        }
        let target = if unit_bytes > 1 { scratch(&mut self.shuffled, dst.len()) } else { &mut *dst };
        let len = decompress(&mut self.planes, frame, target)?;
        if unit_bytes > 1 {
            let shuffled = scratch(&mut self.shuffled, len);
            unshuffle(shuffled, unit_bytes, dst);
        }
        Ok(())
    }

    fn decode_by_dictionary(&mut self, frame: &[u8], dst: &mut [u8]) -> Result<()> {
        let texts = self.texts.get_or_insert_with(|| {
            // Without it every frame is refused.
            Decompressor::with_dictionary(DICTIONARY).unwrap_or_default()
        });
        decompress(texts, &[&MAGIC, frame].concat(), dst).map(|_| ())
    }
}

/// Decodes `frame` into all of `dst`; with its length.
fn decompress(decompressor: &mut Decompressor<'static>, frame: &[u8], dst: &mut [u8]) -> Result<usize> {
    let len = decompressor.decompress_to_buffer(frame, dst).map_err(|_| corrupt("zstd refuses the frame"))?;
    if len != dst.len() {
        return Err(corrupt("a zstd frame holds less than its block"));
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Archives need the dictionary for as long as there are any.
    #[test]
    fn the_dictionary_is_that_of_the_format() {
        let format = include_str!("../container/FORMAT.md");
        let hash = blake3::hash(DICTIONARY).to_hex();
        assert!(
            format.contains(&format!("the {} bytes of `src/stage/zstd_dictionary.txt`", DICTIONARY.len()))
        );
        assert!(format.contains(hash.as_str()), "{hash}");
    }

    #[test]
    fn short_texts_take_less_by_the_dictionary_and_long_ones_none() {
        let header =
            br#"{"layer1.2.conv1.weight":{"dtype":"BF16","shape":[16,64,3,3],"data_offsets":[0,18432]}}"#;
        let mut encoder = ZstdEncoder::new(Level::Default);
        let mut decoder = ZstdDecoder::new();
        for (text, unit, most) in [
            (header.to_vec(), BY_DICTIONARY, header.len() / 2),
            (b"0123456789".repeat(TEXT_BYTES), 1, TEXT_BYTES),
            (header.to_vec(), BY_DICTIONARY, header.len() / 2),
        ] {
            // Behind what is there already.
            let mut dst = vec![9];
            assert_eq!(encoder.encode(&text, 1, &mut dst), Coding::Zstd);
            assert!(dst[..2] == [9, unit] && dst.len() < most, "{} bytes", dst.len());
            let mut back = vec![0; text.len()];
            decoder.decode(&dst[1..], &mut back).unwrap();
            assert!(back == text);
            decoder.decode(&dst[1..], &mut back[1..]).unwrap_err();
            decoder.decode(&dst[1..dst.len() - 1], &mut back).unwrap_err();
        }
        // What no zstd makes shorter is not made longer.
        let mut dst = vec![9];
        assert_eq!(encoder.encode(&[7, 99, 200], 1, &mut dst), Coding::Stored);
        assert_eq!(dst, [9]);
    }
}
