//! The process's clocks: monotonic and wall time.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use inventory_core::time::{Micros, Now, UnixMillis};

/// Monotonic time since the first reading in this process.
pub fn monotonic() -> Micros {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    Micros(EPOCH.get_or_init(Instant::now).elapsed().as_micros() as u64)
}

/// Both clocks.
pub fn now() -> Now {
    let unix =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    Now { mono: monotonic(), unix: UnixMillis(unix) }
}
