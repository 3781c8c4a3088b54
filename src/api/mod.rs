//! The two contracts as handlers on a shard: request → operation or query, answer → response or status.
//!
//! | file | content |
//! |---|---|
//! | `inventory_v1.rs` | `inventory.v1.Inventory`: a rejection is a gRPC status |
//! | `reservation_v1/` | `reservation.v1.InventoryService`: a rejection is part of the response |
//! | `reservation_service.rs` | the core that both share: from a request to the engine's answer |
//! | `payment_conflicts.rs` | log lines of commits with another payment than the recorded one |
//! | `event_names.rs` | cached names of events |
//! | `store_reads.rs` | reads that bypass the engine |
//! | `validate.rs` | validation of request fields |
//! | `rejection.rs` | the status and reason of each rejection |
//! | `convert.rs` | conversions between core types and messages |
//!
//! May use the core, the gRPC crate, the shard's driver, the recorder and the store's read types. Must not
//! live here: rules about reservations (`inventory_core`), HTTP/2 and encoding (`inventory_grpc`).

mod convert;
mod event_names;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub(crate) mod inventory_v1;
mod payment_conflicts;
pub(crate) mod rejection;
pub(crate) mod reservation_service;
pub(crate) mod reservation_v1;
mod store_reads;
pub mod validate;
