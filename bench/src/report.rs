//! Medians over rounds, text tables, and verdicts on bounds.
//!
//! Not here: where a figure comes from.

use inventory_process::{PrintError, print};

use crate::BenchVerdict;

/// Required range of a figure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Requirement {
    AtMost(f64),
    Below(f64),
    AtLeast(f64),
}

impl Requirement {
    fn contains(self, value: f64) -> bool {
        match self {
            Self::AtMost(max) => value <= max,
            Self::Below(bound) => value < bound,
            Self::AtLeast(min) => value >= min,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(max) => format!("at most {max}"),
            Self::Below(bound) => format!("below {bound}"),
            Self::AtLeast(min) => format!("at least {min}"),
        }
    }
}

/// A figure with a required range. The median over the rounds decides.
pub(crate) struct Bound {
    pub(crate) name: String,
    /// One value per round. Empty: not part of this run.
    pub(crate) values: Vec<f64>,
    pub(crate) limit: Requirement,
}

impl Bound {
    /// A missing figure does not meet any bound.
    pub(crate) fn is_met(&self) -> bool {
        self.limit.contains(median(&self.values))
    }

    fn line(&self) -> String {
        let word = if self.is_met() { "met   " } else { "MISSED" };
        format!(
            "{word}  {}: {}, required {}",
            self.name,
            median_and_range(&self.values),
            self.limit.text()
        )
    }
}

/// Prints a line for each bound with values.
///
/// # Errors
/// If standard output cannot be written.
pub(crate) fn print_bounds(bounds: &[Bound]) -> Result<BenchVerdict, PrintError> {
    let mut verdict = BenchVerdict::Ok;
    for bound in bounds.iter().filter(|bound| !bound.values.is_empty()) {
        print(bound.line())?;
        if !bound.is_met() {
            verdict = BenchVerdict::Missed;
        }
    }
    Ok(verdict)
}

/// The median of the values that are not NaN; NaN without such values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The median and, for several values, their range.
pub(crate) fn median_and_range(values: &[f64]) -> String {
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let middle = rounded(median(values));
    match values.len() {
        0 | 1 => middle,
        _ => format!("{middle} ({} to {})", rounded(min), rounded(max)),
    }
}

fn rounded(value: f64) -> String {
    match value.abs() {
        v if v.is_nan() => "no figure".to_owned(),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A cell with `digits` decimals; a dash for NaN.
pub(crate) fn number(value: f64, digits: usize) -> String {
    match value.is_nan() {
        true => "–".to_owned(),
        false => format!("{value:.digits$}"),
    }
}

/// Renders rows of cells below `header`. The first column is left-aligned, the others are right-aligned.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let cells = cells.map(|cell| cell.chars().count());
        cells.chain([header[column].chars().count()]).max()
    };
    let widths: Vec<usize> = (0..header.len()).filter_map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).enumerate().map(|(n, (cell, width))| {
            let width = *width;
            match n {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            }
        });
        let line: Vec<String> = padded.collect();
        line.join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut header.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(values: &[f64], limit: Requirement) -> Bound {
        Bound { name: "x".to_owned(), values: values.to_vec(), limit }
    }

    #[test]
    fn the_median_decides_and_the_range_is_shown() {
        let met = bound(&[39.0, 45.0, 38.0], Requirement::Below(40.0));
        assert!(met.is_met());
        assert!(met.line().contains("39.0 (38.0 to 45.0), required below 40"));
        let missed = bound(&[40.0], Requirement::Below(40.0));
        assert!(!missed.is_met() && missed.line().starts_with("MISSED"));
        assert!(bound(&[40.0], Requirement::AtMost(40.0)).is_met());
        assert!(bound(&[0.9, 0.8, 1.0], Requirement::AtLeast(0.9)).is_met());
    }

    #[test]
    fn a_missing_figure_meets_no_bound() {
        for limit in [Requirement::AtMost(1.0), Requirement::Below(1.0), Requirement::AtLeast(0.0)]
        {
            assert!(!bound(&[], limit).is_met());
            assert!(!bound(&[f64::NAN], limit).is_met());
        }
    }

    #[test]
    fn bounds_without_values_are_skipped() {
        let skipped = bound(&[], Requirement::AtMost(1.0));
        assert_eq!(print_bounds(&[skipped]).unwrap(), BenchVerdict::Ok);
        let missing = bound(&[f64::NAN], Requirement::AtMost(1.0));
        assert_eq!(print_bounds(&[missing]).unwrap(), BenchVerdict::Missed);
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn columns_are_aligned() {
        let rows =
            [vec!["a".to_owned(), "1.0".to_owned()], vec!["long".to_owned(), "–".to_owned()]];
        assert_eq!(table(&["", "µs"], &rows), "       µs\na     1.0\nlong    –\n");
    }
}
