//! Lua scripts: each is a file in `lua/`, behind the libraries it uses.

/// A script of the named files, the general library first.
macro_rules! script {
    ($($file:literal),+) => {{
        static SCRIPT: std::sync::LazyLock<redis::Script> = std::sync::LazyLock::new(|| {
            redis::Script::new(concat!(
                include_str!("lua/lib.lua"),
                $(include_str!(concat!("lua/", $file, ".lua"))),+
            ))
        });
        &SCRIPT
    }};
}

pub(super) use script;

/// A span as Redis takes it: whole milliseconds, at least one.
pub(super) fn millis(span: std::time::Duration) -> u64 {
    // Spans of more than a million years are as good as for ever, and Redis refuses what overflows.
    u64::try_from(span.as_millis())
        .unwrap_or(u64::MAX)
        .clamp(1, 1 << 55)
}

/// A limit as Redis takes it: it counts with signed numbers.
pub(super) fn at_most(limit: usize) -> u64 {
    u64::try_from(limit).unwrap_or(u64::MAX).min(1 << 40)
}
