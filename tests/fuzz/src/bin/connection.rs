//! Fuzzes `inventory_grpc::fuzzing::connection`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| inventory_grpc::fuzzing::connection(input));
