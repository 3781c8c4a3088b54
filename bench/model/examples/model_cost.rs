//! Cost of the model: CPU time per action of transactions like the server's (one stripe update, 39 record
//! puts), in process and over HTTP, and memory per record.
//!
//! `cargo run --profile dist -p inventory-store-model --example model_cost [RECORDS]`

use std::error::Error;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use inventory_store_model::{LatencyProfile, ModelReply, ModelServer, ModelSettings, StoreModel};
use rustix::time::{ClockId, clock_gettime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const ACTIONS: u64 = 40;
/// Transactions and connections of the measurement over HTTP.
const SERVED: u64 = 6_000;
const CONNECTIONS: u64 = 20;

const TABLES: [&str; 2] = [
    r#"{"TableName":"inventory","BillingMode":"PAY_PER_REQUEST",
        "AttributeDefinitions":[{"AttributeName":"event_id","AttributeType":"S"}],
        "KeySchema":[{"AttributeName":"event_id","KeyType":"HASH"}]}"#,
    r#"{"TableName":"idempotency","BillingMode":"PAY_PER_REQUEST",
        "AttributeDefinitions":[{"AttributeName":"reservation_id","AttributeType":"S"},
            {"AttributeName":"expiry_bucket","AttributeType":"S"},{"AttributeName":"expires_at","AttributeType":"N"}],
        "KeySchema":[{"AttributeName":"reservation_id","KeyType":"HASH"}],
        "GlobalSecondaryIndexes":[{"IndexName":"expiry","Projection":{"ProjectionType":"ALL"},
            "KeySchema":[{"AttributeName":"expiry_bucket","KeyType":"HASH"},
                {"AttributeName":"expires_at","KeyType":"RANGE"}]}]}"#,
];

const STRIPE: &str = r#"{"TableName":"inventory","Item":{"event_id":{"S":"evt_2025_1001"},
    "remaining":{"N":"1000000000"},"total_seats":{"N":"1000000000"},"version":{"N":"0"}}}"#;

/// Transaction number `nth`.
fn transaction(nth: u64) -> String {
    let mut body = format!(
        r##"{{"ClientRequestToken":"{nth:032x}","TransactItems":[{{"Update":{{"Key":{{"event_id":{{"S":"evt_2025_1001"}}}},"UpdateExpression":"SET #r = #r - :n, #u = :u ADD #v :o","TableName":"inventory","ConditionExpression":"#r >= :n AND (attribute_not_exists(#c) OR #c = :f)","ExpressionAttributeNames":{{"#r":"remaining","#c":"closed","#u":"updated_at","#v":"version"}},"ExpressionAttributeValues":{{":n":{{"N":"{ACTIONS}"}},":o":{{"N":"1"}},":u":{{"S":"2025-10-01T12:00:00.25Z"}},":f":{{"BOOL":false}}}},"ReturnValuesOnConditionCheckFailure":"ALL_OLD"}}}}"##
    );
    for place in 1..ACTIONS {
        let id = (nth * ACTIONS + place).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // Writing to a String cannot fail.
        let _ = write!(
            body,
            r##",{{"Put":{{"Item":{{"reservation_id":{{"S":"rsv_{id:016x}_{nth:016}"}},"event_id":{{"S":"evt_2025_1001"}},"qty":{{"N":"1"}},"request_hash":{{"S":"{id:032x}"}},"created_at":{{"S":"2025-10-01T12:00:00.25Z"}},"updated_at":{{"S":"2025-10-01T12:00:00.25Z"}},"status":{{"S":"CONFIRMED"}},"order_id":{{"S":"ord_{id:032x}"}},"draws":{{"S":"3:1"}},"payment_intent_id":{{"S":"pay_{id:x}{PAD}"}}}},"TableName":"idempotency","ConditionExpression":"attribute_not_exists(#k)","ExpressionAttributeNames":{{"#k":"reservation_id"}},"ReturnValuesOnConditionCheckFailure":"ALL_OLD"}}}}"##
        );
    }
    body.push_str("]}");
    body
}

/// Pads a record to about 600 bytes.
const PAD: &str = "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\
                   0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\
                   01234567890123456789012345678901234567890123456789";

fn settings() -> ModelSettings {
    ModelSettings { profile: LatencyProfile::None, is_unlimited: true, ..ModelSettings::default() }
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Resident memory in bytes.
fn resident() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split(' ').nth(1).ok_or("statm")?.parse()?;
    Ok(pages * 4_096)
}

fn per_action(spent: Duration, transactions: u64) -> f64 {
    spent.as_secs_f64() * 1e6 / (transactions * ACTIONS) as f64
}

fn alone(records: u64) -> Result<()> {
    let mut model = StoreModel::new(settings());
    let mut call = |operation: &str, body: &str| {
        let before = cpu();
        model.arrive(0, operation, body.as_bytes());
        let due = model.due(0);
        let spent = cpu() - before;
        match &due[..] {
            [(_, ModelReply::Response { status: 200, .. })] => Ok(spent),
            other => Err(format!("{operation}: {other:?}")),
        }
    };
    for table in TABLES {
        call("CreateTable", table)?;
    }
    call("PutItem", STRIPE)?;
    let before = resident()?;
    let transactions = records / (ACTIONS - 1);
    let mut spent = Duration::ZERO;
    for nth in 0..transactions {
        spent += call("TransactWriteItems", &transaction(nth))?;
    }
    let grown = resident()?.saturating_sub(before);
    println!("bytes of a request        {:>8} per action", transaction(0).len() as u64 / ACTIONS);
    println!("CPU time, in process      {:>8.2} us per action", per_action(spent, transactions));
    let report = model.report(0);
    let bytes = report["tables"]["idempotency"]["bytes"].as_u64().unwrap_or(0);
    let items = report["tables"]["idempotency"]["items"].as_u64().unwrap_or(1).max(1);
    println!("a record as billed        {:>8} bytes", bytes / items);
    println!(
        "memory                    {:>8} bytes per record ({items} records, {} MB)",
        grown / items,
        grown >> 20
    );
    Ok(())
}

fn over_http() -> Result<()> {
    let server =
        ModelServer::start(ModelSettings { profile: LatencyProfile::InRegion, ..settings() })?;
    let address = server.address();
    for table in TABLES {
        call(&mut connect(address)?, "CreateTable", table)?;
    }
    call(&mut connect(address)?, "PutItem", STRIPE)?;
    let began = Instant::now();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|at| {
            std::thread::spawn(move || -> std::result::Result<(), String> {
                let mut socket = connect(address).map_err(|why| why.to_string())?;
                for nth in 0..SERVED / CONNECTIONS {
                    // One stripe per connection, so that no transactions conflict.
                    let body = transaction(at * SERVED + nth).replacen(
                        "evt_2025_1001",
                        &format!("evt_{at}"),
                        1,
                    );
                    let body = body.replacen("#r >= :n AND ", "", 1).replacen(
                        "SET #r = #r - :n,",
                        "SET #r = :n,",
                        1,
                    );
                    call(&mut socket, "TransactWriteItems", &body)
                        .map_err(|why| why.to_string())?;
                }
                Ok(())
            })
        })
        .collect();
    for client in clients {
        client.join().map_err(|_| "a client thread panicked")??;
    }
    let took = began.elapsed();
    let spent = server.run(|_, _| cpu());
    println!(
        "CPU time, over HTTP       {:>8.2} us per action ({:.0} actions/s offered by {CONNECTIONS} connections)",
        per_action(spent, SERVED),
        (SERVED * ACTIONS) as f64 / took.as_secs_f64()
    );
    Ok(())
}

fn connect(address: SocketAddr) -> Result<BufReader<TcpStream>> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    Ok(BufReader::new(socket))
}

fn call(socket: &mut BufReader<TcpStream>, operation: &str, body: &str) -> Result<()> {
    let head = format!(
        "POST / HTTP/1.1\r\nhost: x\r\nx-amz-target: DynamoDB_20120810.{operation}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.get_mut().write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
    let mut line = String::new();
    socket.read_line(&mut line)?;
    let is_good = line.contains(" 200 ");
    let mut length = 0;
    loop {
        line.clear();
        socket.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse()?
            }
            Some(_) => {}
            None => break,
        }
    }
    let mut answer = vec![0; length];
    socket.read_exact(&mut answer)?;
    match is_good {
        true => Ok(()),
        false => Err(format!("{operation}: {}", String::from_utf8_lossy(&answer)).into()),
    }
}

fn main() -> Result<()> {
    let records = match std::env::args().nth(1) {
        None => 200_000,
        Some(text) => text.parse().map_err(|why| format!("RECORDS is {text:?}: {why}"))?,
    };
    alone(records)?;
    over_http()
}
