//! Bounds of `top`, which watches a server over HTTP.

use std::time::Duration;

/// Largest scrape, in bytes: about sixty times that of a server with 64 shards and twenty busy events.
pub(crate) const TOP_BODY_BYTES_MAX: usize = 8 << 20;

/// Most samples of one scrape, by the same measure.
pub(crate) const TOP_SAMPLES_MAX: usize = 100_000;

/// Time limit of a scrape: shorter than Prometheus' default, because a person waits.
pub(crate) const TOP_FETCH_TIMEOUT: Duration = Duration::from_secs(3);

/// Shortest refresh interval of `top`: a scrape interrupts every shard.
pub(crate) const TOP_EVERY_MIN: Duration = Duration::from_millis(250);

/// Longest refresh interval: with a longer one the display seems stalled.
pub(crate) const TOP_EVERY_MAX: Duration = Duration::from_secs(60);

/// Longest delay until a key press is handled.
pub(crate) const TOP_KEY_WAIT: Duration = Duration::from_millis(50);

/// Scrapes waiting to be displayed. A terminal that does not accept output stops the fetching.
pub(crate) const TOP_SCRAPES_WAITING_MAX: usize = 4;

/// Columns of `top --once`: fits into a mail or a ticket.
pub(crate) const TOP_ONCE_WIDTH: u16 = 88;
