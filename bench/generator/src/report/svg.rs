//! The percentile plot: how slow the slowest were, to as many nines as there were calls.

use std::fmt::Write;

use super::{BAR_MS, MethodReport, Report};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 540.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 200.0;
const TOP: f64 = 78.0;
const BOTTOM: f64 = 66.0;

/// Told apart also without colour vision.
const COLORS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"];
const DASHES: [&str; 5] = ["", "9 4", "3 3", "12 4 3 4", "1 4"];

/// How the latencies are laid out upwards.
struct Scale {
    low: f64,
    high: f64,
    log: bool,
    ticks: Vec<f64>,
}

impl Scale {
    fn of(report: &Report) -> Self {
        let values = || {
            report
                .methods
                .iter()
                .flat_map(|m| m.plot.iter().map(|(_, ms)| *ms))
        };
        let most = values().fold(BAR_MS * 1.15, f64::max);
        let least = values().fold(f64::INFINITY, f64::min).clamp(0.05, 10.0);
        // A straight scale would press everything below a long tail into one line.
        if most > 8.0 * BAR_MS {
            let low = 10.0_f64.powf(least.log10().floor());
            let high = 10.0_f64.powf(most.log10().ceil());
            let mut ticks = Vec::new();
            let mut decade = low;
            while decade <= high * 1.001 {
                ticks.extend(
                    [1.0, 2.0, 5.0]
                        .map(|n| n * decade)
                        .iter()
                        .filter(|t| **t <= high * 1.001),
                );
                decade *= 10.0;
            }
            return Self {
                low,
                high,
                log: true,
                ticks,
            };
        }
        let raw = most / 7.0;
        let unit = 10.0_f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|n| n * unit)
            .into_iter()
            .find(|step| *step >= raw);
        let step = step.unwrap_or(raw);
        let count = (most / step).ceil() as u32;
        Self {
            low: 0.0,
            high: f64::from(count) * step,
            log: false,
            ticks: (0..=count).map(|n| f64::from(n) * step).collect(),
        }
    }

    fn y(&self, ms: f64) -> f64 {
        let part = match self.log {
            true => (ms.max(self.low) / self.low).log10() / (self.high / self.low).log10(),
            false => ms / self.high,
        };
        TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - part.clamp(0.0, 1.0))
    }
}

/// Nines to the right edge.
fn nines(report: &Report) -> f64 {
    let calls = report
        .methods
        .iter()
        .map(|m| m.answered.count)
        .max()
        .unwrap_or(1);
    (calls as f64).log10().ceil().clamp(2.0, 7.0)
}

fn x(percentile: f64, nines: f64) -> f64 {
    let rest = (1.0 - percentile / 100.0).max(1e-12);
    LEFT + (WIDTH - LEFT - RIGHT) * (-rest.log10() / nines).clamp(0.0, 1.0)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// The plot of a run as an SVG document.
pub fn draw(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write(report, &mut out);
    out
}

fn write(report: &Report, out: &mut String) -> std::fmt::Result {
    let (scale, nines) = (Scale::of(report), nines(report));
    writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="DejaVu Sans, Helvetica, Arial, sans-serif" fill="{INK}">
<rect width="100%" height="100%" fill="white"/>
<text x="{LEFT}" y="32" font-size="20" font-weight="bold">{}</text>
<text x="{LEFT}" y="56" font-size="14" fill="{PALE_INK}">{:.0} calls/s for {} s, {} connections; latency from when each call was due{}</text>"#,
        escape(&report.title),
        report.rate,
        report.measured_s,
        report.connections,
        match report.valid {
            true => "",
            false => " — INVALID RUN",
        },
    )?;
    axes(&scale, nines, out)?;
    let mut label_y = TOP + 8.0;
    let methods = report
        .methods
        .iter()
        .filter(|method| !method.plot.is_empty());
    for (n, method) in methods.enumerate() {
        line(method, n, &scale, nines, out)?;
        label_y = legend(method, n, label_y, out)?;
    }
    bar(&scale, out)?;
    writeln!(out, "</svg>")
}

const INK: &str = "#222222";
const PALE_INK: &str = "#555555";

fn axes(scale: &Scale, nines: f64, out: &mut String) -> std::fmt::Result {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for tick in &scale.ticks {
        let y = scale.y(*tick);
        let label = match tick.fract() == 0.0 || *tick >= 10.0 {
            true => format!("{tick:.0}"),
            false => format!("{}", (tick * 100.0).round() / 100.0),
        };
        writeln!(
            out,
            r##"<line x1="{LEFT}" y1="{y:.1}" x2="{right}" y2="{y:.1}" stroke="#e3e3e3"/><text x="{:.1}" y="{:.1}" font-size="14" text-anchor="end">{label}</text>"##,
            LEFT - 10.0,
            y + 5.0
        )?;
    }
    let mut marks = vec![
        (0.0, "0".to_owned()),
        (50.0, "50".to_owned()),
        (90.0, "90".to_owned()),
        (95.0, "95".to_owned()),
    ];
    let mut nine = 2;
    while f64::from(nine) <= nines {
        let percentile = 100.0 - 10.0_f64.powi(2 - nine);
        let digits = usize::try_from(nine - 2).unwrap_or(0);
        marks.push((percentile, format!("{percentile:.digits$}")));
        nine += 1;
    }
    for (percentile, label) in marks {
        let x = x(percentile, nines);
        writeln!(
            out,
            r##"<line x1="{x:.1}" y1="{TOP}" x2="{x:.1}" y2="{bottom}" stroke="#ececec"/><text x="{x:.1}" y="{:.1}" font-size="14" text-anchor="middle">{label}</text>"##,
            bottom + 22.0
        )?;
    }
    writeln!(
        out,
        r#"<path d="M{LEFT} {TOP} V{bottom} H{right}" fill="none" stroke="{INK}" stroke-width="1.2"/>
<text x="{:.1}" y="{:.1}" font-size="15" text-anchor="middle">percentile of calls (%)</text>
<text transform="translate(24 {:.1}) rotate(-90)" font-size="15" text-anchor="middle">latency (ms{})</text>"#,
        (LEFT + right) / 2.0,
        HEIGHT - 16.0,
        (TOP + bottom) / 2.0,
        match scale.log {
            true => ", logarithmic",
            false => "",
        }
    )
}

fn line(
    method: &MethodReport,
    n: usize,
    scale: &Scale,
    nines: f64,
    out: &mut String,
) -> std::fmt::Result {
    let points: Vec<_> = method
        .plot
        .iter()
        .map(|(percentile, ms)| format!("{:.1},{:.1}", x(*percentile, nines), scale.y(*ms)))
        .collect();
    writeln!(
        out,
        r#"<polyline points="{}" fill="none" stroke="{}" stroke-width="2.4" stroke-linejoin="round" stroke-dasharray="{}"/>"#,
        points.join(" "),
        COLORS[n % COLORS.len()],
        DASHES[n % DASHES.len()]
    )
}

/// Returns where the next entry goes.
fn legend(
    method: &MethodReport,
    n: usize,
    y: f64,
    out: &mut String,
) -> Result<f64, std::fmt::Error> {
    let x = WIDTH - RIGHT + 22.0;
    let (color, dash) = (COLORS[n % COLORS.len()], DASHES[n % DASHES.len()]);
    writeln!(
        out,
        r#"<line x1="{x}" y1="{y:.1}" x2="{:.1}" y2="{y:.1}" stroke="{color}" stroke-width="3" stroke-dasharray="{dash}"/><text x="{:.1}" y="{:.1}" font-size="15">{}</text>
<text x="{x}" y="{:.1}" font-size="13" fill="{PALE_INK}">p95 {:.1}  p99 {:.1} ms</text>"#,
        x + 34.0,
        x + 42.0,
        y + 5.0,
        method.method.name().replace('_', " "),
        y + 25.0,
        method.answered.p95,
        method.answered.p99
    )?;
    Ok(y + 56.0)
}

fn bar(scale: &Scale, out: &mut String) -> std::fmt::Result {
    let y = scale.y(BAR_MS);
    let right = WIDTH - RIGHT;
    writeln!(
        out,
        r##"<line x1="{LEFT}" y1="{y:.1}" x2="{right}" y2="{y:.1}" stroke="#c00000" stroke-width="1.6" stroke-dasharray="6 5"/><text x="{:.1}" y="{:.1}" font-size="14" fill="#c00000">40 ms</text>"##,
        right + 8.0,
        y + 5.0
    )
}
