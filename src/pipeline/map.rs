//! The spatial map of a tensor: what each block of each channel would take, by the shipped entropy model.

use std::path::Path;

use super::context::Context;
use super::inspect::{TensorOutput, extract};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::convert::is_convertible;
use crate::kernels::moments::Moments;
use crate::quantize::predictor::{EntropyModel, Networks, Unit};

/// Elements of a block, but for the last of a channel.
pub const BLOCK_ELEMENTS: usize = 1024;
/// The step where none is asked for and none was used, as a share of the root mean square: about 6 bits.
const DEFAULT_STEP: f64 = 1.0 / 16.0;

/// Predicted bits by channel and block.
#[derive(Debug, Clone, PartialEq)]
pub struct EntropyMap {
    /// Step at which elements are rounded, in their own unit.
    pub step: f64,
    /// A row for each index of the first of several dimensions: bits an element of each block of [`BLOCK_ELEMENTS`] of it.
    pub bits: Vec<Vec<f64>>,
}

/// Maps the tensor `name` of the archive at `path`. Without `step` it is mapped at the one that it was quantized with;
/// where there was none, at a sixteenth of its root mean square. The tensor is held in memory.
///
/// # Errors
/// As [`extract`]; [`ErrorKind::InvalidInput`] for a tensor that is not of floats of 16 bits or more, and
/// [`ErrorKind::InvalidConfig`] for a step that is not positive and finite.
pub fn entropy_map(ctx: &Context<'_>, path: &Path, name: &str, step: Option<f64>) -> Result<EntropyMap> {
    let mut bytes = Vec::new();
    let tensor = extract(ctx, path, name, TensorOutput::Stream(&mut bytes))?;
    let dtype = Dtype::from_name(&tensor.dtype).filter(|dtype| is_convertible(*dtype));
    let dtype = dtype.ok_or_else(|| {
        let message = format!("{} is no element type that can be quantized", tensor.dtype.escape_debug());
        Error::new(ErrorKind::InvalidInput, message).in_tensor(name)
    })?;
    let used =
        || tensor.loss.as_ref().filter(|loss| !loss.is_exact && !loss.is_log).map(|loss| loss.step.into());
    let usual = || {
        let moments = Moments::measure(ctx.isa, dtype, &bytes).unwrap_or_default();
        let step = DEFAULT_STEP * (moments.variance() + moments.mean * moments.mean).sqrt();
        // Of a tensor of zeros any step tells as much.
        if step.is_normal() { step } else { 1.0 }
    };
    let step = step.or_else(used).unwrap_or_else(usual);
    if !(step.is_finite() && step > 0.0) {
        return Err(Error::new(ErrorKind::InvalidConfig, format!("a step of {step}")));
    }
    let model = &Networks::shipped().profile;
    let bits_of =
        |block: &[u8]| Unit::measure(ctx.isa, dtype, block).map_or(0.0, |unit| model.bits(&unit, step));
    let n_channels = match &tensor.shape[..] {
        [size, _, ..] => usize::try_from(*size).unwrap_or(1).max(1),
        _ => 1,
    };
    let channel_bytes = (bytes.len() / n_channels).max(1);
    let map_channel =
        |channel: &[u8]| channel.chunks(BLOCK_ELEMENTS * dtype.unit_bytes()).map(bits_of).collect();
    Ok(EntropyMap { step, bits: bytes.chunks(channel_bytes).map(map_channel).collect() })
}
