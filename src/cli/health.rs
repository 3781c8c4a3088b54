//! `health`: checks a running server with the gRPC health service, as a load balancer does.

use std::net::{Ipv4Addr, SocketAddr};

use http::Uri;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::address::shown;
use super::args::HealthArgs;
use super::{CommandError, client};
use crate::config::{self, ProcessEnv};
use crate::limits::HEALTH_TIMEOUT;
use crate::output;

pub(super) fn run(args: &HealthArgs) -> Result<(), CommandError> {
    let server = address(args)?;
    let at = shown(&server);
    let status = client::block_on(HEALTH_TIMEOUT, &server, async {
        let mut health = HealthClient::new(client::connect(&server, &args.tls).await?);
        let request = HealthCheckRequest { service: args.service.clone() };
        let answer = health.check(request).await.map_err(|status| {
            CommandError::failed(match status.code() {
                Code::NotFound => format!("the server at {at} has no service {:?}", args.service),
                _ if client::requires_tls(&status) => {
                    format!("the server at {at} requires TLS: name it as https://, with --tls-ca")
                }
                _ if client::is_connection_lost(&status) => format!(
                    "{at} closed the connection without an answer: the server stops, or this is not a gRPC port, \
                     which is GRPC_PORT, 8080 by default"
                ),
                code => format!("the server at {at} refused: {} ({code:?})", status.message()),
            })
        })?;
        Ok(answer.into_inner().status())
    })?;
    match status {
        ServingStatus::Serving => Ok(output::print(format_args!("the server at {at} serves"))?),
        other => Err(CommandError::failed(format!(
            "the server at {at} does not serve: {}",
            other.as_str_name()
        ))),
    }
}

/// The client address: the given one, or the one of this environment.
fn address(args: &HealthArgs) -> Result<Uri, CommandError> {
    if let Some(address) = &args.address {
        return Ok(address.clone());
    }
    let has_tls = config::grpc_has_tls(&ProcessEnv)?;
    match config::grpc_address(&ProcessEnv)? {
        address if address.port() == 0 => Err(CommandError::usage(
            "GRPC_PORT=0: the port of the server is unknown; pass --server host:port".to_owned(),
        )),
        // `::` is reached by IPv4 too, and some machines have no IPv6.
        address if address.ip().is_unspecified() => {
            Ok(client::url_of(SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())), has_tls))
        }
        address => Ok(client::url_of(address, has_tls)),
    }
}
