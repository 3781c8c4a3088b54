//! Reads the one message of a unary request from its HTTP/2 stream.

use std::future::poll_fn;

use bytes::Bytes;
use h2::RecvStream;

use super::message::{MessageAssembler, MessageEncoding};
use super::status::{Code, Status, reason};

/// The body of a request, with the encoding that its headers declare.
pub(super) struct UnaryBody {
    pub(super) stream: RecvStream,
    pub(super) encoding: MessageEncoding,
}

impl UnaryBody {
    /// The message, decompressed, without its prefix.
    ///
    /// # Errors
    /// If the body is not exactly one valid message, or the stream was reset.
    pub(super) async fn read_message(mut self) -> Result<Bytes, Status> {
        let mut assembly = MessageAssembler::new(self.encoding);
        let stream = &mut self.stream;
        while let Some(chunk) = poll_fn(|cx| stream.poll_data(cx)).await {
            let chunk = chunk.map_err(read_error)?;
            let read = chunk.len();
            assembly.push(chunk)?;
            stream.flow_control().release_capacity(read).map_err(read_error)?;
        }
        assembly.finish()
    }
}

#[allow(clippy::needless_pass_by_value, reason = "a function for map_err")]
fn read_error(error: h2::Error) -> Status {
    if error.is_reset() || error.is_io() || error.is_go_away() {
        return Status::new(
            Code::Cancelled,
            reason::CANCELLED,
            "the request was reset before its end",
        );
    }
    Status::internal(reason::MALFORMED_MESSAGE, format!("cannot read the request: {error}"))
}
