//! Reports and plans of an audit. As text: numbers in columns, then the breaches, and the verdict in the last line. As
//! JSON: the messages of the admin contract.

use std::fmt::Write as _;

use inventory_proto::inventory::v1 as pb;
use serde::Serialize;

use super::{counted, grouped, short_name};
use crate::cli::View;
use crate::limits::{AUDIT_ITEMS_SHOWN_MAX, AUDIT_OVERDUE_MAX};
use crate::output::{Align, TextTable};

/// Number of overdue holds listed with their delay.
const LATE_TOLD: usize = 5;

/// A report with the name of its verdict.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct AuditReportView {
    /// CLEAN, MOVING or BREACHED.
    verdict: String,
    #[serde(flatten)]
    pub(in crate::cli) report: pb::AuditReport,
}

impl From<pb::AuditReport> for AuditReportView {
    fn from(mut report: pb::AuditReport) -> Self {
        report.seats.get_or_insert_default();
        report.reservations.get_or_insert_default();
        let verdict = short_name(report.verdict().as_str_name(), "AUDIT_VERDICT_").to_owned();
        Self { verdict, report }
    }
}

impl View for AuditReportView {
    fn text(&self) -> String {
        report(&self.report)
    }
}

/// What would be done, or is done next.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct RepairPlanView {
    #[serde(flatten)]
    pub(in crate::cli) plan: pb::RepairPlan,
    /// The command that does it, if it is not done next.
    #[serde(skip)]
    pub(in crate::cli) apply: Option<String>,
}

impl View for RepairPlanView {
    fn text(&self) -> String {
        plan(&self.plan, self.apply.as_deref())
    }
}

/// What became of the plan.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(in crate::cli) struct RepairsDoneView(pub(in crate::cli) pb::RepairsDone);

impl View for RepairsDoneView {
    fn text(&self) -> String {
        done(&self.0)
    }
}

/// One line of progress.
pub(in crate::cli) fn progress(step: &pb::AuditProgress) -> String {
    let round = match step.round {
        0 | 1 => String::new(),
        round => format!(", round {round}: it moves"),
    };
    let (examined, found) = (grouped(step.examined), grouped(step.found));
    match step.step.as_str() {
        "reservations" => format!("reservations: {found} of {examined} records{round}"),
        "seats" => format!("seats: {found}{round}"),
        other => format!("{other}: {examined} of {found}{round}"),
    }
}

fn report(report: &pb::AuditReport) -> String {
    let mut text = String::new();
    let stock = if report.seated { "seats" } else { "units" };
    let open = if report.closed { "closed" } else { "open" };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "event {}   {stock}, {open}\n", report.event_id);
    stock_table(report, &mut text);
    states(report, &mut text);
    overdue(report, &mut text);
    breaches(report, &mut text);
    let _ = write!(text, "\n{}", verdict(report));
    text
}

fn stock_table(report: &pb::AuditReport, text: &mut String) {
    let names = [
        if report.seated { "" } else { "stripe" },
        "capacity",
        "remaining",
        "held",
        "confirmed",
        "blocked",
        // The surplus is the difference of the report with the other sign.
        "surplus",
    ];
    let mut table = TextTable::new(&[Align::Right; 7]).separated_by("   ");
    table.row(names);
    // The stripe of a seated event has no stock, unless somebody changed the item.
    let has_stock = |stripe: &&pb::StripeAccount| {
        let of = [stripe.capacity, stripe.remaining, stripe.held, stripe.confirmed];
        !report.seated || of.iter().any(|number| *number != 0)
    };
    let stripes: Vec<_> = report.stripes.iter().filter(has_stock).collect();
    for stripe in &stripes {
        table.row(row(
            &format!("{}{}", if report.seated { "stripe " } else { "" }, stripe.index),
            [stripe.capacity, stripe.remaining, stripe.held, stripe.confirmed, 0],
            (!stripe.moving).then_some(stripe.difference),
        ));
    }
    if stripes.len() > 1 {
        let sum = |of: fn(&pb::StripeAccount) -> i64| stripes.iter().map(|stripe| of(stripe)).sum();
        let still = stripes.iter().all(|stripe| !stripe.moving);
        table.row(row(
            "all",
            [sum(|s| s.capacity), sum(|s| s.remaining), sum(|s| s.held), sum(|s| s.confirmed), 0],
            still.then(|| sum(|s| s.difference)),
        ));
    }
    if report.seated {
        let seats = report.seats.unwrap_or_default();
        table.row(row(
            "seats",
            [seats.total, seats.available, seats.held, seats.confirmed, seats.blocked],
            (!report.restless).then_some(seats.difference),
        ));
    }
    let _ = writeln!(text, "{table}");
}

/// `None`: the item changed during the audit.
fn row(name: &str, numbers: [i64; 5], difference: Option<i64>) -> [String; 7] {
    let [capacity, remaining, held, confirmed, blocked] = numbers.map(grouped);
    let surplus =
        difference.map_or_else(|| "moving".to_owned(), |missing| grouped(missing.saturating_neg()));
    [name.to_owned(), capacity, remaining, held, confirmed, blocked, surplus]
}

fn states(report: &pb::AuditReport, text: &mut String) {
    let counted = |states: &[(&str, i64)]| {
        let some = states.iter().filter(|(_, number)| *number != 0);
        let some = some.map(|(name, number)| format!("{} {name}", grouped(*number)));
        match some.collect::<Vec<_>>().join(" · ") {
            none if none.is_empty() => "none".to_owned(),
            some => some,
        }
    };
    let _ = writeln!(text);
    if report.seated {
        let seats = report.seats.unwrap_or_default();
        let seats = counted(&[
            ("AVAILABLE", seats.available),
            ("HOLD", seats.hold),
            ("SOLD", seats.sold),
            ("BLOCKED", seats.blocked),
            ("unreadable", seats.unreadable),
        ]);
        let _ = writeln!(text, "seats         {seats}");
    }
    let of = report.reservations.unwrap_or_default();
    let reservations = counted(&[
        ("HELD", of.held),
        ("CONFIRMED", of.confirmed),
        ("RELEASED", of.released),
        ("EXPIRED", of.expired),
        ("REFUNDED", of.refunded),
        ("unreadable", of.unreadable),
    ]);
    let _ = writeln!(text, "reservations  {reservations}");
    let _ = writeln!(text, "orders        {} distinct", grouped(report.orders));
    if let Some(held) = &report.held {
        let _ = writeln!(text, "held units    {}", held_units(held));
    } else if report.moving_held {
        let _ = writeln!(text, "held units    changed during the audit and were not checked");
    }
    if report.moving_moved {
        let _ = writeln!(text, "moved units   changed during the audit and were not checked");
    }
}

/// What status figures show as held, and what reservations hold.
fn held_units(of: &pb::HeldAccount) -> String {
    let [shown, reservations, uncounted] =
        [of.stripes - of.confirmed, of.reservations, of.uncounted].map(grouped);
    let uncounted = match of.uncounted {
        0 => String::new(),
        _ => format!("; {uncounted} held by an earlier version are shown as confirmed"),
    };
    format!("{shown} in status figures, {reservations} in reservations{uncounted}")
}

fn overdue(report: &pb::AuditReport, text: &mut String) {
    let Some(latest) = report.overdue.first() else {
        return;
    };
    let late = |hold: &pb::OverdueHold| format!("{:.1} s", hold.late_ms as f64 / 1_000.0);
    let _ = writeln!(
        text,
        "overdue       {} past the expiry, by up to {}; a breach from {} s on",
        counted(report.overdue_count, "hold"),
        late(latest),
        AUDIT_OVERDUE_MAX.as_secs()
    );
    for hold in report.overdue.iter().take(LATE_TOLD) {
        let _ = writeln!(text, "              {}  {}", hold.reservation_id, late(hold));
    }
    more(text, report.overdue_count, report.overdue.len().min(LATE_TOLD), "              ");
}

fn breaches(report: &pb::AuditReport, text: &mut String) {
    let _ = writeln!(text, "breaches      {}", grouped(report.breach_count));
    for breach in &report.breaches {
        let _ = writeln!(text, "  {} {}  {}", breach.kind, breach.id, breach.text);
    }
    more(text, report.breach_count, report.breaches.len(), "  ");
}

fn more(text: &mut String, count: i64, told: usize, indent: &str) {
    let rest = count.saturating_sub(told as i64);
    if rest > 0 && told > 0 {
        let _ = writeln!(text, "{indent}… and {} more", grouped(rest));
    }
}

fn verdict(report: &pb::AuditReport) -> String {
    let moving = || {
        let stripes: Vec<String> = report.moving_stripes.iter().map(i32::to_string).collect();
        let mut what = Vec::new();
        if !stripes.is_empty() {
            let noun = if stripes.len() == 1 { "stripe" } else { "stripes" };
            what.push(format!("sales from {noun} {} at every reading", stripes.join(", ")));
        }
        if report.moving_held && stripes.is_empty() {
            what.push("the held units changed at every reading".to_owned());
        }
        if report.moving_moved && stripes.is_empty() {
            what.push("units moved between stripes at every reading".to_owned());
        }
        if report.moving_seats > 0 {
            what.push(format!("{} changed hands", counted(report.moving_seats, "seat")));
        }
        what.join("; ")
    };
    match report.verdict() {
        pb::AuditVerdict::Clean => "CLEAN: every number adds up".to_owned(),
        pb::AuditVerdict::Moving => format!(
            "STILL MOVING: no breach in the parts that did not change; {}. Try again with fewer sales",
            moving()
        ),
        pb::AuditVerdict::Breached | pb::AuditVerdict::Unspecified => {
            let also = match moving() {
                none if none.is_empty() => String::new(),
                what => format!("; not judged: {what}"),
            };
            let breaches = match report.breach_count {
                1 => "1 breach".to_owned(),
                count => format!("{} breaches", grouped(count)),
            };
            format!("BROKEN: {breaches}{also}")
        }
    }
}

/// The plan. `apply` is the command that executes it, unless it is executed next.
fn plan(plan: &pb::RepairPlan, apply: Option<&str>) -> String {
    if plan.moving {
        return "nothing planned: the event moved while it was read. Close it, or wait until fewer \
                buy, and try again"
            .to_owned();
    }
    let mut text = String::new();
    let count = plan.repairs.len() as i64;
    let _ = write!(text, "repairs       {}", grouped(count));
    for repair in plan.repairs.iter().take(AUDIT_ITEMS_SHOWN_MAX) {
        let _ = write!(text, "\n  {} {}  {}", repair.kind, repair.id, repair.text);
    }
    if plan.repairs.len() > AUDIT_ITEMS_SHOWN_MAX {
        let rest = grouped(count - AUDIT_ITEMS_SHOWN_MAX as i64);
        let _ = write!(text, "\n  … and {rest} more; --json lists them all");
    }
    if plan.further_repairs > 0 {
        let rest = grouped(plan.further_repairs);
        let _ = write!(text, "\n  {rest} beyond the most of one run: run it again for them");
    }
    if plan.left_count > 0 {
        let _ = write!(text, "\nleft to you   {}", grouped(plan.left_count));
        for left in &plan.left {
            let breach = left.breach.clone().unwrap_or_default();
            let _ = write!(
                text,
                "\n  {} {}  {}\n      {}",
                breach.kind, breach.id, breach.text, left.why
            );
        }
        if plan.left_count > plan.left.len() as i64 {
            let rest = grouped(plan.left_count - plan.left.len() as i64);
            let _ = write!(text, "\n  … and {rest} more");
        }
    }
    if count > 0
        && let Some(command) = apply
    {
        let _ = write!(text, "\n\nNothing was changed. To do it: {command}");
    }
    text
}

/// The result of the executed plan.
fn done(done: &pb::RepairsDone) -> String {
    let mut text = format!("repaired      {}", grouped(done.done));
    for (what, number) in [("had changed meanwhile", done.stale), ("failed", done.failed)] {
        if number > 0 {
            let _ = write!(text, ", {} {what}", grouped(number));
        }
    }
    for not_done in &done.not_done {
        let repair = not_done.repair.clone().unwrap_or_default();
        let _ = write!(text, "\n  {} {}  not done: {}", repair.kind, repair.id, not_done.why);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn units() -> pb::AuditReport {
        let stripe = |index, remaining, difference| pb::StripeAccount {
            index,
            capacity: 5_000,
            remaining,
            held: 3,
            confirmed: 12,
            difference,
            moving: false,
            moved: 0,
        };
        pb::AuditReport {
            event_id: "evt_1".to_owned(),
            verdict: pb::AuditVerdict::Breached.into(),
            stripes: vec![stripe(0, 4_985, 0), stripe(1, 4_980, 5)],
            reservations: Some(pb::ReservationAccount {
                held: 2,
                confirmed: 1_234,
                ..pb::ReservationAccount::default()
            }),
            orders: 1_234,
            overdue_count: 7,
            overdue: (0..6)
                .map(|n| pb::OverdueHold { reservation_id: format!("r{n}"), late_ms: 1_500 - n })
                .collect(),
            breach_count: 51,
            breaches: vec![pb::AuditBreach {
                kind: "stripe".to_owned(),
                id: "1".to_owned(),
                code: "REMAINING_DIFFERS".to_owned(),
                text: "5 fewer than there can be".to_owned(),
            }],
            ..pb::AuditReport::default()
        }
    }

    #[test]
    fn json_has_the_messages_of_the_contract_and_the_name_of_the_verdict() {
        let seen = serde_json::to_value(AuditReportView::from(units())).unwrap();
        assert_eq!(seen["verdict"], "BREACHED");
        assert_eq!(seen["stripes"][1]["difference"], 5);
        assert_eq!(seen["seats"]["unreadable"], 0, "also of an event without seats");
        assert_eq!(seen["held"], serde_json::Value::Null);
        let breach = serde_json::json!({
            "kind": "stripe", "id": "1", "code": "REMAINING_DIFFERS",
            "text": "5 fewer than there can be",
        });
        assert_eq!(seen["breaches"], serde_json::json!([breach]));
        let left =
            pb::LeftBreach { breach: units().breaches.pop(), why: "it is oversold".to_owned() };
        let plan = pb::RepairPlan { left: vec![left], left_count: 1, ..pb::RepairPlan::default() };
        let seen =
            serde_json::to_value(RepairPlanView { plan, apply: Some(String::new()) }).unwrap();
        let expected = serde_json::json!({
            "moving": false, "repairs": [], "further_repairs": 0, "left_count": 1,
            "left": [{ "breach": breach, "why": "it is oversold" }],
        });
        assert_eq!(seen, expected);
        let seen = serde_json::to_value(RepairsDoneView(pb::RepairsDone::default())).unwrap();
        let expected = serde_json::json!({ "done": 0, "stale": 0, "failed": 0, "not_done": [] });
        assert_eq!(seen, expected);
    }

    #[test]
    fn breaches_are_listed_below_the_table() {
        let expected = "\
event evt_1   units, open

stripe   capacity   remaining   held   confirmed   blocked   surplus
     0      5,000       4,985      3          12         0         0
     1      5,000       4,980      3          12         0        -5
   all     10,000       9,965      6          24         0        -5

reservations  2 HELD · 1,234 CONFIRMED
orders        1,234 distinct
overdue       7 holds past the expiry, by up to 1.5 s; a breach from 60 s on
              r0  1.5 s
              r1  1.5 s
              r2  1.5 s
              r3  1.5 s
              r4  1.5 s
              … and 2 more
breaches      51
  stripe 1  5 fewer than there can be
  … and 50 more

BROKEN: 51 breaches";
        assert_eq!(report(&units()), expected);
    }

    #[test]
    fn seats_have_one_row_and_their_states() {
        let of = pb::AuditReport {
            event_id: "hall".to_owned(),
            verdict: pb::AuditVerdict::Clean.into(),
            seated: true,
            closed: true,
            stripes: vec![pb::StripeAccount::default()],
            seats: Some(pb::SeatAccount {
                total: 10,
                available: 6,
                hold: 1,
                sold: 2,
                blocked: 1,
                held: 1,
                confirmed: 2,
                ..pb::SeatAccount::default()
            }),
            orders: 1,
            ..pb::AuditReport::default()
        };
        let expected = "\
event hall   seats, closed

        capacity   remaining   held   confirmed   blocked   surplus
seats         10           6      1           2         1         0

seats         6 AVAILABLE · 1 HOLD · 2 SOLD · 1 BLOCKED
reservations  none
orders        1 distinct
breaches      0

CLEAN: every number adds up";
        assert_eq!(report(&of), expected);
    }

    #[test]
    fn changing_parts_are_noted_and_not_subtracted() {
        let mut of = units();
        of.stripes[1].moving = true;
        of.moving_stripes = vec![1];
        of.moving_seats = 2;
        assert!(report(&of).contains("moving\n"));
        assert!(report(&of).ends_with(
            "BROKEN: 51 breaches; not judged: sales from stripe 1 at every reading; 2 seats \
             changed hands"
        ));
        of.verdict = pb::AuditVerdict::Moving.into();
        assert!(report(&of).contains(
            "\nSTILL MOVING: no breach in the parts that did not change; sales from stripe 1"
        ));
    }

    #[test]
    fn repair_plan_names_remaining_breaches_and_the_next_command() {
        let repair = |n: usize| pb::PlannedRepair {
            kind: "seat".to_owned(),
            id: format!("s{n}"),
            code: "FREE_SEAT".to_owned(),
            text: "SOLD to r1 → AVAILABLE".to_owned(),
        };
        let mut of = pb::RepairPlan {
            repairs: (0..52).map(repair).collect(),
            left: vec![pb::LeftBreach {
                breach: units().breaches.pop(),
                why: "it is oversold".to_owned(),
            }],
            left_count: 1,
            ..pb::RepairPlan::default()
        };
        let shown = plan(&of, Some("inventory-api reconcile hall --apply --admin 127.0.0.1:18081"));
        for line in [
            "repairs       52\n  seat s0  SOLD to r1 → AVAILABLE\n",
            "… and 2 more; --json lists them all",
            "left to you   1\n  stripe 1  5 fewer than there can be\n      it is oversold\n",
            "To do it: inventory-api reconcile hall --apply --admin 127.0.0.1:18081",
        ] {
            assert!(shown.contains(line), "{line:?} in\n{shown}");
        }
        assert!(!shown.contains("s50"));
        assert!(!plan(&of, None).contains("To do it"));
        of.moving = true;
        assert!(plan(&of, None).contains("nothing planned"));
    }

    #[test]
    fn repairs_that_were_not_done_are_named() {
        let of = pb::RepairsDone {
            done: 3,
            stale: 1,
            failed: 0,
            not_done: vec![pb::RepairNotDone {
                repair: Some(pb::PlannedRepair {
                    kind: "stripe".to_owned(),
                    id: "2".to_owned(),
                    ..pb::PlannedRepair::default()
                }),
                why: "it had changed".to_owned(),
            }],
        };
        let expected = "\
repaired      3, 1 had changed meanwhile
  stripe 2  not done: it had changed";
        assert_eq!(done(&of), expected);
    }
}
