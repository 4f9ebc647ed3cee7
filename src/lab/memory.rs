//! `lab memory`: bytes on the heap that parts of the compressor hold, by the program's counting allocator.
//!
//! Only a program can count: the library sets no allocator. `alcm` has one, and tells this module how to read it.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;

use super::experiment::{ORIGINAL_ERROR, subject};
use super::section::{Cell, Section, Table};
use super::synthetic;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::context::Context;
use crate::pipeline::lossy::series::{PruneSeries, WINDOW_LEN};
use crate::pipeline::lossy::settings::PruningSettings;
use crate::pipeline::tensor::{Tensor, TensorGoal, TensorMode, compress_tensor, decompress_tensor};
use crate::quantize::predictor::Networks;
use crate::stage::{BlockEncoder, BlockSource, Level, Quantizer};

/// How a program's allocator is read.
#[derive(Debug, Clone, Copy)]
pub struct HeapMeter {
    /// Bytes allocated now.
    pub held: fn() -> usize,
    /// Most bytes that were allocated at a time, since the program began.
    pub most: fn() -> usize,
}

static METER: OnceLock<HeapMeter> = OnceLock::new();

/// Says how the allocator of this program is read; the first call counts.
pub fn count_heap_by(meter: HeapMeter) {
    METER.get_or_init(|| meter);
}

/// What a call did to the heap, in bytes. Other threads' work is counted along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Heap {
    /// What its result holds.
    held: usize,
    /// Most that was allocated while it ran, its result included.
    peak: usize,
}

impl HeapMeter {
    fn of<T>(&self, f: impl FnOnce() -> T) -> (T, Heap) {
        // The highest mark can only rise. An allocation that nothing writes to, so that it takes up no memory, lifts
        // the level to the mark: whatever is allocated above it then shows.
        let ballast_len = (self.most)().saturating_sub((self.held)());
        let ballast = std::hint::black_box(Vec::<u8>::with_capacity(ballast_len));
        let (held, most) = ((self.held)(), (self.most)());
        // Without the fence an optimiser leaves out what nobody reads.
        let result = std::hint::black_box(f());
        let heap =
            Heap { held: (self.held)().saturating_sub(held), peak: (self.most)().saturating_sub(most) };
        drop(ballast);
        (result, heap)
    }
}

/// Counts what the parts of the compressor hold for the 100×100 tensor of epoch 1.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] in a program that has not called [`count_heap_by`].
pub fn memory(ctx: &Context<'_>) -> Result<Section> {
    let meter = METER.get().ok_or_else(|| {
        Error::new(ErrorKind::InvalidConfig, "this program does not count its memory; the alcm command does")
    })?;
    // What is made once for the whole program is no part of any of these.
    let subject = subject(1);
    let tensor = Tensor { dtype: Dtype::F32, shape: &synthetic::SHAPE, bytes: &subject.bytes };
    compress_tensor(ctx.isa, tensor, TensorMode::Exact)?;
    Ok(Section {
        command: "memory",
        title: "Memory".into(),
        intro: "Bytes on the heap by the program's counting allocator, and the size of the thing itself, for a tensor of \
                100×100 single-precision numbers."
            .into(),
        tables: vec![parts(ctx, meter, tensor)?, calls(ctx, meter, tensor)?, process(meter)],
        plots: Vec::new(),
        record: Value::Null,
    })
}

fn parts(ctx: &Context<'_>, meter: &HeapMeter, tensor: Tensor<'_>) -> Result<Table> {
    let mut table = Table::new("Held", &["part", "inline bytes", "heap bytes", "bytes", "the report's KB"]);
    let mut row = |name: &str, inline: usize, heap: Heap, claimed: Cell| {
        table.push([name.into(), inline.into(), heap.held.into(), (inline + heap.held).into(), claimed]);
    };
    let file = Networks::shipped().to_bytes();
    let (networks, heap) = meter.of(|| Networks::from_bytes(&file));
    row("predictor (both networks)", size_of::<Networks>(), heap, Cell::Int(2));
    drop(networks?);
    let (mut encoder, fresh) = meter.of(|| BlockEncoder::new(Level::Default, ctx.isa));
    row("encoder, new", size_of::<BlockEncoder>(), fresh, Cell::Int(5));
    let (payload, grown) = meter.of(|| {
        let mut payload = Vec::new();
        let source = BlockSource { dtype: tensor.dtype, bytes: tensor.bytes, row_len: 100, row_start: 0 };
        encoder.encode(source, &mut payload);
        payload
    });
    let scratch = (fresh.held + grown.held).saturating_sub(payload.capacity());
    row("encoder, after the tensor", size_of::<BlockEncoder>(), Heap { held: scratch, peak: 0 }, Cell::Empty);
    let (series, heap) = meter.of(|| {
        let mut series = PruneSeries::new(&PruningSettings::default());
        series.scores_ppb = vec![0; WINDOW_LEN];
        series
    });
    row("scheduler (state of pruning)", size_of::<PruneSeries>(), heap, Cell::Int(1));
    drop(series);
    let (copy, heap) = meter.of(|| tensor.bytes.to_vec());
    row("tensor", size_of::<Vec<u8>>(), heap, Cell::Int(40));
    drop(copy);
    table.note("The report's own code holds more than 170 KB for that tensor: two copies, a mask, a plane of scales.");
    Ok(table)
}

fn calls(ctx: &Context<'_>, meter: &HeapMeter, tensor: Tensor<'_>) -> Result<Table> {
    let mut table = Table::new(
        "While it runs, the tensor itself not counted",
        &["call", "peak heap bytes", "result bytes"],
    );
    let lossy = TensorMode::Lossy(TensorGoal::RelL2(ORIGINAL_ERROR), Quantizer::Trellis);
    for (name, mode) in [("compress, exact", TensorMode::Exact), ("compress, lossy", lossy)] {
        let (made, heap) = meter.of(|| compress_tensor(ctx.isa, tensor, mode));
        let frame = made?.frame;
        table.push([name.into(), heap.peak.into(), frame.len().into()]);
        let (decoded, heap) = meter.of(|| decompress_tensor(ctx.isa, &frame));
        table.push([format!("de{name}").into(), heap.peak.into(), decoded?.bytes.len().into()]);
    }
    table.note(
        "Compressing a tensor decodes and compares it before it gives the frame away; that is in its peak.",
    );
    Ok(table)
}

fn process(meter: &HeapMeter) -> Table {
    let mut table = Table::new("The process, up to here", &["what", "bytes"]);
    table.push(["most on the heap".into(), (meter.most)().into()]);
    let resident = peak_resident_bytes(Path::new("/proc/self/status"));
    table.push(["most resident (VmHWM)".into(), resident.map_or(Cell::Empty, Cell::Int)]);
    table
}

/// `VmHWM` of a process's status file, in bytes; `None` where there is none.
#[must_use]
pub fn peak_resident_bytes(status: &Path) -> Option<u64> {
    let text = fs::read_to_string(status).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::tests::context;

    #[test]
    fn the_resident_peak_is_read_in_kibibytes_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let status = dir.path().join("status");
        fs::write(&status, "Name:\talcm\nVmHWM:\t    1234 kB\nVmRSS:\t 99 kB\n").unwrap();
        assert_eq!(peak_resident_bytes(&status), Some(1234 * 1024));
        fs::write(&status, "Name:\talcm\n").unwrap();
        assert_eq!(peak_resident_bytes(&status), None);
        assert_eq!(peak_resident_bytes(&dir.path().join("absent")), None);
    }

    #[test]
    fn a_program_without_a_counting_allocator_is_told_so() {
        context(|ctx| assert_eq!(memory(ctx).unwrap_err().kind(), ErrorKind::InvalidConfig));
    }
}
