//! The gRPC framing of a unary request: one prefix and exactly one message, which may be compressed.

use std::io::Read;

use bytes::{Bytes, BytesMut};
use flate2::bufread::MultiGzDecoder;

use super::status::{Code, Status, reason};
use crate::limits::REQUEST_MESSAGE_BYTES_MAX;

/// Every message has a prefix: one byte of flags and four bytes of length.
pub(crate) const PREFIX_BYTES: usize = 5;

/// The flag of a compressed message.
const COMPRESSED: u8 = 1;

/// How the messages of a call may be encoded (grpc-encoding).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum MessageEncoding {
    #[default]
    Identity,
    Gzip,
}

/// Assembles one message from DATA frames. A message in a single frame, which is nearly every message,
/// is a slice of the read buffer and not copied.
#[derive(Default)]
pub(super) struct MessageAssembler {
    encoding: MessageEncoding,
    received: ReceivedFrames,
}

#[derive(Default)]
enum ReceivedFrames {
    #[default]
    Empty,
    Single(Bytes),
    Joined(BytesMut),
}

impl MessageAssembler {
    pub(super) fn new(encoding: MessageEncoding) -> Self {
        Self { encoding, received: ReceivedFrames::Empty }
    }

    /// Adds the payload of one frame.
    ///
    /// # Errors
    /// As soon as the prefix shows that the message cannot be served, before the rest has arrived.
    pub(super) fn push(&mut self, chunk: Bytes) -> Result<(), Status> {
        if chunk.is_empty() {
            return Ok(());
        }
        self.received = match std::mem::take(&mut self.received) {
            ReceivedFrames::Empty => ReceivedFrames::Single(chunk),
            ReceivedFrames::Single(first) => {
                let mut all = BytesMut::with_capacity(first.len() + chunk.len());
                all.extend_from_slice(&first);
                all.extend_from_slice(&chunk);
                ReceivedFrames::Joined(all)
            }
            ReceivedFrames::Joined(mut all) => {
                all.extend_from_slice(&chunk);
                ReceivedFrames::Joined(all)
            }
        };
        let bytes = self.received.bytes();
        match needed(bytes, self.encoding)? {
            Some(needed) if bytes.len() > needed => Err(second_message()),
            _ => Ok(()),
        }
    }

    /// The message, after the end of the request.
    ///
    /// # Errors
    /// If the message is missing or incomplete, or cannot be decompressed within its maximum size.
    pub(super) fn finish(self) -> Result<Bytes, Status> {
        let held = self.received.bytes().len();
        if held == 0 {
            return Err(Status::unimplemented(
                reason::MESSAGE_COUNT,
                "this method takes exactly one request message, but the request has none",
            ));
        }
        match needed(self.received.bytes(), self.encoding)? {
            Some(needed) if held == needed => {}
            Some(needed) => {
                return Err(truncated(format!("the request ended after {held} of {needed} bytes")));
            }
            None => {
                return Err(truncated(format!(
                    "the request ended after {held} bytes, within the {PREFIX_BYTES}-byte message prefix"
                )));
            }
        }
        let mut all = match self.received {
            ReceivedFrames::Empty => Bytes::new(),
            ReceivedFrames::Single(bytes) => bytes,
            ReceivedFrames::Joined(bytes) => bytes.freeze(),
        };
        let message = all.split_off(PREFIX_BYTES);
        if all.first() == Some(&COMPRESSED) { decompress(&mut &message[..]) } else { Ok(message) }
    }
}

impl ReceivedFrames {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Empty => &[],
            Self::Single(bytes) => bytes,
            Self::Joined(bytes) => bytes,
        }
    }
}

/// Bytes of the prefix and its message, once the prefix has arrived.
fn needed(held: &[u8], encoding: MessageEncoding) -> Result<Option<usize>, Status> {
    let Some((&[flag, a, b, c, d], _)) = held.split_first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    match flag {
        0 => {}
        COMPRESSED if encoding == MessageEncoding::Gzip => {}
        COMPRESSED => {
            return Err(Status::internal(
                reason::COMPRESSION_UNDECLARED,
                "the message is flagged as compressed, but the call declared no grpc-encoding",
            ));
        }
        other => {
            return Err(Status::internal(
                reason::MALFORMED_MESSAGE,
                format!("the compression flag of the message is {other}; it must be 0 or 1"),
            ));
        }
    }
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > REQUEST_MESSAGE_BYTES_MAX {
        return Err(too_large(format!("{length} bytes")));
    }
    Ok(Some(PREFIX_BYTES + length))
}

/// Decompresses until the end or the maximum size, whichever comes first: a small message that expands to
/// gigabytes costs no more than the largest valid one. The rest of it stays in `compressed`.
fn decompress(compressed: &mut &[u8]) -> Result<Bytes, Status> {
    let mut message = Vec::new();
    let decoder = MultiGzDecoder::new(compressed);
    match decoder.take(REQUEST_MESSAGE_BYTES_MAX as u64 + 1).read_to_end(&mut message) {
        Ok(length) if length > REQUEST_MESSAGE_BYTES_MAX => {
            Err(too_large("more bytes after decompression".to_owned()))
        }
        Ok(_) => Ok(message.into()),
        Err(error) => Err(Status::internal(
            reason::MALFORMED_MESSAGE,
            format!("the request message is not valid gzip: {error}"),
        )),
    }
}

fn too_large(size: String) -> Status {
    Status::new(
        Code::ResourceExhausted,
        reason::MESSAGE_TOO_LARGE,
        format!("the request message has {size}; the maximum is {REQUEST_MESSAGE_BYTES_MAX}"),
    )
}

fn second_message() -> Status {
    Status::unimplemented(
        reason::MESSAGE_COUNT,
        "this method takes exactly one request message, but the request has more",
    )
}

fn truncated(message: String) -> Status {
    Status::internal(reason::MESSAGE_TRUNCATED, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;

    use super::*;

    fn assemble(chunks: &[&[u8]]) -> Result<Bytes, Status> {
        let mut assembly = MessageAssembler::default();
        for chunk in chunks {
            assembly.push(Bytes::copy_from_slice(chunk))?;
        }
        assembly.finish()
    }

    fn gzip(message: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(message).unwrap();
        encoder.finish().unwrap()
    }

    /// Assembles a message of these compressed bytes, in two frames.
    fn assemble_gzip(compressed: &[u8]) -> Result<Bytes, Status> {
        let mut framed = vec![COMPRESSED];
        framed.extend(u32::try_from(compressed.len()).unwrap().to_be_bytes());
        framed.extend(compressed);
        let mut assembly = MessageAssembler::new(MessageEncoding::Gzip);
        for half in [&framed[..3], &framed[3..]] {
            assembly.push(Bytes::copy_from_slice(half))?;
        }
        assembly.finish()
    }

    fn fails(chunks: &[&[u8]]) -> (Code, &'static str) {
        let status = assemble(chunks).unwrap_err();
        (status.code(), status.reason())
    }

    #[test]
    fn a_message_in_one_frame_is_not_copied() {
        let frame = Bytes::from_static(b"\0\0\0\0\x03abc");
        let mut assembly = MessageAssembler::default();
        assembly.push(frame.clone()).unwrap();
        let message = assembly.finish().unwrap();
        assert_eq!(message, "abc");
        assert_eq!(message.as_ptr(), frame[PREFIX_BYTES..].as_ptr());
    }

    #[test]
    fn every_split_into_frames_gives_the_same_message() {
        let whole = b"\0\0\0\0\x06abcdef";
        for first in 0..=whole.len() {
            for second in first..=whole.len() {
                let chunks = [&whole[..first], &whole[first..second], &whole[second..]];
                assert_eq!(assemble(&chunks).unwrap(), "abcdef", "{first} {second}");
            }
        }
        assert_eq!(assemble(&[b"\0\0\0\0\0"]).unwrap(), "");
    }

    #[test]
    fn no_message_or_more_than_one_is_unimplemented() {
        let cardinality = (Code::Unimplemented, reason::MESSAGE_COUNT);
        assert_eq!(fails(&[]), cardinality);
        assert_eq!(fails(&[b""]), cardinality);
        assert_eq!(fails(&[b"\0\0\0\0\x01a", b"\0\0\0\0\x01b"]), cardinality);
        assert_eq!(fails(&[b"\0\0\0\0\x01ab"]), cardinality);
    }

    #[test]
    fn a_truncated_message_is_internal() {
        let truncated = (Code::Internal, reason::MESSAGE_TRUNCATED);
        assert_eq!(fails(&[b"\0\0\0"]), truncated);
        assert_eq!(fails(&[b"\0\0\0\0\x05abc"]), truncated);
    }

    #[test]
    fn an_oversized_message_is_rejected_by_its_prefix() {
        let length = u32::try_from(REQUEST_MESSAGE_BYTES_MAX + 1).unwrap();
        let mut prefix = vec![0];
        prefix.extend(length.to_be_bytes());
        let mut assembly = MessageAssembler::default();
        let status = assembly.push(prefix.into()).unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.message().contains("65537") && status.message().contains("65536"));
    }

    #[test]
    fn a_compression_flag_other_than_zero_is_rejected() {
        assert_eq!(fails(&[b"\x01\0\0\0\x01a"]), (Code::Internal, reason::COMPRESSION_UNDECLARED));
        assert_eq!(fails(&[b"\x02\0\0\0\x01a"]), (Code::Internal, reason::MALFORMED_MESSAGE));
    }

    #[test]
    fn a_gzip_message_is_decompressed_if_the_call_declares_it() {
        assert_eq!(assemble_gzip(&gzip(b"abcdef")).unwrap(), "abcdef");
        assert_eq!(assemble_gzip(&gzip(b"")).unwrap(), "");
        let members = [gzip(b"abc"), gzip(b"def")].concat();
        assert_eq!(assemble_gzip(&members).unwrap(), "abcdef");
        let mut plain = MessageAssembler::new(MessageEncoding::Gzip);
        plain.push(Bytes::from_static(b"\0\0\0\0\x01a")).unwrap();
        assert_eq!(plain.finish().unwrap(), "a");
    }

    #[test]
    fn the_maximum_size_applies_after_decompression() {
        let largest = vec![7; REQUEST_MESSAGE_BYTES_MAX];
        assert_eq!(assemble_gzip(&gzip(&largest)).unwrap().len(), REQUEST_MESSAGE_BYTES_MAX);
        // 50 KB that expand to 50 MB.
        let bomb = gzip(&vec![0; 50 * 1024 * 1024]);
        assert!(bomb.len() < REQUEST_MESSAGE_BYTES_MAX);
        let mut unread = &bomb[..];
        assert!(decompress(&mut unread).is_err());
        assert!(unread.len() > bomb.len() * 9 / 10, "{} of {} unread", unread.len(), bomb.len());
        let status = assemble_gzip(&bomb).unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.reason(), reason::MESSAGE_TOO_LARGE);
        assert!(status.message().contains("after decompression"), "{}", status.message());
    }

    #[test]
    fn invalid_gzip_is_internal() {
        let valid = gzip(b"abcdef");
        let mut checksum = valid.clone();
        checksum[valid.len() - 8] ^= 1;
        let truncated = &valid[..valid.len() - 1];
        let trailing = [&valid[..], b"x"].concat();
        for invalid in [&b""[..], b"not gzip", truncated, &checksum, &trailing] {
            let status = assemble_gzip(invalid).unwrap_err();
            assert_eq!(status.code(), Code::Internal, "{invalid:?}");
            assert_eq!(status.reason(), reason::MALFORMED_MESSAGE);
        }
    }
}
