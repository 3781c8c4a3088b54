//! Everything that is said about a run. [`Report`] is the JSON; [`table`] and [`svg`] draw it.

pub mod svg;
pub mod table;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::ledger::{Books, Broken};
use crate::limits;
use crate::outcome::{Class, Method, Outcome};
use crate::run::Options;
use crate::scenario::Contract;
use crate::store::Read;
use crate::tally::{Latencies, Second, Tally};
use crate::watch::{Group, Sample, Used};
use crate::worker::Plan;

/// What a report is made of.
pub(crate) struct Facts<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) options: &'a Options,
    pub(crate) tally: &'a Tally,
    pub(crate) books: &'a Books,
    pub(crate) broken: &'a Broken,
    pub(crate) read: Option<&'a Read>,
    pub(crate) groups: &'a [Group],
    pub(crate) losses: &'a [String],
}

/// All of a run. Latencies are in milliseconds, from when the call was due.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub title: String,
    pub run: String,
    pub contract: &'static str,
    pub connections: usize,
    pub stripes: u32,
    pub rate: f64,
    pub warmup_s: f64,
    pub measured_s: f64,
    pub seed: u64,
    /// The generator was not the limit.
    pub valid: bool,
    pub invalid_because: Vec<String>,
    pub promises: Promises,
    pub methods: Vec<MethodReport>,
    pub phases: Vec<Phase>,
    pub seconds: Vec<SecondReport>,
    pub generator: GeneratorReport,
    pub processes: Vec<ProcessReport>,
    pub events: Vec<EventReport>,
    pub store: Option<Read>,
    /// Why connections were lost, the first few.
    pub losses: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Promises {
    pub kept: bool,
    /// The store was read back; otherwise answers were only held against answers.
    pub store_read: bool,
    pub reservations: u64,
    pub broken: u64,
    pub by_kind: BTreeMap<&'static str, u64>,
    pub quoted: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Quantiles {
    pub count: u64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

/// One method in the measured part.
#[derive(Clone, Debug, Serialize)]
pub struct MethodReport {
    pub method: Method,
    pub calls: u64,
    pub ok: u64,
    pub refused: u64,
    pub shed: u64,
    pub errors: u64,
    /// All of them by outcome.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Of answers that decided something: ok and refused.
    pub answered: Quantiles,
    pub ok_only: Quantiles,
    pub shed_only: Quantiles,
    /// Of `answered`: percentile and milliseconds, for drawing.
    pub plot: Vec<(f64, f64)>,
    /// Of each outcome.
    pub by_outcome: BTreeMap<&'static str, Quantiles>,
}

/// One piece of the rate curve.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    pub from_s: f64,
    pub to_s: f64,
    pub planned_per_s: f64,
    pub due_per_s: f64,
    pub ok_per_s: f64,
    pub refused_per_s: f64,
    pub shed_per_s: f64,
    pub errors_per_s: f64,
    pub checks: Quantiles,
    pub writes: Quantiles,
    pub sheds: Quantiles,
    /// Seconds from its beginning until nothing is shed and the writes' p95 is under 40 ms, or at most
    /// a quarter over that of an earlier phase of the same rate, up to its end; `None`: never.
    pub calm_after_s: Option<f64>,
}

/// One second of the run, by when its calls were due.
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

/// The generator about itself.
#[derive(Clone, Debug, Serialize)]
pub struct GeneratorReport {
    pub threads: u32,
    /// Calls that the curve planned for the measured part, and those of them that were written.
    pub planned: f64,
    pub sent_of_plan: u64,
    /// With repeats, which come on top.
    pub sent: u64,
    /// In the whole run.
    pub not_sent: u64,
    pub repeats: u64,
    pub substituted: u64,
    pub reconnects: u64,
    pub in_flight_most: usize,
    /// CPU of the workers per call, microseconds, in the measured part.
    pub cpu_us_per_call: f64,
    pub cpu_cores: f64,
    /// Scheduled to written.
    pub lateness: Quantiles,
}

#[derive(Clone, Debug, Serialize)]
pub struct ProcessReport {
    pub name: &'static str,
    pub pids: Vec<u32>,
    pub warmup: Option<Used>,
    pub measured: Option<Used>,
    /// CPU per call and per answer that succeeded, microseconds, in the measured part.
    pub cpu_us_per_call: f64,
    pub cpu_us_per_ok: f64,
    pub rss_first_bytes: u64,
    pub rss_last_bytes: u64,
    pub rss_most_bytes: u64,
    pub samples: Vec<Sample>,
}

/// How the sale of one event went.
#[derive(Clone, Debug, Serialize)]
pub struct EventReport {
    pub event: String,
    /// Units answered with success, each reservation once.
    pub taken: u64,
    /// Calls refused for too little stock.
    pub refused: u64,
    /// Seconds until the first such refusal, and until the last success.
    pub first_refused_s: Option<f64>,
    pub last_taken_s: Option<f64>,
    /// Seconds until every unit or seat was taken; `None`: some are left, or came back.
    pub sold_out_s: Option<f64>,
}

/// What is promised of the 95th percentile, in milliseconds.
pub(crate) const BAR_MS: f64 = 40.0;

/// What a second's p95 may be of that of a whole phase like it: seconds scatter by a tenth.
const CALM_OVER_USUAL: f64 = 1.25;

pub(crate) fn quantiles(of: &Latencies) -> Quantiles {
    if of.is_empty() {
        return Quantiles::default();
    }
    let ms = |quantile| of.value_at_quantile(quantile) as f64 / 1_000.0;
    Quantiles {
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

fn maybe(of: Option<&Latencies>) -> Quantiles {
    of.map(quantiles).unwrap_or_default()
}

pub(crate) fn make(facts: &Facts<'_>) -> Report {
    let Facts {
        plan,
        tally,
        broken,
        ..
    } = facts;
    let scenario = &plan.scenario;
    let generator = generator(facts);
    let invalid_because = invalid(facts, &generator);
    Report {
        title: scenario.title.clone(),
        run: plan.run.clone(),
        contract: match scenario.contract {
            Contract::A => "A",
            Contract::B => "B",
        },
        connections: scenario.connections,
        stripes: match scenario.is_seated() {
            true => scenario.seat_keys(),
            false => scenario.stripes(),
        },
        rate: scenario.rate,
        warmup_s: scenario.warmup,
        measured_s: scenario.measured().seconds(),
        seed: scenario.seed,
        valid: invalid_because.is_empty(),
        invalid_because,
        promises: Promises {
            kept: broken.total() == 0,
            store_read: facts.read.is_some(),
            reservations: facts.books.len() as u64,
            broken: broken.total(),
            by_kind: broken.counts.clone(),
            quoted: broken.quoted.clone(),
        },
        methods: methods(tally),
        phases: phases(facts),
        seconds: tally.seconds.iter().enumerate().map(second).collect(),
        processes: processes(facts, &generator),
        generator,
        events: events(facts),
        store: facts.read.cloned(),
        losses: facts
            .losses
            .iter()
            .take(limits::QUOTED_MAX)
            .cloned()
            .collect(),
    }
}

fn generator(facts: &Facts<'_>) -> GeneratorReport {
    let (tally, scenario) = (facts.tally, &facts.plan.scenario);
    let planned = scenario.measured().calls();
    let cpu = tally.cpu_measured.as_secs_f64();
    let sent = tally.sent_measured;
    GeneratorReport {
        threads: facts.plan.threads,
        planned,
        sent,
        sent_of_plan: tally.planned_measured,
        not_sent: tally.not_sent,
        repeats: tally.repeats,
        substituted: tally.substituted,
        reconnects: tally.reconnects,
        in_flight_most: tally.in_flight_most,
        cpu_us_per_call: cpu * 1e6 / (sent.max(1)) as f64,
        cpu_cores: cpu / scenario.measured().seconds().max(1e-9),
        lateness: maybe(tally.lateness.as_deref()),
    }
}

/// Why the figures mean nothing.
fn invalid(facts: &Facts<'_>, generator: &GeneratorReport) -> Vec<String> {
    let mut why = Vec::new();
    let bound = facts.options.lateness_max.as_secs_f64() * 1_000.0;
    let late = generator.lateness.p99;
    if late > bound {
        why.push(format!(
            "calls were written {late:.1} ms late at the 99th percentile, more than {bound:.1}: give the generator \
             a free CPU, more connections (streams) or more threads"
        ));
    }
    if generator.not_sent > 0 {
        let limit = facts.plan.scenario.in_flight;
        why.push(format!(
            "{} calls were not sent, for want of a free stream or because {limit} were in flight: more \
             connections or a larger in_flight, or a server that is not offered more than it can queue",
            generator.not_sent
        ));
    }
    // As many as the curve plans, but for the chance in independent arrivals.
    let planned = generator.planned;
    let floor = planned * limits::OFFERED_MIN - 4.0 * planned.sqrt();
    let sent = generator.sent_of_plan;
    if (sent as f64) < floor {
        why.push(format!(
            "only {sent} of {planned:.0} planned calls were sent"
        ));
    }
    why
}

fn methods(tally: &Tally) -> Vec<MethodReport> {
    let report = |method: Method| {
        let all = tally.over(method, |_| true);
        if all.is_empty() {
            return None;
        }
        let class = |wanted: Class| tally.over(method, |outcome| outcome.class() == wanted);
        let (ok, refused, shed, errors) = (
            class(Class::Ok),
            class(Class::Refused),
            class(Class::Shed),
            class(Class::Error),
        );
        let answered = tally.over(method, |outcome| {
            matches!(outcome.class(), Class::Ok | Class::Refused)
        });
        let seen = || {
            Outcome::ALL
                .into_iter()
                .filter_map(|o| Some((o.name(), tally.of(method, o)?)))
        };
        Some(MethodReport {
            method,
            calls: all.len(),
            ok: ok.len(),
            refused: refused.len(),
            shed: shed.len(),
            errors: errors.len(),
            outcomes: seen().map(|(name, of)| (name, of.len())).collect(),
            plot: plot(&answered),
            answered: quantiles(&answered),
            ok_only: quantiles(&ok),
            shed_only: quantiles(&shed),
            by_outcome: seen().map(|(name, of)| (name, quantiles(of))).collect(),
        })
    };
    Method::ALL.into_iter().filter_map(report).collect()
}

/// Percentiles that lie evenly on the axis of a plot: so many for each nine.
fn plot(of: &Latencies) -> Vec<(f64, f64)> {
    if of.is_empty() {
        return Vec::new();
    }
    let nines = (of.len() as f64).log10().max(1.0);
    let steps = (nines * 24.0).ceil();
    (0..=steps as u32)
        .map(|step| {
            let quantile = 1.0 - 10.0_f64.powf(-nines * f64::from(step) / steps);
            (
                quantile * 100.0,
                of.value_at_quantile(quantile) as f64 / 1_000.0,
            )
        })
        .collect()
}

fn sum_of(seconds: &[Second], pick: impl Fn(&Second) -> Option<&Latencies>) -> Quantiles {
    let mut sum: Option<Latencies> = None;
    for of in seconds.iter().filter_map(pick) {
        match &mut sum {
            None => sum = Some(of.clone()),
            // The bounds are the same.
            Some(sum) => drop(sum.add(of)),
        }
    }
    maybe(sum.as_ref())
}

/// What the writes' p95 of a calm second is below, in a phase with so many calls planned: of the
/// `earlier` phases' calls planned and p95, what was usual at that rate.
fn calm_bar(mut earlier: impl Iterator<Item = (f64, f64)>, planned_per_s: f64) -> f64 {
    let alike = earlier.find(|(planned, _)| (planned - planned_per_s).abs() < 1.0);
    BAR_MS.max(alike.map_or(0.0, |(_, p95)| CALM_OVER_USUAL * p95))
}

fn phases(facts: &Facts<'_>) -> Vec<Phase> {
    let seconds = &facts.tally.seconds;
    let mut from = facts.plan.scenario.warmup;
    let mut phases: Vec<Phase> = Vec::new();
    for piece in facts.plan.scenario.measured().pieces() {
        let to = from + piece.seconds;
        let at = |s: f64| (s.round() as usize).min(seconds.len());
        let part = &seconds[at(from)..at(to)];
        let rate =
            |count: fn(&Second) -> u64| part.iter().map(count).sum::<u64>() as f64 / piece.seconds;
        let planned_per_s = (piece.from + piece.to) / 2.0;
        let earlier = phases.iter().map(|p| (p.planned_per_s, p.writes.p95));
        let bar = calm_bar(earlier, planned_per_s);
        let calm = |second: &Second| {
            second.shed + second.errors + second.not_sent == 0
                && maybe(second.writes.as_deref()).p95 < bar
        };
        let restless = part.iter().rposition(|second| !calm(second));
        let calm_after = restless.map_or(0, |last| last + 1);
        phases.push(Phase {
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

fn second((at_s, second): (usize, &Second)) -> SecondReport {
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

fn processes(facts: &Facts<'_>, generator: &GeneratorReport) -> Vec<ProcessReport> {
    let scenario = &facts.plan.scenario;
    let (warm, end) = (scenario.warmup, scenario.whole().seconds());
    let ok: u64 = Method::ALL
        .iter()
        .map(|method| {
            facts
                .tally
                .over(*method, |outcome| outcome.class() == Class::Ok)
                .len()
        })
        .sum();
    let report = |group: &Group| {
        let measured = group.used(warm, end);
        let cpu = measured.map_or(0.0, |used| used.cpu_seconds) * 1e6;
        let rss = |sample: Option<&Sample>| sample.map_or(0, |sample| sample.rss_bytes);
        ProcessReport {
            name: group.name,
            pids: group.pids.clone(),
            warmup: group.used(0.0, warm).filter(|_| warm > 0.0),
            measured,
            cpu_us_per_call: cpu / generator.sent.max(1) as f64,
            cpu_us_per_ok: cpu / ok.max(1) as f64,
            rss_first_bytes: rss(group.samples().first()),
            rss_last_bytes: rss(group.samples().last()),
            rss_most_bytes: group.rss_most(),
            samples: group.samples().to_vec(),
        }
    };
    facts.groups.iter().map(report).collect()
}

fn events(facts: &Facts<'_>) -> Vec<EventReport> {
    let events = &facts.plan.scenario.events;
    let stock = events.stock.or(events.seats).unwrap_or(0);
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    let names = facts.plan.events.iter().enumerate();
    names
        .map(|(index, event)| {
            let told = facts.books.event(index);
            EventReport {
                event: event.clone(),
                taken: told.taken,
                refused: told.refused,
                first_refused_s: (told.refused > 0).then(|| seconds(told.first_refused)),
                last_taken_s: (told.taken > 0).then(|| seconds(told.last_taken)),
                sold_out_s: (told.taken == stock).then(|| seconds(told.last_taken)),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calm_is_what_was_usual_at_that_rate() {
        let bar = |earlier: &[(f64, f64)]| calm_bar(earlier.iter().copied(), 100.0);
        assert_eq!(bar(&[]), BAR_MS);
        assert_eq!(bar(&[(100.0, 60.0), (300.0, 200.0)]), 75.0);
        assert_eq!(bar(&[(50.0, 60.0), (300.0, 200.0)]), BAR_MS, "other rates");
        assert_eq!(bar(&[(100.0, 5.0)]), BAR_MS, "never below what is promised");
    }
}
