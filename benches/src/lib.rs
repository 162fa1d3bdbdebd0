//! What the benchmarks share.

pub mod report;
