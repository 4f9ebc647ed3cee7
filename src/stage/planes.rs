//! Planes of residual bits: mostly noise and stored raw, unless they are not noise. FORMAT.md section 3.3.3.

use super::payload::le32;
use super::repeats;
use crate::bits::ByteCursor;
use crate::entropy::rans12;
use crate::kernels::histogram::Counters;
use crate::kernels::{Isa, pack_bits};

/// Bytes of a trimmed plane that share a width.
const TRIM_LEN: usize = pack_bits::GROUP_LEN;

/// How a plane is stored; the discriminants are on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PlaneMode {
    /// As it is.
    Raw = 0,
    /// One byte, repeated.
    Constant = 1,
    /// Groups of 64 bytes without their common low zero bits.
    Trimmed = 2,
    /// Coded by 12-bit rANS.
    Rans12 = 3,
    /// A zstd frame.
    Zstd = 4,
}

/// Bytes of a plane's entry in the payload's header: mode and length.
pub(super) const ENTRY_BYTES: usize = 5;

/// Scratch memory for coding planes.
#[derive(Debug, Default)]
pub(super) struct PlaneCoder {
    trimmed: Vec<u8>,
    coded: Vec<u8>,
    rans12: rans12::Encoder,
}

/// Which modes to try on a plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Mantissa bytes: probably noise.
    Byte,
    /// Bit-packed: only raw or constant.
    Packed,
    /// Bytes of a field of records: probably values of one distribution, in no order.
    Field,
    /// A byte of an integer: probably not noise, and worth a general compressor.
    Integer,
}

impl Kind {
    /// One part in this many of a plane must be saved: below that the work of decoding is not worth it.
    fn least_gain(self) -> usize {
        if self == Self::Field { 256 } else { 64 }
    }
}

impl PlaneCoder {
    /// Appends the coded plane to `dst` and its entry to `entries`.
    pub(super) fn encode(
        &mut self,
        isa: Isa,
        kind: Kind,
        plane: &[u8],
        zstd: &mut zstd::bulk::Compressor<'static>,
        entries: &mut Vec<u8>,
        dst: &mut Vec<u8>,
    ) {
        let start = dst.len();
        let mode = self.choose(isa, kind, plane, zstd);
        match mode {
            PlaneMode::Raw => dst.extend_from_slice(plane),
            PlaneMode::Constant => dst.extend(plane.first()),
            PlaneMode::Trimmed => dst.extend_from_slice(&self.trimmed),
            PlaneMode::Rans12 | PlaneMode::Zstd => dst.extend_from_slice(&self.coded),
        }
        entries.push(mode as u8);
        entries.extend(le32(dst.len() - start));
    }

    /// Whether nothing better than raw is in sight for `plane`, without coding it.
    pub(super) fn stays_raw(&self, kind: Kind, plane: &[u8]) -> bool {
        let Some(&first) = plane.first() else { return true };
        let varies = plane.iter().any(|&byte| byte != first);
        varies && (kind == Kind::Packed || kind == Kind::Byte && !looks_coded(plane))
    }

    /// The mode that makes `plane` smallest, and its bytes in the scratch buffer of that mode.
    fn choose(
        &mut self,
        isa: Isa,
        kind: Kind,
        plane: &[u8],
        zstd: &mut zstd::bulk::Compressor<'static>,
    ) -> PlaneMode {
        let Some(&first) = plane.first() else { return PlaneMode::Raw };
        if plane.iter().all(|&byte| byte == first) {
            return PlaneMode::Constant;
        }
        if kind == Kind::Packed {
            return PlaneMode::Raw;
        }
        let mut best = (plane.len(), PlaneMode::Raw);
        // A low zero bit in every byte of a group happens by chance once in 2^64.
        if widths(plane).any(|width| width < 8) {
            trim(isa, plane, zstd, &mut self.trimmed);
            // 1 in 64: below that the work of putting bits back is not worth it.
            if self.trimmed.len() + plane.len() / 64 < best.0 {
                best = (self.trimmed.len(), PlaneMode::Trimmed);
            }
        }
        self.coded.clear();
        let (entropy_q16, noise_q16) = match kind {
            // All that is saved of quantized weights may be a per cent.
            Kind::Field => (entropy_q16(plane), (8 << 16) - (1 << 11)),
            _ => (sampled_entropy_q16(plane), NOISE_Q16),
        };
        // Coding takes its time: only where the sample says that it will be the smallest.
        if entropy_q16 < noise_q16 && (entropy_q16 * plane.len() as u64) >> 19 < best.0 as u64 {
            self.rans12.encode(isa, plane, &mut self.coded);
            if self.coded.len() + plane.len() / kind.least_gain() < best.0 {
                best = (self.coded.len(), PlaneMode::Rans12);
            }
        }
        let is_regular = match kind {
            Kind::Integer => repeats::are_worth_a_look(plane),
            Kind::Field => repeats::are_common(1, plane),
            Kind::Byte | Kind::Packed => best.0 * 8 < plane.len() * 5 && repeats::are_worth_a_look(plane),
        };
        if is_regular {
            let rans12_len = self.coded.len();
            let bound = zstd::zstd_safe::compress_bound(plane.len());
            self.coded.resize(rans12_len + bound, 0);
            // zstd fails only for want of room.
            let zstd_len =
                zstd.compress_to_buffer(plane, &mut self.coded[rans12_len..]).unwrap_or(usize::MAX);
            if zstd_len + plane.len() / 64 < best.0 {
                self.coded.drain(..rans12_len);
                self.coded.truncate(zstd_len);
                return PlaneMode::Zstd;
            }
            self.coded.truncate(rans12_len);
        }
        best.1
    }
}

/// Appends the entry of a plane of `len` bytes that is stored as it is.
pub(super) fn push_raw_entry(len: usize, entries: &mut Vec<u8>) {
    entries.push(PlaneMode::Raw as u8);
    entries.extend(le32(len));
}

/// A byte of more sampled entropy than this (1/8 of a bit below 8, of which a small sample misses some) is noise.
const NOISE_Q16: u64 = (8 << 16) - (1 << 13);

/// Whether a mantissa plane might be trimmed or entropy-coded.
fn looks_coded(plane: &[u8]) -> bool {
    widths(plane).any(|width| width < 8) || sampled_entropy_q16(plane) < NOISE_Q16
}

/// Order-0 entropy of a sample of `plane`, in 1/65536 of a bit a byte.
fn sampled_entropy_q16(plane: &[u8]) -> u64 {
    /// Enough that noise shows less than 1/16 bit below 8.
    const RUNS: usize = 32;
    const RUN_LEN: usize = 256;
    let mut counters = Counters::default();
    let stride = (plane.len() / RUNS).max(RUN_LEN);
    plane.chunks(stride).for_each(|run| counters.count(&run[..run.len().min(RUN_LEN)]));
    crate::entropy::freq::entropy_q16(&counters.total())
}

/// Order-0 entropy of `plane`, in 1/65536 of a bit a byte.
fn entropy_q16(plane: &[u8]) -> u64 {
    let mut counters = Counters::default();
    counters.count(plane);
    crate::entropy::freq::entropy_q16(&counters.total())
}

/// Bits to keep of each group of `plane`: 8 less the zero bits at the bottom of all its bytes.
fn widths(plane: &[u8]) -> impl Iterator<Item = u32> {
    plane.chunks(TRIM_LEN).map(|group| {
        let any = group.iter().fold(0, |any, byte| any | byte);
        8 - any.trailing_zeros().min(8)
    })
}

/// Trims `plane`, a whole number of groups: the length of a zstd frame, the frame with a width for each group, then each
/// group's kept bits.
fn trim(isa: Isa, plane: &[u8], zstd: &mut zstd::bulk::Compressor<'static>, dst: &mut Vec<u8>) {
    let widths: Vec<u8> = widths(plane).map(|width| width.to_le_bytes()[0]).collect();
    dst.clear();
    dst.resize(4 + zstd::zstd_safe::compress_bound(widths.len()), 0);
    // zstd fails only for want of room.
    let frame_len = zstd.compress_to_buffer(&widths, &mut dst[4..]).unwrap_or(0);
    dst.truncate(4 + frame_len);
    dst[..4].copy_from_slice(&le32(frame_len));
    for (group, &width) in plane.chunks(TRIM_LEN).zip(&widths) {
        if width == 8 {
            dst.extend_from_slice(group);
            continue;
        }
        let mut kept = [0u8; TRIM_LEN];
        for (kept, byte) in kept.iter_mut().zip(group) {
            *kept = byte.checked_shr(u32::from(8 - width)).unwrap_or(0);
        }
        let start = dst.len();
        dst.resize(start + pack_bits::packed_len(width.into(), TRIM_LEN), 0);
        pack_bits::pack(isa, width.into(), &kept, &mut dst[start..]);
    }
}

/// The inverse of [`trim`]; `None` if `src` does not hold exactly the plane.
fn untrim(isa: Isa, src: &[u8], zstd: &mut zstd::bulk::Decompressor<'static>, dst: &mut [u8]) -> Option<()> {
    let mut src = ByteCursor::new(src);
    let frame_len = usize::try_from(src.u32()?).ok()?;
    let mut widths = vec![0; dst.len().div_ceil(TRIM_LEN)];
    let n_widths = zstd.decompress_to_buffer(src.take(frame_len)?, &mut widths).ok()?;
    if n_widths != widths.len() {
        return None;
    }
    for (group, width) in dst.chunks_mut(TRIM_LEN).zip(widths) {
        match width {
            8 => group.copy_from_slice(src.take(group.len())?),
            0..=7 => {
                let packed = src.take(pack_bits::packed_len(width.into(), TRIM_LEN))?;
                pack_bits::unpack(isa, width.into(), packed, group);
                group.iter_mut().for_each(|byte| *byte = byte.checked_shl(u32::from(8 - width)).unwrap_or(0));
            }
            _ => return None,
        }
    }
    src.rest().is_empty().then_some(())
}

/// A plane's entry as read from a payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    mode: PlaneMode,
    len: usize,
}

impl Entry {
    /// Reads an entry; `None` for an unknown mode or missing bytes.
    pub(super) fn read(src: &mut ByteCursor<'_>) -> Option<Self> {
        let mode = match src.u8()? {
            0 => PlaneMode::Raw,
            1 => PlaneMode::Constant,
            2 => PlaneMode::Trimmed,
            3 => PlaneMode::Rans12,
            4 => PlaneMode::Zstd,
            _ => return None,
        };
        Some(Self { mode, len: usize::try_from(src.u32()?).ok()? })
    }

    /// Length of the plane's section in bytes.
    pub(super) fn len(self) -> usize {
        self.len
    }

    /// Whether the section is the plane.
    pub(super) fn is_raw(self) -> bool {
        self.mode == PlaneMode::Raw
    }

    /// Decodes `section` into all of `dst`.
    pub(super) fn decode(
        self,
        isa: Isa,
        section: &[u8],
        zstd: &mut zstd::bulk::Decompressor<'static>,
        rans12: &mut rans12::Decoder,
        dst: &mut [u8],
    ) -> Option<()> {
        match self.mode {
            PlaneMode::Raw => (section.len() == dst.len()).then(|| dst.copy_from_slice(section)),
            PlaneMode::Constant => match section {
                [byte] => {
                    dst.fill(*byte);
                    Some(())
                }
                _ => None,
            },
            PlaneMode::Trimmed => untrim(isa, section, zstd, dst),
            PlaneMode::Rans12 => rans12.decode(isa, section, dst),
            PlaneMode::Zstd => {
                let len = zstd.decompress_to_buffer(section, dst).ok()?;
                (len == dst.len()).then_some(())
            }
        }
    }
}
