//! Lossy encoding from memory to memory at a relative error: for each tensor its mean square, a step and thresholds from
//! that and a sample, as `alcm compress` foresees them; then for each block the reconstruction, its errors, the payload, and
//! both checksums. No step is tried twice: `relative_l2` says how close to the goal they come.

use std::sync::Mutex;

use alcm::checkpoint::{BlockSpan, SafetensorsHeader, TensorInfo, blocks, layout_around};
use alcm::container::{RunningCrc, crc64};
use alcm::kernels::moments::Squares;
use alcm::kernels::{Isa, convert};
use alcm::quantize::rdo::{LATTICE_LAMBDA, SAMPLE_LEN, Tuner};
use alcm::stage::{
    BlockEncoder, BlockLoss, Choice, Coding, Domain, IndexBackend, Level, QuantRun, QuantSpec,
};
use alcm::{Dtype, Limits};

use super::{Coded, Options, Team, decode, encode, median};

/// Tensors of fewer elements, or of one dimension, are coded exactly, as by default.
const MIN_ELEMENTS: u64 = 4096;
/// What is aimed at, as a share of the goal.
const AIM: f64 = 0.9975;

fn is_lossy(tensor: &TensorInfo) -> bool {
    let is_float = matches!(tensor.dtype, Some(Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::Bf16));
    is_float && tensor.shape.len() >= 2 && tensor.n_elements() >= MIN_ELEMENTS
}

/// Memory of planning that the next tensor uses again.
#[derive(Default)]
struct Planning {
    sample: Vec<u8>,
    values: Vec<f32>,
    tuner: Tuner,
}

/// How `bytes`, the elements of `tensor`, are quantized so that about `goal` is lost.
fn plan(isa: Isa, tensor: &TensorInfo, bytes: &[u8], goal: f64, memory: &mut Planning) -> QuantSpec {
    let Planning { sample, values, tuner } = memory;
    let dtype = tensor.dtype.expect("floats");
    let rms = Squares::measure(isa, dtype, bytes).expect("floats").mean().sqrt();
    // Short runs from all over the tensor.
    let run = dtype.unit_bytes() << 9;
    let one_in = (bytes.len() / dtype.unit_bytes()).div_ceil(SAMPLE_LEN).max(1);
    sample.clear();
    bytes.chunks(run).step_by(one_in).for_each(|run| sample.extend_from_slice(run));
    values.resize(sample.len() / dtype.unit_bytes(), 0.0);
    convert::to_f32(isa, dtype, sample, values).expect("floats");
    let even_step = goal * rms * 12f64.sqrt();
    let rounding = tuner.lattice(isa, values, even_step as f32, LATTICE_LAMBDA);
    let mut row_len = 1;
    let row_lens = tensor.shape.iter().skip(1).rev().map(|dimension| {
        row_len *= *dimension as usize;
        row_len
    });
    let row_lens = row_lens.filter(|len| (2..=1 << 16).contains(len)).collect();
    let step = AIM * goal * rms / tuner.expected_error_sq().sqrt();
    QuantSpec {
        step: step as f32,
        domain: Domain::Linear,
        channels: None,
        prune_below: 0.0,
        row_lens,
        choice: Choice::Rounded(rounding),
        backend: IndexBackend::Rans,
    }
}

/// A block, and the lossy tensor that it belongs to with the element that it begins with.
struct Block {
    span: BlockSpan,
    tensor: Option<(usize, u64)>,
    coded: Coded,
    loss: BlockLoss,
}

fn encode_block(
    encoder: &mut BlockEncoder,
    bytes: &[u8],
    spec: Option<&QuantSpec>,
    scratch: &mut [u8],
    block: &mut Block,
) {
    let Block { span, tensor, coded, loss } = block;
    let (Some(spec), Some((_, first_element))) = (spec, tensor) else {
        return encode(encoder, span, bytes, coded);
    };
    coded.dtype = span.dtype;
    coded.payload.clear();
    let mut decoded_crc = RunningCrc::new();
    let run = QuantRun { spec, dtype: span.dtype, first_element: *first_element };
    (coded.coding, *loss) = encoder.encode_quantized_from(
        run,
        bytes,
        &mut scratch[..bytes.len()],
        &mut coded.payload,
        &mut |piece| decoded_crc.update(piece),
    );
    coded.decoded_crc = decoded_crc.value();
    coded.payload_crc = crc64(&coded.payload);
}

/// Prints a line for each number of threads and instruction set.
pub(super) fn measure(options: &Options, file: &str, bytes: &[u8], goal: f64) {
    let (limits, len) = (Limits::default(), Some(bytes.len() as u64));
    let prefix_len = SafetensorsHeader::prefix_len(bytes, len, &limits).expect("a checkpoint") as usize;
    let header = SafetensorsHeader::parse(&bytes[..prefix_len], len, &limits).expect("a checkpoint");
    let tensors: Vec<TensorInfo> =
        header.tensors().iter().filter(|tensor| is_lossy(tensor)).cloned().collect();
    let place = |span: BlockSpan| {
        let idx = tensors.iter().position(|t| (t.start..t.end).contains(&span.offset))?;
        Some((idx, (span.offset - tensors[idx].start) / span.dtype.unit_bytes() as u64))
    };
    let block = |span: BlockSpan| Block {
        span,
        tensor: place(span),
        coded: Coded {
            coding: Coding::Stored,
            dtype: span.dtype,
            payload: vec![1; span.len * 2 + 4096],
            payload_crc: 0,
            decoded_crc: 0,
        },
        loss: BlockLoss::default(),
    };
    let mut coded: Vec<Block> = blocks(&layout_around(&header, &is_lossy)).map(block).collect();
    let longest = coded.iter().map(|block| block.span.len).max().unwrap_or(0);
    let mut decoded = vec![1u8; longest];
    for &threads in &options.threads {
        for &isa in &options.isas {
            let mut team = Team::new(threads, Level::Default, isa);
            let scratches = Mutex::new(vec![vec![1u8; longest]; threads]);
            let plannings = Mutex::new(Vec::new());
            let mut seconds = Vec::new();
            // The first round warms up.
            for _ in 0..=options.rounds {
                let mut specs: Vec<Option<QuantSpec>> = vec![None; tensors.len()];
                let planning = team.time(tensors.iter().zip(&mut specs), |_, (tensor, spec)| {
                    let elements = &bytes[tensor.start as usize..tensor.end as usize];
                    let mut memory: Planning = plannings.lock().expect("no panics").pop().unwrap_or_default();
                    *spec = Some(plan(isa, tensor, elements, goal, &mut memory));
                    plannings.lock().expect("no panics").push(memory);
                });
                let coding = team.time(coded.iter_mut(), |coders, block| {
                    let mut scratch = scratches.lock().expect("no panics").pop().expect("one a thread");
                    let source = &bytes[block.span.offset as usize..][..block.span.len];
                    let spec = block.tensor.and_then(|(idx, _)| specs[idx].as_ref());
                    encode_block(&mut coders.0, source, spec, &mut scratch, block);
                    scratches.lock().expect("no panics").push(scratch);
                });
                seconds.push(planning + coding);
            }
            let mut loss = BlockLoss::default();
            for block in &coded {
                // Held against its checksum.
                decode(&mut team.coders[0].1, &block.coded, &mut decoded[..block.span.len]);
                loss.add(&block.loss);
            }
            let payload_bytes: usize = coded.iter().map(|block| block.coded.payload.len()).sum();
            println!(
                "{}",
                serde_json::json!({
                    "file": file, "rel_l2": goal, "isa": isa.name(), "threads": threads,
                    "original_bytes": bytes.len(), "payload_bytes": payload_bytes,
                    "relative_l2": loss.errors.relative_l2(),
                    "encode_gbps": bytes.len() as f64 / median(seconds.split_off(1)) / 1e9,
                })
            );
        }
    }
}
