//! Medians over rounds, the table of them, and whether they are good enough.
//!
//! Must not live here: where a figure comes from.

use std::fmt::Write as _;

use crate::figures::Figures;

/// A column of the table.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    pub(crate) digits: usize,
    pub(crate) of: fn(&Figures) -> f64,
}

/// What a figure must be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    AtMost(f64),
    Below(f64),
    AtLeast(f64),
}

impl Wanted {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::Below(bound) => value < bound,
            Self::AtLeast(least) => value >= least,
        }
    }

    fn words(self) -> String {
        match self {
            Self::AtMost(most) => format!("at most {most}"),
            Self::Below(bound) => format!("below {bound}"),
            Self::AtLeast(least) => format!("at least {least}"),
        }
    }
}

/// A figure that is held to something.
pub(crate) struct Bound {
    pub(crate) what: String,
    /// One value per round.
    pub(crate) values: Vec<f64>,
    pub(crate) wanted: Wanted,
}

/// All runs of one case.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) runs: Vec<Figures>,
}

impl Row {
    pub(crate) fn median(&self, of: impl Fn(&Figures) -> f64) -> f64 {
        median(&self.each(of))
    }

    pub(crate) fn each(&self, of: impl Fn(&Figures) -> f64) -> Vec<f64> {
        self.runs.iter().map(of).collect()
    }
}

/// NaN of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

/// A row per case, a column per figure, each the median of the case's rounds.
pub(crate) fn table(rows: &[Row], columns: &[Column]) -> String {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let figure = |column: &Column| number(row.median(column.of), column.digits);
            columns.iter().map(figure).collect()
        })
        .collect();
    let name_width = rows.iter().map(|row| row.name.chars().count()).max();
    let name_width = name_width.unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len())
        .map(|n| {
            let longest = cells.iter().map(|row| row[n].len()).max().unwrap_or(0);
            longest.max(columns[n].title.chars().count())
        })
        .collect();
    let mut text = " ".repeat(name_width);
    for (column, width) in columns.iter().zip(&widths) {
        let _ = write!(text, "  {:>width$}", column.title);
    }
    for (row, cells) in rows.iter().zip(&cells) {
        let _ = write!(text, "\n{:<name_width$}", row.name);
        for (cell, width) in cells.iter().zip(&widths) {
            let _ = write!(text, "  {cell:>width$}");
        }
    }
    text.push('\n');
    text
}

fn number(value: f64, digits: usize) -> String {
    match value.is_nan() {
        true => "–".to_owned(),
        false => format!("{value:.digits$}"),
    }
}

/// Whether a bound is kept, in words: by its median, with the range of its rounds.
pub(crate) fn judged(bound: &Bound) -> (bool, String) {
    let value = median(&bound.values);
    let holds = bound.wanted.holds(value);
    let lowest = bound.values.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = bound
        .values
        .iter()
        .copied()
        .fold(f64::NEG_INFINITY, f64::max);
    let range = match bound.values.len() {
        0 | 1 => String::new(),
        _ => format!(" ({} to {})", rounded(lowest), rounded(highest)),
    };
    let word = if holds { "kept  " } else { "MISSED" };
    let line = format!(
        "{word}  {}: {}{range}, wanted {}",
        bound.what,
        rounded(value),
        bound.wanted.words()
    );
    (holds, line)
}

fn rounded(value: f64) -> String {
    match value.abs() {
        v if v.is_nan() => "no figure".to_owned(),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(values: &[f64], wanted: Wanted) -> Bound {
        Bound {
            what: "x".to_owned(),
            values: values.to_vec(),
            wanted,
        }
    }

    #[test]
    fn the_median_decides_and_the_range_is_told() {
        let (holds, line) = judged(&bound(&[39.0, 45.0, 38.0], Wanted::Below(40.0)));
        assert!(holds && line.contains("39.0 (38.0 to 45.0)"), "{line}");
        assert!(!judged(&bound(&[40.0], Wanted::Below(40.0))).0);
        assert!(judged(&bound(&[40.0], Wanted::AtMost(40.0))).0);
        assert!(judged(&bound(&[0.9, 0.8, 1.0], Wanted::AtLeast(0.9))).0);
    }

    #[test]
    fn what_was_not_measured_is_not_kept() {
        for wanted in [
            Wanted::AtMost(1.0),
            Wanted::Below(1.0),
            Wanted::AtLeast(0.0),
        ] {
            assert!(!judged(&bound(&[], wanted)).0);
            assert!(!judged(&bound(&[f64::NAN], wanted)).0);
        }
    }

    #[test]
    fn even_counts_meet_in_the_middle() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
