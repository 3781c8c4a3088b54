//! Fuzzes `inventory_store::fuzzing::store_answers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| inventory_store::fuzzing::store_answers(input));
