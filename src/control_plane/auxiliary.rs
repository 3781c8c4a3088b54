//! Auxiliary services of a gRPC port: server reflection, and grpc.health.v1 of ADMIN_PORT.
//!
//! Reflection calls on GRPC_PORT arrive through the bridge of the gRPC layer; the shards answer health calls there. Must not
//! contain a transport.

use std::pin::Pin;

use futures::{Stream, StreamExt};
use inventory_proto::DESCRIPTORS;
use inventory_proto::inventory::v1::inventory_server;
use inventory_proto::reservation::v1::inventory_service_server;
use prost::Message;
use prost_types::FileDescriptorSet;
use tokio::sync::watch;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::readiness::Readiness;
use crate::limits;
use inventory_grpc::HealthState;

/// Services on GRPC_PORT: inventory.v1 and reservation.v1.
const CLIENT_SERVICES: &[&str] =
    &[inventory_server::SERVICE_NAME, inventory_service_server::SERVICE_NAME];

/// Reflection of GRPC_PORT.
pub fn reflection_routes() -> Routes {
    add_reflection(Routes::default(), CLIENT_SERVICES)
}

/// Health and reflection of a port with one service; reflection lists only that service.
pub(super) fn routes_for(service: &'static str, readiness: &Readiness) -> Routes {
    let health = ReadinessHealth { service, state: readiness.health() };
    let health = HealthServer::new(health)
        .max_decoding_message_size(limits::REQUEST_MESSAGE_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Gzip);
    add_reflection(Routes::new(health), &[service])
}

fn add_reflection(routes: Routes, services: &[&str]) -> Routes {
    let ours = descriptors_of(services);
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_file_descriptor_set(ours.clone())
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // Types of error details, so that reflection clients can decode them.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(
                tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
            )
    };
    let v1 = builder().build_v1().expect(COMPILED_IN);
    let v1alpha = builder().build_v1alpha().expect(COMPILED_IN);
    routes
        .add_service(
            v1.max_decoding_message_size(limits::REQUEST_MESSAGE_BYTES_MAX)
                .accept_compressed(CompressionEncoding::Gzip),
        )
        .add_service(
            v1alpha
                .max_decoding_message_size(limits::REQUEST_MESSAGE_BYTES_MAX)
                .accept_compressed(CompressionEncoding::Gzip),
        )
}

const COMPILED_IN: &str = "compiled-in descriptors are valid";

/// The descriptors of the project without files of services that the port does not serve.
fn descriptors_of(services: &[&str]) -> FileDescriptorSet {
    let mut set = FileDescriptorSet::decode(DESCRIPTORS).expect(COMPILED_IN);
    set.file.retain(|file| {
        let full = |name: &str| format!("{}.{name}", file.package());
        let served = |name: &str| services.contains(&full(name).as_str());
        file.service.is_empty() || file.service.iter().any(|s| served(s.name()))
    });
    set
}

/// grpc.health.v1 that reads [`Readiness`] directly. Unlike the reporter of tonic-health, Watch handles an unknown service
/// as the protocol specifies, and ends when the process drains, so that watchers do not delay the shutdown.
#[derive(Debug)]
struct ReadinessHealth {
    service: &'static str,
    state: watch::Receiver<HealthState>,
}

impl ReadinessHealth {
    fn knows(&self, service: &str) -> bool {
        service.is_empty() || service == self.service
    }
}

fn serving_status(state: HealthState) -> ServingStatus {
    match state {
        HealthState::Serving => ServingStatus::Serving,
        HealthState::NotServing | HealthState::Draining => ServingStatus::NotServing,
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for ReadinessHealth {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !self.knows(&request.get_ref().service) {
            let service = self.service;
            return Err(Status::not_found(format!("unknown service: must be \"\" or {service:?}")));
        }
        Ok(Response::new(response(serving_status(*self.state.borrow()))))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let status = match self.knows(&request.get_ref().service) {
            true => serving_status,
            false => |_| ServingStatus::ServiceUnknown,
        };
        let changes = changes(self.state.clone(), status);
        Ok(Response::new(changes.map(|s| Ok(response(s))).boxed()))
    }
}

/// The current status and every change; ends after the status of a draining process.
fn changes(
    states: watch::Receiver<HealthState>,
    status: fn(HealthState) -> ServingStatus,
) -> impl Stream<Item = ServingStatus> + Send {
    let start = (states, None, false);
    futures::stream::unfold(start, move |(mut states, mut sent, mut last)| async move {
        while !last {
            let state = *states.borrow_and_update();
            last = state == HealthState::Draining;
            let now = status(state);
            if sent != Some(now) {
                sent = Some(now);
                return Some((now, (states, sent, last)));
            }
            if !last && states.changed().await.is_err() {
                return None;
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use inventory_proto::inventory::v1::inventory_admin_server;

    #[test]
    fn reflection_lists_only_services_of_the_port() {
        let admin: &[&str] = &[inventory_admin_server::SERVICE_NAME];
        for own in [CLIENT_SERVICES, admin] {
            let files = descriptors_of(own).file;
            let of_file = |f: &prost_types::FileDescriptorProto| {
                let package = f.package().to_owned();
                let names = f.service.iter().map(|s| s.name().to_owned());
                names.map(move |name| format!("{package}.{name}")).collect::<Vec<_>>()
            };
            let mut services: Vec<String> = files.iter().flat_map(of_file).collect();
            let mut own = own.to_vec();
            services.sort_unstable();
            own.sort_unstable();
            assert_eq!(services, own);
        }
    }
}
