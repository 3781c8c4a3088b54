//! Transactions as the codec writes them, and the items that they leave behind.

use arbitrary::{Result, Unstructured};
use aws_sdk_dynamodb::types::{AttributeValue, CancellationReason};
use serde_json::Value;

use crate::codec::{self, Item, TransactionEncoder};
use crate::settings::TableNames;
use inventory_core::ids::{EventId, Fingerprint, OrderId, ReservationId, SeatId, Seats};
use inventory_core::operation::{Operation, Selection, Verb};
use inventory_core::seats::SeatPrices;
use inventory_core::time::{Micros, UnixMillis};
use inventory_core::transaction::{
    ActionOutcome, CounterUpdate, ExpiryCondition, RecordWrite, RequestToken, ReservationState,
    StripeAllocation, StripeUpdate, Transaction, TransactionOutcome,
};

/// The last millisecond that a timestamp of the stored format has: 9999-12-31T23:59:59.999Z.
const UNIX_MILLIS_MAX: u64 = 253_402_300_799_999;

thread_local! {
    /// Its templates are built once, as on a shard.
    static ENCODER: TransactionEncoder = TransactionEncoder::new(&TableNames::default());
}

const STATES: [ReservationState; 5] = [
    ReservationState::Held,
    ReservationState::Confirmed,
    ReservationState::Released,
    ReservationState::Expired,
    ReservationState::Refunded,
];

/// One of each action.
pub(super) fn sample() -> Transaction {
    let mut record =
        record(&mut Unstructured::new(&[]), 0).unwrap_or_else(|error| panic!("{error}"));
    record.from = Some(ReservationState::Held);
    record.to = ReservationState::Confirmed;
    record.seats = Some(Seats::from([seat_id(1), seat_id(2)]));
    Transaction {
        token: RequestToken(1),
        event: event_id(0),
        seat_keys: 2,
        stripes: vec![StripeUpdate { take: 1, ..StripeUpdate::default() }],
        records: vec![record],
        counter: Some(CounterUpdate { counter: 0, units: 1 }),
        at: UnixMillis(1),
    }
}

/// The body is JSON with one action per stripe, record, seat and counter; the item that a new record leaves behind is read as
/// the record that was written, also as the reason of a cancelled transaction.
pub(super) fn assert_written_as_read(input: &mut Unstructured<'_>) -> Result<()> {
    let transaction = transaction(input)?;
    let body = ENCODER.with(|encoder| encoder.body(&transaction));
    let body: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
    let actions = body["TransactItems"].as_array().map_or(&[][..], Vec::as_slice);
    assert_eq!(actions.len(), transaction.action_count(), "{body:#}");
    assert_eq!(body["ClientRequestToken"], codec::token_text(transaction.token));
    let mut reasons = vec![CancellationReason::builder().code("None").build(); actions.len()];
    let mut expected = vec![ActionOutcome::Fine; actions.len()];
    for (at, write) in transaction.records.iter().enumerate() {
        let at = transaction.stripes.len() + at;
        let Some(put) = actions[at]["Put"]["Item"].as_object() else {
            assert!(write.from.is_some() && actions[at]["Update"].is_object(), "{:#}", actions[at]);
            continue;
        };
        let item: Item = put.iter().map(|(name, value)| (name.clone(), attribute(value))).collect();
        let read = codec::record(&item).unwrap_or_else(|why| panic!("{why}: {item:?}"));
        let view = write.view(transaction.at);
        assert_eq!((&read.reservation, &read.event), (write.reservation(), &transaction.event));
        assert_eq!(
            (read.payment_intent.as_str(), &read.view),
            (write.operation.payment_intent.as_str(), &view)
        );
        reasons[at] = CancellationReason::builder()
            .code("ConditionalCheckFailed")
            .set_item(Some(item))
            .build();
        expected[at] = ActionOutcome::Record(view);
    }
    let is_failed = expected.iter().any(|outcome| *outcome != ActionOutcome::Fine);
    let read = codec::cancelled(&transaction, &reasons);
    let expected = match is_failed {
        true => TransactionOutcome::Cancelled(expected),
        false => TransactionOutcome::Conflict,
    };
    assert_eq!((read.outcome, read.remarks), (expected, Vec::new()));
    Ok(())
}

/// The item of a new record.
pub(super) fn written_item(input: &mut Unstructured<'_>) -> Result<Item> {
    let mut record = record(input, 0)?;
    record.from = None;
    let transaction = Transaction { records: vec![record], stripes: Vec::new(), ..sample() };
    let body = ENCODER.with(|encoder| encoder.body(&transaction));
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    let item = body["TransactItems"][0]["Put"]["Item"].as_object();
    Ok(item.into_iter().flatten().map(|(name, value)| (name.clone(), attribute(value))).collect())
}

/// As the SDK reads it.
fn attribute(json: &Value) -> AttributeValue {
    let typed = json.as_object().and_then(|object| object.iter().next());
    match typed.map(|(kind, value)| (kind.as_str(), value)) {
        Some(("S", Value::String(text))) => AttributeValue::S(text.clone()),
        Some(("N", Value::String(digits))) => AttributeValue::N(digits.clone()),
        Some(("BOOL", Value::Bool(truth))) => AttributeValue::Bool(*truth),
        Some(("L", Value::Array(values))) => {
            AttributeValue::L(values.iter().map(attribute).collect())
        }
        _ => panic!("no attribute of this server: {json}"),
    }
}

fn transaction(input: &mut Unstructured<'_>) -> Result<Transaction> {
    let stripe = |input: &mut Unstructured<'_>| {
        Ok(StripeUpdate {
            stripe: input.int_in_range(0..=63)?,
            take: input.arbitrary()?,
            give: input.arbitrary()?,
            held: input.arbitrary()?,
            moved: input.arbitrary()?,
        })
    };
    let stripes = (0..input.int_in_range(0..=3)?).map(|_| stripe(input)).collect::<Result<_>>()?;
    let count: u32 = input.int_in_range(1..=4)?;
    let records = (0..count).map(|number| record(input, number)).collect::<Result<_>>()?;
    let counter = match input.arbitrary()? {
        true => Some(CounterUpdate { counter: input.arbitrary()?, units: input.arbitrary()? }),
        false => None,
    };
    Ok(Transaction {
        token: RequestToken(input.arbitrary()?),
        event: event_id(input.arbitrary()?),
        seat_keys: input.int_in_range(0..=100)?,
        stripes,
        records,
        counter,
        at: UnixMillis(input.int_in_range(0..=UNIX_MILLIS_MAX)?),
    })
}

/// A write that the engine could ask for; the record is complete as the rules demand it.
fn record(input: &mut Unstructured<'_>, number: u32) -> Result<RecordWrite> {
    let to = *input.choose(&STATES).unwrap_or(&ReservationState::Held);
    let from = match input.arbitrary()? {
        true => Some(*input.choose(&STATES)?),
        false => None,
    };
    let seats = match input.arbitrary()? {
        true => Some(seats(input)?),
        false => None,
    };
    let reservation: ReservationId = id(&format!("rsv_{number}"));
    let order = (to == ReservationState::Confirmed).then(|| OrderId::of(&reservation));
    let expires_at = match to {
        ReservationState::Held => Some(UnixMillis(input.arbitrary()?)),
        _ => None,
    };
    let verb = Verb::Commit;
    let mut operation =
        Operation::new(verb, reservation, event_id(0), Selection::AsRecorded, Micros(0));
    operation.payment_intent = input.arbitrary()?;
    let draws = (0..input.int_in_range(0..=3)?)
        .map(|_| Ok(StripeAllocation { stripe: input.arbitrary()?, units: input.arbitrary()? }));
    let draws = draws.collect::<Result<_>>()?;
    Ok(RecordWrite {
        operation,
        fingerprint: Fingerprint(input.arbitrary()?),
        from,
        due: *input.choose(&[
            ExpiryCondition::Any,
            ExpiryCondition::Expired,
            ExpiryCondition::NotExpired,
        ])?,
        to,
        qty: input.arbitrary()?,
        draws,
        seats,
        order,
        expires_at,
        payment_added_to: None,
        counted: input.arbitrary()?,
    })
}

fn seats(input: &mut Unstructured<'_>) -> Result<Seats> {
    let count = input.int_in_range(1..=4)?;
    let seats: Seats = (0..count).map(seat_id).collect();
    let price = |input: &mut Unstructured<'_>| {
        Ok(match input.int_in_range(0..=2)? {
            0 => "-".to_owned(),
            1 => format!("{}KRW", input.arbitrary::<i64>()?),
            _ => format!("{}USD", input.arbitrary::<i64>()?),
        })
    };
    let prices = (0..count).map(|_| price(input)).collect::<Result<Vec<_>>>()?.join(",");
    Ok(match input.arbitrary()? {
        true => seats.with_prices(SeatPrices::parse(&prices, usize::from(count))),
        false => seats,
    })
}

fn event_id(number: u16) -> EventId {
    id(&format!("evt_{number}"))
}

fn seat_id(number: u8) -> SeatId {
    id(&format!("A-{number}"))
}

fn id<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text} is no id"))
}
