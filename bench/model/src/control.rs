//! What the owner of a model server and the thread that serves it share: the action for each request, jobs, and
//! whether the server is reachable.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::ModelTime;
use crate::model::StoreModel;

/// A request as a rule sees it.
#[derive(Clone, Copy, Debug)]
pub struct StoreRequest<'a> {
    /// `TransactWriteItems` for example.
    pub operation: &'a str,
    /// JSON.
    pub body: &'a [u8],
}

/// What the server does with one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RequestAction {
    #[default]
    Execute,
    /// Waits, then executes and responds.
    ExecuteAfter(Duration),
    /// Executes when the rule is replaced or cleared.
    HoldRequest,
    /// Executes, and responds when the rule is replaced or cleared.
    HoldResponse,
    /// Executes, then closes the connection without a response.
    DropResponse,
    /// Closes the connection without executing.
    DropRequest,
    /// Neither executes nor responds; the connection stays open.
    Hang,
    /// Responds without executing.
    Respond { status: u16, body: String },
}

impl RequestAction {
    /// A response with this HTTP status and error code of DynamoDB, `InternalServerError` for example.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({
            "__type": format!("com.amazonaws.dynamodb.v20120810#{code}"),
            "message": message,
        });
        Self::Respond { status, body: body.to_string() }
    }
}

type RequestRule = Box<dyn FnMut(&StoreRequest<'_>) -> RequestAction + Send>;

/// Work for the thread that owns the model.
pub(crate) type ModelJob = Box<dyn FnOnce(&mut StoreModel, ModelTime) + Send>;

/// What the owner of a server and its thread share.
pub(crate) struct ServerControl {
    rule: Mutex<Option<RequestRule>>,
    /// Counts replaced rules.
    rule_version: watch::Sender<u64>,
    pub(crate) reachable: watch::Sender<bool>,
    pub(crate) stopped: watch::Sender<bool>,
}

impl ServerControl {
    pub(crate) fn new() -> Self {
        Self {
            rule: Mutex::new(None),
            rule_version: watch::Sender::new(0),
            reachable: watch::Sender::new(true),
            stopped: watch::Sender::new(false),
        }
    }

    pub(crate) fn replace_rule(&self, rule: Option<RequestRule>) {
        *self.rule.lock().unwrap_or_else(PoisonError::into_inner) = rule;
        self.rule_version.send_modify(|version| *version += 1);
    }

    /// The action for `request`, and a receiver that reports the next rule.
    pub(crate) fn decide(
        &self,
        request: &StoreRequest<'_>,
    ) -> (RequestAction, watch::Receiver<u64>) {
        let next_rule = self.rule_version.subscribe();
        let mut rule = self.rule.lock().unwrap_or_else(PoisonError::into_inner);
        let action = rule.as_mut().map(|rule| rule(request));
        (action.unwrap_or_default(), next_rule)
    }

    pub(crate) fn watch_reachable(&self) -> watch::Receiver<bool> {
        self.reachable.subscribe()
    }
}
