//! Indices of quantized elements: whether it is zero, how long its magnitude is, the upper bits of it by adaptive
//! decisions, in dependent quantization by the quantizer in use; the sign and the rest as they are.

use super::binary::{Bit, BitCoder, BitDecoder, BitEncoder, tree};
use crate::kernels::quantize::ESCAPE;
use crate::kernels::trellis::{N_CHAINS, NEXT_STATE};

/// Bit lengths of magnitudes, from 1 for 1 to 31, and 32 for an escape.
const MAX_LENGTH: u32 = 32;
/// Most bits of a magnitude below its top bit that are modelled.
const MAX_MODELLED_BITS: u32 = 5;
/// Up to this length the quantizer in use makes a difference that is worth learning.
const MAX_PAIRED_LENGTH: u32 = 2;

struct Model {
    modelled_bits: u32,
    dependent: bool,
    states: [u8; N_CHAINS],
    /// By the quantizer in use.
    is_zero: [Bit; 2],
    /// Whether the magnitude is longer than this, by quantizer.
    is_longer: [[Bit; MAX_LENGTH as usize]; 2],
    /// The tree of the bits below the top one, by quantizer and length.
    upper: Vec<Bit>,
    is_negative: Bit,
}

impl Model {
    fn new(dependent: bool, modelled_bits: u32) -> Self {
        Self {
            modelled_bits,
            dependent,
            states: [0; N_CHAINS],
            is_zero: [Bit::NEW; 2],
            is_longer: [[Bit::NEW; MAX_LENGTH as usize]; 2],
            upper: vec![Bit::EVEN; (2 * (MAX_LENGTH as usize + 1)) << modelled_bits],
            is_negative: Bit::EVEN,
        }
    }

    /// Codes the index of number `place`; `index` is its own where encoding.
    fn code<C: BitCoder>(&mut self, coder: &mut C, place: usize, index: i32) -> i32 {
        let state = &mut self.states[place % N_CHAINS];
        let quantizer = if self.dependent { usize::from(*state & 1) } else { 0 };
        let [even, odd] = NEXT_STATE[usize::from(*state)];
        if coder.bit(&mut self.is_zero[quantizer], index == 0) {
            *state = even;
            return 0;
        }
        let wanted = 32 - index.unsigned_abs().leading_zeros();
        let mut length = 1;
        while length < MAX_LENGTH {
            let paired = if length <= MAX_PAIRED_LENGTH { quantizer } else { 0 };
            if !coder.bit(&mut self.is_longer[paired][length as usize - 1], wanted > length) {
                break;
            }
            length += 1;
        }
        if length == MAX_LENGTH {
            *state = even;
            return ESCAPE;
        }
        let below = u64::from(index.unsigned_abs()) & ((1 << (length - 1)) - 1);
        let n_upper = self.modelled_bits.min(length - 1);
        let n_rest = length - 1 - n_upper;
        let paired = if length <= MAX_PAIRED_LENGTH { quantizer } else { 0 };
        let first = (paired * (MAX_LENGTH as usize + 1) + length as usize) << self.modelled_bits;
        let models = self.upper.get_mut(first..first + (1 << n_upper)).unwrap_or_default();
        let upper = tree(coder, models, usize::try_from(below >> n_rest).unwrap_or(0));
        let rest = coder.raw(below & ((1 << n_rest) - 1), n_rest);
        let magnitude = 1u64 << (length - 1) | (upper as u64) << n_rest | rest;
        // Of 31 bits at most.
        let magnitude = i32::try_from(magnitude).unwrap_or(i32::MAX);
        *state = if magnitude & 1 == 0 { even } else { odd };
        if coder.bit(&mut self.is_negative, index < 0) { -magnitude } else { magnitude }
    }
}

/// Appends the section of `indices`, [`ESCAPE`] being among them perhaps: a byte with the number of bits that are
/// modelled below the top one, whatever gives the least, and the decisions.
pub fn encode_indices(indices: &[i32], dependent: bool, dst: &mut Vec<u8>) {
    let mut best: Option<Vec<u8>> = None;
    for modelled_bits in 1..=MAX_MODELLED_BITS {
        let mut section = Vec::from(&modelled_bits.to_le_bytes()[..1]);
        let mut encoder = BitEncoder::new(&mut section);
        let mut model = Model::new(dependent, modelled_bits);
        for (place, &index) in indices.iter().enumerate() {
            model.code(&mut encoder, place, index);
        }
        encoder.finish();
        if best.as_ref().is_none_or(|best| section.len() < best.len()) {
            best = Some(section);
        }
    }
    dst.extend(best.unwrap_or_default());
}

/// Fills `indices` with those of `section`; `None` where it is not what [`encode_indices`] made.
pub fn decode_indices(section: &[u8], dependent: bool, indices: &mut [i32]) -> Option<()> {
    let (&modelled_bits, section) = section.split_first()?;
    let modelled_bits = u32::from(modelled_bits);
    if !(1..=MAX_MODELLED_BITS).contains(&modelled_bits) {
        return None;
    }
    let mut decoder = BitDecoder::new(section);
    let mut model = Model::new(dependent, modelled_bits);
    for (place, index) in indices.iter_mut().enumerate() {
        *index = model.code(&mut decoder, place, 0);
        if decoder.is_exhausted() {
            return None;
        }
    }
    decoder.is_at_end().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_indices_round_trip_and_damage_does_no_harm(
            indices in prop::collection::vec(
                prop_oneof![4 => -3..4i32, 4 => -200..200i32, 1 => any::<i32>(), 1 => Just(ESCAPE)], 0..400),
            dependent in any::<bool>(),
            flip in any::<prop::sample::Index>(),
        ) {
            let mut section = Vec::new();
            encode_indices(&indices, dependent, &mut section);
            let mut back = vec![77; indices.len()];
            prop_assert_eq!(decode_indices(&section, dependent, &mut back), Some(()));
            prop_assert_eq!(&back, &indices);
            // Damage may decode to something else; checksums are the container's.
            let _ = decode_indices(&section[..section.len() - 1], dependent, &mut back);
            let at = flip.index(section.len());
            section[at] ^= 4;
            let _ = decode_indices(&section, dependent, &mut back);
        }
    }
}
