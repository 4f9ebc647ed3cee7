//! rANS with 12-bit probabilities for bytes of any distribution: the coder of planes whose alphabets are too wide, or
//! too skewed, for the 8-bit coder.
//!
//! 32 states of 32 bits in [2^16, 2^32), renormalised by 16-bit words (F. Giesen, "Interleaved entropy coders", 2014,
//! arXiv:1402.3392); byte `i` belongs to lane `i mod 32`. FORMAT.md section 3.3.4 is the section's layout. The lanes are
//! there for vectors; so far this coder has scalar code only, since the planes it is for are rare.

use crate::kernels::histogram::Counters;

const LANES: usize = 32;
const SCALE_BITS: u32 = 12;
const FREQ_SUM: u32 = 1 << SCALE_BITS;
const STATE_MIN: u32 = 1 << 16;

/// Frequencies of the 256 bytes, their sum 4096.
type Freqs = [u16; 256];

/// Scratch memory of the encoder.
#[derive(Debug, Default)]
pub struct Encoder {
    words: Vec<u16>,
}

/// Shares 4096 slots in proportion to `counts`: at least one for each byte that occurs.
fn normalise(counts: &[u32; 256]) -> Freqs {
    let total: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    let mut freqs = [0u16; 256];
    let mut sum = 0u32;
    for (freq, &count) in freqs.iter_mut().zip(counts).filter(|(_, count)| **count > 0) {
        let share = (u64::from(count) * u64::from(FREQ_SUM)).checked_div(total).unwrap_or(0).max(1);
        *freq = u16::try_from(share).unwrap_or(u16::MAX);
        sum += u32::from(*freq);
    }
    // What rounding left over or took too much goes to or comes from the commonest: it matters least there.
    while sum != FREQ_SUM {
        let Some(largest) = freqs.iter_mut().max() else { break };
        if sum < FREQ_SUM {
            *largest += u16::try_from(FREQ_SUM - sum).unwrap_or(0);
            sum = FREQ_SUM;
        } else {
            let excess = (sum - FREQ_SUM).min(u32::from(*largest / 2));
            *largest -= u16::try_from(excess).unwrap_or(0);
            sum -= excess;
        }
    }
    freqs
}

/// Appends the frequencies: a bitmap of the bytes that occur, then freq − 1 of each as 1 or 2 bytes (the low seven
/// bits, the top bit set where five more follow).
fn write_freqs(freqs: &Freqs, dst: &mut Vec<u8>) {
    for eight in freqs.chunks(8) {
        dst.push(eight.iter().rev().fold(0, |bits, &freq| bits << 1 | u8::from(freq > 0)));
    }
    for &freq in freqs.iter().filter(|&&freq| freq > 0) {
        let [low, high] = (freq - 1).to_le_bytes();
        if freq <= 128 {
            dst.push(low);
        } else {
            dst.extend([low | 0x80, high << 1 | low >> 7]);
        }
    }
}

/// Reads what [`write_freqs`] wrote; `None` unless the sum is 4096.
fn read_freqs(src: &mut &[u8]) -> Option<Freqs> {
    let bitmap: [u8; 32] = *src.split_off(..32)?.first_chunk()?;
    let mut freqs = [0u16; 256];
    let mut sum = 0u32;
    for (value, freq) in freqs.iter_mut().enumerate() {
        if bitmap[value / 8] >> (value % 8) & 1 == 1 {
            let low = u16::from(*src.split_off_first()?);
            let high = if low & 0x80 == 0 { 0 } else { u16::from(*src.split_off_first()?) };
            if low & 0x80 != 0 && !(1..32).contains(&high) {
                return None;
            }
            *freq = (high << 7 | low & 0x7f) + 1;
            sum += u32::from(*freq);
        }
    }
    (sum == FREQ_SUM).then_some(freqs)
}

impl Encoder {
    /// Appends the section of `bytes`, of which there is at least one.
    pub fn encode(&mut self, bytes: &[u8], dst: &mut Vec<u8>) {
        let mut counters = Counters::default();
        counters.count(bytes);
        let freqs = normalise(&counters.total());
        let mut cums = [0u32; 256];
        let mut next = 0;
        for (cum, &freq) in cums.iter_mut().zip(&freqs) {
            *cum = next;
            next += u32::from(freq);
        }
        self.words.clear();
        let mut states = [STATE_MIN; LANES];
        for (idx, &byte) in bytes.iter().enumerate().rev() {
            let (freq, cum) = (u32::from(freqs[usize::from(byte)]), cums[usize::from(byte)]);
            let mut x = states[idx % LANES];
            // 20: a state of 32 bits takes a symbol while it is below freq · 2^(32 − 12).
            if u64::from(x) >= u64::from(freq) << 20 {
                let [low, high, ..] = x.to_le_bytes();
                self.words.push(u16::from_le_bytes([low, high]));
                x >>= 16;
            }
            states[idx % LANES] = ((x / freq) << SCALE_BITS) + x % freq + cum;
        }
        write_freqs(&freqs, dst);
        states.iter().for_each(|state| dst.extend(state.to_le_bytes()));
        self.words.iter().rev().for_each(|word| dst.extend(word.to_le_bytes()));
    }
}

/// Scratch memory of the decoder.
#[derive(Debug, Default)]
pub struct Decoder {
    /// For each slot: byte, offset in the byte's range << 8, frequency << 20.
    slots: Vec<u32>,
}

impl Decoder {
    /// Decodes all of `section` into all of `dst`; `None` if that is not what [`Encoder::encode`] made.
    pub fn decode(&mut self, section: &[u8], dst: &mut [u8]) -> Option<()> {
        let mut src = section;
        let freqs = read_freqs(&mut src)?;
        if freqs.contains(&4096) {
            // One byte for all: 4096 does not fit the slots' field, and there is nothing to decode.
            return self.decode_single(&freqs, src, dst);
        }
        self.slots.clear();
        for (byte, &freq) in (0u32..).zip(&freqs) {
            self.slots.extend((0..u32::from(freq)).map(|offset| byte | offset << 8 | u32::from(freq) << 20));
        }
        let slots: &[u32; FREQ_SUM as usize] = self.slots.first_chunk()?;
        let mut states = read_states(&mut src)?;
        let (words, odd) = src.as_chunks::<2>();
        let mut words = words.iter();
        for chunk in dst.chunks_mut(LANES) {
            for (byte, state) in chunk.iter_mut().zip(&mut states) {
                let slot = slots[(*state & (FREQ_SUM - 1)) as usize];
                [*byte, ..] = slot.to_le_bytes();
                let x = (slot >> 20) * (*state >> SCALE_BITS) + (slot >> 8 & 0xfff);
                *state =
                    if x < STATE_MIN { x << 16 | u32::from(u16::from_le_bytes(*words.next()?)) } else { x };
            }
        }
        let done = words.next().is_none() && odd.is_empty() && states == [STATE_MIN; LANES];
        done.then_some(())
    }

    fn decode_single(&self, freqs: &Freqs, mut src: &[u8], dst: &mut [u8]) -> Option<()> {
        let byte = u8::try_from(freqs.iter().position(|&freq| freq > 0)?).ok()?;
        dst.fill(byte);
        (read_states(&mut src)? == [STATE_MIN; LANES] && src.is_empty()).then_some(())
    }
}

fn read_states(src: &mut &[u8]) -> Option<[u32; LANES]> {
    let bytes = src.split_off(..4 * LANES)?;
    let mut states = [0; LANES];
    for (state, bytes) in states.iter_mut().zip(bytes.as_chunks().0) {
        *state = u32::from_le_bytes(*bytes);
    }
    states.iter().all(|&state| state >= STATE_MIN).then_some(states)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_round_trip(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 1..6000),
                prop::collection::vec(0u8..3, 1..3000),
                prop::collection::vec(Just(9u8), 1..100),
            ],
            flip in any::<prop::sample::Index>(),
        ) {
            let mut section = Vec::new();
            Encoder::default().encode(&bytes, &mut section);
            let mut decoder = Decoder::default();
            let mut back = vec![0xcc; bytes.len()];
            prop_assert_eq!(decoder.decode(&section, &mut back), Some(()));
            prop_assert!(back == bytes);
            prop_assert_eq!(decoder.decode(&section[..section.len() - 1], &mut back), None);
            let at = flip.index(section.len());
            section[at] ^= 0x10;
            // Whatever it gives, it must not be taken for something it is not by panicking.
            let _ = decoder.decode(&section, &mut back);
        }
    }

    #[test]
    fn rare_bytes_among_one_common_byte_keep_a_slot() {
        let mut counts = [1u32; 256];
        counts[7] = 1 << 30;
        let freqs = normalise(&counts);
        assert!(freqs.iter().all(|&freq| freq > 0));
        assert_eq!(freqs.iter().map(|&freq| u32::from(freq)).sum::<u32>(), FREQ_SUM);
        let freqs = normalise(&[1; 256]);
        assert_eq!(freqs, [16; 256]);
    }
}
