//! The same loops compiled for AVX2 and AVX-512: they widen by themselves, so no intrinsics are needed.

use super::{Layout, Word, scalar};

macro_rules! tiers {
    ($($features:literal, $split:ident, $join:ident;)*) => {$(
        #[target_feature(enable = $features)]
        pub(super) fn $split<W: Word>(
            layout: &Layout,
            src: &[u8],
            symbols: &mut [u8],
            byte_planes: &mut [u8],
            n_padded: usize,
            first: usize,
            top: &mut [u8],
        ) {
            scalar::split_tile::<W>(layout, src, symbols, byte_planes, n_padded, first, top);
        }

        #[target_feature(enable = $features)]
        pub(super) fn $join<W: Word>(
            layout: &Layout,
            symbols: &[u8],
            byte_planes: &[&[u8]],
            first: usize,
            top: &[u8],
            dst: &mut [u8],
        ) {
            scalar::join_tile::<W>(layout, symbols, byte_planes, first, top, dst);
        }
    )*};
}

tiers! {
    "avx2,bmi1,bmi2,popcnt,lzcnt", split_tile_avx2, join_tile_avx2;
    "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,popcnt,bmi1,bmi2,lzcnt", split_tile_avx512, join_tile_avx512;
}
