//! Shapes of the load: connections and calls in flight, the metric to compare, and its bound.

use std::fmt;
use std::str::FromStr;

/// Bound of the CPU time per request, server to baseline: 50 connections × 100 calls in flight.
const CPU_RATIO_WIDE_MAX: f64 = 0.5;
/// The same with fewer calls per write: 10 × 10.
const CPU_RATIO_NARROW_MAX: f64 = 0.75;
/// Bound of the median latency of a single request, server to baseline: 1 × 1.
const LATENCY_RATIO_SINGLE_MAX: f64 = 1.2;

/// Above this h2load is the limit.
const EACH_MAX: u32 = 1_000;

/// Connections × calls in flight on each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoadShape {
    pub(crate) connections: u32,
    pub(crate) streams: u32,
}

/// The metric that a shape compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    /// CPU time of the server per request.
    Cpu,
    /// Median latency of a call.
    Latency,
}

/// Shapes that are measured by default.
pub(crate) const DEFAULT_SHAPES: [LoadShape; 3] = [
    LoadShape { connections: 50, streams: 100 },
    LoadShape { connections: 10, streams: 10 },
    LoadShape { connections: 1, streams: 1 },
];

impl LoadShape {
    /// With several calls in flight the latency measures the queue; only that of a single call measures the
    /// server.
    pub(crate) fn metric(self) -> Metric {
        match (self.connections, self.streams) {
            (1, 1) => Metric::Latency,
            _ => Metric::Cpu,
        }
    }

    /// The bound of a default shape; other shapes have none.
    pub(crate) fn max_ratio(self) -> Option<f64> {
        match (self.connections, self.streams) {
            (50, 100) => Some(CPU_RATIO_WIDE_MAX),
            (10, 10) => Some(CPU_RATIO_NARROW_MAX),
            (1, 1) => Some(LATENCY_RATIO_SINGLE_MAX),
            _ => None,
        }
    }

    /// Calls per round. CPU time is counted in steps of 10 ms: these calls use at least half a second of it.
    pub(crate) fn requests(self) -> u64 {
        match u64::from(self.connections) * u64::from(self.streams) {
            0..10 => 10_000,
            10..1_000 => 100_000,
            _ => 150_000,
        }
    }
}

impl fmt::Display for LoadShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.connections, self.streams)
    }
}

impl FromStr for LoadShape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let part = |text: &str| {
            let part = text.parse().ok();
            part.filter(|n| (1..=EACH_MAX).contains(n))
        };
        text.split_once(['x', '×'])
            .and_then(|(connections, streams)| {
                Some(Self { connections: part(connections)?, streams: part(streams)? })
            })
            .ok_or_else(|| {
                format!("must be CONNECTIONSxSTREAMS, each 1 to {EACH_MAX}, such as 50x100")
            })
    }
}

/// Parses a value for one shape, such as `50x100=0.6`.
pub(crate) fn parse_for_shape<T: FromStr>(text: &str) -> Result<(LoadShape, T), String> {
    let (shape, value) = text
        .split_once('=')
        .ok_or_else(|| "must be SHAPE=NUMBER, such as 50x100=0.6".to_owned())?;
    let value =
        value.parse().map_err(|_| format!("{value:?} is not a number: must be SHAPE=NUMBER"))?;
    Ok((shape.parse()?, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_round_trip() {
        for shape in DEFAULT_SHAPES {
            assert_eq!(shape.to_string().parse(), Ok(shape));
            assert!(shape.max_ratio().is_some());
        }
        for bad in ["", "50", "0x1", "1x1001", "ax1", "1x1x1"] {
            assert!(LoadShape::from_str(bad).is_err(), "{bad}");
        }
        let (shape, ratio): (LoadShape, f64) = parse_for_shape("1x1=1.5").unwrap();
        assert_eq!((shape, ratio), (DEFAULT_SHAPES[2], 1.5));
        assert!(parse_for_shape::<f64>("1x1").is_err());
        assert!(parse_for_shape::<u64>("1x1=many").is_err());
    }
}
