//! How commands talk to a running server: one connection, one call, a bounded wait.

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http::Uri;
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::CommandError;
use super::address::shown;
use super::args::TlsArgs;
use crate::limits::{COMMAND_CONNECT_TIMEOUT, COMMAND_PING_EVERY, KEEP_ALIVE_TIMEOUT};

/// The URL at which a server listening on `address` is called from this machine.
pub(super) fn url_of(address: SocketAddr, has_tls: bool) -> Uri {
    let host = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let address = SocketAddr::new(host, address.port());
    // Digits, dots, colons and brackets are always an authority.
    let scheme = if has_tls { "https" } else { "http" };
    format!("{scheme}://{address}").parse().unwrap_or_default()
}

/// Runs `call` on a runtime of its own for at most `limit`.
///
/// # Errors
/// Those of `call`, and a time-out.
pub(super) fn block_on<T>(
    limit: Duration,
    server: &Uri,
    call: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    block_on_unbounded(async {
        tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
            Err(CommandError::failed(format!(
                "the server at {} did not answer within {limit:?}",
                shown(server)
            )))
        })
    })
}

/// As [`block_on_unbounded`], for work with temporary files: a signal that ends the process drops `work` first. Must
/// not write to a pipe, which would keep a signal from being seen.
///
/// # Errors
/// Those of `work`, and the signal.
pub(super) fn block_on_interruptible<T>(
    work: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    let on = |kind: SignalKind| {
        signal(kind).map_err(|why| CommandError::failed(format!("no signals: {why}")))
    };
    block_on_unbounded(async {
        let mut interrupt = on(SignalKind::interrupt())?;
        let mut terminate = on(SignalKind::terminate())?;
        let mut hangup = on(SignalKind::hangup())?;
        tokio::select! {
            result = work => result,
            _ = interrupt.recv() => Err(CommandError::signal(libc::SIGINT)),
            _ = terminate.recv() => Err(CommandError::signal(libc::SIGTERM)),
            _ = hangup.recv() => Err(CommandError::signal(libc::SIGHUP)),
        }
    })
}

/// As [`block_on`], for work that watches its time itself.
///
/// # Errors
/// Those of `work`.
pub(super) fn block_on_unbounded<T>(
    work: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|why| CommandError::failed(format!("no runtime could be created: {why}")))?;
    runtime.block_on(work)
}

/// Connects; errors are messages for the user.
///
/// # Errors
/// Nothing listens there, or the listener does not speak HTTP/2.
pub(super) async fn connect(server: &Uri, tls: &TlsArgs) -> Result<Channel, CommandError> {
    let tls = tls.settings(server)?;
    let endpoint = Endpoint::from(server.clone())
        .connect_timeout(COMMAND_CONNECT_TIMEOUT)
        .http2_keep_alive_interval(COMMAND_PING_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    let channel = inventory_client::connect_endpoint(endpoint, tls.as_ref()).await;
    channel.map_err(|error| CommandError::failed(explain_connect(server, &error)))
}

/// Message for a call that did not reach the server.
pub(super) fn explain_connect(server: &Uri, error: &tonic::transport::Error) -> String {
    let mut source = error.source();
    let mut deepest = error.to_string();
    while let Some(error) = source {
        deepest = error.to_string();
        if let Some(io) = error.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::ConnectionRefused
        {
            return format!(
                "no server answers at {}: start one, with `inventory-api serve` on DynamoDB or with \
                 `inventory-api dev` to try it out, or name the address of another server",
                shown(server)
            );
        }
        source = error.source();
    }
    let hint = match server.scheme_str() {
        Some("https") if deepest.contains("UnknownIssuer") => {
            " (name the authority of the server with --tls-ca)"
        }
        Some("https") if deepest.contains("not valid for") => {
            " (name the server as its certificate does with --tls-name)"
        }
        Some("https") if deepest.contains("CertificateRequired") => {
            " (the server requires a certificate of the client: --tls-cert and --tls-key)"
        }
        Some("https") => "",
        _ => " (a port with TLS is reached at https://)",
    };
    format!("the server at {} cannot be reached: {deepest}{hint}", shown(server))
}

/// Whether the connection ended before a call was answered: by an HTTP/1 port, or by a server that stops.
pub(super) fn is_connection_lost(status: &Status) -> bool {
    // A status that a server sent has no source.
    status.code() == Code::Unknown && status.source().is_some()
}

/// Whether the port refuses connections without TLS, by HTTP/2's error INADEQUATE_SECURITY.
pub(super) fn requires_tls(status: &Status) -> bool {
    // A status of a server has no source.
    status.code() == Code::PermissionDenied && status.source().is_some()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cli::address::parse_address;

    #[test]
    fn addresses_read_with_and_without_a_scheme() {
        for text in ["127.0.0.1:8081", "http://127.0.0.1:8081", "http://127.0.0.1:8081/"] {
            assert_eq!(shown(&parse_address(text).unwrap()), "http://127.0.0.1:8081");
        }
        assert_eq!(shown(&parse_address("[::1]:9").unwrap()), "http://[::1]:9");
        assert_eq!(shown(&parse_address("https://a.test:9").unwrap()), "https://a.test:9");
    }

    #[test]
    fn invalid_address_error_shows_valid_ones() {
        for text in
            ["", "8081", ":8081", "localhost", "ftp://localhost:1", "a b:1", "http://", "u:p@h:1"]
        {
            let error = parse_address(text).unwrap_err();
            assert!(error.contains("127.0.0.1:8081"), "{text:?}: {error}");
        }
    }

    #[test]
    fn wildcard_address_is_dialled_on_loopback() {
        let url = |text: &str| shown(&url_of(text.parse().unwrap(), false));
        assert_eq!(url("0.0.0.0:8081"), "http://127.0.0.1:8081");
        assert_eq!(url("[::]:8081"), "http://[::1]:8081");
        assert_eq!(url("10.0.0.7:8081"), "http://10.0.0.7:8081");
        assert_eq!(shown(&url_of("[::]:8081".parse().unwrap(), true)), "https://[::1]:8081");
    }
}
