//! The laboratory: what reproduces and checks the numbers that this project and the original report state.
//!
//! It stands above [`crate::pipeline`], whose functions it measures, and below the command line. Nothing of the
//! compressor uses it. Every command gives a [`section::Section`]: tables and plots, printed, written as JSON or set in
//! a page.

pub mod ablation;
pub mod bundles;
pub mod clock;
pub mod codec;
pub mod compare;
pub mod curves;
pub mod energy;
pub mod experiment;
pub mod impact;
pub mod leaderboard;
pub mod memory;
pub mod npz;
pub mod numpy_legacy;
pub mod power;
pub mod report;
pub mod reproduce;
pub mod schema;
pub mod section;
pub mod stats;
pub mod svg;
pub mod synthetic;
pub mod timing;
pub mod transfer;
pub mod untrusted;
pub mod variance;

#[cfg(test)]
pub(crate) mod tests {
    use crate::pipeline::context::Context;

    /// Calls `f` with a context of one thread.
    pub(crate) fn context(f: impl FnOnce(&Context<'_>)) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        f(&Context::new(&pool));
    }
}
