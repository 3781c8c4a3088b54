//! The contracts that shards serve: one handler trait, one set of method and response enums and one
//! [`UnaryService`] per gRPC service.
//!
//! Each service is one table of its unary methods. The messages come from `inventory-proto`; a test
//! compares the tables with the descriptors of the `.proto` files, so that no method is missing, renamed
//! or streaming. Streaming methods belong to the auxiliary services of [`crate::tonic_bridge`].

use inventory_proto::{inventory::v1 as inventory_v1, reservation::v1 as reservation_v1};

use crate::CacheableResponse;

/// Defines the handler trait `$service`, the enums `$Method` and `$Response` and the adapter `$Server`.
macro_rules! unary_service {
    (
        $(#[$doc:meta])*
        $name:literal => $service:ident, $methods:ident, $responses:ident, $server:ident;
        $($method:ident = $handler:ident($request:ty) -> $response:ty;)+
    ) => {
        $(#[$doc])*
        ///
        /// Handlers run on one shard and need not be `Send`. A handler's future is dropped when its
        /// caller disconnects or its deadline passes: a write must not be owned by that future.
        pub trait $service {
            $(
                fn $handler(
                    &self,
                    call: &crate::CallContext,
                    request: $request,
                ) -> impl Future<Output = Result<$response, crate::Status>>;
            )+
        }

        #[doc = concat!("The methods of `", $name, "`.")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $methods {
            $($method,)+
        }

        #[doc = concat!("A response of `", $name, "`, not yet encoded.")]
        pub enum $responses {
            $($method($response),)+
        }

        impl crate::ResponseMessage for $responses {
            #[inline]
            fn encode(&self, into: &mut bytes::BytesMut) -> Result<(), prost::EncodeError> {
                match self {
                    $(Self::$method(message) => crate::ResponseMessage::encode(message, into),)+
                }
            }
        }

        #[doc = concat!("Serves an implementation of [`", stringify!($service), "`] on a shard.")]
        pub struct $server<S> {
            handlers: S,
        }

        impl<S> $server<S> {
            pub const fn new(handlers: S) -> Self {
                Self { handlers }
            }
        }

        impl<S: $service + 'static> crate::UnaryService for $server<S> {
            type Method = $methods;
            type Response = $responses;

            #[inline]
            fn find_method(path: &str) -> Option<$methods> {
                match path {
                    $(concat!("/", $name, "/", stringify!($method)) => Some($methods::$method),)+
                    _ => None,
                }
            }

            fn has_service(service: &str) -> bool {
                service == $name
            }

            #[inline]
            fn method_name(method: $methods) -> &'static str {
                match method {
                    $($methods::$method => concat!("/", $name, "/", stringify!($method)),)+
                }
            }

            async fn call(
                &self,
                method: $methods,
                call: &crate::CallContext,
                request: bytes::Bytes,
            ) -> Result<$responses, crate::Status> {
                match method {
                    $($methods::$method => {
                        let request = crate::decode(request)?;
                        let response = self.handlers.$handler(call, request).await?;
                        Ok($responses::$method(response))
                    })+
                }
            }
        }

        #[cfg(test)]
        impl $methods {
            const ALL: &'static [&'static str] = &[$(stringify!($method)),+];
        }
    };
}

unary_service! {
    /// `inventory.v1.Inventory`: business failures are gRPC statuses.
    "inventory.v1.Inventory" => Inventory, InventoryMethod, InventoryResponse, InventoryServer;
    CheckAvailability = check_availability(inventory_v1::CheckReq) -> inventory_v1::CheckRes;
    CommitReservation = commit_reservation(inventory_v1::CommitReq) -> inventory_v1::CommitRes;
    ReleaseHold = release_hold(inventory_v1::ReleaseReq) -> inventory_v1::ReleaseRes;
    PlaceHold = place_hold(inventory_v1::PlaceHoldReq) -> inventory_v1::PlaceHoldRes;
    GetReservation = get_reservation(inventory_v1::GetReservationReq) -> inventory_v1::GetReservationRes;
}

unary_service! {
    /// `reservation.v1.InventoryService`: business failures are in the response, with gRPC status OK.
    "reservation.v1.InventoryService" => InventoryService, InventoryServiceMethod,
        InventoryServiceResponse, InventoryServiceServer;
    CheckAvailability = check_availability(reservation_v1::CheckAvailabilityRequest)
        -> reservation_v1::CheckAvailabilityResponse;
    ReserveSeat = reserve_seat(reservation_v1::ReserveSeatRequest) -> reservation_v1::ReserveSeatResponse;
    CommitReservation = commit_reservation(reservation_v1::CommitReservationRequest)
        -> reservation_v1::CommitReservationResponse;
    ReleaseHold = release_hold(reservation_v1::ReleaseHoldRequest) -> reservation_v1::ReleaseHoldResponse;
    // The largest response, and often the same: boxed, or encoded for an earlier call.
    GetInventoryStatus = get_inventory_status(reservation_v1::GetInventoryStatusRequest)
        -> CacheableResponse<reservation_v1::GetInventoryStatusResponse>;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// The methods of a service in its `.proto` file; every one must be unary.
    fn described_methods(package: &str, service: &str) -> Vec<String> {
        let files = FileDescriptorSet::decode(inventory_proto::DESCRIPTORS).unwrap().file;
        let found = files
            .iter()
            .filter(|file| file.package() == package)
            .flat_map(|file| &file.service)
            .find(|found| found.name() == service)
            .unwrap();
        assert!(found.method.iter().all(|m| !m.client_streaming() && !m.server_streaming()));
        found.method.iter().map(|method| method.name().to_owned()).collect()
    }

    #[test]
    fn the_tables_have_the_methods_of_the_proto_files() {
        assert_eq!(described_methods("inventory.v1", "Inventory"), InventoryMethod::ALL);
        assert_eq!(
            described_methods("reservation.v1", "InventoryService"),
            InventoryServiceMethod::ALL
        );
    }
}
