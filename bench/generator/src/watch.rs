//! CPU and memory of the processes that are measured, from `/proc`.

use std::io;
use std::time::Duration;

use inventory_process::{CpuTime, resident_bytes};
use serde::Serialize;

/// Processes that are one thing: a server, a store.
#[derive(Clone, Debug)]
pub struct Group {
    pub name: &'static str,
    pub pids: Vec<u32>,
    samples: Vec<Sample>,
}

/// A group at one instant.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// Seconds since the start of the run.
    pub at: f64,
    /// CPU time since the processes began.
    #[serde(skip)]
    pub cpu: Duration,
    pub rss_bytes: u64,
    /// Cores in use since the sample before.
    pub cores: f64,
}

/// What a group used in a part of the run.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Used {
    pub seconds: f64,
    pub cpu_seconds: f64,
    pub cores: f64,
}

impl Group {
    pub fn new(name: &'static str, pids: Vec<u32>) -> Self {
        Self {
            name,
            pids,
            samples: Vec::new(),
        }
    }

    /// Reads all processes at `at` seconds.
    ///
    /// # Errors
    /// A process that is gone, by its id.
    pub fn sample(&mut self, at: f64) -> io::Result<()> {
        let mut cpu = Duration::ZERO;
        let mut rss_bytes = 0;
        for pid in &self.pids {
            cpu += CpuTime::of(*pid)?.total();
            rss_bytes += resident_bytes(*pid)?;
        }
        let cores = match self.samples.last() {
            Some(last) if at > last.at => {
                cpu.saturating_sub(last.cpu).as_secs_f64() / (at - last.at)
            }
            _ => 0.0,
        };
        self.samples.push(Sample {
            at,
            cpu,
            rss_bytes,
            cores,
        });
        Ok(())
    }

    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Between the samples nearest to two instants.
    pub fn used(&self, from: f64, to: f64) -> Option<Used> {
        let nearest = |at: f64| {
            self.samples
                .iter()
                .min_by(|a, b| (a.at - at).abs().total_cmp(&(b.at - at).abs()))
        };
        let (from, to) = (nearest(from)?, nearest(to)?);
        let seconds = to.at - from.at;
        let cpu_seconds = to.cpu.saturating_sub(from.cpu).as_secs_f64();
        Some(Used {
            seconds,
            cpu_seconds,
            cores: if seconds > 0.0 {
                cpu_seconds / seconds
            } else {
                0.0
            },
        })
    }

    pub fn rss_most(&self) -> u64 {
        self.samples
            .iter()
            .map(|sample| sample.rss_bytes)
            .max()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_measured_between_two_instants() {
        let mut group = Group::new("self", vec![std::process::id()]);
        group.sample(0.0).unwrap();
        let from = std::time::Instant::now();
        while CpuTime::of(std::process::id())
            .unwrap()
            .since(CpuTime::default())
            .total()
            < group.samples[0].cpu + Duration::from_millis(50)
        {
            assert!(from.elapsed() < Duration::from_secs(30));
        }
        group.sample(2.0).unwrap();
        let used = group.used(0.1, 1.9).unwrap();
        assert!(used.cpu_seconds >= 0.05 && used.seconds == 2.0, "{used:?}");
        assert!(group.rss_most() > 1_000_000);
    }

    #[test]
    fn a_process_that_is_gone_is_named() {
        let error = Group::new("server", vec![u32::MAX])
            .sample(0.0)
            .unwrap_err();
        assert!(error.to_string().contains("4294967295"), "{error}");
    }
}
