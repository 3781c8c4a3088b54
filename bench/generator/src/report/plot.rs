//! The percentile plot of a run as SVG: latency over percentile, with one tick per nine.

use std::error::Error;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{
    AsRangedCoord, DefaultFormatting, KeyPointHint, Ranged, ValueFormatter,
};
use plotters::prelude::*;

use super::{P95_BOUND_MS, RunReport};

const SIZE: (u32, u32) = (960, 540);

/// Distinguishable with colour vision deficiency (Okabe and Ito).
const COLORS: [RGBColor; 5] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
];

/// Renders the plot as an SVG document.
///
/// # Errors
/// If the plot cannot be drawn.
pub fn render(report: &RunReport) -> Result<String, String> {
    let mut svg = String::new();
    draw(report, &mut svg).map_err(|error| format!("the plot cannot be drawn: {error}"))?;
    Ok(svg)
}

fn draw(report: &RunReport, svg: &mut String) -> Result<(), Box<dyn Error>> {
    let validity = match report.valid {
        true => "",
        false => " — INVALID RUN",
    };
    let subtitle = format!(
        "{} for {} s, {} connections; latency from when each call was due{validity}",
        report.load(),
        report.measured_s,
        report.connections,
    );
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(owned)?;
    let area = area.titled(&report.title, ("sans-serif", 20)).map_err(owned)?;
    let area = area.titled(&subtitle, ("sans-serif", 14)).map_err(owned)?;
    let points = report.methods.iter().flat_map(|method| &method.plot);
    let latencies = points.map(|(_, ms)| *ms);
    let max = latencies.clone().fold(P95_BOUND_MS * 1.15, f64::max);
    // On a linear axis a long tail would hide all other latencies.
    match max > 8.0 * P95_BOUND_MS {
        true => {
            let min = latencies.fold(f64::INFINITY, f64::min).clamp(0.05, 10.0);
            draw_chart(report, &area, (min..max).log_scale())?;
        }
        false => draw_chart(report, &area, 0.0..max)?,
    }
    area.present().map_err(owned)
}

fn draw_chart<Y>(
    report: &RunReport,
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    latencies: Y,
) -> Result<(), Box<dyn Error>>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let calls = report.methods.iter().map(|method| method.answered.count);
    let nines = (calls.max().unwrap_or(1) as f64).log10().ceil();
    let nines = nines.clamp(2.0, 7.0);
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .x_label_area_size(48)
        .y_label_area_size(64)
        .build_cartesian_2d(PercentileAxis { nines }, latencies)
        .map_err(owned)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("percentile of calls (%)")
        .y_desc("latency (ms)")
        .x_label_formatter(&|nines| percentile_label(*nines))
        .draw()
        .map_err(owned)?;
    let plotted = report.methods.iter().filter(|method| !method.plot.is_empty());
    for (method, color) in plotted.zip(COLORS.iter().cycle()) {
        let points = method.plot.iter();
        let points = points.map(|(percentile, ms)| (nines_of(*percentile).min(nines), *ms));
        let label = format!(
            "{}: p95 {:.1}, p99 {:.1} ms",
            method.method.name().replace('_', " "),
            method.answered.p95,
            method.answered.p99
        );
        let style = color.stroke_width(2);
        chart
            .draw_series(LineSeries::new(points, style))
            .map_err(owned)?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
    }
    let bound = [(0.0, P95_BOUND_MS), (nines, P95_BOUND_MS)];
    chart
        .draw_series(DashedLineSeries::new(bound, 6, 5, RED.stroke_width(1)))
        .map_err(owned)?
        .label(format!("{P95_BOUND_MS} ms"))
        .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], RED));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()
        .map_err(owned)
}

/// Logarithmic axis of percentiles with a tick for each nine, and for 0, 50 and 95 %.
struct PercentileAxis {
    nines: f64,
}

impl Ranged for PercentileAxis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, nines: &f64, (from, to): (i32, i32)) -> i32 {
        from + (f64::from(to - from) * nines / self.nines).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        let whole = (1..=self.nines as u32).map(f64::from);
        [0.0, nines_of(50.0), nines_of(95.0)].into_iter().chain(whole).collect()
    }

    fn range(&self) -> Range<f64> {
        0.0..self.nines
    }
}

/// The position of a percentile on the axis: 90 % is 1, 99 % is 2, 99.9 % is 3.
fn nines_of(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).max(1e-12).log10()
}

fn percentile_label(nines: f64) -> String {
    let percentile = 100.0 * (1.0 - 10.0_f64.powf(-nines));
    let digits = (nines.round() as usize).saturating_sub(2);
    format!("{percentile:.digits$}")
}

/// The errors of plotters borrow from the document.
fn owned(error: impl Error) -> Box<dyn Error> {
    error.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_have_labels_with_their_digits() {
        let label = |percentile| percentile_label(nines_of(percentile));
        for percentile in ["0", "50", "95", "99", "99.9", "99.999"] {
            assert_eq!(label(percentile.parse().unwrap()), percentile);
        }
    }
}
