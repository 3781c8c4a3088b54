//! Readiness of the process, as shown by /readyz and grpc.health.v1.

use std::sync::Arc;

use inventory_grpc::HealthState;
use tokio::sync::watch;

/// States go forward from `Starting` to `Draining`; only `Unhealthy` can return to `Ready`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadinessState {
    Starting,
    Ready,
    /// A part of the process is stalled.
    Unhealthy {
        reason: String,
    },
    /// The process accepts no new work.
    Draining {
        reason: String,
    },
}

impl ReadinessState {
    pub(crate) fn health(&self) -> HealthState {
        match self {
            Self::Ready => HealthState::Serving,
            Self::Starting | Self::Unhealthy { .. } => HealthState::NotServing,
            Self::Draining { .. } => HealthState::Draining,
        }
    }
}

/// Shared readiness state.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<ReadinessChannels>);

#[derive(Debug)]
struct ReadinessChannels {
    state: watch::Sender<ReadinessState>,
    /// [`ReadinessState::health`] of `state`, changed with it.
    health: watch::Sender<HealthState>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// The readiness of a starting process.
    pub fn new() -> Self {
        let state = ReadinessState::Starting;
        let health = watch::Sender::new(state.health());
        Self(Arc::new(ReadinessChannels { state: watch::Sender::new(state), health }))
    }

    /// All parts are up. No effect unless starting.
    pub fn set_ready(&self) {
        self.change(|state| {
            matches!(state, ReadinessState::Starting).then_some(ReadinessState::Ready)
        });
    }

    /// The process is not ready for now. No effect unless ready.
    pub(crate) fn set_unhealthy(&self, reason: impl Into<String>) {
        self.change(|state| {
            matches!(state, ReadinessState::Ready)
                .then(|| ReadinessState::Unhealthy { reason: reason.into() })
        });
    }

    /// The process is ready again. No effect unless unhealthy.
    pub(crate) fn set_healthy(&self) {
        self.change(|state| {
            matches!(state, ReadinessState::Unhealthy { .. }).then_some(ReadinessState::Ready)
        });
    }

    /// The process is shutting down. Final; the first reason is kept.
    pub fn set_draining(&self, reason: impl Into<String>) {
        self.change(|state| {
            let is_draining = matches!(state, ReadinessState::Draining { .. });
            (!is_draining).then(|| ReadinessState::Draining { reason: reason.into() })
        });
    }

    fn change(&self, next: impl FnOnce(&ReadinessState) -> Option<ReadinessState>) {
        self.0.state.send_if_modified(|state| match next(state) {
            Some(next) => {
                self.0.health.send_replace(next.health());
                *state = next;
                true
            }
            None => false,
        });
    }

    pub(crate) fn state(&self) -> ReadinessState {
        self.0.state.borrow().clone()
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(*self.0.state.borrow(), ReadinessState::Ready)
    }

    /// What health checks report, and its changes. The futures of the receiver need no particular executor.
    pub(crate) fn health(&self) -> watch::Receiver<HealthState> {
        self.0.health.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unhealthy_process_recovers_and_draining_process_does_not() {
        let readiness = Readiness::new();
        readiness.set_unhealthy("too early");
        readiness.set_healthy();
        assert_eq!(readiness.state(), ReadinessState::Starting);
        readiness.set_ready();
        readiness.set_unhealthy("shard 1");
        readiness.set_unhealthy("shard 2");
        let reason = "shard 1".to_owned();
        assert_eq!(readiness.state(), ReadinessState::Unhealthy { reason });
        readiness.set_ready();
        assert!(!readiness.is_ready());
        readiness.set_healthy();
        assert!(readiness.is_ready());
        readiness.set_unhealthy("shard 1");
        readiness.set_draining("SIGTERM");
        readiness.set_healthy();
        assert!(matches!(readiness.state(), ReadinessState::Draining { .. }));
    }

    #[test]
    fn draining_is_final_and_keeps_its_first_reason() {
        let readiness = Readiness::new();
        assert_eq!(readiness.state(), ReadinessState::Starting);
        readiness.set_ready();
        assert!(readiness.is_ready());
        readiness.set_draining("SIGTERM");
        readiness.set_draining("SIGINT");
        readiness.set_ready();
        let reason = "SIGTERM".to_owned();
        assert_eq!(readiness.state(), ReadinessState::Draining { reason });
    }
}
