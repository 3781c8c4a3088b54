//! Kinds of values: how each is parsed and described.
//!
//! One definition serves both, so that help and parser cannot disagree.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::cpus::ShardSpec;
use super::duration::{DefaultUnit, format_span, parse_span};
use crate::limits;
use crate::telemetry::log::LogLevel;
use inventory_core::rules::LateCommit;
use inventory_tls::names::{self, NamePattern};

/// A kind of value. A parse error has the problem of the text; [`ValueKind::expected`] describes valid texts and is added
/// by the reader.
pub(crate) trait ValueKind: Sync {
    type Value;

    /// A value as messages show it; `None`: not at all, because it may be a secret.
    fn shown(&self, text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    /// # Errors
    /// The problem of `text`, as the end of a sentence that begins with the value.
    fn parse(&self, text: &str) -> Result<Self::Value, String>;

    /// Description of valid values, with units and bounds.
    fn expected(&self) -> String;
}

/// A TCP port; 0 selects a free one.
pub(crate) struct PortKind;

impl ValueKind for PortKind {
    type Value = u16;

    fn parse(&self, text: &str) -> Result<u16, String> {
        Ok(whole_number(text, 0, u64::from(u16::MAX))? as u16)
    }

    fn expected(&self) -> String {
        "a port, 0 to 65535 (0 takes a free one)".to_owned()
    }
}

/// A TCP port, or `off`.
pub(crate) struct OptionalPortKind;

impl ValueKind for OptionalPortKind {
    type Value = Option<u16>;

    fn parse(&self, text: &str) -> Result<Option<u16>, String> {
        if text.eq_ignore_ascii_case("off") {
            return Ok(None);
        }
        PortKind.parse(text).map(Some)
    }

    fn expected(&self) -> String {
        "a port, 0 to 65535 (0 takes a free one), or off".to_owned()
    }
}

/// An IP address to listen on.
pub(crate) struct AddressKind;

impl ValueKind for AddressKind {
    type Value = IpAddr;

    fn parse(&self, text: &str) -> Result<IpAddr, String> {
        text.parse().map_err(|_| "is not an IP address".to_owned())
    }

    fn expected(&self) -> String {
        "an IP address of this machine (:: for all, 0.0.0.0 for all of IPv4)".to_owned()
    }
}

/// An integer within bounds.
pub(crate) struct CountKind {
    pub(crate) min: u64,
    pub(crate) max: u64,
}

impl ValueKind for CountKind {
    type Value = u64;

    fn parse(&self, text: &str) -> Result<u64, String> {
        whole_number(text, self.min, self.max)
    }

    fn expected(&self) -> String {
        format!("a number, {} to {}", self.min, self.max)
    }
}

/// A duration within bounds, with a unit.
pub(crate) struct DurationKind {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
    /// Meaning of zero, if zero is allowed below `min`.
    pub(crate) zero: Option<&'static str>,
    /// Unit of a number without a unit.
    pub(crate) bare: DefaultUnit,
}

impl ValueKind for DurationKind {
    type Value = Duration;

    fn parse(&self, text: &str) -> Result<Duration, String> {
        let span = parse_span(text, self.bare)?;
        if span.is_zero() && self.zero.is_some() {
            return Ok(span);
        }
        if span < self.min {
            return Err(format!("is below {}", format_span(self.min)));
        }
        if span > self.max {
            return Err(format!("is above {}", format_span(self.max)));
        }
        Ok(span)
    }

    fn expected(&self) -> String {
        let (min, max) = (format_span(self.min), format_span(self.max));
        let bare = match self.bare {
            DefaultUnit::Seconds => "seconds, or a duration with a unit",
            DefaultUnit::Millis => "milliseconds, or a duration with a unit",
            DefaultUnit::Refused => "a duration with a unit",
        };
        let zero = match self.zero {
            Some(meaning) if self.min.is_zero() => format!(" (0: {meaning})"),
            Some(meaning) => format!(", or 0 ({meaning})"),
            None => String::new(),
        };
        format!("{bare}, {min} to {max}{zero}")
    }
}

/// A text with bounds on its length and characters.
pub(crate) struct TextKind {
    /// Its description with an article: "a table name".
    pub(crate) what: &'static str,
    pub(crate) min: usize,
    pub(crate) max: usize,
    /// The allowed characters, in the notation of regular expressions.
    pub(crate) alphabet: &'static str,
    pub(crate) allows: fn(char) -> bool,
}

impl ValueKind for TextKind {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, String> {
        if text.len() < self.min {
            return Err(format!("is shorter than {} bytes", self.min));
        }
        if text.len() > self.max {
            return Err(format!("has {} bytes", text.len()));
        }
        match text.chars().find(|c| !(self.allows)(*c)) {
            Some(bad) => Err(format!("has {bad:?} in it")),
            None => Ok(text.to_owned()),
        }
    }

    fn expected(&self) -> String {
        format!("{}, {} to {} bytes of {}", self.what, self.min, self.max, self.alphabet)
    }
}

/// Another kind; an empty or unset variable means no value.
pub(crate) struct OptionalKind<K>(pub K);

impl<K: ValueKind> ValueKind for OptionalKind<K> {
    type Value = Option<K::Value>;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        if text.is_empty() {
            return Ok(None);
        }
        self.0.parse(text).map(Some)
    }

    fn expected(&self) -> String {
        format!("{}, or nothing", self.0.expected())
    }
}

/// Path of a file with tokens.
pub(crate) struct TokenFileKind;

impl ValueKind for TokenFileKind {
    type Value = Option<PathBuf>;

    fn parse(&self, text: &str) -> Result<Option<PathBuf>, String> {
        Ok((!text.is_empty()).then(|| PathBuf::from(text)))
    }

    fn expected(&self) -> String {
        "a file with one token per line, or nothing".to_owned()
    }
}

/// Patterns of names in client certificates.
pub(crate) struct NamePatternsKind;

impl ValueKind for NamePatternsKind {
    type Value = Vec<NamePattern>;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        if text.len() > limits::TLS_ALLOWED_CLIENTS_BYTES_MAX {
            return Err(format!("has {} bytes", text.len()));
        }
        names::parse_patterns(text)
    }

    fn expected(&self) -> String {
        format!(
            "up to {} DNS names and URIs, separated by commas (* within a label or path segment), or nothing",
            names::PATTERNS_MAX
        )
    }
}

/// One of a few words, case-insensitive.
pub(crate) struct KeywordKind<T: 'static> {
    /// Description of a word with an article: "a level".
    pub(crate) what: &'static str,
    /// Each word, its meaning if it needs one, and its value.
    pub(crate) words: &'static [(&'static str, &'static str, T)],
}

impl<T: Copy + Sync> ValueKind for KeywordKind<T> {
    type Value = T;

    fn parse(&self, text: &str) -> Result<T, String> {
        let mut words = self.words.iter();
        let found = words.find(|(word, ..)| text.eq_ignore_ascii_case(word));
        found.map(|(.., value)| *value).ok_or_else(|| format!("is not {}", self.what))
    }

    fn expected(&self) -> String {
        let word = |(word, meaning, _): &(&str, &str, T)| match *meaning {
            "" => (*word).to_owned(),
            meaning => format!("{word} ({meaning})"),
        };
        match &self.words.iter().map(word).collect::<Vec<_>>()[..] {
            [one, other] => format!("{one} or {other}"),
            words => format!("one of {}", words.join(", ")),
        }
    }
}

pub(crate) const LOG_LEVELS: KeywordKind<LogLevel> = KeywordKind {
    what: "a level",
    words: &[
        ("error", "", LogLevel::Error),
        ("warn", "", LogLevel::Warn),
        ("info", "", LogLevel::Info),
        ("debug", "", LogLevel::Debug),
    ],
};

pub(crate) const LATE_COMMIT_POLICIES: KeywordKind<LateCommit> = KeywordKind {
    what: "a policy",
    words: &[
        ("reacquire", "confirmed if its stock is available", LateCommit::Reacquire),
        ("reject", "", LateCommit::Reject),
    ],
};

/// A fraction from 0 to 1.
pub(crate) struct RatioKind;

impl ValueKind for RatioKind {
    type Value = f64;

    fn parse(&self, text: &str) -> Result<f64, String> {
        let ratio: f64 = text.parse().map_err(|_| "is no number".to_owned())?;
        match (0.0..=1.0).contains(&ratio) {
            true => Ok(ratio),
            false => Err("is not between 0 and 1".to_owned()),
        }
    }

    fn expected(&self) -> String {
        "a number, 0 to 1".to_owned()
    }
}

/// The CPUs that get a shard; resolved against the machine later.
pub(crate) struct ShardsKind;

impl ValueKind for ShardsKind {
    type Value = ShardSpec;

    fn parse(&self, text: &str) -> Result<ShardSpec, String> {
        text.parse()
    }

    fn expected(&self) -> String {
        "all, a number of shards, or a range of CPUs a..b (b not included)".to_owned()
    }
}

/// How the server processes of one store find each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MembershipMode {
    /// By beats in the store.
    Store,
    /// The process takes itself to be alone.
    Off,
    /// Process `index`, from 0, of `count`.
    Static { index: u16, count: u16 },
}

/// A [`MembershipMode`], case-insensitive.
pub(crate) struct MembershipKind;

impl ValueKind for MembershipKind {
    type Value = MembershipMode;

    fn parse(&self, text: &str) -> Result<MembershipMode, String> {
        let text = text.to_ascii_lowercase();
        let Some(place) = text.strip_prefix("static:") else {
            return match text.as_str() {
                "store" => Ok(MembershipMode::Store),
                "off" => Ok(MembershipMode::Off),
                _ => Err("is none of store, off and static:i/n".to_owned()),
            };
        };
        let (index, count) = place.split_once('/').ok_or("has no / after static:")?;
        let count = whole_number(count, 1, limits::MEMBERS_MAX as u64)
            .map_err(|why| format!("has a number of processes that {why}"))?;
        let index = whole_number(index, 0, count - 1)
            .map_err(|why| format!("has a process number that {why}"))?;
        Ok(MembershipMode::Static { index: index as u16, count: count as u16 })
    }

    fn expected(&self) -> String {
        format!(
            "store (found through the store), off (alone), or static:i/n (process i of n, from 0; n up to {})",
            limits::MEMBERS_MAX
        )
    }
}

/// Parses digits only: no sign, no separators, no fraction.
fn whole_number(text: &str, min: u64, max: u64) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err("is not a whole number".to_owned());
    }
    // The only possible error is a number too large for u64, which is above any `max`.
    match text.parse::<u64>() {
        Ok(number) if number < min => Err(format!("is below {min}")),
        Ok(number) if number <= max => Ok(number),
        _ => Err(format!("is above {max}")),
    }
}
