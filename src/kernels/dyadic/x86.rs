//! The plain loops, widened by the features that they are compiled with.

/// The loops as functions that enable `$features`.
macro_rules! widened {
    ($features:literal: $($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        use super::super::{FloatFormat, Grid, Offsets, Refinement, scalar};
        $(
            #[target_feature(enable = $features)]
            pub(in crate::kernels::dyadic) fn $name($($argument: $type),*) $(-> $result)? {
                scalar::$name($($argument),*)
            }
        )*
    };
}

/// Declares a module of all loops.
macro_rules! module {
    ($module:ident, $features:literal) => {
        pub(super) mod $module {
            widened! { $features:
                indices(grid: &Grid, bytes: &[u8], indices: &mut [i32]);
                values(grid: &Grid, indices: &[i32], bytes: &mut [u8]) -> bool;
                offsets(grid: &Grid, bytes: &[u8]) -> Offsets;
                count_kept(format: FloatFormat, bytes: &[u8]) -> (u64, u64);
                any_bits(grid: &Grid, bytes: &[u8]) -> u64;
                widths(refinement: &Refinement, bytes: &[u8], widths: &mut [u8]);
                rests(refinement: &Refinement, bytes: &[u8], rests: &mut [u64]);
                place(refinement: &Refinement, rests: &[u64], bytes: &mut [u8]);
            }
        }
    };
}

module!(avx2, "avx2");
module!(avx512, "avx512f,avx512bw,avx512dq,avx512vl");
