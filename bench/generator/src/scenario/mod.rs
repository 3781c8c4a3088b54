//! What is played: a TOML file, checked key by key.
//!
//! [`Scenario`] is what the file says; `check.rs` refuses what cannot be played and names the key;
//! the methods here derive what follows from it. Every key, with what it means, is below.

mod check;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::limits;
use crate::outcome::Method;
use crate::schedule::{Curve, Piece, Spacing};
use crate::zipf::Zipf;

/// A scenario file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// For people.
    pub title: String,
    #[serde(default)]
    pub contract: Contract,
    #[serde(default = "one")]
    pub seed: u64,
    /// Calls per second, all methods together; repeats come on top.
    pub rate: f64,
    #[serde(default = "poisson")]
    pub spacing: Spacing,
    /// Seconds at the constant rate; only without `curve`.
    pub duration: Option<f64>,
    /// Steps and ramps, as factors of `rate`.
    #[serde(default)]
    pub curve: Vec<Step>,
    /// Seconds before the measured part: half of it a ramp up to the first rate, half at that rate.
    #[serde(default)]
    pub warmup: f64,
    #[serde(default = "eight")]
    pub connections: usize,
    /// Calls in flight over all connections.
    #[serde(default = "in_flight")]
    pub in_flight: usize,
    /// Milliseconds that travel with each call as `grpc-timeout`; 0: none.
    #[serde(default = "deadline")]
    pub deadline_ms: u64,
    /// Seconds that a hold asks for; 0: the server's default.
    #[serde(default)]
    pub hold_seconds: u64,
    #[serde(default)]
    pub qty: Qty,
    pub events: Events,
    pub mix: Mix,
    #[serde(default)]
    pub duplicates: Duplicates,
    pub seats: Option<Seats>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Contract {
    /// `inventory.v1.Inventory`.
    #[default]
    A,
    /// `reservation.v1.InventoryService`.
    B,
}

/// A part of the rate curve. `times` for a constant rate, or `from` and `to` for a ramp.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub seconds: f64,
    pub times: Option<f64>,
    pub from: Option<f64>,
    pub to: Option<f64>,
}

/// Units of one reservation, drawn evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Qty {
    pub min: u32,
    pub max: u32,
}

impl Default for Qty {
    fn default() -> Self {
        Self { min: 1, max: 1 }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    #[serde(default = "one_event")]
    pub count: u32,
    /// Ids are `PREFIX_0`, `PREFIX_1`, …; of events that the generator creates, `PREFIX_RUN_0`, ….
    pub prefix: String,
    /// Units of each event.
    pub stock: Option<u64>,
    /// Seats of each event, instead of `stock`.
    pub seats: Option<u64>,
    #[serde(default)]
    pub stripes: Count,
    #[serde(default)]
    pub seat_keys: Count,
    /// 0: every event alike.
    #[serde(default)]
    pub zipf: f64,
}

/// A number, or as many as the offered load asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Count {
    #[default]
    Auto,
    Of(u32),
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "want a number, or \"auto\"")]
        enum Written {
            Number(u32),
            Word(String),
        }
        match Written::deserialize(from)? {
            Written::Number(number) => Ok(Self::Of(number)),
            Written::Word(word) if word == "auto" => Ok(Self::Auto),
            Written::Word(word) => Err(serde::de::Error::custom(format!(
                "{word:?} is neither a number nor \"auto\""
            ))),
        }
    }
}

/// Parts of the calls, in percent; together 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mix {
    pub check: f64,
    pub hold: f64,
    /// Of a hold that this run placed.
    pub commit: f64,
    /// Without a hold.
    pub direct_commit: f64,
    /// Of a hold that this run placed.
    pub release: f64,
}

impl Mix {
    pub fn share(&self, method: Method) -> f64 {
        match method {
            Method::Check => self.check,
            Method::Hold => self.hold,
            Method::Commit => self.commit,
            Method::DirectCommit => self.direct_commit,
            Method::Release => self.release,
        }
    }

    /// Whether stock can come back while the run goes on.
    pub fn gives_back(&self) -> bool {
        self.hold > 0.0 || self.release > 0.0
    }
}

/// Reservation calls that are sent again, word for word.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Duplicates {
    /// In percent of all calls, and on top of them.
    pub percent: f64,
    pub when: When,
    /// On another connection than the first, if there is one.
    pub other_connection: bool,
}

impl Default for Duplicates {
    fn default() -> Self {
        Self {
            percent: 0.0,
            when: When::Mixed,
            other_connection: true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// In the same moment.
    Immediately,
    /// 0.1 to 2 seconds later.
    Later,
    /// Half and half.
    Mixed,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seats {
    pub pick: Pick,
    /// Of `exact`: how many of the seats that are not known to be taken, from the front row on, the
    /// crowd is after (the mean of an exponential distribution).
    #[serde(default = "crowd")]
    pub crowd: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pick {
    /// By seat ids, everyone wanting the front rows.
    Exact,
    /// By quantity: the server chooses.
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
fn poisson() -> Spacing {
    Spacing::Poisson
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

/// Why a scenario cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    #[error("{}: {why}", path.display())]
    File { path: PathBuf, why: String },
    #[error("{key} is {given}: want {want}")]
    Value {
        key: &'static str,
        given: String,
        want: String,
    },
}

/// What the command line changes.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub rate: Option<f64>,
    /// Seconds of the measured part; a curve is stretched to it.
    pub duration: Option<f64>,
    pub warmup: Option<f64>,
    pub connections: Option<usize>,
    pub seed: Option<u64>,
    pub event_prefix: Option<String>,
    pub stripes: Option<u32>,
    pub in_flight: Option<usize>,
}

impl Scenario {
    /// Reads a file and changes it by `overrides`.
    ///
    /// # Errors
    /// A file that cannot be read, a key that is not known, a value that cannot be played.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self, ScenarioError> {
        let failed = |why: String| ScenarioError::File {
            path: path.to_owned(),
            why,
        };
        let size = std::fs::metadata(path)
            .map_err(|e| failed(e.to_string()))?
            .len();
        if size > limits::SCENARIO_BYTES_MAX {
            let max = limits::SCENARIO_BYTES_MAX;
            return Err(failed(format!("{size} bytes long, want at most {max}")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
        let mut scenario = Self::parse(&text).map_err(failed)?;
        scenario.change(overrides);
        scenario.check()?;
        Ok(scenario)
    }

    /// Reads the text of a file; [`Scenario::check`] is the caller's.
    ///
    /// # Errors
    /// What is no TOML, an unknown key, a value of another type: with its line.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    fn change(&mut self, overrides: &Overrides) {
        let Overrides {
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
                false => self
                    .curve
                    .iter_mut()
                    .for_each(|step| step.seconds *= seconds / whole),
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
            self.events.stripes = Count::Of(stripes);
        }
    }

    /// The measured part.
    pub fn measured(&self) -> Curve {
        let constant = |seconds, rate| Piece {
            seconds,
            from: rate,
            to: rate,
        };
        let pieces = match self.curve.as_slice() {
            [] => vec![constant(self.duration.unwrap_or(0.0), self.rate)],
            steps => steps
                .iter()
                .map(|step| Piece {
                    seconds: step.seconds,
                    from: step.times.or(step.from).unwrap_or(0.0) * self.rate,
                    to: step.times.or(step.to).unwrap_or(0.0) * self.rate,
                })
                .collect(),
        };
        Curve::new(pieces)
    }

    /// The whole run: warm-up and measured part.
    pub fn whole(&self) -> Curve {
        let measured = self.measured();
        let first = measured.pieces().first().map_or(0.0, |piece| piece.from);
        let half = self.warmup / 2.0;
        let mut pieces = Vec::new();
        if self.warmup > 0.0 {
            pieces.push(Piece {
                seconds: half,
                from: 0.0,
                to: first,
            });
            pieces.push(Piece {
                seconds: half,
                from: first,
                to: first,
            });
        }
        pieces.extend_from_slice(measured.pieces());
        Curve::new(pieces)
    }

    /// What each call may take before the server should have answered.
    pub fn deadline(&self) -> Duration {
        match self.deadline_ms {
            0 => limits::DEADLINE_MAX,
            ms => Duration::from_millis(ms),
        }
    }

    pub fn is_seated(&self) -> bool {
        self.events.seats.is_some()
    }

    /// Of each event: how many of the calls take stock, per second at the peak, of the hottest event.
    fn hottest_sales(&self) -> f64 {
        let takes = self.mix.hold + self.mix.direct_commit;
        let share = Zipf::new(self.events.count, self.events.zipf).share(0);
        self.measured().peak() * takes / 100.0 * share
    }

    /// Stripes that each event is created with; 0: as many as the server chooses.
    pub fn stripes(&self) -> u32 {
        match self.events.stripes {
            // Not more than units.
            Count::Of(stripes) => {
                let stock = self.events.stock.unwrap_or(1);
                stripes.min(u32::try_from(stock).unwrap_or(u32::MAX))
            }
            Count::Auto => 0,
        }
    }

    /// Keys that the seats of each event are spread over.
    pub fn seat_keys(&self) -> u32 {
        match self.events.seat_keys {
            Count::Of(keys) => keys,
            Count::Auto => enough(self.hottest_sales(), limits::HOLDS_PER_SEAT_KEY),
        }
    }
}

fn enough(load: f64, each: f64) -> u32 {
    ((load / each).ceil() as u32).clamp(1, limits::STRIPES_MAX)
}

#[cfg(test)]
mod tests;
