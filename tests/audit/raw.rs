//! A hand in the store: calls to the engine as JSON, past everything that keeps items consistent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

/// Where the engine is.
#[derive(Clone, Copy)]
pub(crate) struct Raw(pub(crate) SocketAddr);

pub(crate) fn s(text: &str) -> Value {
    json!({"S": text})
}

pub(crate) fn n(number: impl ToString) -> Value {
    json!({"N": number.to_string()})
}

impl Raw {
    /// Makes one call that must succeed.
    #[track_caller]
    pub(crate) fn call(self, operation: &str, body: Value) -> Value {
        let (status, text) = self.post(operation, &body);
        assert_eq!(status, 200, "{operation}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Makes one call whose condition may fail.
    pub(crate) fn tries(self, operation: &str, body: Value) -> bool {
        let (status, text) = self.post(operation, &body);
        assert!(
            status == 200 || text.contains("TransactionCanceled"),
            "{operation}: {text}"
        );
        status == 200
    }

    fn post(self, operation: &str, body: &Value) -> (u16, String) {
        let body = body.to_string();
        let mut stream = TcpStream::connect(self.0).unwrap();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
             content-type: application/x-amz-json-1.0\r\n\
             x-amz-target: DynamoDB_20120810.{operation}\r\n\
             x-amz-date: 20260101T000000Z\r\n\
             authorization: AWS4-HMAC-SHA256 \
             Credential=local/20260101/local/dynamodb/aws4_request, SignedHeaders=host, \
             Signature=0\r\n\
             content-length: {}\r\n\r\n",
            self.0,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
        (status, text.to_owned())
    }

    #[track_caller]
    pub(crate) fn put(self, table: &str, item: Value) {
        self.call("PutItem", json!({"TableName": table, "Item": item}));
    }

    #[track_caller]
    pub(crate) fn get(self, table: &str, key: Value) -> Value {
        let body = json!({"TableName": table, "Key": key, "ConsistentRead": true});
        self.call("GetItem", body)["Item"].clone()
    }

    #[track_caller]
    pub(crate) fn delete(self, table: &str, key: Value) {
        assert_ne!(
            self.get(table, key.clone()),
            Value::Null,
            "nothing to delete"
        );
        self.call("DeleteItem", json!({"TableName": table, "Key": key}));
    }

    /// Sets one attribute of an item that is there.
    #[track_caller]
    pub(crate) fn set(self, table: &str, key: Value, name: &str, to: Value) {
        self.update(table, key, "SET #n = :v", name, to);
    }

    /// Adds to a number of an item that is there.
    #[track_caller]
    pub(crate) fn add(self, table: &str, key: Value, name: &str, by: i64) {
        self.update(table, key, "ADD #n :v", name, n(by));
    }

    #[track_caller]
    fn update(self, table: &str, key: Value, how: &str, name: &str, value: Value) {
        assert_ne!(
            self.get(table, key.clone()),
            Value::Null,
            "nothing to change"
        );
        let body = json!({
            "TableName": table, "Key": key, "UpdateExpression": how,
            "ExpressionAttributeNames": {"#n": name},
            "ExpressionAttributeValues": {":v": value},
        });
        self.call("UpdateItem", body);
    }
}
