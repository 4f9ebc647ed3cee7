//! Coding 12, differences: what elements differ by from others a fixed distance before. FORMAT.md section 3.12.
//!
//! Tables computed from a formula (positions, rotations, windows, filter banks) and states that change little from row to
//! row are smooth along an axis: differences, and differences of differences, are small integers. They are taken of the
//! elements' bits, so that they are exact for floats too, as in the delta encoding of pcodec and of Gorilla (T. Pelkonen et
//! al., 2015).

use super::payload::{corrupt, le32};
use crate::bits::ByteCursor;
use crate::dtype::Dtype;
use crate::entropy::freq::entropy_q16;
use crate::error::Result;
use crate::kernels::fields::Word;

pub(super) const HEADER_BYTES: usize = 8;
/// How often differences are taken at most.
const MAX_ORDER: usize = 4;
/// Words that a block must have.
const MIN_WORDS: usize = 64;

/// Of which words differences are taken: each word's to the one `lag` words before, `order` times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scheme {
    order: usize,
    lag: usize,
}

/// Bytes of the words of a block: an element, or one of the two floats of a complex number.
fn word_bytes(dtype: Dtype) -> usize {
    if dtype == Dtype::C64 { 4 } else { dtype.unit_bytes() }
}

/// The dtype of the differences; `None` where none are taken.
pub(super) fn dtype_of_words(dtype: Dtype) -> Option<Dtype> {
    match word_bytes(dtype) {
        2 => Some(Dtype::U16),
        4 => Some(Dtype::U32),
        8 => Some(Dtype::U64),
        _ => None,
    }
}

/// The scheme by which `bytes`, elements of `dtype` in rows of `row_len`, seem to take fewer bits as differences than as
/// they are; `None` where none does, as mostly.
pub(super) fn find(dtype: Dtype, bytes: &[u8], row_len: usize) -> Option<Scheme> {
    let n_words = bytes.len() / word_bytes(dtype);
    let lags = match dtype {
        Dtype::C64 => [row_len.saturating_mul(2), 2],
        _ => [row_len, 1],
    };
    let lags = lags.into_iter().filter(|&lag| (1..=n_words / 2).contains(&lag));
    if n_words < MIN_WORDS {
        return None;
    }
    match word_bytes(dtype) {
        2 => find_words::<u16>(dtype, bytes, lags),
        4 => find_words::<u32>(dtype, bytes, lags),
        8 => find_words::<u64>(dtype, bytes, lags),
        _ => None,
    }
}

fn find_words<W: Word>(dtype: Dtype, bytes: &[u8], lags: impl Iterator<Item = usize>) -> Option<Scheme> {
    let n_words = bytes.len() / W::BYTES;
    let plain = Sample::new(n_words, 0).plain_cost_q16::<W>(dtype, bytes);
    let mut best = None;
    for lag in lags {
        let max_order = MAX_ORDER.min(n_words / (2 * lag));
        let sample = Sample::new(n_words, max_order * lag);
        // Longer differences are none of anything smooth.
        if sample.mean_length_q16::<W>(bytes, lag) > plain + (1 << 16) {
            continue;
        }
        let costs = sample.costs_q16::<W>(bytes, lag);
        for (order, &cost) in (1..=max_order).zip(&costs) {
            // Of samples so small a few differences more or less are no sign.
            let is_better = cost + cost / 32 < plain && best.is_none_or(|(least, _)| cost < least);
            if is_better {
                best = Some((cost, Scheme { order, lag }));
            }
        }
    }
    best.map(|(_, scheme)| scheme)
}

/// Places of words from all over a block.
#[derive(Debug, Clone, Copy)]
struct Sample {
    first: usize,
    stride: usize,
}

impl Sample {
    const N_RUNS: usize = 8;
    const RUN_LEN: usize = 32;

    /// Of the words from `first` on, no fewer than a run.
    fn new(n_words: usize, first: usize) -> Self {
        let first = first.min(n_words.saturating_sub(Self::RUN_LEN));
        let room = n_words.saturating_sub(first + Self::RUN_LEN);
        Self { first, stride: room / (Self::N_RUNS - 1) }
    }

    fn places(self) -> impl Iterator<Item = usize> + Clone {
        (0..Self::N_RUNS).flat_map(move |run| {
            let from = self.first + run * self.stride;
            from..from + Self::RUN_LEN
        })
    }

    /// Bits that a word takes as it is, about, in 1/65536: floats by their exponents, integers by their lengths.
    fn plain_cost_q16<W: Word>(self, dtype: Dtype, bytes: &[u8]) -> u64 {
        let words = self.places().map(|place| W::read(&bytes[place * W::BYTES..]));
        let Some(float_bytes) = dtype.float_bytes() else {
            return lengths_cost_q16(words.map(|word| zigzag(word).bit_len()));
        };
        let mantissa_bits = match (float_bytes, dtype) {
            (8, _) => 52,
            (4, _) => 23,
            (_, Dtype::F16) => 10,
            _ => 7,
        };
        let any = words.clone().fold(W::default(), W::or);
        let all = words.clone().fold(W::from_u64(u64::MAX), W::and);
        let sign_bits = u32::from(any.xor(all).bit_len() as usize == 8 * W::BYTES);
        let rest_bits = mantissa_bits - any.trailing_zeros().min(mantissa_bits) + sign_bits;
        let mut exponents = [0; 256];
        words.for_each(|word| exponents[usize::from(word.shr(mantissa_bits).low_u8())] += 1);
        entropy_q16(&exponents) + (u64::from(rest_bits) << 16)
    }

    /// The mean length of differences in bits.
    fn mean_length_q16<W: Word>(self, bytes: &[u8], lag: usize) -> u64 {
        let word = |place: usize| W::read(&bytes[place * W::BYTES..]);
        let places = self.places().filter(|&place| place >= lag);
        let length = |place: usize| zigzag(word(place).sub(word(place - lag))).bit_len();
        let (n, sum) = places.map(length).fold((0, 0), |(n, sum), length| (n + 1, sum + u64::from(length)));
        (sum << 16).checked_div(n).unwrap_or(0)
    }

    /// Bits that the differences of each order take.
    fn costs_q16<W: Word>(self, bytes: &[u8], lag: usize) -> [u64; MAX_ORDER] {
        std::array::from_fn(|last| {
            let order = last + 1;
            if order * lag > self.first {
                return u64::MAX / 2;
            }
            lengths_cost_q16(self.places().map(|place| {
                let mut words: [W; MAX_ORDER + 1] =
                    std::array::from_fn(|idx| W::read(&bytes[(place - idx.min(order) * lag) * W::BYTES..]));
                for times in 0..order {
                    for idx in 0..order - times {
                        words[idx] = words[idx].sub(words[idx + 1]);
                    }
                }
                zigzag(words[0]).bit_len()
            }))
        })
    }
}

/// Bits of numbers of these lengths in bits: the length by its entropy, what is below the top bit as it is.
fn lengths_cost_q16(lengths: impl Iterator<Item = u32>) -> u64 {
    let mut counts = [0; 256];
    let (mut n, mut n_bits) = (0u64, 0u64);
    for length in lengths {
        counts[length as usize % 256] += 1;
        n += 1;
        n_bits += u64::from(length.saturating_sub(1));
    }
    entropy_q16(&counts) + (n_bits << 16).checked_div(n).unwrap_or(0)
}

/// Numbers near zero, by two's complement, to small ones.
fn zigzag<W: Word>(word: W) -> W {
    // Shifted by the width less 1.
    let sign = word.wrapping_shr(u32::MAX);
    word.shl(1).xor(W::default().sub(sign))
}

/// The inverse of [`zigzag`].
fn unzigzag<W: Word>(word: W) -> W {
    word.shr(1).xor(W::default().sub(word.and(W::from_u8(1))))
}

/// Replaces the words of `bytes` by their differences.
pub(super) fn take(dtype: Dtype, scheme: Scheme, bytes: &mut [u8]) {
    match word_bytes(dtype) {
        2 => take_words::<u16, 2>(scheme, bytes),
        4 => take_words::<u32, 4>(scheme, bytes),
        _ => take_words::<u64, 8>(scheme, bytes),
    }
}

fn take_words<W: Word, const N: usize>(scheme: Scheme, bytes: &mut [u8]) {
    let (words, _) = bytes.as_chunks_mut::<N>();
    for _ in 0..scheme.order {
        for idx in (scheme.lag..words.len()).rev() {
            let difference = W::read(&words[idx]).sub(W::read(&words[idx - scheme.lag]));
            difference.write(&mut words[idx]);
        }
    }
    words.iter_mut().for_each(|word| zigzag(W::read(word)).write(word));
}

fn add_words<W: Word, const N: usize>(scheme: Scheme, bytes: &mut [u8]) {
    let (words, _) = bytes.as_chunks_mut::<N>();
    words.iter_mut().for_each(|word| unzigzag(W::read(word)).write(word));
    for _ in 0..scheme.order {
        // A stretch of `lag` words is added to as one: its sums are not needed before the next.
        for from in (scheme.lag..words.len()).step_by(scheme.lag) {
            let (before, after) = words.split_at_mut(from);
            let before = &before[from - scheme.lag..];
            after
                .iter_mut()
                .zip(before)
                .for_each(|(word, other)| W::read(word).add(W::read(other)).write(word));
        }
    }
}

/// Writes the header in front of differences coded by the coding of `coding_id`.
pub(super) fn set_header(dst: &mut [u8], start: usize, scheme: Scheme, coding_id: u8) {
    if let Some(header) = dst.get_mut(start..).and_then(|rest| rest.first_chunk_mut::<HEADER_BYTES>()) {
        header[..4].copy_from_slice(&[coding_id, scheme.order.to_le_bytes()[0], 0, 0]);
        header[4..].copy_from_slice(&le32(scheme.lag));
    }
}

/// An opened payload.
pub(super) struct Differences<'a> {
    /// Coding id of the differences.
    pub(super) coding_id: u8,
    /// Their payload.
    pub(super) payload: &'a [u8],
    /// Their dtype.
    pub(super) dtype: Dtype,
    scheme: Scheme,
}

impl<'a> Differences<'a> {
    /// Reads the header of a block of `block_bytes`.
    pub(super) fn open(dtype: Dtype, payload: &'a [u8], block_bytes: usize) -> Result<Self> {
        Self::read(dtype, payload, block_bytes)
            .ok_or_else(|| corrupt("the differences' header breaks the format"))
    }

    fn read(dtype: Dtype, payload: &'a [u8], block_bytes: usize) -> Option<Self> {
        let mut src = ByteCursor::new(payload);
        let [coding_id, order, 0, 0] = src.array::<4>()? else { return None };
        let scheme = Scheme { order: order.into(), lag: usize::try_from(src.u32()?).ok()? };
        let n_words = block_bytes / word_bytes(dtype);
        let is_valid = block_bytes.is_multiple_of(word_bytes(dtype))
            && (1..=MAX_ORDER).contains(&scheme.order)
            && (1..=n_words).contains(&scheme.lag);
        is_valid.then_some(Self { coding_id, payload: src.rest(), dtype: dtype_of_words(dtype)?, scheme })
    }

    /// Replaces the differences in `dst` by the words.
    pub(super) fn add_up(&self, dst: &mut [u8]) {
        match self.dtype {
            Dtype::U16 => add_words::<u16, 2>(self.scheme, dst),
            Dtype::U32 => add_words::<u32, 4>(self.scheme, dst),
            _ => add_words::<u64, 8>(self.scheme, dst),
        }
    }
}
