//! What the benchmarks share: prepared input, a router that delivers it, captured records, and figures of several runs.

pub mod capture;
pub mod delivery;
pub mod input;
pub mod runs;
