//! Rust types generated from the `.proto` files of this directory.
//!
//! Contains messages, tonic clients, tonic servers and the descriptors for server reflection. Must not
//! contain logic: validation and conversion live in the server.
//!
//! The generated files are committed, because generating them takes about a tenth of the CPU time of a first
//! build. `tests/generated.rs` compares them with the `.proto` files; `make generate` writes them.

// Nearly all of this crate is generated.
#![allow(clippy::all, clippy::too_many_lines, clippy::unwrap_used, missing_docs, unreachable_pub)]

/// `inventory.v1`: the reservation, admin and audit services.
pub mod inventory {
    pub mod v1 {
        include!("../generated/inventory.v1.rs");
    }
}

/// `reservation.v1`: the service that the Reservation API and its worker call.
pub mod reservation {
    pub mod v1 {
        include!("../generated/reservation.v1.rs");
    }
}

/// `common.v1`: messages that the ticketing services share.
pub mod common {
    pub mod v1 {
        include!("../generated/common.v1.rs");
    }
}

/// Encoded `FileDescriptorSet` of all `.proto` files, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("../generated/descriptors.bin");
