//! TLS of both ports, and the tokens of the admin port: loaded at the start, and read again while the server runs.

use std::sync::Arc;

use tokio::sync::Notify;

use super::explanation;
use crate::config::{AdminAccessFiles, Config};
use crate::control_plane::{AdminTokens, ControlPlaneTask};
use crate::preflight::Explanation;
use crate::tls::PortTls;

/// TLS of both ports, and the tokens of the admin port, from their files.
#[derive(Clone)]
pub(super) struct PortSecurity {
    pub(super) grpc: Option<PortTls>,
    pub(super) admin: Option<PortTls>,
    pub(super) admin_tokens: Option<AdminTokens>,
}

impl PortSecurity {
    pub(super) fn load(config: &Config) -> Result<Self, Explanation> {
        let load = |port, files: Option<_>| files.map(|files| PortTls::load(port, files));
        let grpc = load("grpc", config.grpc_tls.clone()).transpose()?;
        // Files of a port that is off are not looked at.
        let Some(address) = config.admin else {
            return Ok(Self { grpc, admin: None, admin_tokens: None });
        };
        let AdminAccessFiles { tls, tokens } = config.admin_access.clone();
        if !address.ip().is_loopback() && tls.is_none() {
            tracing::warn!(%address, "admin tokens are sent without TLS");
        }
        let admin = load("admin", tls).transpose()?;
        let tokens = tokens.map(AdminTokens::load).transpose();
        let admin_tokens = tokens.map_err(|error| explanation(error.to_string()))?;
        Ok(Self { grpc, admin, admin_tokens })
    }

    pub(super) fn ports(&self) -> impl Iterator<Item = &PortTls> {
        self.grpc.iter().chain(&self.admin)
    }

    /// Tasks that read the files again, at once when `requested` is notified.
    pub(super) fn reload_tasks(&self, requested: &Arc<Notify>) -> Vec<ControlPlaneTask> {
        let of_port = |port: &PortTls| -> ControlPlaneTask {
            Box::pin(port.clone().follow_files(Arc::clone(requested)))
        };
        let mut tasks: Vec<ControlPlaneTask> = self.ports().map(of_port).collect();
        if let Some(tokens) = &self.admin_tokens {
            tasks.push(Box::pin(tokens.clone().follow_file(Arc::clone(requested))));
        }
        tasks
    }
}

/// How clients reach the port, for the log.
pub(super) fn transport(tls: Option<&PortTls>) -> &'static str {
    match tls {
        None => "plaintext",
        Some(tls) if tls.requires_certificates() => "mutual TLS",
        Some(_) => "TLS",
    }
}
