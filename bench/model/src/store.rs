//! The tables, and the requests that make, change, show and drop them.
//!
//! A table is ACTIVE as soon as it is made, and so is an index: waiting for one is not what is modelled.
//!
//! Must not live here: items.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

use crate::Micros;
use crate::capacity::{Billing, Capacity, Units};
use crate::error::{Code, Error};
use crate::key::{KeyAttribute, Schema};
use crate::limits;
use crate::op::Op;
use crate::packed::Kind;
use crate::table::{Index, Shown, Table};

/// What new tables take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Defaults {
    pub(crate) warm: Units,
    pub(crate) quota: u32,
    pub(crate) enforced: bool,
    /// Seconds since the Unix epoch at the model's time 0.
    pub(crate) epoch: u64,
}

#[derive(Debug)]
pub(crate) struct Tables {
    by_name: BTreeMap<String, u32>,
    /// By their ids, which are not used again: a call under way may still name one that is gone.
    all: HashMap<u32, Box<Table>>,
    next: u32,
    defaults: Defaults,
}

// ---- Requests -----------------------------------------------------------------------------------

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct KeyElement {
    attribute_name: String,
    key_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Definition {
    attribute_name: String,
    attribute_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Projection {
    projection_type: Option<String>,
    non_key_attributes: Option<Vec<String>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Throughput {
    read_capacity_units: u32,
    write_capacity_units: u32,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Warm {
    read_units_per_second: Option<u32>,
    write_units_per_second: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct NewIndex {
    index_name: String,
    key_schema: Vec<KeyElement>,
    projection: Projection,
    provisioned_throughput: Option<Throughput>,
    warm_throughput: Option<Warm>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct CreateTable {
    table_name: String,
    attribute_definitions: Vec<Definition>,
    key_schema: Vec<KeyElement>,
    billing_mode: Option<String>,
    provisioned_throughput: Option<Throughput>,
    warm_throughput: Option<Warm>,
    #[serde(default)]
    global_secondary_indexes: Vec<NewIndex>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct DropIndex {
    index_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct IndexUpdate {
    create: Option<NewIndex>,
    delete: Option<DropIndex>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct UpdateTable {
    table_name: String,
    #[serde(default)]
    attribute_definitions: Vec<Definition>,
    billing_mode: Option<String>,
    provisioned_throughput: Option<Throughput>,
    warm_throughput: Option<Warm>,
    #[serde(default)]
    global_secondary_index_updates: Vec<IndexUpdate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Named {
    table_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct TimeToLive {
    enabled: bool,
    attribute_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct UpdateTimeToLive {
    table_name: String,
    time_to_live_specification: TimeToLive,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct ListTables {
    exclusive_start_table_name: Option<String>,
    limit: Option<usize>,
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|why| match why.classify() {
        serde_json::error::Category::Data => Error::unmodelled(format!("this request: {why}")),
        _ => Error::new(Code::Serialization, why.to_string()),
    })
}

// ---- Schemas ------------------------------------------------------------------------------------

fn schema(elements: &[KeyElement], definitions: &[Definition]) -> Result<Schema, Error> {
    let attribute = |element: &KeyElement| {
        let name = &element.attribute_name;
        let mut all = definitions.iter();
        let found = all.find(|definition| definition.attribute_name == *name);
        let kind = found.and_then(|found| Kind::named(&found.attribute_type));
        match kind.filter(|kind| matches!(kind, Kind::S | Kind::N | Kind::B)) {
            Some(kind) => Ok(KeyAttribute {
                name: name.as_str().into(),
                kind,
            }),
            None => Err(Error::validation(format!(
                "One or more parameter values were invalid: Some index key attributes are not defined in \
                 AttributeDefinitions as S, N or B. Keys: [{name}]"
            ))),
        }
    };
    let of = |kind: &'static str| {
        elements
            .iter()
            .filter(move |element| element.key_type == kind)
    };
    let (mut hash, mut range) = (of("HASH"), of("RANGE"));
    let (Some(partition), None, sort, None) =
        (hash.next(), hash.next(), range.next(), range.next())
    else {
        return Err(Error::validation(
            "Invalid KeySchema: want one HASH key and at most one RANGE key",
        ));
    };
    Ok(Schema {
        partition: attribute(partition)?,
        sort: sort.map(attribute).transpose()?,
    })
}

fn shown(projection: Projection) -> Result<Shown, Error> {
    match (
        projection.projection_type.as_deref(),
        projection.non_key_attributes,
    ) {
        (Some("ALL"), None) => Ok(Shown::All),
        (Some("KEYS_ONLY"), None) => Ok(Shown::KeysOnly),
        (Some("INCLUDE"), Some(names)) if !names.is_empty() => Ok(Shown::Include(names)),
        _ => Err(Error::validation(
            "One or more parameter values were invalid: a projection is ALL, KEYS_ONLY, or INCLUDE with \
             NonKeyAttributes",
        )),
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let is_good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    match (3..=255).contains(&name.len()) && name.bytes().all(is_good) {
        true => Ok(()),
        false => Err(Error::validation(format!(
            "1 validation error detected: Value '{name}' failed to satisfy constraint: want 3 to 255 of \
             a-z, A-Z, 0-9, '_', '-' and '.'"
        ))),
    }
}

impl Tables {
    pub(crate) fn new(defaults: Defaults) -> Self {
        Self {
            by_name: BTreeMap::new(),
            all: HashMap::new(),
            next: 1,
            defaults,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.by_name.clear();
        self.all.clear();
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Table> {
        self.get(*self.by_name.get(name)?)
    }

    fn named_mut(&mut self, name: &str) -> Result<&mut Table, Error> {
        let id = self.by_name.get(name).copied();
        let missing = || {
            Error::new(
                Code::ResourceNotFound,
                format!("Requested resource not found: Table: {name} not found"),
            )
        };
        id.and_then(|id| self.get_mut(id)).ok_or_else(missing)
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Table> {
        self.all.get(&id).map(|table| &**table)
    }

    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut Table> {
        self.all.get_mut(&id).map(|table| &mut **table)
    }

    /// By name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Table> {
        self.by_name.values().filter_map(|id| self.get(*id))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Table> {
        self.all.values_mut().map(|table| &mut **table)
    }

    /// Carries out a request about tables.
    pub(crate) fn request(&mut self, op: Op, body: &[u8], now: Micros) -> Result<Vec<u8>, Error> {
        let answer = match op {
            Op::CreateTable => self.create(read(body)?, now)?,
            Op::UpdateTable => self.update(read(body)?, now)?,
            Op::DeleteTable => {
                let Named { table_name } = read(body)?;
                let table = self.named_mut(&table_name)?;
                let id = table.id;
                let description = self.describe(id, "DELETING");
                self.by_name.remove(&table_name);
                self.all.remove(&id);
                json!({ "TableDescription": description })
            }
            Op::DescribeTable => {
                let Named { table_name } = read(body)?;
                let id = self.named_mut(&table_name)?.id;
                json!({ "Table": self.describe(id, "ACTIVE") })
            }
            Op::ListTables => self.list(&read(body)?),
            Op::DescribeTimeToLive => {
                let Named { table_name } = read(body)?;
                let ttl = match &self.named_mut(&table_name)?.ttl {
                    Some(name) => json!({ "TimeToLiveStatus": "ENABLED", "AttributeName": name }),
                    None => json!({ "TimeToLiveStatus": "DISABLED" }),
                };
                json!({ "TimeToLiveDescription": ttl })
            }
            Op::UpdateTimeToLive => self.update_ttl(read(body)?)?,
            other => return Err(Error::unmodelled(other.name())),
        };
        Ok(answer.to_string().into_bytes())
    }

    fn list(&self, wanted: &ListTables) -> Json {
        let after = wanted.exclusive_start_table_name.as_deref().unwrap_or("");
        let limit = wanted.limit.unwrap_or(100).clamp(1, 100);
        let mut names = self.by_name.keys().filter(|name| name.as_str() > after);
        let page: Vec<&String> = names.by_ref().take(limit).collect();
        match (names.next(), page.last()) {
            (Some(_), Some(last)) => json!({ "TableNames": page, "LastEvaluatedTableName": last }),
            _ => json!({ "TableNames": page }),
        }
    }

    fn update_ttl(&mut self, wanted: UpdateTimeToLive) -> Result<Json, Error> {
        let table = self.named_mut(&wanted.table_name)?;
        let TimeToLive {
            enabled,
            attribute_name,
        } = wanted.time_to_live_specification;
        match (enabled, &table.ttl) {
            (true, Some(_)) => return Err(Error::validation("TimeToLive is already enabled")),
            (false, None) => return Err(Error::validation("TimeToLive is already disabled")),
            (false, Some(on)) if *on != attribute_name => {
                return Err(Error::validation(format!(
                    "TimeToLive is active on a different AttributeName: {on}"
                )));
            }
            _ => {}
        }
        table.ttl = enabled.then(|| attribute_name.clone());
        Ok(json!({
            "TimeToLiveSpecification": { "Enabled": enabled, "AttributeName": attribute_name }
        }))
    }

    fn capacity(
        &self,
        mode: Option<&str>,
        provisioned: Option<Throughput>,
        warm: Option<Warm>,
        now: Micros,
    ) -> Result<Capacity, Error> {
        let Defaults {
            warm: default,
            quota,
            enforced,
            ..
        } = self.defaults;
        let billing = match (mode.unwrap_or("PROVISIONED"), provisioned) {
            ("PAY_PER_REQUEST", None) => Billing::OnDemand {
                warm: Units {
                    wcu: warm
                        .and_then(|warm| warm.write_units_per_second)
                        .unwrap_or(default.wcu),
                    rcu: warm
                        .and_then(|warm| warm.read_units_per_second)
                        .unwrap_or(default.rcu),
                },
                quota,
            },
            ("PROVISIONED", Some(units)) => Billing::Provisioned(Units {
                wcu: units.write_capacity_units,
                rcu: units.read_capacity_units,
            }),
            (mode, _) => {
                return Err(Error::validation(format!(
                    "One or more parameter values were invalid: BillingMode {mode} does not go with the \
                     ProvisionedThroughput given; want PAY_PER_REQUEST without, or PROVISIONED with it"
                )));
            }
        };
        let units = match billing {
            Billing::OnDemand { warm, .. } => warm,
            Billing::Provisioned(units) => units,
        };
        let within = 1..=limits::CAPACITY_MAX;
        match within.contains(&units.wcu) && within.contains(&units.rcu) {
            true => Ok(Capacity::new(billing, enforced, now)),
            false => Err(Error::validation(format!(
                "capacity is {} WCU and {} RCU; the model takes 1 to {}",
                units.wcu,
                units.rcu,
                limits::CAPACITY_MAX
            ))),
        }
    }

    fn index(
        &self,
        wanted: NewIndex,
        mode: Option<&str>,
        definitions: &[Definition],
        now: Micros,
    ) -> Result<Index, Error> {
        check_name(&wanted.index_name)?;
        Ok(Index {
            name: wanted.index_name.as_str().into(),
            schema: schema(&wanted.key_schema, definitions)?,
            shown: shown(wanted.projection)?,
            entries: BTreeMap::new(),
            capacity: self.capacity(
                mode,
                wanted.provisioned_throughput,
                wanted.warm_throughput,
                now,
            )?,
        })
    }

    fn create(&mut self, wanted: CreateTable, now: Micros) -> Result<Json, Error> {
        let name = wanted.table_name;
        check_name(&name)?;
        if self.by_name.contains_key(&name) {
            return Err(Error::new(
                Code::ResourceInUse,
                format!("Table already exists: {name}"),
            ));
        }
        if self.by_name.len() >= limits::TABLES_MAX {
            return Err(Error::new(
                Code::LimitExceeded,
                format!("there are {} tables already", limits::TABLES_MAX),
            ));
        }
        let definitions = &wanted.attribute_definitions;
        let mode = wanted.billing_mode.as_deref();
        let schema = schema(&wanted.key_schema, definitions)?;
        let capacity = self.capacity(
            mode,
            wanted.provisioned_throughput,
            wanted.warm_throughput,
            now,
        )?;
        if wanted.global_secondary_indexes.len() > limits::INDEXES_MAX {
            return Err(Error::validation(format!(
                "One or more parameter values were invalid: more than {} GlobalSecondaryIndexes",
                limits::INDEXES_MAX
            )));
        }
        let mut indexes = Vec::new();
        for index in wanted.global_secondary_indexes {
            indexes.push(self.index(index, mode, definitions, now)?);
        }
        let used = |name: &str| {
            let mut schemas =
                std::iter::once(&schema).chain(indexes.iter().map(|index| &index.schema));
            schemas.any(|schema| schema.has(name.as_bytes()))
        };
        if let Some(unused) = definitions
            .iter()
            .find(|definition| !used(&definition.attribute_name))
        {
            return Err(Error::validation(format!(
                "One or more parameter values were invalid: Some AttributeDefinitions are not used. \
                 AttributeDefinitions: [{}]",
                unused.attribute_name
            )));
        }
        let id = self.next;
        self.next += 1;
        let table = Table {
            id,
            name: name.as_str().into(),
            schema,
            indexes,
            items: BTreeMap::new(),
            capacity,
            ttl: None,
            created: now,
            bytes: 0,
        };
        self.all.insert(id, Box::new(table));
        self.by_name.insert(name, id);
        Ok(json!({ "TableDescription": self.describe(id, "ACTIVE") }))
    }

    fn update(&mut self, wanted: UpdateTable, now: Micros) -> Result<Json, Error> {
        let table = self.named_mut(&wanted.table_name)?;
        let id = table.id;
        let is_on_demand = matches!(table.capacity.billing(), Billing::OnDemand { .. });
        let now_mode = if is_on_demand {
            "PAY_PER_REQUEST"
        } else {
            "PROVISIONED"
        };
        let mode = wanted.billing_mode.as_deref().unwrap_or(now_mode);
        // Attributes that keys use already need not be defined again.
        let mut definitions = wanted.attribute_definitions;
        let known = table
            .schema
            .attributes()
            .chain(table.indexes.iter().flat_map(|i| i.schema.attributes()));
        definitions.extend(known.map(|attribute| Definition {
            attribute_name: attribute.name.to_string(),
            attribute_type: attribute.kind.name().to_owned(),
        }));
        let changes_capacity = wanted.billing_mode.is_some()
            || wanted.provisioned_throughput.is_some()
            || wanted.warm_throughput.is_some();
        if changes_capacity {
            let capacity = self.capacity(
                Some(mode),
                wanted.provisioned_throughput,
                wanted.warm_throughput,
                now,
            )?;
            self.named_mut(&wanted.table_name)?.capacity = capacity;
        }
        for update in wanted.global_secondary_index_updates {
            match (update.create, update.delete) {
                (Some(new), None) => {
                    let index = self.index(new, Some(mode), &definitions, now)?;
                    let table = self.named_mut(&wanted.table_name)?;
                    if table.index(&index.name).is_some()
                        || table.indexes.len() >= limits::INDEXES_MAX
                    {
                        return Err(Error::validation(format!(
                            "Attempting to create an index which already exists, or more than {}",
                            limits::INDEXES_MAX
                        )));
                    }
                    table.add_index(index);
                }
                (None, Some(gone)) => {
                    let table = self.named_mut(&wanted.table_name)?;
                    let Some(at) = table.index(&gone.index_name) else {
                        return Err(Error::no_table());
                    };
                    table.indexes.remove(at);
                }
                _ => {
                    return Err(Error::unmodelled(
                        "an index update that is not one Create or one Delete",
                    ));
                }
            }
        }
        Ok(json!({ "TableDescription": self.describe(id, "ACTIVE") }))
    }

    fn describe(&self, id: u32, status: &str) -> Json {
        let Some(table) = self.get(id) else {
            return Json::Null;
        };
        let arn = format!("arn:aws:dynamodb:local:000000000000:table/{}", table.name);
        let definition = |attribute: &KeyAttribute| json!({ "AttributeName": *attribute.name, "AttributeType": attribute.kind.name() });
        let mut definitions: Vec<Json> = Vec::new();
        let schemas =
            std::iter::once(&table.schema).chain(table.indexes.iter().map(|index| &index.schema));
        for attribute in schemas.flat_map(Schema::attributes) {
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
            "KeySchema": key_schema(&table.schema),
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
            let index = |index: &Index| {
                let projection = match &index.shown {
                    Shown::All => json!({ "ProjectionType": "ALL" }),
                    Shown::KeysOnly => json!({ "ProjectionType": "KEYS_ONLY" }),
                    Shown::Include(names) => {
                        json!({ "ProjectionType": "INCLUDE", "NonKeyAttributes": names })
                    }
                };
                json!({
                    "IndexName": *index.name,
                    "IndexArn": format!("{arn}/index/{}", index.name),
                    "IndexStatus": status,
                    "KeySchema": key_schema(&index.schema),
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
        Billing::OnDemand { .. } => Units { wcu: 0, rcu: 0 },
        Billing::Provisioned(units) => units,
    };
    json!({
        "ReadCapacityUnits": units.rcu, "WriteCapacityUnits": units.wcu, "NumberOfDecreasesToday": 0
    })
}

fn key_schema(schema: &Schema) -> Json {
    let kinds = ["HASH", "RANGE"];
    let element = |(attribute, kind): (&KeyAttribute, &str)| json!({ "AttributeName": *attribute.name, "KeyType": kind });
    schema.attributes().zip(kinds).map(element).collect()
}
