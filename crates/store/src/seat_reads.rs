//! Reads of the seats of an event: all of them, or those that are free.
//!
//! Several keys at a time, each page by page; the shard yields between pages.

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::query::builders::QueryInputBuilder;
use aws_sdk_dynamodb::operation::query::{QueryError, QueryInput, QueryOutput};
use aws_sdk_dynamodb::types::{ConsumedCapacity, ReturnConsumedCapacity};
use futures::{StreamExt, TryStreamExt};

use super::Store;
use super::batch::ReadFailure;
use super::codec::{self, DecodedSeatPage, Item};
use crate::limits;
use inventory_core::ids::{EventId, SeatId, stripe_key};
use inventory_core::seats::{SeatItem, SeatState};
use inventory_core::time::UnixMillis;
use inventory_core::transaction::{FreeSeatsRead, SeatsRead};

/// Seats of one page.
pub(super) enum SeatRows {
    Seats(Vec<SeatItem>),
    /// The page has items that this server does not write.
    Items(Vec<Item>),
}

/// Answer to the query of one page.
pub(super) struct SeatQueryOutput {
    pub(super) rows: SeatRows,
    last_key: Option<Item>,
    pub(super) consumed: Option<ConsumedCapacity>,
}

impl From<DecodedSeatPage> for SeatQueryOutput {
    fn from(page: DecodedSeatPage) -> Self {
        let DecodedSeatPage { seats, last_key, consumed } = page;
        Self { rows: SeatRows::Seats(seats), last_key, consumed }
    }
}

impl From<QueryOutput> for SeatQueryOutput {
    fn from(output: QueryOutput) -> Self {
        Self {
            rows: SeatRows::Items(output.items.unwrap_or_default()),
            last_key: output.last_evaluated_key,
            consumed: output.consumed_capacity,
        }
    }
}

impl Store {
    /// Reads all seats of an event that are spread over `seat_keys` partition keys. Each key is read strongly
    /// consistently, but not all at one instant: a seat that is sold meanwhile may be returned as available.
    ///
    /// A seat whose state cannot be understood is returned as blocked, one without a valid id is skipped; both are
    /// logged. Returns Unavailable for an event of more than [`limits::SEATS_PER_EVENT_MAX`] seats.
    pub async fn read_seats(&self, event: &EventId, seat_keys: u16) -> SeatsRead {
        let take = |rows: SeatRows, seats: &mut Vec<SeatItem>| match rows {
            SeatRows::Seats(more) => seats.extend(more),
            SeatRows::Items(items) => seats.extend(items.iter().filter_map(|item| {
                let (seat, fault) = codec::seat(item);
                if let Some(why) = fault {
                    let id = seat.as_ref().map_or("without an id", |s| s.id.as_str());
                    self.log(&format!("event {event} is damaged: seat {id}: {why}"));
                }
                seat
            })),
        };
        match self.read_keys(event, seat_keys, codec::SeatPage::new, &take).await {
            Ok(seats) => SeatsRead::Found(seats),
            Err(ReadFailure::Throttled) => SeatsRead::Throttled,
            Err(ReadFailure::Unavailable) => SeatsRead::Unavailable,
        }
    }

    /// As [`Store::read_seats`], but only seats that are available at `at`. It consumes the same read units, but transfers
    /// almost no data for a sold-out event. Unreadable seats are skipped.
    pub async fn read_free_seats(
        &self,
        event: &EventId,
        seat_keys: u16,
        at: UnixMillis,
    ) -> FreeSeatsRead {
        let take = |rows: SeatRows, seats: &mut Vec<(SeatId, SeatState)>| match rows {
            SeatRows::Seats(more) => seats.extend(more.into_iter().map(|one| (one.id, one.state))),
            SeatRows::Items(items) => {
                seats.extend(items.iter().filter_map(|item| codec::free_seat(item).ok()));
            }
        };
        let page = |key| codec::SeatPage::free(key, at);
        match self.read_keys(event, seat_keys, page, &take).await {
            Ok(seats) => FreeSeatsRead::Found(seats),
            Err(ReadFailure::Throttled) => FreeSeatsRead::Throttled,
            Err(ReadFailure::Unavailable) => FreeSeatsRead::Unavailable,
        }
    }

    /// Reads the seats of all partition keys, in their order. `take` appends what a page has.
    async fn read_keys<T>(
        &self,
        event: &EventId,
        seat_keys: u16,
        page: impl Fn(String) -> codec::SeatPage,
        take: &impl Fn(SeatRows, &mut Vec<T>),
    ) -> Result<Vec<T>, ReadFailure> {
        let keys = futures::stream::iter(0..seat_keys.max(1)).map(|index| {
            let page = page(stripe_key(event, index));
            async move { self.read_key(event, &page, take).await }
        });
        let mut keys = std::pin::pin!(keys.buffered(limits::SEAT_KEYS_IN_PARALLEL));
        let mut all = Vec::new();
        while let Some(seats) = keys.try_next().await? {
            all.extend(seats);
            self.check_count(event, all.len())?;
        }
        Ok(all)
    }

    /// Reads the seats of one partition key page by page.
    async fn read_key<T>(
        &self,
        event: &EventId,
        page: &codec::SeatPage,
        take: &impl Fn(SeatRows, &mut Vec<T>),
    ) -> Result<Vec<T>, ReadFailure> {
        let mut from = None;
        let mut seats = Vec::new();
        loop {
            let output = self.read_page(event, page, from).await?;
            take(output.rows, &mut seats);
            self.check_count(event, seats.len())?;
            from = match output.last_key {
                Some(next) => Some(next),
                None => return Ok(seats),
            };
            inventory_runtime::yield_now().await;
        }
    }

    fn check_count(&self, event: &EventId, count: usize) -> Result<(), ReadFailure> {
        let max = limits::SEATS_PER_EVENT_MAX;
        if count <= max {
            return Ok(());
        }
        self.log(&format!("event {event} has more than {max} seats"));
        Err(ReadFailure::Unavailable)
    }

    async fn read_page(
        &self,
        event: &EventId,
        page: &codec::SeatPage,
        from: Option<Item>,
    ) -> Result<SeatQueryOutput, ReadFailure> {
        const OPERATION: &str = "Query";
        let table = &self.tables().seats;
        let attempt = || {
            let read = QueryInput::builder()
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .table_name(table)
                .consistent_read(true)
                .limit(limits::STORE_SEATS_PAGE_MAX)
                .key_condition_expression(codec::SeatPage::KEY)
                .set_filter_expression(page.filter.clone())
                .projection_expression(&page.projection)
                .set_expression_attribute_names(Some(page.names.clone()))
                .set_expression_attribute_values(Some(page.values.clone()))
                .set_exclusive_start_key(from.clone());
            self.query_seats(read)
        };
        let output = self.read(OPERATION, table, attempt).await;
        output.map_err(|failure| self.read_failure(OPERATION, event, &failure))
    }

    /// Makes one attempt at the query of a page.
    async fn query_seats(
        &self,
        read: QueryInputBuilder,
    ) -> Result<SeatQueryOutput, SdkError<QueryError, HttpResponse>> {
        let direct_client = &self.inner.direct_client;
        match direct_client.templates.template() {
            Some(template) => direct_client.query_seats(&template, read).await,
            // Rare and large: boxed, to keep the futures of reads small.
            None => Box::pin(read.send_with(self.client())).await.map(SeatQueryOutput::from),
        }
    }
}
