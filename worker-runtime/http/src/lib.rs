//! HTTP server helpers that several families share.
