//! Floats: whether it is zero, the sign, the exponent, and the upper bits of the mantissa by adaptive decisions; the
//! rest as it is.

use super::binary::{Bit, BitCoder, BitDecoder, BitEncoder, tree};

/// Widths of a float's fields; below the sign bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloatLayout {
    /// Bytes of the float.
    pub n_bytes: usize,
    /// Bits of the exponent.
    pub exponent_bits: u32,
    /// Bits of the mantissa.
    pub mantissa_bits: u32,
}

/// Most bits of the mantissa that are modelled.
const MAX_MODELLED_BITS: u32 = 7;
/// The numbers of bits that an encoder tries.
const TRIED_BITS: [u32; 5] = [0, 1, 2, 3, 7];

/// Probabilities of all decisions.
struct Model {
    layout: FloatLayout,
    modelled_bits: u32,
    /// By whether the last element was one.
    is_zero: [Bit; 2],
    /// Of zeros, of others.
    is_negative: [Bit; 2],
    exponent: Vec<Bit>,
    /// For each exponent the tree of the mantissa's upper bits.
    mantissas: Vec<Bit>,
    last_was_zero: bool,
}

impl Model {
    fn new(layout: FloatLayout, modelled_bits: u32) -> Self {
        Self {
            layout,
            modelled_bits,
            is_zero: [Bit::NEW; 2],
            is_negative: [Bit::NEW, Bit::EVEN],
            exponent: vec![Bit::NEW; 1 << layout.exponent_bits],
            mantissas: vec![Bit::EVEN; 1 << (layout.exponent_bits + modelled_bits)],
            last_was_zero: false,
        }
    }

    /// Codes one element; `bits` are its own where encoding.
    fn code<C: BitCoder>(&mut self, coder: &mut C, bits: u64) -> u64 {
        let FloatLayout { exponent_bits, mantissa_bits, .. } = self.layout;
        let sign_at = exponent_bits + mantissa_bits;
        let is_negative = bits >> sign_at & 1 == 1;
        let magnitude = bits & ((1 << sign_at) - 1);
        let is_zero = coder.bit(&mut self.is_zero[usize::from(self.last_was_zero)], magnitude == 0);
        self.last_was_zero = is_zero;
        let is_negative = coder.bit(&mut self.is_negative[usize::from(!is_zero)], is_negative);
        let sign = u64::from(is_negative) << sign_at;
        if is_zero {
            return sign;
        }
        let exponent = usize::try_from(magnitude >> mantissa_bits).unwrap_or(0);
        let exponent = tree(coder, &mut self.exponent, exponent);
        let rest_bits = mantissa_bits - self.modelled_bits;
        let upper = magnitude >> rest_bits & ((1 << self.modelled_bits) - 1);
        let first = exponent << self.modelled_bits;
        let models = self.mantissas.get_mut(first..first + (1 << self.modelled_bits)).unwrap_or_default();
        let upper = tree(coder, models, usize::try_from(upper).unwrap_or(0));
        let rest = coder.raw(magnitude & ((1 << rest_bits) - 1), rest_bits);
        sign | (exponent as u64) << mantissa_bits | (upper as u64) << rest_bits | rest
    }
}

fn element_bits(element: &[u8]) -> u64 {
    element.iter().rev().fold(0, |bits, &byte| bits << 8 | u64::from(byte))
}

/// Appends the section of `bytes`, a whole number of elements: a byte with the number of mantissa bits that are
/// modelled, the one of a few that gives the least, and the decisions.
pub fn encode_floats(layout: FloatLayout, bytes: &[u8], dst: &mut Vec<u8>) {
    let mut best: Option<Vec<u8>> = None;
    for modelled_bits in TRIED_BITS.into_iter().filter(|&bits| bits <= layout.mantissa_bits) {
        let mut section = Vec::from(&modelled_bits.to_le_bytes()[..1]);
        let mut encoder = BitEncoder::new(&mut section);
        let mut model = Model::new(layout, modelled_bits);
        for element in bytes.chunks_exact(layout.n_bytes) {
            model.code(&mut encoder, element_bits(element));
        }
        encoder.finish();
        if best.as_ref().is_none_or(|best| section.len() < best.len()) {
            best = Some(section);
        }
    }
    dst.extend(best.unwrap_or_default());
}

/// Fills `dst` with the elements of `section`; `None` where it is not what [`encode_floats`] made.
pub fn decode_floats(layout: FloatLayout, section: &[u8], dst: &mut [u8]) -> Option<()> {
    let (&modelled_bits, section) = section.split_first()?;
    let modelled_bits = u32::from(modelled_bits);
    if modelled_bits > MAX_MODELLED_BITS.min(layout.mantissa_bits) {
        return None;
    }
    let mut decoder = BitDecoder::new(section);
    let mut model = Model::new(layout, modelled_bits);
    for element in dst.chunks_exact_mut(layout.n_bytes) {
        let bits = model.code(&mut decoder, 0);
        element.copy_from_slice(bits.to_le_bytes().get(..layout.n_bytes)?);
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

    const LAYOUTS: [FloatLayout; 4] = [
        FloatLayout { n_bytes: 8, exponent_bits: 11, mantissa_bits: 52 },
        FloatLayout { n_bytes: 4, exponent_bits: 8, mantissa_bits: 23 },
        FloatLayout { n_bytes: 2, exponent_bits: 5, mantissa_bits: 10 },
        FloatLayout { n_bytes: 2, exponent_bits: 8, mantissa_bits: 7 },
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_elements_round_trip_and_damage_does_no_harm(
            words in prop::collection::vec(prop_oneof![any::<u64>(), Just(0), Just(1 << 31), Just(1 << 63)], 0..300),
            layout in prop::sample::select(&LAYOUTS[..]),
            flip in any::<prop::sample::Index>(),
        ) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let mut section = Vec::new();
            encode_floats(layout, &bytes, &mut section);
            let mut back = vec![0xcc; bytes.len()];
            prop_assert_eq!(decode_floats(layout, &section, &mut back), Some(()));
            prop_assert!(back == bytes);
            // Damage may decode to something else; checksums are the container's.
            let _ = decode_floats(layout, &section[..section.len() - 1], &mut back);
            let at = flip.index(section.len());
            section[at] ^= 0x10;
            let _ = decode_floats(layout, &section, &mut back);
        }
    }
}
