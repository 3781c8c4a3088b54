//! The interface between the HTTP/2 layer and the contracts: the layer uses a contract only through these traits.

use std::future::Future;

use bytes::{Bytes, BytesMut};
use prost::Message;

use super::call::CallContext;
use super::status::{Status, reason};

/// A contract whose unary methods are served on a shard, without allocation or dynamic dispatch.
///
/// A pair of unary services is a unary service too, so that two contracts share one port.
pub trait UnaryService: 'static {
    /// One of the contract's methods.
    type Method: Copy + 'static;
    /// A response, not yet encoded.
    type Response: ResponseMessage;

    /// The method that a request's `:path` names.
    fn find_method(path: &str) -> Option<Self::Method>;

    /// Whether the contract has this service (`package.Service`): an unknown method and an unknown service
    /// have different reasons.
    fn has_service(service: &str) -> bool;

    /// `/package.Service/Method`, as passed to observers.
    fn method_name(method: Self::Method) -> &'static str;

    /// Decodes `request` (one message, without its prefix) and runs the handler.
    ///
    /// The last poll is at or after `call.deadline`: a handler that is ready then answers by itself; a
    /// pending one is dropped, and the call is answered with DEADLINE_EXCEEDED.
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
    /// If the buffer cannot grow to hold the message.
    fn encode(&self, into: &mut BytesMut) -> Result<(), prost::EncodeError>;
}

impl<M: Message> ResponseMessage for M {
    fn encode(&self, into: &mut BytesMut) -> Result<(), prost::EncodeError> {
        Message::encode(self, into)
    }
}

/// A response that may be encoded already, for an earlier call.
#[derive(Clone, Debug)]
pub enum CacheableResponse<M> {
    Message(Box<M>),
    /// The encoded message, without a prefix.
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
/// `INTERNAL` with the decoder's message, as gRPC prescribes for a request that does not parse.
pub fn decode<M: Message + Default>(request: Bytes) -> Result<M, Status> {
    M::decode(request).map_err(|error| {
        Status::internal(
            reason::MALFORMED_MESSAGE,
            format!("the request message is not valid protobuf: {error}"),
        )
    })
}

/// A method or response of one of two contracts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Either<A, B> {
    First(A),
    Second(B),
}

impl<A: ResponseMessage, B: ResponseMessage> ResponseMessage for Either<A, B> {
    fn encode(&self, into: &mut BytesMut) -> Result<(), prost::EncodeError> {
        match self {
            Self::First(response) => response.encode(into),
            Self::Second(response) => response.encode(into),
        }
    }
}

impl<A: UnaryService, B: UnaryService> UnaryService for (A, B) {
    type Method = Either<A::Method, B::Method>;
    type Response = Either<A::Response, B::Response>;

    fn find_method(path: &str) -> Option<Self::Method> {
        A::find_method(path).map(Either::First).or_else(|| B::find_method(path).map(Either::Second))
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
                let response = self.1.call(method, call, request).await;
                response.map(Either::Second)
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

    /// A contract with one method that returns its own name.
    struct OneMethod<const N: u8>;

    struct TextResponse(String);

    impl ResponseMessage for TextResponse {
        fn encode(&self, into: &mut BytesMut) -> Result<(), prost::EncodeError> {
            into.extend_from_slice(self.0.as_bytes());
            Ok(())
        }
    }

    impl<const N: u8> UnaryService for OneMethod<N> {
        type Method = u8;
        type Response = TextResponse;

        fn find_method(path: &str) -> Option<u8> {
            (path == format!("/s{N}/m")).then_some(N)
        }

        fn has_service(service: &str) -> bool {
            service == format!("s{N}")
        }

        fn method_name(_: u8) -> &'static str {
            if N == 1 { "/s1/m" } else { "/s2/m" }
        }

        async fn call(
            &self,
            method: u8,
            _: &CallContext,
            _: Bytes,
        ) -> Result<TextResponse, Status> {
            Ok(TextResponse(format!("from {method}")))
        }
    }

    #[test]
    fn a_pair_of_contracts_routes_each_path_to_its_contract() {
        type Pair = (OneMethod<1>, OneMethod<2>);
        for (path, expected) in [("/s1/m", "from 1"), ("/s2/m", "from 2")] {
            let method = Pair::find_method(path).unwrap();
            assert_eq!(Pair::method_name(method), path);
            let call = CallContext::default();
            let pair = (OneMethod::<1>, OneMethod::<2>);
            let response = pair.call(method, &call, Bytes::new()).now_or_never();
            let mut out = BytesMut::new();
            response.unwrap().unwrap().encode(&mut out).unwrap();
            assert_eq!(out, expected);
        }
        assert!(Pair::find_method("/s3/m").is_none());
        assert!(Pair::has_service("s1") && Pair::has_service("s2") && !Pair::has_service("s3"));
    }

    #[test]
    fn a_malformed_message_is_internal_and_names_its_type() {
        let bytes = Bytes::from_static(&[0x0a, 0xff]);
        let status = decode::<inventory_proto::inventory::v1::CheckReq>(bytes).unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(status.reason(), reason::MALFORMED_MESSAGE);
        assert!(status.message().contains("CheckReq"), "{}", status.message());
    }
}
