//! One archive to one run of bytes: blocks in parallel, while those before them are written.

use std::io::Write;
use std::ops::Range;

use sha2::{Digest as _, Sha256};

use super::buffers::{Buffer, Buffers};
use super::context::{Checkout, Context};
use super::durable::DurableFile;
use super::gather::Gather;
use super::in_order::run_in_order;
use super::report::Report;
use super::timings::{Step, Timings};
use crate::container::{
    Archive, BlockEntry, BlockRecord, ContentHash, ContentHasher, Piece, Resolver, decode_block,
};
use crate::error::{Error, ErrorKind, Result};
use crate::stage::BlockDecoder;

/// Where decoded bytes go.
pub(crate) enum Sink<'s> {
    /// To a new file; all of it is decoded.
    File(&'s mut DurableFile),
    /// To a stream, at once.
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
    bytes: Buffer,
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
    buffers: Buffers,
    /// Of records that are read in order; they begin empty.
    payloads: Buffers,
}

impl DecodeMemory {
    /// A buffer of any length for a payload.
    pub(crate) fn payload(&self) -> Vec<u8> {
        self.payloads.take()
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
        let mut committer = Committer {
            sink: &mut sink,
            gathered: Gather::default(),
            hasher: self.settings.hash.then(ContentHasher::new),
            sha256: self.settings.sha256.then(Sha256::new),
            report: Report::default(),
        };
        let mut next_sized = || {
            let sized = |job: Job| {
                let len = job.entry.decoded_bytes as usize;
                (job, len)
            };
            Ok(next_job()?.map(sized))
        };
        let make_scratch =
            || Scratch { decoder: BlockDecoder::new(self.ctx.isa), timings: Timings::default() };
        run_in_order(
            (!self.settings.serial).then_some(self.ctx.pool),
            self.ctx.window_bytes(),
            &mut next_sized,
            (&self.memory.scratch, make_scratch),
            |job, scratch| self.decode_job(job, scratch),
            &mut |decoded| committer.commit(decoded, self),
        )?;
        committer.write(self.memory)?;
        let Committer { hasher, sha256, report, .. } = committer;
        match sink {
            Sink::Stream(stream) => stream.flush().map_err(cannot_write)?,
            Sink::File(file) => file.trim()?,
            Sink::Nothing => {}
        }
        Ok(DecodedFile {
            content_hash: hasher.map(ContentHasher::finalize),
            sha256: sha256.map(|sha256| sha256.finalize().into()),
            report,
        })
    }

    fn decode_job(&self, job: Job, scratch: &mut Scratch) -> Result<Decoded> {
        let Job { entry, owned } = job;
        let Scratch { decoder, timings } = scratch;
        let mut bytes = self.memory.buffers.take_len(entry.decoded_bytes as usize);
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
        Ok(Decoded { entry, piece, bytes, payload: owned.map(|(payload, _)| payload) })
    }
}

/// The ordered half of the work: what goes to the sink and into the hashes.
struct Committer<'w, 's> {
    sink: &'w mut Sink<'s>,
    /// Blocks of a file that are not written yet.
    gathered: Gather<Buffer>,
    hasher: Option<ContentHasher>,
    sha256: Option<Sha256>,
    report: Report,
}

impl Committer<'_, '_> {
    fn commit(&mut self, decoded: Decoded, decoder: &FileDecoder<'_>) -> Result<()> {
        let Decoded { entry, piece, bytes, payload } = decoded;
        let Self { sink, hasher, sha256, report, .. } = self;
        report.timings.time(Step::Hash, || {
            if let Some(sha256) = sha256 {
                sha256.update(&*bytes);
            }
            hasher.as_mut().zip(piece.as_ref()).map_or(Ok(()), |(h, piece)| h.push(piece))
        })?;
        if let Sink::Stream(stream) = sink {
            let wanted = bytes.get(wanted(&decoder.settings.range, &entry)).unwrap_or_default();
            report.timings.time(Step::Write, || stream.write_all(wanted)).map_err(cannot_write)?;
        }
        report.add_block(entry.dtype, entry.decoded_bytes.into(), entry.info().record_bytes());
        decoder.ctx.progress.advanced(decoder.settings.file_idx, entry.decoded_bytes.into());
        payload.into_iter().for_each(|payload| decoder.memory.payloads.put(payload));
        if !matches!(sink, Sink::File(_)) {
            decoder.memory.buffers.put_len(bytes);
        } else if self.gathered.push(bytes) {
            self.write(decoder.memory)?;
        }
        Ok(())
    }

    /// Writes the blocks that are ready.
    fn write(&mut self, memory: &DecodeMemory) -> Result<()> {
        let Self { sink: Sink::File(file), gathered, report, .. } = self else { return Ok(()) };
        let written = report.timings.time(Step::Write, || gathered.write(*file));
        written.map_err(|e| file.atomic().cannot_write(e))?.for_each(|bytes| memory.buffers.put_len(bytes));
        Ok(())
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
