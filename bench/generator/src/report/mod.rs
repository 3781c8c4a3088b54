//! The report of a run. [`RunReport`] is the JSON document; [`table`] and [`plot`] render it.

pub mod plot;
pub mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::ledger::{RunLedger, ViolationLog};
use crate::limits;
use crate::outcome::{CallMethod, OutcomeClass, OutcomeKind};
use crate::processes::{CpuUse, ProcessGroup, ProcessSample};
use crate::scenario::Contract;
use crate::stats::{LatencyHistogram, RunStats, SecondStats};
use crate::store::StoreReadback;
use crate::worker::RunPlan;

/// Results that the report is built from.
pub(crate) struct RunResults<'a> {
    pub(crate) plan: &'a RunPlan,
    /// Lateness at the 99th percentile above which the run is invalid.
    pub(crate) lateness_max: Duration,
    pub(crate) stats: &'a RunStats,
    pub(crate) ledger: &'a RunLedger,
    pub(crate) violations: &'a ViolationLog,
    pub(crate) read: Option<&'a StoreReadback>,
    pub(crate) groups: &'a [ProcessGroup],
    pub(crate) losses: &'a [String],
}

/// Report of a run. Latencies are in milliseconds and count from when a call was due.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    pub title: String,
    pub run: String,
    pub contract: &'static str,
    pub connections: usize,
    pub stripes: u32,
    /// 0 in a closed loop.
    pub rate: f64,
    /// Users of a closed loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users: Option<usize>,
    pub warmup_s: f64,
    pub measured_s: f64,
    pub seed: u64,
    /// The generator was not the limit of the measurement.
    pub valid: bool,
    pub invalid_because: Vec<String>,
    pub promises: PromiseReport,
    pub methods: Vec<MethodReport>,
    pub phases: Vec<PhaseReport>,
    pub seconds: Vec<SecondReport>,
    pub generator: GeneratorReport,
    pub processes: Vec<ProcessReport>,
    pub events: Vec<EventReport>,
    pub store: Option<StoreReadback>,
    /// Causes of the first few lost connections.
    pub losses: Vec<String>,
}

impl RunReport {
    /// The offered load, for titles.
    pub(crate) fn load(&self) -> String {
        match self.users {
            Some(users) => format!("closed loop of {users} users"),
            None => format!("{:.0} calls/s", self.rate),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct PromiseReport {
    pub kept: bool,
    /// The store was read back; otherwise only answers were compared with answers.
    pub store_read: bool,
    pub reservations: u64,
    pub broken: u64,
    pub by_kind: BTreeMap<&'static str, u64>,
    pub examples: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct LatencySummary {
    pub count: u64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

/// Results of one method in the measured part.
#[derive(Clone, Debug, Serialize)]
pub struct MethodReport {
    pub method: CallMethod,
    pub calls: u64,
    pub ok: u64,
    pub refused: u64,
    pub shed: u64,
    pub errors: u64,
    /// Calls by outcome.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Latencies of decisive answers: ok and refused.
    pub answered: LatencySummary,
    pub ok_only: LatencySummary,
    pub shed_only: LatencySummary,
    /// Points of the percentile plot of `answered`: percentile and milliseconds.
    pub plot: Vec<(f64, f64)>,
    /// Latencies by outcome.
    pub by_outcome: BTreeMap<&'static str, LatencySummary>,
}

/// Results of one segment of the rate curve.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseReport {
    pub from_s: f64,
    pub to_s: f64,
    pub planned_per_s: f64,
    pub due_per_s: f64,
    pub ok_per_s: f64,
    pub refused_per_s: f64,
    pub shed_per_s: f64,
    pub errors_per_s: f64,
    pub checks: LatencySummary,
    pub writes: LatencySummary,
    pub sheds: LatencySummary,
    /// Seconds from the start of the phase after which, until its end, nothing is shed and p95 of writes is
    /// below 40 ms, or at most a quarter above the p95 of an earlier phase with the same rate; `None`: never.
    pub calm_after_s: Option<f64>,
}

/// Results of one second. Calls belong to the second in which they were due.
#[derive(Clone, Debug, Serialize)]
pub struct SecondReport {
    pub at_s: usize,
    pub due: u64,
    pub not_sent: u64,
    pub ok: u64,
    pub refused: u64,
    pub shed: u64,
    pub errors: u64,
    pub check_p95: f64,
    pub write_p50: f64,
    pub write_p95: f64,
    pub write_max: f64,
    pub shed_p95: f64,
}

/// Measurements of the generator itself.
#[derive(Clone, Debug, Serialize)]
pub struct GeneratorReport {
    pub threads: u32,
    /// Calls planned by the rate curve for the measured part.
    pub planned: f64,
    /// The part of them that was sent.
    pub sent_of_plan: u64,
    /// Including repeats.
    pub sent: u64,
    /// Calls not sent, in the whole run.
    pub not_sent: u64,
    pub repeats: u64,
    pub substituted: u64,
    pub reconnects: u64,
    pub in_flight_most: usize,
    /// CPU time of the workers per call in the measured part, in microseconds.
    pub cpu_us_per_call: f64,
    pub cpu_cores: f64,
    /// Time from due to written.
    pub lateness: LatencySummary,
}

#[derive(Clone, Debug, Serialize)]
pub struct ProcessReport {
    pub name: &'static str,
    pub pids: Vec<u32>,
    pub warmup: Option<CpuUse>,
    pub measured: Option<CpuUse>,
    /// CPU time per call and per successful call in the measured part, in microseconds.
    pub cpu_us_per_call: f64,
    pub cpu_us_per_ok: f64,
    pub rss_first_bytes: u64,
    pub rss_last_bytes: u64,
    pub rss_most_bytes: u64,
    pub samples: Vec<ProcessSample>,
}

/// Sales of one event.
#[derive(Clone, Debug, Serialize)]
pub struct EventReport {
    pub event: String,
    /// Units of successful reservations, each counted once.
    pub taken: u64,
    /// Calls refused for insufficient stock.
    pub refused: u64,
    /// Seconds until the first such refusal.
    pub first_refused_s: Option<f64>,
    /// Seconds until the last successful reservation.
    pub last_taken_s: Option<f64>,
    /// Seconds until every unit or seat was taken; `None`: not sold out, or units were returned.
    pub sold_out_s: Option<f64>,
}

/// Bound of the 95th percentile that the project promises, in milliseconds.
pub const P95_BOUND_MS: f64 = 40.0;

/// Ratio of the p95 of one second to that of a whole phase that still counts as calm: seconds vary by a
/// tenth.
const CALM_RATIO: f64 = 1.25;

pub(crate) fn quantiles(of: &LatencyHistogram) -> LatencySummary {
    if of.is_empty() {
        return LatencySummary::default();
    }
    let ms = |quantile| of.value_at_quantile(quantile) as f64 / 1_000.0;
    LatencySummary {
        count: of.len(),
        mean: of.mean() / 1_000.0,
        p50: ms(0.5),
        p90: ms(0.9),
        p95: ms(0.95),
        p99: ms(0.99),
        p99_9: ms(0.999),
        max: of.max() as f64 / 1_000.0,
    }
}

fn maybe(of: Option<&LatencyHistogram>) -> LatencySummary {
    of.map(quantiles).unwrap_or_default()
}

pub(crate) fn make(results: &RunResults<'_>) -> RunReport {
    let RunResults { plan, stats, violations, .. } = results;
    let scenario = &plan.scenario;
    let generator = generator(results);
    let invalid_because = invalid_because(results, &generator);
    RunReport {
        title: scenario.title.clone(),
        run: plan.run.clone(),
        contract: match scenario.contract {
            Contract::InventoryV1 => "A",
            Contract::ReservationV1 => "B",
        },
        connections: scenario.connections,
        stripes: match scenario.is_seated() {
            true => scenario.seat_keys(),
            false => scenario.stripes(),
        },
        rate: scenario.rate,
        users: scenario.users,
        warmup_s: scenario.warmup,
        measured_s: scenario.measured().seconds(),
        seed: scenario.seed,
        valid: invalid_because.is_empty(),
        invalid_because,
        promises: PromiseReport {
            kept: violations.total() == 0,
            store_read: results.read.is_some(),
            reservations: results.ledger.len() as u64,
            broken: violations.total(),
            by_kind: violations.counts.clone(),
            examples: violations.examples.clone(),
        },
        methods: methods(stats),
        phases: phases(results),
        seconds: stats.seconds.iter().enumerate().map(second).collect(),
        processes: processes(results, &generator),
        generator,
        events: events(results),
        store: results.read.cloned(),
        losses: results.losses.iter().take(limits::EXAMPLES_MAX).cloned().collect(),
    }
}

fn generator(results: &RunResults<'_>) -> GeneratorReport {
    let (stats, scenario) = (results.stats, &results.plan.scenario);
    let planned = scenario.measured().calls();
    let cpu = stats.cpu_measured.as_secs_f64();
    let sent = stats.sent_measured;
    GeneratorReport {
        threads: results.plan.threads,
        planned,
        sent,
        sent_of_plan: stats.planned_measured,
        not_sent: stats.not_sent,
        repeats: stats.repeats,
        substituted: stats.substituted,
        reconnects: stats.reconnects,
        in_flight_most: stats.in_flight_most,
        cpu_us_per_call: cpu * 1e6 / (sent.max(1)) as f64,
        cpu_cores: cpu / scenario.measured().seconds().max(1e-9),
        lateness: maybe(stats.lateness.as_deref()),
    }
}

/// Why the measurement is invalid.
fn invalid_because(results: &RunResults<'_>, generator: &GeneratorReport) -> Vec<String> {
    let mut why = Vec::new();
    let bound = results.lateness_max.as_secs_f64() * 1_000.0;
    let late = generator.lateness.p99;
    if late > bound {
        why.push(format!(
            "calls were written {late:.1} ms late at the 99th percentile (limit {bound:.1} ms): the generator needs \
             a free CPU, more connections (streams) or more threads"
        ));
    }
    if generator.not_sent > 0 {
        let limit = results.plan.scenario.in_flight;
        why.push(format!(
            "{} calls were not sent because no stream was free or {limit} were in flight: use more connections, \
             a larger in_flight, or a rate that the server can queue",
            generator.not_sent
        ));
    }
    // Poisson arrivals vary around the planned number: allow four standard deviations.
    let planned = generator.planned;
    let floor = planned * limits::OFFERED_MIN - 4.0 * planned.sqrt();
    let sent = generator.sent_of_plan;
    if (sent as f64) < floor {
        why.push(format!("only {sent} of {planned:.0} planned calls were sent"));
    }
    why
}

fn methods(stats: &RunStats) -> Vec<MethodReport> {
    let report = |method: CallMethod| {
        let all = stats.latencies_over(method, |_| true);
        if all.is_empty() {
            return None;
        }
        let class =
            |class: OutcomeClass| stats.latencies_over(method, |outcome| outcome.class() == class);
        let (ok, refused, shed, errors) = (
            class(OutcomeClass::Ok),
            class(OutcomeClass::Refused),
            class(OutcomeClass::Shed),
            class(OutcomeClass::Error),
        );
        let answered = stats.latencies_over(method, |outcome| {
            matches!(outcome.class(), OutcomeClass::Ok | OutcomeClass::Refused)
        });
        let seen =
            || OutcomeKind::all().filter_map(|o| Some((o.name(), stats.latencies_of(method, o)?)));
        Some(MethodReport {
            method,
            calls: all.len(),
            ok: ok.len(),
            refused: refused.len(),
            shed: shed.len(),
            errors: errors.len(),
            outcomes: seen().map(|(name, of)| (name, of.len())).collect(),
            plot: plot_points(&answered),
            answered: quantiles(&answered),
            ok_only: quantiles(&ok),
            shed_only: quantiles(&shed),
            by_outcome: seen().map(|(name, of)| (name, quantiles(of))).collect(),
        })
    };
    CallMethod::ALL.into_iter().filter_map(report).collect()
}

/// Percentiles at equal distances on a logarithmic axis, 24 for each nine.
fn plot_points(of: &LatencyHistogram) -> Vec<(f64, f64)> {
    if of.is_empty() {
        return Vec::new();
    }
    let nines = (of.len() as f64).log10().max(1.0);
    let steps = (nines * 24.0).ceil();
    (0..=steps as u32)
        .map(|step| {
            let quantile = 1.0 - 10.0_f64.powf(-nines * f64::from(step) / steps);
            (quantile * 100.0, of.value_at_quantile(quantile) as f64 / 1_000.0)
        })
        .collect()
}

fn sum_of(
    seconds: &[SecondStats],
    pick: impl Fn(&SecondStats) -> Option<&LatencyHistogram>,
) -> LatencySummary {
    let mut sum: Option<LatencyHistogram> = None;
    for of in seconds.iter().filter_map(pick) {
        match &mut sum {
            None => sum = Some(of.clone()),
            // Cannot fail: the bounds are the same.
            Some(sum) => drop(sum.add(of)),
        }
    }
    maybe(sum.as_ref())
}

/// Bound of the p95 of writes in a calm second of a phase with this planned rate. `earlier` holds the planned
/// rate and p95 of the earlier phases.
fn calm_bound(mut earlier: impl Iterator<Item = (f64, f64)>, planned_per_s: f64) -> f64 {
    let same_rate = earlier.find(|(planned, _)| (planned - planned_per_s).abs() < 1.0);
    P95_BOUND_MS.max(same_rate.map_or(0.0, |(_, p95)| CALM_RATIO * p95))
}

fn phases(results: &RunResults<'_>) -> Vec<PhaseReport> {
    let seconds = &results.stats.seconds;
    let mut from = results.plan.scenario.warmup;
    let mut phases: Vec<PhaseReport> = Vec::new();
    for segment in results.plan.scenario.measured().segments() {
        let to = from + segment.seconds;
        let at = |s: f64| (s.round() as usize).min(seconds.len());
        let part = &seconds[at(from)..at(to)];
        let rate = |count: fn(&SecondStats) -> u64| {
            part.iter().map(count).sum::<u64>() as f64 / segment.seconds
        };
        let planned_per_s = (segment.from + segment.to) / 2.0;
        let earlier = phases.iter().map(|p| (p.planned_per_s, p.writes.p95));
        let bound = calm_bound(earlier, planned_per_s);
        let calm = |second: &SecondStats| {
            second.shed + second.errors + second.not_sent == 0
                && maybe(second.writes.as_deref()).p95 < bound
        };
        let last_not_calm = part.iter().rposition(|second| !calm(second));
        let calm_after = last_not_calm.map_or(0, |last| last + 1);
        phases.push(PhaseReport {
            from_s: from,
            to_s: to,
            planned_per_s,
            due_per_s: rate(|second| second.due),
            ok_per_s: rate(|second| second.ok),
            refused_per_s: rate(|second| second.refused),
            shed_per_s: rate(|second| second.shed),
            errors_per_s: rate(|second| second.errors),
            checks: sum_of(part, |second| second.checks.as_deref()),
            writes: sum_of(part, |second| second.writes.as_deref()),
            sheds: sum_of(part, |second| second.sheds.as_deref()),
            calm_after_s: (calm_after < part.len()).then_some(calm_after as f64),
        });
        from = to;
    }
    phases
}

fn second((at_s, second): (usize, &SecondStats)) -> SecondReport {
    let writes = maybe(second.writes.as_deref());
    SecondReport {
        at_s,
        due: second.due,
        not_sent: second.not_sent,
        ok: second.ok,
        refused: second.refused,
        shed: second.shed,
        errors: second.errors,
        check_p95: maybe(second.checks.as_deref()).p95,
        write_p50: writes.p50,
        write_p95: writes.p95,
        write_max: writes.max,
        shed_p95: maybe(second.sheds.as_deref()).p95,
    }
}

fn processes(results: &RunResults<'_>, generator: &GeneratorReport) -> Vec<ProcessReport> {
    let scenario = &results.plan.scenario;
    let (warm, end) = (scenario.warmup, scenario.whole().seconds());
    let ok: u64 = CallMethod::ALL
        .iter()
        .map(|method| {
            results
                .stats
                .latencies_over(*method, |outcome| outcome.class() == OutcomeClass::Ok)
                .len()
        })
        .sum();
    let report = |group: &ProcessGroup| {
        let measured = group.cpu_use(warm, end);
        let cpu = measured.map_or(0.0, |used| used.cpu_seconds) * 1e6;
        let rss = |sample: Option<&ProcessSample>| sample.map_or(0, |sample| sample.rss_bytes);
        ProcessReport {
            name: group.name,
            pids: group.pids.clone(),
            warmup: group.cpu_use(0.0, warm).filter(|_| warm > 0.0),
            measured,
            cpu_us_per_call: cpu / generator.sent.max(1) as f64,
            cpu_us_per_ok: cpu / ok.max(1) as f64,
            rss_first_bytes: rss(group.samples().first()),
            rss_last_bytes: rss(group.samples().last()),
            rss_most_bytes: group.rss_max(),
            samples: group.samples().to_vec(),
        }
    };
    results.groups.iter().map(report).collect()
}

fn events(results: &RunResults<'_>) -> Vec<EventReport> {
    let events = &results.plan.scenario.events;
    let stock = events.stock.or(events.seats).unwrap_or(0);
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    let names = results.plan.events.iter().enumerate();
    names
        .map(|(index, event)| {
            let sales = results.ledger.event(index);
            EventReport {
                event: event.clone(),
                taken: sales.taken,
                refused: sales.refused,
                first_refused_s: (sales.refused > 0).then(|| seconds(sales.first_refused)),
                last_taken_s: (sales.taken > 0).then(|| seconds(sales.last_taken)),
                sold_out_s: (sales.taken == stock).then(|| seconds(sales.last_taken)),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calm_bound_follows_earlier_phases_of_the_same_rate() {
        let bound = |earlier: &[(f64, f64)]| calm_bound(earlier.iter().copied(), 100.0);
        assert_eq!(bound(&[]), P95_BOUND_MS);
        assert_eq!(bound(&[(100.0, 60.0), (300.0, 200.0)]), 75.0);
        assert_eq!(bound(&[(50.0, 60.0), (300.0, 200.0)]), P95_BOUND_MS, "other rates");
        assert_eq!(bound(&[(100.0, 5.0)]), P95_BOUND_MS, "never below the promised bound");
    }
}
