//! The figures of one run, read from the reports of the generator and the store model.
//!
//! Not here: medians, bounds.

use serde_json::Value;

/// Measurement of one run. A figure that does not apply is NaN.
#[derive(Clone, Debug)]
pub(crate) struct Measurement {
    report: Value,
    model: Value,
}

impl Measurement {
    pub(crate) fn new(report: Value, model: Value) -> Self {
        Self { report, model }
    }

    /// Whether every promise was kept; requires that the store was read back.
    pub(crate) fn promises_kept(&self) -> bool {
        let promises = &self.report["promises"];
        promises["kept"] == true && promises["store_read"] == true
    }

    /// Descriptions of the first few broken promises.
    pub(crate) fn violations(&self) -> Vec<String> {
        texts(&self.report["promises"]["examples"])
    }

    /// Why the run is invalid; empty for a valid run.
    pub(crate) fn invalid_because(&self) -> Vec<String> {
        texts(&self.report["invalid_because"])
    }

    fn method(&self, name: &str) -> &Value {
        let methods = self.report["methods"].as_array();
        let found = methods.and_then(|all| all.iter().find(|m| m["method"] == name));
        found.unwrap_or(&Value::Null)
    }

    /// A figure of one method, by its JSON pointer.
    pub(crate) fn method_figure(&self, method: &str, path: &str) -> f64 {
        figure(self.method(method).pointer(path))
    }

    /// Sum of a figure over all methods.
    pub(crate) fn sum(&self, path: &str) -> f64 {
        let methods = self.report["methods"].as_array();
        let all = methods.into_iter().flatten();
        all.map(|method| figure(method.pointer(path))).sum()
    }

    pub(crate) fn measured_s(&self) -> f64 {
        figure(self.report.get("measured_s"))
    }

    pub(crate) fn ok_per_s(&self) -> f64 {
        self.sum("/ok") / self.measured_s()
    }

    pub(crate) fn calls_per_s(&self) -> f64 {
        self.sum("/calls") / self.measured_s()
    }

    fn process(&self, name: &str) -> &Value {
        let processes = self.report["processes"].as_array();
        let found = processes.and_then(|all| all.iter().find(|p| p["name"] == name));
        found.unwrap_or(&Value::Null)
    }

    /// CPU time of the server per call, in microseconds.
    pub(crate) fn server_us_per_call(&self) -> f64 {
        figure(self.process("server").get("cpu_us_per_call"))
    }

    /// CPU time of the server per successful call, in microseconds.
    pub(crate) fn server_us_per_ok(&self) -> f64 {
        figure(self.process("server").get("cpu_us_per_ok"))
    }

    /// CPUs used by one process group in the measured part.
    pub(crate) fn cores(&self, name: &str) -> f64 {
        figure(self.process(name).pointer("/measured/cpu_seconds")) / self.measured_s()
    }

    /// Maximum resident memory of the server, in MiB.
    pub(crate) fn server_mib(&self) -> f64 {
        figure(self.process("server").get("rss_most_bytes")) / f64::from(1 << 20)
    }

    /// Resident memory of the server over time: seconds, MiB.
    pub(crate) fn server_rss(&self) -> Vec<(f64, f64)> {
        let samples = self.process("server")["samples"].as_array();
        let point = |sample: &Value| {
            let mib = figure(sample.get("rss_bytes")) / f64::from(1 << 20);
            (figure(sample.get("at")), mib)
        };
        samples.into_iter().flatten().map(point).collect()
    }

    /// A figure of each second.
    pub(crate) fn by_second(&self, name: &str) -> Vec<f64> {
        let seconds = self.report["seconds"].as_array();
        let all = seconds.into_iter().flatten();
        all.map(|second| figure(second.get(name))).collect()
    }

    pub(crate) fn warmup_s(&self) -> f64 {
        figure(self.report.get("warmup_s"))
    }

    /// A figure of one segment of the rate curve.
    pub(crate) fn phase(&self, n: usize, path: &str) -> f64 {
        figure(self.report["phases"][n].pointer(path))
    }

    /// Seconds until the last event was sold out; NaN if an event was not sold out.
    pub(crate) fn sold_out_s(&self) -> f64 {
        let events = self.report["events"].as_array();
        let all = events.into_iter().flatten();
        all.map(|event| figure(event.get("sold_out_s")))
            .fold(0.0, |most, one| if one.is_nan() { one } else { f64::max(most, one) })
    }

    /// Lateness at the 99th percentile, in milliseconds.
    pub(crate) fn lateness_ms(&self) -> f64 {
        figure(self.report.pointer("/generator/lateness/p99"))
    }

    /// A figure of the store model, by its JSON pointer.
    pub(crate) fn model(&self, path: &str) -> f64 {
        figure(self.model.pointer(path))
    }

    /// Sum of the figures of an object of the store model.
    pub(crate) fn model_sum(&self, path: &str) -> f64 {
        let object = self.model.pointer(path).and_then(Value::as_object);
        object.map_or(f64::NAN, |object| object.values().filter_map(Value::as_f64).sum())
    }
}

fn figure(value: Option<&Value>) -> f64 {
    value.and_then(Value::as_f64).unwrap_or(f64::NAN)
}

fn texts(value: &Value) -> Vec<String> {
    let all = value.as_array().into_iter().flatten();
    all.filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_missing_figure_is_nan() {
        let empty = Measurement::new(json!({}), json!({}));
        assert!(empty.method_figure("commit", "/answered/p95").is_nan());
        assert!(empty.ok_per_s().is_nan() && empty.model("/x").is_nan());
        assert!(!empty.promises_kept());
    }

    #[test]
    fn promises_are_kept_only_if_the_store_was_read() {
        let promises = |read| json!({"promises": {"kept": true, "store_read": read}});
        assert!(Measurement::new(promises(true), Value::Null).promises_kept());
        assert!(!Measurement::new(promises(false), Value::Null).promises_kept());
    }

    #[test]
    fn sold_out_requires_all_events() {
        let events = |second: Value| {
            let events = json!({"events": [{"sold_out_s": 2.5}, {"sold_out_s": second}]});
            Measurement::new(events, Value::Null).sold_out_s()
        };
        assert_eq!(events(json!(1.0)), 2.5);
        assert!(events(Value::Null).is_nan());
    }
}
