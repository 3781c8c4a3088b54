//! Ratios round by round, and the table of one shape.

use std::fmt::Write;

use crate::shape::{Measure, Shape};

/// One server's part of one round, for one request, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) user_us: f64,
    pub(crate) system_us: f64,
    /// The median time of a call; only where that is measured.
    pub(crate) latency_us: Option<f64>,
    pub(crate) requests_per_second: f64,
}

impl Sample {
    fn cpu_us(&self) -> f64 {
        self.user_us + self.system_us
    }

    fn measured(&self, measure: Measure) -> f64 {
        match measure {
            Measure::Cpu => self.cpu_us(),
            Measure::Latency => self.latency_us.unwrap_or(f64::NAN),
        }
    }
}

/// All rounds of one server, in the order they were played.
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) rounds: Vec<Sample>,
}

/// What one shape came to. Each ratio is that of one round, in which all servers met the same moment
/// of the machine; the verdict is on the median of them.
pub(crate) struct Report<'a> {
    pub(crate) shape: Shape,
    pub(crate) requests: u64,
    pub(crate) server: &'a Column,
    pub(crate) twins: Vec<&'a Column>,
    pub(crate) max_ratio: Option<f64>,
}

impl Report<'_> {
    /// Of the server to one twin, round by round.
    fn ratios(&self, twin: &Column) -> Vec<f64> {
        let measure = self.shape.measure();
        let rounds = self.server.rounds.iter().zip(&twin.rounds);
        rounds
            .map(|(server, twin)| server.measured(measure) / twin.measured(measure))
            .collect()
    }

    /// Whether the bound is kept against every twin; true where there is none.
    pub(crate) fn is_kept(&self) -> bool {
        let kept = |max: f64| {
            // A ratio that could not be had is not within anything.
            let within = |twin: &&Column| median(&self.ratios(twin)) <= max;
            !self.twins.is_empty() && self.twins.iter().all(within)
        };
        self.max_ratio.is_none_or(kept)
    }

    /// The table and what it says.
    pub(crate) fn text(&self) -> String {
        let (what, unit) = match self.shape.measure() {
            Measure::Cpu => ("server CPU per request", "CPU µs"),
            Measure::Latency => ("median time of a lone request", "p50 µs"),
        };
        let Shape {
            connections,
            streams,
        } = self.shape;
        let mut text = format!(
            "{connections} connections × {streams} streams: {what}; {} requests a round, {} rounds\n",
            self.requests,
            self.server.rounds.len()
        );
        let head = ["user µs", "sys µs", "CPU µs", "p50 µs"];
        // Writing to a String cannot fail.
        let _ = write!(text, "{:<22}", "");
        for column in head {
            let mark = if column == unit { "*" } else { "" };
            let _ = write!(text, "{:>9}", format!("{mark}{column}"));
        }
        let _ = writeln!(text, "{:>12}{:>24}", "requests/s", "server is (by round)");
        for column in std::iter::once(&self.server).chain(&self.twins) {
            let of = |of: fn(&Sample) -> f64| {
                let values: Vec<f64> = column.rounds.iter().map(of).collect();
                median(&values)
            };
            let latency = of(|sample| sample.latency_us.unwrap_or(f64::NAN));
            let latency = match latency.is_nan() {
                true => "–".to_owned(),
                false => format!("{latency:.0}"),
            };
            let _ = write!(
                text,
                "{:<22}{:>9.2}{:>9.2}{:>9.2}{latency:>9}{:>12.0}",
                column.name,
                of(|sample| sample.user_us),
                of(|sample| sample.system_us),
                of(Sample::cpu_us),
                of(|sample| sample.requests_per_second),
            );
            if !std::ptr::eq(*column, self.server) {
                let ratios = self.ratios(column);
                let lowest = ratios.iter().copied().fold(f64::INFINITY, f64::min);
                let highest = ratios.iter().copied().fold(0.0, f64::max);
                let ratio = median(&ratios);
                let range = format!("{ratio:.2}  {lowest:.2}–{highest:.2}");
                let _ = write!(text, "{range:>24}");
            }
            text.push('\n');
        }
        for twin in &self.twins {
            let ratio = median(&self.ratios(twin));
            let name = twin.name;
            let _ = match self.max_ratio {
                None => continue,
                Some(max) if ratio <= max => {
                    writeln!(text, "kept: {ratio:.3} of the {name}, at most {max}")
                }
                Some(max) => writeln!(text, "MISSED: {ratio:.3} of the {name}, at most {max}"),
            };
        }
        text
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::USUAL;

    fn column(name: &'static str, cpu: &[f64]) -> Column {
        let sample = |user_us: &f64| Sample {
            user_us: *user_us,
            system_us: 0.0,
            latency_us: Some(user_us * 10.0),
            requests_per_second: 1.0,
        };
        Column {
            name,
            rounds: cpu.iter().map(sample).collect(),
        }
    }

    #[test]
    fn the_ratio_is_of_each_round_and_not_of_medians() {
        // The machine got slower by the round: the medians alone would say 6 / 12.
        let server = column("server", &[2.0, 6.0, 30.0]);
        let twin = column("twin", &[4.0, 12.0, 40.0]);
        let slow = column("slow twin", &[40.0, 10.0, 40.0]);
        let mut report = Report {
            shape: USUAL[0],
            requests: 1,
            server: &server,
            twins: vec![&twin],
            max_ratio: Some(0.5),
        };
        assert!(report.is_kept(), "{}", report.text());
        report.twins.push(&slow);
        // 0.05, 0.6, 0.75
        assert!(!report.is_kept(), "{}", report.text());
        assert!(report.text().contains("MISSED: 0.600 of the slow twin"));
        report.max_ratio = Some(0.6);
        assert!(report.is_kept());
        report.max_ratio = None;
        assert!(report.is_kept());
    }

    #[test]
    fn what_was_not_measured_is_within_no_bound() {
        let mut server = column("server", &[2.0]);
        server.rounds[0].latency_us = None;
        let twin = column("twin", &[4.0]);
        let mut report = Report {
            shape: USUAL[2],
            requests: 1,
            server: &server,
            twins: vec![&twin],
            max_ratio: Some(1.2),
        };
        assert!(!report.is_kept());
        report.twins.clear();
        assert!(!report.is_kept());
    }

    #[test]
    fn medians() {
        assert!(median(&[]).is_nan());
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
    }
}
