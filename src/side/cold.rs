//! Health and reflection for a gRPC port: stock services, off the request path.
//!
//! A call to them reaches the side thread through a channel (the clients' port) or its own listener
//! (the admin port). Must not live here: any transport.

use std::pin::Pin;

use futures::{Stream, StreamExt};
use inventory_proto::DESCRIPTORS;
use inventory_proto::inventory::v1::inventory_server;
use inventory_proto::reservation::v1::inventory_service_server;
use prost::Message;
use prost_types::FileDescriptorSet;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::readiness::{Readiness, State};
use crate::limits;

/// What clients call: contract A and contract B.
const CLIENTS_SERVICES: &[&str] = &[
    inventory_server::SERVICE_NAME,
    inventory_service_server::SERVICE_NAME,
];

/// Health and reflection of the clients' port.
pub fn cold_routes(readiness: &Readiness) -> Routes {
    routes_beside(CLIENTS_SERVICES.to_vec(), readiness)
}

/// Health and reflection of a port that serves `service`; reflection shows that service only.
pub(super) fn services_for(service: &'static str, readiness: &Readiness) -> Routes {
    routes_beside(vec![service], readiness)
}

fn routes_beside(services: Vec<&'static str>, readiness: &Readiness) -> Routes {
    let ours = descriptors_of(&services);
    let health = HealthServer::new(ReadinessHealth {
        services,
        readiness: readiness.clone(),
    })
    .max_decoding_message_size(limits::REQUEST_MESSAGE_BYTES_MAX);
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_file_descriptor_set(ours.clone())
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // The types of error details, so that clients on reflection can show them.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(
                tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
            )
    };
    let v1 = builder().build_v1().expect(COMPILED_IN);
    let v1alpha = builder().build_v1alpha().expect(COMPILED_IN);
    Routes::new(health)
        .add_service(v1.max_decoding_message_size(limits::REQUEST_MESSAGE_BYTES_MAX))
        .add_service(v1alpha.max_decoding_message_size(limits::REQUEST_MESSAGE_BYTES_MAX))
}

const COMPILED_IN: &str = "the descriptors are compiled in and legal";

/// The project's descriptors without the files of other services: what a port does not serve, it
/// does not describe.
fn descriptors_of(services: &[&str]) -> FileDescriptorSet {
    let mut set = FileDescriptorSet::decode(DESCRIPTORS).expect(COMPILED_IN);
    set.file.retain(|file| {
        let full = |name: &str| format!("{}.{name}", file.package());
        let served = |name: &str| services.contains(&full(name).as_str());
        file.service.is_empty() || file.service.iter().any(|s| served(s.name()))
    });
    set
}

/// grpc.health.v1 straight from [`Readiness`]: no copy of it that could lag. Unlike tonic-health's
/// own reporter, Watch answers an unknown service as the protocol says, and ends when the process
/// drains, so that no watcher holds a connection open until the grace time is over.
#[derive(Debug)]
struct ReadinessHealth {
    services: Vec<&'static str>,
    readiness: Readiness,
}

impl ReadinessHealth {
    fn knows(&self, service: &str) -> bool {
        service.is_empty() || self.services.contains(&service)
    }
}

fn serving(state: &State) -> ServingStatus {
    match state {
        State::Ready => ServingStatus::Serving,
        State::Starting | State::Unwell { .. } | State::Draining { .. } => {
            ServingStatus::NotServing
        }
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[tonic::async_trait]
impl Health for ReadinessHealth {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !self.knows(&request.get_ref().service) {
            let known = format!("unknown service; want \"\" or one of {:?}", self.services);
            return Err(Status::not_found(known));
        }
        Ok(Response::new(answer(serving(&self.readiness.state()))))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let status = match self.knows(&request.get_ref().service) {
            true => serving,
            false => |_: &State| ServingStatus::ServiceUnknown,
        };
        let changes = changes(self.readiness.subscribe(), status);
        Ok(Response::new(changes.map(|s| Ok(answer(s))).boxed()))
    }
}

/// The status now, then each other one that follows; the end after that of a draining process.
fn changes(
    states: watch::Receiver<State>,
    status: fn(&State) -> ServingStatus,
) -> impl Stream<Item = ServingStatus> + Send {
    let start = (states, None, false);
    futures::stream::unfold(start, move |(mut states, mut told, mut last)| async move {
        while !last {
            let state = states.borrow_and_update().clone();
            last = matches!(state, State::Draining { .. });
            let now = status(&state);
            if told != Some(now) {
                told = Some(now);
                return Some((now, (states, told, last)));
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
    fn a_port_describes_its_own_services_only() {
        let admin: &[&str] = &[inventory_admin_server::SERVICE_NAME];
        for own in [CLIENTS_SERVICES, admin] {
            let files = descriptors_of(own).file;
            let of_file = |f: &prost_types::FileDescriptorProto| {
                let package = f.package().to_owned();
                let names = f.service.iter().map(|s| s.name().to_owned());
                names
                    .map(move |name| format!("{package}.{name}"))
                    .collect::<Vec<_>>()
            };
            let mut services: Vec<String> = files.iter().flat_map(of_file).collect();
            let mut own = own.to_vec();
            services.sort_unstable();
            own.sort_unstable();
            assert_eq!(services, own);
        }
    }
}
