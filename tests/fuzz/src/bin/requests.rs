//! Fuzzes `inventory_api::fuzzing::requests`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| inventory_api::fuzzing::requests(input));
