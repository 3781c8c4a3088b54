//! The audit log of ADMIN_PORT: one line for each change, with who made it, what it was, before and after. No tokens, and no
//! content of requests besides ids and numbers.

use std::fmt::Display;

use tonic::{Code, Status};

use super::access::AdminCaller;
use crate::telemetry::code_name;

/// A change that a caller asked for. Dropped without an outcome, because the caller has disconnected, it is logged too: the
/// change may have been made.
pub(super) struct AdminChange {
    caller: AdminCaller,
    action: &'static str,
    subject: String,
    before: String,
    /// What has been changed so far.
    progress: String,
    is_logged: bool,
}

impl AdminChange {
    pub(super) fn new(caller: AdminCaller, action: &'static str, subject: impl Display) -> Self {
        Self {
            caller,
            action,
            subject: subject.to_string(),
            before: String::new(),
            progress: String::new(),
            is_logged: false,
        }
    }

    /// Sets what there was before, as far as it is known.
    pub(super) fn set_before(&mut self, before: impl Display) {
        self.before = before.to_string();
    }

    /// Sets what has been changed so far, and of what.
    pub(super) fn set_progress(&mut self, subject: impl Display, progress: impl Display) {
        self.subject = subject.to_string();
        self.progress = progress.to_string();
    }

    /// Logs the outcome; `after` describes a result.
    pub(super) fn log<T>(mut self, result: &Result<T, Status>, after: impl FnOnce(&T) -> String) {
        match result {
            Ok(result) => self.write(code_name(Code::Ok as usize), &after(result)),
            Err(status) => self.write(code_name(status.code() as usize), status.message()),
        }
    }

    fn write(&mut self, outcome: &str, after: &str) {
        self.is_logged = true;
        let shown = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        // A warning, so that it is logged at every level except error.
        tracing::warn!(
            who = %self.caller,
            action = self.action,
            subject = self.subject,
            before = shown(&self.before),
            progress = shown(&self.progress),
            after,
            outcome,
            "admin change"
        );
    }
}

impl Drop for AdminChange {
    fn drop(&mut self) {
        if !self.is_logged {
            self.write("UNKNOWN", "the caller disconnected; the change may have been made");
        }
    }
}
