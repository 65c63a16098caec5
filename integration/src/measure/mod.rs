//! What the benchmarks share: prepared input, captured records, and figures of several runs.

pub mod capture;
pub mod input;
pub mod runs;
