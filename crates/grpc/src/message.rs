//! The gRPC framing of a unary request: one prefix and exactly one message.

use bytes::{Bytes, BytesMut};

use super::status::{Code, Status, reason};
use crate::limits::REQUEST_MESSAGE_BYTES_MAX;

/// Every message has a prefix: one byte of flags and four bytes of length.
pub(crate) const PREFIX_BYTES: usize = 5;

/// Assembles one message from DATA frames. A message in a single frame, which is nearly every message,
/// is a slice of the read buffer and not copied.
#[derive(Default)]
pub(super) enum MessageAssembler {
    #[default]
    Empty,
    Single(Bytes),
    Joined(BytesMut),
}

impl MessageAssembler {
    /// Adds the payload of one frame.
    ///
    /// # Errors
    /// As soon as the prefix shows that the message cannot be served, before the rest has arrived.
    pub(super) fn push(&mut self, chunk: Bytes) -> Result<(), Status> {
        if chunk.is_empty() {
            return Ok(());
        }
        *self = match std::mem::take(self) {
            Self::Empty => Self::Single(chunk),
            Self::Single(first) => {
                let mut all = BytesMut::with_capacity(first.len() + chunk.len());
                all.extend_from_slice(&first);
                all.extend_from_slice(&chunk);
                Self::Joined(all)
            }
            Self::Joined(mut all) => {
                all.extend_from_slice(&chunk);
                Self::Joined(all)
            }
        };
        match needed(self.bytes())? {
            Some(needed) if self.bytes().len() > needed => Err(second_message()),
            _ => Ok(()),
        }
    }

    /// The message, after the end of the request.
    ///
    /// # Errors
    /// If the message is missing or incomplete.
    pub(super) fn finish(self) -> Result<Bytes, Status> {
        let held = self.bytes().len();
        if held == 0 {
            return Err(Status::unimplemented(
                reason::MESSAGE_COUNT,
                "this method takes exactly one request message, but the request has none",
            ));
        }
        match needed(self.bytes())? {
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
        let mut all = match self {
            Self::Empty => Bytes::new(),
            Self::Single(bytes) => bytes,
            Self::Joined(bytes) => bytes.freeze(),
        };
        Ok(all.split_off(PREFIX_BYTES))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Empty => &[],
            Self::Single(bytes) => bytes,
            Self::Joined(bytes) => bytes,
        }
    }
}

/// Bytes of the prefix and its message, once the prefix has arrived.
fn needed(held: &[u8]) -> Result<Option<usize>, Status> {
    let Some((&[flag, a, b, c, d], _)) = held.split_first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    match flag {
        0 => {}
        1 => {
            return Err(Status::internal(
                reason::COMPRESSION_UNDECLARED,
                "the message is flagged as compressed, but the call declared no grpc-encoding",
            ));
        }
        other => {
            return Err(Status::internal(
                reason::MALFORMED_MESSAGE,
                format!("the compression flag of the message is {other}; it must be 0"),
            ));
        }
    }
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > REQUEST_MESSAGE_BYTES_MAX {
        return Err(Status::new(
            Code::ResourceExhausted,
            reason::MESSAGE_TOO_LARGE,
            format!(
                "the request message has {length} bytes; the maximum is {REQUEST_MESSAGE_BYTES_MAX}"
            ),
        ));
    }
    Ok(Some(PREFIX_BYTES + length))
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

    use super::*;

    fn assemble(chunks: &[&[u8]]) -> Result<Bytes, Status> {
        let mut assembly = MessageAssembler::default();
        for chunk in chunks {
            assembly.push(Bytes::copy_from_slice(chunk))?;
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
}
