//! Finding numbers in files of no format that is known here: `.pt`, `.npz`, `.onnx`, raw dumps.
//!
//! Nothing of the file is interpreted. Bytes at equal places of floating-point numbers are alike, exponents above all: of
//! a sample of each window of the file the entropies of bytes at equal places tell how far apart these are. What elements
//! begin where is then tried on some windows by coding them. A wrong guess costs room, never a bit.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::layout::{Region, plain_layout, push_region};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::Isa;
use crate::stage::{BlockEncoder, BlockSource, Level};

/// Less than this is not looked at.
const MIN_BYTES: u64 = 4 << 10;
/// Windows that a file is divided into, if they are neither shorter nor longer than this.
const N_WINDOWS: u64 = 256;
const MIN_WINDOW_BYTES: u64 = 32 << 10;
const MAX_WINDOW_BYTES: u64 = 1 << 20;
/// Windows of a large file at most: samples far apart are slow to read from a disk.
const MAX_WINDOWS: u64 = 2048;
/// Bytes of a window that are looked at.
const SAMPLE_BYTES: usize = 4 << 10;
/// Windows of one pattern that are coded on trial, and bytes of each at most.
const N_TRIALS: usize = 4;
const TRIAL_BYTES: usize = 32 << 10;
/// Widest elements, in bytes: offsets are told apart modulo this.
const MAX_UNIT: usize = 8;

/// Reads bytes of a file at an offset.
pub type ReadAt<'a> = dyn Fn(u64, &mut [u8]) -> Result<()> + Sync + 'a;

/// Reads from bytes in memory.
pub fn read_from(bytes: &[u8]) -> impl Fn(u64, &mut [u8]) -> Result<()> + Sync {
    move |offset, dst| {
        let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
        let part = rest.and_then(|rest| rest.get(..dst.len()));
        dst.copy_from_slice(part.ok_or_else(|| Error::new(ErrorKind::Internal, "a read beyond the bytes"))?);
        Ok(())
    }
}

/// Whether a file of `len` bytes begins with `magic`.
pub(super) fn begins_with<const N: usize>(len: u64, read: &ReadAt<'_>, magic: &[u8; N]) -> Result<bool> {
    let mut first = [0; N];
    if len < N as u64 {
        return Ok(false);
    }
    read(0, &mut first)?;
    Ok(first == *magic)
}

/// What `parse` makes of the front of a file of `len` bytes, of which it is given twice as much each time until it is
/// content, up to `most` bytes; `None` if it never is.
pub(super) fn parse_prefix<T>(
    len: u64,
    most: u64,
    read: &ReadAt<'_>,
    mut parse: impl FnMut(&[u8]) -> Option<T>,
) -> Result<Option<T>> {
    const FIRST_READ: u64 = 1 << 20;
    let most = len.min(most);
    let mut prefix_len = FIRST_READ.min(most);
    while let Ok(n_bytes) = usize::try_from(prefix_len) {
        let mut prefix = vec![0; n_bytes];
        read(0, &mut prefix)?;
        let parsed = parse(&prefix);
        if parsed.is_some() || prefix_len == most {
            return Ok(parsed);
        }
        prefix_len = (2 * prefix_len).min(most);
    }
    Ok(None)
}

/// Which bytes of a window are alike: those this far apart, those at this offset the most. (1, 0) for none.
type Pattern = (usize, usize);

/// What windows of a pattern are taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Guess {
    dtype: Dtype,
    /// Offsets of elements modulo their size.
    phase: usize,
}

const BYTES: Guess = Guess { dtype: Dtype::Bytes, phase: 0 };

/// A window's place and what is in it.
#[derive(Debug, Clone, Copy)]
struct Window {
    start: u64,
    guess: Guess,
    /// Elements after which magnitudes are alike again; 0 for none.
    row_len: usize,
}

/// The length of windows of a file of `len` bytes.
pub(super) fn window_bytes(len: u64) -> u64 {
    (len / N_WINDOWS).clamp(MIN_WINDOW_BYTES, MAX_WINDOW_BYTES).max(len / MAX_WINDOWS).next_power_of_two()
}

/// Finds the numbers in one file, or in a stream piece by piece.
#[derive(Debug, Default)]
pub struct NumberFinder {
    guesses: BTreeMap<Pattern, Guess>,
}

impl NumberFinder {
    /// The regions of the next `len` bytes, which `read` gives from offset 0 on, told apart window by window, of
    /// a multiple of 8 bytes. What a pattern stands for is settled where it first comes up.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn regions(&mut self, len: u64, window_bytes: u64, read: &ReadAt<'_>) -> Result<Vec<Region>> {
        if len < MIN_BYTES || window_bytes == 0 {
            return Ok(plain_layout(len));
        }
        let pattern_at = |idx: u64| {
            let start = idx * window_bytes;
            Ok((start, pattern_of(start, window_bytes.min(len - start), read)?))
        };
        let windows: Vec<(u64, Pattern)> =
            (0..len.div_ceil(window_bytes)).into_par_iter().map(pattern_at).collect::<Result<_>>()?;
        let mut starts_of: BTreeMap<Pattern, Vec<u64>> = BTreeMap::new();
        for (start, pattern) in windows.iter().filter(|(_, pattern)| !self.guesses.contains_key(pattern)) {
            starts_of.entry(*pattern).or_default().push(*start);
        }
        for (pattern, starts) in starts_of {
            self.guesses.insert(pattern, guess(pattern, &starts, len, read)?);
        }
        let window = |(start, pattern): (u64, Pattern)| {
            let guess = self.guesses.get(&pattern).copied().unwrap_or(BYTES);
            let row_len = row_len_of(guess, start, window_bytes.min(len - start), read)?;
            Ok(Window { start, guess, row_len })
        };
        let mut windows: Vec<Window> = windows.into_par_iter().map(window).collect::<Result<_>>()?;
        settle_rows(&mut windows, window_bytes);
        Ok(runs(&windows, len))
    }
}

/// The pattern of the window of `len` bytes at `start`, by its middle or, if there is none, a part before and one behind.
fn pattern_of(start: u64, len: u64, read: &ReadAt<'_>) -> Result<Pattern> {
    let mut sample = [0; SAMPLE_BYTES];
    for quarter in [2, 1, 3] {
        let sample_len = usize::try_from(len).unwrap_or(usize::MAX).min(SAMPLE_BYTES);
        let sample = &mut sample[..sample_len];
        // Offsets within the sample are offsets within the file modulo any unit.
        let at = start + (len - sample_len as u64) / 4 * quarter / MAX_UNIT as u64 * MAX_UNIT as u64;
        read(at, sample)?;
        let pattern = pattern_in(sample);
        if pattern.0 > 1 {
            return Ok(pattern);
        }
    }
    Ok((1, 0))
}

fn pattern_in(sample: &[u8]) -> Pattern {
    /// A wider unit must save so much of the bits.
    const WORTH: f64 = 0.97;
    let mut best = (1, 0);
    let mut least_bits = mean_and_least(sample, 1).0;
    for unit in [2, 4, 8] {
        let (bits, offset) = mean_and_least(sample, unit);
        if bits < WORTH * least_bits {
            (best, least_bits) = ((unit, offset), bits);
        }
    }
    best
}

/// The mean entropy of the bytes at each place of units of `unit` bytes, and the place of the least one.
fn mean_and_least(sample: &[u8], unit: usize) -> (f64, usize) {
    let bits: Vec<f64> = (0..unit).map(|place| entropy(sample.iter().skip(place).step_by(unit))).collect();
    let least = (0..unit).min_by(|&a, &b| bits[a].total_cmp(&bits[b])).unwrap_or(0);
    (bits.iter().sum::<f64>() / unit as f64, least)
}

/// Entropy in bits with the correction for small samples of Miller and Madow (1955).
fn entropy<'a>(bytes: impl Iterator<Item = &'a u8>) -> f64 {
    let mut counts = [0u32; 256];
    bytes.for_each(|&byte| counts[usize::from(byte)] += 1);
    let n = f64::from(counts.iter().sum::<u32>()).max(1.0);
    let seen = counts.iter().filter(|&&count| count > 0);
    let sum: f64 = seen.clone().map(|&count| f64::from(count) * f64::from(count).log2()).sum();
    n.log2() - sum / n + (seen.count() as f64 - 1.0) / (2.0 * n * std::f64::consts::LN_2)
}

/// What windows of a pattern, which begin at `starts`, are best taken for.
fn guess((unit, _): Pattern, starts: &[u64], len: u64, read: &ReadAt<'_>) -> Result<Guess> {
    let dtypes: &[Dtype] = match unit {
        1 => &[Dtype::U8],
        2 => &[Dtype::Bf16, Dtype::F16],
        4 => &[Dtype::F32, Dtype::Bf16, Dtype::F16],
        _ => &[Dtype::F64, Dtype::F32, Dtype::Bf16, Dtype::F16],
    };
    let phases = |&dtype: &Dtype| (0..dtype.unit_bytes()).map(move |phase| Guess { dtype, phase });
    let candidates: Vec<Guess> = std::iter::once(BYTES).chain(dtypes.iter().flat_map(phases)).collect();
    let n_trials = starts.len().min(N_TRIALS);
    // Evenly spaced, neither the first nor the last of many, which may be other things in part.
    let trials: Vec<u64> =
        (0..n_trials).map(|idx| starts[(2 * idx + 1) * starts.len() / (2 * n_trials)]).collect();
    let sizes_at = |start: u64| -> Result<Vec<usize>> {
        let mut bytes = vec![0; usize::try_from(len - start).unwrap_or(usize::MAX).min(TRIAL_BYTES)];
        read(start, &mut bytes)?;
        let whole_len = bytes.len().saturating_sub(MAX_UNIT) / MAX_UNIT * MAX_UNIT;
        let (mut encoder, mut payload) = (BlockEncoder::new(Level::Fast, Isa::detect()), Vec::new());
        let size = |guess: &Guess| {
            let part = bytes.get(guess.phase..guess.phase + whole_len).unwrap_or_default();
            payload.clear();
            let _ = encoder.encode(
                BlockSource { dtype: guess.dtype, bytes: part, row_len: 0, row_start: 0 },
                &mut payload,
            );
            payload.len()
        };
        Ok(candidates.iter().map(size).collect())
    };
    let sizes: Vec<Vec<usize>> = trials.into_par_iter().map(sizes_at).collect::<Result<_>>()?;
    let total = |idx: usize| sizes.iter().map(|sizes| sizes[idx]).sum::<usize>();
    // What a general compressor makes as small is left to it.
    let worth_it = (1..candidates.len()).filter(|&idx| total(idx) * 50 < total(0) * 49);
    Ok(worth_it.min_by_key(|&idx| total(idx)).map_or(BYTES, |idx| candidates[idx]))
}

/// The length of the rows in the window of `len` bytes at `start`, by its middle: the lag at which exponents correlate, as
/// they do where columns differ in scale. 0 if there is none.
fn row_len_of(guess: Guess, start: u64, len: u64, read: &ReadAt<'_>) -> Result<usize> {
    const SAMPLE_LEN: usize = 8 << 10;
    /// Correlation of five to ten standard deviations of chance; coding by column takes as much.
    const MIN_CORRELATION: f64 = 0.08;
    let unit = guess.dtype.unit_bytes();
    // With room for the phase on both sides.
    let n_elements = (len.saturating_sub(2 * MAX_UNIT as u64) / unit as u64).min(SAMPLE_LEN as u64);
    let n_elements = usize::try_from(n_elements).unwrap_or(0);
    if guess.dtype.float_bytes().is_none_or(|bytes| bytes < 2) || n_elements < SAMPLE_LEN / 2 {
        return Ok(0);
    }
    let mut bytes = vec![0; unit * n_elements];
    let middle = start + (len - bytes.len() as u64) / 2;
    read(middle - middle % MAX_UNIT as u64 + guess.phase as u64, &mut bytes)?;
    let exponents: Vec<i16> =
        bytes.chunks_exact(unit).map(|element| exponent(guess.dtype, element)).collect();
    let n = exponents.len();
    // Near zero, so that products are small.
    let middle = exponents.iter().map(|&exponent| i64::from(exponent)).sum::<i64>() / n.max(1) as i64;
    let near = |&exponent: &i16| i16::try_from((i64::from(exponent) - middle).clamp(-31, 31)).unwrap_or(0);
    let centred: Vec<i16> = exponents.iter().map(near).collect();
    let mean = f64::from(centred.iter().map(|&value| i32::from(value)).sum::<i32>()) / n as f64;
    let at_lag = |lag: usize| {
        let products = centred.iter().zip(&centred[lag..]).map(|(&a, &b)| i32::from(a) * i32::from(b));
        f64::from(products.sum::<i32>()) / (n - lag) as f64 - mean * mean
    };
    let variance = at_lag(0);
    // Usual widths of layers, the shorter first: multiples of a row's length correlate as much.
    let lags = (1..32).map(|i| 32 * i).chain((8..=32).map(|i| 128 * i)).filter(|lag| lag * 2 <= n);
    let correlations: Vec<(usize, f64)> = lags.map(|lag| (lag, at_lag(lag) / variance.max(1e-9))).collect();
    let most = correlations.iter().fold(0.0, |most: f64, (_, correlation)| most.max(*correlation));
    let first = correlations.iter().find(|(_, correlation)| *correlation > 0.8 * most);
    Ok(first.filter(|_| most > MIN_CORRELATION).map_or(0, |(lag, _)| *lag))
}

/// The exponent field of an element.
fn exponent(dtype: Dtype, element: &[u8]) -> i16 {
    let [.., low, high] = element else { return 0 };
    let (top, exponent_bits) = (
        u16::from_le_bytes([*low, *high]),
        match dtype {
            Dtype::F16 => 5,
            Dtype::F64 => 11,
            _ => 8,
        },
    );
    (top >> (15 - exponent_bits) & ((1 << exponent_bits) - 1)).cast_signed()
}

/// Keeps the row length of windows only where neighbours agree, since every change begins a region: a window between two of
/// one length has it, too, and a few by themselves have none.
fn settle_rows(windows: &mut [Window], window_bytes: u64) {
    /// Windows of a run at least, and bytes.
    const MIN_RUN: u64 = 4;
    const MIN_RUN_BYTES: u64 = 256 << 10;
    let min_run = MIN_RUN.max(MIN_RUN_BYTES / window_bytes);
    let found: Vec<usize> = windows.iter().map(|window| window.row_len).collect();
    for (window, around) in windows.iter_mut().skip(1).zip(found.windows(3)) {
        if around[0] == around[2] {
            window.row_len = around[0];
        }
    }
    for run in windows.chunk_by_mut(|a, b| a.row_len == b.row_len).filter(|run| (run.len() as u64) < min_run)
    {
        run.iter_mut().for_each(|window| window.row_len = 0);
    }
}

/// The regions of windows, the last of which ends at `len`.
fn runs(windows: &[Window], len: u64) -> Vec<Region> {
    let is_same = |a: &Window, b: &Window| a.guess == b.guess && a.row_len == b.row_len;
    let runs: Vec<&[Window]> = windows.chunk_by(is_same).collect();
    let mut regions: Vec<Region> = Vec::new();
    for (idx, run) in runs.iter().enumerate() {
        let Some(&Window { start, guess, row_len }) = run.first() else { continue };
        let end = runs.get(idx + 1).and_then(|next| next.first()).map_or(len, |next| next.start);
        let unit = guess.dtype.unit_bytes() as u64;
        // Elements that lie in it whole; parts of others, before and behind, are bytes.
        let from = (start + (guess.phase as u64 + unit - start % unit) % unit).min(end);
        let to = from + (end - from) / unit * unit;
        for (from, to, dtype) in
            [(start, from, Dtype::Bytes), (from, to, guess.dtype), (to, end, Dtype::Bytes)]
        {
            let row_len = if dtype == Dtype::Bytes { 0 } else { row_len };
            push_region(from, to, dtype, row_len, &mut regions);
        }
    }
    regions
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    fn found(bytes: &[u8]) -> Vec<Region> {
        let len = bytes.len() as u64;
        NumberFinder::default().regions(len, window_bytes(len), &read_from(bytes)).unwrap()
    }

    fn assert_filled(regions: &[Region], len: usize) {
        let mut end = 0;
        for region in regions {
            assert_eq!(region.offset, end);
            assert!(region.len > 0 && region.len.is_multiple_of(region.dtype.unit_bytes() as u64));
            end += region.len;
        }
        assert_eq!(end, len as u64);
    }

    /// Bell-shaped numbers of `dtype`.
    fn weights(dtype: Dtype, n_bytes: usize, seed: u64) -> Vec<u8> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut bytes = Vec::new();
        while bytes.len() < n_bytes {
            let sum: f64 = (0..6).map(|_| f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5).sum();
            let value = sum * 0.05;
            let mut element = [0; 2];
            match dtype {
                Dtype::F64 => bytes.extend(value.to_le_bytes()),
                Dtype::F32 => bytes.extend((value as f32).to_le_bytes()),
                _ => {
                    crate::kernels::convert::from_f32(Isa::Scalar, dtype, &[value as f32], &mut element);
                    bytes.extend(element);
                }
            }
        }
        bytes.truncate(n_bytes);
        bytes
    }

    fn noise(n_bytes: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; n_bytes];
        ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
        bytes
    }

    fn text(n_bytes: usize) -> Vec<u8> {
        (0..)
            .flat_map(|i: u32| format!("  \"layer.{}.weight\": {},\n", i, i * 7919 % 1001).into_bytes())
            .take(n_bytes)
            .collect()
    }

    #[test]
    fn numbers_are_found_wherever_they_begin() {
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16, Dtype::F64] {
            for lead in [0, 1, 3, 64, 1021] {
                let bytes = [noise(lead, 1), weights(dtype, 300_000, 2)].concat();
                let regions = found(&bytes);
                assert_filled(&regions, bytes.len());
                let numbers = regions.iter().max_by_key(|region| region.len).unwrap();
                assert_eq!(numbers.dtype, dtype, "{dtype:?} behind {lead}");
                let unit = dtype.unit_bytes() as u64;
                assert_eq!(numbers.offset % unit, lead as u64 % unit, "{dtype:?} behind {lead}");
                assert!(numbers.len > 299_000, "{dtype:?} behind {lead}: {regions:?}");
            }
        }
    }

    #[test]
    fn kinds_that_follow_one_another_are_told_apart() {
        let parts = [
            weights(Dtype::F32, 400_000, 3),
            text(300_000),
            weights(Dtype::Bf16, 500_002, 4),
            noise(200_001, 5),
            weights(Dtype::F32, 400_000, 6),
        ];
        let bytes = parts.concat();
        let regions = found(&bytes);
        assert_filled(&regions, bytes.len());
        let large: Vec<Dtype> =
            regions.iter().filter(|region| region.len > 100_000).map(|region| region.dtype).collect();
        assert_eq!(large, [Dtype::F32, Dtype::Bytes, Dtype::Bf16, Dtype::Bytes, Dtype::F32]);
    }

    #[test]
    fn what_is_no_numbers_stays_bytes() {
        for bytes in [text(500_000), noise(500_000, 7), vec![0; 500_000]] {
            let regions = found(&bytes);
            assert_filled(&regions, bytes.len());
            assert!(regions.iter().all(|region| region.dtype == Dtype::Bytes), "{regions:?}");
        }
        for len in [0, 1, 4095] {
            assert_eq!(found(&weights(Dtype::F32, len, 8)), plain_layout(len as u64));
        }
    }

    #[test]
    fn rows_are_found_by_their_columns() {
        for (dtype, row_len) in [(Dtype::F16, 384), (Dtype::F32, 1024), (Dtype::Bf16, 96)] {
            let unit = dtype.unit_bytes();
            let numbers = weights(dtype, 2_000_000, 9);
            // Every seventh column is far smaller: exponents of fewer bits are lower by 4.
            let mut top = vec![0; unit];
            top[unit - 1] = if dtype == Dtype::F16 { 0x10 } else { 0x02 };
            let column = |idx: usize| (idx % row_len).is_multiple_of(7);
            let bytes: Vec<u8> = numbers
                .chunks_exact(unit)
                .enumerate()
                .flat_map(|(idx, element)| {
                    let mut element = element.to_vec();
                    let byte = &mut element[unit - 1];
                    *byte = if column(idx) { byte.saturating_sub(top[unit - 1]) & 0x7f } else { *byte };
                    element
                })
                .collect();
            let regions = found(&[&text(37)[..], &bytes].concat());
            let numbers = regions.iter().max_by_key(|region| region.len).unwrap();
            assert_eq!((numbers.dtype, numbers.row_len), (dtype, row_len), "{regions:?}");
        }
        assert!(found(&weights(Dtype::F32, 2_000_000, 10)).iter().all(|region| region.row_len == 0));
    }

    #[test]
    fn errors_of_reading_are_passed_on() {
        let fails = |_: u64, _: &mut [u8]| Err(Error::new(ErrorKind::Io, "gone"));
        let error = NumberFinder::default().regions(1 << 20, MIN_WINDOW_BYTES, &fails).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..Default::default() })]
        #[test]
        fn regions_fill_any_file(parts in prop::collection::vec((0..6u8, 1..60_000usize), 1..6), window in 4096..70_000u64) {
            let part = |(idx, &(kind, len)): (usize, &(u8, usize))| match kind {
                0 => weights(Dtype::F32, len, idx as u64),
                1 => weights(Dtype::F16, len, idx as u64),
                2 => weights(Dtype::F64, len, idx as u64),
                3 => noise(len, idx as u64),
                4 => text(len),
                _ => vec![0; len],
            };
            let bytes: Vec<u8> = parts.iter().enumerate().flat_map(part).collect();
            let read = read_from(&bytes);
            let regions = NumberFinder::default().regions(bytes.len() as u64, window, &read).unwrap();
            assert_filled(&regions, bytes.len());
        }
    }
}
