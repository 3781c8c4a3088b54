//! Scenario files: TOML, with every key documented here.
//!
//! [`Scenario`] is the content of a file; `check.rs` rejects invalid values and names the key; the methods here
//! derive values from the keys.

mod check;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::limits;
use crate::outcome::CallMethod;
use crate::schedule::{ArrivalSpacing, RateCurve, RateSegment};

/// A scenario file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Title of the report.
    pub title: String,
    #[serde(default)]
    pub contract: Contract,
    #[serde(default = "one")]
    pub seed: u64,
    /// Open loop: calls per second over all methods, without repeats.
    #[serde(default)]
    pub rate: f64,
    /// Closed loop, instead of `rate`: each of so many users sends its next call after the answer to the
    /// previous one. Latencies then count from when a call was sent.
    pub users: Option<usize>,
    /// Closed loop: the run ends after so many calls, repeats not counted, or after `duration`.
    pub calls: Option<usize>,
    #[serde(default = "poisson")]
    pub spacing: ArrivalSpacing,
    /// Seconds of the measured part at a constant rate; only without `curve`.
    pub duration: Option<f64>,
    /// Steps and ramps, as factors of `rate`.
    #[serde(default)]
    pub curve: Vec<CurveStep>,
    /// Seconds before the measured part: half of it a ramp to the first rate, half at that rate.
    #[serde(default)]
    pub warmup: f64,
    #[serde(default = "eight")]
    pub connections: usize,
    /// Maximum number of calls in flight over all connections.
    #[serde(default = "in_flight")]
    pub in_flight: usize,
    /// `grpc-timeout` of each call in milliseconds; 0: none.
    #[serde(default = "deadline")]
    pub deadline_ms: u64,
    /// Duration of a hold in seconds; 0: the default of the server.
    #[serde(default)]
    pub hold_seconds: u64,
    /// Expiry of all holds in Unix milliseconds, instead of `hold_seconds`.
    pub hold_until_ms: Option<u64>,
    #[serde(default)]
    pub qty: QuantityRange,
    pub events: EventSetup,
    pub mix: CallMix,
    #[serde(default)]
    pub duplicates: Duplicates,
    pub seats: Option<SeatSelection>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Contract {
    /// `inventory.v1.Inventory`.
    #[default]
    #[serde(rename = "A", alias = "inventory.v1")]
    InventoryV1,
    /// `reservation.v1.InventoryService`.
    #[serde(rename = "B", alias = "reservation.v1")]
    ReservationV1,
}

/// A step of the rate curve: `times` for a constant rate, or `from` and `to` for a ramp.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurveStep {
    pub seconds: f64,
    pub times: Option<f64>,
    pub from: Option<f64>,
    pub to: Option<f64>,
}

/// Units of one reservation, uniformly distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantityRange {
    pub min: u32,
    pub max: u32,
}

impl Default for QuantityRange {
    fn default() -> Self {
        Self { min: 1, max: 1 }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventSetup {
    #[serde(default = "one_event")]
    pub count: u32,
    /// Event ids are `PREFIX_0`, `PREFIX_1`, …; ids of created events are `PREFIX_RUN_0`, ….
    pub prefix: String,
    /// Units of each event.
    pub stock: Option<u64>,
    /// SeatSelection of each event, instead of `stock`.
    pub seats: Option<u64>,
    #[serde(default)]
    pub stripes: AutoCount,
    #[serde(default)]
    pub seat_keys: AutoCount,
    /// Exponent of Zipf's law over the events; 0: uniform.
    #[serde(default)]
    pub zipf: f64,
}

impl EventSetup {
    /// Relative shares of the events by Zipf's law: the k-th, counted from 1, has the weight `k^-s`.
    pub fn weights(&self) -> impl Iterator<Item = f64> {
        let exponent = self.zipf;
        (1..=self.count).map(move |k| f64::from(k).powf(-exponent))
    }
}

/// A number, or "auto": derived from the offered load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoCount {
    #[default]
    Auto,
    Fixed(u32),
}

impl<'de> Deserialize<'de> for AutoCount {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "must be a number or \"auto\"")]
        enum CountOrAuto {
            Number(u32),
            Word(String),
        }
        match CountOrAuto::deserialize(from)? {
            CountOrAuto::Number(number) => Ok(Self::Fixed(number)),
            CountOrAuto::Word(word) if word == "auto" => Ok(Self::Auto),
            CountOrAuto::Word(word) => {
                Err(serde::de::Error::custom(format!("{word:?} must be a number or \"auto\"")))
            }
        }
    }
}

/// Shares of the calls in percent; the sum is 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CallMix {
    pub check: f64,
    pub hold: f64,
    /// Commits of holds that this run placed.
    pub commit: f64,
    /// Commits without a hold.
    pub direct_commit: f64,
    /// Releases of holds that this run placed.
    pub release: f64,
}

impl CallMix {
    pub fn share(&self, method: CallMethod) -> f64 {
        match method {
            CallMethod::Check => self.check,
            CallMethod::Hold => self.hold,
            CallMethod::Commit => self.commit,
            CallMethod::DirectCommit => self.direct_commit,
            CallMethod::Release => self.release,
        }
    }

    /// Whether stock may be returned during the run.
    pub fn returns_stock(&self) -> bool {
        self.hold > 0.0 || self.release > 0.0
    }
}

/// Reservation calls that are repeated with the same content.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Duplicates {
    /// In percent of all calls, in addition to them.
    pub percent: f64,
    pub when: RepeatTiming,
    /// On a different connection, if there is one.
    pub other_connection: bool,
}

impl Default for Duplicates {
    fn default() -> Self {
        Self { percent: 0.0, when: RepeatTiming::Mixed, other_connection: true }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepeatTiming {
    /// At the same time.
    Immediately,
    /// 0.1 to 2 seconds later.
    Later,
    /// Half and half.
    Mixed,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeatSelection {
    pub pick: SeatPick,
    /// For `exact`: mean distance of the picked seat from the front, in seats not known to be taken
    /// (exponential distribution).
    #[serde(default = "crowd")]
    pub crowd: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeatPick {
    /// By seat ids, preferring the front rows.
    Exact,
    /// By quantity: the server picks the seats.
    Best,
}

fn one() -> u64 {
    1
}
fn one_event() -> u32 {
    1
}
fn eight() -> usize {
    8
}
fn poisson() -> ArrivalSpacing {
    ArrivalSpacing::Poisson
}
fn in_flight() -> usize {
    limits::IN_FLIGHT_DEFAULT
}
fn deadline() -> u64 {
    5_000
}
fn crowd() -> f64 {
    50.0
}

/// Why a scenario is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    #[error("{}: {why}", path.display())]
    File { path: PathBuf, why: String },
    #[error("{key} is {given}: must be {want}")]
    Value { key: &'static str, given: String, want: String },
}

/// Values of the command line that replace those of the file.
#[derive(Clone, Debug, Default)]
pub struct ScenarioOverrides {
    pub rate: Option<f64>,
    /// Seconds of the measured part; a curve is scaled to it.
    pub duration: Option<f64>,
    pub warmup: Option<f64>,
    pub connections: Option<usize>,
    pub seed: Option<u64>,
    pub event_prefix: Option<String>,
    pub stripes: Option<u32>,
    pub in_flight: Option<usize>,
}

impl Scenario {
    /// Reads a file, applies `overrides`, and checks the result.
    ///
    /// # Errors
    /// An unreadable file, an unknown key, or an invalid value.
    pub fn load(path: &Path, overrides: &ScenarioOverrides) -> Result<Self, ScenarioError> {
        let failed = |why: String| ScenarioError::File { path: path.to_owned(), why };
        let size = std::fs::metadata(path).map_err(|e| failed(e.to_string()))?.len();
        if size > limits::SCENARIO_BYTES_MAX {
            let max = limits::SCENARIO_BYTES_MAX;
            return Err(failed(format!("{size} bytes long: must be at most {max}")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
        let mut scenario = Self::parse(&text).map_err(failed)?;
        scenario.apply(overrides);
        scenario.check()?;
        Ok(scenario)
    }

    /// Parses the text of a file. The caller must call [`Scenario::check`].
    ///
    /// # Errors
    /// Invalid TOML, an unknown key, or a value of the wrong type, with its line.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    fn apply(&mut self, overrides: &ScenarioOverrides) {
        let ScenarioOverrides {
            rate,
            duration,
            warmup,
            connections,
            seed,
            event_prefix,
            stripes,
            in_flight,
        } = overrides.clone();
        if let Some(seconds) = duration {
            let whole: f64 = self.curve.iter().map(|step| step.seconds).sum();
            match self.curve.is_empty() {
                true => self.duration = Some(seconds),
                false => self.curve.iter_mut().for_each(|step| step.seconds *= seconds / whole),
            }
        }
        self.rate = rate.unwrap_or(self.rate);
        self.warmup = warmup.unwrap_or(self.warmup);
        self.connections = connections.unwrap_or(self.connections);
        self.seed = seed.unwrap_or(self.seed);
        self.in_flight = in_flight.unwrap_or(self.in_flight);
        if let Some(prefix) = event_prefix {
            self.events.prefix = prefix;
        }
        if let Some(stripes) = stripes {
            self.events.stripes = AutoCount::Fixed(stripes);
        }
    }

    /// The rate curve of the measured part.
    pub fn measured(&self) -> RateCurve {
        let constant = |seconds, rate| RateSegment { seconds, from: rate, to: rate };
        let segments = match self.curve.as_slice() {
            [] => vec![constant(self.duration.unwrap_or(0.0), self.rate)],
            steps => steps
                .iter()
                .map(|step| RateSegment {
                    seconds: step.seconds,
                    from: step.times.or(step.from).unwrap_or(0.0) * self.rate,
                    to: step.times.or(step.to).unwrap_or(0.0) * self.rate,
                })
                .collect(),
        };
        RateCurve::new(segments)
    }

    /// The rate curve of the whole run: warm-up and measured part.
    pub fn whole(&self) -> RateCurve {
        let measured = self.measured();
        let first = measured.segments().first().map_or(0.0, |segment| segment.from);
        let half = self.warmup / 2.0;
        let mut segments = Vec::new();
        if self.warmup > 0.0 {
            segments.push(RateSegment { seconds: half, from: 0.0, to: first });
            segments.push(RateSegment { seconds: half, from: first, to: first });
        }
        segments.extend_from_slice(measured.segments());
        RateCurve::new(segments)
    }

    /// Maximum number of calls in a closed loop.
    pub fn call_limit(&self) -> usize {
        self.calls.unwrap_or(limits::CALLS_MAX as usize)
    }

    /// Expected number of calls of an open loop; 0 for a closed loop without `calls`.
    pub fn expected_calls(&self) -> f64 {
        match self.users {
            None => self.whole().calls(),
            Some(_) => self.calls.unwrap_or(0) as f64,
        }
    }

    /// Time within which the server must answer a call.
    pub fn deadline(&self) -> Duration {
        match self.deadline_ms {
            0 => limits::DEADLINE_MAX,
            ms => Duration::from_millis(ms),
        }
    }

    pub fn is_seated(&self) -> bool {
        self.events.seats.is_some()
    }

    /// Reservations per second of the hottest event at the peak.
    fn hottest_sales(&self) -> f64 {
        let takes = self.mix.hold + self.mix.direct_commit;
        // The weight of the first event is 1.
        let share = 1.0 / self.events.weights().sum::<f64>();
        self.measured().peak() * takes / 100.0 * share
    }

    /// Stripes of each created event; 0: chosen by the server.
    pub fn stripes(&self) -> u32 {
        match self.events.stripes {
            // At most one stripe per unit.
            AutoCount::Fixed(stripes) => {
                let stock = self.events.stock.unwrap_or(1);
                stripes.min(u32::try_from(stock).unwrap_or(u32::MAX))
            }
            AutoCount::Auto => 0,
        }
    }

    /// Number of partition keys for the seats of each event.
    pub fn seat_keys(&self) -> u32 {
        match self.events.seat_keys {
            AutoCount::Fixed(keys) => keys,
            AutoCount::Auto => {
                let keys = (self.hottest_sales() / limits::HOLDS_PER_SEAT_KEY).ceil();
                (keys as u32).clamp(1, limits::STRIPES_MAX)
            }
        }
    }
}

#[cfg(test)]
mod tests;
