//! The three tables: their layout, creation, and differences from the layout.
//!
//! Not here: the content of items (`codec`), reads and writes of items.

use std::fmt;

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, CreateGlobalSecondaryIndexAction, GlobalSecondaryIndex,
    GlobalSecondaryIndexDescription, GlobalSecondaryIndexUpdate, IndexStatus, KeySchemaElement,
    KeyType, Projection, ProjectionType, ScalarAttributeType, TableDescription, TableStatus,
    TimeToLiveSpecification, TimeToLiveStatus,
};

use super::codec::{EVENT_ID, EXPIRES_AT, EXPIRY_BUCKET, PURGE_AT, RESERVATION_ID, SEAT_ID};
use super::failure::FailureKind;
use super::{Store, StoreError};
use crate::limits;
use inventory_core::time::Micros;
use inventory_runtime::clock;

/// The index that finds overdue holds. Its partition key is a time bucket with a part number, so that no
/// index key is hot; its sort key is the expiry time. Only records that can expire carry both keys and are in
/// the index. It projects all attributes: a record fits one write unit either way.
pub(crate) const EXPIRY_INDEX: &str = "expiry";

/// One key attribute, by name and type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyAttribute {
    Text(&'static str),
    Number(&'static str),
}

impl KeyAttribute {
    fn name(self) -> &'static str {
        match self {
            KeyAttribute::Text(name) | KeyAttribute::Number(name) => name,
        }
    }

    fn definition(self) -> Result<AttributeDefinition, BuildError> {
        let kind = match self {
            KeyAttribute::Text(_) => ScalarAttributeType::S,
            KeyAttribute::Number(_) => ScalarAttributeType::N,
        };
        AttributeDefinition::builder().attribute_name(self.name()).attribute_type(kind).build()
    }
}

impl fmt::Display for KeyAttribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyAttribute::Text(name) => write!(f, "{name} (S)"),
            KeyAttribute::Number(name) => write!(f, "{name} (N)"),
        }
    }
}

/// Required layout of one table.
struct TableLayout<'a> {
    table: &'a str,
    /// Partition key, then the sort key if there is one.
    keys: &'static [KeyAttribute],
    /// Keys of [`EXPIRY_INDEX`]; empty: no index.
    expiry: &'static [KeyAttribute],
    /// The time-to-live attribute; `None`: items are never purged.
    purge: Option<&'static str>,
}

fn layouts(store: &Store) -> [TableLayout<'_>; 3] {
    let names = store.tables();
    [
        TableLayout {
            table: &names.inventory,
            keys: &[KeyAttribute::Text(EVENT_ID)],
            expiry: &[],
            purge: None,
        },
        TableLayout {
            table: &names.seats,
            keys: &[KeyAttribute::Text(EVENT_ID), KeyAttribute::Text(SEAT_ID)],
            expiry: &[],
            purge: None,
        },
        TableLayout {
            table: &names.idempotency,
            keys: &[KeyAttribute::Text(RESERVATION_ID)],
            expiry: &[KeyAttribute::Text(EXPIRY_BUCKET), KeyAttribute::Number(EXPIRES_AT)],
            purge: Some(PURGE_AT),
        },
    ]
}

/// One thing that [`create`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableCreation {
    Table(String),
    /// The expiry index, added to an existing table.
    Index(String),
    /// Time to live on [`PURGE_AT`], enabled on an existing table.
    Ttl(String),
}

impl fmt::Display for TableCreation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableCreation::Table(table) => write!(f, "table {table} created"),
            TableCreation::Index(table) => write!(f, "index {EXPIRY_INDEX} added to table {table}"),
            TableCreation::Ttl(table) => {
                write!(f, "time to live on {PURGE_AT} turned on for table {table}")
            }
        }
    }
}

/// One difference between a table and its layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDifference {
    pub table: String,
    pub what: String,
    pub fix: String,
    /// Whether the server cannot run on the table. Otherwise it runs with a disadvantage that the fix removes.
    pub fatal: bool,
}

impl fmt::Display for TableDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {}: {}; {}", self.table, self.what, self.fix)
    }
}

/// Creates what is missing: tables (on-demand billing), the expiry index, time to live. Waits until all of it
/// is ACTIVE. Changes nothing that exists; a repeated call does nothing.
///
/// # Errors
/// Any [`StoreError`] of the calls, or [`StoreError::Unavailable`] when a table takes longer than
/// [`limits::TABLE_ACTIVE_WAIT_MAX`].
pub async fn create(store: &Store) -> Result<Vec<TableCreation>, StoreError> {
    let mut made = Vec::new();
    let mut fresh = Vec::new();
    // Creates all tables before it waits, because DynamoDB creates them in parallel.
    for layout in &layouts(store) {
        let is_missing = describe(store, layout.table).await?.is_none();
        if is_missing && create_one(store, layout).await? {
            made.push(TableCreation::Table(layout.table.to_owned()));
        }
        fresh.push(is_missing);
    }
    for (layout, fresh) in layouts(store).iter().zip(fresh) {
        let found = wait_active(store, layout.table).await?;
        let lacks_index = !layout.expiry.is_empty() && index(&found).is_none();
        if !fresh && lacks_index {
            add_index(store, layout).await?;
            wait_active(store, layout.table).await?;
            made.push(TableCreation::Index(layout.table.to_owned()));
        }
        if let Some(attribute) = layout.purge
            && purge_attribute(store, layout.table).await?.is_none()
        {
            turn_on_purge(store, layout.table, attribute).await?;
            if !fresh {
                made.push(TableCreation::Ttl(layout.table.to_owned()));
            }
        }
    }
    Ok(made)
}

/// Compares the tables with their layout; an empty list means no difference.
///
/// # Errors
/// When the store does not answer.
pub async fn check(store: &Store) -> Result<Vec<TableDifference>, StoreError> {
    let mut differences = Vec::new();
    for layout in &layouts(store) {
        let mut differs = |what: String, fix: String, fatal: bool| {
            differences.push(TableDifference { table: layout.table.to_owned(), what, fix, fatal });
        };
        let create = || "run `inventory-api tables create`".to_owned();
        let Some(found) = describe(store, layout.table).await? else {
            differs("is missing".to_owned(), create(), true);
            continue;
        };
        check_table(layout, &found, &mut differs);
        let Some(expected) = layout.purge else { continue };
        match purge_attribute(store, layout.table).await? {
            Some(attribute) if attribute == expected => {}
            Some(other) => differs(
                format!("its time to live is on {other}, want {expected}"),
                format!("turn it off for {other}, then run `inventory-api tables create`"),
                false,
            ),
            None => differs("its time to live is off".to_owned(), create(), false),
        }
    }
    Ok(differences)
}

fn check_table(
    layout: &TableLayout<'_>,
    found: &TableDescription,
    differs: &mut impl FnMut(String, String, bool),
) {
    let status = found.table_status();
    if !matches!(status, Some(TableStatus::Active | TableStatus::Updating)) {
        let status = status.map_or("unknown", TableStatus::as_str);
        let fix = "wait until it is ACTIVE".to_owned();
        differs(format!("its status is {status}"), fix, true);
    }
    let definitions = found.attribute_definitions();
    let keys = keys(found.key_schema(), definitions);
    let expected = list(layout.keys);
    if keys != expected {
        differs(
            format!("its key is {keys}, want {expected}"),
            "name another table in DDB_TABLE_*, or move this one's data to a table made by \
             `inventory-api tables create`"
                .to_owned(),
            true,
        );
    }
    if billing(found) != BillingMode::PayPerRequest {
        let table = layout.table;
        differs(
            "it is billed by provisioned throughput, want on demand".to_owned(),
            format!(
                "aws dynamodb update-table --table-name {table} --billing-mode PAY_PER_REQUEST \
                 (or make sure that its capacity fits the sale)"
            ),
            false,
        );
    }
    if !layout.expiry.is_empty() {
        check_index(layout, found, differs);
    }
}

fn check_index(
    layout: &TableLayout<'_>,
    found: &TableDescription,
    differs: &mut impl FnMut(String, String, bool),
) {
    let Some(index) = index(found) else {
        let fix = "run `inventory-api tables create`".to_owned();
        differs(format!("it has no index {EXPIRY_INDEX}"), fix, true);
        return;
    };
    let keys = keys(index.key_schema(), found.attribute_definitions());
    let expected = list(layout.expiry);
    let projects = index.projection().and_then(Projection::projection_type);
    if keys != expected || projects != Some(&ProjectionType::All) {
        let projects = projects.map_or("nothing", ProjectionType::as_str);
        differs(
            format!(
                "its index {EXPIRY_INDEX} has the key {keys} and projects {projects}, want {expected} \
                 and ALL"
            ),
            "delete that index, then run `inventory-api tables create`".to_owned(),
            true,
        );
    }
    if let Some(status) = index.index_status().filter(|s| **s != IndexStatus::Active) {
        differs(
            format!("its index {EXPIRY_INDEX} is {}", status.as_str()),
            "wait until it is ACTIVE".to_owned(),
            true,
        );
    }
}

async fn describe(store: &Store, table: &str) -> Result<Option<TableDescription>, StoreError> {
    let described = store.call_with_retries("DescribeTable", table, || {
        store.client().describe_table().table_name(table).send()
    });
    match described.await {
        Ok(output) => Ok(output.table),
        Err(failure) if failure.code() == Some("ResourceNotFoundException") => Ok(None),
        Err(failure) => Err(failure.into()),
    }
}

/// Returns false if the table exists by now.
async fn create_one(store: &Store, layout: &TableLayout<'_>) -> Result<bool, StoreError> {
    let definitions = layout.keys.iter().chain(layout.expiry);
    let definitions: Result<Vec<_>, _> = definitions.map(|key| key.definition()).collect();
    let definitions = definitions.map_err(invalid)?;
    let schema = schema(layout.keys).map_err(invalid)?;
    let index = match layout.expiry.is_empty() {
        true => None,
        false => Some(vec![expiry_index(layout.expiry).map_err(invalid)?]),
    };
    let created = store.call_with_retries("CreateTable", layout.table, || {
        store
            .client()
            .create_table()
            .table_name(layout.table)
            .billing_mode(BillingMode::PayPerRequest)
            .set_attribute_definitions(Some(definitions.clone()))
            .set_key_schema(Some(schema.clone()))
            .set_global_secondary_indexes(index.clone())
            .send()
    });
    match created.await {
        Ok(_) => Ok(true),
        Err(failure) if failure.code() == Some("ResourceInUseException") => Ok(false),
        Err(failure) => Err(failure.into()),
    }
}

async fn add_index(store: &Store, layout: &TableLayout<'_>) -> Result<(), StoreError> {
    let definitions = layout.expiry.iter().map(|key| key.definition());
    let definitions: Vec<_> = definitions.collect::<Result<_, _>>().map_err(invalid)?;
    let create = CreateGlobalSecondaryIndexAction::builder()
        .index_name(EXPIRY_INDEX)
        .set_key_schema(Some(schema(layout.expiry).map_err(invalid)?))
        .projection(all())
        .build()
        .map_err(invalid)?;
    let update = GlobalSecondaryIndexUpdate::builder().create(create).build();
    store
        .call_with_retries("UpdateTable", layout.table, || {
            store
                .client()
                .update_table()
                .table_name(layout.table)
                .set_attribute_definitions(Some(definitions.clone()))
                .global_secondary_index_updates(update.clone())
                .send()
        })
        .await?;
    Ok(())
}

/// Waits until the table and its indexes are ACTIVE.
async fn wait_active(store: &Store, table: &str) -> Result<TableDescription, StoreError> {
    let started = clock::monotonic();
    loop {
        if let Some(found) = describe(store, table).await? {
            let mut indexes = found.global_secondary_indexes().iter();
            let is_active = found.table_status() == Some(&TableStatus::Active)
                && indexes.all(|index| index.index_status() == Some(&IndexStatus::Active));
            if is_active {
                return Ok(found);
            }
        }
        let Micros(waited) = clock::monotonic().since(started);
        if u128::from(waited) > limits::TABLE_ACTIVE_WAIT_MAX.as_micros() {
            return Err(StoreError::Unavailable(format!(
                "table {table} is not ACTIVE after {:?}",
                limits::TABLE_ACTIVE_WAIT_MAX
            )));
        }
        inventory_runtime::sleep(limits::TABLE_POLL).await;
    }
}

/// The table's time-to-live attribute, if time to live is enabled or being enabled.
async fn purge_attribute(store: &Store, table: &str) -> Result<Option<String>, StoreError> {
    let described = store.call_with_retries("DescribeTimeToLive", table, || {
        let describe = store.client().describe_time_to_live();
        describe.table_name(table).send()
    });
    let found = described.await?.time_to_live_description;
    let on = found.filter(|ttl| {
        let status = ttl.time_to_live_status();
        matches!(status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling))
    });
    Ok(on.and_then(|ttl| ttl.attribute_name))
}

async fn turn_on_purge(store: &Store, table: &str, attribute: &str) -> Result<(), StoreError> {
    let on = TimeToLiveSpecification::builder()
        .enabled(true)
        .attribute_name(attribute)
        .build()
        .map_err(invalid)?;
    let updated = store.call_with_retries("UpdateTimeToLive", table, || {
        let update = store.client().update_time_to_live();
        update.table_name(table).time_to_live_specification(on.clone()).send()
    });
    match updated.await {
        Ok(_) => Ok(()),
        // Enabled meanwhile, by another process or by an attempt whose answer was lost.
        Err(failure)
            if failure.kind == FailureKind::Rejected
                && purge_attribute(store, table).await?.as_deref() == Some(attribute) =>
        {
            Ok(())
        }
        Err(failure) => Err(failure.into()),
    }
}

fn index(found: &TableDescription) -> Option<&GlobalSecondaryIndexDescription> {
    let mut indexes = found.global_secondary_indexes().iter();
    indexes.find(|index| index.index_name() == Some(EXPIRY_INDEX))
}

/// DynamoDB omits the billing summary of a table that was always provisioned.
fn billing(found: &TableDescription) -> BillingMode {
    let summary = found.billing_mode_summary();
    let mode = summary.and_then(|summary| summary.billing_mode().cloned());
    mode.unwrap_or(BillingMode::Provisioned)
}

fn expiry_index(keys: &[KeyAttribute]) -> Result<GlobalSecondaryIndex, BuildError> {
    GlobalSecondaryIndex::builder()
        .index_name(EXPIRY_INDEX)
        .set_key_schema(Some(schema(keys)?))
        .projection(all())
        .build()
}

fn all() -> Projection {
    Projection::builder().projection_type(ProjectionType::All).build()
}

fn schema(keys: &[KeyAttribute]) -> Result<Vec<KeySchemaElement>, BuildError> {
    let kinds = [KeyType::Hash, KeyType::Range];
    let element = |(key, kind): (&KeyAttribute, KeyType)| {
        KeySchemaElement::builder().attribute_name(key.name()).key_type(kind).build()
    };
    keys.iter().zip(kinds).map(element).collect()
}

/// A key schema in the notation of [`list`]: partition key first, with types.
fn keys(schema: &[KeySchemaElement], definitions: &[AttributeDefinition]) -> String {
    let mut schema: Vec<_> = schema.iter().collect();
    schema.sort_by_key(|element| *element.key_type() != KeyType::Hash);
    let name = |element: &KeySchemaElement| {
        let name = element.attribute_name();
        let definition = definitions.iter().find(|d| d.attribute_name() == name);
        let kind = definition.map_or("?", |d| d.attribute_type().as_str());
        format!("{name} ({kind})")
    };
    let names: Vec<_> = schema.into_iter().map(name).collect();
    names.join(", ")
}

fn list(keys: &[KeyAttribute]) -> String {
    let names: Vec<_> = keys.iter().map(ToString::to_string).collect();
    names.join(", ")
}

fn invalid(error: BuildError) -> StoreError {
    StoreError::Invalid(error.to_string())
}
