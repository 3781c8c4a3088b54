//! Whether clients should come to this process.

use std::sync::Arc;

use tokio::sync::watch;

/// Where the process stands. It moves downwards, but that an unwell process may recover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Starting,
    Ready,
    /// Something in it stands still: `why` in few words.
    Unwell {
        why: String,
    },
    /// No new work: `why` in few words, as an operator reads them.
    Draining {
        why: String,
    },
}

/// The one truth behind /readyz and grpc.health.v1, shared by all who ask and tell.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<watch::Sender<State>>);

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// Of a process that is starting.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(State::Starting)))
    }

    /// Every part is up. Without effect once draining.
    pub fn ready(&self) {
        self.0.send_if_modified(|state| match state {
            State::Starting => {
                *state = State::Ready;
                true
            }
            State::Ready | State::Unwell { .. } | State::Draining { .. } => false,
        });
    }

    /// Clients should not come for now. Without effect unless ready.
    pub fn unwell(&self, why: impl Into<String>) {
        self.0.send_if_modified(|state| match state {
            State::Ready => {
                *state = State::Unwell { why: why.into() };
                true
            }
            State::Starting | State::Unwell { .. } | State::Draining { .. } => false,
        });
    }

    /// Clients may come again. Without effect unless unwell.
    pub fn well(&self) {
        self.0.send_if_modified(|state| match state {
            State::Unwell { .. } => {
                *state = State::Ready;
                true
            }
            State::Starting | State::Ready | State::Draining { .. } => false,
        });
    }

    /// The process is on its way out, for good; the first reason stays.
    pub fn drain(&self, why: impl Into<String>) {
        self.0.send_if_modified(|state| match state {
            State::Starting | State::Ready | State::Unwell { .. } => {
                *state = State::Draining { why: why.into() };
                true
            }
            State::Draining { .. } => false,
        });
    }

    pub fn state(&self) -> State {
        self.0.borrow().clone()
    }

    pub fn is_ready(&self) -> bool {
        matches!(*self.0.borrow(), State::Ready)
    }

    /// The state and its changes. Its futures need no particular executor.
    pub fn subscribe(&self) -> watch::Receiver<State> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unwell_process_recovers_and_a_draining_one_does_not() {
        let readiness = Readiness::new();
        readiness.unwell("too early");
        readiness.well();
        assert_eq!(readiness.state(), State::Starting);
        readiness.ready();
        readiness.unwell("shard 1");
        readiness.unwell("shard 2");
        let why = "shard 1".to_owned();
        assert_eq!(readiness.state(), State::Unwell { why });
        readiness.ready();
        assert!(!readiness.is_ready());
        readiness.well();
        assert!(readiness.is_ready());
        readiness.unwell("shard 1");
        readiness.drain("SIGTERM");
        readiness.well();
        assert!(matches!(readiness.state(), State::Draining { .. }));
    }

    #[test]
    fn draining_is_final_and_keeps_its_first_reason() {
        let readiness = Readiness::new();
        assert_eq!(readiness.state(), State::Starting);
        readiness.ready();
        assert!(readiness.is_ready());
        readiness.drain("SIGTERM");
        readiness.drain("SIGINT");
        readiness.ready();
        let why = "SIGTERM".to_owned();
        assert_eq!(readiness.state(), State::Draining { why });
    }
}
