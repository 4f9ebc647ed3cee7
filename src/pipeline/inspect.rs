//! What is in an archive: tensors with their sizes and codings, found by index and header alone.

use std::collections::BTreeMap;
use std::iter::successors;
use std::path::{Path, PathBuf};

use super::bases::{MappedBases, find_archive_paths};
use super::context::Context;
use super::decode::{DecodeMemory, DecodeSettings, FileDecoder, Job, Records, Sink};
use super::digest::Digest;
use super::layer_choice::{LayerChoice, layer_bits};
use super::note::level_of;
use super::outputs::refuse_same_file;
use super::report::Tally;
use super::tree::mode_of;
use crate::checkpoint::{SafetensorsHeader, TensorInfo};
use crate::container::{Archive, TensorLoss, read_range};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::stage::{BlockDecoder, Level};
use crate::storage::{AtomicFile, Durability, MappedFile};

/// A tensor as an archive stores it.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorReport {
    /// Name, from the checkpoint's header.
    pub name: String,
    /// Dtype as the header names it.
    pub dtype: String,
    /// Elements along each dimension.
    pub shape: Vec<u64>,
    /// Where the tensor begins in the original file, in bytes.
    pub offset: u64,
    /// Size and stored size. Small tensors share a block, whose stored bytes are split by their sizes.
    pub tally: Tally,
    /// Codings of its blocks, each once.
    pub codings: Vec<&'static str>,
    /// What was lost, if it had a lossy goal.
    pub loss: Option<TensorLoss>,
}

/// A layer of a layered archive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerReport {
    /// Bytes of the file up to the layer's end: cut off there, it is the archive of this layer.
    pub archive_bytes: u64,
    /// What was asked for, in bits an element; `None` of a layer that is exact.
    pub goal_bits: Option<f64>,
    /// Stored bits, with the layers before, an element of the tensors that the coarsest layer changes; 0 without any.
    pub bits_per_element: f64,
    /// ‖x − x̂‖₂ ÷ ‖x‖₂ over these tensors.
    pub rel_l2: f64,
    /// Largest |x − x̂|.
    pub max_abs_error: f64,
}

/// An archive as [`inspect`] finds it.
#[derive(Debug, Clone, PartialEq)]
pub struct ArchiveReport {
    /// Where it is.
    pub path: PathBuf,
    /// Size of the original file, in bytes.
    pub original_bytes: u64,
    /// Size of the archive, in bytes.
    pub archive_bytes: u64,
    /// Number of blocks.
    pub n_blocks: u64,
    /// BLAKE3 of the original.
    pub blake3: Digest,
    /// SHA-256 of the original.
    pub sha256: Option<Digest>,
    /// BLAKE3 of the file that a lossy archive was made of, and does not hold.
    pub source_blake3: Option<Digest>,
    /// The level that made it, if this version knows it.
    pub level: Option<Level>,
    /// The layers of a layered archive, the coarsest first; none of any other.
    pub layers: Vec<LayerReport>,
    /// Blocks by coding: how many, and their sizes.
    pub codings: BTreeMap<&'static str, (u64, Tally)>,
    /// Tensors in the order of their bytes; none for a file that is no checkpoint.
    pub tensors: Vec<TensorReport>,
}

/// Describes the archive at `path`. Decodes the checkpoint's header and nothing else.
///
/// # Errors
/// [`ErrorKind::Io`], and what is wrong with the archive.
pub fn inspect(ctx: &Context<'_>, path: &Path) -> Result<ArchiveReport> {
    inspect_unnamed(ctx, path).map_err(|e| e.in_file(path))
}

fn inspect_unnamed(ctx: &Context<'_>, path: &Path) -> Result<ArchiveReport> {
    let mapped = MappedFile::open(path)?;
    let archive = Archive::open(mapped.bytes(), &ctx.limits)?;
    let mut codings: BTreeMap<&'static str, (u64, Tally)> = BTreeMap::new();
    for layer in successors(Some(&archive), |layer| layer.before()) {
        for entry in layer.blocks() {
            let (count, tally) = codings.entry(entry.coding.name()).or_default();
            *count += 1;
            tally.add_block(entry.dtype, entry.decoded_bytes.into(), entry.info().record_bytes());
        }
    }
    let header = read_header(ctx, &archive, path)?;
    let loss = archive.loss()?;
    let tensors = (0..).zip(header.iter().flat_map(|header| header.tensors()));
    Ok(ArchiveReport {
        path: path.to_owned(),
        original_bytes: archive.original_bytes(),
        archive_bytes: archive.archive_bytes(),
        n_blocks: archive.n_blocks(),
        blake3: Digest(*archive.content_hash()),
        sha256: archive.sha256().copied().map(Digest),
        source_blake3: loss.as_ref().map(|loss| Digest(loss.source_hash)),
        level: level_of(archive.note()),
        layers: describe_layers(&archive, header.as_ref())?,
        codings,
        tensors: tensors
            .map(|(tensor_idx, tensor)| TensorReport {
                loss: loss.as_ref().and_then(|loss| loss.tensor(tensor_idx)),
                ..describe(&archive, tensor)
            })
            .collect(),
    })
}

/// The layers of `archive`, whose checkpoint has `header`.
fn describe_layers(archive: &Archive<'_>, header: Option<&SafetensorsHeader>) -> Result<Vec<LayerReport>> {
    if !archive.header().is_layer() {
        return Ok(Vec::new());
    }
    let coarsest = archive.layer(1).map(Archive::loss).transpose()?.flatten();
    let changed: Vec<u32> =
        coarsest.iter().flat_map(|loss| &loss.tensors).map(|row| row.tensor_idx).collect();
    let tensors = (0..).zip(header.iter().flat_map(|header| header.tensors()));
    let tensors: Vec<(u32, &TensorInfo)> =
        tensors.filter(|(idx, _)| changed.binary_search(idx).is_ok()).collect();
    let mut layers = Vec::new();
    for layer in (1..=archive.n_layers()).filter_map(|number| archive.layer(number)) {
        let loss = layer.loss()?;
        let (mut stored_bits, mut n_elements) = (0.0, 0.0);
        let (mut error_sq, mut value_sq, mut max_abs_error) = (0.0, 0.0, 0.0f64);
        for (tensor_idx, tensor) in &tensors {
            let n = tensor.n_elements() as f64;
            n_elements += n;
            stored_bits += 8.0 * describe(layer, tensor).tally.stored_bytes as f64;
            if let Some(row) = loss.as_ref().and_then(|loss| loss.tensor(*tensor_idx)) {
                error_sq += n * f64::from(row.error_rms).powi(2);
                value_sq += n * f64::from(row.signal_rms).powi(2);
                max_abs_error = max_abs_error.max(row.max_abs_error.into());
            }
        }
        layers.push(LayerReport {
            archive_bytes: layer.archive_bytes(),
            goal_bits: layer_bits(layer)?,
            bits_per_element: if n_elements > 0.0 { stored_bits / n_elements } else { 0.0 },
            rel_l2: if value_sq > 0.0 { (error_sq / value_sq).sqrt() } else { 0.0 },
            max_abs_error,
        });
    }
    Ok(layers)
}

/// What `tensor` takes in an archive and the layers before it.
fn describe(archive: &Archive<'_>, tensor: &TensorInfo) -> TensorReport {
    let mut stored_bytes = 0.0;
    let mut codings = Vec::new();
    let blocks = successors(Some(archive), |layer| layer.before()).flat_map(|layer| {
        layer.blocks_from(tensor.start).take_while(|entry| entry.original_offset < tensor.end)
    });
    for entry in blocks.filter(|_| tensor.byte_len() > 0) {
        let shared = tensor.end.min(entry.original_end()) - tensor.start.max(entry.original_offset);
        stored_bytes += entry.info().record_bytes() as f64 * shared as f64 / f64::from(entry.decoded_bytes);
        if !codings.contains(&entry.coding.name()) {
            codings.push(entry.coding.name());
        }
    }
    let element_bits = tensor.dtype.unwrap_or(Dtype::Bytes).element_bits() as u64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of the archive's size"
    )]
    let tally = Tally {
        original_bytes: tensor.byte_len(),
        stored_bytes: stored_bytes.round() as u64,
        elements: tensor.byte_len().saturating_mul(8) / element_bits,
    };
    TensorReport {
        name: tensor.name.clone(),
        dtype: tensor.dtype_name.clone(),
        shape: tensor.shape.clone(),
        offset: tensor.start,
        tally,
        codings,
        loss: None,
    }
}

/// The header of the checkpoint in `archive`; `None` where its first bytes are none.
pub(super) fn read_header(
    ctx: &Context<'_>,
    archive: &Archive<'_>,
    path: &Path,
) -> Result<Option<SafetensorsHeader>> {
    let original_bytes = archive.original_bytes();
    let mut first = [0; 8];
    if original_bytes < first.len() as u64 {
        return Ok(None);
    }
    let bases = open_bases(ctx, archive, path)?;
    let archives = bases.archives(&ctx.limits)?;
    let resolver = archives.resolver();
    let mut decoder = BlockDecoder::new(ctx.isa);
    read_range(archive, 0, &mut first, &mut decoder, &resolver)?;
    let Ok(prefix_len) = SafetensorsHeader::prefix_len(&first, Some(original_bytes), &ctx.limits) else {
        return Ok(None);
    };
    let too_long = || Error::new(ErrorKind::LimitExceeded, "safetensors header exceeds the address space");
    let mut prefix = vec![0; usize::try_from(prefix_len).map_err(|_| too_long())?];
    read_range(archive, 0, &mut prefix, &mut decoder, &resolver)?;
    Ok(SafetensorsHeader::parse(&prefix, Some(original_bytes), &ctx.limits).ok())
}

/// The archives that `archive` refers to, by the manifest above it.
pub(super) fn open_bases(ctx: &Context<'_>, archive: &Archive<'_>, path: &Path) -> Result<MappedBases> {
    if !archive.header().may_have_references() {
        return Ok(MappedBases::default());
    }
    MappedBases::open(archive, &find_archive_paths(path, &ctx.limits))
}

/// Where an extracted tensor goes.
pub enum TensorOutput<'w> {
    /// To a file, which is replaced only if `force`.
    File {
        /// The file's name.
        path: &'w Path,
        /// Replace it if it exists.
        force: bool,
    },
    /// To a stream.
    Stream(&'w mut (dyn std::io::Write + Send)),
}

impl std::fmt::Debug for TensorOutput<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::File { .. } => "File",
            Self::Stream(_) => "Stream",
        })
    }
}

/// Decodes the tensor `name` of the archive at `path`: its elements, little-endian, nothing else. Blocks that
/// hold none of it are not read.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] where the archive holds no tensor of that name, [`ErrorKind::Io`], and what is
/// wrong with the archive.
pub fn extract(ctx: &Context<'_>, path: &Path, name: &str, output: TensorOutput<'_>) -> Result<TensorReport> {
    extract_layer(ctx, path, name, LayerChoice::Finest, output)
}

/// As [`extract`], of the layer `layer`.
///
/// # Errors
/// As [`extract`]; [`ErrorKind::InvalidConfig`] for a layer that is not there.
pub fn extract_layer(
    ctx: &Context<'_>,
    path: &Path,
    name: &str,
    layer: LayerChoice,
    output: TensorOutput<'_>,
) -> Result<TensorReport> {
    let mapped = MappedFile::open(path)?;
    let archive = Archive::open(mapped.bytes(), &ctx.limits).map_err(|e| e.in_file(path))?;
    let archive = layer.of(&archive).map_err(|e| e.in_file(path))?;
    let header = read_header(ctx, archive, path).map_err(|e| e.in_file(path))?;
    let tensor = header.iter().flat_map(|header| header.tensors()).find(|tensor| tensor.name == name);
    let tensor = tensor.ok_or_else(|| {
        let message =
            format!("no tensor \"{}\" in this archive; `alcm inspect` lists them", name.escape_debug());
        Error::new(ErrorKind::InvalidInput, message).in_file(path)
    })?;
    match output {
        TensorOutput::Stream(stream) => decode_tensor(ctx, archive, path, tensor, stream)?,
        TensorOutput::File { path: output, force } => {
            refuse_same_file(path, output)?;
            // The tensor is readable by nobody whom its archive is not.
            let mode = std::fs::metadata(path).map(|metadata| mode_of(&metadata));
            let mode = mode.map_err(|e| Error::io("cannot look at", e).in_file(path))?;
            let mut file = AtomicFile::create_with_mode(output, force, mode)?;
            decode_tensor(ctx, archive, path, tensor, &mut file)?;
            file.commit(Durability::PowerLoss)?;
        }
    }
    Ok(describe(archive, tensor))
}

fn decode_tensor(
    ctx: &Context<'_>,
    archive: &Archive<'_>,
    path: &Path,
    tensor: &TensorInfo,
    stream: &mut (dyn std::io::Write + Send),
) -> Result<()> {
    let bases = open_bases(ctx, archive, path)?;
    let archives = bases.archives(&ctx.limits)?;
    let resolver = archives.resolver();
    let settings = DecodeSettings {
        range: tensor.start..tensor.end,
        hash: false,
        sha256: false,
        file_idx: 0,
        serial: false,
    };
    let mut entries = archive
        .blocks_from(tensor.start)
        .take_while(|entry| entry.original_offset < tensor.end && tensor.byte_len() > 0);
    let mut next_job = || Ok(entries.next().map(|entry| Job { entry, owned: None }));
    ctx.progress.begin(tensor.byte_len());
    let memory = DecodeMemory::default();
    let decoder = FileDecoder::new(ctx, &memory, Records::Archive(archive, &resolver), settings);
    ctx.pool
        .install(|| decoder.run(&mut next_job, Sink::Stream(stream)))
        .map(|_| ())
        .map_err(|e| e.in_tensor(&tensor.name).in_file(path))
}
