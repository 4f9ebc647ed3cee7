//! How the indices of a quantized block are stored: the project's rANS, or a general compressor over their bytes.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

use crate::entropy::adaptive::{decode_indices, encode_indices};
use crate::entropy::indices::{Dependence, IndexDecoder, IndexEncoder};
use crate::kernels::Isa;

/// Wire ids from here on are never given to a codec of this crate: they are for programs that bring their own.
pub const FIRST_PRIVATE_ID: u8 = 128;

/// A coder of indices. A program may bring its own by
/// [`BlockEncoder::set_index_codec`](crate::stage::BlockEncoder::set_index_codec) and its counterpart in the decoder.
pub trait IndexCodec: Send {
    /// The id on the wire: [`FIRST_PRIVATE_ID`] or above for a codec that is not of this crate.
    fn wire_id(&self) -> u8;

    /// Appends a section that holds `indices`, which have this `dependence`. `row_lens` are lengths of rows, by the tensor's shape, whose columns may differ in scale. `None` where that is
    /// not possible; the block is then stored exactly.
    fn encode(
        &mut self,
        isa: Isa,
        indices: &[i32],
        dependence: Dependence,
        row_lens: &[usize],
        dst: &mut Vec<u8>,
    ) -> Option<()>;

    /// Fills `indices` with what all of `section` holds, or `None` where it is not what [`Self::encode`] made. Must
    /// neither panic nor allocate more than a multiple of `indices` whatever the section is.
    fn decode(&mut self, isa: Isa, section: &[u8], dependence: Dependence, indices: &mut [i32])
    -> Option<()>;
}

/// The codecs of this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum IndexBackend {
    /// Interleaved rANS with tables by segment (FORMAT.md, 3.3.5).
    #[default]
    Rans,
    /// Deflate (RFC 1951) over the bytes of the indices.
    Deflate,
    /// Zstd (RFC 8878) over the bytes of the indices.
    Zstd,
    /// Adaptive decisions without tables (FORMAT.md, 3.3.6): smallest for some ten thousand indices, and slow.
    Adaptive,
}

impl IndexBackend {
    /// A codec of this kind.
    #[must_use]
    pub fn codec(self) -> Box<dyn IndexCodec> {
        match self {
            Self::Rans => Box::<Rans>::default(),
            Self::Deflate => Box::<Deflate>::default(),
            Self::Zstd => Box::<Zstd>::default(),
            Self::Adaptive => Box::new(Adaptive),
        }
    }

    /// The codec of a wire id, if it is one of this crate's.
    pub(super) fn from_wire_id(id: u8) -> Option<Self> {
        [Self::Rans, Self::Deflate, Self::Zstd, Self::Adaptive]
            .into_iter()
            .find(|backend| *backend as u8 == id)
    }
}

#[derive(Default)]
struct Rans {
    encoder: IndexEncoder,
    decoder: IndexDecoder,
}

impl IndexCodec for Rans {
    fn wire_id(&self) -> u8 {
        IndexBackend::Rans as u8
    }

    fn encode(
        &mut self,
        isa: Isa,
        indices: &[i32],
        dependence: Dependence,
        row_lens: &[usize],
        dst: &mut Vec<u8>,
    ) -> Option<()> {
        self.encoder.encode(isa, indices, dependence, row_lens, dst);
        Some(())
    }

    fn decode(
        &mut self,
        isa: Isa,
        section: &[u8],
        dependence: Dependence,
        indices: &mut [i32],
    ) -> Option<()> {
        self.decoder.decode(isa, section, dependence, indices)
    }
}

/// Writes the width of an index in bytes (1, 2 or 4), then plane by plane the bytes of each index, its sign folded
/// into bit 0 (0, −1, 1, −2 … become 0, 1, 2, 3 …).
fn to_planes(indices: &[i32], planes: &mut Vec<u8>) {
    let fold = |index: i32| (index << 1 ^ index >> 31).cast_unsigned();
    let any = indices.iter().fold(0, |any, &index| any | fold(index));
    let width = match any {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        _ => 4_usize,
    };
    planes.clear();
    planes.push(width.to_le_bytes()[0]);
    for byte in 0..width {
        planes.extend(indices.iter().map(|&index| fold(index).to_le_bytes()[byte]));
    }
}

/// Reads what [`to_planes`] wrote.
fn from_planes(planes: &[u8], indices: &mut [i32]) -> Option<()> {
    let (&width, planes) = planes.split_first()?;
    if !matches!(width, 1 | 2 | 4) || planes.len() != usize::from(width) * indices.len() {
        return None;
    }
    indices.fill(0);
    if indices.is_empty() {
        return Some(());
    }
    for (byte, plane) in planes.chunks_exact(indices.len()).enumerate() {
        for (index, &bits) in indices.iter_mut().zip(plane) {
            *index |= (u32::from(bits) << (8 * byte)).cast_signed();
        }
    }
    for index in indices {
        let folded = index.cast_unsigned();
        *index = (folded >> 1).cast_signed() ^ -(folded & 1).cast_signed();
    }
    Some(())
}

/// Most bytes that planes of `n_indices` have.
fn max_planes_bytes(n_indices: usize) -> usize {
    1 + 4 * n_indices
}

#[derive(Default)]
struct Deflate {
    planes: Vec<u8>,
}

impl IndexCodec for Deflate {
    fn wire_id(&self) -> u8 {
        IndexBackend::Deflate as u8
    }

    fn encode(
        &mut self,
        _: Isa,
        indices: &[i32],
        _: Dependence,
        _: &[usize],
        dst: &mut Vec<u8>,
    ) -> Option<()> {
        to_planes(indices, &mut self.planes);
        let mut encoder = DeflateEncoder::new(dst, Compression::default());
        encoder.write_all(&self.planes).and_then(|()| encoder.try_finish()).ok()
    }

    fn decode(&mut self, _: Isa, section: &[u8], _: Dependence, indices: &mut [i32]) -> Option<()> {
        self.planes.clear();
        let most = max_planes_bytes(indices.len()) as u64;
        let mut decoder = DeflateDecoder::new(section).take(most + 1);
        decoder.read_to_end(&mut self.planes).ok()?;
        let used = decoder.into_inner().total_in();
        (used == section.len() as u64).then_some(())?;
        from_planes(&self.planes, indices)
    }
}

#[derive(Default)]
struct Zstd {
    planes: Vec<u8>,
}

impl IndexCodec for Zstd {
    fn wire_id(&self) -> u8 {
        IndexBackend::Zstd as u8
    }

    fn encode(
        &mut self,
        _: Isa,
        indices: &[i32],
        _: Dependence,
        _: &[usize],
        dst: &mut Vec<u8>,
    ) -> Option<()> {
        /// zstd's own default.
        const LEVEL: i32 = 3;
        to_planes(indices, &mut self.planes);
        dst.extend(zstd::bulk::compress(&self.planes, LEVEL).ok()?);
        Some(())
    }

    fn decode(&mut self, _: Isa, section: &[u8], _: Dependence, indices: &mut [i32]) -> Option<()> {
        let most = max_planes_bytes(indices.len());
        self.planes.clear();
        self.planes.resize(most, 0);
        let decoded_len = zstd::bulk::decompress_to_buffer(section, &mut self.planes).ok()?;
        from_planes(self.planes.get(..decoded_len)?, indices)
    }
}

struct Adaptive;

impl IndexCodec for Adaptive {
    fn wire_id(&self) -> u8 {
        IndexBackend::Adaptive as u8
    }

    fn encode(
        &mut self,
        _: Isa,
        indices: &[i32],
        dependence: Dependence,
        _: &[usize],
        dst: &mut Vec<u8>,
    ) -> Option<()> {
        encode_indices(indices, dependence == Dependence::Chains, dst);
        Some(())
    }

    fn decode(&mut self, _: Isa, section: &[u8], dependence: Dependence, indices: &mut [i32]) -> Option<()> {
        decode_indices(section, dependence == Dependence::Chains, indices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_gives_back_any_indices() {
        let lists: [Vec<i32>; 5] = [
            vec![],
            vec![0],
            vec![1, -1, 127, -128, 0, 5],
            (-3000..3000).collect(),
            vec![i32::MIN, i32::MAX, 0, -7, 1 << 22],
        ];
        for backend in [IndexBackend::Rans, IndexBackend::Deflate, IndexBackend::Zstd, IndexBackend::Adaptive]
        {
            let mut codec = backend.codec();
            assert_eq!(IndexBackend::from_wire_id(codec.wire_id()), Some(backend));
            for indices in lists.iter().filter(|list| !list.is_empty() || backend != IndexBackend::Rans) {
                let mut section = Vec::new();
                codec.encode(Isa::detect(), indices, Dependence::None, &[], &mut section).unwrap();
                let mut back = vec![77; indices.len()];
                assert_eq!(codec.decode(Isa::detect(), &section, Dependence::None, &mut back), Some(()));
                assert_eq!(&back, indices, "{backend:?}");
                assert_eq!(
                    codec.decode(Isa::detect(), &section[..section.len() - 1], Dependence::None, &mut back),
                    None
                );
                section.push(0);
                assert_eq!(
                    codec.decode(Isa::detect(), &section, Dependence::None, &mut back),
                    None,
                    "{backend:?}"
                );
            }
        }
        assert_eq!(IndexBackend::from_wire_id(FIRST_PRIVATE_ID), None);
    }
}
