//! Checks of a scenario. Each error names the key, the value and the valid range.

use std::fmt::Display;

use super::{AutoCount, Contract, CurveStep, Scenario, ScenarioError, SeatPick};
use crate::limits;
use crate::outcome::CallMethod;

fn bad<T>(
    key: &'static str,
    given: impl Display,
    want: impl Into<String>,
) -> Result<T, ScenarioError> {
    Err(ScenarioError::Value { key, given: given.to_string(), want: want.into() })
}

fn within(key: &'static str, given: f64, min: f64, max: f64) -> Result<(), ScenarioError> {
    // Also rejects NaN.
    match (min..=max).contains(&given) {
        true => Ok(()),
        false => bad(key, given, format!("{min} to {max}")),
    }
}

impl Scenario {
    /// # Errors
    /// The first invalid value.
    pub fn check(&self) -> Result<(), ScenarioError> {
        self.check_loop()?;
        within("warmup", self.warmup, 0.0, limits::SECONDS_MAX)?;
        self.check_time()?;
        let connections = limits::CONNECTIONS_MAX;
        within("connections", self.connections as f64, 1.0, connections as f64)?;
        within("in_flight", self.in_flight as f64, 1.0, limits::IN_FLIGHT_MAX as f64)?;
        let deadline = limits::DEADLINE_MAX.as_millis() as f64;
        within("deadline_ms", self.deadline_ms as f64, 0.0, deadline)?;
        let hold = limits::HOLD_MAX.as_secs_f64();
        within("hold_seconds", self.hold_seconds as f64, 0.0, hold)?;
        let max = f64::from(limits::QTY_MAX);
        within("qty.min", f64::from(self.qty.min), 1.0, max)?;
        within("qty.max", f64::from(self.qty.max), f64::from(self.qty.min), max)?;
        self.check_events()?;
        self.check_mix()?;
        self.check_seats()
    }

    fn check_loop(&self) -> Result<(), ScenarioError> {
        let Some(users) = self.users else {
            return match self.calls {
                Some(calls) => bad("calls", calls, "given only with users"),
                None => within("rate", self.rate, 0.001, limits::RATE_MAX),
            };
        };
        within("users", users as f64, 1.0, limits::CONNECTIONS_MAX as f64)?;
        within("calls", self.call_limit() as f64, 1.0, limits::CALLS_MAX)?;
        within("rate with users", self.rate, 0.0, 0.0)?;
        match self.curve.is_empty() {
            true => Ok(()),
            false => bad("curve", "given", "absent with users"),
        }
    }

    fn check_time(&self) -> Result<(), ScenarioError> {
        match (self.duration, self.curve.as_slice()) {
            (None, []) => return bad("duration", "missing", "seconds, or steps in curve"),
            (Some(seconds), []) => within("duration", seconds, 0.1, limits::SECONDS_MAX)?,
            (Some(seconds), _) => {
                return bad("duration", seconds, "absent with curve, whose steps have seconds");
            }
            (None, steps) => {
                if steps.len() > limits::STEPS_MAX {
                    let want = format!("at most {} steps", limits::STEPS_MAX);
                    return bad("curve", format!("{} steps long", steps.len()), want);
                }
                steps.iter().try_for_each(check_step)?;
            }
        }
        let whole = self.whole();
        within("the whole time", whole.seconds(), 0.1, limits::SECONDS_MAX)?;
        match self.users {
            Some(_) => Ok(()),
            None => within("the number of calls", whole.calls(), 1.0, limits::CALLS_MAX),
        }
    }

    fn check_events(&self) -> Result<(), ScenarioError> {
        let events = &self.events;
        let count = f64::from(limits::EVENTS_MAX);
        within("events.count", f64::from(events.count), 1.0, count)?;
        within("events.zipf", events.zipf, 0.0, 10.0)?;
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        if !(1..=80).contains(&events.prefix.len()) || !events.prefix.bytes().all(legal) {
            let given = format!("{:?}", events.prefix);
            return bad("events.prefix", given, "1 to 80 of A-Z a-z 0-9 . _ : -");
        }
        let stripes = f64::from(limits::STRIPES_MAX);
        for (key, count) in
            [("events.stripes", events.stripes), ("events.seat_keys", events.seat_keys)]
        {
            if let AutoCount::Fixed(given) = count {
                within(key, f64::from(given), 1.0, stripes)?;
            }
        }
        match (events.stock, events.seats) {
            (None, None) => bad("events.stock", "missing", "units of each event, or events.seats"),
            (Some(stock), None) => {
                within("events.stock", stock as f64, 1.0, limits::STOCK_MAX as f64)
            }
            (None, Some(seats)) => {
                let all = seats.saturating_mul(u64::from(events.count));
                within("events.seats times events.count", all as f64, 1.0, limits::SEATS_MAX as f64)
            }
            (Some(stock), Some(_)) => bad("events.stock", stock, "absent with events.seats"),
        }
    }

    fn check_mix(&self) -> Result<(), ScenarioError> {
        let keys = [
            ("mix.check", CallMethod::Check),
            ("mix.hold", CallMethod::Hold),
            ("mix.commit", CallMethod::Commit),
            ("mix.direct_commit", CallMethod::DirectCommit),
            ("mix.release", CallMethod::Release),
        ];
        for (key, method) in keys {
            within(key, self.mix.share(method), 0.0, 100.0)?;
        }
        let sum: f64 = CallMethod::ALL.iter().map(|method| self.mix.share(*method)).sum();
        if (sum - 100.0).abs() > 1e-6 {
            return bad("the sum of mix", sum, "100 percent");
        }
        let ends = self.mix.commit + self.mix.release;
        if ends > self.mix.hold {
            let given = format!("{ends} with mix.release");
            return bad("mix.commit", given, format!("at most mix.hold, {}", self.mix.hold));
        }
        let reserving = 100.0 - self.mix.check;
        within("duplicates.percent", self.duplicates.percent, 0.0, reserving)
    }

    fn check_seats(&self) -> Result<(), ScenarioError> {
        match (self.is_seated(), self.seats) {
            (true, None) => bad("seats", "missing", "[seats] with pick = \"exact\" or \"best\""),
            (false, Some(_)) => bad("seats", "given", "absent with events.stock"),
            (true, Some(seats)) => {
                within("seats.crowd", seats.crowd, 1.0, limits::SEATS_MAX as f64)?;
                let most = self.events.seats.unwrap_or(0).min(u64::from(limits::QTY_MAX));
                within("qty.max", f64::from(self.qty.max), 1.0, most as f64)?;
                let best = seats.pick == SeatPick::Best;
                if best && self.contract == Contract::InventoryV1 && self.mix.direct_commit > 0.0 {
                    let given = self.mix.direct_commit;
                    return bad("mix.direct_commit", given, "0 with seats.pick = \"best\"");
                }
                Ok(())
            }
            (false, None) => Ok(()),
        }
    }
}

fn check_step(step: &CurveStep) -> Result<(), ScenarioError> {
    within("curve.seconds", step.seconds, 0.001, limits::SECONDS_MAX)?;
    let factor = |key, given| within(key, given, 0.0, 1_000.0);
    match (step.times, step.from, step.to) {
        (Some(times), None, None) => factor("curve.times", times),
        (None, Some(from), Some(to)) => factor("curve.from", from).and(factor("curve.to", to)),
        _ => bad("curve", format!("{step:?}"), "times, or from and to, in every step"),
    }
}
