//! Reflection on GRPC_PORT, health and reflection on ADMIN_PORT.

use std::net::Ipv4Addr;

use inventory_api::control_plane::{ControlPlane, reflection_routes};
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::{channel, client, start};

/// A server with the reflection of GRPC_PORT.
async fn reflection_server() -> Channel {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let routes = reflection_routes();
    tokio::spawn(async move {
        let server = tonic::transport::Server::builder().add_routes(routes);
        server.serve_with_incoming(incoming).await.unwrap();
    });
    channel(address)
}

async fn check(health: &mut HealthClient<Channel>, service: &str) -> Result<ServingStatus, Code> {
    let service = service.to_owned();
    let answer = health.check(HealthCheckRequest { service }).await;
    answer.map(|a| a.into_inner().status()).map_err(|status| status.code())
}

const ADMIN: &str = "inventory.v1.InventoryAdmin";

fn admin_health(control_plane: &ControlPlane) -> HealthClient<Channel> {
    HealthClient::new(channel(control_plane.admin_address().unwrap()))
        .send_compressed(CompressionEncoding::Gzip)
}

#[test]
fn health_check_follows_readiness_per_service() {
    let (control_plane, readiness) = start();
    client(async {
        let mut health = admin_health(&control_plane);
        for service in ["", ADMIN] {
            assert_eq!(check(&mut health, service).await, Ok(ServingStatus::NotServing));
        }
        readiness.set_ready();
        for service in ["", ADMIN] {
            assert_eq!(check(&mut health, service).await, Ok(ServingStatus::Serving));
        }
        assert_eq!(check(&mut health, "inventory.v1.Inventory").await, Err(Code::NotFound));
        readiness.set_draining("test");
        assert_eq!(check(&mut health, "").await, Ok(ServingStatus::NotServing));
    });
}

#[test]
fn health_watch_sends_each_change_and_ends_at_drain() {
    let (control_plane, readiness) = start();
    client(async {
        let mut health = admin_health(&control_plane);
        let watch = async |health: &mut HealthClient<Channel>, service: &str| {
            let service = service.to_owned();
            health.watch(HealthCheckRequest { service }).await.unwrap().into_inner()
        };
        let mut known = watch(&mut health, ADMIN).await;
        let mut unknown = watch(&mut health, "no.such.Service").await;
        let status = |m: Result<Option<tonic_health::pb::HealthCheckResponse>, Status>| {
            m.unwrap().map(|m| m.status())
        };
        assert_eq!(status(known.message().await), Some(ServingStatus::NotServing));
        assert_eq!(status(unknown.message().await), Some(ServingStatus::ServiceUnknown));
        readiness.set_ready();
        assert_eq!(status(known.message().await), Some(ServingStatus::Serving));
        readiness.set_draining("test");
        assert_eq!(status(known.message().await), Some(ServingStatus::NotServing));
        assert_eq!(status(known.message().await), None);
        assert_eq!(status(unknown.message().await), None);
    });
}

/// Requests the service names and the file of a symbol from one version of reflection.
macro_rules! reflect {
    ($version:ident, $channel:expr, $symbol:expr) => {{
        use reflection::server_reflection_request::MessageRequest;
        use reflection::server_reflection_response::MessageResponse;
        use tonic_reflection::pb::$version as reflection;
        let mut client =
            reflection::server_reflection_client::ServerReflectionClient::new($channel);
        let requests = [
            MessageRequest::ListServices(String::new()),
            MessageRequest::FileContainingSymbol($symbol.to_owned()),
        ];
        let requests = requests.map(|request| reflection::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(request),
        });
        let mut answers = client
            .server_reflection_info(futures::stream::iter(requests))
            .await
            .unwrap()
            .into_inner();
        let list = answers.message().await.unwrap().unwrap().message_response.unwrap();
        let MessageResponse::ListServicesResponse(list) = list else { panic!("{list:?}") };
        let mut names: Vec<String> = list.service.into_iter().map(|s| s.name).collect();
        names.sort();
        (names, answers.message().await.map(|_file| ()))
    }};
}

const OWN_SERVICES: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

#[test]
fn reflection_lists_only_services_of_the_port() {
    let (control_plane, _readiness) = start();
    let admin = control_plane.admin_address().unwrap();
    client(async {
        let clients = reflection_server().await;
        for (channel, own, also, other) in [
            (
                clients,
                "inventory.v1.Inventory",
                &["reservation.v1.InventoryService"][..],
                "inventory.v1.InventoryAdmin",
            ),
            (channel(admin), "inventory.v1.InventoryAdmin", &[], "inventory.v1.Inventory"),
        ] {
            let want = [&OWN_SERVICES[..], &[own], also].concat();
            let (names, file) = reflect!(v1, channel.clone(), own);
            assert_eq!(names, want);
            file.unwrap();
            let (names, file) = reflect!(v1alpha, channel.clone(), own);
            assert_eq!(names, want);
            file.unwrap();
            let (_, file) = reflect!(v1, channel, other);
            assert_eq!(file.unwrap_err().code(), Code::NotFound, "{other}");
        }
    });
}
