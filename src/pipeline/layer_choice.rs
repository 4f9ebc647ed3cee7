//! Which layer of a layered archive is read.

use crate::container::{Archive, GoalKind};
use crate::error::{Error, ErrorKind, Result};

/// A layer of a layered archive. Of an archive without layers every choice is the whole.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum LayerChoice {
    /// The last: the original, unless the archive ends before it.
    #[default]
    Finest,
    /// The one of this number, the coarsest being 1.
    Number(usize),
    /// The finest of no more than so many bits an element.
    Bits(f64),
}

impl LayerChoice {
    /// The layer of `archive`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] where there is none such; what is wrong with a loss table.
    pub(crate) fn of<'l, 'a>(self, archive: &'l Archive<'a>) -> Result<&'l Archive<'a>> {
        if !archive.header().is_layer() {
            return Ok(archive);
        }
        let found = match self {
            Self::Finest => Some(archive),
            Self::Number(number) => archive.layer(number),
            Self::Bits(most) => {
                let mut layers = std::iter::successors(Some(archive), |layer| layer.before());
                // Bits are kept as F32.
                layers
                    .find_map(|layer| match layer_bits(layer) {
                        Ok(bits) => bits.is_some_and(|bits| bits <= most * (1.0 + 1e-6)).then_some(Ok(layer)),
                        Err(error) => Some(Err(error)),
                    })
                    .transpose()?
            }
        };
        found.ok_or_else(|| {
            let n_layers = archive.n_layers();
            let wanted = match self {
                Self::Bits(most) => format!("a layer of at most {most} bits"),
                Self::Number(number) => format!("layer {number}"),
                Self::Finest => "a layer".to_owned(),
            };
            let message =
                format!("{wanted} is asked for, the archive has {n_layers}; `alcm inspect` lists them");
            Error::new(ErrorKind::InvalidConfig, message)
        })
    }
}

/// The goal of a layer, in bits an element; `None` of one that is exact.
pub(crate) fn layer_bits(layer: &Archive<'_>) -> Result<Option<f64>> {
    let goal = layer.loss()?.and_then(|loss| loss.tensors.first().copied());
    Ok(goal.filter(|row| row.goal == GoalKind::Bits).map(|row| row.goal_value.into()))
}
