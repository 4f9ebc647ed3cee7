//! Floats: whether it is zero, the sign, the exponent, and the upper bits of the mantissa by adaptive decisions; the
//! rest as it is. Exponents may depend on those before, as magnitudes in optimizer states do; and where elements repeat, as
//! the moments of two biases that are added up do, one may be what stood behind the last two before.

use std::borrow::Cow;

use super::binary::{Bit, BitCoder, BitDecoder, BitEncoder, tree, tree_in_context};
use super::matches::{self, Matches};
use crate::bits::{BitReader, BitWriter, ByteCursor};

/// Widths of a float's fields; below the sign bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloatLayout {
    /// Bytes of the float.
    pub n_bytes: usize,
    /// Bits of the exponent, at most 11.
    pub exponent_bits: u32,
    /// Bits of the mantissa, at most 52.
    pub mantissa_bits: u32,
}

impl FloatLayout {
    fn sign_at(self) -> u32 {
        self.exponent_bits + self.mantissa_bits
    }

    fn magnitude(self, element: u64) -> u64 {
        element & ((1 << self.sign_at()) - 1)
    }

    fn elements(self, bytes: &[u8]) -> impl ExactSizeIterator<Item = u64> + '_ {
        let word = |element: &[u8]| element.iter().rev().fold(0, |bits, &byte| bits << 8 | u64::from(byte));
        bytes.chunks_exact(self.n_bytes).map(word)
    }
}

/// What is modelled of the elements of a block, as the head of its section says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Modelled {
    /// Upper bits of the mantissa that are no noise.
    mantissa_bits: u32,
    /// Whether exponents depend on those of the two elements before.
    has_contexts: bool,
    /// Exponents are from this on …
    lowest: u32,
    /// … below this and two to the power of this.
    exponent_bits: u32,
    /// Whether elements may be told by earlier ones.
    has_matches: bool,
    /// Elements that have no bits which are stored as they are: zeros, and those told by earlier ones.
    n_bare: u32,
}

/// Bytes of the head of a section.
const HEAD_BYTES: usize = 6;
/// Most bits of the mantissa that are modelled.
const MAX_MODELLED_BITS: u32 = 7;
/// The numbers of bits that an encoder tries.
const TRIED_BITS: [u32; 3] = [0, 2, 7];
/// Elements that the model is chosen by, the first ones and those in the middle: all of a block that is no longer.
const SAMPLE_LEN: usize = 1 << 14;
/// Flag of the first byte.
const HAS_CONTEXTS: u8 = 0x80;
/// The same.
const HAS_MATCHES: u8 = 0x40;
/// Bits of an exponent that are a context.
const CONTEXT_BITS: u32 = 8;
/// Bits of the lowest exponent.
const LOWEST_BITS: u32 = 11;

impl Modelled {
    /// Of what is certain about the elements of `bytes`.
    fn of(layout: FloatLayout, bytes: &[u8]) -> Self {
        let magnitudes = || layout.elements(bytes).map(|element| layout.magnitude(element));
        let exponents = magnitudes()
            .filter(|&magnitude| magnitude > 0)
            .map(|magnitude| magnitude >> layout.mantissa_bits);
        let (lowest, highest) =
            exponents.fold((u64::MAX, 0), |(low, high), exponent| (low.min(exponent), high.max(exponent)));
        let lowest = lowest.min(highest);
        let exponent_bits = u64::BITS - (highest - lowest).leading_zeros();
        let n_bare = magnitudes().filter(|&magnitude| magnitude == 0).count();
        Self {
            mantissa_bits: 0,
            has_contexts: false,
            lowest: u32::try_from(lowest).unwrap_or(0),
            exponent_bits,
            has_matches: false,
            n_bare: u32::try_from(n_bare).unwrap_or(u32::MAX),
        }
    }

    fn head(self) -> [u8; HEAD_BYTES] {
        let [modelled, ..] = self.mantissa_bits.to_le_bytes();
        let contexts = if self.has_contexts { HAS_CONTEXTS } else { 0 };
        let matches = if self.has_matches { HAS_MATCHES } else { 0 };
        let [low, high, ..] = (self.lowest | self.exponent_bits << LOWEST_BITS).to_le_bytes();
        let [a, b, c, _] = self.n_bare.to_le_bytes();
        [modelled | contexts | matches, low, high, a, b, c]
    }

    /// What `head` says of `n_elements`; `None` where it cannot be.
    fn from_head(layout: FloatLayout, head: [u8; HEAD_BYTES], n_elements: usize) -> Option<Self> {
        let [modelled, low, high, a, b, c] = head;
        let mantissa_bits = u32::from(modelled & !(HAS_CONTEXTS | HAS_MATCHES));
        let has_matches = modelled & HAS_MATCHES != 0;
        let window = u32::from(u16::from_le_bytes([low, high]));
        let (lowest, exponent_bits) = (window & ((1 << LOWEST_BITS) - 1), window >> LOWEST_BITS);
        let n_bare = u32::from_le_bytes([a, b, c, 0]);
        let is_known = mantissa_bits <= MAX_MODELLED_BITS.min(layout.mantissa_bits)
            && lowest < 1 << layout.exponent_bits
            && exponent_bits <= layout.exponent_bits
            && n_bare as usize <= n_elements
            && (!has_matches || n_elements <= matches::MAX_LEN);
        is_known.then_some(Self {
            mantissa_bits,
            has_contexts: modelled & HAS_CONTEXTS != 0,
            lowest,
            exponent_bits,
            has_matches,
            n_bare,
        })
    }

    /// Bits of an element that are stored as they are.
    fn rest_bits(self, layout: FloatLayout) -> u32 {
        layout.mantissa_bits - self.mantissa_bits
    }

    /// Bytes of these, of `n_elements`.
    fn rest_bytes(self, layout: FloatLayout, n_elements: usize) -> usize {
        ((n_elements - self.n_bare as usize) * self.rest_bits(layout) as usize).div_ceil(8)
    }
}

/// Probabilities of all decisions.
struct Model {
    layout: FloatLayout,
    modelled: Modelled,
    /// By whether the last element was one.
    is_zero: [Bit; 2],
    /// Of zeros, of others behind a positive element, of others behind a negative one.
    is_negative: [Bit; 3],
    /// Whatever the context.
    exponent: Vec<Bit>,
    /// For each context a tree of exponents, once there was one; without contexts none at all.
    exponents: Vec<Vec<Bit>>,
    /// For each exponent the tree of the mantissa's upper bits.
    mantissas: Vec<Bit>,
    matches: Option<Matches>,
    last_was_zero: bool,
    last_was_negative: bool,
    /// Exponents of the two elements before, from the lowest on; 0 for zeros.
    last: [usize; 2],
}

impl Model {
    fn new(layout: FloatLayout, modelled: Modelled) -> Self {
        let Modelled { mantissa_bits, has_contexts, exponent_bits, .. } = modelled;
        let n_contexts = if has_contexts { 1 << CONTEXT_BITS.min(exponent_bits) } else { 0 };
        Self {
            layout,
            modelled,
            is_zero: [Bit::NEW; 2],
            is_negative: [Bit::NEW, Bit::EVEN, Bit::EVEN],
            exponent: vec![Bit::NEW; 1 << exponent_bits],
            exponents: vec![Vec::new(); n_contexts],
            mantissas: vec![Bit::EVEN; 1 << (exponent_bits + mantissa_bits)],
            matches: modelled.has_matches.then(Matches::default),
            last_was_zero: false,
            last_was_negative: false,
            last: [0; 2],
        }
    }

    /// Codes one element but for the bits that are stored as they are, which are 0 in what it returns, with whether it has
    /// none; `element` is its own where encoding. [`Self::take`] must follow.
    #[inline]
    fn code<C: BitCoder>(&mut self, coder: &mut C, element: u64) -> (u64, bool) {
        let told = self.matches.as_mut().and_then(|matches| matches.code(coder, element));
        if let Some(element) = told {
            self.note(element);
            return (element, true);
        }
        let FloatLayout { mantissa_bits, .. } = self.layout;
        let sign_at = self.layout.sign_at();
        let magnitude = self.layout.magnitude(element);
        let is_zero = coder.bit(&mut self.is_zero[usize::from(self.last_was_zero)], magnitude == 0);
        self.last_was_zero = is_zero;
        let kind = if is_zero { 0 } else { 1 + usize::from(self.last_was_negative) };
        let is_negative = coder.bit(&mut self.is_negative[kind], element >> sign_at & 1 == 1);
        self.last_was_negative = is_negative;
        let sign = u64::from(is_negative) << sign_at;
        if is_zero {
            self.last = [0, self.last[0]];
            return (sign, true);
        }
        let lowest = u64::from(self.modelled.lowest);
        let exponent = (magnitude >> mantissa_bits).wrapping_sub(lowest);
        let exponent = self.code_exponent(coder, usize::try_from(exponent).unwrap_or(0));
        self.last = [exponent, self.last[0]];
        let (upper_bits, rest_bits) = (self.modelled.mantissa_bits, self.modelled.rest_bits(self.layout));
        let upper = magnitude >> rest_bits & ((1 << upper_bits) - 1);
        let first = exponent << upper_bits;
        let models = self.mantissas.get_mut(first..first + (1 << upper_bits)).unwrap_or_default();
        let upper = tree(coder, models, usize::try_from(upper).unwrap_or(0));
        // Damage may tell of exponents beyond the last: the sign stays what it is.
        let magnitude = self.layout.magnitude((exponent as u64 + lowest) << mantissa_bits);
        (sign | magnitude | (upper as u64) << rest_bits, false)
    }

    /// Takes note of an element that was told by an earlier one: what follows depends on it as on any other.
    fn note(&mut self, element: u64) {
        let magnitude = self.layout.magnitude(element);
        self.last_was_zero = magnitude == 0;
        self.last_was_negative = element >> self.layout.sign_at() & 1 == 1;
        let exponent = if magnitude == 0 {
            0
        } else {
            (magnitude >> self.layout.mantissa_bits).saturating_sub(self.modelled.lowest.into())
        };
        self.last = [usize::try_from(exponent).unwrap_or(0), self.last[0]];
    }

    /// Takes note of a whole element, after [`Self::code`].
    #[inline]
    fn take(&mut self, element: u64) {
        if let Some(matches) = &mut self.matches {
            matches.take(element);
        }
    }

    #[inline]
    fn code_exponent<C: BitCoder>(&mut self, coder: &mut C, exponent: usize) -> usize {
        let context =
            self.last[0].max(self.last[1]) >> self.modelled.exponent_bits.saturating_sub(CONTEXT_BITS);
        let Some(models) = self.exponents.get_mut(context) else {
            return tree(coder, &mut self.exponent, exponent);
        };
        if models.is_empty() {
            models.resize(self.exponent.len(), Bit::UNBORN);
        }
        tree_in_context(coder, &mut self.exponent, models, exponent)
    }
}

/// Appends the decisions of `bytes`, and to `rest` the bits that are stored as they are; the elements that have none.
fn encode_decisions(
    layout: FloatLayout,
    modelled: Modelled,
    bytes: &[u8],
    (rest, dst): (&mut Vec<u8>, &mut Vec<u8>),
) -> u32 {
    let mut encoder = BitEncoder::new(dst);
    let mut writer = BitWriter::new(rest);
    let mut model = Model::new(layout, modelled);
    let rest_bits = modelled.rest_bits(layout);
    let mut n_bare = 0;
    for element in layout.elements(bytes) {
        let (_, is_bare) = model.code(&mut encoder, element);
        model.take(element);
        n_bare += u32::from(is_bare);
        if !is_bare {
            let [a, b, c, d, e, f, g, h] = (element & ((1 << rest_bits) - 1)).to_le_bytes();
            writer.put(u32::from_le_bytes([a, b, c, d]), rest_bits.min(u32::BITS));
            writer.put(u32::from_le_bytes([e, f, g, h]), rest_bits.saturating_sub(u32::BITS));
        }
    }
    writer.finish();
    encoder.finish();
    n_bare
}

/// What is worth modelling of `bytes`, as a sample of them says.
fn worth_modelling(layout: FloatLayout, bytes: &[u8]) -> Modelled {
    let run_bytes = SAMPLE_LEN / 2 * layout.n_bytes;
    let middle = bytes.len() / layout.n_bytes / 2 * layout.n_bytes;
    let sample: Cow<'_, [u8]> =
        match (bytes.get(..run_bytes), bytes.get(middle..).and_then(|rest| rest.get(..run_bytes))) {
            (Some(first), Some(second)) if middle > run_bytes => [first, second].concat().into(),
            _ => bytes.into(),
        };
    let certain = Modelled::of(layout, &sample);
    let len = |modelled: Modelled| {
        let (mut rest, mut decisions) = (Vec::new(), Vec::new());
        encode_decisions(layout, modelled, &sample, (&mut rest, &mut decisions));
        decisions.len() + rest.len()
    };
    let tried = TRIED_BITS.into_iter().filter(|&bits| bits <= layout.mantissa_bits);
    let plain = tried.map(|mantissa_bits| Modelled { mantissa_bits, ..certain });
    let best = plain.map(|modelled| (len(modelled), modelled)).min_by_key(|&(len, _)| len);
    let (plain_len, plain) = best.unwrap_or((usize::MAX, certain));
    let in_contexts = Modelled { has_contexts: true, ..plain };
    let best = if len(in_contexts) < plain_len { in_contexts } else { plain };
    let Modelled { mantissa_bits, has_contexts, .. } = best;
    let has_matches = matches::are_common(layout.elements(bytes));
    Modelled { mantissa_bits, has_contexts, has_matches, ..Modelled::of(layout, bytes) }
}

/// Appends the section of `bytes`, a whole number of elements: what is modelled, the bits that are not, and the decisions.
pub fn encode_floats(layout: FloatLayout, bytes: &[u8], dst: &mut Vec<u8>) {
    let mut modelled = worth_modelling(layout, bytes);
    let start = dst.len();
    dst.extend_from_slice(&modelled.head());
    let mut decisions = Vec::new();
    modelled.n_bare = encode_decisions(layout, modelled, bytes, (dst, &mut decisions));
    dst[start..start + HEAD_BYTES].copy_from_slice(&modelled.head());
    dst.extend_from_slice(&decisions);
}

/// Fills `dst` with the elements of `section`; `None` where it is not what [`encode_floats`] made.
pub fn decode_floats(layout: FloatLayout, section: &[u8], dst: &mut [u8]) -> Option<()> {
    let mut src = ByteCursor::new(section);
    let n_elements = dst.len() / layout.n_bytes;
    let modelled = Modelled::from_head(layout, src.array()?, n_elements)?;
    let rest_bits = modelled.rest_bits(layout);
    let mut reader = BitReader::new(src.take(modelled.rest_bytes(layout, n_elements))?);
    let mut decoder = BitDecoder::new(src.rest());
    let mut model = Model::new(layout, modelled);
    for element in dst.chunks_exact_mut(layout.n_bytes) {
        let (mut bits, is_bare) = model.code(&mut decoder, 0);
        if !is_bare {
            let low = reader.get(rest_bits.min(u32::BITS))?;
            let high = reader.get(rest_bits.saturating_sub(u32::BITS))?;
            bits |= u64::from(high) << u32::BITS | u64::from(low);
        }
        model.take(bits);
        element.copy_from_slice(bits.to_le_bytes().get(..layout.n_bytes)?);
        if decoder.is_exhausted() {
            return None;
        }
    }
    (reader.is_exhausted() && decoder.is_at_end()).then_some(())
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
            times in 1usize..4,
            flip in any::<prop::sample::Index>(),
        ) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>().repeat(times);
            let mut section = Vec::new();
            encode_floats(layout, &bytes, &mut section);
            let mut back = vec![0xcc; bytes.len()];
            prop_assert_eq!(decode_floats(layout, &section, &mut back), Some(()));
            prop_assert!(back == bytes);
            // Damage may decode to something else; checksums are the container's.
            for len in [section.len() - 1, section.len() / 2, 5, 0] {
                let _ = decode_floats(layout, &section[..len], &mut back);
            }
            let at = flip.index(section.len());
            section[at] ^= 0x10;
            let _ = decode_floats(layout, &section, &mut back);
        }
    }
}
