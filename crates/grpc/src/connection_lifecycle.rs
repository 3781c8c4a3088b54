//! When a connection is pinged, gets its GOAWAY and is closed: a state machine without I/O.
//!
//! One timer serves all of it: [`ConnectionLifecycle::next_deadline`] returns when the next action is due.

use super::connection_end::ConnectionEnd;
use super::drain::DrainStage;
use super::settings::{GrpcSettings, micros};
use crate::limits::{AUXILIARY_DRAIN_GRACE, GOAWAY_ANSWER_TIMEOUT};
use inventory_core::time::Micros;

/// What the connection must do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LifecycleAction {
    /// Send a PING.
    SendPing,
    /// Send a GOAWAY in two phases and serve the calls that were already sent.
    SendGoaway,
    /// End the streams of auxiliary calls, which can last for ever (health watches).
    CancelAuxiliary,
    /// Close at once.
    Close(ConnectionEnd),
}

enum LifecyclePhase {
    Handshaking { until: Micros },
    Serving { goaway_at: Option<Micros> },
    Goaway(GoawayState),
}

struct GoawayState {
    /// Set for a connection at its maximum age; a draining one waits for the abort.
    until: Option<Micros>,
    cancel_auxiliary_at: Option<Micros>,
    /// From here on the connection closes as soon as it has no call.
    answer_by: Micros,
    end: ConnectionEnd,
}

pub(super) struct ConnectionLifecycle {
    phase: LifecyclePhase,
    keep_alive: Option<KeepAliveTimer>,
    age: Option<Micros>,
    grace: Micros,
}

struct KeepAliveTimer {
    period: Micros,
    timeout: Micros,
    last_received: Micros,
    ping_sent: Option<Micros>,
}

impl ConnectionLifecycle {
    /// `age` is the jittered maximum age of the connection.
    pub(super) fn new(settings: &GrpcSettings, age: Option<Micros>, now: Micros) -> Self {
        Self {
            phase: LifecyclePhase::Handshaking {
                until: now.plus(micros(settings.handshake_timeout)),
            },
            keep_alive: settings.keep_alive_period.map(|period| KeepAliveTimer {
                period: micros(period),
                timeout: micros(settings.keep_alive_timeout),
                last_received: now,
                ping_sent: None,
            }),
            age,
            grace: micros(settings.connection_age_grace),
        }
    }

    /// The HTTP/2 handshake is complete.
    pub(super) fn opened(&mut self, now: Micros) {
        let goaway_at = self.age.map(|age| now.plus(age));
        self.phase = LifecyclePhase::Serving { goaway_at };
    }

    /// Any bytes from the peer prove that the peer is alive.
    pub(super) fn data_received(&mut self, now: Micros) {
        if let Some(keep_alive) = &mut self.keep_alive {
            keep_alive.last_received = now;
            keep_alive.ping_sent = None;
        }
    }

    /// The end of a connection that HTTP/2 closes in order.
    pub(super) fn graceful_end(&self) -> ConnectionEnd {
        match &self.phase {
            LifecyclePhase::Goaway(goaway) => goaway.end,
            _ => ConnectionEnd::Closed,
        }
    }

    /// The next action that is due. The caller repeats until `None`. `has_calls`: calls of a contract are in flight.
    pub(super) fn poll_action(
        &mut self,
        now: Micros,
        stage: DrainStage,
        has_calls: bool,
    ) -> Option<LifecycleAction> {
        if stage == DrainStage::Aborted {
            return Some(LifecycleAction::Close(ConnectionEnd::Aborted));
        }
        match &mut self.phase {
            LifecyclePhase::Handshaking { until } => {
                return (now >= *until)
                    .then_some(LifecycleAction::Close(ConnectionEnd::HandshakeTimeout));
            }
            LifecyclePhase::Serving { goaway_at } => {
                let aged = goaway_at.is_some_and(|at| now >= at);
                if stage == DrainStage::Draining || aged {
                    let drained = stage == DrainStage::Draining;
                    self.phase = LifecyclePhase::Goaway(GoawayState {
                        until: (!drained).then(|| now.plus(self.grace)),
                        cancel_auxiliary_at: Some(now.plus(micros(AUXILIARY_DRAIN_GRACE))),
                        answer_by: now.plus(micros(GOAWAY_ANSWER_TIMEOUT)),
                        end: if drained { ConnectionEnd::Drained } else { ConnectionEnd::Aged },
                    });
                    return Some(LifecycleAction::SendGoaway);
                }
            }
            LifecyclePhase::Goaway(goaway) => {
                if goaway.until.is_some_and(|until| now >= until) {
                    return Some(LifecycleAction::Close(ConnectionEnd::AgeGraceOver));
                }
                if now >= goaway.answer_by && !has_calls {
                    return Some(LifecycleAction::Close(goaway.end));
                }
                if goaway.cancel_auxiliary_at.is_some_and(|at| now >= at) {
                    goaway.cancel_auxiliary_at = None;
                    return Some(LifecycleAction::CancelAuxiliary);
                }
            }
        }
        self.keep_alive.as_mut()?.poll_action(now)
    }

    /// When [`ConnectionLifecycle::poll_action`] may have an action, if nothing else happens.
    pub(super) fn next_deadline(&self, has_calls: bool) -> Option<Micros> {
        let keep_alive = self.keep_alive.as_ref().map(KeepAliveTimer::next_deadline);
        match &self.phase {
            LifecyclePhase::Handshaking { until } => Some(*until),
            LifecyclePhase::Serving { goaway_at } => earliest([*goaway_at, keep_alive]),
            LifecyclePhase::Goaway(GoawayState {
                until, cancel_auxiliary_at, answer_by, ..
            }) => {
                let answer_by = (!has_calls).then_some(*answer_by);
                earliest([*until, *cancel_auxiliary_at, answer_by, keep_alive])
            }
        }
    }
}

fn earliest<const N: usize>(instants: [Option<Micros>; N]) -> Option<Micros> {
    instants.into_iter().flatten().min()
}

impl KeepAliveTimer {
    fn poll_action(&mut self, now: Micros) -> Option<LifecycleAction> {
        if now < self.next_deadline() {
            return None;
        }
        if self.ping_sent.is_some() {
            return Some(LifecycleAction::Close(ConnectionEnd::KeepAliveTimeout));
        }
        self.ping_sent = Some(now);
        Some(LifecycleAction::SendPing)
    }

    fn next_deadline(&self) -> Micros {
        match self.ping_sent {
            Some(at) => at.plus(self.timeout),
            None => self.last_received.plus(self.period),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const fn ms(ms: u64) -> Micros {
        Micros::from_millis(ms)
    }

    fn settings() -> GrpcSettings {
        GrpcSettings {
            keep_alive_period: Some(Duration::from_millis(30_000)),
            keep_alive_timeout: Duration::from_millis(20_000),
            connection_age_grace: Duration::from_millis(5_000),
            handshake_timeout: Duration::from_millis(1_000),
            ..GrpcSettings::default()
        }
    }

    fn open_connection(age: Option<Micros>) -> ConnectionLifecycle {
        let mut lifecycle = ConnectionLifecycle::new(&settings(), age, ms(0));
        lifecycle.opened(ms(0));
        lifecycle
    }

    fn action_at(lifecycle: &mut ConnectionLifecycle, at: u64) -> Option<LifecycleAction> {
        lifecycle.poll_action(ms(at), DrainStage::Serving, true)
    }

    #[test]
    fn an_incomplete_handshake_is_closed() {
        let mut lifecycle = ConnectionLifecycle::new(&settings(), None, ms(0));
        assert_eq!(lifecycle.next_deadline(false), Some(ms(1_000)));
        assert_eq!(action_at(&mut lifecycle, 999), None);
        assert_eq!(
            action_at(&mut lifecycle, 1_000),
            Some(LifecycleAction::Close(ConnectionEnd::HandshakeTimeout))
        );
    }

    #[test]
    fn a_silent_peer_is_pinged_and_then_closed() {
        let mut lifecycle = open_connection(None);
        assert_eq!(lifecycle.next_deadline(false), Some(ms(30_000)));
        assert_eq!(action_at(&mut lifecycle, 29_999), None);
        assert_eq!(action_at(&mut lifecycle, 30_000), Some(LifecycleAction::SendPing));
        assert_eq!(action_at(&mut lifecycle, 30_000), None);
        assert_eq!(lifecycle.next_deadline(false), Some(ms(50_000)));
        assert_eq!(action_at(&mut lifecycle, 49_999), None);
        assert_eq!(
            action_at(&mut lifecycle, 50_000),
            Some(LifecycleAction::Close(ConnectionEnd::KeepAliveTimeout))
        );
    }

    #[test]
    fn a_peer_that_answers_is_pinged_again_after_the_next_silence() {
        let mut lifecycle = open_connection(None);
        assert_eq!(action_at(&mut lifecycle, 30_000), Some(LifecycleAction::SendPing));
        lifecycle.data_received(ms(31_000));
        assert_eq!(action_at(&mut lifecycle, 50_001), None);
        assert_eq!(lifecycle.next_deadline(false), Some(ms(61_000)));
        assert_eq!(action_at(&mut lifecycle, 61_000), Some(LifecycleAction::SendPing));
    }

    #[test]
    fn a_connection_at_its_maximum_age_gets_a_goaway_and_a_grace_period() {
        let mut lifecycle = open_connection(Some(ms(10_000)));
        assert_eq!(lifecycle.next_deadline(false), Some(ms(10_000)));
        assert_eq!(action_at(&mut lifecycle, 10_000), Some(LifecycleAction::SendGoaway));
        assert_eq!(action_at(&mut lifecycle, 10_000), None);
        assert_eq!(lifecycle.graceful_end(), ConnectionEnd::Aged);
        let cancel_at = ms(10_000).plus(micros(AUXILIARY_DRAIN_GRACE)).0 / 1_000;
        assert_eq!(action_at(&mut lifecycle, cancel_at), Some(LifecycleAction::CancelAuxiliary));
        assert_eq!(action_at(&mut lifecycle, cancel_at), None);
        assert_eq!(
            action_at(&mut lifecycle, 15_000),
            Some(LifecycleAction::Close(ConnectionEnd::AgeGraceOver))
        );
    }

    #[test]
    fn a_drain_sends_one_goaway_and_only_an_abort_closes() {
        let mut lifecycle = open_connection(Some(ms(600_000)));
        assert_eq!(
            lifecycle.poll_action(ms(5), DrainStage::Draining, false),
            Some(LifecycleAction::SendGoaway)
        );
        assert_eq!(lifecycle.poll_action(ms(5), DrainStage::Draining, false), None);
        assert_eq!(lifecycle.graceful_end(), ConnectionEnd::Drained);
        assert_eq!(
            lifecycle.poll_action(ms(6), DrainStage::Aborted, false),
            Some(LifecycleAction::Close(ConnectionEnd::Aborted))
        );
    }

    #[test]
    fn a_peer_that_does_not_answer_the_goaway_delays_a_drain_only_with_its_calls() {
        let mut lifecycle = open_connection(None);
        let mut action =
            |at, has_calls| lifecycle.poll_action(Micros(at), DrainStage::Draining, has_calls);
        assert_eq!(action(0, false), Some(LifecycleAction::SendGoaway));
        let answer_by = micros(GOAWAY_ANSWER_TIMEOUT).0;
        assert_eq!(action(answer_by - 1, false), Some(LifecycleAction::CancelAuxiliary));
        assert_eq!(action(answer_by - 1, false), None);
        assert_eq!(action(answer_by, true), None);
        let closed = LifecycleAction::Close(ConnectionEnd::Drained);
        assert_eq!(action(answer_by + 9, false), Some(closed));
    }

    #[test]
    fn a_drain_waits_for_the_handshake_before_the_goaway() {
        let mut lifecycle = ConnectionLifecycle::new(&settings(), None, ms(0));
        assert_eq!(lifecycle.poll_action(ms(1), DrainStage::Draining, false), None);
        lifecycle.opened(ms(2));
        assert_eq!(
            lifecycle.poll_action(ms(2), DrainStage::Draining, false),
            Some(LifecycleAction::SendGoaway)
        );
    }
}
