//! Metrics, log lines and spans of the server.
//!
//! A shard writes into its own [`recorder::Recorder`], which no other thread accesses. A scrape asks each shard for its
//! metrics since the previous scrape ([`recorder::ShardMetrics`]); the control plane adds them to a
//! [`aggregate::MetricsAggregate`] and renders it. Log lines go through [`log`], spans through [`trace`].
//!
//! Not here: sockets, an executor, or the trigger of a scrape (`control_plane`).

pub mod aggregate;
mod event_metrics;
mod exposition;
pub(crate) mod heartbeat;
mod latency_window;
pub mod log;
pub(crate) mod log_interval;
pub mod membership;
mod metrics;
pub(crate) mod process;
pub mod recorder;
mod series;
pub(crate) mod store_health;
pub(crate) mod trace;

pub(crate) use exposition::code_name;
