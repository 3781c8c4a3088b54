//! The report as a text table.

use std::fmt::Write;

use super::{EventReport, LatencySummary, PhaseReport, RunReport};

/// Renders the report; ends with a newline.
pub fn render(report: &RunReport) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write(report, &mut out);
    out
}

fn write(report: &RunReport, out: &mut String) -> std::fmt::Result {
    writeln!(out, "{}", report.title)?;
    writeln!(
        out,
        "run {}, contract {}, {} connections; {} for {} s after {} s of warm-up\n",
        report.run,
        report.contract,
        report.connections,
        report.load(),
        report.measured_s,
        report.warmup_s
    )?;
    methods(report, out)?;
    if report.phases.len() > 1 {
        phases(&report.phases, out)?;
    }
    events(&report.events, out)?;
    processes(report, out)?;
    store(report, out)?;
    verdict(report, out)
}

fn latency(of: &LatencySummary) -> String {
    if of.count == 0 {
        return String::new();
    }
    let LatencySummary { p50, p90, p95, p99, p99_9, max, .. } = of;
    format!("{p50:>9.2}{p90:>9.2}{p95:>9.2}{p99:>9.2}{p99_9:>9.2}{max:>9.1}")
}

fn methods(report: &RunReport, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "{:<14}{:>10}{:>10}{:>9}{:>9}{:>8}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
        "method",
        "calls",
        "ok",
        "refused",
        "shed",
        "errors",
        "p50",
        "p90",
        "p95",
        "p99",
        "p99.9",
        "max ms"
    )?;
    for method in &report.methods {
        writeln!(
            out,
            "{:<14}{:>10}{:>10}{:>9}{:>9}{:>8}{}",
            method.method.name(),
            method.calls,
            method.ok,
            method.refused,
            method.shed,
            method.errors,
            latency(&method.answered)
        )?;
        if method.refused > 0 && method.ok > 0 {
            writeln!(out, "{:<60}{}", "  ok only", latency(&method.ok_only))?;
        }
        if method.shed > 0 {
            writeln!(out, "{:<60}{}", "  shed answers", latency(&method.shed_only))?;
        }
        let others: Vec<_> = method
            .outcomes
            .iter()
            .filter(|(name, _)| **name != "ok")
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        if !others.is_empty() {
            writeln!(out, "  {}", others.join(", "))?;
        }
    }
    writeln!(out, "latencies of ok and refused calls in ms, from when each call was due\n")
}

fn phases(phases: &[PhaseReport], out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "{:<16}{:>10}{:>10}{:>10}{:>10}{:>10}{:>11}{:>11}{:>11}",
        "phase",
        "due/s",
        "ok/s",
        "refused/s",
        "shed/s",
        "errors/s",
        "p95 ms",
        "shed p95",
        "calm after"
    )?;
    for phase in phases {
        writeln!(
            out,
            "{:<16}{:>10.0}{:>10.0}{:>10.0}{:>10.0}{:>10.0}{:>11.2}{:>11.2}{:>11}",
            format!("{:.0} to {:.0} s", phase.from_s, phase.to_s),
            phase.due_per_s,
            phase.ok_per_s,
            phase.refused_per_s,
            phase.shed_per_s,
            phase.errors_per_s,
            phase.writes.p95,
            phase.sheds.p95,
            phase.calm_after_s.map_or("never".to_owned(), |s| format!("{s:.0} s")),
        )?;
    }
    writeln!(out)
}

/// The first few events that sold out or refused calls.
fn events(events: &[EventReport], out: &mut String) -> std::fmt::Result {
    let affected = events.iter().filter(|event| event.refused > 0 || event.sold_out_s.is_some());
    let mut any = false;
    for event in affected.take(5) {
        any = true;
        write!(out, "{}: {} taken", event.event, event.taken)?;
        if let Some(s) = event.sold_out_s {
            write!(out, ", the last after {s:.2} s")?;
        }
        if let Some(s) = event.first_refused_s {
            let calls = event.refused;
            write!(out, "; {calls} calls refused as sold out, the first after {s:.2} s")?;
        }
        writeln!(out)?;
    }
    match any {
        true => writeln!(out),
        false => Ok(()),
    }
}

fn processes(report: &RunReport, out: &mut String) -> std::fmt::Result {
    let mib = |bytes: u64| bytes as f64 / (1024.0 * 1024.0);
    for process in &report.processes {
        let Some(measured) = process.measured else {
            continue;
        };
        let warmup =
            process.warmup.map_or(String::new(), |used| format!(" (warm-up {:.2})", used.cores));
        let per_call = match process.name {
            // Measured with a finer clock, and without the main thread.
            "generator" => report.generator.cpu_us_per_call,
            _ => process.cpu_us_per_call,
        };
        writeln!(
            out,
            "{:<10} {:>7.2} us CPU per call, {:.2} cores{}, RSS {:.0} to {:.0} MiB, maximum {:.0}",
            process.name,
            per_call,
            measured.cores,
            warmup,
            mib(process.rss_first_bytes),
            mib(process.rss_last_bytes),
            mib(process.rss_most_bytes)
        )?;
    }
    let generator = &report.generator;
    writeln!(
        out,
        "{:<10} lateness p50 {:.2}, p99 {:.2}, max {:.1} ms; {} of {:.0} planned calls sent; {} repeats, {} not sent; at most {} in flight",
        "",
        generator.lateness.p50,
        generator.lateness.p99,
        generator.lateness.max,
        generator.sent_of_plan,
        generator.planned,
        generator.repeats,
        generator.not_sent,
        generator.in_flight_most
    )?;
    if generator.reconnects > 0 {
        let first = report.losses.first().map_or("", String::as_str);
        writeln!(out, "{:<10} {} connections lost, the first: {first}", "", generator.reconnects)?;
    }
    Ok(())
}

fn store(report: &RunReport, out: &mut String) -> std::fmt::Result {
    let Some(read) = &report.store else {
        return writeln!(out);
    };
    let counts = &read.counts;
    writeln!(
        out,
        "{:<10} {} confirmed, {} held, {} released, {} expired, {} seats read in {:.1} s ({} rounds)\n",
        "store",
        counts.confirmed,
        counts.held,
        counts.released,
        counts.expired,
        counts.seats,
        read.seconds,
        read.rounds
    )
}

fn verdict(report: &RunReport, out: &mut String) -> std::fmt::Result {
    let promises = &report.promises;
    match (promises.kept, promises.store_read) {
        (true, true) => writeln!(
            out,
            "every promise kept: {} reservations, the store matches the answers",
            promises.reservations
        )?,
        (true, false) => writeln!(
            out,
            "no answer contradicts another ({} reservations); the store was not read back",
            promises.reservations
        )?,
        (false, _) => {
            let kinds: Vec<_> =
                promises.by_kind.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
            writeln!(out, "PROMISES BROKEN: {} ({})", promises.broken, kinds.join(", "))?;
            for text in &promises.examples {
                writeln!(out, "  {text}")?;
            }
        }
    }
    if !report.valid {
        writeln!(out, "INVALID: the generator was the limit of the measurement")?;
        for why in &report.invalid_because {
            writeln!(out, "  {why}")?;
        }
    }
    Ok(())
}
