//! Faults put in on purpose, drawn by probability, switched while the model runs.

use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use crate::Micros;
use crate::limits;
use crate::op::Op;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// Carried out, then the connection is cut instead of an answer.
    LostAnswer,
    /// Not carried out; the connection is cut.
    LostRequest,
    /// Carried out, the answer comes `delay_ms` later.
    DelayedAnswer,
    /// Not carried out: throttled.
    Throttle,
    /// Not carried out: another transaction was in the way. Of writes and of TransactGetItems only.
    Conflict,
    /// Answered with InternalServerError; carried out in half of the cases.
    #[serde(rename = "error-500")]
    Error500,
}

/// One kind of fault, how often and where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    pub kind: FaultKind,
    /// 0 to 1, of each call it applies to.
    pub probability: f64,
    /// `TransactWriteItems` for example; none: all operations on items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Of a delayed answer, milliseconds.
    #[serde(default)]
    pub delay_ms: u64,
}

impl FaultKind {
    /// A fault of all operations.
    pub fn with_probability(self, probability: f64) -> Fault {
        Fault {
            kind: self,
            probability,
            operation: None,
            delay_ms: 0,
        }
    }
}

impl Fault {
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

    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// What is wrong, with what would be right.
    pub fn check(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.probability) {
            return Err(format!("probability is {}; want 0 to 1", self.probability));
        }
        if let Some(name) = &self.operation
            && !Op::named(name).is_some_and(Op::is_on_items)
        {
            return Err(format!(
                "operation is {name:?}; want an operation on items, TransactWriteItems for example"
            ));
        }
        let delay = self.delay_ms.saturating_mul(1_000);
        match (self.kind, delay) {
            (FaultKind::DelayedAnswer, 0) => Err("delayed-answer needs delay_ms".to_owned()),
            (FaultKind::DelayedAnswer, delay) if delay > limits::FAULT_DELAY_MAX => Err(format!(
                "delay_ms is {}; want at most {}",
                self.delay_ms,
                limits::FAULT_DELAY_MAX / 1_000
            )),
            (FaultKind::DelayedAnswer, _) | (_, 0) => Ok(()),
            _ => Err("delay_ms is for delayed-answer only".to_owned()),
        }
    }
}

/// `KIND:PROBABILITY[:OPERATION[:DELAY_MS]]`; an empty OPERATION means all.
impl std::str::FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let mut next = || parts.next().filter(|part| !part.is_empty());
        let kind = next().ok_or("want KIND:PROBABILITY[:OPERATION[:DELAY_MS]]")?;
        let kind = serde_json::Value::String(kind.to_owned());
        let kind = serde_json::from_value(kind).map_err(|why| format!("KIND: {why}"))?;
        let probability = next().ok_or("want KIND:PROBABILITY")?;
        let probability = probability
            .parse()
            .map_err(|why| format!("PROBABILITY: {why}"))?;
        let operation = next().map(str::to_owned);
        let delay_ms = next().map_or(Ok(0), |ms| {
            ms.parse().map_err(|why| format!("DELAY_MS: {why}"))
        })?;
        if parts.next().is_some() {
            return Err("want KIND:PROBABILITY[:OPERATION[:DELAY_MS]]".to_owned());
        }
        let fault = Fault {
            kind,
            probability,
            operation,
            delay_ms,
        };
        fault.check()?;
        Ok(fault)
    }
}

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drawn {
    pub(crate) kind: FaultKind,
    pub(crate) delay: Micros,
    /// Whether it is carried out all the same.
    pub(crate) carried_out: bool,
}

/// The first fault that strikes.
pub(crate) fn draw(faults: &[Fault], op: Op, rng: &mut SmallRng) -> Option<Drawn> {
    let applies = |fault: &&Fault| {
        let named = fault
            .operation
            .as_deref()
            .is_none_or(|name| name == op.name());
        let fits = fault.kind != FaultKind::Conflict || op.can_conflict();
        named && fits && op.is_on_items()
    };
    for fault in faults.iter().filter(applies) {
        if rng.random::<f64>() < fault.probability {
            return Some(Drawn {
                kind: fault.kind,
                delay: fault.delay_ms * 1_000,
                carried_out: match fault.kind {
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
    fn flags_are_read_and_nonsense_is_named() {
        let fault: Fault = "delayed-answer:0.5:TransactWriteItems:250".parse().unwrap();
        assert_eq!(
            (fault.kind, fault.delay_ms),
            (FaultKind::DelayedAnswer, 250)
        );
        assert!("error-500:0.1".parse::<Fault>().is_ok());
        for (text, word) in [
            ("", "want KIND"),
            ("lost:0.1", "KIND"),
            ("throttle", "PROBABILITY"),
            ("throttle:2", "0 to 1"),
            ("throttle:0.1:Fly", "operation"),
            ("throttle:0.1:GetItem:5", "delay_ms"),
            ("delayed-answer:0.1", "delay_ms"),
            ("delayed-answer:0.1::999999999", "at most"),
            ("throttle:0.1:GetItem:0:x", "want KIND"),
        ] {
            let error = text.parse::<Fault>().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
