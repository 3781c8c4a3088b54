//! An input as the bytes that a peer sends: arbitrary bytes, or the preface and a sequence of frames. The frames are those of
//! calls for the greater part, because arbitrary bytes seldom get past the preface.

use std::io::Write as _;

use arbitrary::{Result, Unstructured};
use flate2::Compression;
use flate2::write::GzEncoder;
use inventory_proto::inventory::v1::CheckReq;
use prost::Message;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frames of one input: enough to exceed every limit of the connection that counts frames of one stream, few enough for
/// thousands of inputs per second.
const FRAMES_MAX: usize = 512;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// A field of the table (RFC 7541, 6.1), and the index of the one that was added last.
const INDEXED: u8 = 0x80;
const NEWEST_FIELD: u8 = 62;

const PATHS: [&str; 9] = [
    "/inventory.v1.Inventory/CheckAvailability",
    "/inventory.v1.Inventory/CommitReservation",
    "/inventory.v1.Inventory/ReleaseHold",
    "/inventory.v1.Inventory/PlaceHold",
    "/inventory.v1.Inventory/GetReservation",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/inventory.v1.Inventory/Unknown",
    "/unknown.Service/Method",
];

const TIMEOUTS: [&str; 7] = ["1H", "250m", "0m", "1n", "99999999H", "123456789S", "soon"];
const ENCODINGS: [&str; 4] = ["gzip", "identity", "deflate", ""];

/// The bytes that the peer of this input sends.
pub(super) fn client_bytes(input: &mut Unstructured<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let is_raw = input.arbitrary().unwrap_or(false);
    if !is_raw {
        bytes.extend_from_slice(PREFACE);
        // An input that ends within a frame ends here.
        let _ = frames(input, &mut bytes);
    }
    bytes.extend_from_slice(input.bytes(input.len()).unwrap_or_default());
    bytes
}

fn frames(input: &mut Unstructured<'_>, out: &mut Vec<u8>) -> Result<()> {
    let mut streams = ClientStreams { newest: 0 };
    if input.ratio(7, 8)? {
        settings(input, out)?;
    }
    for _ in 0..FRAMES_MAX {
        if input.is_empty() {
            break;
        }
        match input.int_in_range(0..=15)? {
            0..=3 => call(input, &mut streams, out)?,
            4 => {
                let stream = streams.any(input)?;
                message(input, stream, out)?;
            }
            5 => headers(input, &mut streams, out)?,
            6 => arbitrary_block(input, &mut streams, out)?,
            7 => {
                let payload = payload(input)?;
                let flags = input.arbitrary::<u8>()? & END_STREAM;
                frame(DATA, flags, streams.any(input)?, payload, out);
            }
            8 => frame(RST_STREAM, 0, streams.any(input)?, &code(input)?, out),
            9 => settings(input, out)?,
            10 => frame(PING, input.arbitrary::<u8>()? & ACK, 0, &[7; 8], out),
            11 => {
                let stream = if input.arbitrary()? { 0 } else { streams.any(input)? };
                frame(WINDOW_UPDATE, 0, stream, &code(input)?, out);
            }
            12 => frame(PRIORITY, 0, streams.any(input)?, &[0, 0, 0, 1, 9], out),
            13 => frame(GOAWAY, 0, 0, &[[0; 4], code(input)?].concat(), out),
            14 => {
                let (kind, flags) = (input.arbitrary()?, input.arbitrary()?);
                let stream = streams.any(input)?;
                let payload = payload(input)?;
                frame(kind, flags, stream, payload, out);
            }
            _ => out.extend_from_slice(payload(input)?),
        }
    }
    Ok(())
}

/// Streams that the peer has opened: 1, 3, …
struct ClientStreams {
    newest: u32,
}

impl ClientStreams {
    fn open(&mut self) -> u32 {
        self.newest = if self.newest == 0 { 1 } else { self.newest + 2 };
        self.newest
    }

    /// Mostly an open stream; also one that is idle, or one of the server.
    fn any(&self, input: &mut Unstructured<'_>) -> Result<u32> {
        match input.int_in_range(0..=15)? {
            0 => input.arbitrary(),
            back => Ok(self.newest.saturating_sub(2 * (back - 1) / 3)),
        }
    }
}

/// HEADERS and DATA of one call.
fn call(
    input: &mut Unstructured<'_>,
    streams: &mut ClientStreams,
    out: &mut Vec<u8>,
) -> Result<()> {
    let stream = streams.open();
    let block = request_block(input)?;
    frame(HEADERS, END_HEADERS, stream, &block, out);
    message(input, stream, out)
}

/// HEADERS of a call, perhaps of a stream that is open already, perhaps in parts.
fn headers(
    input: &mut Unstructured<'_>,
    streams: &mut ClientStreams,
    out: &mut Vec<u8>,
) -> Result<()> {
    let stream = if input.arbitrary()? { streams.open() } else { streams.any(input)? };
    let block = request_block(input)?;
    split_block(input, stream, &block, out)
}

/// HEADERS with any header block.
fn arbitrary_block(
    input: &mut Unstructured<'_>,
    streams: &mut ClientStreams,
    out: &mut Vec<u8>,
) -> Result<()> {
    let stream = if input.arbitrary()? { streams.open() } else { streams.any(input)? };
    let block = payload(input)?;
    split_block(input, stream, block, out)
}

fn split_block(
    input: &mut Unstructured<'_>,
    stream: u32,
    block: &[u8],
    out: &mut Vec<u8>,
) -> Result<()> {
    let end_stream = input.arbitrary::<u8>()? & END_STREAM;
    let at = usize::from(input.arbitrary::<u8>()?);
    let Some((first, rest)) = block.split_at_checked(at) else {
        frame(HEADERS, end_stream | END_HEADERS, stream, block, out);
        return Ok(());
    };
    frame(HEADERS, end_stream, stream, first, out);
    let end_headers = if input.ratio(7, 8)? { END_HEADERS } else { 0 };
    frame(CONTINUATION, end_headers, stream, rest, out);
    Ok(())
}

/// A header block of literal fields, which the table of the connection may keep, or of the newest fields in that table.
fn request_block(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut block = Vec::new();
    if input.ratio(1, 8)? {
        let fields = input.int_in_range(1..=8)?;
        block.extend((0..fields).rev().map(|age: u8| INDEXED | (NEWEST_FIELD + age)));
        return Ok(block);
    }
    let path = *input.choose(&PATHS)?;
    let is_usual = input.ratio(7, 8)?;
    for (name, value) in [
        (":method", if is_usual { "POST" } else { "GET" }),
        (":scheme", "http"),
        (":path", path),
        (":authority", "a"),
        ("content-type", if is_usual { "application/grpc" } else { "application/json" }),
        ("te", "trailers"),
    ] {
        field(input, name, value.as_bytes(), &mut block)?;
    }
    if input.arbitrary()? {
        let timeout = match input.ratio(3, 4)? {
            true => input.choose(&TIMEOUTS)?.as_bytes(),
            false => payload(input)?,
        };
        field(input, "grpc-timeout", timeout, &mut block)?;
    }
    if input.arbitrary()? {
        let encoding = *input.choose(&ENCODINGS)?;
        field(input, "grpc-encoding", encoding.as_bytes(), &mut block)?;
    }
    if input.ratio(1, 4)? {
        let value = payload(input)?;
        field(input, "x-any", value, &mut block)?;
    }
    Ok(block)
}

/// One field (RFC 7541, 6.2): kept in the table, not kept, or never kept.
fn field(
    input: &mut Unstructured<'_>,
    name: &str,
    value: &[u8],
    block: &mut Vec<u8>,
) -> Result<()> {
    block.push(*input.choose(&[0x40, 0x00, 0x10])?);
    for text in [name.as_bytes(), value] {
        // A prefix of seven bits, and the rest in groups of seven.
        match text.len().checked_sub(127) {
            None => block.push(text.len() as u8),
            Some(mut rest) => {
                block.push(127);
                while rest >= 128 {
                    block.push(0x80 | (rest % 128) as u8);
                    rest /= 128;
                }
                block.push(rest as u8);
            }
        }
        block.extend_from_slice(text);
    }
    Ok(())
}

/// DATA with a message of gRPC: a check whose event the service follows, or any bytes; perhaps compressed.
fn message(input: &mut Unstructured<'_>, stream: u32, out: &mut Vec<u8>) -> Result<()> {
    let text = payload(input)?;
    let message = match input.arbitrary()? {
        true => {
            let (event_id, qty) = (String::from_utf8_lossy(text).into_owned(), input.arbitrary()?);
            CheckReq { event_id, qty, seat_ids: Vec::new() }.encode_to_vec()
        }
        false => text.to_vec(),
    };
    let flag = input.int_in_range(0..=2)?;
    let body = if flag == 1 { compressed(&message) } else { message };
    let claimed = match input.ratio(7, 8)? {
        true => body.len() as u32,
        false => input.arbitrary()?,
    };
    let mut payload = vec![flag];
    payload.extend_from_slice(&claimed.to_be_bytes());
    payload.extend_from_slice(&body);
    let end_stream = if input.ratio(7, 8)? { END_STREAM } else { 0 };
    let parts = if input.ratio(1, 4)? { input.int_in_range(2..=4)? } else { 1 };
    let mut parts = payload.chunks(payload.len().div_ceil(parts)).peekable();
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        frame(DATA, if is_last { end_stream } else { 0 }, stream, part, out);
    }
    Ok(())
}

fn compressed(message: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to a vector cannot fail.
    let _ = encoder.write_all(message);
    encoder.finish().unwrap_or_default()
}

fn settings(input: &mut Unstructured<'_>, out: &mut Vec<u8>) -> Result<()> {
    let mut payload = Vec::new();
    for _ in 0..input.int_in_range(0..=4)? {
        let id: u16 = input.int_in_range(0..=9)?;
        payload.extend_from_slice(&id.to_be_bytes());
        payload.extend_from_slice(&code(input)?);
    }
    let flags = if input.ratio(1, 8)? { ACK } else { 0 };
    frame(SETTINGS, flags, 0, &payload, out);
    Ok(())
}

/// Four bytes: mostly a small number.
fn code(input: &mut Unstructured<'_>) -> Result<[u8; 4]> {
    let number = match input.ratio(3, 4)? {
        true => u32::from(input.arbitrary::<u16>()?),
        false => input.arbitrary()?,
    };
    Ok(number.to_be_bytes())
}

/// Mostly a few bytes.
fn payload<'a>(input: &mut Unstructured<'a>) -> Result<&'a [u8]> {
    let length = match input.ratio(7, 8)? {
        true => usize::from(input.arbitrary::<u8>()? % 32),
        false => usize::from(input.arbitrary::<u16>()?),
    };
    input.bytes(length.min(input.len()))
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    let length = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&[length[1], length[2], length[3], kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}
