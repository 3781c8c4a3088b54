//! Bounds of the executor, each with its reason.

use std::time::Duration;

/// Registered buffer memory of one executor. glommio's default pins 30 MiB; no shard does file I/O.
pub const RING_BUFFER_BYTES: usize = 64 * 1024;

/// Depth of a shard's rings. The depth does not bound what is in flight, but the kernel finds the requests
/// of a ring in a hash table of a sixteenth as many buckets, and searches it whenever a timer is removed,
/// thousands of times per second. At glommio's default of 128, 5,000 connections lie in 8 buckets, 600 in
/// each (measured: 18 % of the CPU).
pub const RING_DEPTH: usize = 1024;

/// How long ready tasks run until sockets and timers are looked at again, if no bound of their own lets the queue of the
/// executor run empty before: with glommio's default of 100 ms, a task that keeps itself ready delays everything else by as
/// much. A task that is running is not interrupted.
///
/// Not shorter, because of a fault of glommio 0.12: if this time passes between the look at the sockets and the first task,
/// because the thread has no CPU, the executor goes to sleep although tasks are ready. Other programs take a CPU for a few
/// milliseconds. See [`WAKE_UP_PERIOD`].
pub const IO_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How often an executor wakes up without a reason: so long, at most, tasks stay ready while it sleeps.
pub const WAKE_UP_PERIOD: Duration = Duration::from_millis(100);
