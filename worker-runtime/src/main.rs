//! The `vumi` command.
fn main() {}
