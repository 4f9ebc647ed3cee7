//! rANS with 12-bit probabilities for bytes of any distribution: the coder of planes whose alphabets are too wide, or
//! too skewed, for the 8-bit coder.
//!
//! FORMAT.md section 3.3.4 is the layout of a section; the coder is [`crate::kernels::rans12`] without a tail.

use crate::kernels::Isa;
use crate::kernels::histogram::Counters;
use crate::kernels::rans12::{
    FREQ_SUM, Freqs, LANES, Lanes, MANY_LANES, Plan, SLOTS, STATE_MIN, SlotTable, States, TableIds, decode,
    encode, encode_buffer_len, encode_table, fill_slots,
};

/// The frequency of a byte that is alone.
const ALL_SLOTS: u16 = 1 << 12;
/// One table for all.
const PLAN: Plan<'_> = Plan {
    n_lanes: LANES,
    paired: false,
    table_ids: TableIds::OfSegments { ids: &[0], segment_len: 1 << 31 },
};

/// Scratch memory of the encoder.
#[derive(Debug, Default)]
pub struct Encoder {
    words: Vec<u8>,
}

/// Shares 4096 slots so that bytes of these `counts` take the fewest bits, but for a trifle: at least one for each byte that
/// occurs, as many as is nearest to its share, and one more or less where that costs least.
fn normalise(counts: &[u32; 256]) -> Freqs {
    let total: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    let slots = |&count: &u32| {
        let nearest =
            (2 * u64::from(count) * u64::from(FREQ_SUM) + total).checked_div(2 * total).unwrap_or(0);
        u16::try_from(nearest.max(u64::from(count > 0))).unwrap_or(u16::MAX)
    };
    let mut freqs: Freqs = std::array::from_fn(|byte| slots(&counts[byte]));
    let mut sum: u32 = freqs.iter().map(|&freq| u32::from(freq)).sum();
    // By how much a slot between `freq` and its neighbour shortens the byte's code: count ÷ (freq ± ½), the derivative of
    // the logarithm.
    let worth = |byte: usize, twice: u32| (u64::from(counts[byte]) << 32) / u64::from(twice);
    while sum != FREQ_SUM {
        let present = (0..256).filter(|&byte| freqs[byte] > 0);
        let chosen = if sum < FREQ_SUM {
            present.max_by_key(|&byte| worth(byte, 2 * u32::from(freqs[byte]) + 1))
        } else {
            let shrinking = present.filter(|&byte| freqs[byte] > 1);
            shrinking.min_by_key(|&byte| worth(byte, 2 * u32::from(freqs[byte]) - 1))
        };
        let Some(byte) = chosen else { break };
        if sum < FREQ_SUM {
            freqs[byte] += 1;
            sum += 1;
        } else {
            freqs[byte] -= 1;
            sum -= 1;
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
    pub fn encode(&mut self, isa: Isa, bytes: &[u8], dst: &mut Vec<u8>) {
        let mut counters = Counters::default();
        counters.count(bytes);
        let freqs = normalise(&counters.total());
        write_freqs(&freqs, dst);
        let mut states = [STATE_MIN; MANY_LANES];
        let mut words: &[u8] = &[];
        // One byte for all takes no words, and its frequency would not fit the coder's tables.
        if !freqs.contains(&ALL_SLOTS) {
            self.words.resize(encode_buffer_len(bytes.len()).max(self.words.len()), 0);
            let tables = [encode_table(&freqs)];
            let at = encode(isa, &PLAN, &tables, bytes, &[], &mut states, &mut self.words);
            debug_assert!(at.is_some(), "every byte that occurs has a frequency");
            words = at.and_then(|at| self.words.get(at..)).unwrap_or_default();
        }
        states[..LANES].iter().for_each(|state| dst.extend(state.to_le_bytes()));
        dst.extend_from_slice(words);
    }
}

/// Scratch memory of the decoder.
#[derive(Debug, Default)]
pub struct Decoder {
    tables: Vec<SlotTable>,
}

impl Decoder {
    /// Decodes all of `section` into all of `dst`; `None` if that is not what [`Encoder::encode`] made.
    pub fn decode(&mut self, isa: Isa, section: &[u8], dst: &mut [u8]) -> Option<()> {
        let mut src = section;
        let freqs = read_freqs(&mut src)?;
        if freqs.contains(&ALL_SLOTS) {
            return self.decode_single(&freqs, src, dst);
        }
        self.tables.resize(1, [0; SLOTS]);
        fill_slots(&freqs, self.tables.first_mut()?)?;
        let mut lanes = Lanes::new(read_states(&mut src)?);
        let (words, odd) = src.as_chunks::<2>();
        let taken = decode(isa, &PLAN, &self.tables, words, &mut lanes, dst, &[])?;
        let done = taken == words.len() && odd.is_empty() && lanes.states == [STATE_MIN; MANY_LANES];
        done.then_some(())
    }

    fn decode_single(&self, freqs: &Freqs, mut src: &[u8], dst: &mut [u8]) -> Option<()> {
        let byte = u8::try_from(freqs.iter().position(|&freq| freq > 0)?).ok()?;
        dst.fill(byte);
        (read_states(&mut src)? == [STATE_MIN; MANY_LANES] && src.is_empty()).then_some(())
    }
}

/// The states of the lanes, and those that stand for others at their beginning.
fn read_states(src: &mut &[u8]) -> Option<States> {
    let bytes = src.split_off(..4 * LANES)?;
    let mut states = [STATE_MIN; MANY_LANES];
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
            Encoder::default().encode(Isa::detect(), &bytes, &mut section);
            let mut decoder = Decoder::default();
            let mut back = vec![0xcc; bytes.len()];
            prop_assert_eq!(decoder.decode(Isa::detect(), &section, &mut back), Some(()));
            prop_assert!(back == bytes);
            prop_assert_eq!(decoder.decode(Isa::detect(), &section[..section.len() - 1], &mut back), None);
            let at = flip.index(section.len());
            section[at] ^= 0x10;
            // Whatever it gives, it must not be taken for something it is not by panicking.
            let _ = decoder.decode(Isa::detect(), &section, &mut back);
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
