//! Any bytes as the body of a message.
#![no_main]

use vumi_core::message as wire;

#[path = "../checks/message.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::message(data));
