//! An expression with its names, made once and used for every item it fits: a transaction of a
//! hundred actions copies them a hundred times.

use std::collections::HashMap;

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update};

use super::fields::Item;

/// What an update does and asks, and what its aliases stand for. DynamoDB refuses a name that is
/// declared and not used: every combination of attributes has a shape of its own.
pub(in crate::store) struct Shape {
    pub(in crate::store) update: String,
    pub(in crate::store) condition: String,
    pub(in crate::store) names: HashMap<String, String>,
}

/// A write of one item outside any transaction.
pub(in crate::store) struct Change {
    pub(in crate::store) key: Item,
    pub(in crate::store) shape: Shape,
    pub(in crate::store) values: Item,
}

impl Shape {
    /// `names` may declare more than the two expressions use.
    pub(super) fn new(
        update: impl Into<String>,
        condition: impl Into<String>,
        names: &[(&str, &str)],
    ) -> Self {
        let (update, condition) = (update.into(), condition.into());
        let mut shape = Self {
            names: HashMap::new(),
            update,
            condition,
        };
        for (alias, name) in names {
            if uses(&shape.update, alias) || uses(&shape.condition, alias) {
                let name = (*name).to_owned();
                shape.names.insert((*alias).to_owned(), name);
            }
        }
        shape
    }

    /// The action on the item at `key`. When the condition fails, the store tells what is there.
    pub(super) fn action(
        &self,
        table: &str,
        key: Item,
        values: Item,
    ) -> Result<TransactWriteItem, BuildError> {
        let update = Update::builder()
            .table_name(table)
            .set_key(Some(key))
            .update_expression(&*self.update)
            .condition_expression(&*self.condition)
            .set_expression_attribute_names(Some(self.names.clone()))
            .set_expression_attribute_values(Some(values))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()?;
        Ok(TransactWriteItem::builder().update(update).build())
    }
}

/// Whether `expression` has `alias` as a whole word.
fn uses(expression: &str, alias: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    expression
        .match_indices(alias)
        .any(|(at, _)| !expression[at + alias.len()..].starts_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_in_use_are_declared() {
        let names = [("#a", "alpha"), ("#ab", "beta"), ("#c", "gamma")];
        let shape = Shape::new("SET #ab = :x", "#c > :x", &names);
        let mut declared: Vec<_> = shape.names.keys().map(String::as_str).collect();
        declared.sort_unstable();
        assert_eq!(declared, ["#ab", "#c"]);
    }
}
