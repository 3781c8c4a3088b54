//! The service glue that the root `build.rs` writes from the contracts in `proto/`, one module per
//! package.

#![allow(missing_docs)]

pub(super) mod inventory {
    include!(concat!(env!("OUT_DIR"), "/inventory.v1.rs"));
}

pub(super) mod reservation {
    include!(concat!(env!("OUT_DIR"), "/reservation.v1.rs"));
}
