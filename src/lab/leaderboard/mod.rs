//! `lab leaderboard`: results that anybody may send in, each decoded and computed anew before it is entered.
//!
//! A submission ([`submission`]) comes with its compressed files ([`payload`]), which this program decodes itself. A
//! command in their place is not taken: running a stranger's program to check a number would do more harm than the
//! number is worth. What passes becomes a signed entry of a board ([`board`]), which [`render`] sets in tables.
//! Seconds and joules cannot be computed from files; they are the submitter's claim, and tables say so.

pub mod baselines;
pub mod board;
pub mod dataset;
pub mod payload;
pub mod render;
pub mod submission;
pub mod submit;
