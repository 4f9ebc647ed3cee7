//! A slice of elements to an archive in memory and back, without a file or a header around it.
//!
//! The archive is an ordinary one (FORMAT.md): written to a file it is read by `alcm decompress`, which gives the
//! elements' bytes. Single blocks without any container are [`crate::stage`]'s.

use bytemuck::{NoUninit, Pod};

use super::context::Context;
use super::decode::{DecodeMemory, FileDecoder, Job as DecodeJob, Records, Sink, check_hashes};
use super::encode::{EncodeMemory, EncodeSettings, FileEncoder, Job, is_small};
use super::note::encoder_note;
use super::verify::whole_file;
use crate::checkpoint::{BlockSpan, Region, blocks};
use crate::container::{Archive, no_other_files};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::stage::Level;

/// Elements as [`compress_elements`] takes them.
#[derive(Debug, Clone, Copy)]
pub struct Elements<'a, T> {
    /// What they are. Where Rust has no such type, `T` is an integer of that size, such as `u16` for bf16, or `u8`.
    pub dtype: Dtype,
    /// The elements in C order.
    pub values: &'a [T],
    /// Elements of one row, the last dimension of the shape `[n_rows, row_len]`: a hint for finding structure along
    /// columns. 0 where there is none.
    pub row_len: usize,
}

/// Compresses `elements` to an archive, its blocks in parallel on the context's threads. The same elements and level
/// give the same bytes, whatever the threads and instruction set. Floats of up to 512 KiB are coded to be small above all, both
/// ways at some five million elements a second, but for [`Level::Fast`].
///
/// # Errors
/// [`ErrorKind::InvalidInput`] where `T` is neither a byte nor of the dtype's size, or the bytes are no whole number
/// of elements.
pub fn compress_elements<T: NoUninit>(
    ctx: &Context<'_>,
    elements: Elements<'_, T>,
    level: Level,
) -> Result<Vec<u8>> {
    let Elements { dtype, values, row_len } = elements;
    check_width::<T>(dtype)?;
    let bytes: &[u8] = bytemuck::cast_slice(values);
    if !bytes.len().is_multiple_of(dtype.unit_bytes()) {
        let message = format!("{} bytes are no whole number of {} elements", bytes.len(), dtype.name());
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    let block_bytes = dtype.block_bytes();
    let region = Region { offset: 0, len: bytes.len() as u64, dtype, row_len, block_bytes };
    let regions = [region];
    let regions = if bytes.is_empty() { &[][..] } else { &regions };
    let mut spans = blocks(regions);
    let mut next_job = || Ok(spans.next().map(|span| Job { span, reference: None, near: None, bytes: None }));
    let fetch = |span: &BlockSpan, dst: &mut [u8]| {
        let start = usize::try_from(span.offset).ok();
        let source = start.and_then(|start| bytes.get(start..)?.get(..span.len));
        let outside = || Error::new(ErrorKind::Internal, "a block outside the elements");
        dst.copy_from_slice(source.ok_or_else(outside)?);
        Ok(())
    };
    let settings = EncodeSettings {
        level,
        note: encoder_note(level, false),
        flags: 0,
        is_small: is_small(level, region.len),
        sha256: false,
        file_idx: 0,
        serial: false,
    };
    let memory = EncodeMemory::default();
    let encoder = FileEncoder::new(ctx, &memory, settings);
    let mut archive = Vec::new();
    ctx.pool.install(|| encoder.run(&mut next_job, &fetch, &mut archive))?;
    Ok(archive)
}

/// Fills `dst` with the elements of `archive`, which [`compress_elements`] made or which holds any file of that size,
/// and checks every checksum and the content hash.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] where `dst` has another size than the original, or `T` another than the dtype of a
/// block; what is wrong with the archive. `dst` then holds unspecified values.
pub fn decompress_elements<T: Pod>(ctx: &Context<'_>, archive: &[u8], dst: &mut [T]) -> Result<()> {
    let archive = Archive::open(archive, &ctx.limits)?;
    let mut dst: &mut [u8] = bytemuck::cast_slice_mut(dst);
    if archive.original_bytes() != dst.len() as u64 {
        let message =
            format!("buffer of {} bytes for an original of {}", dst.len(), archive.original_bytes());
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    if size_of::<T>() > 1 {
        archive.blocks().try_for_each(|entry| check_width::<T>(entry.dtype))?;
    }
    let mut entries = archive.blocks();
    let mut next_job = || Ok(entries.next().map(|entry| DecodeJob { entry, owned: None }));
    let memory = DecodeMemory::default();
    let records = Records::Archive(&archive, &no_other_files);
    let decoder = FileDecoder::new(ctx, &memory, records, whole_file(0, false, false));
    let decoded = ctx.pool.install(|| decoder.run(&mut next_job, Sink::Stream(&mut dst)))?;
    check_hashes(&decoded, archive.content_hash(), None)
}

/// Checks that values of `T` can stand for elements of `dtype`.
fn check_width<T>(dtype: Dtype) -> Result<()> {
    let width = size_of::<T>();
    if width != 1 && width != dtype.unit_bytes() {
        let message = format!("values of {width} bytes given for elements of {}", dtype.name());
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    if width > 1 && cfg!(target_endian = "big") {
        let message = "this machine's numbers are big-endian: pass the elements as little-endian bytes";
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap()
    }

    #[test]
    fn elements_come_back_and_wrong_sizes_are_refused() {
        let pool = pool();
        let ctx = Context::new(&pool);
        let values: Vec<f32> = (0..=u16::MAX).cycle().take(300_000).map(|i| f32::from(i) * 1e-3).collect();
        for n in [0, 1, 1000, 300_000] {
            let elements = Elements { dtype: Dtype::F32, values: &values[..n], row_len: 100 };
            let archive = compress_elements(&ctx, elements, Level::Default).unwrap();
            let mut back = vec![f32::NAN; n];
            decompress_elements(&ctx, &archive, &mut back).unwrap();
            assert_eq!(back, values[..n]);
            let mut short = vec![0f32; n + 1];
            let error = decompress_elements(&ctx, &archive, &mut short).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
        let wrong = Elements { dtype: Dtype::F64, values: &values[..8], row_len: 0 };
        assert_eq!(compress_elements(&ctx, wrong, Level::Fast).unwrap_err().kind(), ErrorKind::InvalidInput);
        let odd = Elements { dtype: Dtype::F64, values: &[0u8; 9], row_len: 0 };
        assert_eq!(compress_elements(&ctx, odd, Level::Fast).unwrap_err().kind(), ErrorKind::InvalidInput);
        let right = Elements { dtype: Dtype::F32, values: &values[..8], row_len: 0 };
        let archive = compress_elements(&ctx, right, Level::Fast).unwrap();
        let error = decompress_elements(&ctx, &archive, &mut [0f64; 4]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn damage_is_found() {
        let pool = pool();
        let ctx = Context::new(&pool);
        let values: Vec<u16> = (0..5000).map(|i| 0x3c00 | (i % 1000)).collect();
        let elements = Elements { dtype: Dtype::Bf16, values: &values, row_len: 0 };
        let archive = compress_elements(&ctx, elements, Level::Default).unwrap();
        let mut back = vec![0u16; values.len()];
        for at in (0..archive.len()).step_by(37) {
            let mut damaged = archive.clone();
            damaged[at] ^= 0x10;
            assert!(decompress_elements(&ctx, &damaged, &mut back).is_err(), "byte {at}");
        }
    }
}
