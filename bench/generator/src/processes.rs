//! CPU time and memory of the measured processes over a run.

use std::io;
use std::time::Duration;

use inventory_process::{CpuTime, resident_bytes};
use serde::Serialize;

/// Processes that are reported together, such as the processes of the server.
#[derive(Clone, Debug)]
pub(crate) struct ProcessGroup {
    pub name: &'static str,
    pub pids: Vec<u32>,
    samples: Vec<ProcessSample>,
}

/// A process group at one time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ProcessSample {
    /// Seconds since the start of the run.
    pub at: f64,
    /// CPU time since the start of the processes.
    #[serde(skip)]
    pub cpu: Duration,
    pub rss_bytes: u64,
    /// CPUs in use since the previous sample.
    pub cores: f64,
}

/// CPU used in a part of the run.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct CpuUse {
    pub seconds: f64,
    pub cpu_seconds: f64,
    pub cores: f64,
}

impl ProcessGroup {
    pub(crate) fn new(name: &'static str, pids: Vec<u32>) -> Self {
        Self { name, pids, samples: Vec::new() }
    }

    /// Samples all processes at `at` seconds since the start.
    ///
    /// # Errors
    /// If a process does not exist; the error names it.
    pub(crate) fn sample(&mut self, at: f64) -> io::Result<()> {
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
        self.samples.push(ProcessSample { at, cpu, rss_bytes, cores });
        Ok(())
    }

    pub(crate) fn samples(&self) -> &[ProcessSample] {
        &self.samples
    }

    /// CPU used between the samples nearest to two times.
    pub(crate) fn cpu_use(&self, from: f64, to: f64) -> Option<CpuUse> {
        let nearest = |at: f64| {
            self.samples.iter().min_by(|a, b| (a.at - at).abs().total_cmp(&(b.at - at).abs()))
        };
        let (from, to) = (nearest(from)?, nearest(to)?);
        let seconds = to.at - from.at;
        let cpu_seconds = to.cpu.saturating_sub(from.cpu).as_secs_f64();
        Some(CpuUse {
            seconds,
            cpu_seconds,
            cores: if seconds > 0.0 { cpu_seconds / seconds } else { 0.0 },
        })
    }

    pub(crate) fn rss_max(&self) -> u64 {
        self.samples.iter().map(|sample| sample.rss_bytes).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_use_is_measured_between_two_times() {
        let mut group = ProcessGroup::new("self", vec![std::process::id()]);
        group.sample(0.0).unwrap();
        let from = std::time::Instant::now();
        while CpuTime::of(std::process::id()).unwrap().since(CpuTime::default()).total()
            < group.samples[0].cpu + Duration::from_millis(50)
        {
            assert!(from.elapsed() < Duration::from_secs(30));
        }
        group.sample(2.0).unwrap();
        let used = group.cpu_use(0.1, 1.9).unwrap();
        assert!(used.cpu_seconds >= 0.05 && used.seconds == 2.0, "{used:?}");
        assert!(group.rss_max() > 1_000_000);
    }

    #[test]
    fn error_names_the_missing_process() {
        let error = ProcessGroup::new("server", vec![u32::MAX]).sample(0.0).unwrap_err();
        assert!(error.to_string().contains("4294967295"), "{error}");
    }
}
