//! Every bound of the model, each with its reason. DynamoDB's own limits come first.

use crate::Micros;

// ---- DynamoDB's ---------------------------------------------------------------------------------

/// Actions of one TransactWriteItems or TransactGetItems.
pub const TRANSACTION_ACTIONS_MAX: usize = 100;
/// Bytes of all items of one transaction together.
pub const TRANSACTION_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Keys of one BatchGetItem.
pub const BATCH_GET_KEYS_MAX: usize = 100;
/// Bytes that one BatchGetItem answers with; the keys beyond come back unprocessed.
pub const BATCH_GET_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Requests of one BatchWriteItem.
pub const BATCH_WRITE_MAX: usize = 25;
/// Bytes of one expression.
pub const EXPRESSION_BYTES_MAX: usize = 4 * 1024;
/// Bytes of one item, names included.
pub const ITEM_BYTES_MAX: usize = 400 * 1024;
/// Bytes of a partition key's value.
pub const PARTITION_KEY_BYTES_MAX: usize = 2048;
/// Bytes of a sort key's value.
pub const SORT_KEY_BYTES_MAX: usize = 1024;
/// Levels of lists and maps within an attribute.
pub const NESTING_MAX: usize = 32;
/// Operands of one IN.
pub const IN_OPERANDS_MAX: usize = 100;
/// Bytes that one page of a Query or Scan examines.
pub const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Characters of a ClientRequestToken.
pub const TOKEN_CHARS_MAX: usize = 36;
/// How long a token of an applied transaction is remembered.
pub const TOKEN_LIFE: Micros = 10 * 60 * 1_000_000;
/// Bytes that one write unit pays for.
pub const WRITE_UNIT_BYTES: usize = 1024;
/// Bytes that one read unit pays for.
pub const READ_UNIT_BYTES: usize = 4096;
/// Write units a second of one partition.
pub const PARTITION_WCU: u32 = 1_000;
/// Read units a second of one partition.
pub const PARTITION_RCU: u32 = 3_000;
/// What a new on-demand table takes: write units a second.
pub const ON_DEMAND_WCU: u32 = 4_000;
/// What a new on-demand table takes: read units a second.
pub const ON_DEMAND_RCU: u32 = 12_000;
/// An account's default quota for one table, write and read units a second alike.
pub const TABLE_QUOTA: u32 = 40_000;
/// An on-demand table takes twice its previous peak. More than that within this time may be
/// throttled, DynamoDB says; here it is.
pub const PEAK_WINDOW: Micros = 30 * 60 * 1_000_000;

// ---- The model's own ----------------------------------------------------------------------------

/// Unused capacity a bucket keeps, in seconds of its rate. DynamoDB keeps up to 300 s, but says not to
/// rely on it. One second lets a transaction of a hundred actions, which arrives at one instant,
/// through, and banks nothing that would flatter a run of a minute.
pub const BURST_SECONDS: f64 = 1.0;
/// Most partitions of one table: enough for a million writes a second.
pub const PARTITIONS_MAX: u32 = 1_024;
/// Largest capacity a flag may set, units a second: what `PARTITIONS_MAX` can carry.
pub const CAPACITY_MAX: u32 = 1_000_000;
/// Calls that may be under way; past it they are answered ServiceUnavailable. A server with
/// 64 connections has 64; 10,000 is a fleet's.
pub const CALLS_MAX: usize = 10_000;
/// Largest request body: 4 MB of items as JSON, with room for escapes.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Nesting of a request's JSON, values included; bounds the parser's stack.
pub const JSON_DEPTH_MAX: usize = 96;
/// Tokens remembered; past it the oldest is forgotten before its time, and the report says so.
/// 2 million are 3,300 transactions a second for the ten minutes, at about 64 bytes each.
pub const TOKENS_MAX: usize = 2_000_000;
/// Parsed expressions kept, by text; past it all are dropped. A server has some dozens.
pub const EXPRESSIONS_MAX: usize = 4_096;
/// Nesting of an expression; bounds the stack of its evaluation.
pub const EXPRESSION_DEPTH_MAX: usize = 64;
/// Tables of one store: the default quota of an account.
pub const TABLES_MAX: usize = 2_500;
/// Index entries of one CreateTable, as DynamoDB's default quota.
pub const INDEXES_MAX: usize = 20;
/// Latencies are not drawn beyond this quantile's normal score: one in 10,000.
pub const LATENCY_Z_MAX: f64 = 3.719;
/// Nor below this one: one in 100.
pub const LATENCY_Z_MIN: f64 = -2.326;
/// Rules of injected faults.
pub const FAULT_RULES_MAX: usize = 64;
/// Longest delay a fault may add.
pub const FAULT_DELAY_MAX: Micros = 600 * 1_000_000;
/// Connections served at once.
pub const CONNECTIONS_MAX: usize = 4_096;
/// Connections that wait to be accepted; a fleet's clients connect at once.
pub const BACKLOG: u32 = 1_024;
/// Hottest partitions that a report names.
pub const REPORT_PARTITIONS: usize = 5;
/// Bytes of one control request.
pub const CONTROL_BYTES_MAX: usize = 64 * 1024;
