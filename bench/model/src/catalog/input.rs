//! Requests on tables as JSON, by serde, and the checks of schemas and names.

use serde::Deserialize;

use crate::error::Error;
use crate::key::{KeyAttribute, KeySchema};
use crate::packed::AttributeKind;
use crate::table::IndexProjection;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct KeyElementInput {
    pub(super) attribute_name: String,
    pub(super) key_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct DefinitionInput {
    pub(super) attribute_name: String,
    pub(super) attribute_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct ProjectionInput {
    pub(super) projection_type: Option<String>,
    pub(super) non_key_attributes: Option<Vec<String>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct ThroughputInput {
    pub(super) read_capacity_units: u32,
    pub(super) write_capacity_units: u32,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct WarmThroughputInput {
    pub(super) read_units_per_second: Option<u32>,
    pub(super) write_units_per_second: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct IndexInput {
    pub(super) index_name: String,
    pub(super) key_schema: Vec<KeyElementInput>,
    pub(super) projection: ProjectionInput,
    pub(super) provisioned_throughput: Option<ThroughputInput>,
    pub(super) warm_throughput: Option<WarmThroughputInput>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct CreateTableInput {
    pub(super) table_name: String,
    pub(super) attribute_definitions: Vec<DefinitionInput>,
    pub(super) key_schema: Vec<KeyElementInput>,
    pub(super) billing_mode: Option<String>,
    pub(super) provisioned_throughput: Option<ThroughputInput>,
    pub(super) warm_throughput: Option<WarmThroughputInput>,
    #[serde(default)]
    pub(super) global_secondary_indexes: Vec<IndexInput>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct DeleteIndexInput {
    pub(super) index_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct IndexUpdateInput {
    pub(super) create: Option<IndexInput>,
    pub(super) delete: Option<DeleteIndexInput>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct UpdateTableInput {
    pub(super) table_name: String,
    #[serde(default)]
    pub(super) attribute_definitions: Vec<DefinitionInput>,
    pub(super) billing_mode: Option<String>,
    pub(super) provisioned_throughput: Option<ThroughputInput>,
    pub(super) warm_throughput: Option<WarmThroughputInput>,
    #[serde(default)]
    pub(super) global_secondary_index_updates: Vec<IndexUpdateInput>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct TableInput {
    pub(super) table_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct TimeToLiveInput {
    pub(super) enabled: bool,
    pub(super) attribute_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct UpdateTimeToLiveInput {
    pub(super) table_name: String,
    pub(super) time_to_live_specification: TimeToLiveInput,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct ListTablesInput {
    pub(super) exclusive_start_table_name: Option<String>,
    pub(super) limit: Option<usize>,
}

pub(super) fn key_schema(
    elements: &[KeyElementInput],
    definitions: &[DefinitionInput],
) -> Result<KeySchema, Error> {
    let attribute = |element: &KeyElementInput| {
        let name = &element.attribute_name;
        let mut all = definitions.iter();
        let found = all.find(|definition| definition.attribute_name == *name);
        let kind = found.and_then(|found| found.attribute_type.parse().ok());
        match kind.filter(|kind: &AttributeKind| kind.is_scalar()) {
            Some(kind) => Ok(KeyAttribute { name: name.as_str().into(), kind }),
            None => Err(Error::validation(format!(
                "One or more parameter values were invalid: Some index key attributes are not defined in \
                 AttributeDefinitions as S, N or B. Keys: [{name}]"
            ))),
        }
    };
    let of = |kind: &'static str| elements.iter().filter(move |element| element.key_type == kind);
    let (mut hash, mut range) = (of("HASH"), of("RANGE"));
    let (Some(partition), None, sort, None) =
        (hash.next(), hash.next(), range.next(), range.next())
    else {
        return Err(Error::validation(
            "Invalid KeySchema: must have one HASH key and at most one RANGE key",
        ));
    };
    Ok(KeySchema { partition: attribute(partition)?, sort: sort.map(attribute).transpose()? })
}

pub(super) fn index_projection(projection: ProjectionInput) -> Result<IndexProjection, Error> {
    match (projection.projection_type.as_deref(), projection.non_key_attributes) {
        (Some("ALL"), None) => Ok(IndexProjection::All),
        (Some("KEYS_ONLY"), None) => Ok(IndexProjection::KeysOnly),
        (Some("INCLUDE"), Some(names)) if !names.is_empty() => Ok(IndexProjection::Include(names)),
        _ => Err(Error::validation(
            "One or more parameter values were invalid: a projection is ALL, KEYS_ONLY, or INCLUDE with \
             NonKeyAttributes",
        )),
    }
}

pub(super) fn check_name(name: &str) -> Result<(), Error> {
    let is_good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    match (3..=255).contains(&name.len()) && name.bytes().all(is_good) {
        true => Ok(()),
        false => Err(Error::validation(format!(
            "1 validation error detected: Value '{name}' failed to satisfy constraint: must have 3 to 255 \
             characters of a-z, A-Z, 0-9, '_', '-' and '.'"
        ))),
    }
}
