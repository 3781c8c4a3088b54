//! Renders one screen, completely each time, as text or as JSON. Not here: the values (`model`), keys and time (`mod`).

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table, Widget};
use serde::Serialize;

use super::model::{EventRow, MethodRow, ShardRow, TopModel};
use super::words::{bytes, count, method_name, ms, rate, span};
use crate::cli::View;
use crate::limits::TOP_ONCE_WIDTH;

/// A smaller terminal shows only a line that asks for more space.
pub(super) const SMALLEST: (u16, u16) = (72, 12);

/// Bound of the P95, as in the alerts.
const P95_MS_MAX: f64 = 40.0;

/// Busy ratio from which a shard counts as saturated.
const BUSY_MAX: f64 = 0.9;

/// Sort order of the events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum EventOrder {
    #[default]
    Rate,
    Remaining,
    Name,
}

impl EventOrder {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Rate => Self::Remaining,
            Self::Remaining => Self::Name,
            Self::Name => Self::Rate,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Rate => "busiest",
            Self::Remaining => "fewest left",
            Self::Name => "name",
        }
    }

    /// The events in this order. They come with the busiest first.
    pub(super) fn of(self, events: &[EventRow]) -> Vec<&EventRow> {
        let mut events: Vec<&EventRow> = events.iter().collect();
        match self {
            Self::Rate => {}
            Self::Remaining => events.sort_by(|one, other| {
                let left = |event: &EventRow| event.remaining.unwrap_or(f64::INFINITY);
                left(one).total_cmp(&left(other))
            }),
            Self::Name => events.sort_by(|one, other| one.event_id.cmp(&other.event_id)),
        }
        events
    }
}

/// Everything a screen is drawn from.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Screen {
    pub(super) server: String,
    #[serde(flatten)]
    pub(super) figures: Option<TopModel>,
    /// Why there is no newer scrape, and for how many seconds.
    #[serde(skip)]
    pub(super) trouble: Option<(String, u64)>,
    #[serde(skip)]
    pub(super) paused: bool,
    #[serde(skip)]
    pub(super) help: bool,
    #[serde(skip)]
    pub(super) sort: EventOrder,
    /// Whether problems are coloured.
    #[serde(skip)]
    pub(super) colours: bool,
    /// Whether the last line lists the keys.
    #[serde(skip)]
    pub(super) keys: bool,
}

impl View for Screen {
    /// The screen as lines, without colours.
    fn text(&self) -> String {
        let area = Rect::new(0, 0, TOP_ONCE_WIDTH, self.height());
        let mut buffer = Buffer::empty(area);
        self.render(area, &mut buffer);
        let lines = (0..area.height).map(|y| {
            let cells = (0..area.width).filter_map(|x| buffer.cell((x, y)));
            cells.map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned()
        });
        lines.collect::<Vec<_>>().join("\n").trim_end().to_owned()
    }
}

impl Screen {
    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let area = frame.area();
        self.render(area, frame.buffer_mut());
    }

    /// Number of lines of the complete screen.
    pub(super) fn height(&self) -> u16 {
        let Some(figures) = &self.figures else {
            return SMALLEST.1;
        };
        let rows = figures.shards.len()
            + figures.methods.len()
            + figures.store.len()
            + figures.events.len();
        // Three lines of the head; four tables, each with a header and an empty line; the line of keys.
        (rows + 3 + 4 * 2 + 2 + usize::from(self.keys)) as u16
    }

    pub(super) fn render(&self, area: Rect, buffer: &mut Buffer) {
        let (width, height) = SMALLEST;
        if area.width < width || area.height < height {
            let text = format!("the terminal is smaller than {width}x{height}");
            return Paragraph::new(text).render(area, buffer);
        }
        let [head, middle, keys] = Layout::vertical([
            Constraint::Length(3),
            Constraint::Min(1),
            Constraint::Length(u16::from(self.keys)),
        ])
        .areas(area);
        self.head(head, buffer);
        if self.help {
            Paragraph::new(HELP).render(middle, buffer);
        } else if let Some(figures) = &self.figures {
            self.tables(figures, middle, buffer);
        }
        if self.keys {
            let sorted = self.sort.word();
            let text = format!("q quit   p pause   s sort of events ({sorted})   ? help");
            Paragraph::new(text).style(self.dim()).render(keys, buffer);
        }
    }

    fn dim(&self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn bad(&self, is_bad: bool) -> Style {
        match (is_bad, self.colours) {
            (false, _) => Style::new(),
            (true, true) => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
            (true, false) => Style::new().add_modifier(Modifier::BOLD),
        }
    }

    fn head(&self, area: Rect, buffer: &mut Buffer) {
        let mut lines = vec![Line::default(), Line::default(), Line::default()];
        let title = Span::styled("inventory-api", Style::new().add_modifier(Modifier::BOLD));
        lines[0] = match &self.figures {
            None => Line::from(vec![title, format!("  {}", self.server).into()]),
            Some(figures) => Line::from(vec![
                title,
                format!(" {} {}  {}  ", figures.version, figures.arch, self.server).into(),
                Span::styled(
                    if figures.ready { "ready" } else { "NOT READY" },
                    self.bad(!figures.ready),
                ),
                format!("  up {}", span(figures.uptime_seconds)).into(),
                if self.paused { "  PAUSED" } else { "" }.into(),
                // Last, because a narrow screen cuts it off. Servers before 0.2 do not report it.
                match figures.revision.as_str() {
                    "" => String::new(),
                    revision => format!("  revision {revision}"),
                }
                .into(),
            ]),
        };
        if let Some(figures) = &self.figures {
            lines[1] = Line::from(vec![
                format!("{} calls/s  ", rate(figures.requests_per_second)).into(),
                Span::styled(
                    format!("{} errors/s", rate(figures.errors_per_second)),
                    self.bad(figures.errors_per_second > 0.0),
                ),
                "  ".into(),
                Span::styled(
                    format!("{} shed/s", rate(figures.shed_per_second)),
                    self.bad(figures.shed_per_second > 0.0),
                ),
                format!(
                    "  {:.2} cores  {}  {} of {} files",
                    figures.cpu_cores,
                    bytes(figures.resident_bytes),
                    count(figures.open_files),
                    count(figures.open_files_max),
                )
                .into(),
            ]);
        }
        lines[2] = match (&self.trouble, &self.figures) {
            (Some((why, seconds)), _) => Line::styled(
                format!("no metrics for {}: {why}", span(*seconds as f64)),
                self.bad(true),
            ),
            (None, Some(figures)) if figures.invariant_breaches > 0.0 => Line::styled(
                format!(
                    "{} BREACHES of an invariant since the start: verify the events",
                    count(figures.invariant_breaches)
                ),
                self.bad(true),
            ),
            (None, None) => Line::from("waiting for two scrapes"),
            (None, Some(figures)) if figures.members > 1.0 => Line::from(format!(
                "{} processes on this store, share of this one {:.0} %",
                count(figures.members),
                figures.member_share_ratio * 100.0
            )),
            (None, Some(_)) => Line::default(),
        };
        Paragraph::new(lines).render(area, buffer);
    }

    fn tables(&self, figures: &TopModel, area: Rect, buffer: &mut Buffer) {
        let lines = |rows: usize| Constraint::Max(rows as u16 + 2);
        let [shards, methods, store, lanes, events] = Layout::vertical([
            lines(figures.shards.len()),
            lines(figures.methods.len()),
            lines(figures.store.len()),
            Constraint::Length(2),
            Constraint::Min(2),
        ])
        .areas(area);
        let stale = match self.trouble.is_some() {
            true => self.dim(),
            false => Style::new(),
        };
        self.shards(&figures.shards).style(stale).render(shards, buffer);
        self.methods(&figures.methods, area.width).style(stale).render(methods, buffer);
        self.operations(figures).style(stale).render(store, buffer);
        Paragraph::new(self.lanes(figures)).style(stale).render(lanes, buffer);
        self.events(figures).style(stale).render(events, buffer);
    }

    fn table<'a>(&self, names: &[&'a str], widths: &[u16], rows: Vec<Row<'a>>) -> Table<'a> {
        let header = names.iter().enumerate().map(|(at, name)| match at {
            0 => Cell::from(Line::from(*name)),
            _ => Cell::from(Line::from(*name).right_aligned()),
        });
        // The first column gets the remaining width.
        let constraints = widths.iter().enumerate().map(|(at, width)| match at {
            0 => Constraint::Min(*width),
            _ => Constraint::Length(*width),
        });
        Table::new(rows, constraints).header(Row::new(header).style(self.dim())).column_spacing(1)
    }

    fn shards(&self, shards: &[ShardRow]) -> Table<'static> {
        let rows = shards.iter().map(|shard| {
            let stands = shard.tick_age_seconds > 1.0;
            Row::new([
                left(format!("shard {}", shard.shard), self.bad(stands)),
                right(rate(shard.requests_per_second), Style::new()),
                right(
                    format!("{:.0} %", shard.busy_ratio * 100.0),
                    self.bad(shard.busy_ratio > BUSY_MAX),
                ),
                right(count(shard.connections), Style::new()),
                right(count(shard.active_requests), Style::new()),
                right(count(shard.queued_reservations), Style::new()),
                right(count(shard.transactions_in_flight), Style::new()),
                right(
                    if stands { span(shard.tick_age_seconds) } else { count(shard.stalls) },
                    self.bad(stands || shard.stalls > 0.0),
                ),
            ])
        });
        let names = ["SHARDS", "calls/s", "busy", "conns", "active", "queued", "writing", "stalls"];
        self.table(&names, &[9, 8, 6, 6, 6, 6, 7, 6], rows.collect())
    }

    fn methods(&self, methods: &[MethodRow], width: u16) -> Table<'static> {
        const WIDTHS: [u16; 8] = [12, 8, 6, 6, 6, 6, 7, 6];
        // The width that the other columns and the spaces between them leave.
        let others = WIDTHS.iter().skip(1).map(|width| width + 1).sum();
        let name_width = usize::from(width.saturating_sub(others).max(WIDTHS[0]));
        let rows = methods.iter().map(|method| {
            let MethodRow { p50_ms, p95_ms, p99_ms, p999_ms, .. } = *method;
            Row::new([
                left(method_name(&method.method, name_width), Style::new()),
                right(rate(method.calls_per_second), Style::new()),
                right(ms(p50_ms), Style::new()),
                right(ms(p95_ms), self.bad(p95_ms.is_some_and(|p95| p95 > P95_MS_MAX))),
                right(ms(p99_ms), Style::new()),
                right(ms(p999_ms), Style::new()),
                right(rate(method.refused_per_second), Style::new()),
                right(rate(method.errors_per_second), self.bad(method.errors_per_second > 0.0)),
            ])
        });
        let names = ["METHODS (ms)", "calls/s", "p50", "p95", "p99", "p99.9", "refused", "errors"];
        self.table(&names, &WIDTHS, rows.collect())
    }

    fn operations(&self, figures: &TopModel) -> Table<'static> {
        let rows = figures.store.iter().map(|operation| {
            Row::new([
                left(operation.operation.clone(), Style::new()),
                right(rate(operation.calls_per_second), Style::new()),
                right(ms(operation.mean_ms), Style::new()),
                right(rate(operation.not_ok_per_second), Style::new()),
            ])
        });
        self.table(&["STORE (ms)", "calls/s", "mean", "not ok"], &[12, 8, 6, 7], rows.collect())
    }

    /// Transactions to the store and their retries, in a line.
    fn lanes(&self, figures: &TopModel) -> Line<'static> {
        let throttled = figures.retries("throttled");
        Line::from(vec![
            format!(
                "{} transactions/s of {} each, {} ms wait; ",
                rate(figures.transactions_per_second),
                figures.batch_reservations_mean.map_or("-".to_owned(), |mean| format!("{mean:.1}")),
                ms(figures.lane_wait_mean_ms),
            )
            .into(),
            format!("{} conflicts/s, ", rate(figures.retries("conflict"))).into(),
            Span::styled(format!("{} throttled/s", rate(throttled)), self.bad(throttled > 0.0)),
            format!("; {} WCU/s", rate(figures.write_units_per_second)).into(),
        ])
    }

    fn events(&self, figures: &TopModel) -> Table<'static> {
        let known = |units: Option<f64>| units.map_or("-".to_owned(), count);
        let rows = self.sort.of(&figures.events).into_iter().map(|event| {
            let sold_out = event.remaining == Some(0.0);
            Row::new([
                left(event.event_id.clone(), Style::new()),
                right(rate(event.reservations_per_second), Style::new()),
                right(known(event.total), Style::new()),
                right(known(event.held), Style::new()),
                right(known(event.sold), Style::new()),
                right(
                    if sold_out { "sold out".to_owned() } else { known(event.remaining) },
                    Style::new(),
                ),
            ])
        });
        self.table(
            &["EVENTS", "written/s", "total", "held", "sold", "remaining"],
            &[12, 9, 11, 9, 11, 11],
            rows.collect(),
        )
    }
}

fn left(text: String, style: Style) -> Cell<'static> {
    Cell::from(text).style(style)
}

fn right(text: String, style: Style) -> Cell<'static> {
    Cell::from(Line::from(text).right_aligned()).style(style)
}

const HELP: &str = "\
calls/s     between the last two scrapes; quantiles cover the server's last half minute
busy        share of the time in which a shard worked; at 100 % the shard is the limit
active      calls in flight
queued      reservations that wait for a transaction; writing: transactions in flight
stalls      stalls of a shard since the start; during a stall its duration so far
refused     business rejections and invalid arguments, for example sold out
errors      internal, unavailable, deadline exceeded
shed        rejected by admission control, with a retry delay
not ok      store requests with another status, such as conflicts and failed conditions
held        in holds that are not committed; held and sold are read every ten seconds

q, Esc, Ctrl-C quit   p, Space pause   s sort of events   ?, h this text";

#[cfg(test)]
mod tests;
