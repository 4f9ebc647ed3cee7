//! AVX-512: eight words a turn.

use std::arch::x86_64::*;

use bytemuck::cast;

use super::{FACTORS, Folded};

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
