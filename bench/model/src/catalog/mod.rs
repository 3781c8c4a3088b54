//! All tables, and the requests that create, update, describe and delete them.
//!
//! Tables and indexes are ACTIVE at once: the model has no creation delay.
//!
//! Not here: items.

mod describe;
mod input;

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value as Json, json};

use crate::ModelTime;
use crate::capacity::{Billing, Capacity, CapacityUnits};
use crate::error::{Code, Error};
use crate::limits;
use crate::operation::ApiOperation;
use crate::table::{SecondaryIndex, Table};
use input::{
    CreateTableInput, DefinitionInput, IndexInput, ListTablesInput, TableInput, ThroughputInput,
    TimeToLiveInput, UpdateTableInput, UpdateTimeToLiveInput, WarmThroughputInput, check_name,
    index_projection, key_schema,
};

/// Defaults of new tables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableDefaults {
    pub(crate) warm: CapacityUnits,
    pub(crate) quota: u32,
    pub(crate) enforced: bool,
    /// Seconds since the Unix epoch at the model's time 0.
    pub(crate) epoch: u64,
}

#[derive(Debug)]
pub(crate) struct TableCatalog {
    by_name: BTreeMap<String, u32>,
    /// By id. Ids are never reused, because a call in flight may refer to a deleted table.
    all: HashMap<u32, Box<Table>>,
    next: u32,
    defaults: TableDefaults,
}

impl TableCatalog {
    pub(crate) fn new(defaults: TableDefaults) -> Self {
        Self { by_name: BTreeMap::new(), all: HashMap::new(), next: 1, defaults }
    }

    pub(crate) fn clear(&mut self) {
        self.by_name.clear();
        self.all.clear();
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Table> {
        self.get(*self.by_name.get(name)?)
    }

    fn by_name_mut(&mut self, name: &str) -> Result<&mut Table, Error> {
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

    /// All tables in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Table> {
        self.by_name.values().filter_map(|id| self.get(*id))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Table> {
        self.all.values_mut().map(|table| &mut **table)
    }

    /// Executes a request on tables.
    pub(crate) fn execute(
        &mut self,
        operation: ApiOperation,
        body: &[u8],
        now: ModelTime,
    ) -> Result<Vec<u8>, Error> {
        let output = match operation {
            ApiOperation::CreateTable => self.create(serde_json::from_slice(body)?, now)?,
            ApiOperation::UpdateTable => self.update(serde_json::from_slice(body)?, now)?,
            ApiOperation::DeleteTable => {
                let TableInput { table_name } = serde_json::from_slice(body)?;
                let table = self.by_name_mut(&table_name)?;
                let id = table.id;
                let description = self.describe(id, "DELETING");
                self.by_name.remove(&table_name);
                self.all.remove(&id);
                json!({ "TableDescription": description })
            }
            ApiOperation::DescribeTable => {
                let TableInput { table_name } = serde_json::from_slice(body)?;
                let id = self.by_name_mut(&table_name)?.id;
                json!({ "Table": self.describe(id, "ACTIVE") })
            }
            ApiOperation::ListTables => self.list(&serde_json::from_slice(body)?),
            ApiOperation::DescribeTimeToLive => {
                let TableInput { table_name } = serde_json::from_slice(body)?;
                let ttl = match &self.by_name_mut(&table_name)?.ttl {
                    Some(name) => json!({ "TimeToLiveStatus": "ENABLED", "AttributeName": name }),
                    None => json!({ "TimeToLiveStatus": "DISABLED" }),
                };
                json!({ "TimeToLiveDescription": ttl })
            }
            ApiOperation::UpdateTimeToLive => self.update_ttl(serde_json::from_slice(body)?)?,
            other => return Err(Error::unsupported(other.name())),
        };
        Ok(output.to_string().into_bytes())
    }

    fn list(&self, input: &ListTablesInput) -> Json {
        let after = input.exclusive_start_table_name.as_deref().unwrap_or("");
        let limit = input.limit.unwrap_or(100).clamp(1, 100);
        let mut names = self.by_name.keys().filter(|name| name.as_str() > after);
        let page: Vec<&String> = names.by_ref().take(limit).collect();
        match (names.next(), page.last()) {
            (Some(_), Some(last)) => json!({ "TableNames": page, "LastEvaluatedTableName": last }),
            _ => json!({ "TableNames": page }),
        }
    }

    fn update_ttl(&mut self, input: UpdateTimeToLiveInput) -> Result<Json, Error> {
        let table = self.by_name_mut(&input.table_name)?;
        let TimeToLiveInput { enabled, attribute_name } = input.time_to_live_specification;
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
        provisioned: Option<ThroughputInput>,
        warm: Option<WarmThroughputInput>,
        now: ModelTime,
    ) -> Result<Capacity, Error> {
        let TableDefaults { warm: default, quota, enforced, .. } = self.defaults;
        let billing = match (mode.unwrap_or("PROVISIONED"), provisioned) {
            ("PAY_PER_REQUEST", None) => Billing::OnDemand {
                warm: CapacityUnits {
                    wcu: warm.and_then(|warm| warm.write_units_per_second).unwrap_or(default.wcu),
                    rcu: warm.and_then(|warm| warm.read_units_per_second).unwrap_or(default.rcu),
                },
                quota,
            },
            ("PROVISIONED", Some(units)) => Billing::Provisioned(CapacityUnits {
                wcu: units.write_capacity_units,
                rcu: units.read_capacity_units,
            }),
            (mode, _) => {
                return Err(Error::validation(format!(
                    "One or more parameter values were invalid: BillingMode {mode} cannot be combined \
                     with the given ProvisionedThroughput: must be PAY_PER_REQUEST without, or PROVISIONED with it"
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
                "capacity is {} WCU and {} RCU; must be 1 to {}",
                units.wcu,
                units.rcu,
                limits::CAPACITY_MAX
            ))),
        }
    }

    fn index(
        &self,
        input: IndexInput,
        mode: Option<&str>,
        definitions: &[DefinitionInput],
        now: ModelTime,
    ) -> Result<SecondaryIndex, Error> {
        check_name(&input.index_name)?;
        Ok(SecondaryIndex {
            name: input.index_name.as_str().into(),
            schema: key_schema(&input.key_schema, definitions)?,
            projection: index_projection(input.projection)?,
            entries: BTreeMap::new(),
            capacity: self.capacity(
                mode,
                input.provisioned_throughput,
                input.warm_throughput,
                now,
            )?,
        })
    }

    fn create(&mut self, input: CreateTableInput, now: ModelTime) -> Result<Json, Error> {
        let name = input.table_name;
        check_name(&name)?;
        if self.by_name.contains_key(&name) {
            return Err(Error::new(Code::ResourceInUse, format!("Table already exists: {name}")));
        }
        if self.by_name.len() >= limits::TABLES_MAX {
            return Err(Error::new(
                Code::LimitExceeded,
                format!("the limit of {} tables is reached", limits::TABLES_MAX),
            ));
        }
        let definitions = &input.attribute_definitions;
        let mode = input.billing_mode.as_deref();
        let schema = key_schema(&input.key_schema, definitions)?;
        let capacity =
            self.capacity(mode, input.provisioned_throughput, input.warm_throughput, now)?;
        if input.global_secondary_indexes.len() > limits::INDEXES_MAX {
            return Err(Error::validation(format!(
                "One or more parameter values were invalid: more than {} GlobalSecondaryIndexes",
                limits::INDEXES_MAX
            )));
        }
        let mut indexes = Vec::new();
        for index in input.global_secondary_indexes {
            indexes.push(self.index(index, mode, definitions, now)?);
        }
        let used = |name: &str| {
            let mut schemas =
                std::iter::once(&schema).chain(indexes.iter().map(|index| &index.schema));
            schemas.any(|schema| schema.has(name.as_bytes()))
        };
        if let Some(unused) =
            definitions.iter().find(|definition| !used(&definition.attribute_name))
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

    fn update(&mut self, input: UpdateTableInput, now: ModelTime) -> Result<Json, Error> {
        let table = self.by_name_mut(&input.table_name)?;
        let id = table.id;
        let is_on_demand = matches!(table.capacity.billing(), Billing::OnDemand { .. });
        let now_mode = if is_on_demand { "PAY_PER_REQUEST" } else { "PROVISIONED" };
        let mode = input.billing_mode.as_deref().unwrap_or(now_mode);
        // Attributes of existing keys need not be defined again.
        let mut definitions = input.attribute_definitions;
        let known = table
            .schema
            .attributes()
            .chain(table.indexes.iter().flat_map(|i| i.schema.attributes()));
        definitions.extend(known.map(|attribute| DefinitionInput {
            attribute_name: attribute.name.to_string(),
            attribute_type: attribute.kind.name().to_owned(),
        }));
        let changes_capacity = input.billing_mode.is_some()
            || input.provisioned_throughput.is_some()
            || input.warm_throughput.is_some();
        if changes_capacity {
            let capacity = self.capacity(
                Some(mode),
                input.provisioned_throughput,
                input.warm_throughput,
                now,
            )?;
            self.by_name_mut(&input.table_name)?.capacity = capacity;
        }
        for update in input.global_secondary_index_updates {
            match (update.create, update.delete) {
                (Some(new), None) => {
                    let index = self.index(new, Some(mode), &definitions, now)?;
                    let table = self.by_name_mut(&input.table_name)?;
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
                    let table = self.by_name_mut(&input.table_name)?;
                    let Some(at) = table.index(&gone.index_name) else {
                        return Err(Error::no_table());
                    };
                    table.indexes.remove(at);
                }
                _ => {
                    return Err(Error::unsupported(
                        "an index update other than one Create or one Delete",
                    ));
                }
            }
        }
        Ok(json!({ "TableDescription": self.describe(id, "ACTIVE") }))
    }
}
