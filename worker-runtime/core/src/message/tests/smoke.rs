//! The fuzz target's check on a fixed corpus, so that it runs in the normal suite too: the golden bodies, each cut and
//! bent in ways that do not depend on chance.

use super::vectors::vectors;
use crate::message as wire;

#[path = "../../../../../fuzz/checks/message.rs"]
mod check;

#[test]
fn the_corpus_passes_the_fuzz_check() {
    for body in vectors().into_values() {
        check::message(&body);
        for at in 0..body.len() {
            check::message(&body[..at]);
            for byte in [b'"', b'\\', b'{', b'9', 0x00, 0xff] {
                let mut bent = body.clone();
                bent[at] = byte;
                check::message(&bent);
            }
        }
    }
}
