//! Numbers as short texts, rounded for display. Not here: their place on the screen (`view`).

/// A whole number, in groups of three up to a million, then in M.
pub(super) fn count(number: f64) -> String {
    if number >= 1e7 {
        return format!("{:.1}M", number / 1e6);
    }
    let digits = format!("{number:.0}");
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && digit.is_ascii_digit() {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A rate per second: with a decimal if it is small, `0` only if it is zero.
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        none if none <= 0.0 => "0".to_owned(),
        few if few < 0.05 => "<0.1".to_owned(),
        some if some < 10.0 => format!("{some:.1}"),
        many => count(many),
    }
}

/// Milliseconds: two decimals below ten, one below a hundred.
pub(super) fn ms(ms: Option<f64>) -> String {
    match ms {
        None => "-".to_owned(),
        Some(ms) if ms < 10.0 => format!("{ms:.2}"),
        Some(ms) if ms < 100.0 => format!("{ms:.1}"),
        Some(ms) => count(ms),
    }
}

/// A method name in `width` columns: complete, without the package, or cut at the front.
pub(super) fn method_name(name: &str, width: usize) -> String {
    if name.len() <= width {
        return name.to_owned();
    }
    let (service, method) = name.split_once('/').unwrap_or(("", name));
    let service = service.rsplit('.').next().unwrap_or_default();
    let short = format!("{service}/{method}");
    match short.len().checked_sub(width) {
        None | Some(0) => short,
        // One more for the ellipsis.
        Some(over) => format!("…{}", short.get(over + 1..).unwrap_or_default()),
    }
}

/// An amount of memory.
pub(super) fn bytes(bytes: f64) -> String {
    let mib = bytes / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.0} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

/// A duration in its two largest units.
pub(in crate::cli) fn span(seconds: f64) -> String {
    let whole = seconds as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60);
    match whole {
        0..60 => format!("{whole} s"),
        60..3_600 => format!("{minutes} min {} s", whole % 60),
        3_600..86_400 => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_their_columns_and_keep_what_matters() {
        let counts = [0.0, 999.0, 1_000.0, 123_456.0, 9_999_999.0, 12_345_678.0, -1_500.0];
        let shown = ["0", "999", "1,000", "123,456", "9,999,999", "12.3M", "-1,500"];
        assert_eq!(counts.map(count), shown);
        let rates = [0.0, 0.01, 0.44, 9.96, 10.0, 30_021.4];
        assert_eq!(rates.map(rate), ["0", "<0.1", "0.4", "10.0", "10", "30,021"]);
        let times = [None, Some(0.213), Some(64.62), Some(1_234.5)];
        assert_eq!(times.map(ms), ["-", "0.21", "64.6", "1,234"]);
        let spans = [0.4, 61.0, 3_660.0, 90_000.0];
        assert_eq!(spans.map(span), ["0 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
        let memory = [47_800_320.0, 8e9];
        assert_eq!(memory.map(bytes), ["46 MiB", "7.5 GiB"]);
    }
}
