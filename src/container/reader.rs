//! Random access to an archive in memory, such as a mapped file.

use crate::container::block::{BlockEntry, BlockRecord, RECORD_HEADER_BYTES, RecordHeader};
use crate::container::checksum::crc64_from;
use crate::container::footer::{ContentHash, FOOTER_BYTES, Footer};
use crate::container::header::{FileHeader, HEADER_BYTES, LayerLink, MAX_LAYERS};
use crate::container::index::{INDEX_CRC_BYTES, INDEX_HEAD_BYTES, Index};
use crate::container::loss::LossTable;
use crate::container::reference::{Reference, Resolver, no_other_files};
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::crc64::Folded;
use crate::limits::Limits;
use crate::stage::{BlockDecoder, Coding, delta_base};

/// An archive whose header, index and footer have been checked; blocks are checked when they are read. Of a layered
/// file it is the finest layer, and knows the others.
#[derive(Debug, Clone)]
pub struct Archive<'a> {
    bytes: &'a [u8],
    header: FileHeader,
    footer: Footer,
    index: Index<'a>,
    /// The next coarser layer.
    before: Option<Box<Self>>,
}

impl<'a> Archive<'a> {
    /// Opens the archive that `bytes` are, from its first byte to its last.
    ///
    /// # Errors
    /// [`ErrorKind::Truncated`] where its end is missing; [`ErrorKind::Corrupt`],
    /// [`ErrorKind::ChecksumMismatch`], [`ErrorKind::UnsupportedVersion`], [`ErrorKind::LimitExceeded`].
    pub fn open(bytes: &'a [u8], limits: &Limits) -> Result<Self> {
        Self::open_layers(bytes, limits, MAX_LAYERS)
    }

    fn open_layers(bytes: &'a [u8], limits: &Limits, most_layers: usize) -> Result<Self> {
        let first_header = FileHeader::parse(bytes)?;
        const LEAST_BYTES: usize = HEADER_BYTES + INDEX_HEAD_BYTES + INDEX_CRC_BYTES + FOOTER_BYTES;
        let footer = bytes.last_chunk().filter(|_| bytes.len() >= LEAST_BYTES).ok_or_else(|| {
            let message = format!("archive has {} bytes, the smallest has {LEAST_BYTES}", bytes.len());
            Error::new(ErrorKind::Truncated, message)
        })?;
        let footer = Footer::parse(footer, first_header.minor)?;
        let before_bytes =
            usize::try_from(footer.archive_bytes).ok().and_then(|own| bytes.len().checked_sub(own));
        let Some(before_bytes) = before_bytes.filter(|before| *before == 0 || first_header.is_layer()) else {
            let message =
                format!("archive has {} bytes, its footer says {}", bytes.len(), footer.archive_bytes);
            return Err(Error::new(ErrorKind::Corrupt, message));
        };
        let (earlier, bytes) = bytes.split_at(before_bytes);
        let header = FileHeader::parse(bytes)?;
        let index = Index::open(bytes, &footer, &header, limits)?;
        let mut archive = Self { bytes, header, footer, index, before: None };
        if first_header.is_layer() {
            archive.open_before(earlier, limits, most_layers)?;
        }
        Ok(archive)
    }

    /// Opens the layers before this one, which `earlier` must be.
    fn open_before(&mut self, earlier: &'a [u8], limits: &Limits, most_layers: usize) -> Result<()> {
        let corrupt = |message: &str| Err(Error::new(ErrorKind::Corrupt, message));
        if !self.header.is_layer() {
            return corrupt("an archive without layers stands behind a layer");
        }
        let link = LayerLink::parse(self.bytes)?;
        if link.before_bytes != earlier.len() as u64 {
            return corrupt("a layer does not stand behind the layers that it refines");
        }
        if earlier.is_empty() {
            return match self.blocks().find(|entry| entry.coding == Coding::Refined) {
                Some(_) => corrupt("a refined block without a layer before"),
                None => Ok(()),
            };
        }
        if most_layers < 2 {
            let message = format!("archive has more than {MAX_LAYERS} layers, the limit");
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        let before = Self::open_layers(earlier, limits, most_layers - 1)?;
        let alike =
            |(a, b): (BlockEntry, BlockEntry)| (a.decoded_bytes, a.dtype) == (b.decoded_bytes, b.dtype);
        if before.n_blocks() != self.n_blocks() || !before.blocks().zip(self.blocks()).all(alike) {
            return corrupt("two layers are cut into different blocks");
        }
        if *before.content_hash() != link.before_hash {
            return corrupt("a layer refines another one than the layer before it");
        }
        self.before = Some(Box::new(before));
        Ok(())
    }

    /// Layers of the file up to this one; 1 where there are none.
    #[must_use]
    pub fn n_layers(&self) -> usize {
        self.before.as_ref().map_or(1, |before| before.n_layers() + 1)
    }

    /// Layer `number` of the file, the coarsest being 1; `None` for one that is not there.
    #[must_use]
    pub fn layer(&self, number: usize) -> Option<&Self> {
        let n_coarser = self.n_layers().checked_sub(number).filter(|_| number > 0)?;
        (0..n_coarser).try_fold(self, |layer, _| layer.before.as_deref())
    }

    /// The next coarser layer.
    #[must_use]
    pub fn before(&self) -> Option<&Self> {
        self.before.as_deref()
    }

    /// The file header.
    #[must_use]
    pub fn header(&self) -> &FileHeader {
        &self.header
    }

    /// What settings made the archive (FORMAT.md, 4).
    #[must_use]
    pub fn note(&self) -> u64 {
        self.header.note
    }

    /// The header's flags.
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.header.flags
    }

    /// Size of the archive, with the layers before it.
    #[must_use]
    pub fn archive_bytes(&self) -> u64 {
        self.footer.archive_bytes + self.before.as_ref().map_or(0, |before| before.archive_bytes())
    }

    /// Size of the original file.
    #[must_use]
    pub fn original_bytes(&self) -> u64 {
        self.footer.original_bytes
    }

    /// BLAKE3 of the original file, as recorded.
    #[must_use]
    pub fn content_hash(&self) -> &ContentHash {
        &self.footer.content_hash
    }

    /// SHA-256 of the original file, where it was recorded.
    #[must_use]
    pub fn sha256(&self) -> Option<&[u8; 32]> {
        self.footer.sha256.as_ref()
    }

    /// What a lossy archive changed; `None` of an exact one.
    ///
    /// # Errors
    /// Those of [`LossTable::parse`].
    pub fn loss(&self) -> Result<Option<LossTable>> {
        self.header.is_lossy().then(|| LossTable::parse(self.index.loss())).transpose()
    }

    /// Number of blocks.
    #[must_use]
    pub fn n_blocks(&self) -> u64 {
        self.index.n_blocks()
    }

    /// The entry of block `block_idx`, or `None` past the last.
    #[must_use]
    pub fn block(&self, block_idx: u64) -> Option<BlockEntry> {
        self.index.entries_from(block_idx).next()?.ok()
    }

    /// All entries in order; cheaper than [`Self::block`] for each.
    pub fn blocks(&self) -> impl Iterator<Item = BlockEntry> + use<'a> {
        // Opening has parsed every entry, so none is an error here.
        self.index.entries_from(0).map_while(Result::ok)
    }

    /// The entry of the block that holds the original's byte `original_offset`.
    #[must_use]
    pub fn block_at(&self, original_offset: u64) -> Option<BlockEntry> {
        self.blocks_from(original_offset).next()
    }

    /// Entries from the block on that holds the original's byte `original_offset`.
    pub fn blocks_from(&self, original_offset: u64) -> impl Iterator<Item = BlockEntry> + use<'a> {
        self.index.entries_at(original_offset).map_while(Result::ok)
    }

    /// The record of block `block_idx`, checked against its CRC and the index.
    ///
    /// # Errors
    /// [`ErrorKind::ChecksumMismatch`], [`ErrorKind::Corrupt`], with the block named.
    pub fn record(&self, block_idx: u64) -> Result<BlockRecord<'a>> {
        let entry = self.block(block_idx).ok_or_else(|| {
            let message = format!("block {block_idx} asked for, archive has {}", self.n_blocks());
            Error::new(ErrorKind::Internal, message)
        })?;
        self.record_of(&entry)
    }

    /// The record of an entry that this archive gave.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub fn record_of(&self, entry: &BlockEntry) -> Result<BlockRecord<'a>> {
        self.read_record(entry).map_err(|e| e.in_block(entry.block_idx))
    }

    fn read_record(&self, entry: &BlockEntry) -> Result<BlockRecord<'a>> {
        let (header, record) = self.parse_record(entry)?;
        header.check_payload(record.payload)?;
        Ok(record)
    }

    /// The record of `entry`, checked against the index but not against its own CRC.
    fn parse_record(&self, entry: &BlockEntry) -> Result<(RecordHeader, BlockRecord<'a>)> {
        let outside = || Error::new(ErrorKind::Corrupt, "record reaches past the archive's end");
        let from = usize::try_from(entry.record_offset).map_err(|_| outside())?;
        let record = self.bytes.get(from..).ok_or_else(outside)?;
        let (header, rest) = record.split_first_chunk::<RECORD_HEADER_BYTES>().ok_or_else(outside)?;
        let payload = rest.get(..entry.payload_bytes as usize).ok_or_else(outside)?;
        let header = RecordHeader::parse(header, self.header.minor)?;
        if header.info != entry.info() {
            return Err(Error::new(ErrorKind::Corrupt, "record and index entry of the block differ"));
        }
        if header.info.coding.has_base() && !self.header.may_have_references() {
            let message = "a block that needs another one in an archive whose flags deny such";
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        let record = BlockRecord { entry: *entry, decoded_crc: header.decoded_crc, payload };
        Ok((header, record))
    }

    /// Fills `dst`, of the block's decoded size, with the block of `entry`, following a reference, and checks both its
    /// CRCs.
    ///
    /// The stored bytes are checked after they have been decoded, when they are in the cache: checked before, they would
    /// be waited for twice, which takes a fifth of the time. A decoder takes untrusted bytes either way, and the error
    /// reported is the checksum's if that is wrong.
    ///
    /// # Errors
    /// As [`Self::record`] and [`Self::decode`]; `dst` then holds unspecified bytes.
    pub fn decode_entry(
        &self,
        entry: &BlockEntry,
        decoder: &mut BlockDecoder,
        resolver: &Resolver<'_>,
        dst: &mut [u8],
    ) -> Result<()> {
        if entry.coding == Coding::Reference {
            return self.decode(&self.record_of(entry)?, decoder, resolver, dst);
        }
        let in_block = |e: Error| e.in_block(entry.block_idx);
        let (header, record) = self.parse_record(entry).map_err(in_block)?;
        let decoded = self.decode_own(&record, decoder, dst);
        header.check_payload(record.payload).map_err(in_block)?;
        decoded
    }

    /// Fills `dst`, of the block's decoded size, with the bytes of `record`, following a reference.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`], [`ErrorKind::ChecksumMismatch`], [`ErrorKind::BaseMismatch`], with the block
    /// named; `dst` then holds unspecified bytes.
    pub fn decode(
        &self,
        record: &BlockRecord<'_>,
        decoder: &mut BlockDecoder,
        resolver: &Resolver<'_>,
        dst: &mut [u8],
    ) -> Result<()> {
        if record.entry.coding != Coding::Reference {
            return self.decode_own(record, decoder, dst);
        }
        let found = Reference::parse(record.payload).and_then(|reference| match reference {
            // Checked here, because the resolver is the caller's.
            Reference::OtherFile(other) => resolver(&other, record, decoder, dst)
                .and_then(|()| check_decoded(record, &Folded::new(), dst)),
            Reference::SameFile { original_offset } if original_offset < record.entry.original_offset => {
                self.decode_target(original_offset, record, decoder, dst)
            }
            Reference::SameFile { original_offset } => Err(wrong_other(original_offset, "is not earlier")),
        });
        found.map_err(|e| e.in_block(record.entry.block_idx))
    }

    /// Fills `dst` with the block of this archive that begins at `original_offset`, which the reference
    /// `referrer` (of this or another archive) names.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] where no block begins there, or where it is a reference or differs from
    /// `referrer` in size, dtype or CRC; the errors of [`Self::record`] and of decoding.
    pub fn decode_target(
        &self,
        original_offset: u64,
        referrer: &BlockRecord<'_>,
        decoder: &mut BlockDecoder,
        dst: &mut [u8],
    ) -> Result<()> {
        let target = self.other_block(original_offset, &referrer.entry)?;
        if target.coding == Coding::Reference {
            return Err(wrong_other(original_offset, "is itself a reference"));
        }
        let target = self.record_of(&target)?;
        if target.decoded_crc != referrer.decoded_crc {
            return Err(wrong_other(original_offset, "has another CRC"));
        }
        self.decode_own(&target, decoder, dst)
    }

    /// The block that begins at `original_offset`, which that of `entry` needs: of the same size and dtype.
    fn other_block(&self, original_offset: u64, entry: &BlockEntry) -> Result<BlockEntry> {
        let found = self.block_at(original_offset).filter(|other| other.original_offset == original_offset);
        let other = found.ok_or_else(|| wrong_other(original_offset, "does not begin there"))?;
        if (other.decoded_bytes, other.dtype) != (entry.decoded_bytes, entry.dtype) {
            return Err(wrong_other(original_offset, "has another size or dtype"));
        }
        Ok(other)
    }

    /// Fills `dst` with the bytes of a block that is not a reference, and checks their CRC. A block that refines that of
    /// the layer before, or is like an earlier one, is made out of it.
    fn decode_own(&self, record: &BlockRecord<'_>, decoder: &mut BlockDecoder, dst: &mut [u8]) -> Result<()> {
        match record.entry.coding {
            Coding::Refined => self.decode_refined(record, decoder, dst),
            Coding::Delta => {
                self.decode_delta(record, decoder, dst).map_err(|e| e.in_block(record.entry.block_idx))
            }
            _ => decode_block(record, decoder, dst),
        }
    }

    fn decode_delta(
        &self,
        record: &BlockRecord<'_>,
        decoder: &mut BlockDecoder,
        dst: &mut [u8],
    ) -> Result<()> {
        let entry = &record.entry;
        let base_offset = delta_base(record.payload)?;
        if base_offset >= entry.original_offset {
            return Err(wrong_other(base_offset, "is not earlier"));
        }
        let base = self.other_block(base_offset, entry)?;
        // So that nobody has to follow more than one.
        if base.coding.has_base() {
            return Err(wrong_other(base_offset, "needs another one itself"));
        }
        if dst.len() != entry.decoded_bytes as usize {
            let message = format!("{} bytes given for a block of {}", dst.len(), entry.decoded_bytes);
            return Err(Error::new(ErrorKind::Internal, message));
        }
        self.decode_entry(&base, decoder, &no_other_files, dst)?;
        decoder.add_delta(entry.dtype, record.payload, dst)?;
        check_decoded(record, &Folded::new(), dst)
    }

    fn decode_refined(
        &self,
        record: &BlockRecord<'_>,
        decoder: &mut BlockDecoder,
        dst: &mut [u8],
    ) -> Result<()> {
        let entry = &record.entry;
        let in_block = |e: Error| e.in_block(entry.block_idx);
        let before = self.before().and_then(|before| Some((before, before.block(entry.block_idx)?)));
        let (before, coarser) =
            before.filter(|(_, coarser)| coarser.decoded_bytes as usize == dst.len()).ok_or_else(|| {
                in_block(Error::new(ErrorKind::Corrupt, "a refined block without a layer before"))
            })?;
        before.decode_entry(&coarser, decoder, &no_other_files, dst)?;
        decoder
            .refine(record.payload, dst)
            .and_then(|()| check_decoded(record, &Folded::new(), dst))
            .map_err(in_block)
    }
}

/// A block needs the one at `original_offset`, of which `what` is wrong.
fn wrong_other(original_offset: u64, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("needs the block at offset {original_offset}, which {what}"))
}

/// Fills `dst`, of the block's decoded size, with the bytes of a block that is not a reference, and checks
/// their CRC.
///
/// # Errors
/// [`ErrorKind::Corrupt`] or [`ErrorKind::ChecksumMismatch`], with the block named; `dst` then holds
/// unspecified bytes.
pub fn decode_block(record: &BlockRecord<'_>, decoder: &mut BlockDecoder, dst: &mut [u8]) -> Result<()> {
    let entry = &record.entry;
    let decoded = if dst.len() == entry.decoded_bytes as usize {
        decoder.decode_folded(entry.coding, entry.dtype, record.payload, dst)
    } else {
        let message = format!("{} bytes given for a block of {}", dst.len(), entry.decoded_bytes);
        Err(Error::new(ErrorKind::Internal, message))
    };
    decoded.and_then(|folded| check_decoded(record, &folded, dst)).map_err(|e| e.in_block(entry.block_idx))
}

/// Checks the CRC of `decoded`, the first bytes of which are `folded`.
fn check_decoded(record: &BlockRecord<'_>, folded: &Folded, decoded: &[u8]) -> Result<()> {
    let found = crc64_from(folded, decoded);
    if found == record.decoded_crc {
        Ok(())
    } else {
        let message = format!("decoded block has CRC {found:016x}, recorded is {:016x}", record.decoded_crc);
        Err(Error::new(ErrorKind::ChecksumMismatch, message))
    }
}

/// Fills `dst` with the original's bytes from `original_offset` on, decoding only the blocks that hold them.
///
/// # Errors
/// [`ErrorKind::Internal`] for a range past the original's end; the errors of [`Archive::record`] and
/// [`Archive::decode`].
pub fn read_range(
    archive: &Archive<'_>,
    original_offset: u64,
    dst: &mut [u8],
    decoder: &mut BlockDecoder,
    resolver: &Resolver<'_>,
) -> Result<()> {
    let end = original_offset.checked_add(dst.len() as u64).filter(|end| *end <= archive.original_bytes());
    if end.is_none() {
        let message = format!(
            "{} bytes at offset {original_offset} asked for, the original has {}",
            dst.len(),
            archive.original_bytes()
        );
        return Err(Error::new(ErrorKind::Internal, message));
    }
    // Checked sums, for the index may be in a map whose file is changed meanwhile.
    let mut entries = archive.blocks_from(original_offset);
    let mut scratch = Vec::new();
    let (mut at, mut rest) = (original_offset, dst);
    while !rest.is_empty() {
        let short = || Error::new(ErrorKind::Corrupt, "index ends before the range, as it did not at first");
        let entry = entries.next().ok_or_else(short)?;
        let record = archive.record_of(&entry)?;
        let decoded_bytes = entry.decoded_bytes as usize;
        let skipped = at.checked_sub(entry.original_offset).and_then(|skipped| usize::try_from(skipped).ok());
        let (skipped, left) = skipped
            .and_then(|skipped| Some((skipped, decoded_bytes.checked_sub(skipped)?)))
            .ok_or_else(short)?;
        let taken = left.min(rest.len());
        let (piece, later) = rest.split_at_mut(taken);
        if taken == decoded_bytes {
            archive.decode(&record, decoder, resolver, piece)?;
        } else {
            scratch.resize(decoded_bytes, 0);
            archive.decode(&record, decoder, resolver, &mut scratch)?;
            piece.copy_from_slice(&scratch[skipped..skipped + taken]);
        }
        at += taken as u64;
        rest = later;
    }
    Ok(())
}
