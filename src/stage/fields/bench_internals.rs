//! The steps of coding a block of fields one by one, for the benches. No promise of stability.

use super::effort::of_level;
use super::layout;
use crate::entropy::plan::Planner;
use crate::entropy::rans8;
use crate::kernels::Isa;
use crate::kernels::fields::Layout;
use crate::stage::planes::{Kind, PlaneCoder};
use crate::stage::zstd_frame::ZstdEncoder;
use crate::stage::{BlockSource, Level};

/// How a block's elements are cut; `None` where they are not coded as fields.
#[must_use]
pub fn choose_layout(source: BlockSource<'_>, level: Level) -> Option<Layout> {
    layout::choose(source.dtype, source.bytes, level)
}

/// Plans the tables for `symbols`, a multiple of 64.
pub fn plan(isa: Isa, planner: &mut Planner, symbols: &[u8], level: Level) {
    planner.plan(isa, symbols, of_level(level, symbols.len()));
}

/// Plans and encodes the first `n_symbols` of `symbols`, a buffer of [`rans8::buffer_len`].
pub fn encode_symbols(
    encoder: &mut rans8::Encoder,
    isa: Isa,
    level: Level,
    n_symbols: usize,
    symbols: &mut [u8],
    dst: &mut Vec<u8>,
) {
    encoder.encode(isa, of_level(level, n_symbols), 0, n_symbols, symbols, dst);
}

/// Decodes what [`encode_symbols`] has appended to an empty vector.
pub fn decode_symbols(
    decoder: &mut rans8::Decoder,
    isa: Isa,
    section: &[u8],
    n_symbols: usize,
    symbols: &mut [u8],
) -> Option<()> {
    decoder.decode(isa, section, n_symbols, symbols)
}

/// Codes the planes of a block.
pub struct Planes {
    coder: PlaneCoder,
    zstd: ZstdEncoder,
    entries: Vec<u8>,
}

impl Planes {
    /// A coder of planes as `level` codes them.
    #[must_use]
    pub fn new(level: Level) -> Self {
        Self { coder: PlaneCoder::default(), zstd: ZstdEncoder::new(level), entries: Vec::new() }
    }

    /// Appends the coded `planes`, as [`crate::kernels::fields::split`] leaves them, to `dst`.
    pub fn encode(&mut self, isa: Isa, layout: &Layout, n_padded: usize, planes: &[u8], dst: &mut Vec<u8>) {
        self.entries.clear();
        let (byte_planes, packed) = planes.split_at(n_padded * layout.n_byte_planes());
        for plane in byte_planes.chunks_exact(n_padded) {
            self.coder.encode(isa, Kind::Byte, plane, &mut self.zstd.planes, &mut self.entries, dst);
        }
        if !packed.is_empty() {
            self.coder.encode(isa, Kind::Packed, packed, &mut self.zstd.planes, &mut self.entries, dst);
        }
    }
}
