//! Tests of the contract as a whole: generated CRDs, manifests good and bad, names, and a real API server.

mod crds;
mod fuzz_smoke;
