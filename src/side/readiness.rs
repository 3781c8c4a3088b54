//! Whether clients should come to this process.

use std::sync::Arc;

use tokio::sync::watch;

/// Where the process stands. It moves downwards only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Starting,
    Ready,
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
            State::Ready | State::Draining { .. } => false,
        });
    }

    /// The process is on its way out, for good; the first reason stays.
    pub fn drain(&self, why: impl Into<String>) {
        self.0.send_if_modified(|state| match state {
            State::Starting | State::Ready => {
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
