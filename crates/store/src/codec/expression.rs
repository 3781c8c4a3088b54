//! Expression templates: an expression with its names, built once for every item it fits, and on the request path
//! the constant parts of an action as JSON.

use std::collections::HashMap;

use super::fields::Item;
use super::json::{AttributeWriter, JsonWriter, quote};

/// Update and condition expression, and the names of their aliases. DynamoDB rejects a name that is declared and
/// not used, so every combination of attributes has its own template.
pub(crate) struct ExpressionTemplate {
    pub(crate) update: String,
    /// Empty: the write has no condition.
    pub(crate) condition: String,
    pub(crate) names: HashMap<String, String>,
}

/// A conditional write of one item outside any transaction.
pub(crate) struct ConditionalUpdate {
    pub(crate) key: Item,
    pub(crate) shape: ExpressionTemplate,
    pub(crate) values: Item,
}

impl ExpressionTemplate {
    /// `names` may declare more than the two expressions use.
    pub(super) fn new(
        update: impl Into<String>,
        condition: impl Into<String>,
        names: &[(&str, &str)],
    ) -> Self {
        let (update, condition) = (update.into(), condition.into());
        let mut shape = Self { names: HashMap::new(), update, condition };
        for (alias, name) in names {
            if uses(&shape.update, alias) || uses(&shape.condition, alias) {
                let name = (*name).to_owned();
                shape.names.insert((*alias).to_owned(), name);
            }
        }
        shape
    }

    /// The constant part of an update; [`UpdateTemplate::write`] adds key and values.
    pub(super) fn template(&self, table: &str) -> UpdateTemplate {
        let mut head = head("Update", table, &self.condition, &self.names);
        head.push_str(",\"UpdateExpression\":");
        quote(&mut head, &self.update);
        head.push_str(",\"Key\":{");
        UpdateTemplate { head }
    }
}

/// An update of a transaction without its key and values.
pub(super) struct UpdateTemplate {
    head: String,
}

impl UpdateTemplate {
    /// Writes the action on one item. If the condition fails, the store returns the stored item.
    pub(super) fn write(
        &self,
        json: &mut JsonWriter,
        key: impl FnOnce(&mut AttributeWriter<'_>),
        values: impl FnOnce(&mut AttributeWriter<'_>),
    ) {
        json.raw(&self.head);
        key(&mut json.attributes());
        json.raw("},\"ExpressionAttributeValues\":{");
        values(&mut json.attributes());
        json.raw("}}}");
    }
}

/// A put of a transaction without its item.
pub(super) struct PutTemplate {
    head: String,
}

impl PutTemplate {
    pub(super) fn new(table: &str, condition: &str, names: &HashMap<String, String>) -> Self {
        let mut head = head("Put", table, condition, names);
        head.push_str(",\"Item\":{");
        Self { head }
    }

    /// See [`UpdateTemplate::write`].
    pub(super) fn write(&self, json: &mut JsonWriter, item: impl FnOnce(&mut AttributeWriter<'_>)) {
        json.raw(&self.head);
        item(&mut json.attributes());
        json.raw("}}}");
    }
}

/// Members that every action has.
fn head(kind: &str, table: &str, condition: &str, names: &HashMap<String, String>) -> String {
    let mut head = format!("{{\"{kind}\":{{\"TableName\":");
    quote(&mut head, table);
    if !condition.is_empty() {
        head.push_str(",\"ConditionExpression\":");
        quote(&mut head, condition);
        head.push_str(",\"ReturnValuesOnConditionCheckFailure\":\"ALL_OLD\"");
    }
    head.push_str(",\"ExpressionAttributeNames\":{");
    for (n, (alias, name)) in names.iter().enumerate() {
        head.push_str(if n == 0 { "" } else { "," });
        quote(&mut head, alias);
        head.push(':');
        quote(&mut head, name);
    }
    head.push('}');
    head
}

/// Whether `expression` has `alias` as a whole word.
fn uses(expression: &str, alias: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    expression.match_indices(alias).any(|(at, _)| !expression[at + alias.len()..].starts_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_in_use_are_declared() {
        let names = [("#a", "alpha"), ("#ab", "beta"), ("#c", "gamma")];
        let shape = ExpressionTemplate::new("SET #ab = :x", "#c > :x", &names);
        let mut declared: Vec<_> = shape.names.keys().map(String::as_str).collect();
        declared.sort_unstable();
        assert_eq!(declared, ["#ab", "#c"]);
    }
}
