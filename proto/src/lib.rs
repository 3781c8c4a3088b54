//! Rust types generated from the `.proto` files of this directory.
//!
//! Contains messages, tonic clients, tonic servers and the descriptors for server reflection. Must not
//! contain logic: validation and conversion live in the server.

/// `inventory.v1`: the reservation, admin and audit services.
pub mod inventory {
    pub mod v1 {
        #![allow(clippy::all, clippy::unwrap_used, missing_docs, unreachable_pub)]
        tonic::include_proto!("inventory.v1");
    }
}

/// `reservation.v1`: the service that the Reservation API and its worker call.
pub mod reservation {
    pub mod v1 {
        #![allow(clippy::all, clippy::unwrap_used, missing_docs, unreachable_pub)]
        tonic::include_proto!("reservation.v1");
    }
}

/// `common.v1`: messages that the ticketing services share.
pub mod common {
    pub mod v1 {
        #![allow(clippy::all, clippy::unwrap_used, missing_docs, unreachable_pub)]
        tonic::include_proto!("common.v1");
    }
}

/// Encoded `FileDescriptorSet` of all `.proto` files, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
