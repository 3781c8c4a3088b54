//! When a connection is pinged, asked to leave and closed: a clockwork without I/O.
//!
//! All of it together needs one alarm: [`Life::next`] says when to look again.

use super::connection::Ended;
use super::context::{WireSettings, micros};
use super::drain::Stage;
use crate::limits::COLD_DRAIN_GRACE;
use inventory_core::time::Micros;

/// What the connection has to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Send a PING.
    Ping,
    /// Say GOAWAY in two phases and serve what was on its way.
    Leave,
    /// End the streams of cold calls, which would go on for ever.
    CutCold,
    /// Close at once.
    Close(Ended),
}

enum Phase {
    Handshaking { until: Micros },
    Serving { leave_at: Option<Micros> },
    Leaving(Leaving),
}

struct Leaving {
    /// A connection that grew old has a grace of its own; a draining one waits for the abort.
    until: Option<Micros>,
    cut_cold_at: Option<Micros>,
    ended: Ended,
}

pub(super) struct Life {
    phase: Phase,
    keep_alive: Option<KeepAlive>,
    age: Option<Micros>,
    grace: Micros,
}

struct KeepAlive {
    period: Micros,
    timeout: Micros,
    heard: Micros,
    pinged: Option<Micros>,
}

impl Life {
    /// `age` is the jittered age after which the connection is asked to leave.
    pub(super) fn new(settings: &WireSettings, age: Option<Micros>, now: Micros) -> Self {
        Self {
            phase: Phase::Handshaking {
                until: now.plus(micros(settings.handshake_timeout)),
            },
            keep_alive: settings.keep_alive_period.map(|period| KeepAlive {
                period: micros(period),
                timeout: micros(settings.keep_alive_timeout),
                heard: now,
                pinged: None,
            }),
            age,
            grace: micros(settings.connection_age_grace),
        }
    }

    /// The handshake is done.
    pub(super) fn opened(&mut self, now: Micros) {
        let leave_at = self.age.map(|age| now.plus(age));
        self.phase = Phase::Serving { leave_at };
    }

    /// The peer sent something, whatever it was: it lives.
    pub(super) fn heard(&mut self, now: Micros) {
        if let Some(keep_alive) = &mut self.keep_alive {
            keep_alive.heard = now;
            keep_alive.pinged = None;
        }
    }

    /// How the connection ends if HTTP/2 closes it in order.
    pub(super) fn orderly_end(&self) -> Ended {
        match &self.phase {
            Phase::Leaving(leaving) => leaving.ended,
            _ => Ended::Closed,
        }
    }

    /// What is due. Called again until there is nothing.
    pub(super) fn due(&mut self, now: Micros, stage: Stage) -> Option<Act> {
        if stage == Stage::Aborted {
            return Some(Act::Close(Ended::Aborted));
        }
        match &mut self.phase {
            Phase::Handshaking { until } => {
                return (now >= *until).then_some(Act::Close(Ended::HandshakeTimeout));
            }
            Phase::Serving { leave_at } => {
                let aged = leave_at.is_some_and(|at| now >= at);
                if stage == Stage::Draining || aged {
                    let drained = stage == Stage::Draining;
                    self.phase = Phase::Leaving(Leaving {
                        until: (!drained).then(|| now.plus(self.grace)),
                        cut_cold_at: Some(now.plus(micros(COLD_DRAIN_GRACE))),
                        ended: if drained { Ended::Drained } else { Ended::Aged },
                    });
                    return Some(Act::Leave);
                }
            }
            Phase::Leaving(leaving) => {
                if leaving.until.is_some_and(|until| now >= until) {
                    return Some(Act::Close(Ended::AgeGraceOver));
                }
                if leaving.cut_cold_at.is_some_and(|at| now >= at) {
                    leaving.cut_cold_at = None;
                    return Some(Act::CutCold);
                }
            }
        }
        self.keep_alive.as_mut()?.due(now)
    }

    /// When to ask [`Life::due`] again, if nothing else happens.
    pub(super) fn next(&self) -> Option<Micros> {
        let keep_alive = self.keep_alive.as_ref().map(KeepAlive::next);
        match &self.phase {
            Phase::Handshaking { until } => Some(*until),
            Phase::Serving { leave_at } => earliest([*leave_at, keep_alive]),
            Phase::Leaving(Leaving {
                until, cut_cold_at, ..
            }) => earliest([*until, *cut_cold_at, keep_alive]),
        }
    }
}

fn earliest<const N: usize>(instants: [Option<Micros>; N]) -> Option<Micros> {
    instants.into_iter().flatten().min()
}

impl KeepAlive {
    fn due(&mut self, now: Micros) -> Option<Act> {
        if now < self.next() {
            return None;
        }
        if self.pinged.is_some() {
            return Some(Act::Close(Ended::KeepAliveTimeout));
        }
        self.pinged = Some(now);
        Some(Act::Ping)
    }

    fn next(&self) -> Micros {
        match self.pinged {
            Some(at) => at.plus(self.timeout),
            None => self.heard.plus(self.period),
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

    fn settings() -> WireSettings {
        WireSettings {
            keep_alive_period: Some(Duration::from_millis(30_000)),
            keep_alive_timeout: Duration::from_millis(20_000),
            connection_age_grace: Duration::from_millis(5_000),
            handshake_timeout: Duration::from_millis(1_000),
            ..WireSettings::default()
        }
    }

    fn life(age: Option<Micros>) -> Life {
        let mut life = Life::new(&settings(), age, ms(0));
        life.opened(ms(0));
        life
    }

    fn due(life: &mut Life, at: u64) -> Option<Act> {
        life.due(ms(at), Stage::Serving)
    }

    #[test]
    fn a_handshake_that_does_not_end_is_closed() {
        let mut life = Life::new(&settings(), None, ms(0));
        assert_eq!(life.next(), Some(ms(1_000)));
        assert_eq!(due(&mut life, 999), None);
        assert_eq!(
            due(&mut life, 1_000),
            Some(Act::Close(Ended::HandshakeTimeout))
        );
    }

    #[test]
    fn a_silent_peer_is_pinged_and_then_closed() {
        let mut life = life(None);
        assert_eq!(life.next(), Some(ms(30_000)));
        assert_eq!(due(&mut life, 29_999), None);
        assert_eq!(due(&mut life, 30_000), Some(Act::Ping));
        assert_eq!(due(&mut life, 30_000), None);
        assert_eq!(life.next(), Some(ms(50_000)));
        assert_eq!(due(&mut life, 49_999), None);
        assert_eq!(
            due(&mut life, 50_000),
            Some(Act::Close(Ended::KeepAliveTimeout))
        );
    }

    #[test]
    fn a_peer_that_answers_is_pinged_again_after_the_next_silence() {
        let mut life = life(None);
        assert_eq!(due(&mut life, 30_000), Some(Act::Ping));
        life.heard(ms(31_000));
        assert_eq!(due(&mut life, 50_001), None);
        assert_eq!(life.next(), Some(ms(61_000)));
        assert_eq!(due(&mut life, 61_000), Some(Act::Ping));
    }

    #[test]
    fn an_old_connection_leaves_and_is_closed_after_its_grace() {
        let mut life = life(Some(ms(10_000)));
        assert_eq!(life.next(), Some(ms(10_000)));
        assert_eq!(due(&mut life, 10_000), Some(Act::Leave));
        assert_eq!(due(&mut life, 10_000), None);
        assert_eq!(life.orderly_end(), Ended::Aged);
        let cut = ms(10_000).plus(micros(COLD_DRAIN_GRACE)).0 / 1_000;
        assert_eq!(due(&mut life, cut), Some(Act::CutCold));
        assert_eq!(due(&mut life, cut), None);
        assert_eq!(
            due(&mut life, 15_000),
            Some(Act::Close(Ended::AgeGraceOver))
        );
    }

    #[test]
    fn draining_leaves_once_and_only_an_abort_closes() {
        let mut life = life(Some(ms(600_000)));
        assert_eq!(life.due(ms(5), Stage::Draining), Some(Act::Leave));
        assert_eq!(life.due(ms(5), Stage::Draining), None);
        assert_eq!(life.orderly_end(), Ended::Drained);
        assert_eq!(
            life.due(ms(6), Stage::Aborted),
            Some(Act::Close(Ended::Aborted))
        );
    }

    #[test]
    fn a_drain_waits_for_the_handshake_and_then_asks_to_leave() {
        let mut life = Life::new(&settings(), None, ms(0));
        assert_eq!(life.due(ms(1), Stage::Draining), None);
        life.opened(ms(2));
        assert_eq!(life.due(ms(2), Stage::Draining), Some(Act::Leave));
    }
}
