//! Starts the control plane: probes, metrics, admin, reflection, export of spans, and the reload of TLS files and tokens.

use std::net::TcpListener;
use std::sync::Arc;

use tokio::sync::{Notify, watch};

use super::audit_backend::ShardAuditBackend;
use super::explanation;
use super::port_security::PortSecurity;
use super::shard_gateway::ShardGateway;
use super::shard_pool::ShardPool;
use super::shard_start::ShardLinks;
use crate::build_info;
use crate::config::Config;
use crate::control_plane::{
    AdminAccess, ControlPlane, ControlPlaneConfig, ControlPlaneTask, Readiness, SpanExportConfig,
};
use crate::preflight::Explanation;
use crate::telemetry::aggregate::BuildInfo;
use crate::telemetry::membership::MembershipReport;
use inventory_grpc::tonic_bridge;
use inventory_store::AwsAccess;

/// What the control plane is made of, besides what it shares with the shards.
pub(super) struct ControlPlaneParts {
    pub(super) metrics: TcpListener,
    pub(super) admin: Option<TcpListener>,
    /// Calls of the reflection service, from the shards.
    pub(super) reflection: tonic_bridge::BridgeReceiver,
    pub(super) readiness: Readiness,
    pub(super) export: Option<SpanExportConfig>,
    pub(super) store: Option<AwsAccess>,
    pub(super) membership_report: watch::Receiver<MembershipReport>,
    pub(super) signals: bool,
}

impl ControlPlaneParts {
    pub(super) fn start(
        self,
        config: &Config,
        links: &ShardLinks,
        security: &PortSecurity,
    ) -> Result<ControlPlane, Explanation> {
        let pool = Arc::new(ShardPool::new(links.mailboxes.clone()));
        let gateway = ShardGateway::new(
            Arc::clone(&pool),
            links.heartbeats.clone(),
            links.store_health.clone(),
            self.readiness.clone(),
            self.export.as_ref().map(|export| Arc::clone(&export.spans.counts)),
            self.store,
            self.membership_report,
        );
        let gateway = Arc::new(gateway.with_tls(security.ports().cloned().collect()));
        let reload = Arc::new(Notify::new());
        let routes = crate::control_plane::reflection_routes();
        let mut tasks: Vec<ControlPlaneTask> =
            vec![Box::pin(tonic_bridge::serve(self.reflection, routes))];
        tasks.extend(security.reload_tasks(&reload));
        let is_reloadable = tasks.len() > 1;
        let PortSecurity { admin, admin_tokens, .. } = security.clone();
        ControlPlane::start(ControlPlaneConfig {
            metrics: self.metrics,
            admin: self.admin.map(|listener| (listener, gateway.clone() as _)),
            admin_access: AdminAccess::new(admin, admin_tokens, gateway.admin_refusals()),
            audit: Some(Arc::new(ShardAuditBackend::new(pool))),
            scrape: gateway,
            readiness: self.readiness,
            build: BuildInfo {
                service: config.service_name.clone(),
                version: build_info::service_version(config),
                revision: build_info::revision().to_owned(),
            },
            export: self.export,
            signals: self.signals,
            reload: is_reloadable.then_some(reload),
            tasks,
        })
        .map_err(|error| explanation(error.to_string()))
    }
}
