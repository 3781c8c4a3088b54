//! Reads records from JSON: one object per line, concatenated objects, an array, or an object that contains the array.

use serde_json::{Deserializer, Map, Value};

use super::rows::column_name;
use super::{Record, RecordPlace, RecordSink};

/// The key of an object with an array of records.
const LIST: &str = "seats";

/// Passes each record to `take`. With `key`, a string is a record with only this value.
pub(super) fn records(
    text: &str,
    columns: &[&str],
    key: Option<&str>,
    notes: &mut Vec<String>,
    take: &mut RecordSink<'_>,
) {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let is_record =
        |value: &Value| matches!(value, Value::Object(object) if !object.contains_key(LIST));
    if serde_json::from_str(first).is_ok_and(|value| is_record(&value)) {
        return lines(text, columns, key, take);
    }
    let mut values = Deserializer::from_str(text).into_iter::<Value>();
    let (mut line, mut counted) = (1, 0);
    loop {
        let at = values.byte_offset();
        let rest = text.get(at..).unwrap_or_default();
        let start = at + rest.len() - rest.trim_start().len();
        // From the value before: counted from the first line, the time would grow with the square of the file.
        line += text.get(counted..start).unwrap_or_default().matches('\n').count() as u64;
        counted = start;
        let place = RecordPlace::Line(line);
        let goes_on = match values.next() {
            None => return,
            Some(Err(error)) => {
                let line = RecordPlace::Line(error.line() as u64);
                take(line, Err(format!("is no JSON: {error}")));
                return;
            }
            Some(Ok(Value::Array(array))) => elements(array, columns, key, take),
            Some(Ok(Value::Object(mut object))) => match object.remove(LIST) {
                Some(Value::Array(array)) if object.is_empty() => {
                    notes.push(format!("read the list in {LIST:?}"));
                    elements(array, columns, key, take)
                }
                Some(_) => {
                    let others: Vec<_> = object.keys().map(|key| format!("{key:?}")).collect();
                    let problem = match others.is_empty() {
                        true => format!("{LIST:?} is no list; want a list of objects"),
                        false => format!(
                            "has {} beside {LIST:?}; want the list of {LIST} alone",
                            others.join(", ")
                        ),
                    };
                    take(place, Err(problem))
                }
                None => take(place, record(Value::Object(object), columns, key)),
            },
            Some(Ok(other)) => take(place, record(other, columns, key)),
        };
        if !goes_on {
            return;
        }
    }
}

fn lines(text: &str, columns: &[&str], key: Option<&str>, take: &mut RecordSink<'_>) {
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let value = serde_json::from_str(line).map_err(|error| format!("is no JSON: {error}"));
        let record = value.and_then(|value| record(value, columns, key));
        if !take(RecordPlace::Line(number), record) {
            return;
        }
    }
}

fn elements(
    array: Vec<Value>,
    columns: &[&str],
    key: Option<&str>,
    take: &mut RecordSink<'_>,
) -> bool {
    let mut numbered = (1..).zip(array);
    numbered.all(|(number, value)| take(RecordPlace::Element(number), record(value, columns, key)))
}

fn record(value: Value, columns: &[&str], key: Option<&str>) -> Result<Record, String> {
    let object = match (value, key) {
        (Value::Object(object), _) => object,
        (Value::String(text), Some(key)) => Map::from_iter([(key.to_owned(), text.into())]),
        (_, None) => return Err("is no JSON object".to_owned()),
        (_, Some(key)) => return Err(format!("is neither a {key} nor an object with one")),
    };
    let mut record = vec![String::new(); columns.len()];
    for (name, value) in object {
        let column = column_name(&name);
        let at = columns.iter().position(|known| **known == column);
        let Some(place) = at.and_then(|at| record.get_mut(at)) else {
            return Err(format!("{name:?} is no key; want some of {}", columns.join(", ")));
        };
        if !place.is_empty() {
            return Err(format!("has the key {column} twice"));
        }
        *place = match value {
            Value::String(text) => text,
            // As in the file, but without trailing zeros: 45.50 is 45.5.
            Value::Number(number) => number.to_string(),
            Value::Null => String::new(),
            _ => return Err(format!("{name} is no text and no number")),
        };
    }
    Ok(record)
}
