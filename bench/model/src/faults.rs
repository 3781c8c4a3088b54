//! Injected faults, drawn by probability and replaced while the model runs.

use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use crate::ModelTime;
use crate::limits;
use crate::operation::ApiOperation;

/// Kind of an injected fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// Executed, then the connection is closed without a response.
    LostAnswer,
    /// Not executed; the connection is closed.
    LostRequest,
    /// Executed; the response is delayed by `delay_ms`.
    DelayedAnswer,
    /// Not executed; throttled.
    Throttle,
    /// Not executed; conflict with another transaction. Writes and TransactGetItems only.
    Conflict,
    /// InternalServerError; executed in half of the cases.
    #[serde(rename = "error-500")]
    Error500,
}

/// A kind of fault, its probability and operations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    pub kind: FaultKind,
    /// 0 to 1.
    pub probability: f64,
    /// `TransactWriteItems` for example; `None`: all operations on items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Delay of a [`FaultKind::DelayedAnswer`] in milliseconds.
    #[serde(default)]
    pub delay_ms: u64,
}

impl FaultKind {
    /// A fault of all operations.
    pub fn with_probability(self, probability: f64) -> FaultRule {
        FaultRule { kind: self, probability, operation: None, delay_ms: 0 }
    }
}

impl FaultRule {
    /// Restricted to one operation.
    pub fn on(mut self, operation: &str) -> Self {
        self.operation = Some(operation.to_owned());
        self
    }

    /// With this delay, for [`FaultKind::DelayedAnswer`].
    pub fn delayed_by(mut self, delay_ms: u64) -> Self {
        self.delay_ms = delay_ms;
        self
    }

    /// Checks the members against each other.
    ///
    /// # Errors
    /// The invalid member and what is valid.
    pub fn check(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.probability) {
            return Err(format!("probability is {}; must be 0 to 1", self.probability));
        }
        if let Some(name) = &self.operation
            && !name.parse().is_ok_and(ApiOperation::is_on_items)
        {
            return Err(format!(
                "operation is {name:?}; must be an operation on items, TransactWriteItems for example"
            ));
        }
        let delay = self.delay_ms.saturating_mul(1_000);
        match (self.kind, delay) {
            (FaultKind::DelayedAnswer, 0) => Err("delayed-answer requires delay_ms".to_owned()),
            (FaultKind::DelayedAnswer, delay) if delay > limits::FAULT_DELAY_MAX => Err(format!(
                "delay_ms is {}; must be at most {}",
                self.delay_ms,
                limits::FAULT_DELAY_MAX / 1_000
            )),
            (FaultKind::DelayedAnswer, _) | (_, 0) => Ok(()),
            _ => Err("delay_ms is only valid for delayed-answer".to_owned()),
        }
    }
}

/// `KIND:PROBABILITY[:OPERATION[:DELAY_MS]]`; an empty OPERATION means all.
impl std::str::FromStr for FaultRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let mut next = || parts.next().filter(|part| !part.is_empty());
        let kind = next().ok_or("must be KIND:PROBABILITY[:OPERATION[:DELAY_MS]]")?;
        let kind = serde_json::Value::String(kind.to_owned());
        let kind = serde_json::from_value(kind).map_err(|why| format!("KIND: {why}"))?;
        let probability = next().ok_or("must be KIND:PROBABILITY")?;
        let probability = probability.parse().map_err(|why| format!("PROBABILITY: {why}"))?;
        let operation = next().map(str::to_owned);
        let delay_ms =
            next().map_or(Ok(0), |ms| ms.parse().map_err(|why| format!("DELAY_MS: {why}")))?;
        if parts.next().is_some() {
            return Err("must be KIND:PROBABILITY[:OPERATION[:DELAY_MS]]".to_owned());
        }
        let fault = FaultRule { kind, probability, operation, delay_ms };
        fault.check()?;
        Ok(fault)
    }
}

/// The fault of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FaultDecision {
    pub(crate) kind: FaultKind,
    pub(crate) delay: ModelTime,
    /// Whether the call is executed.
    pub(crate) is_executed: bool,
}

/// Draws the faults in order and returns the first one that occurs.
pub(crate) fn draw(
    faults: &[FaultRule],
    operation: ApiOperation,
    rng: &mut SmallRng,
) -> Option<FaultDecision> {
    let applies = |fault: &&FaultRule| {
        let named = fault.operation.as_deref().is_none_or(|name| name == operation.name());
        let fits = fault.kind != FaultKind::Conflict || operation.can_conflict();
        named && fits && operation.is_on_items()
    };
    for fault in faults.iter().filter(applies) {
        if rng.random::<f64>() < fault.probability {
            return Some(FaultDecision {
                kind: fault.kind,
                delay: fault.delay_ms * 1_000,
                is_executed: match fault.kind {
                    FaultKind::LostAnswer | FaultKind::DelayedAnswer => true,
                    FaultKind::Error500 => rng.random(),
                    _ => false,
                },
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_options_are_parsed_and_invalid_ones_rejected() {
        let fault: FaultRule = "delayed-answer:0.5:TransactWriteItems:250".parse().unwrap();
        assert_eq!((fault.kind, fault.delay_ms), (FaultKind::DelayedAnswer, 250));
        assert!("error-500:0.1".parse::<FaultRule>().is_ok());
        for (text, word) in [
            ("", "must be KIND"),
            ("lost:0.1", "KIND"),
            ("throttle", "PROBABILITY"),
            ("throttle:2", "0 to 1"),
            ("throttle:0.1:Fly", "operation"),
            ("throttle:0.1:GetItem:5", "delay_ms"),
            ("delayed-answer:0.1", "delay_ms"),
            ("delayed-answer:0.1::999999999", "at most"),
            ("throttle:0.1:GetItem:0:x", "must be KIND"),
        ] {
            let error = text.parse::<FaultRule>().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
