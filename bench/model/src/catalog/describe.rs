//! Table descriptions.

use serde_json::{Value as Json, json};

use super::TableCatalog;
use crate::capacity::{Billing, Capacity, CapacityUnits};
use crate::key::{KeyAttribute, KeySchema};
use crate::table::{IndexProjection, SecondaryIndex};

impl TableCatalog {
    pub(super) fn describe(&self, id: u32, status: &str) -> Json {
        let Some(table) = self.get(id) else {
            return Json::Null;
        };
        let arn = format!("arn:aws:dynamodb:local:000000000000:table/{}", table.name);
        let definition = |attribute: &KeyAttribute| json!({ "AttributeName": *attribute.name, "AttributeType": attribute.kind.name() });
        let mut definitions: Vec<Json> = Vec::new();
        let schemas =
            std::iter::once(&table.schema).chain(table.indexes.iter().map(|index| &index.schema));
        for attribute in schemas.flat_map(KeySchema::attributes) {
            let definition = definition(attribute);
            if !definitions.contains(&definition) {
                definitions.push(definition);
            }
        }
        let mut out = json!({
            "TableName": *table.name,
            "TableArn": arn,
            "TableId": format!("00000000-0000-4000-8000-{:012x}", table.id),
            "TableStatus": status,
            "CreationDateTime": (self.defaults.epoch * 1_000 + table.created / 1_000) as f64 / 1_000.0,
            "AttributeDefinitions": definitions,
            "KeySchema": key_schema_json(&table.schema),
            "ItemCount": table.items.len(),
            "TableSizeBytes": table.bytes,
            "ProvisionedThroughput": throughput(&table.capacity),
        });
        if matches!(table.capacity.billing(), Billing::OnDemand { .. }) {
            out["BillingModeSummary"] = json!({ "BillingMode": "PAY_PER_REQUEST" });
            let units = table.capacity.units();
            out["WarmThroughput"] = json!({
                "ReadUnitsPerSecond": units.rcu, "WriteUnitsPerSecond": units.wcu, "Status": "ACTIVE"
            });
        }
        if !table.indexes.is_empty() {
            let index = |index: &SecondaryIndex| {
                let projection = match &index.projection {
                    IndexProjection::All => json!({ "ProjectionType": "ALL" }),
                    IndexProjection::KeysOnly => json!({ "ProjectionType": "KEYS_ONLY" }),
                    IndexProjection::Include(names) => {
                        json!({ "ProjectionType": "INCLUDE", "NonKeyAttributes": names })
                    }
                };
                json!({
                    "IndexName": *index.name,
                    "IndexArn": format!("{arn}/index/{}", index.name),
                    "IndexStatus": status,
                    "KeySchema": key_schema_json(&index.schema),
                    "Projection": projection,
                    "ItemCount": index.entries.len(),
                    "IndexSizeBytes": 0,
                    "ProvisionedThroughput": throughput(&index.capacity),
                })
            };
            out["GlobalSecondaryIndexes"] = table.indexes.iter().map(index).collect();
        }
        out
    }
}

fn throughput(capacity: &Capacity) -> Json {
    let units = match capacity.billing() {
        Billing::OnDemand { .. } => CapacityUnits { wcu: 0, rcu: 0 },
        Billing::Provisioned(units) => units,
    };
    json!({
        "ReadCapacityUnits": units.rcu, "WriteCapacityUnits": units.wcu, "NumberOfDecreasesToday": 0
    })
}

fn key_schema_json(schema: &KeySchema) -> Json {
    let kinds = ["HASH", "RANGE"];
    let element = |(attribute, kind): (&KeyAttribute, &str)| json!({ "AttributeName": *attribute.name, "KeyType": kind });
    schema.attributes().zip(kinds).map(element).collect()
}
