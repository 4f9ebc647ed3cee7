//! One payload to one block: what [`super::BlockEncoder`] made of it.

use super::delta::DeltaDecoder;
use super::fields::FieldDecoder;
use super::layered::LayerDecoder;
use super::payload::corrupt;
use super::quantized::QuantizedDecoder;
use super::sparse::SparseDecoder;
use super::zstd_frame::ZstdDecoder;
use super::{Coding, IndexCodec, adaptive, constant, records};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::Isa;
use crate::kernels::crc64::{Folded, RunningCrc};
use crate::limits::MAX_BLOCK_BYTES;

/// Decodes blocks, reusing its scratch memory; one for each worker thread.
pub struct BlockDecoder {
    pub(super) isa: Isa,
    pub(super) fields: FieldDecoder,
    pub(super) sparse: SparseDecoder,
    pub(super) zstd: ZstdDecoder,
    pub(super) quantized: QuantizedDecoder,
    pub(super) layers: LayerDecoder,
    pub(super) delta: DeltaDecoder,
    pub(super) dense: Vec<u8>,
    pub(super) indices: Vec<u8>,
    pub(super) runs: Vec<u8>,
    pub(super) singles: Vec<f32>,
}

impl std::fmt::Debug for BlockDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockDecoder").field("isa", &self.isa).finish_non_exhaustive()
    }
}

impl BlockDecoder {
    /// A decoder whose kernels run on `isa`; the result is the same for every `isa`.
    #[must_use]
    pub fn new(isa: Isa) -> Self {
        Self {
            isa,
            fields: FieldDecoder::default(),
            sparse: SparseDecoder::default(),
            zstd: ZstdDecoder::new(),
            quantized: QuantizedDecoder::default(),
            layers: LayerDecoder::default(),
            delta: DeltaDecoder::default(),
            dense: Vec::new(),
            indices: Vec::new(),
            runs: Vec::new(),
            singles: Vec::new(),
        }
    }

    /// Takes a codec of the caller's for the blocks of its id.
    pub fn set_index_codec(&mut self, codec: Box<dyn IndexCodec>) {
        self.quantized.set_codec(codec);
    }

    /// Fills `dst` with the elements of `payload`. `dst.len()` is the block's decoded size and at most
    /// [`crate::limits::MAX_BLOCK_BYTES`].
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] where the payload breaks the format; `dst` then holds unspecified bytes.
    pub fn decode(&mut self, coding: Coding, dtype: Dtype, payload: &[u8], dst: &mut [u8]) -> Result<()> {
        self.decode_folded(coding, dtype, payload, dst).map(|_| ())
    }

    /// Like [`Self::decode`], for those who want the CRC of `dst`: returns what has been folded of it on the way, for
    /// [`crate::container::crc64_from`].
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_folded(
        &mut self,
        coding: Coding,
        dtype: Dtype,
        payload: &[u8],
        dst: &mut [u8],
    ) -> Result<Folded> {
        if dst.len() > MAX_BLOCK_BYTES {
            return Err(Error::new(ErrorKind::LimitExceeded, format!("a block of {} bytes", dst.len())));
        }
        match coding {
            Coding::Fields => return self.decode_fields(payload, dst),
            Coding::Quantized => {
                let mut crc = RunningCrc::new();
                self.quantized.decode(self.isa, payload, dst, &mut |bytes| crc.update(bytes))?;
                return Ok(crc.folded());
            }
            Coding::Sparse => self.decode_sparse(dtype, payload, dst),
            Coding::Scaled => self.decode_scaled(dtype, payload, dst),
            Coding::Palette => self.decode_palette(dtype, payload, dst),
            Coding::Differences => self.decode_differences(dtype, payload, dst),
            Coding::RankOne => self.decode_rank_one(dtype, payload, dst),
            _ => self.decode_dense(coding, dtype, payload, dst),
        }?;
        Ok(Folded::new())
    }

    pub(super) fn decode_fields(&mut self, payload: &[u8], dst: &mut [u8]) -> Result<Folded> {
        self.fields.decode(self.isa, payload, &mut self.zstd.planes, dst)
    }

    pub(super) fn decode_dense(
        &mut self,
        coding: Coding,
        dtype: Dtype,
        payload: &[u8],
        dst: &mut [u8],
    ) -> Result<()> {
        match coding {
            Coding::Stored if payload.len() == dst.len() => {
                dst.copy_from_slice(payload);
                Ok(())
            }
            Coding::Stored => Err(corrupt("a stored block's payload has another size than the block")),
            Coding::Constant => constant::decode(dtype, payload, dst),
            Coding::Zstd => self.zstd.decode(payload, dst),
            Coding::Records => {
                let rans12 = self.fields.rans12();
                let buffers = [&mut self.dense, &mut self.indices];
                records::decode(self.isa, payload, &mut self.zstd.planes, rans12, buffers, dst)
            }
            Coding::Fields => self.decode_fields(payload, dst).map(|_| ()),
            Coding::Quantized => self.quantized.decode(self.isa, payload, dst, &mut |_| {}),
            Coding::Adaptive => adaptive::decode(payload, dst),
            Coding::Coarse => {
                let decoded = self.layers.decode_coarse(self.isa, payload, dst);
                decoded.ok_or_else(|| corrupt("the coarse block breaks the format"))
            }
            Coding::Refined => Err(corrupt("a refined block without the layer before")),
            Coding::Delta => Err(corrupt("a delta block without the block that it is like")),
            Coding::Sparse
            | Coding::Scaled
            | Coding::Palette
            | Coding::Differences
            | Coding::RankOne
            | Coding::Reference => Err(Error::new(ErrorKind::Internal, "this coding is not decoded here")),
        }
    }
}
