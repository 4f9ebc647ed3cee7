//! Pipes of any length in bounded memory.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::Instant;

use super::bases::ArchivePaths;
use super::context::Context;
use super::decode::{DecodeMemory, FileDecoder, Job as DecodeJob, Records, Sink, check_hashes};
use super::encode::{EncodeMemory, EncodeSettings, FileEncoder, Job, is_small};
use super::layer_choice::LayerChoice;
use super::note::encoder_note;
use super::report::Report;
use super::settings::{AsBytes, CodingSettings};
use super::verify::{decode_archive_file, whole_file};
use crate::checkpoint::{
    BlockSpan, NumberFinder, Region, SafetensorsHeader, blocks, gguf_layout, layout, read_from,
};
use crate::container::{FLAG_LAYER, FLAG_REFERENCES, FileHeader, HEADER_BYTES, StreamReader, read_up_to};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};

/// Compresses all of `source` to `sink`. A stream that begins as a safetensors or a GGUF file does is cut by its header, and
/// what does not follow it is coded as plain bytes; in any other stream runs of numbers are told from bytes. Identical tensors
/// are not found, as that needs going back.
///
/// # Errors
/// [`ErrorKind::Io`].
pub fn compress_stream(
    ctx: &Context<'_>,
    mut source: impl Read + Send,
    sink: &mut (dyn Write + Send),
    coding: &CodingSettings,
) -> Result<Report> {
    let start = Instant::now();
    ctx.progress.begin(0);
    let (prefix, regions) = match coding.as_bytes {
        AsBytes::All => (Vec::new(), None),
        AsBytes::Never | AsBytes::Malformed => read_prefix(&mut source, ctx)?,
    };
    let settings = EncodeSettings {
        level: coding.level,
        note: encoder_note(coding.level, coding.as_bytes == AsBytes::All),
        flags: 0,
        // What a header tells of; of other streams the length is not known.
        is_small: regions
            .as_deref()
            .and_then(<[Region]>::last)
            .is_some_and(|last| is_small(coding.level, last.offset.saturating_add(last.len))),
        sha256: coding.sha256,
        file_idx: 0,
        serial: false,
    };
    let memory = EncodeMemory::default();
    let mut source = prefix.as_slice().chain(source);
    let mut spans = blocks(regions.as_deref().unwrap_or_default());
    let mut offset = 0;
    let mut finder = (regions.is_none() && coding.as_bytes != AsBytes::All).then(NumberFinder::default);
    let mut pending: VecDeque<Job> = VecDeque::new();
    // After the header's blocks, or where the stream is shorter than they, plain bytes to the end.
    let mut next_job = || -> Result<Option<Job>> {
        if let Some(job) = pending.pop_front() {
            return Ok(Some(job));
        }
        let plain = |len| BlockSpan { offset, len, dtype: Dtype::Bytes, row_len: 0, row_start: 0 };
        let mut span = spans.next().unwrap_or_else(|| plain(Dtype::Bytes.block_bytes()));
        let mut bytes = memory.buffer(span.len);
        let read_len = read_up_to(&mut source, &mut bytes).map_err(cannot_read)?;
        bytes.truncate(read_len);
        if read_len < span.len {
            span = plain(read_len);
        }
        let from = offset;
        offset += read_len as u64;
        let Some(finder) = &mut finder else {
            return Ok((read_len > 0).then_some(Job {
                span,
                reference: None,
                near: None,
                bytes: Some(bytes),
            }));
        };
        pending.extend(told_apart(finder, from, &bytes, &memory)?);
        memory.give_back(bytes);
        Ok(pending.pop_front())
    };
    let no_fetch = |_: &BlockSpan, _: &mut [u8]| {
        Err(Error::new(ErrorKind::Internal, "a stream's block without its bytes"))
    };
    let encoder = FileEncoder::new(ctx, &memory, settings);
    let encoded = ctx.pool.install(|| encoder.run(&mut next_job, &no_fetch, sink))?;
    let mut report = encoded.report;
    report.timings.add(&memory.into_timings());
    report.elapsed = start.elapsed();
    Ok(report)
}

/// The blocks of numbers and bytes that the next `bytes` of a stream, those from `offset` on, are taken for.
fn told_apart(
    finder: &mut NumberFinder,
    offset: u64,
    bytes: &[u8],
    memory: &EncodeMemory,
) -> Result<Vec<Job>> {
    const WINDOW_BYTES: u64 = 256 << 10;
    let read = read_from(bytes);
    let regions = finder.regions(bytes.len() as u64, WINDOW_BYTES, &read)?;
    let part = |span: BlockSpan| {
        let mut part = memory.buffer(span.len);
        read(span.offset, &mut part)?;
        let span = BlockSpan { offset: offset + span.offset, ..span };
        Ok(Job { span, reference: None, near: None, bytes: Some(part) })
    };
    blocks(&regions).map(part).collect()
}

/// The first bytes of `source`, and the regions that a header there tells of.
fn read_prefix(source: &mut impl Read, ctx: &Context<'_>) -> Result<(Vec<u8>, Option<Vec<Region>>)> {
    // A header's length and the brace that its JSON begins with.
    let mut prefix = vec![0; 9];
    let read_len = read_up_to(source, &mut prefix).map_err(cannot_read)?;
    prefix.truncate(read_len);
    if prefix.starts_with(b"GGUF") {
        return read_gguf_prefix(source, prefix, ctx);
    }
    if prefix.get(8) != Some(&b'{') {
        return Ok((prefix, None));
    }
    let Ok(prefix_len) = SafetensorsHeader::prefix_len(&prefix, None, &ctx.limits) else {
        return Ok((prefix, None));
    };
    let rest_len = prefix_len.saturating_sub(prefix.len() as u64);
    // Grows with what arrives, whatever the length claims.
    source.by_ref().take(rest_len).read_to_end(&mut prefix).map_err(cannot_read)?;
    let header = SafetensorsHeader::parse(&prefix, None, &ctx.limits).ok();
    Ok((prefix, header.as_ref().map(layout)))
}

/// The same of a GGUF file, whose header does not tell its length: twice as much is read each time until it is whole.
fn read_gguf_prefix(
    source: &mut impl Read,
    mut prefix: Vec<u8>,
    ctx: &Context<'_>,
) -> Result<(Vec<u8>, Option<Vec<Region>>)> {
    const FIRST_READ: u64 = 1 << 20;
    let mut most = FIRST_READ.min(ctx.limits.header_bytes);
    loop {
        let missing = most.saturating_sub(prefix.len() as u64);
        source.by_ref().take(missing).read_to_end(&mut prefix).map_err(cannot_read)?;
        let regions = gguf_layout(&prefix, None, &ctx.limits);
        let is_last = (prefix.len() as u64) < most || most >= ctx.limits.header_bytes;
        if regions.is_some() || is_last {
            return Ok((prefix, regions));
        }
        most = (2 * most).min(ctx.limits.header_bytes);
    }
}

/// Decompresses the archive that `source` is to `sink`. An archive with references or layers is first
/// copied to a temporary file, because they need going back.
///
/// What is written before an error is to be thrown away: the archive is known to be whole only at its end.
///
/// # Errors
/// [`ErrorKind::Io`], and what is wrong with the archive.
pub fn decompress_stream(
    ctx: &Context<'_>,
    source: impl Read + Send,
    sink: &mut (dyn Write + Send),
) -> Result<Report> {
    decompress_stream_layer(ctx, source, sink, LayerChoice::Finest)
}

/// As [`decompress_stream`], of the layer `layer`.
///
/// # Errors
/// As [`decompress_stream`]; [`ErrorKind::InvalidConfig`] for a layer that is not there.
pub fn decompress_stream_layer(
    ctx: &Context<'_>,
    mut source: impl Read + Send,
    sink: &mut (dyn Write + Send),
    layer: LayerChoice,
) -> Result<Report> {
    let start = Instant::now();
    ctx.progress.begin(0);
    let mut first = [0; HEADER_BYTES];
    let first_len = read_up_to(&mut source, &mut first).map_err(cannot_read)?;
    let first = first.get(..first_len).unwrap_or_default();
    let mut source = first.chain(source);
    let memory = DecodeMemory::default();
    let mut report = if FileHeader::parse(first)?.flags & (FLAG_REFERENCES | FLAG_LAYER) == 0 {
        decode_forward(ctx, &memory, &mut source, sink)?
    } else {
        decode_spooled(ctx, &memory, &mut source, sink, layer)?
    };
    report.files = 1;
    report.timings.add(&memory.into_timings());
    report.elapsed = start.elapsed();
    Ok(report)
}

fn decode_forward(
    ctx: &Context<'_>,
    memory: &DecodeMemory,
    source: &mut (impl Read + Send),
    sink: &mut (dyn Write + Send),
) -> Result<Report> {
    let mut reader = StreamReader::new(source, &ctx.limits)?;
    // Whether there is a SHA-256 is known only at the end; the BLAKE3 is always there, and faster.
    let settings = whole_file(0, false, false);
    let decoder = FileDecoder::new(ctx, memory, Records::Owned, settings);
    let mut next_job = || -> Result<Option<DecodeJob>> {
        let mut payload = memory.payload();
        let record = reader.next_block(&mut payload)?.map(|record| (record.entry, record.decoded_crc));
        Ok(record.map(|(entry, decoded_crc)| DecodeJob { entry, owned: Some((payload, decoded_crc)) }))
    };
    let decoded = ctx.pool.install(|| decoder.run(&mut next_job, Sink::Stream(sink)))?;
    let end = reader.finish()?;
    check_hashes(&decoded, &end.content_hash, end.sha256.as_ref())?;
    let mut report = decoded.report;
    report.original_bytes = end.original_bytes;
    report.stored_bytes = end.archive_bytes;
    Ok(report)
}

fn decode_spooled(
    ctx: &Context<'_>,
    memory: &DecodeMemory,
    source: &mut impl Read,
    sink: &mut (dyn Write + Send),
    layer: LayerChoice,
) -> Result<Report> {
    let cannot_spool = |e| Error::io("cannot copy the archive to a temporary file", e);
    let mut spool = tempfile::NamedTempFile::new().map_err(cannot_spool)?;
    copy(source, spool.as_file_mut())?;
    let settings = whole_file(0, false, true);
    let (path, none) = (spool.path(), ArchivePaths::new());
    ctx.pool
        .install(|| decode_archive_file(ctx, memory, path, &none, None, layer, Sink::Stream(sink), settings))
        .map(|checked| checked.report)
}

fn copy(source: &mut impl Read, spool: &mut File) -> Result<()> {
    let cannot_spool = |e| Error::io("cannot copy the archive to a temporary file", e);
    std::io::copy(source, spool).map_err(cannot_spool)?;
    spool.seek(SeekFrom::Start(0)).map(|_| ()).map_err(cannot_spool)
}

fn cannot_read(source: std::io::Error) -> Error {
    Error::io("cannot read", source)
}
