//! One archive to one run of bytes: blocks of a batch in parallel, each written where it belongs.

use std::io::Write;
use std::ops::Range;

use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use super::context::{Checkout, Context, MAX_BATCH_BLOCKS};
use super::durable::DurableFile;
use super::report::Report;
use super::timings::{Step, Timings};
use crate::container::{
    Archive, BlockEntry, BlockRecord, ContentHash, ContentHasher, Piece, Resolver, decode_block,
};
use crate::error::{Error, ErrorKind, Result};
use crate::stage::BlockDecoder;

/// Where decoded bytes go.
pub(crate) enum Sink<'s> {
    /// To their own place in a file, from any thread.
    File(&'s DurableFile),
    /// In order.
    Stream(&'s mut (dyn Write + Send)),
    /// Nowhere: they are only checked.
    Nothing,
}

/// Where records come from.
#[derive(Clone, Copy)]
pub(crate) enum Records<'a> {
    /// A mapped archive and what finds other files' blocks.
    Archive(&'a Archive<'a>, &'a Resolver<'a>),
    /// The jobs themselves, which were read in order.
    Owned,
}

/// A block to be decoded.
pub(crate) struct Job {
    /// Its entry.
    pub(crate) entry: BlockEntry,
    /// Its payload and the CRC of its decoded bytes, where it was read in order.
    pub(crate) owned: Option<(Vec<u8>, u64)>,
}

struct Decoded {
    entry: BlockEntry,
    piece: Option<Piece>,
    /// The bytes, where they are needed in order.
    bytes: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
}

struct Scratch {
    decoder: BlockDecoder,
    timings: Timings,
}

/// Memory shared by all files of a run.
#[derive(Default)]
pub(crate) struct DecodeMemory {
    scratch: Checkout<Scratch>,
    /// Apart from the payloads, so that they keep their length and are not filled with zeros again.
    buffers: Checkout<Vec<u8>>,
    payloads: Checkout<Vec<u8>>,
}

impl DecodeMemory {
    /// A buffer of any length for a payload.
    pub(crate) fn payload(&self) -> Vec<u8> {
        self.payloads.take(Vec::new)
    }

    /// The tasks' times.
    pub(crate) fn into_timings(self) -> Timings {
        let mut timings = Timings::default();
        self.scratch.into_idle().iter().for_each(|scratch| timings.add(&scratch.timings));
        timings
    }
}

/// How one archive is decoded.
#[derive(Debug, Clone)]
pub(crate) struct DecodeSettings {
    /// The original's bytes that are wanted; blocks may reach past it on either side.
    pub(crate) range: Range<u64>,
    /// Whether to hash; for a whole file only.
    pub(crate) hash: bool,
    /// Whether to compute a SHA-256 too.
    pub(crate) sha256: bool,
    /// Number of the file, for the progress.
    pub(crate) file_idx: usize,
    /// Whether to stay on the calling thread.
    pub(crate) serial: bool,
}

/// What was decoded.
#[derive(Debug)]
pub(crate) struct DecodedFile {
    /// BLAKE3 of the bytes, where it was asked for.
    pub(crate) content_hash: Option<ContentHash>,
    /// SHA-256 of the bytes, where it was asked for.
    pub(crate) sha256: Option<[u8; 32]>,
    /// Blocks by dtype and times.
    pub(crate) report: Report,
}

/// Decodes one archive.
pub(crate) struct FileDecoder<'a> {
    ctx: &'a Context<'a>,
    memory: &'a DecodeMemory,
    records: Records<'a>,
    settings: DecodeSettings,
}

impl<'a> FileDecoder<'a> {
    pub(crate) fn new(
        ctx: &'a Context<'a>,
        memory: &'a DecodeMemory,
        records: Records<'a>,
        settings: DecodeSettings,
    ) -> Self {
        Self { ctx, memory, records, settings }
    }

    /// Decodes the blocks that `next_job` gives, in order. Must be called within the pool unless serial.
    pub(crate) fn run(
        &self,
        next_job: &mut (dyn FnMut() -> Result<Option<Job>> + Send),
        mut sink: Sink<'_>,
    ) -> Result<DecodedFile> {
        let mut hasher = self.settings.hash.then(ContentHasher::new);
        let mut sha256 = self.settings.sha256.then(Sha256::new);
        let mut report = Report::default();
        loop {
            let batch = self.next_batch(next_job)?;
            if batch.is_empty() {
                break;
            }
            for decoded in self.decode_batch(batch, &sink)? {
                let entry = decoded.entry;
                report.timings.time(Step::Hash, || {
                    if let (Some(sha256), Some(bytes)) = (&mut sha256, &decoded.bytes) {
                        sha256.update(bytes);
                    }
                    hasher.as_mut().zip(decoded.piece.as_ref()).map_or(Ok(()), |(h, piece)| h.push(piece))
                })?;
                if let (Sink::Stream(stream), Some(bytes)) = (&mut sink, &decoded.bytes) {
                    let wanted = wanted(&self.settings.range, &entry);
                    let wanted = bytes.get(wanted).unwrap_or_default();
                    report.timings.time(Step::Write, || stream.write_all(wanted)).map_err(cannot_write)?;
                }
                report.add_block(entry.dtype, entry.decoded_bytes.into(), entry.info().record_bytes());
                self.ctx.progress.advanced(self.settings.file_idx, entry.decoded_bytes.into());
                decoded.bytes.into_iter().for_each(|bytes| self.memory.buffers.put(bytes));
                decoded.payload.into_iter().for_each(|payload| self.memory.payloads.put(payload));
            }
        }
        if let Sink::Stream(stream) = sink {
            stream.flush().map_err(cannot_write)?;
        }
        Ok(DecodedFile {
            content_hash: hasher.map(ContentHasher::finalize),
            sha256: sha256.map(|sha256| sha256.finalize().into()),
            report,
        })
    }

    fn next_batch(&self, next_job: &mut (dyn FnMut() -> Result<Option<Job>> + Send)) -> Result<Vec<Job>> {
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        while batch_bytes < self.ctx.batch_bytes() && batch.len() < MAX_BATCH_BLOCKS {
            let Some(job) = next_job()? else { break };
            batch_bytes += job.entry.decoded_bytes as usize;
            batch.push(job);
        }
        Ok(batch)
    }

    fn decode_batch(&self, batch: Vec<Job>, sink: &Sink<'_>) -> Result<Vec<Decoded>> {
        let file = if let Sink::File(file) = sink { Some(*file) } else { None };
        let keep = self.settings.sha256 || matches!(sink, Sink::Stream(_));
        let decode = |job| {
            let mut scratch = self
                .memory
                .scratch
                .take(|| Scratch { decoder: BlockDecoder::new(self.ctx.isa), timings: Timings::default() });
            let decoded = self.decode_job(job, file, keep, &mut scratch);
            self.memory.scratch.put(scratch);
            decoded
        };
        let decoded: Vec<Result<Decoded>> = if self.settings.serial {
            batch.into_iter().map(decode).collect()
        } else {
            batch.into_par_iter().with_max_len(1).map(decode).collect()
        };
        // The first error in the file's order, whichever thread met one first.
        decoded.into_iter().collect()
    }

    fn decode_job(
        &self,
        job: Job,
        file: Option<&DurableFile>,
        keep: bool,
        scratch: &mut Scratch,
    ) -> Result<Decoded> {
        let Job { entry, owned } = job;
        let Scratch { decoder, timings } = scratch;
        let mut bytes = self.memory.buffers.take(Vec::new);
        bytes.resize(entry.decoded_bytes as usize, 0);
        match (&self.records, &owned) {
            (Records::Archive(archive, resolver), _) => {
                timings.time(Step::Decode, || archive.decode_entry(&entry, decoder, resolver, &mut bytes))?;
            }
            (Records::Owned, Some((payload, decoded_crc))) => {
                let record = BlockRecord { entry, decoded_crc: *decoded_crc, payload };
                timings.time(Step::Decode, || decode_block(&record, decoder, &mut bytes))?;
            }
            (Records::Owned, None) => {
                return Err(Error::new(ErrorKind::Internal, "a block without its record"));
            }
        }
        let hashed = self.settings.hash;
        let piece = hashed.then(|| timings.time(Step::Hash, || Piece::hash(entry.original_offset, &bytes)));
        if let Some(file) = file {
            let place = entry.original_offset;
            timings.time(Step::Write, || file.write_all_at(&bytes, place))?;
        }
        let bytes = if keep {
            Some(bytes)
        } else {
            self.memory.buffers.put(bytes);
            None
        };
        Ok(Decoded { entry, piece, bytes, payload: owned.map(|(payload, _)| payload) })
    }
}

/// The part of a block's bytes that lies in `range`.
fn wanted(range: &Range<u64>, entry: &BlockEntry) -> Range<usize> {
    let within = |offset: u64| {
        let relative = offset.clamp(entry.original_offset, entry.original_end()) - entry.original_offset;
        usize::try_from(relative).unwrap_or(usize::MAX)
    };
    within(range.start)..within(range.end)
}

/// Checks what was decoded against the recorded hashes.
pub(crate) fn check_hashes(
    decoded: &DecodedFile,
    content_hash: &ContentHash,
    sha256: Option<&[u8; 32]>,
) -> Result<()> {
    let wrong = |name: &str| {
        Err(Error::new(ErrorKind::ChecksumMismatch, format!("decoded file differs from its recorded {name}")))
    };
    match (&decoded.content_hash, &decoded.sha256, sha256) {
        (Some(found), _, _) if found != content_hash => wrong("BLAKE3"),
        (_, Some(found), Some(recorded)) if found != recorded => wrong("SHA-256"),
        _ => Ok(()),
    }
}

fn cannot_write(source: std::io::Error) -> Error {
    Error::io("cannot write", source)
}
