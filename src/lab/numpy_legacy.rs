//! NumPy's legacy random numbers, `numpy.random.RandomState(seed)`, bit for bit: NumPy promises that this stream
//! never changes.
//!
//! The generator is MT19937 (M. Matsumoto and T. Nishimura, "Mersenne Twister", 1998), seeded by Knuth's linear
//! recurrence; `rand` makes 53 bits of two words; `randn` is the polar method (G. Marsaglia and T. A. Bray, 1964), which
//! gives two numbers at a time, the first of which is kept for the next call. The logarithm is the platform's, in NumPy as
//! here: a C library whose `log` rounds otherwise may differ in the last bit of a normal number.

/// Words of the state.
const N: usize = 624;
/// Distance of the word that a new one is mixed with.
const M: usize = 397;

/// A generator in the state of `RandomState(seed)`.
#[derive(Debug, Clone)]
pub struct RandomState {
    words: [u32; N],
    next: usize,
    /// The other number of a pair of normal ones.
    spare_normal: Option<f64>,
}

impl RandomState {
    /// The generator of a seed.
    #[must_use]
    pub fn new(seed: u32) -> Self {
        let mut words = [0; N];
        let mut word = seed;
        for (at, slot) in (1u32..).zip(&mut words) {
            *slot = word;
            word = (word ^ word >> 30).wrapping_mul(1_812_433_253).wrapping_add(at);
        }
        Self { words, next: N, spare_normal: None }
    }

    /// Makes the next 624 words.
    fn twist(&mut self) {
        for at in 0..N {
            let joined = self.words[at] & 1 << 31 | self.words[(at + 1) % N] & (u32::MAX >> 1);
            let mixed = if joined & 1 == 0 { 0 } else { 0x9908_b0df };
            self.words[at] = self.words[(at + M) % N] ^ joined >> 1 ^ mixed;
        }
        self.next = 0;
    }

    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.next == N {
            self.twist();
        }
        let mut word = self.words[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= word << 7 & 0x9d2c_5680;
        word ^= word << 15 & 0xefc6_0000;
        word ^ word >> 18
    }

    /// The next number of `rand()`: uniform, at least 0 and below 1.
    pub fn rand(&mut self) -> f64 {
        let (high, low) = (self.next_u32() >> 5, self.next_u32() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    /// The next number of `randn()`: normal, of mean 0 and variance 1.
    pub fn randn(&mut self) -> f64 {
        if let Some(normal) = self.spare_normal.take() {
            return normal;
        }
        loop {
            let x = 2.0 * self.rand() - 1.0;
            let y = 2.0 * self.rand() - 1.0;
            let square = x * x + y * y;
            if square < 1.0 && square != 0.0 {
                let scale = (-2.0 * square.ln() / square).sqrt();
                self.spare_normal = Some(scale * x);
                return scale * y;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_reference_implementation() {
        // The first words of init_genrand(5489), and its 10,000th, which the C++ standard states of std::mt19937.
        let mut state = RandomState::new(5489);
        let first: Vec<u32> = (0..4).map(|_| state.next_u32()).collect();
        assert_eq!(first, [3_499_211_612, 581_869_302, 3_890_346_734, 3_586_334_585]);
        assert_eq!((4..10_000).map(|_| state.next_u32()).last(), Some(4_123_659_995));
    }

    #[test]
    fn numbers_are_those_of_numpy() {
        // RandomState(42).rand(2) and RandomState(42).randn(3).
        let mut state = RandomState::new(42);
        assert_eq!([state.rand(), state.rand()], [0.374_540_118_847_362_5, 0.950_714_306_409_916_2]);
        let mut state = RandomState::new(42);
        let normals = [state.randn(), state.randn(), state.randn()];
        assert_eq!(normals, [0.496_714_153_011_232_7, -0.138_264_301_171_184_66, 0.647_688_538_100_692_5]);
    }
}
