//! TLS of a port of this process: loaded at the start, reloaded when its files change, and what metrics show of it.
//!
//! | file | content |
//! |---|---|
//! | `mod.rs` | the TLS of a port, from its files |
//! | `reload.rs` | reads the files again; a configuration that cannot be used leaves the current one in use |
//!
//! Not here: handshakes (`shard::tls`), formats of files (`inventory_tls`).

mod reload;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use inventory_tls::TlsFileError;
use inventory_tls::rustls::ServerConfig;
use inventory_tls::server::{ServerFileContents, ServerFiles, ServerTls};
use tokio::sync::{Notify, watch};

/// TLS of a port. New connections use the newest configuration; open ones keep theirs.
#[derive(Clone)]
pub struct PortTls {
    /// Label of metrics and log lines: `grpc` or `admin`.
    port: &'static str,
    files: Arc<ServerFiles>,
    loaded: Arc<ServerFileContents>,
    current: watch::Sender<Arc<ServerConfig>>,
    status: Arc<TlsStatus>,
}

/// The certificate in use, and what became of its reloads.
#[derive(Debug, Default)]
struct TlsStatus {
    /// Seconds since 1970.
    not_after: AtomicU64,
    reloads: AtomicU64,
    failures: AtomicU64,
    /// The files hold a configuration that cannot be used.
    is_rejected: AtomicBool,
    handshakes: Arc<HandshakeCounts>,
}

/// Handshakes of a port on the control plane by result. Labels come from the code.
#[derive(Debug, Default)]
pub(crate) struct HandshakeCounts(Mutex<BTreeMap<&'static str, u64>>);

impl HandshakeCounts {
    pub(crate) fn count(&self, result: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(result).or_default() += 1;
    }
}

/// TLS of a port, for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortTlsMetrics {
    pub(crate) port: &'static str,
    /// End of the validity of the certificate in use, in seconds since 1970.
    pub(crate) not_after: u64,
    /// Configurations loaded since the start.
    pub(crate) reloads: u64,
    /// Configurations in the files that could not be used.
    pub(crate) failures: u64,
    pub(crate) is_rejected: bool,
    /// Handshakes by result; empty for a port of the shards, which count themselves.
    pub(crate) handshakes: Vec<(&'static str, u64)>,
}

impl PortTls {
    /// Loads the files.
    ///
    /// # Errors
    /// A file that cannot be used, with what would be right.
    pub(crate) fn load(port: &'static str, files: ServerFiles) -> Result<Self, TlsFileError> {
        let (contents, tls) = load(&files)?;
        let status = TlsStatus::default();
        status.not_after.store(tls.not_after, Ordering::Relaxed);
        Ok(Self {
            port,
            files: Arc::new(files),
            loaded: Arc::new(contents),
            current: watch::Sender::new(tls.config),
            status: Arc::new(status),
        })
    }

    /// The newest configuration.
    pub(crate) fn current(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.current.subscribe()
    }

    /// Whether clients need a certificate.
    pub(crate) fn requires_certificates(&self) -> bool {
        self.files.client_authorities.is_some()
    }

    pub(crate) fn handshake_counts(&self) -> Arc<HandshakeCounts> {
        Arc::clone(&self.status.handshakes)
    }

    pub(crate) fn metrics(&self) -> PortTlsMetrics {
        let TlsStatus { not_after, reloads, failures, is_rejected, handshakes } = &*self.status;
        let handshakes = handshakes.0.lock().unwrap_or_else(PoisonError::into_inner);
        PortTlsMetrics {
            port: self.port,
            not_after: not_after.load(Ordering::Relaxed),
            reloads: reloads.load(Ordering::Relaxed),
            failures: failures.load(Ordering::Relaxed),
            is_rejected: is_rejected.load(Ordering::Relaxed),
            handshakes: handshakes.iter().map(|(result, count)| (*result, *count)).collect(),
        }
    }

    /// Reads the files again and again, at once when `requested` is notified. Ends with the control plane.
    pub(crate) async fn follow_files(self, requested: Arc<Notify>) {
        reload::follow(self, requested).await;
    }
}

/// Reads and loads the files.
///
/// # Errors
/// A file that cannot be used.
fn load(files: &ServerFiles) -> Result<(ServerFileContents, ServerTls), TlsFileError> {
    let contents = files.read()?;
    let tls = files.load(&contents)?;
    Ok((contents, tls))
}

/// What is wrong with the files of a port; `None` if they can be used.
pub(crate) fn problem(files: &ServerFiles) -> Option<TlsFileError> {
    load(files).err()
}
