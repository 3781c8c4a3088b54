//! Injected faults.

use crate::fixture::{VirtualModel, add, error, put, settings, transaction};
use inventory_store_model::{FaultKind, FaultRule, LatencyProfile, ModelSettings};

fn fault(kind: FaultKind) -> FaultRule {
    let delay_ms = match kind {
        FaultKind::DelayedAnswer => 500,
        _ => 0,
    };
    kind.with_probability(1.0).delayed_by(delay_ms)
}

#[test]
fn each_fault_affects_only_its_operation() {
    for (kind, status, name, applied) in [
        (FaultKind::LostAnswer, 0, "", 1),
        (FaultKind::LostRequest, 0, "", 0),
        (FaultKind::DelayedAnswer, 200, "", 1),
        (FaultKind::Throttle, 400, "TransactionCanceledException", 0),
        (FaultKind::Conflict, 400, "TransactionCanceledException", 0),
    ] {
        let mut model = VirtualModel::new(settings(LatencyProfile::InRegion));
        model.call("PutItem", put("a"));
        model.model.set_faults(vec![fault(kind).on("TransactWriteItems")]).unwrap();
        let began = model.now;
        let ticket = model.send("TransactWriteItems", &transaction(&["a"], None));
        let (at, got, body) = model.wait(ticket);
        assert_eq!((got, error(&body)), (status, name), "{kind:?}");
        if kind == FaultKind::DelayedAnswer {
            assert!(at - began > 500_000);
        }
        // Reads are not affected, and the faults can be removed.
        assert_eq!(model.item("a")["n"]["N"], applied.to_string().as_str(), "{kind:?}");
        model.model.set_faults(Vec::new()).unwrap();
        assert_eq!(model.call("TransactWriteItems", transaction(&["a"], None)).0, 200);
    }
}

#[test]
fn an_internal_error_is_applied_in_half_of_the_cases() {
    let mut model = VirtualModel::new(settings(LatencyProfile::None));
    model.call("PutItem", put("a"));
    model.model.set_faults(vec![fault(FaultKind::Error500).on("UpdateItem")]).unwrap();
    for _ in 0..400 {
        let (status, body) = model.call("UpdateItem", add("a", 1));
        assert_eq!((status, error(&body)), (500, "InternalServerError"));
    }
    let applied: u32 = model.item("a")["n"]["N"].as_str().unwrap().parse().unwrap();
    assert!((150..250).contains(&applied), "{applied}");
}

#[test]
fn equal_seeds_give_equal_runs() {
    let run = |seed| {
        let mut model = VirtualModel::new(ModelSettings {
            seed,
            faults: vec![FaultKind::LostAnswer.with_probability(0.3)],
            ..settings(LatencyProfile::InRegion)
        });
        let tickets: Vec<_> = (0..50).map(|_| model.send("UpdateItem", &add("a", 1))).collect();
        tickets.into_iter().map(|ticket| model.wait(ticket)).collect::<Vec<_>>()
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}
