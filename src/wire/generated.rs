//! The service glue that the root `build.rs` writes from the contracts in `proto/`.

#![allow(missing_docs)]

include!(concat!(env!("OUT_DIR"), "/inventory.v1.rs"));
