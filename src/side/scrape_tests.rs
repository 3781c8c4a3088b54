//! Tests of the scraper: merging, a shard that is silent or gone, one scrape at a time.
//! Must not live here: HTTP (`tests/side`).

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Mutex as StdMutex;

use tokio::sync::oneshot;

use super::*;
use crate::telemetry::recorder::{Levels, Recorder};
use inventory_core::counters::Counters;

/// Shards whose answers the test gives by hand.
#[derive(Default)]
struct ByHand(StdMutex<HashMap<usize, Vec<oneshot::Sender<Option<Snapshot>>>>>);

#[tonic::async_trait]
impl Scrape for ByHand {
    fn shards(&self) -> usize {
        2
    }

    async fn take(&self, shard: usize) -> Option<Snapshot> {
        let (tell, told) = oneshot::channel();
        self.0.lock().unwrap().entry(shard).or_default().push(tell);
        told.await.ok().flatten()
    }
}

impl ByHand {
    /// Waits for the question to `shard` and answers it with a batch of `members`.
    async fn answer(&self, shard: usize, members: usize) {
        let recorder = Recorder::new(shard);
        let counted = Counters {
            transactions: 1,
            entries: members as u64,
            ..Counters::default()
        };
        recorder.domain(&Counters::default(), &counted);
        self.next(shard)
            .await
            .send(Some(recorder.take(Levels::default())))
            .unwrap();
        tokio::task::yield_now().await;
    }

    async fn next(&self, shard: usize) -> oneshot::Sender<Option<Snapshot>> {
        for _turn in 0..1_000 {
            let asked = self.0.lock().unwrap().entry(shard).or_default().pop();
            match asked {
                Some(tell) => return tell,
                None => tokio::task::yield_now().await,
            }
        }
        panic!("shard {shard} is not asked");
    }

    fn unanswered(&self, shard: usize) -> usize {
        self.0.lock().unwrap().entry(shard).or_default().len()
    }
}

fn scraper() -> (Arc<ByHand>, Arc<Scraper>) {
    let shards = Arc::new(ByHand::default());
    let build = BuildInfo {
        service: "s".to_owned(),
        version: "v".to_owned(),
    };
    let scraper = Scraper::new(Arc::clone(&shards) as Arc<dyn Scrape>, build);
    (shards, Arc::new(scraper))
}

fn sample(text: &str, name: &str) -> u64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} in {text}"))
        .parse()
        .unwrap()
}

const MEMBERS: &str = "inventory_lane_entries_total";
const MISSING: &str = "inventory_scrape_incomplete";

fn spawn_scrape(scraper: &Arc<Scraper>) -> JoinHandle<Result<String, ScrapeError>> {
    let scraper = Arc::clone(scraper);
    tokio::spawn(async move { scraper.scrape().await })
}

fn on_a_paused_clock(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test);
}

#[test]
fn a_shard_that_never_answers_delays_a_scrape_by_its_limit_and_is_counted() {
    on_a_paused_clock(async {
        let (shards, scraper) = scraper();
        let began = Instant::now();
        let scrape = spawn_scrape(&scraper);
        shards.answer(0, 5).await;
        let text = scrape.await.unwrap().unwrap();
        assert!(began.elapsed() >= limits::SCRAPE_TIMEOUT);
        assert!(began.elapsed() < 2 * limits::SCRAPE_TIMEOUT);
        assert_eq!((sample(&text, MEMBERS), sample(&text, MISSING)), (5, 1));
        // However often it is scraped, a stuck shard has one question to answer.
        let scrape = spawn_scrape(&scraper);
        shards.answer(0, 1).await;
        scrape.await.unwrap().unwrap();
        assert_eq!(shards.unanswered(1), 1);
    });
}

#[test]
fn figures_that_come_too_late_are_in_the_next_scrape() {
    on_a_paused_clock(async {
        let (shards, scraper) = scraper();
        let scrape = spawn_scrape(&scraper);
        shards.answer(0, 5).await;
        let text = scrape.await.unwrap().unwrap();
        assert_eq!((sample(&text, MEMBERS), sample(&text, MISSING)), (5, 1));
        shards.answer(1, 7).await;
        let scrape = spawn_scrape(&scraper);
        shards.answer(0, 1).await;
        shards.answer(1, 2).await;
        let text = scrape.await.unwrap().unwrap();
        assert_eq!((sample(&text, MEMBERS), sample(&text, MISSING)), (15, 0));
    });
}

#[test]
fn a_scraper_that_hangs_up_loses_no_figures() {
    on_a_paused_clock(async {
        let (shards, scraper) = scraper();
        let scrape = spawn_scrape(&scraper);
        shards.answer(0, 5).await;
        let late = shards.next(1).await;
        scrape.abort();
        assert!(scrape.await.unwrap_err().is_cancelled());
        late.send(Some(Recorder::new(1).take(Levels::default())))
            .unwrap();
        let scrape = spawn_scrape(&scraper);
        shards.answer(0, 1).await;
        shards.answer(1, 2).await;
        let text = scrape.await.unwrap().unwrap();
        assert_eq!((sample(&text, MEMBERS), sample(&text, MISSING)), (8, 0));
    });
}

#[test]
fn a_shard_that_is_gone_is_counted_at_once() {
    on_a_paused_clock(async {
        let (shards, scraper) = scraper();
        let began = Instant::now();
        let scrape = spawn_scrape(&scraper);
        shards.answer(0, 5).await;
        drop(shards.next(1).await);
        let text = scrape.await.unwrap().unwrap();
        assert_eq!(sample(&text, MISSING), 1);
        assert_eq!(began.elapsed().as_millis(), 0);
    });
}

#[test]
fn scrapes_run_one_at_a_time_and_one_too_many_is_refused() {
    on_a_paused_clock(async {
        let (shards, scraper) = scraper();
        let scrapes: Vec<_> = (0..limits::SCRAPES_MAX)
            .map(|_| spawn_scrape(&scraper))
            .collect();
        let first = shards.next(0).await;
        assert_eq!(shards.unanswered(0), 0, "only one of them asks");
        assert!(matches!(scraper.scrape().await, Err(ScrapeError::TooMany)));
        first
            .send(Some(Recorder::new(0).take(Levels::default())))
            .unwrap();
        shards.answer(1, 1).await;
        for _ in 1..limits::SCRAPES_MAX {
            shards.answer(0, 1).await;
            shards.answer(1, 1).await;
        }
        let mut members = Vec::new();
        for scrape in scrapes {
            members.push(sample(&scrape.await.unwrap().unwrap(), MEMBERS));
        }
        assert_eq!(members, [1, 3, 5, 7]);
    });
}
