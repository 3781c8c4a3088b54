//! Fuzzes `inventory_api::fuzzing::seat_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| inventory_api::fuzzing::seat_file(input));
