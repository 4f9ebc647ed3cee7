//! The `alcm` command: see [`alcm::cli`].

use std::alloc::System;
use std::process::ExitCode;

use alcm::cli::lab_machine::{HeapMeter, count_heap_by};
use cap::Cap;

/// The system's allocator, counting; `alcm lab memory` reads it. No limit is set.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

fn main() -> ExitCode {
    count_heap_by(HeapMeter { held: || HEAP.allocated(), most: || HEAP.max_allocated() });
    alcm::cli::run(std::env::args_os())
}
