//! Writes a call's outcome into its HTTP/2 stream.
//!
//! A stream that is gone (reset, or its connection closed) swallows the outcome: there is nobody to
//! tell, and the caller has been counted as cancelled or answered by then.

use bytes::{BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response};

use super::message::PREFIX_BYTES;
use super::request_head::HeadRejection;
use super::service::ResponseMessage;
use super::status::{Status, reason};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const OK: HeaderValue = HeaderValue::from_static("0");

/// Room made at once when the shared reply buffer is used up: several hundred small replies.
const REPLY_BUFFER_BYTES: usize = 16 * 1024;

/// Appends prefix and message to the shard's reply buffer and takes them out as one piece.
pub(super) fn encode(reply: &impl ResponseMessage, buffer: &mut BytesMut) -> Result<Bytes, Status> {
    if buffer.capacity() < REPLY_BUFFER_BYTES / 16 {
        buffer.reserve(REPLY_BUFFER_BYTES);
    }
    buffer.clear();
    buffer.put_bytes(0, PREFIX_BYTES);
    let encoded = reply.encode(buffer);
    let length = u32::try_from(buffer.len() - PREFIX_BYTES);
    let (Ok(()), Ok(length)) = (encoded, length) else {
        buffer.clear();
        return Err(Status::internal(
            reason::RESPONSE_INVALID,
            "the response is too large for a gRPC message",
        ));
    };
    buffer[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(buffer.split().freeze())
}

/// Headers, the framed `message`, and trailers with status 0.
pub(super) fn send_response(respond: &mut SendResponse<Bytes>, message: Bytes) {
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    let Ok(mut stream) = respond.send_response(response, false) else {
        return;
    };
    if stream.send_data(message, false).is_ok() {
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(GRPC_STATUS, OK);
        let _ = stream.send_trailers(trailers);
    }
}

/// One block of headers that ends the stream: what gRPC calls Trailers-Only.
pub(super) fn send_status(respond: &mut SendResponse<Bytes>, status: &Status) {
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    status.write_to(response.headers_mut());
    let _ = respond.send_response(response, true);
}

/// [`send_status`] with the HTTP status and the header of the refusal.
pub(super) fn send_rejection(respond: &mut SendResponse<Bytes>, refusal: HeadRejection) {
    let mut response = Response::new(());
    *response.status_mut() = refusal.http;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    refusal.status.write_to(headers);
    if let Some((name, value)) = refusal.header {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    let _ = respond.send_response(response, true);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    struct Text(&'static str);

    impl ResponseMessage for Text {
        fn encode(&self, into: &mut BytesMut) -> Result<(), prost::EncodeError> {
            into.extend_from_slice(self.0.as_bytes());
            Ok(())
        }
    }

    #[test]
    fn replies_are_framed_one_after_the_other_in_one_allocation() {
        let mut buffer = BytesMut::new();
        let first = encode(&Text("abc"), &mut buffer).unwrap();
        let second = encode(&Text(""), &mut buffer).unwrap();
        assert_eq!(&first[..], b"\0\0\0\0\x03abc");
        assert_eq!(&second[..], b"\0\0\0\0\0");
        assert_eq!(second.as_ptr(), first[first.len()..].as_ptr());
    }
}
