//! One connection to one server.

use inventory_proto::inventory::v1::inventory_client;
use tonic::transport::{Channel, Endpoint};

use crate::limits::{ADDRESSES_MAX, CONNECT_TIMEOUT};
use crate::secure::{ClientTls, connect_endpoint};

/// A client of `inventory.v1.Inventory` on one connection.
pub type InventoryClient = inventory_client::InventoryClient<Channel>;

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{address:?} is not an address: must be host:port, such as 127.0.0.1:8080")]
    BadAddress {
        address: String,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("no server answers at {address}")]
    Unreachable {
        address: String,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("{given} addresses given: must be 1 to {ADDRESSES_MAX}")]
    AddressCount { given: usize },
}

/// Connects to `address` (`host:port`) with TCP_NODELAY, within two seconds.
pub async fn connect(address: &str) -> Result<InventoryClient, ConnectError> {
    let channel = endpoint(address)?.connect().await;
    let channel = channel
        .map_err(|source| ConnectError::Unreachable { address: address.to_owned(), source })?;
    Ok(InventoryClient::new(channel))
}

/// Connects to `address` (`host:port`) over TLS.
pub async fn connect_secure(
    address: &str,
    tls: &ClientTls,
) -> Result<InventoryClient, ConnectError> {
    let endpoint = Endpoint::from_shared(format!("https://{address}"))
        .map_err(|source| ConnectError::BadAddress { address: address.to_owned(), source })?;
    let channel = connect_endpoint(endpoint.connect_timeout(CONNECT_TIMEOUT), Some(tls)).await;
    let channel = channel
        .map_err(|source| ConnectError::Unreachable { address: address.to_owned(), source })?;
    Ok(InventoryClient::new(channel))
}

/// Like [`connect`], but the first call makes the connection, as does the first call after a loss.
pub(crate) fn connect_lazy(address: &str) -> Result<InventoryClient, ConnectError> {
    Ok(InventoryClient::new(endpoint(address)?.connect_lazy()))
}

fn endpoint(address: &str) -> Result<Endpoint, ConnectError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|source| ConnectError::BadAddress { address: address.to_owned(), source })?;
    Ok(endpoint.tcp_nodelay(true).connect_timeout(CONNECT_TIMEOUT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_address_is_refused() {
        assert!(matches!(connect_lazy("not an address"), Err(ConnectError::BadAddress { .. })));
    }
}
