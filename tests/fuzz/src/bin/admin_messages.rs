//! Fuzzes `inventory_api::fuzzing::admin_messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| inventory_api::fuzzing::admin_messages(input));
