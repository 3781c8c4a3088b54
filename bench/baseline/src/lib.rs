//! Baseline service: the reservation contract as most services would implement it, on tonic and tokio,
//! with one DynamoDB transaction per commit and the AWS SDK's defaults. The server's benchmarks compare
//! with this baseline, with a store ([`StoreBackend`]) or without one ([`MemoryBackend`]).
//!
//! | module | content |
//! |---|---|
//! | [`service`] | `inventory.v1` over tonic: field checks, deadlines, admission control |
//! | [`error`] | gRPC status of each failure |
//! | [`rules`] | state table of a reservation; pure |
//! | [`record`], [`stripe`] | items in the server's format |
//! | [`memory_backend`] | reservations in memory, for the stub server |
//! | [`store_backend`] | reservations in DynamoDB, in one of two [`WriteMode`]s |
//! | [`table_client`] | single reads and writes through the SDK |
//! | [`limits`] | every bound with its reason |
//!
//! The baseline sells on the server's tables in the server's format, so that `inventory-api verify` can
//! audit what it sold. It never imports the server's code: the format is written a second time, and tests
//! on known order ids hold both to it. It does not batch, cache or coalesce, and it is correct: the
//! comparison is about cost.

pub mod error;
pub mod limits;
pub mod memory_backend;
pub mod record;
pub mod rules;
pub mod service;
pub mod store_backend;
pub mod stripe;
pub mod table_client;

pub use memory_backend::MemoryBackend;
pub use service::{BaselineService, bind, router};
pub use store_backend::{StoreBackend, WriteMode};
pub use table_client::{TableClient, TableConfig};
