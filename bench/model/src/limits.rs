//! Every bound of the model with its reason; DynamoDB's own limits first.

use crate::ModelTime;

// ---- DynamoDB -----------------------------------------------------------------------------------

/// Actions of one TransactWriteItems or TransactGetItems.
pub const TRANSACTION_ACTIONS_MAX: usize = 100;
/// Total bytes of the items of one transaction.
pub const TRANSACTION_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Keys of one BatchGetItem.
pub const BATCH_GET_KEYS_MAX: usize = 100;
/// Bytes of the items of one BatchGetItem; keys beyond are returned unprocessed.
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
/// Retention of the token of an applied transaction.
pub const TOKEN_LIFE: ModelTime = 10 * 60 * 1_000_000;
/// Bytes per write unit.
pub const WRITE_UNIT_BYTES: usize = 1024;
/// Bytes per read unit.
pub const READ_UNIT_BYTES: usize = 4096;
/// Write units per second of one partition.
pub const PARTITION_WCU: u32 = 1_000;
/// Read units per second of one partition.
pub const PARTITION_RCU: u32 = 3_000;
/// Write units per second of a new on-demand table.
pub const ON_DEMAND_WCU: u32 = 4_000;
/// Read units per second of a new on-demand table.
pub const ON_DEMAND_RCU: u32 = 12_000;
/// An account's default quota for one table, for write and read units per second.
pub const TABLE_QUOTA: u32 = 40_000;
/// An on-demand table serves twice its previous peak. DynamoDB may throttle a faster growth within this time;
/// the model does.
pub const PEAK_WINDOW: ModelTime = 30 * 60 * 1_000_000;

// ---- Model ------------------------------------------------------------------------------------

/// Unused capacity that a bucket keeps, in seconds of its rate. DynamoDB keeps up to 300 s without a guarantee.
/// One second admits a transaction of a hundred actions, which arrives at one instant, and saves nothing that
/// would make a run of a minute look better.
pub const BURST_SECONDS: f64 = 1.0;
/// Partitions of one table: enough for a million writes per second.
pub const PARTITIONS_MAX: u32 = 1_024;
/// Largest configurable capacity in units per second: that of `PARTITIONS_MAX` partitions.
pub const CAPACITY_MAX: u32 = 1_000_000;
/// Calls in flight; further calls get ServiceUnavailable. A server with 64 connections has 64; 10,000 serve a
/// fleet.
pub const CALLS_MAX: usize = 10_000;
/// Largest request body: 4 MB of items as JSON, with room for escapes.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Tokens kept; beyond, the oldest is evicted early, which the report counts. 2 million are 3,300 transactions per
/// second for ten minutes, at about 64 bytes each.
pub const TOKENS_MAX: usize = 2_000_000;
/// Parsed expressions cached; a full cache is cleared. A server has some dozens.
pub const EXPRESSIONS_MAX: usize = 4_096;
/// Nesting of an expression; bounds the stack of parser and evaluation.
pub const EXPRESSION_DEPTH_MAX: usize = 64;
/// Tables of one store: the default quota of an account.
pub const TABLES_MAX: usize = 2_500;
/// Indexes of one table: DynamoDB's default quota.
pub const INDEXES_MAX: usize = 20;
/// Largest normal score of a latency: one in 10,000.
pub const LATENCY_Z_MAX: f64 = 3.719;
/// Smallest normal score of a latency: one in 100.
pub const LATENCY_Z_MIN: f64 = -2.326;
/// Injected faults at the same time.
pub const FAULT_RULES_MAX: usize = 64;
/// Longest delay of a fault.
pub const FAULT_DELAY_MAX: ModelTime = 600 * 1_000_000;
/// Open connections.
pub const CONNECTIONS_MAX: usize = 4_096;
/// Connections that wait to be accepted: the clients of a fleet connect at the same time.
pub const BACKLOG: u32 = 1_024;
/// Hottest partitions in a report.
pub const REPORT_PARTITIONS: usize = 5;
/// Bytes of one control-plane request.
pub const CONTROL_BYTES_MAX: usize = 64 * 1024;
