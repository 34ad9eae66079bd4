//! Ids: derived from what caused them (R6), random only for what has no cause on the broker.

use sha2::{Digest, Sha256};

/// 128-bit hash of the parts as 32 lower-case hex digits. Parts are separated, so `["a", "bc"]` and `["ab", "c"]`
/// differ.
pub fn derived_id(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hex(&hash.finalize()[..16])
}

/// Id of the `index`-th output that `worker` makes for the message `input_id`.
pub fn reply_id(input_id: &str, worker: &str, index: usize) -> String {
    derived_id(&["reply", input_id, worker, &index.to_string()])
}

/// Id of an event about `user_message_id`.
pub fn event_id(user_message_id: &str, event_type: &str, remote_id: &str, state: &str) -> String {
    derived_id(&["event", user_message_id, event_type, remote_id, state])
}

/// A random id: 32 lower-case hex digits.
pub fn random_id() -> String {
    hex(&rand::random::<[u8; 16]>())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
}
