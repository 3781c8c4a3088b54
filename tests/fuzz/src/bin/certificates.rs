//! Fuzzes `inventory_tls::fuzzing::certificates`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| inventory_tls::fuzzing::certificates(input));
