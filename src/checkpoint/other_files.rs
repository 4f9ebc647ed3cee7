//! How a file that is no safetensors file is cut: by its tensors, where its format is known, else as samples tell.

use rayon::prelude::*;

use super::gguf::gguf_regions;
use super::layout::{Region, blocks, plain_layout, push_region};
use super::number_runs::{MIN_RUN_BYTES, NumberRun};
use super::numbers::{NumberFinder, ReadAt, window_bytes};
use super::onnx::onnx_runs;
use super::torch_legacy::legacy_torch_runs;
use super::zip::zip_runs;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::kernels::Isa;
use crate::limits::Limits;
use crate::stage::{BlockEncoder, BlockSource, Level};

/// A file of no more than this is small: it is coded on trial.
const SMALL_BYTES: u64 = 4 << 20;
/// In a small file windows of this length are tried, too: graphs may have many a small tensor.
const SHORT_WINDOW_BYTES: u64 = 8 << 10;
/// Bytes between runs that are taken for elements of the one before if they could be: a region of their own takes more.
const MAX_JOINED_GAP: u64 = 64;

/// The regions of a whole file of `len` bytes that `read` gives. They fill the file, and depend on nothing but its bytes.
///
/// # Errors
/// Those of `read`.
pub fn other_file_regions(len: u64, read: &ReadAt<'_>, limits: &Limits) -> Result<Vec<Region>> {
    if let Some(regions) = gguf_regions(len, read, limits)? {
        return Ok(regions);
    }
    let by_format = match number_runs(len, read, limits)? {
        Some(runs) => Some(regions_of(&runs, len, read)?),
        None => None,
    };
    if len > SMALL_BYTES {
        return by_format.map_or_else(|| NumberFinder::default().regions(len, window_bytes(len), read), Ok);
    }
    let by_samples = NumberFinder::default().regions(len, window_bytes(len), read)?;
    if by_format.is_none() && by_samples.len() <= 1 {
        return Ok(by_samples);
    }
    let short = NumberFinder::default().regions(len, SHORT_WINDOW_BYTES, read)?;
    // A general compressor's better levels are slow, and find little more among numbers.
    let others = [(by_samples, Level::Default), (short, Level::Default), (plain_layout(len), Level::Fast)];
    let ways: Vec<(Vec<Region>, Level)> =
        by_format.map(|regions| (regions, Level::Default)).into_iter().chain(others).collect();
    let size = |(regions, level): &(Vec<Region>, Level)| size_of(regions, *level, read);
    let sizes = ways.par_iter().map(size).collect::<Result<Vec<_>>>()?;
    let best = ways.into_iter().zip(sizes).min_by_key(|(_, size)| *size);
    Ok(best.map(|((regions, _), _)| regions).unwrap_or_default())
}

/// The numbers of a file whose format tells of them, in order.
fn number_runs(len: u64, read: &ReadAt<'_>, limits: &Limits) -> Result<Option<Vec<NumberRun>>> {
    for find in [onnx_runs, zip_runs, legacy_torch_runs] {
        if let Some(runs) = find(len, read, limits)? {
            return Ok(Some(runs).filter(|runs| !runs.is_empty()));
        }
    }
    Ok(None)
}

/// The regions of a file with `runs` of numbers, which are in order. Between them, and where it is not said what numbers
/// are, they are found by samples.
fn regions_of(runs: &[NumberRun], len: u64, read: &ReadAt<'_>) -> Result<Vec<Region>> {
    let (mut regions, mut at, mut finder) = (Vec::new(), 0, NumberFinder::default());
    for (idx, run) in runs.iter().enumerate() {
        push_unknown(at, run.start, MIN_RUN_BYTES, &mut finder, read, &mut regions)?;
        at = match run.dtype {
            Some(dtype) => {
                let unit = dtype.unit_bytes() as u64;
                let next = runs.get(idx + 1).map_or(len, |next| next.start);
                let is_joined = next - run.end <= MAX_JOINED_GAP && (next - run.start).is_multiple_of(unit);
                let end = if is_joined { next } else { run.end - (run.end - run.start) % unit };
                push_region(run.start, end, dtype, run.row_len, &mut regions);
                end
            }
            None => {
                push_unknown(run.start, run.end, 0, &mut finder, read, &mut regions)?;
                run.end
            }
        };
    }
    push_unknown(at, len, MIN_RUN_BYTES, &mut finder, read, &mut regions)?;
    Ok(regions)
}

/// Appends the regions of the bytes from `start` to `end`: those that samples tell, of at least `least` bytes.
fn push_unknown(
    start: u64,
    end: u64,
    least: u64,
    finder: &mut NumberFinder,
    read: &ReadAt<'_>,
    regions: &mut Vec<Region>,
) -> Result<()> {
    let len = end - start;
    if len < least {
        push_region(start, end, Dtype::Bytes, 0, regions);
        return Ok(());
    }
    let read_part = |offset: u64, dst: &mut [u8]| read(start + offset, dst);
    for region in finder.regions(len, window_bytes(len), &read_part)? {
        let start = start + region.offset;
        push_region(start, start + region.len, region.dtype, region.row_len, regions);
    }
    Ok(())
}

/// About what the blocks of `regions` take at `level`.
fn size_of(regions: &[Region], level: Level, read: &ReadAt<'_>) -> Result<usize> {
    /// What a block takes besides its payload.
    const BLOCK_BYTES: usize = 44;
    let mut encoder = BlockEncoder::new(level, Isa::detect());
    let (mut bytes, mut payload, mut size) = (Vec::new(), Vec::new(), 0);
    for span in blocks(regions) {
        bytes.resize(span.len, 0);
        read(span.offset, &mut bytes)?;
        payload.clear();
        let source = BlockSource {
            dtype: span.dtype,
            bytes: &bytes,
            row_len: span.row_len,
            row_start: span.row_start,
        };
        let _ = encoder.encode(source, &mut payload);
        size += payload.len() + BLOCK_BYTES;
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::super::numbers::read_from;
    use super::*;
    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    fn noise(n_bytes: usize) -> Vec<u8> {
        let mut bytes = vec![0; n_bytes];
        ChaCha8Rng::seed_from_u64(3).fill_bytes(&mut bytes);
        bytes
    }

    fn assert_filled(regions: &[Region], len: u64) {
        let mut end = 0;
        for region in regions {
            assert_eq!(region.offset, end);
            assert!(region.len > 0 && region.len.is_multiple_of(region.dtype.unit_bytes() as u64));
            end += region.len;
        }
        assert_eq!(end, len);
    }

    #[test]
    fn runs_are_regions_and_short_gaps_that_fit_are_part_of_them() {
        let bytes = noise(90_000);
        let run = |start, end, dtype| NumberRun { start, end, dtype, row_len: 7 };
        let runs = [
            run(10, 8010, Some(Dtype::F32)),
            run(8018, 16_018, Some(Dtype::F32)),
            run(16_021, 26_022, Some(Dtype::F16)),
            run(70_000, 80_000, None),
        ];
        let regions = regions_of(&runs, 90_000, &read_from(&bytes)).unwrap();
        assert_filled(&regions, 90_000);
        let found: Vec<_> =
            regions.iter().map(|region| (region.offset, region.len, region.dtype, region.row_len)).collect();
        let expected = [
            (0, 10, Dtype::Bytes, 0),
            (10, 8008, Dtype::F32, 7),
            (8018, 8000, Dtype::F32, 7),
            (16_018, 3, Dtype::Bytes, 0),
            (16_021, 10_000, Dtype::F16, 7),
            (26_021, 63_979, Dtype::Bytes, 0),
        ];
        assert_eq!(found, expected);
    }

    proptest! {
        #[test]
        fn regions_of_any_runs_fill_the_file(
            lens in prop::collection::vec((0u64..200, 1u64..9000, 0usize..4), 0..12),
            rest in 0u64..9000,
        ) {
            let dtypes = [None, Some(Dtype::F32), Some(Dtype::Bf16), Some(Dtype::F64)];
            let (mut at, mut runs) = (0, Vec::new());
            for (gap, len, dtype) in lens {
                let (start, end) = (at + gap, at + gap + len);
                runs.push(NumberRun { start, end, dtype: dtypes[dtype], row_len: 0 });
                at = end;
            }
            let bytes = noise(usize::try_from(at + rest).unwrap());
            assert_filled(&regions_of(&runs, at + rest, &read_from(&bytes)).unwrap(), at + rest);
        }
    }
}
