//! Inputs of fuzz targets as messages of protobuf: as they are, or built field by field, because a change of arbitrary bytes
//! seldom keeps the lengths of nested messages right. Compiled with the targets only.

use arbitrary::{Result, Unstructured};

/// Most fields of a message: each of the largest one twice.
const FIELDS_MAX: usize = 14;

/// Depth of messages: a price in a seat in an import.
const DEPTH_MAX: u32 = 2;

/// Largest number of a field.
const NUMBER_MAX: u32 = 7;

const NUMBERS: [i64; 9] =
    [0, 1, 2, -1, 64, 1_000_000_001, 1_800_000_000, i32::MIN as i64, i64::MAX];
const TEXTS: [&str; 10] =
    ["evt_1", "rsv_1", "A-1", "A-2", "STALLS", "1", "KRW", "USD", "debug", "a b"];

/// The bytes of a message. `is_built`: the input decides about fields instead of bytes.
pub(crate) fn message_bytes(is_built: bool, input: &[u8]) -> Vec<u8> {
    if !is_built {
        return input.to_vec();
    }
    let mut bytes = Vec::new();
    // An input that ends within a field ends the message.
    let _ = fields(&mut Unstructured::new(input), DEPTH_MAX, &mut bytes);
    bytes
}

fn fields(input: &mut Unstructured<'_>, depth: u32, out: &mut Vec<u8>) -> Result<()> {
    for _ in 0..input.int_in_range(0..=FIELDS_MAX)? {
        if input.is_empty() {
            break;
        }
        let number = input.int_in_range(1..=NUMBER_MAX)?;
        match input.int_in_range(0..=4)? {
            0 => numeric(number, *input.choose(&NUMBERS)?, out),
            1 => numeric(number, input.arbitrary::<i32>()?.into(), out),
            2 => delimited(number, input.choose(&TEXTS)?.as_bytes(), out),
            3 if depth > 0 => {
                let mut nested = Vec::new();
                fields(input, depth - 1, &mut nested)?;
                delimited(number, &nested, out);
            }
            _ => delimited(number, input.arbitrary::<&str>()?.as_bytes(), out),
        }
    }
    Ok(())
}

fn numeric(number: u32, value: i64, out: &mut Vec<u8>) {
    prost::encoding::encode_key(number, prost::encoding::WireType::Varint, out);
    // A negative number has ten bytes.
    prost::encoding::encode_varint(value as u64, out);
}

fn delimited(number: u32, content: &[u8], out: &mut Vec<u8>) {
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, out);
    prost::encoding::encode_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}
