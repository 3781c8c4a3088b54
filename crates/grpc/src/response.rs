//! Writes the outcome of a call into its HTTP/2 stream.
//!
//! Errors of a stream that was reset or whose connection closed are ignored: the response has no receiver,
//! and the end of the call is reported elsewhere.

use bytes::{BufMut, Bytes, BytesMut};
use h2::SendStream;
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

/// Allocated at once when the shared response buffer is used up: several hundred small responses.
const RESPONSE_BUFFER_BYTES: usize = 16 * 1024;

/// Encodes prefix and message into the shard's response buffer and splits them off as one piece.
pub(super) fn encode(
    message: &impl ResponseMessage,
    buffer: &mut BytesMut,
) -> Result<Bytes, Status> {
    if buffer.capacity() < RESPONSE_BUFFER_BYTES / 16 {
        buffer.reserve(RESPONSE_BUFFER_BYTES);
    }
    buffer.clear();
    buffer.put_bytes(0, PREFIX_BYTES);
    let encoded = message.encode(buffer);
    let length = u32::try_from(buffer.len() - PREFIX_BYTES);
    let (Ok(()), Ok(length)) = (encoded, length) else {
        buffer.clear();
        return Err(Status::internal(
            reason::RESPONSE_INVALID,
            "the response exceeds the size of a gRPC message",
        ));
    };
    buffer[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(buffer.split().freeze())
}

/// Headers, the framed `message`, and trailers with status 0.
pub(super) fn send_response(stream: &mut SendResponse<Bytes>, message: Bytes) {
    let Some(mut body) = send_head(stream) else {
        return;
    };
    if body.send_data(message, false).is_ok() {
        let _ = body.send_trailers(ok_trailers());
    }
}

/// The headers of a response with messages; `None` if the response has no receiver.
pub(super) fn send_head(stream: &mut SendResponse<Bytes>) -> Option<SendStream<Bytes>> {
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    stream.send_response(response, false).ok()
}

pub(super) fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, OK);
    trailers
}

/// One block of headers that ends the stream (Trailers-Only in the gRPC specification).
pub(super) fn send_status(stream: &mut SendResponse<Bytes>, status: &Status) {
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    status.write_to(response.headers_mut());
    let _ = stream.send_response(response, true);
}

/// [`send_status`] with the HTTP status and the additional header of the rejection.
pub(super) fn send_rejection(stream: &mut SendResponse<Bytes>, rejection: HeadRejection) {
    let mut response = Response::new(());
    *response.status_mut() = rejection.http;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    rejection.status.write_to(headers);
    if let Some((name, value)) = rejection.header {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let _ = stream.send_response(response, true);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    struct TextMessage(&'static str);

    impl ResponseMessage for TextMessage {
        fn encode(&self, into: &mut BytesMut) -> Result<(), prost::EncodeError> {
            into.extend_from_slice(self.0.as_bytes());
            Ok(())
        }
    }

    #[test]
    fn responses_share_one_allocation() {
        let mut buffer = BytesMut::new();
        let first = encode(&TextMessage("abc"), &mut buffer).unwrap();
        let second = encode(&TextMessage(""), &mut buffer).unwrap();
        assert_eq!(&first[..], b"\0\0\0\0\x03abc");
        assert_eq!(&second[..], b"\0\0\0\0\0");
        assert_eq!(second.as_ptr(), first[first.len()..].as_ptr());
    }
}
