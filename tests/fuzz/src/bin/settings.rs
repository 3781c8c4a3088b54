//! Fuzzes `inventory_api::fuzzing::settings`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| inventory_api::fuzzing::settings(input));
