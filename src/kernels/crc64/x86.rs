//! AVX-512: eight words a turn. AVX2: the same in two halves.

use std::arch::x86_64::*;

use bytemuck::cast;

use super::{FACTORS, Folded, TURN_BYTES};

/// [`Folded`] in a register.
pub(in super::super) struct Fold {
    lanes: __m512i,
    factors: __m512i,
}

impl Fold {
    /// Nothing yet.
    #[inline]
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    pub(in super::super) fn new() -> Self {
        Self { lanes: cast(Folded::new().lanes), factors: cast([FACTORS; 4]) }
    }

    /// Adds 64 bytes.
    ///
    /// The products wait for those before, but in a loop with much else to do the time is that of their throughput: folding
    /// pairs on the side, which makes the chain half as long, is no faster.
    #[inline]
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    pub(in super::super) fn push(&mut self, bytes: __m512i) {
        let even = _mm512_clmulepi64_epi128::<0x00>(self.lanes, self.factors);
        let odd = _mm512_clmulepi64_epi128::<0x11>(self.lanes, self.factors);
        // 0x96: a ^ b ^ c.
        self.lanes = _mm512_ternarylogic_epi64::<0x96>(even, odd, bytes);
    }

    /// What has been folded, `n_bytes` in all.
    #[inline]
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    pub(in super::super) fn finish(self, n_bytes: usize) -> Folded {
        Folded { lanes: cast(self.lanes), n_bytes }
    }
}

/// `first` and all of `rest` folded to one turn.
#[target_feature(enable = "avx2,vpclmulqdq")]
pub(super) fn fold_avx2(first: [u8; TURN_BYTES], rest: &[[u8; TURN_BYTES]]) -> [u8; TURN_BYTES] {
    let factors: __m256i = cast([FACTORS; 2]);
    let mut lanes: [__m256i; 2] = cast(first);
    for turn in rest {
        let turn: [__m256i; 2] = cast(*turn);
        // Two chains are enough: on Zen 3 their products take the multiplier longer than each waits for the one before.
        lanes = [0, 1].map(|half| {
            let even = _mm256_clmulepi64_epi128::<0x00>(lanes[half], factors);
            let odd = _mm256_clmulepi64_epi128::<0x11>(lanes[half], factors);
            _mm256_xor_si256(_mm256_xor_si256(even, odd), turn[half])
        });
    }
    cast(lanes)
}
