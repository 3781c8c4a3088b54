//! When a connection is pinged, asked to leave and closed: a clockwork without I/O.
//!
//! All of it together needs one alarm: [`Life::next`] says when to look again.

use super::connection::ConnectionEnd;
use super::context::{GrpcSettings, micros};
use super::drain::DrainStage;
use crate::limits::AUXILIARY_DRAIN_GRACE;
use inventory_core::time::Micros;

/// What the connection has to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LifecycleAction {
    /// Send a PING.
    SendPing,
    /// Say GOAWAY in two phases and serve what was on its way.
    SendGoaway,
    /// End the streams of cold calls, which would go on for ever.
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
    /// A connection that grew old has a grace of its own; a draining one waits for the abort.
    until: Option<Micros>,
    cancel_auxiliary_at: Option<Micros>,
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
    /// `age` is the jittered age after which the connection is asked to leave.
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

    /// The handshake is done.
    pub(super) fn opened(&mut self, now: Micros) {
        let goaway_at = self.age.map(|age| now.plus(age));
        self.phase = LifecyclePhase::Serving { goaway_at };
    }

    /// The peer sent something, whatever it was: it lives.
    pub(super) fn data_received(&mut self, now: Micros) {
        if let Some(keep_alive) = &mut self.keep_alive {
            keep_alive.last_received = now;
            keep_alive.ping_sent = None;
        }
    }

    /// How the connection ends if HTTP/2 closes it in order.
    pub(super) fn graceful_end(&self) -> ConnectionEnd {
        match &self.phase {
            LifecyclePhase::Goaway(leaving) => leaving.end,
            _ => ConnectionEnd::Closed,
        }
    }

    /// What is due. Called again until there is nothing.
    pub(super) fn poll_action(
        &mut self,
        now: Micros,
        stage: DrainStage,
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
                        end: if drained {
                            ConnectionEnd::Drained
                        } else {
                            ConnectionEnd::Aged
                        },
                    });
                    return Some(LifecycleAction::SendGoaway);
                }
            }
            LifecyclePhase::Goaway(leaving) => {
                if leaving.until.is_some_and(|until| now >= until) {
                    return Some(LifecycleAction::Close(ConnectionEnd::AgeGraceOver));
                }
                if leaving.cancel_auxiliary_at.is_some_and(|at| now >= at) {
                    leaving.cancel_auxiliary_at = None;
                    return Some(LifecycleAction::CancelAuxiliary);
                }
            }
        }
        self.keep_alive.as_mut()?.poll_action(now)
    }

    /// When to ask [`Life::due`] again, if nothing else happens.
    pub(super) fn next_deadline(&self) -> Option<Micros> {
        let keep_alive = self.keep_alive.as_ref().map(KeepAliveTimer::next_deadline);
        match &self.phase {
            LifecyclePhase::Handshaking { until } => Some(*until),
            LifecyclePhase::Serving { goaway_at } => earliest([*goaway_at, keep_alive]),
            LifecyclePhase::Goaway(GoawayState {
                until,
                cancel_auxiliary_at: cut_cold_at,
                ..
            }) => earliest([*until, *cut_cold_at, keep_alive]),
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

    fn life(age: Option<Micros>) -> ConnectionLifecycle {
        let mut life = ConnectionLifecycle::new(&settings(), age, ms(0));
        life.opened(ms(0));
        life
    }

    fn due(life: &mut ConnectionLifecycle, at: u64) -> Option<LifecycleAction> {
        life.poll_action(ms(at), DrainStage::Serving)
    }

    #[test]
    fn a_handshake_that_does_not_end_is_closed() {
        let mut life = ConnectionLifecycle::new(&settings(), None, ms(0));
        assert_eq!(life.next_deadline(), Some(ms(1_000)));
        assert_eq!(due(&mut life, 999), None);
        assert_eq!(
            due(&mut life, 1_000),
            Some(LifecycleAction::Close(ConnectionEnd::HandshakeTimeout))
        );
    }

    #[test]
    fn a_silent_peer_is_pinged_and_then_closed() {
        let mut life = life(None);
        assert_eq!(life.next_deadline(), Some(ms(30_000)));
        assert_eq!(due(&mut life, 29_999), None);
        assert_eq!(due(&mut life, 30_000), Some(LifecycleAction::SendPing));
        assert_eq!(due(&mut life, 30_000), None);
        assert_eq!(life.next_deadline(), Some(ms(50_000)));
        assert_eq!(due(&mut life, 49_999), None);
        assert_eq!(
            due(&mut life, 50_000),
            Some(LifecycleAction::Close(ConnectionEnd::KeepAliveTimeout))
        );
    }

    #[test]
    fn a_peer_that_answers_is_pinged_again_after_the_next_silence() {
        let mut life = life(None);
        assert_eq!(due(&mut life, 30_000), Some(LifecycleAction::SendPing));
        life.data_received(ms(31_000));
        assert_eq!(due(&mut life, 50_001), None);
        assert_eq!(life.next_deadline(), Some(ms(61_000)));
        assert_eq!(due(&mut life, 61_000), Some(LifecycleAction::SendPing));
    }

    #[test]
    fn an_old_connection_leaves_and_is_closed_after_its_grace() {
        let mut life = life(Some(ms(10_000)));
        assert_eq!(life.next_deadline(), Some(ms(10_000)));
        assert_eq!(due(&mut life, 10_000), Some(LifecycleAction::SendGoaway));
        assert_eq!(due(&mut life, 10_000), None);
        assert_eq!(life.graceful_end(), ConnectionEnd::Aged);
        let cut = ms(10_000).plus(micros(AUXILIARY_DRAIN_GRACE)).0 / 1_000;
        assert_eq!(due(&mut life, cut), Some(LifecycleAction::CancelAuxiliary));
        assert_eq!(due(&mut life, cut), None);
        assert_eq!(
            due(&mut life, 15_000),
            Some(LifecycleAction::Close(ConnectionEnd::AgeGraceOver))
        );
    }

    #[test]
    fn draining_leaves_once_and_only_an_abort_closes() {
        let mut life = life(Some(ms(600_000)));
        assert_eq!(
            life.poll_action(ms(5), DrainStage::Draining),
            Some(LifecycleAction::SendGoaway)
        );
        assert_eq!(life.poll_action(ms(5), DrainStage::Draining), None);
        assert_eq!(life.graceful_end(), ConnectionEnd::Drained);
        assert_eq!(
            life.poll_action(ms(6), DrainStage::Aborted),
            Some(LifecycleAction::Close(ConnectionEnd::Aborted))
        );
    }

    #[test]
    fn a_drain_waits_for_the_handshake_and_then_asks_to_leave() {
        let mut life = ConnectionLifecycle::new(&settings(), None, ms(0));
        assert_eq!(life.poll_action(ms(1), DrainStage::Draining), None);
        life.opened(ms(2));
        assert_eq!(
            life.poll_action(ms(2), DrainStage::Draining),
            Some(LifecycleAction::SendGoaway)
        );
    }
}
