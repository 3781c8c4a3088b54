//! Parser for the part of the Prometheus text format that inventory-api writes. Not here: the meaning of the metrics
//! (`model`).

use crate::limits::TOP_SAMPLES_MAX;

/// One line of a scrape.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct MetricSample {
    name: String,
    labels: Vec<(String, String)>,
    pub(super) value: f64,
}

impl MetricSample {
    /// The value of a label, empty when it has none of this name.
    pub(super) fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(label, _)| label == name).map_or("", |(_, value)| value)
    }
}

/// All lines of a scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct MetricSamples(Vec<MetricSample>);

impl MetricSamples {
    /// # Errors
    /// The first line that does not parse, or too many lines.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut samples = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let sample = sample(line).ok_or_else(|| {
                let start: String = line.chars().take(60).collect();
                format!("line {} is not a sample: {start:?}", number + 1)
            })?;
            if samples.len() == TOP_SAMPLES_MAX {
                return Err(format!("there are more than {TOP_SAMPLES_MAX} samples"));
            }
            samples.push(sample);
        }
        Ok(Self(samples))
    }

    /// The samples of one metric, in the order of the scrape.
    pub(super) fn of(&self, name: &str) -> impl Iterator<Item = &MetricSample> {
        self.0.iter().filter(move |sample| sample.name == name)
    }

    /// The sum over all labels; 0 when there is none.
    pub(super) fn sum(&self, name: &str) -> f64 {
        self.of(name).map(|sample| sample.value).sum()
    }

    /// The sum of the samples whose label has this value.
    pub(super) fn sum_of(&self, name: &str, label: &str, value: &str) -> f64 {
        self.of(name).filter(|sample| sample.label(label) == value).map(|sample| sample.value).sum()
    }

    pub(super) fn first(&self, name: &str) -> Option<&MetricSample> {
        self.of(name).next()
    }

    /// The distinct values of a label of one metric, in the order of the scrape.
    pub(super) fn values_of(&self, name: &str, label: &str) -> Vec<String> {
        let mut values: Vec<String> = Vec::new();
        for sample in self.of(name) {
            let value = sample.label(label);
            if !values.iter().any(|known| known == value) {
                values.push(value.to_owned());
            }
        }
        values
    }
}

/// `name{label="value",…} value`, or without labels; a timestamp after the value is ignored.
fn sample(line: &str) -> Option<MetricSample> {
    let name_ends = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_ends);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    (!name.is_empty()).then(|| MetricSample { name: name.to_owned(), labels, value })
}

/// The labels, and the rest of the line after the closing brace.
fn labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        let ends = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((name.to_owned(), value));
        rest = quoted.get(ends + 1..)?;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_read_with_and_without_labels() {
        let text = "# HELP a b\n# TYPE a counter\n\na 3\nb{x=\"1\",y=\"say \\\"so\\\", }\"} 0.25 17\nb{x=\"2\"} +Inf\n";
        let samples = MetricSamples::parse(text).unwrap();
        assert_eq!(samples.sum("a"), 3.0);
        let first = samples.first("b").unwrap();
        assert_eq!((first.label("x"), first.value), ("1", 0.25));
        assert_eq!(first.label("y"), "say \"so\", }");
        assert_eq!(first.label("z"), "");
        assert!(samples.sum_of("b", "x", "2").is_infinite());
        assert_eq!(samples.values_of("b", "x"), ["1", "2"]);
        assert_eq!(samples.sum("c"), 0.0);
    }

    #[test]
    fn invalid_exposition_is_rejected_with_its_line() {
        for text in [
            "a 1\n<html>\n",
            "a 1\nb{x=\"1} 2\n",
            "a 1\nb{x=1} 2\n",
            "a 1\nb two\n",
            "a 1\n{x=\"1\"} 2\n",
            "a 1\nb\n",
        ] {
            let error = MetricSamples::parse(text).unwrap_err();
            assert!(error.starts_with("line 2 is not a sample"), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_scrape_without_end_is_refused() {
        let text = "a 1\n".repeat(TOP_SAMPLES_MAX + 1);
        assert!(MetricSamples::parse(&text).unwrap_err().contains("more than"));
    }
}
