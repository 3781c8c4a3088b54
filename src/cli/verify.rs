//! `verify` and `reconcile`: long calls on the admin port, with progress on a terminal. Not here: rendering of reports
//! (`views/audit.rs`).

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use http::Uri;
use inventory_proto::inventory::v1 as pb;
use pb::inventory_audit_client::InventoryAuditClient;
use pb::reconcile_update::Update as Reconciling;
use pb::verify_update::Update as Verifying;
use serde::Serialize;
use tonic::{Code, Request, Status, Streaming};

use super::address::shown;
use super::admin::{self, AdminChannel, address, explain_foreign, no_event};
use super::args::{ReconcileArgs, ServerArgs, VerifyArgs};
use super::views::{AuditReportView, RepairPlanView, RepairsDoneView, audit_progress};
use super::{CommandError, View, client, show, show_json};
use crate::exit;
use crate::limits::{AUDIT_TIME_MAX, COMMAND_CALL_TIMEOUT};
use crate::output::{self, OutputError};
use crate::text as characters;

/// How long these commands wait: longer than the server, whose error has the reason.
const PATIENCE: Duration = AUDIT_TIME_MAX.saturating_add(COMMAND_CALL_TIMEOUT);

/// `verify EVENT`.
pub(super) fn verify(args: &VerifyArgs) -> Result<(), CommandError> {
    let server = address(&args.admin.server)?;
    let report = client::block_on(PATIENCE, &server, async {
        let mut client = connect(&args.admin.server, &server).await?;
        let request = Request::new(pb::VerifyRequest { event_id: args.event.to_string() });
        let started = client.verify(request).await;
        let explain = |status| explain(&args.admin.server, &server, args.event.as_str(), &status);
        let mut updates = started.map_err(explain)?.into_inner();
        let mut progress = VerifyProgress::new();
        while let Some(update) = next(&mut updates).await.map_err(explain)? {
            match update.update {
                Some(Verifying::Progress(step)) => progress.show(&step),
                Some(Verifying::Report(report)) => return Ok(report),
                None => {}
            }
        }
        Err(half(&server))
    })?;
    let verdict = report.verdict();
    show(&AuditReportView::from(report), args.admin.json)?;
    outcome(verdict)
}

/// `reconcile EVENT`.
pub(super) fn reconcile(args: &ReconcileArgs) -> Result<(), CommandError> {
    let server = address(&args.admin.server)?;
    let mut parts = ReconciliationView::default();
    client::block_on(PATIENCE, &server, async {
        let mut client = connect(&args.admin.server, &server).await?;
        let request = Request::new(pb::ReconcileRequest {
            event_id: args.event.to_string(),
            apply: args.apply,
        });
        let started = client.reconcile(request).await;
        let explain = |status| explain(&args.admin.server, &server, args.event.as_str(), &status);
        let mut updates = started.map_err(explain)?.into_inner();
        let mut progress = VerifyProgress::new();
        while let Some(update) = next(&mut updates).await.map_err(explain)? {
            match update.update {
                Some(Reconciling::Progress(step)) => progress.show(&step),
                Some(other) => {
                    progress.clear();
                    parts.take(other, args);
                }
                None => {}
            }
        }
        Ok(())
    })?;
    if args.admin.json {
        show_json(&parts)?;
    }
    if let Some(error) = parts.unprinted {
        return Err(error.into());
    }
    let last = parts.after.or(parts.before).ok_or_else(|| half(&server))?;
    outcome(last.report.verdict())
}

/// Parts of a reconciliation received so far.
#[derive(Default, Serialize)]
struct ReconciliationView {
    before: Option<AuditReportView>,
    plan: Option<RepairPlanView>,
    done: Option<RepairsDoneView>,
    after: Option<AuditReportView>,
    /// Whether a part was printed.
    #[serde(skip)]
    has_printed: bool,
    /// The first error of the output. It does not stop the repairs.
    #[serde(skip)]
    unprinted: Option<OutputError>,
}

impl ReconciliationView {
    /// Stores a part, and prints it at once in text mode, so that the user sees the plan before it is executed.
    fn take(&mut self, update: Reconciling, args: &ReconcileArgs) {
        let shown = match update {
            Reconciling::Progress(_) => return,
            Reconciling::Report(report) => {
                let place = if self.plan.is_none() { &mut self.before } else { &mut self.after };
                place.insert(report.into()).text()
            }
            Reconciling::Plan(plan) => {
                let apply = format!("reconcile {} --apply", args.event);
                let apply = (!args.apply).then(|| args.admin.server.command(apply));
                self.plan.insert(RepairPlanView { plan, apply }).text()
            }
            Reconciling::Done(done) => self.done.insert(RepairsDoneView(done)).text(),
        };
        if !args.admin.json {
            // An empty line between the parts, none after the last one.
            let gap = if std::mem::replace(&mut self.has_printed, true) { "\n" } else { "" };
            let printed = output::print(format_args!("{gap}{shown}"));
            self.unprinted = self.unprinted.take().or(printed.err());
        }
    }
}

/// The exit code; the report has been printed already.
fn outcome(verdict: pb::AuditVerdict) -> Result<(), CommandError> {
    let code = match verdict {
        pb::AuditVerdict::Clean => return Ok(()),
        pb::AuditVerdict::Moving => exit::MOVING,
        pb::AuditVerdict::Breached | pb::AuditVerdict::Unspecified => exit::FAILED,
    };
    Err(CommandError::reported(code))
}

async fn connect(
    args: &ServerArgs,
    server: &Uri,
) -> Result<InventoryAuditClient<AdminChannel>, CommandError> {
    Ok(InventoryAuditClient::new(admin::connect(args, server).await?))
}

async fn next<T>(updates: &mut Streaming<T>) -> Result<Option<T>, Status> {
    updates.message().await
}

fn explain(args: &ServerArgs, server: &Uri, event: &str, status: &Status) -> CommandError {
    let at = shown(server);
    CommandError::failed(match status.code() {
        Code::NotFound => no_event(args, &event),
        code => explain_foreign(server, status).unwrap_or_else(|| {
            format!(
                "nothing was proven: the server at {at} returned: {} ({code:?})",
                status.message()
            )
        }),
    })
}

fn half(server: &Uri) -> CommandError {
    let at = shown(server);
    CommandError::failed(format!(
        "nothing was proven: the server at {at} ended the audit before its report"
    ))
}

/// One line on stderr that is overwritten with each update; nothing if stderr is not a terminal.
struct VerifyProgress {
    on_terminal: bool,
    shown: bool,
}

impl VerifyProgress {
    fn new() -> Self {
        Self { on_terminal: io::stderr().is_terminal(), shown: false }
    }

    fn show(&mut self, step: &pb::AuditProgress) {
        if self.on_terminal {
            self.shown = true;
            let step = audit_progress(step);
            output::report_verbatim(&format!("\r\x1b[K{}", characters::escape(&step)));
        }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            output::report_verbatim("\r\x1b[K");
        }
    }
}

impl Drop for VerifyProgress {
    fn drop(&mut self) {
        self.clear();
    }
}
