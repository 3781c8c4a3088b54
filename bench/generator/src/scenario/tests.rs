//! Valid and invalid scenarios.

use super::*;

const PLAIN: &str = r#"
title = "t"
rate = 1000
duration = 10
events = { prefix = "evt", stock = 100000 }
mix = { direct_commit = 100 }
"#;

fn with(line: &str) -> Scenario {
    // Top-level keys must precede the tables.
    Scenario::parse(&format!("{line}\n{PLAIN}")).unwrap()
}

fn rejection(text: &str) -> String {
    let scenario = match Scenario::parse(text) {
        Ok(scenario) => scenario,
        Err(why) => return why,
    };
    scenario.check().unwrap_err().to_string()
}

#[test]
fn all_scenarios_of_the_repository_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let scenario = Scenario::load(&path, &ScenarioOverrides::default()).unwrap();
        assert!(scenario.whole().calls() > 0.0);
        count += 1;
    }
    assert!(count >= 8, "{count}");
}

#[test]
fn missing_keys_have_defaults() {
    let scenario = with("");
    scenario.check().unwrap();
    assert_eq!(scenario.contract, Contract::InventoryV1);
    assert_eq!((scenario.qty.min, scenario.qty.max), (1, 1));
    assert_eq!(scenario.whole().calls(), 10_000.0);
    assert_eq!(scenario.stripes(), 0);
}

#[test]
fn an_unknown_key_is_named_with_the_known_keys() {
    let why = rejection(&format!("{PLAIN}\n[duplicate]\npercent = 1"));
    assert!(why.contains("duplicate") && why.contains("duplicates"), "{why}");
    let why = rejection(&PLAIN.replace("direct_commit = 100", "direct = 100"));
    assert!(why.contains("`direct`") && why.contains("direct_commit"), "{why}");
}

#[test]
fn an_invalid_value_is_named_with_the_valid_range() {
    // Replaced text | replacement, where ; separates lines | key | valid range.
    let table = r#"
        rate = 1000 | rate = -1 | rate | 0.001 to
        rate = 1000 | rate = nan | rate | 0.001 to
        duration = 10 | duration = 0 | duration | 0.1 to
        duration = 10 |  | duration | steps in curve
        direct_commit = 100 | direct_commit = 99 | sum of mix | 100 percent
        direct_commit = 100 | hold = 40, commit = 60 | mix.commit | at most mix.hold
        stock = 100000 | stock = 0 | events.stock | 1 to
        stock = 100000 | stock = 5, seats = 5 | events.stock | with events.seats
        stock = 100000 | seats = 5 | seats | pick
        stock = 100000 | stock = 5, stripes = 65 | events.stripes | 1 to 64
        stock = 100000 | stock = 5, stripes = "many" | many | auto
        "evt" | "e#1" | events.prefix | A-Z
        rate = 1000 | rate = 9 ; users = 5 | rate with users | 0 to 0
        rate = 1000 | users = 0 | users | 1 to
        rate = 1000 | rate = 9 ; calls = 5 | calls | only with users
        title = "t" | title = "t" ; connections = 0 | connections | 1 to
        title = "t" | title = "t" ; qty = { min = 0, max = 1 } | qty.min | 1 to 10
        title = "t" | title = "t" ; qty = { min = 3, max = 2 } | qty.max | 3 to 10
        title = "t" | title = "t" ; duplicates = { percent = 101 } | duplicates.percent | 0 to 100
        duration = 10 | curve = [{ seconds = 1 }] | curve | times, or from and to
        duration = 10 | duration = 1e9 | duration | 0.1 to
        rate = 1000 | rate = 999999 ; contract = "C" | contract | `A`
    "#;
    for row in table.trim().lines() {
        let cells: Vec<&str> = row.split(" | ").map(str::trim).collect();
        let [from, to, key, want] = cells[..] else {
            panic!("{row}");
        };
        let to = &to.replace(" ; ", "\n");
        let why = rejection(&PLAIN.replace(from, to));
        assert!(why.contains(key) && why.contains(want), "{to}: {why}");
    }
}

#[test]
fn a_curve_consists_of_steps_and_ramps_of_the_rate() {
    let text = PLAIN.replace(
        "duration = 10",
        "warmup = 4\ncurve = [{ seconds = 2, times = 3 }, { seconds = 2, from = 1, to = 0 }]",
    );
    let mut scenario = Scenario::parse(&text).unwrap();
    scenario.check().unwrap();
    assert_eq!(scenario.measured().calls(), 6_000.0 + 1_000.0);
    assert_eq!(scenario.whole().calls(), 7_000.0 + 3_000.0 + 6_000.0);
    let overrides = ScenarioOverrides {
        rate: Some(10.0),
        duration: Some(40.0),
        ..ScenarioOverrides::default()
    };
    scenario.apply(&overrides);
    assert_eq!(scenario.measured().seconds(), 40.0);
    assert_eq!(scenario.measured().calls(), 700.0);
}

#[test]
fn auto_leaves_the_number_of_stripes_to_the_server() {
    let stripes = |stripes: &str, stock: &str| {
        let events = format!("stock = {stock}, stripes = {stripes}");
        let text = PLAIN.replace("stock = 100000", &events);
        Scenario::parse(&text).unwrap().stripes()
    };
    assert_eq!(stripes("\"auto\"", "100000"), 0);
    assert_eq!(stripes("15", "100000"), 15);
    assert_eq!(stripes("15", "3"), 3);
}

#[test]
fn events_have_weights_by_zipfs_law() {
    let text = PLAIN.replace("stock = 100000", "stock = 9, count = 3, zipf = 1.0");
    let weights: Vec<f64> = Scenario::parse(&text).unwrap().events.weights().collect();
    assert_eq!(weights, [1.0, 0.5, 1.0 / 3.0]);
}

#[test]
fn a_closed_loop_plans_no_calls_by_rate() {
    let text = PLAIN.replace("rate = 1000", "users = 20\ncalls = 500");
    let scenario = Scenario::parse(&text).unwrap();
    scenario.check().unwrap();
    assert_eq!((scenario.whole().calls(), scenario.expected_calls()), (0.0, 500.0));
    assert_eq!(scenario.whole().seconds(), 10.0);
}
