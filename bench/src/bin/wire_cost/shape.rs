//! What a round looks like, what is compared in it, and how bad that may be.

use std::fmt;
use std::str::FromStr;

/// CPU of the server for one request, against the twin's: 50 connections × 100 calls in flight.
pub(crate) const CPU_RATIO_WIDE_MAX: f64 = 0.5;
/// The same with little to bundle: 10 × 10.
pub(crate) const CPU_RATIO_NARROW_MAX: f64 = 0.75;
/// The median time of a lone request, against the twin's: 1 × 1.
pub(crate) const LATENCY_RATIO_LONE_MAX: f64 = 1.2;

/// Beyond this h2load itself is what is measured.
const EACH_MAX: u32 = 1_000;

/// Connections × calls in flight on each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) connections: u32,
    pub(crate) streams: u32,
}

/// What a shape is there to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// The server's CPU time for one request.
    Cpu,
    /// The median time of a call.
    Latency,
}

/// The shapes that are measured without being asked for.
pub(crate) const USUAL: [Shape; 3] = [
    Shape {
        connections: 50,
        streams: 100,
    },
    Shape {
        connections: 10,
        streams: 10,
    },
    Shape {
        connections: 1,
        streams: 1,
    },
];

impl Shape {
    /// Where calls wait for each other their time says how long the queue is: only that of a lone
    /// one says something of the server.
    pub(crate) fn measure(self) -> Measure {
        match (self.connections, self.streams) {
            (1, 1) => Measure::Latency,
            _ => Measure::Cpu,
        }
    }

    /// The bound of the usual shapes; others have none of their own.
    pub(crate) fn max_ratio(self) -> Option<f64> {
        match (self.connections, self.streams) {
            (50, 100) => Some(CPU_RATIO_WIDE_MAX),
            (10, 10) => Some(CPU_RATIO_NARROW_MAX),
            (1, 1) => Some(LATENCY_RATIO_LONE_MAX),
            _ => None,
        }
    }

    /// Calls of a round. CPU time is counted in steps of 10 ms: these take half a second of it, and a
    /// lone call some 100 µs of everybody's time.
    pub(crate) fn requests(self) -> u64 {
        match u64::from(self.connections) * u64::from(self.streams) {
            0..10 => 10_000,
            10..1_000 => 100_000,
            _ => 150_000,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.connections, self.streams)
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let part = |text: &str| {
            let part = text.parse().ok();
            part.filter(|n| (1..=EACH_MAX).contains(n))
        };
        text.split_once(['x', '×'])
            .and_then(|(connections, streams)| {
                Some(Self {
                    connections: part(connections)?,
                    streams: part(streams)?,
                })
            })
            .ok_or_else(|| format!("want CONNECTIONSxSTREAMS, each 1 to {EACH_MAX}, like 50x100"))
    }
}

/// `50x100=0.6`: something of one shape.
pub(crate) fn of_shape<T: FromStr>(text: &str) -> Result<(Shape, T), String> {
    let (shape, value) = text
        .split_once('=')
        .ok_or_else(|| "want SHAPE=NUMBER, like 50x100=0.6".to_owned())?;
    let value = value
        .parse()
        .map_err(|_| format!("{value:?} is no number; want SHAPE=NUMBER"))?;
    Ok((shape.parse()?, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_as_they_are_shown() {
        for shape in USUAL {
            assert_eq!(shape.to_string().parse(), Ok(shape));
            assert!(shape.max_ratio().is_some());
        }
        for bad in ["", "50", "0x1", "1x1001", "ax1", "1x1x1"] {
            assert!(Shape::from_str(bad).is_err(), "{bad}");
        }
        let (shape, ratio): (Shape, f64) = of_shape("1x1=1.5").unwrap();
        assert_eq!((shape, ratio), (USUAL[2], 1.5));
        assert!(of_shape::<f64>("1x1").is_err());
        assert!(of_shape::<u64>("1x1=many").is_err());
    }
}
