//! The first layer: indices of cells. FORMAT.md section 3.9.

use super::{DTYPES, LayerDecoder, LayerEncoder, LayerStep, dtype_id, run_of};
use crate::bits::ByteCursor;
use crate::dtype::Dtype;
use crate::entropy::indices::Dependence;
use crate::kernels::Isa;
use crate::kernels::dyadic::{self, ESCAPE, FloatFormat, Offsets};
use crate::stage::payload::{le32, scratch};

impl LayerEncoder {
    /// Replaces the elements of `bytes` by those of the layer of `step`, and leaves their indices; gives the centers of
    /// the cells. `None` where the dtype has no layers or the step does not exist; `bytes` are then as they were.
    pub(in crate::stage) fn coarsen(
        &mut self,
        isa: Isa,
        step: LayerStep,
        dtype: Dtype,
        bytes: &mut [u8],
    ) -> Option<[u8; 2]> {
        let format = FloatFormat::of(dtype)?;
        let n_elements = bytes.len() / format.element_bytes;
        let mut offsets = Offsets::default();
        for (grid, run) in step.grids(format, [0; 2], n_elements)? {
            offsets.measure(isa, &grid, &bytes[run_of(bytes, &run, format.element_bytes)]);
        }
        let centers = offsets.centers();
        let indices = scratch(&mut self.indices, n_elements);
        for (grid, run) in step.grids(format, centers, n_elements)? {
            let range = run_of(bytes, &run, format.element_bytes);
            dyadic::indices(isa, &grid, &bytes[range.clone()], &mut indices[run.clone()]);
            dyadic::values(isa, &grid, &indices[run], &mut bytes[range])?;
        }
        Some(centers)
    }

    /// As [`Self::coarsen`], and appends the layer's payload to `dst`.
    pub(in crate::stage) fn encode_coarse(
        &mut self,
        isa: Isa,
        step: LayerStep,
        dtype: Dtype,
        bytes: &mut [u8],
        dst: &mut Vec<u8>,
    ) -> Option<()> {
        let centers = self.coarsen(isa, step, dtype, bytes)?;
        let unit_bytes = dtype.unit_bytes();
        let indices = &self.indices[..bytes.len() / unit_bytes];
        dst.extend([dtype_id(dtype)?, 0]);
        dst.extend(step.log2.to_le_bytes());
        dst.extend(le32(step.finer_len.min(indices.len())));
        dst.extend([centers[0], centers[1], 0, 0]);
        let escapes = || bytes.chunks_exact(unit_bytes).zip(indices).filter(|(_, index)| **index == ESCAPE);
        dst.extend(le32(escapes().count()));
        escapes().for_each(|(element, _)| dst.extend_from_slice(element));
        self.index_encoder.encode(isa, indices, Dependence::None, &[], dst);
        Some(())
    }
}

impl LayerDecoder {
    /// Fills `dst` with the elements of the first layer; `None` where `payload` breaks the format.
    pub(in crate::stage) fn decode_coarse(&mut self, isa: Isa, payload: &[u8], dst: &mut [u8]) -> Option<()> {
        let mut src = ByteCursor::new(payload);
        let [dtype_id, 0] = src.array::<2>()? else { return None };
        let dtype = *DTYPES.get(usize::from(dtype_id))?;
        let format = FloatFormat::of(dtype)?;
        let log2 = src.u16()?;
        let finer_len = usize::try_from(src.u32()?).ok()?;
        let [next_to_zero, others, 0, 0] = src.array::<4>()? else { return None };
        let n_escapes = usize::try_from(src.u32()?).ok()?;
        let unit_bytes = format.element_bytes;
        let n_elements = dst.len() / unit_bytes;
        if !dst.len().is_multiple_of(unit_bytes) || finer_len > n_elements || n_escapes > n_elements {
            return None;
        }
        let grids = LayerStep { log2, finer_len }.grids(format, [next_to_zero, others], n_elements)?;
        let mut escapes = src.take(n_escapes * unit_bytes)?.chunks_exact(unit_bytes);
        let indices = scratch(&mut self.indices, n_elements);
        self.index_decoder.decode(isa, src.rest(), Dependence::None, indices)?;
        for (grid, run) in grids {
            let range = run_of(dst, &run, unit_bytes);
            dyadic::values(isa, &grid, &indices[run], &mut dst[range])?;
        }
        for (element, _) in
            dst.chunks_exact_mut(unit_bytes).zip(indices).filter(|(_, index)| **index == ESCAPE)
        {
            element.copy_from_slice(escapes.next()?);
        }
        escapes.next().is_none().then_some(())
    }
}
