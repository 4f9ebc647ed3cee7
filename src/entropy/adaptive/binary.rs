//! An arithmetic coder of binary decisions with probabilities that adapt.
//!
//! The interval is held in 64 bits and keeps at least 48 of them, so that rounding costs nothing that could be measured;
//! carries run back through the bytes written (G. N. N. Martin, "Range encoding", 1979). A probability is the
//! mean of what was seen, started from a few imagined decisions (the estimator of R. E. Krichevsky and V. K. Trofimov,
//! 1981, for a start of one): no table is stored, and a few hundred symbols suffice to learn one.
//! All is integer arithmetic: encoder and decoder are the same on every machine.

/// Bits of a probability.
const P_BITS: u32 = 22;
/// Probabilities stay this far from 0 and from 1.
const P_MARGIN: u32 = 1 << 6;
/// Decisions, twice counted, after which a probability forgets as fast as it learns.
const COUNT_LIMIT: u32 = 2 << 10;
/// Decisions, twice counted, that an inherited probability is taken to rest on.
const INHERITED_COUNT: u32 = 4;
/// Below this the interval is shifted.
const RANGE_MIN: u64 = 1 << 48;
/// Bytes of the interval.
const INTERVAL_BYTES: usize = 8;
/// Most bits that are coded as they are in one step.
const RAW_BITS: u32 = 16;

/// Bits behind the point of a reciprocal: dividends, below 2^23, times what rounding it up adds, below the divisor, are no more.
const RECIPROCAL_BITS: u32 = 40;

/// For each even divisor that [`Bit::learn`] has its reciprocal, rounded up.
static RECIPROCALS: [u64; COUNT_LIMIT as usize / 2 + 2] = {
    let mut table = [0; COUNT_LIMIT as usize / 2 + 2];
    let mut half = 1;
    while half < table.len() {
        table[half] = (1_u64 << RECIPROCAL_BITS).div_ceil(2 * half as u64);
        half += 1;
    }
    table
};

/// ⌊2·`p`/`divisor`⌋ of an even divisor.
#[inline]
fn share(p: u32, divisor: u32) -> u32 {
    let reciprocal = RECIPROCALS.get(divisor as usize / 2).copied().unwrap_or(0);
    // Below 2^22, as the divisor is at least 2.
    u32::try_from((2 * u64::from(p) * reciprocal) >> RECIPROCAL_BITS).unwrap_or(u32::MAX)
}

/// The probability of one kind of decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bit {
    /// Of a one, in 2^−22.
    p: u32,
    /// Twice the decisions that it rests on.
    count: u32,
}

impl Bit {
    /// A probability of one half, that rests on next to nothing.
    pub(super) const NEW: Self = Self { p: 1 << (P_BITS - 1), count: 2 };
    /// A probability of one half that takes more to be moved: of what is likely to be even.
    pub(super) const EVEN: Self = Self { p: 1 << (P_BITS - 1), count: 16 };
    /// None yet: of a kind that begins with what another knows by then.
    pub(super) const UNBORN: Self = Self { p: 0, count: 0 };

    /// Begins, if it has not, with the probability of `parent`, that rests on little.
    #[inline]
    fn inherit(&mut self, parent: Self) {
        if self.count == 0 {
            *self = Self { p: parent.p, count: INHERITED_COUNT };
        }
    }

    /// Takes note of a decision.
    #[inline]
    fn learn(&mut self, bit: bool) {
        // The mean of `count / 2` decisions becomes that of one more. Selected, not branched on: half of all decisions
        // are what no processor foresees.
        let divisor = self.count + 2;
        let way = share(if bit { (1 << P_BITS) - self.p } else { self.p }, divisor);
        let p = if bit { self.p + way } else { self.p - way };
        self.p = p.clamp(P_MARGIN, (1 << P_BITS) - P_MARGIN);
        self.count = divisor.min(COUNT_LIMIT);
    }
}

/// What a model of symbols is written against, so that its encoder and decoder are one.
pub(super) trait BitCoder {
    /// Codes a decision: `bit` where encoding, what is found where decoding, which is also returned.
    fn bit(&mut self, model: &mut Bit, bit: bool) -> bool;

    /// Codes the low `n_bits` (up to 64) of `value` as they are, and returns them.
    fn raw(&mut self, value: u64, n_bits: u32) -> u64;
}

/// Writes decisions.
#[derive(Debug)]
pub(super) struct BitEncoder<'a> {
    dst: &'a mut Vec<u8>,
    low: u64,
    range: u64,
}

impl<'a> BitEncoder<'a> {
    /// An encoder that appends to `dst`.
    pub(super) fn new(dst: &'a mut Vec<u8>) -> Self {
        Self { dst, low: 0, range: u64::MAX }
    }

    #[inline]
    fn take(&mut self, offset: u64, range: u64) {
        let (low, carries) = self.low.overflowing_add(offset);
        (self.low, self.range) = (low, range);
        if carries {
            self.carry();
        }
        while self.range < RANGE_MIN {
            self.shift();
        }
    }

    /// Adds one to the bytes written. It never runs beyond the first: the interval lies within that of the start.
    fn carry(&mut self) {
        for byte in self.dst.iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                break;
            }
        }
    }

    fn shift(&mut self) {
        let [.., top] = self.low.to_le_bytes();
        self.dst.push(top);
        self.low <<= 8;
        self.range <<= 8;
    }

    /// Writes the two bytes at most that tell the interval from all others, zeros being read behind them.
    pub(super) fn finish(mut self) {
        // A multiple of 2^48 lies in any interval of that length or more.
        let mask = RANGE_MIN - 1;
        let short = self.low & mask != 0;
        let step = if short { RANGE_MIN - (self.low & mask) } else { 0 };
        let (low, carries) = self.low.overflowing_add(step);
        self.low = low;
        if carries {
            self.carry();
        }
        self.shift();
        self.shift();
    }
}

impl BitCoder for BitEncoder<'_> {
    #[inline]
    fn bit(&mut self, model: &mut Bit, bit: bool) -> bool {
        let bound = (self.range >> P_BITS) * u64::from(model.p);
        self.take(if bit { 0 } else { bound }, if bit { bound } else { self.range - bound });
        model.learn(bit);
        bit
    }

    #[inline]
    fn raw(&mut self, value: u64, n_bits: u32) -> u64 {
        let mut left = n_bits;
        while left > 0 {
            let n = left.min(RAW_BITS);
            left -= n;
            let part = value >> left & ((1 << n) - 1);
            let unit = self.range >> n;
            self.take(part * unit, unit);
        }
        value
    }
}

/// Reads what [`BitEncoder`] wrote. Never fails before its end: any bytes are some decisions.
#[derive(Debug)]
pub(super) struct BitDecoder<'a> {
    src: &'a [u8],
    n_taken: usize,
    /// What was read less the interval's start.
    code: u64,
    range: u64,
}

impl<'a> BitDecoder<'a> {
    /// A decoder of all of `src`.
    #[must_use]
    pub(super) fn new(src: &'a [u8]) -> Self {
        let mut decoder = Self { src, n_taken: 0, code: 0, range: u64::MAX };
        for _ in 0..INTERVAL_BYTES {
            decoder.code = decoder.code << 8 | u64::from(decoder.next_byte());
        }
        decoder
    }

    fn next_byte(&mut self) -> u8 {
        let byte = self.src.get(self.n_taken).copied().unwrap_or(0);
        self.n_taken = self.n_taken.saturating_add(1);
        byte
    }

    #[inline]
    fn take(&mut self, offset: u64, range: u64) {
        self.code = self.code.wrapping_sub(offset);
        self.range = range;
        while self.range < RANGE_MIN {
            self.code = self.code << 8 | u64::from(self.next_byte());
            self.range <<= 8;
        }
    }

    /// Whether the bytes are as many as an encoder writes for what was decoded.
    #[must_use]
    pub(super) fn is_at_end(&self) -> bool {
        // An encoder writes a byte for each shift, and two.
        self.n_taken == self.src.len() + INTERVAL_BYTES - 2
    }

    /// Whether more was read than the bytes and what may be missing behind them: then nothing that follows means
    /// anything.
    #[must_use]
    pub(super) fn is_exhausted(&self) -> bool {
        self.n_taken > self.src.len() + INTERVAL_BYTES
    }
}

impl BitCoder for BitDecoder<'_> {
    #[inline]
    fn bit(&mut self, model: &mut Bit, _: bool) -> bool {
        let bound = (self.range >> P_BITS) * u64::from(model.p);
        let bit = self.code < bound;
        self.take(if bit { 0 } else { bound }, if bit { bound } else { self.range - bound });
        model.learn(bit);
        bit
    }

    #[inline]
    fn raw(&mut self, _: u64, n_bits: u32) -> u64 {
        let mut value = 0;
        let mut left = n_bits;
        while left > 0 {
            let n = left.min(RAW_BITS);
            left -= n;
            let unit = self.range >> n;
            // What rounding leaves over at the end belongs to no value; damaged bytes may point there.
            let part = (self.code / unit).min((1 << n) - 1);
            self.take(part * unit, unit);
            value = value << n | part;
        }
        value
    }
}

/// A number of `models.len()`'s logarithm of bits, the top one first, each by a probability of its own given those above.
/// `models` has a power of two entries, of which the first is not used.
#[inline]
pub(super) fn tree<C: BitCoder>(coder: &mut C, models: &mut [Bit], value: usize) -> usize {
    let n_bits = models.len().max(1).ilog2();
    let mut node = 1;
    for at in (0..n_bits).rev() {
        let bit = value >> at & 1 == 1;
        let bit = models.get_mut(node).map_or(bit, |model| coder.bit(model, bit));
        node = node << 1 | usize::from(bit);
    }
    node - (1 << n_bits)
}

/// Like [`tree`], of numbers in one of several contexts: `models` are those of the context, [`Bit::UNBORN`] at first, and begin
/// with what those of all contexts, `parents`, know by then.
#[inline]
pub(super) fn tree_in_context<C: BitCoder>(
    coder: &mut C,
    parents: &mut [Bit],
    models: &mut [Bit],
    value: usize,
) -> usize {
    let n_bits = models.len().max(1).ilog2();
    let mut node = 1;
    for at in (0..n_bits).rev() {
        let mut bit = value >> at & 1 == 1;
        if let (Some(parent), Some(model)) = (parents.get_mut(node), models.get_mut(node)) {
            model.inherit(*parent);
            bit = coder.bit(model, bit);
            parent.learn(bit);
        }
        node = node << 1 | usize::from(bit);
    }
    node - (1 << n_bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is coded: a decision of one of four kinds, or raw bits.
    #[derive(Debug, Clone, Copy)]
    enum Item {
        Bit(usize, bool),
        Raw(u64, u32),
    }

    fn items() -> impl Strategy<Value = Vec<Item>> {
        let item = prop_oneof![
            4 => (0usize..4, any::<bool>()).prop_map(|(kind, bit)| Item::Bit(kind, bit && kind != 3)),
            1 => (any::<u64>(), 0u32..=64).prop_map(|(value, n)| {
                Item::Raw(if n == 64 { value } else { value & ((1 << n) - 1) }, n)
            }),
            // Ones alone: carries.
            1 => Just(Item::Raw(u64::MAX, 64)),
        ];
        prop::collection::vec(item, 0..600)
    }

    fn code<C: BitCoder>(coder: &mut C, items: &[Item]) -> Vec<u64> {
        let mut models = [Bit::NEW; 4];
        let one = |item: &Item| match *item {
            Item::Bit(kind, bit) => u64::from(coder.bit(&mut models[kind], bit)),
            Item::Raw(value, n_bits) => coder.raw(value, n_bits),
        };
        items.iter().map(one).collect()
    }

    proptest! {
        #[test]
        fn decisions_come_back_and_other_lengths_are_noticed(items in items()) {
            let mut section = Vec::new();
            let mut encoder = BitEncoder::new(&mut section);
            let expected = code(&mut encoder, &items);
            encoder.finish();
            let mut decoder = BitDecoder::new(&section);
            let blank: Vec<_> = items.iter().map(|item| match *item {
                Item::Bit(kind, _) => Item::Bit(kind, false),
                Item::Raw(_, n_bits) => Item::Raw(0, n_bits),
            }).collect();
            prop_assert_eq!(code(&mut decoder, &blank), expected);
            prop_assert!(decoder.is_at_end() && !decoder.is_exhausted());
            section.push(0);
            let mut decoder = BitDecoder::new(&section);
            code(&mut decoder, &blank);
            prop_assert!(!decoder.is_at_end());
        }

        #[test]
        fn any_bytes_are_some_decisions(bytes in prop::collection::vec(any::<u8>(), 0..60), items in items()) {
            let mut decoder = BitDecoder::new(&bytes);
            for (value, item) in code(&mut decoder, &items).into_iter().zip(&items) {
                if let Item::Raw(_, n_bits @ 0..64) = item {
                    prop_assert!(value < 1 << n_bits);
                }
            }
        }
    }

    #[test]
    fn shares_are_those_of_a_division() {
        for divisor in (4..=COUNT_LIMIT + 2).step_by(2) {
            let edges = (0..8).flat_map(|at| [0, (1 << P_BITS) / 8 * at, divisor / 2 * (1 + at * 77)]);
            for p in edges.flat_map(|p| [p.saturating_sub(1), p, p + 1]).filter(|&p| p <= 1 << P_BITS) {
                assert_eq!(share(p, divisor), 2 * p / divisor, "2 * {p} / {divisor}");
            }
        }
    }

    #[test]
    fn rare_decisions_cost_their_entropy() {
        let mut section = Vec::new();
        let mut encoder = BitEncoder::new(&mut section);
        let mut model = Bit::NEW;
        for i in 0..10_000 {
            encoder.bit(&mut model, i % 10 == 0);
        }
        encoder.finish();
        // 0.469 bits each.
        assert!((586..600).contains(&section.len()), "{} bytes", section.len());
    }

    #[test]
    fn trees_give_back_their_numbers() {
        let mut section = Vec::new();
        let mut encoder = BitEncoder::new(&mut section);
        let mut models = [Bit::NEW; 16];
        (0..400).for_each(|i| assert_eq!(tree(&mut encoder, &mut models, i * i % 16), i * i % 16));
        assert_eq!(tree(&mut encoder, &mut [Bit::NEW], 0), 0);
        encoder.finish();
        let mut decoder = BitDecoder::new(&section);
        let mut models = [Bit::NEW; 16];
        (0..400).for_each(|i| assert_eq!(tree(&mut decoder, &mut models, 0), i * i % 16));
        assert!(decoder.is_at_end() && section.len() < 400 * 2 / 8 + 20);
    }
}
