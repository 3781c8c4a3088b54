//! Bounds of `top`, which watches a server from outside.

use std::time::Duration;

/// Bytes of one scrape: some sixty times what a server of 64 shards and twenty busy events says.
pub const TOP_BODY_BYTES_MAX: usize = 8 << 20;

/// Figures of one scrape, by the same measure.
pub const TOP_SAMPLES_MAX: usize = 100_000;

/// How long a scrape may take: Prometheus' own default is longer, but a person waits for this one.
pub const TOP_FETCH_TIMEOUT: Duration = Duration::from_secs(3);

/// How often `top` may look at most: faster than a person reads, and a scrape interrupts every shard.
pub const TOP_EVERY_MIN: Duration = Duration::from_millis(250);

/// And at least: slower, a terminal looks dead.
pub const TOP_EVERY_MAX: Duration = Duration::from_secs(60);

/// How long a key may wait until it is seen.
pub const TOP_KEY_WAIT: Duration = Duration::from_millis(50);

/// Scrapes that wait to be drawn. A terminal that does not take what is drawn stops the fetching.
pub const TOP_SCRAPES_WAITING_MAX: usize = 4;

/// Columns of `top --once`: what fits a mail and a ticket.
pub const TOP_ONCE_WIDTH: u16 = 88;
