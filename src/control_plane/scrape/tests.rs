//! Tests of the scraper: sums, shards without an answer, one collection at a time. HTTP is tested in `tests/control_plane`.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Mutex as StdMutex;

use tokio::sync::oneshot;

use super::*;
use crate::telemetry::recorder::{InventoryType, Recorder, ShardGauges};

/// A source whose answers are sent by the test.
#[derive(Default)]
struct ManualSource(StdMutex<HashMap<usize, Vec<oneshot::Sender<Option<ShardMetrics>>>>>);

#[tonic::async_trait]
impl MetricsSource for ManualSource {
    fn shards(&self) -> usize {
        2
    }

    async fn take(&self, shard: usize) -> Option<ShardMetrics> {
        let (reply, answer) = oneshot::channel();
        self.0.lock().unwrap().entry(shard).or_default().push(reply);
        answer.await.ok().flatten()
    }
}

impl ManualSource {
    /// Waits for the request to `shard` and answers it with a number of commits.
    async fn answer(&self, shard: usize, commits: usize) {
        let recorder = Recorder::new(shard);
        for _ in 0..commits {
            recorder.commit(InventoryType::Quantity, "CONFIRMED");
        }
        self.next(shard).await.send(Some(recorder.take(ShardGauges::default()))).unwrap();
        tokio::task::yield_now().await;
    }

    async fn next(&self, shard: usize) -> oneshot::Sender<Option<ShardMetrics>> {
        for _ in 0..1_000 {
            let request = self.0.lock().unwrap().entry(shard).or_default().pop();
            match request {
                Some(reply) => return reply,
                None => tokio::task::yield_now().await,
            }
        }
        panic!("no request to shard {shard}");
    }

    fn unanswered(&self, shard: usize) -> usize {
        self.0.lock().unwrap().entry(shard).or_default().len()
    }
}

fn scraper() -> (Arc<ManualSource>, Arc<Scraper>) {
    let shards = Arc::new(ManualSource::default());
    let build =
        BuildInfo { service: "s".to_owned(), version: "v".to_owned(), revision: "r".to_owned() };
    let scraper = Scraper::new(Arc::clone(&shards) as Arc<dyn MetricsSource>, build);
    (shards, Arc::new(scraper))
}

fn sample(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
}

const COMMITS: &str =
    r#"inventory_commit_reservations_total{inventory_type="quantity",status="CONFIRMED"}"#;
const MISSING: &str = "inventory_scrape_incomplete";

fn spawn_scrape(scraper: &Arc<Scraper>) -> JoinHandle<String> {
    let scraper = Arc::clone(scraper);
    tokio::spawn(async move {
        let text = scraper.scrape().await.unwrap();
        String::from_utf8(text.to_vec()).unwrap()
    })
}

fn with_paused_clock(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test);
}

#[test]
fn silent_shard_delays_a_scrape_by_the_timeout_and_is_counted() {
    with_paused_clock(async {
        let (shards, scraper) = scraper();
        let began = Instant::now();
        let scrape = spawn_scrape(&scraper);
        shards.answer(0, 5).await;
        let text = scrape.await.unwrap();
        assert!(began.elapsed() >= limits::SCRAPE_TIMEOUT);
        assert!(began.elapsed() < 2 * limits::SCRAPE_TIMEOUT);
        assert_eq!((sample(&text, COMMITS), sample(&text, MISSING)), (5, 1));
        // A silent shard has one pending request, whatever the number of scrapes.
        let scrape = spawn_scrape(&scraper);
        shards.answer(0, 1).await;
        scrape.await.unwrap();
        assert_eq!(shards.unanswered(1), 1);
    });
}

#[test]
fn late_metrics_are_in_the_next_scrape() {
    with_paused_clock(async {
        let (shards, scraper) = scraper();
        let scrape = spawn_scrape(&scraper);
        shards.answer(0, 5).await;
        let text = scrape.await.unwrap();
        assert_eq!((sample(&text, COMMITS), sample(&text, MISSING)), (5, 1));
        shards.answer(1, 7).await;
        let scrape = spawn_scrape(&scraper);
        shards.answer(0, 1).await;
        shards.answer(1, 2).await;
        let text = scrape.await.unwrap();
        assert_eq!((sample(&text, COMMITS), sample(&text, MISSING)), (15, 0));
    });
}

#[test]
fn aborted_scrape_loses_no_metrics() {
    with_paused_clock(async {
        let (shards, scraper) = scraper();
        let scrape = spawn_scrape(&scraper);
        shards.answer(0, 5).await;
        let late = shards.next(1).await;
        scrape.abort();
        assert!(scrape.await.unwrap_err().is_cancelled());
        late.send(Some(Recorder::new(1).take(ShardGauges::default()))).unwrap();
        let scrape = spawn_scrape(&scraper);
        shards.answer(0, 1).await;
        shards.answer(1, 2).await;
        let text = scrape.await.unwrap();
        assert_eq!((sample(&text, COMMITS), sample(&text, MISSING)), (8, 0));
    });
}

#[test]
fn ended_shard_is_counted_without_delay() {
    with_paused_clock(async {
        let (shards, scraper) = scraper();
        let began = Instant::now();
        let scrape = spawn_scrape(&scraper);
        shards.answer(0, 5).await;
        drop(shards.next(1).await);
        let text = scrape.await.unwrap();
        assert_eq!(sample(&text, MISSING), 1);
        assert_eq!(began.elapsed().as_millis(), 0);
    });
}

#[test]
fn scrapes_during_a_collection_share_the_next_one() {
    with_paused_clock(async {
        let (shards, scraper) = scraper();
        let first = spawn_scrape(&scraper);
        let request = shards.next(0).await;
        let waiting: Vec<_> = (0..100).map(|_| spawn_scrape(&scraper)).collect();
        // All of them arrive before the first collection has ended.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(shards.unanswered(0), 0, "only one collection runs");
        request.send(Some(Recorder::new(0).take(ShardGauges::default()))).unwrap();
        shards.answer(1, 1).await;
        assert_eq!(sample(&first.await.unwrap(), COMMITS), 1);
        shards.answer(0, 2).await;
        shards.answer(1, 3).await;
        for scrape in waiting {
            assert_eq!(sample(&scrape.await.unwrap(), COMMITS), 6);
        }
        assert_eq!(shards.unanswered(0), 0, "no further collection began");
        let later = spawn_scrape(&scraper);
        shards.answer(0, 1).await;
        shards.answer(1, 0).await;
        assert_eq!(sample(&later.await.unwrap(), COMMITS), 7);
    });
}
