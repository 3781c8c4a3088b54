//! Holds `generated/` to the `.proto` files. `UPDATE_PROTO=1` writes the files instead of comparing them.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use protox::prost::Message as _;

/// All `.proto` files of the project.
const PROTOS: [&str; 5] = [
    "inventory/v1/inventory.proto",
    "inventory/v1/admin.proto",
    "inventory/v1/audit.proto",
    "reservation/v1/inventory.proto",
    "common/v1/common.proto",
];

/// Messages that are also printed as JSON.
const JSON_MESSAGES: [&str; 12] = [
    "AuditReport",
    "HeldAccount",
    "StripeAccount",
    "SeatAccount",
    "ReservationAccount",
    "OverdueHold",
    "AuditBreach",
    "RepairPlan",
    "PlannedRepair",
    "LeftBreach",
    "RepairsDone",
    "RepairNotDone",
];

#[test]
fn generated_files_match_the_proto_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    let descriptors = protox::compile(PROTOS, [root]).unwrap();
    fs::write(out.path().join("descriptors.bin"), descriptors.encode_to_vec()).unwrap();
    let mut generator = tonic_prost_build::configure().out_dir(out.path());
    for message in JSON_MESSAGES {
        let message = format!("inventory.v1.{message}");
        generator = generator.message_attribute(message, "#[derive(::serde::Serialize)]");
    }
    // The number of an enum says nothing in JSON: `inventory-api verify` adds the name.
    generator = generator.field_attribute("inventory.v1.AuditReport.verdict", "#[serde(skip)]");
    generator.compile_fds(descriptors).unwrap();

    let mut names: Vec<_> =
        fs::read_dir(out.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["common.v1.rs", "descriptors.bin", "inventory.v1.rs", "reservation.v1.rs"]);
    for name in names {
        let generated = fs::read(out.path().join(&name)).unwrap();
        let committed = root.join("generated").join(&name);
        if std::env::var_os("UPDATE_PROTO").is_some() {
            fs::write(committed, generated).unwrap();
        } else {
            assert!(
                fs::read(committed).is_ok_and(|found| found == generated),
                "proto/generated/{} does not match the .proto files; run \
                 UPDATE_PROTO=1 cargo test -p inventory-proto",
                name.display()
            );
        }
    }
}
