//! The interface between the HTTP/2 layer and the services: all that the layer knows of a contract.

use std::future::Future;

use bytes::{Bytes, BytesMut};
use prost::Message;

use super::call::CallContext;
use super::status::{Status, reason};

/// A contract served on a shard, dispatched without allocation or dynamic calls.
///
/// Generated for every hot contract; a pair of them is one too, so two contracts share a port.
pub trait UnaryService: 'static {
    /// One of the contract's methods.
    type Method: Copy + 'static;
    /// A response that is not encoded yet.
    type Response: ResponseMessage;

    /// The method of a request's `:path`.
    fn find_method(path: &str) -> Option<Self::Method>;

    /// Whether the contract has this service (`package.Service`), so that an unknown method can be
    /// told from an unknown service.
    fn has_service(service: &str) -> bool;

    /// `/package.Service/Method`, as observers see it.
    fn method_name(method: Self::Method) -> &'static str;

    /// Decodes `request` (one message, without its prefix) and runs the handler.
    ///
    /// Polled for the last time at or after `call.deadline`: a handler that is ready then answers
    /// by itself, one that is not is dropped and answered for with DEADLINE_EXCEEDED.
    fn call(
        &self,
        method: Self::Method,
        call: &CallContext,
        request: Bytes,
    ) -> impl Future<Output = Result<Self::Response, Status>>;
}

/// A response message of any method of a contract.
pub trait ResponseMessage {
    /// Appends the message, without a prefix.
    ///
    /// # Errors
    /// When the buffer cannot grow to hold it.
    fn encode(&self, into: &mut BytesMut) -> Result<(), prost::EncodeError>;
}

impl<M: Message> ResponseMessage for M {
    fn encode(&self, into: &mut BytesMut) -> Result<(), prost::EncodeError> {
        Message::encode(self, into)
    }
}

/// A response that may have been encoded for an earlier call.
#[derive(Clone, Debug)]
pub enum CacheableResponse<M> {
    Message(Box<M>),
    /// Without a prefix.
    Encoded(Bytes),
}

impl<M: Message> ResponseMessage for CacheableResponse<M> {
    fn encode(&self, into: &mut BytesMut) -> Result<(), prost::EncodeError> {
        match self {
            Self::Message(message) => Message::encode(message.as_ref(), into),
            Self::Encoded(bytes) => {
                into.extend_from_slice(bytes);
                Ok(())
            }
        }
    }
}

/// Decodes a request message.
///
/// # Errors
/// `INTERNAL` with what is malformed, as gRPC prescribes for a request that does not parse.
pub fn decode<M: Message + Default>(request: Bytes) -> Result<M, Status> {
    M::decode(request).map_err(|error| {
        Status::internal(
            reason::MALFORMED_MESSAGE,
            format!("the request message is not valid protobuf: {error}"),
        )
    })
}

/// One of the two sides of a pair of contracts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Either<A, B> {
    First(A),
    Second(B),
}

impl<A: ResponseMessage, B: ResponseMessage> ResponseMessage for Either<A, B> {
    fn encode(&self, into: &mut BytesMut) -> Result<(), prost::EncodeError> {
        match self {
            Self::First(reply) => reply.encode(into),
            Self::Second(reply) => reply.encode(into),
        }
    }
}

impl<A: UnaryService, B: UnaryService> UnaryService for (A, B) {
    type Method = Either<A::Method, B::Method>;
    type Response = Either<A::Response, B::Response>;

    fn find_method(path: &str) -> Option<Self::Method> {
        A::find_method(path)
            .map(Either::First)
            .or_else(|| B::find_method(path).map(Either::Second))
    }

    fn has_service(service: &str) -> bool {
        A::has_service(service) || B::has_service(service)
    }

    fn method_name(method: Self::Method) -> &'static str {
        match method {
            Either::First(method) => A::method_name(method),
            Either::Second(method) => B::method_name(method),
        }
    }

    async fn call(
        &self,
        method: Self::Method,
        call: &CallContext,
        request: Bytes,
    ) -> Result<Self::Response, Status> {
        match method {
            Either::First(method) => self.0.call(method, call, request).await.map(Either::First),
            Either::Second(method) => {
                let reply = self.1.call(method, call, request).await;
                reply.map(Either::Second)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures::FutureExt;

    use super::*;
    use crate::Code;

    /// A contract of one method that answers with its own name.
    struct Named<const N: u8>;

    struct Text(String);

    impl ResponseMessage for Text {
        fn encode(&self, into: &mut BytesMut) -> Result<(), prost::EncodeError> {
            into.extend_from_slice(self.0.as_bytes());
            Ok(())
        }
    }

    impl<const N: u8> UnaryService for Named<N> {
        type Method = u8;
        type Response = Text;

        fn find_method(path: &str) -> Option<u8> {
            (path == format!("/s{N}/m")).then_some(N)
        }

        fn has_service(service: &str) -> bool {
            service == format!("s{N}")
        }

        fn method_name(_: u8) -> &'static str {
            if N == 1 { "/s1/m" } else { "/s2/m" }
        }

        async fn call(&self, method: u8, _: &CallContext, _: Bytes) -> Result<Text, Status> {
            Ok(Text(format!("from {method}")))
        }
    }

    #[test]
    fn a_pair_of_contracts_routes_each_path_to_its_own_side() {
        type Pair = (Named<1>, Named<2>);
        for (path, says) in [("/s1/m", "from 1"), ("/s2/m", "from 2")] {
            let method = Pair::find_method(path).unwrap();
            assert_eq!(Pair::method_name(method), path);
            let call = CallContext::default();
            let pair = (Named::<1>, Named::<2>);
            let reply = pair.call(method, &call, Bytes::new()).now_or_never();
            let mut out = BytesMut::new();
            reply.unwrap().unwrap().encode(&mut out).unwrap();
            assert_eq!(out, says);
        }
        assert!(Pair::find_method("/s3/m").is_none());
        assert!(Pair::has_service("s1") && Pair::has_service("s2") && !Pair::has_service("s3"));
    }

    #[test]
    fn a_message_that_does_not_parse_is_internal_and_says_what_is_wrong() {
        let bytes = Bytes::from_static(&[0x0a, 0xff]);
        let status = decode::<inventory_proto::inventory::v1::CheckReq>(bytes).unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(status.reason(), reason::MALFORMED_MESSAGE);
        assert!(
            status.message().contains("CheckReq"),
            "{}",
            status.message()
        );
    }
}
