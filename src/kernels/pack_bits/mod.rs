//! Values of 1 to 7 bits, packed without gaps: value `j` of eight lies in bits `n·j` to `n·j + n − 1` of `n`
//! little-endian bytes.

mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::Isa;
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{AVX2_WINDOW, Packer, PackerAvx2, lanes, spread_avx512};

/// Values are packed in whole groups of this many.
pub const GROUP_LEN: usize = 64;

/// Bytes that `n_values`, a multiple of 8, take at `n_bits` each.
#[must_use]
pub fn packed_len(n_bits: u32, n_values: usize) -> usize {
    n_values / 8 * n_bits as usize
}

/// Packs the low `n_bits` of each byte of `src` into `dst`. `src.len()` is a multiple of [`GROUP_LEN`],
/// `dst.len()` what [`packed_len`] says; otherwise what does not fit is left out.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn pack(isa: Isa, n_bits: u32, src: &[u8], dst: &mut [u8]) {
    match isa {
        _ if n_bits == 0 => {}
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::pack_avx512(n_bits, src, dst) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::pack_avx2(n_bits, src, dst) }
        }
        _ => scalar::pack(n_bits, src, dst),
    }
}

/// The inverse of [`pack`]; every byte of `dst` is written, 0 where `n_bits` is 0.
#[allow(unsafe_code, reason = "calls into functions gated by a processor feature")]
pub fn unpack(isa: Isa, n_bits: u32, src: &[u8], dst: &mut [u8]) {
    match isa {
        _ if n_bits == 0 => dst.fill(0),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => {
            // SAFETY: `available` has just tested every feature that the function enables.
            unsafe { x86::unpack_avx512(n_bits, src, dst) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => {
            // SAFETY: as above.
            unsafe { x86::unpack_bmi2(n_bits, src, dst) }
        }
        _ => scalar::unpack(n_bits, src, dst),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_round_trips_on_every_isa() {
        let values: Vec<u8> = (0..64 * 9u32).map(|i| ((i * i * 31) >> 3).to_le_bytes()[0]).collect();
        for n_bits in 0..8 {
            let mut reference = vec![0; packed_len(n_bits, values.len())];
            scalar::pack(n_bits.max(1), &values, &mut reference);
            for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
                let mut packed = vec![0; reference.len()];
                pack(isa, n_bits, &values, &mut packed);
                assert_eq!(packed, reference, "{isa:?} {n_bits}");
                let mut unpacked = vec![0xff; values.len()];
                unpack(isa, n_bits, &packed, &mut unpacked);
                let mask = (1u8 << n_bits) - 1;
                assert!(
                    unpacked.iter().zip(&values).all(|(&got, &value)| got == value & mask),
                    "{isa:?} {n_bits}"
                );
            }
        }
    }
}
