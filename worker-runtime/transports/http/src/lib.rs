//! Transports that speak HTTP, each a declaration on one request/reply engine.
