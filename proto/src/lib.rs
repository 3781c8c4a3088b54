//! The wire contracts, as Rust types generated from the `.proto` files beside this crate.
//!
//! Messages, tonic clients and tonic servers live here, and the descriptors that reflection serves.
//! No logic: what a message means is the server's business.

/// `inventory.v1`: the reservation contract and the admin contract.
pub mod inventory {
    pub mod v1 {
        #![allow(clippy::all, clippy::unwrap_used, missing_docs, unreachable_pub)]
        tonic::include_proto!("inventory.v1");
    }
}

/// `reservation.v1`: the contract of the Reservation API and its worker.
pub mod reservation {
    pub mod v1 {
        #![allow(clippy::all, clippy::unwrap_used, missing_docs, unreachable_pub)]
        tonic::include_proto!("reservation.v1");
    }
}

/// `common.v1`: what the contracts of the ticketing services share.
pub mod common {
    pub mod v1 {
        #![allow(clippy::all, clippy::unwrap_used, missing_docs, unreachable_pub)]
        tonic::include_proto!("common.v1");
    }
}

/// The encoded `FileDescriptorSet` of every contract, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
