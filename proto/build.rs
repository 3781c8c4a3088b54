//! Compiles the `.proto` files with protox; no protoc is required.

use std::{env, error::Error, fs, path::PathBuf};

/// All `.proto` files of the project.
const PROTOS: [&str; 5] = [
    "inventory/v1/inventory.proto",
    "inventory/v1/admin.proto",
    "inventory/v1/audit.proto",
    "reservation/v1/inventory.proto",
    "common/v1/common.proto",
];

/// Their directories.
const PACKAGES: [&str; 3] = ["inventory", "reservation", "common"];

fn main() -> Result<(), Box<dyn Error>> {
    for package in PACKAGES {
        println!("cargo:rerun-if-changed={package}");
    }
    let descriptors = protox::compile(PROTOS, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), prost_encode(&descriptors))?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}

fn prost_encode(descriptors: &impl protox::prost::Message) -> Vec<u8> {
    descriptors.encode_to_vec()
}
