//! `top`: metrics of a server, live in a terminal, or once for a script.
//!
//! [`fetch`] scrapes, [`parse`] parses, [`model`] computes rates from two scrapes, [`view`] renders them. This file has
//! the keys, the clock and the terminal. Not here: anything that needs more than read access to `/metrics`.

mod fetch;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod model;
mod parse;
mod view;
mod words;

pub(super) use words::span;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use http::Uri;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};

use self::fetch::ScrapeTarget;
use self::model::{TimedScrape, figures};
use self::view::Screen;
use super::args::TopArgs;
use super::{CommandError, client, show};
use crate::cli::address::shown;
use crate::config::{self, ProcessEnv};
use crate::limits::{TOP_KEY_WAIT, TOP_SCRAPES_WAITING_MAX};
use crate::output;

pub(super) fn run(args: &TopArgs) -> Result<(), CommandError> {
    let server = address(args)?;
    let server = ScrapeTarget { tls: args.tls.settings(&server)?, address: server };
    if args.once {
        return once(args, &server);
    }
    if !output::is_terminal() {
        return Err(CommandError::usage(
            "the output is no terminal: use --once, or --once --json for a script",
        ));
    }
    let scrapes = begin(server.clone(), args.every);
    let mut terminal = ratatui::try_init()
        .map_err(|why| CommandError::failed(format!("the terminal cannot be used: {why}")))?;
    let ended = live(&mut terminal, &server.address, &scrapes);
    ratatui::restore();
    ended
}

/// The metrics address: the given one, or the one of this environment.
fn address(args: &TopArgs) -> Result<Uri, CommandError> {
    if let Some(address) = &args.metrics {
        return Ok(address.clone());
    }
    match config::metrics_port(&ProcessEnv)? {
        0 => Err(CommandError::usage(
            "METRICS_PORT is 0, so the port of the server is unknown: pass --metrics host:port",
        )),
        port => Ok(client::url_of(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), false)),
    }
}

fn once(args: &TopArgs, server: &ScrapeTarget) -> Result<(), CommandError> {
    let began = Instant::now();
    let (before, now) = client::block_on_unbounded(async {
        let before = fetch::scrape(server, began).await.map_err(CommandError::failed)?;
        tokio::time::sleep(args.every).await;
        let now = fetch::scrape(server, began).await.map_err(CommandError::failed)?;
        Ok((before, now))
    })?;
    let figures = figures(&before, &now);
    let server = shown(&server.address);
    let screen = Screen { server, figures: Some(figures), ..Screen::default() };
    show(&screen, args.json)
}

/// Messages of the fetching thread.
enum FetchUpdate {
    Scrape(Result<TimedScrape, String>),
    /// The process received a termination signal.
    Stop,
}

/// Scrapes on a thread of its own, so that keys work while the server does not answer.
fn begin(server: ScrapeTarget, every: Duration) -> Receiver<FetchUpdate> {
    let (send, news) = sync_channel(TOP_SCRAPES_WAITING_MAX);
    thread::spawn(move || {
        let sender = send.clone();
        // Ends with the process, or when the receiver is dropped.
        let ended = client::block_on_unbounded(async move {
            watch(&server, every, send).await;
            Ok(())
        });
        if let Err(why) = ended {
            let _ = sender.send(FetchUpdate::Scrape(Err(why.message)));
        }
    });
    news
}

async fn watch(server: &ScrapeTarget, every: Duration, send: SyncSender<FetchUpdate>) {
    let began = Instant::now();
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut term, mut hangup) =
        match (signal(SignalKind::terminate()), signal(SignalKind::hangup())) {
            (Ok(term), Ok(hangup)) => (term, hangup),
            (Err(why), _) | (_, Err(why)) => {
                let _ = send
                    .send(FetchUpdate::Scrape(Err(format!("signals cannot be received: {why}"))));
                return;
            }
        };
    loop {
        let news = tokio::select! {
            _ = ticks.tick() => FetchUpdate::Scrape(fetch::scrape(server, began).await),
            _ = term.recv() => FetchUpdate::Stop,
            _ = hangup.recv() => FetchUpdate::Stop,
        };
        if send.send(news).is_err() {
            return;
        }
    }
}

fn live(
    terminal: &mut DefaultTerminal,
    server: &Uri,
    news: &Receiver<FetchUpdate>,
) -> Result<(), CommandError> {
    let lost = |why: io::Error| CommandError::failed(format!("the terminal cannot be read: {why}"));
    let mut screen = Screen {
        server: shown(server),
        colours: output::wants_colours(),
        keys: true,
        ..Screen::default()
    };
    let mut before: Option<TimedScrape> = None;
    let mut silent_since = None;
    loop {
        terminal.draw(|frame| screen.draw(frame)).map_err(lost)?;
        // Keys first: they may arrive while a scrape is in flight.
        while event::poll(Duration::ZERO).map_err(lost)? {
            if matches!(event::read().map_err(lost)?, Event::Key(key) if key.kind == KeyEventKind::Press
                && pressed(&mut screen, key.code, key.modifiers))
            {
                return Ok(());
            }
        }
        match news.recv_timeout(TOP_KEY_WAIT) {
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(CommandError::failed("the scraping thread has ended"));
            }
            Ok(FetchUpdate::Stop) => return Ok(()),
            Ok(FetchUpdate::Scrape(Ok(scrape))) => {
                silent_since = None;
                screen.trouble = None;
                if let (Some(before), false) = (&before, screen.paused) {
                    screen.figures = Some(figures(before, &scrape));
                }
                before = Some(scrape);
            }
            Ok(FetchUpdate::Scrape(Err(why))) => {
                let since: &mut Instant = silent_since.get_or_insert_with(Instant::now);
                screen.trouble = Some((why, since.elapsed().as_secs()));
            }
        }
    }
}

/// Handles a key; returns whether the program ends.
fn pressed(screen: &mut Screen, key: KeyCode, modifiers: KeyModifiers) -> bool {
    match key {
        KeyCode::Char('q') | KeyCode::Esc => return true,
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return true,
        KeyCode::Char('p' | ' ') => screen.paused = !screen.paused,
        KeyCode::Char('s') => screen.sort = screen.sort.next(),
        KeyCode::Char('?' | 'h') => screen.help = !screen.help,
        _ => {}
    }
    false
}
