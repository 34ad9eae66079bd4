//! Benchmarks: ratios against a bare batched lapin loop in the same run.
fn main() {}
