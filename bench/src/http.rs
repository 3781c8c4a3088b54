//! HTTP requests to the store model and to the metrics port of a server.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{BenchError, limits};

/// Gets a text document from the HTTP server at `address`.
pub(crate) async fn get(address: &str, path: &str) -> Result<String, BenchError> {
    let exchange = async {
        let mut socket = TcpStream::connect(address).await?;
        let request =
            format!("GET {path} HTTP/1.0\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut response = Vec::new();
        socket.read_to_end(&mut response).await?;
        Ok::<_, std::io::Error>(response)
    };
    let response = timeout(limits::HTTP_REQUEST_MAX, exchange).await??;
    let response = String::from_utf8(response)?;
    let (head, body) = response.split_once("\r\n\r\n").ok_or("not an HTTP response")?;
    if head.split(' ').nth(1) != Some("200") {
        return Err(format!("{path}: {}", head.lines().next().unwrap_or_default()).into());
    }
    Ok(body.to_owned())
}
