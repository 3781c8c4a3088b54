//! Every environment variable of the server: name, default, kind and what it does.
//!
//! The one table of settings. Parsing, `serve --help` and the reference in the docs come from it.

use super::kind::{
    Address, Count, Exporter, Flag, Kind, Late, Level, Maybe, Port, PortOrOff, Ratio, Sampler,
    Shards, Span, Text, Url,
};
use super::span::Bare;
use crate::limits;
use std::time::Duration;

/// One variable. `default` is a text of its own kind, so it is parsed like any other value.
pub struct Variable<K> {
    pub name: &'static str,
    pub default: &'static str,
    pub kind: K,
    /// A value that works, for error messages.
    pub example: &'static str,
    /// What it does, in a few words.
    pub about: &'static str,
}

/// What help and docs show of a variable of any kind.
pub trait Documented: Sync {
    fn name(&self) -> &'static str;
    /// Empty when there is none.
    fn default(&self) -> &'static str;
    /// What a value must be, with units and bounds.
    fn wants(&self) -> String;
    fn example(&self) -> &'static str;
    fn about(&self) -> &'static str;
}

impl<K: Kind> Documented for Variable<K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn default(&self) -> &'static str {
        self.default
    }

    fn wants(&self) -> String {
        self.kind.wants()
    }

    fn example(&self) -> &'static str {
        self.example
    }

    fn about(&self) -> &'static str {
        self.about
    }
}

/// Variables that belong together, under one heading.
pub struct Group {
    pub title: &'static str,
    pub variables: &'static [&'static dyn Documented],
}

/// All of them, in the order in which help shows them.
pub static VARIABLES: &[Group] = &[
    Group {
        title: "Addresses",
        variables: &[&GRPC_PORT, &METRICS_PORT, &ADMIN_PORT, &ADMIN_HOST],
    },
    Group {
        title: "Calls",
        variables: &[
            &GRPC_TIMEOUT,
            &GRPC_MAX_CONCURRENCY,
            &GRPC_KEEP_ALIVE_PERIOD,
            &MAX_CONNECTION_AGE,
            &MAX_QTY,
            &SOLD_OUT_LATCH_MS,
            &READ_STALENESS_MS,
        ],
    },
    Group {
        title: "Holds",
        variables: &[&HOLD_TTL, &HOLD_TTL_MAX, &LATE_COMMIT],
    },
    Group {
        title: "DynamoDB",
        variables: &[
            &AWS_REGION,
            &AWS_PROFILE,
            &DDB_TABLE_INVENTORY,
            &DDB_TABLE_SEATS,
            &DDB_TABLE_IDEMPOTENCY,
            &DDB_TIMEOUT,
            &DDB_MAX_RETRIES,
        ],
    },
    Group {
        title: "Repeated calls",
        variables: &[&IDEMPOTENCY_TTL_SECONDS, &IDEMPOTENCY_CACHE_SIZE],
    },
    Group {
        title: "The process",
        variables: &[
            &SHARDS,
            &SPIN_BEFORE_PARK,
            &SHUTDOWN_GRACE,
            &SHARD_STALL_LIMIT,
            &SHARD_STALL_EXIT,
        ],
    },
    Group {
        title: "Telemetry",
        variables: &[
            &LOG_LEVEL,
            &SERVICE_NAME,
            &SERVICE_VERSION,
            &LOG_CALLS_RATIO,
            &OTEL_EXPORTER_OTLP_ENDPOINT,
            &OTEL_TRACES_EXPORTER,
            &OTEL_TRACES_SAMPLER,
            &OTEL_TRACES_SAMPLER_ARG,
            &OTEL_SDK_DISABLED,
        ],
    },
];

/// Variables that the exporter of spans reads by itself: named in the help, never parsed here.
pub static READ_BY_THE_EXPORTER: &[(&str, &str)] = &[
    ("OTEL_EXPORTER_OTLP_HEADERS", "sent with every export"),
    (
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "milliseconds that one may take",
    ),
    (
        "OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES",
        "what spans say of this process",
    ),
];

/// Variables that the AWS SDK reads by itself: named in the help, never parsed here.
pub static READ_BY_THE_SDK: &[(&str, &str)] = &[
    ("AWS_ENDPOINT_URL", "another endpoint than AWS's own"),
    ("AWS_ENDPOINT_URL_DYNAMODB", "the same, for DynamoDB only"),
    (
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ...",
        "credentials, where no role gives them",
    ),
];

pub static GRPC_PORT: Variable<Port> = Variable {
    name: "GRPC_PORT",
    default: "8080",
    kind: Port,
    example: "8080",
    about: "where clients call",
};

pub static METRICS_PORT: Variable<Port> = Variable {
    name: "METRICS_PORT",
    default: "9090",
    kind: Port,
    example: "9090",
    about: "/metrics, /healthz and /readyz",
};

pub static ADMIN_PORT: Variable<PortOrOff> = Variable {
    name: "ADMIN_PORT",
    default: "8081",
    kind: PortOrOff,
    example: "8081",
    about: "where events are created and shown",
};

pub static ADMIN_HOST: Variable<Address> = Variable {
    name: "ADMIN_HOST",
    default: "127.0.0.1",
    kind: Address,
    example: "127.0.0.1",
    about: "who reaches ADMIN_PORT; it asks no password",
};

pub static GRPC_TIMEOUT: Variable<Span> = Variable {
    name: "GRPC_TIMEOUT",
    default: "250ms",
    kind: Span {
        min: limits::CONFIGURED_SPAN_MIN,
        max: limits::CALL_TIMEOUT_MAX,
        zero: None,
        bare: Bare::Refused,
    },
    example: "250ms",
    about: "deadline of a call that brings none",
};

pub static GRPC_MAX_CONCURRENCY: Variable<Count> = Variable {
    name: "GRPC_MAX_CONCURRENCY",
    default: "1000",
    kind: Count {
        min: 1,
        max: limits::STREAMS_PER_CONNECTION_MAX as u64,
    },
    example: "1000",
    about: "calls of one connection at a time",
};

pub static GRPC_KEEP_ALIVE_PERIOD: Variable<Span> = Variable {
    name: "GRPC_KEEP_ALIVE_PERIOD",
    default: "30s",
    kind: Span {
        min: limits::KEEP_ALIVE_PERIOD_MIN,
        max: limits::KEEP_ALIVE_PERIOD_MAX,
        zero: None,
        bare: Bare::Refused,
    },
    example: "30s",
    about: "how long a peer is silent before it is pinged",
};

pub static MAX_CONNECTION_AGE: Variable<Span> = Variable {
    name: "MAX_CONNECTION_AGE",
    default: "30m",
    kind: Span {
        min: limits::CONNECTION_AGE_MIN,
        max: limits::CONNECTION_AGE_MAX,
        zero: Some("never"),
        bare: Bare::Refused,
    },
    example: "30m",
    about: "when a connection is asked to reconnect",
};

pub static MAX_QTY: Variable<Count> = Variable {
    name: "MAX_QTY",
    default: "10",
    kind: Count {
        min: 1,
        max: limits::QTY_MAX_CEILING as u64,
    },
    example: "10",
    about: "tickets of one reservation",
};

pub static SOLD_OUT_LATCH_MS: Variable<Span> = Variable {
    name: "SOLD_OUT_LATCH_MS",
    default: "50",
    kind: Span {
        min: limits::READ_STALENESS_MIN,
        max: limits::SOLD_OUT_LATCH_MAX,
        zero: Some("each caller has a look of its own"),
        bare: Bare::Millis,
    },
    example: "50",
    about: "how long a look at all stripes may say sold out",
};

pub static READ_STALENESS_MS: Variable<Span> = Variable {
    name: "READ_STALENESS_MS",
    default: "50",
    kind: Span {
        min: limits::READ_STALENESS_MIN,
        max: limits::READ_STALENESS_MAX,
        zero: Some("always a read"),
        bare: Bare::Millis,
    },
    example: "50",
    about: "how old the stock may be that a check is told",
};

pub static HOLD_TTL: Variable<Span> = Variable {
    name: "HOLD_TTL",
    default: "60s",
    kind: HOLD,
    example: "60s",
    about: "how long a hold lasts that names no end",
};

pub static HOLD_TTL_MAX: Variable<Span> = Variable {
    name: "HOLD_TTL_MAX",
    default: "15m",
    kind: HOLD,
    example: "15m",
    about: "longest hold; a longer one is cut to it",
};

const HOLD: Span = Span {
    min: limits::HOLD_TTL_MIN,
    max: limits::HOLD_TTL_CEILING,
    zero: None,
    bare: Bare::Refused,
};

pub static LATE_COMMIT: Variable<Late> = Variable {
    name: "LATE_COMMIT",
    default: "reacquire",
    kind: Late,
    example: "reacquire",
    about: "a commit that comes after its hold",
};

pub static AWS_REGION: Variable<Text> = Variable {
    name: "AWS_REGION",
    default: "ap-northeast-2",
    kind: Text {
        what: "a region",
        min: 1,
        max: limits::LABEL_BYTES_MAX,
        alphabet: "[a-z0-9-]",
        allows: |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-',
    },
    example: "ap-northeast-2",
    about: "region of the tables",
};

pub static AWS_PROFILE: Variable<Maybe<Text>> = Variable {
    name: "AWS_PROFILE",
    default: "",
    kind: Maybe(Text {
        what: "a profile's name",
        min: 1,
        max: limits::LABEL_BYTES_MAX,
        alphabet: "printable characters",
        allows: |c| !c.is_control(),
    }),
    example: "staging",
    about: "profile in ~/.aws that has the credentials",
};

const TABLE: Text = Text {
    what: "a table name",
    min: limits::TABLE_NAME_BYTES_MIN,
    max: limits::TABLE_NAME_BYTES_MAX,
    alphabet: "[A-Za-z0-9_.-]",
    allows: |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'),
};

pub static DDB_TABLE_INVENTORY: Variable<Text> = Variable {
    name: "DDB_TABLE_INVENTORY",
    default: "inventory",
    kind: TABLE,
    example: "inventory",
    about: "table of the events' stock",
};

pub static DDB_TABLE_SEATS: Variable<Text> = Variable {
    name: "DDB_TABLE_SEATS",
    default: "inventory_seats",
    kind: TABLE,
    example: "inventory_seats",
    about: "table of the seats",
};

pub static DDB_TABLE_IDEMPOTENCY: Variable<Text> = Variable {
    name: "DDB_TABLE_IDEMPOTENCY",
    default: "idempotency",
    kind: TABLE,
    example: "idempotency",
    about: "table of the reservations",
};

pub static DDB_TIMEOUT: Variable<Span> = Variable {
    name: "DDB_TIMEOUT",
    default: "200ms",
    kind: Span {
        min: limits::CONFIGURED_SPAN_MIN,
        max: limits::STORE_ATTEMPT_TIMEOUT_MAX,
        zero: None,
        bare: Bare::Refused,
    },
    example: "200ms",
    about: "one attempt at the store",
};

pub static DDB_MAX_RETRIES: Variable<Count> = Variable {
    name: "DDB_MAX_RETRIES",
    default: "3",
    kind: Count {
        min: 0,
        max: limits::STORE_READ_RETRIES_MAX as u64,
    },
    example: "3",
    about: "more attempts at a read",
};

pub static IDEMPOTENCY_TTL_SECONDS: Variable<Span> = Variable {
    name: "IDEMPOTENCY_TTL_SECONDS",
    default: "300",
    kind: Span {
        min: limits::ANSWERS_CACHED_FOR_MIN,
        max: limits::ANSWERS_CACHED_FOR_MAX,
        zero: None,
        bare: Bare::Seconds,
    },
    example: "300",
    about: "how long an answer is kept in memory",
};

pub static IDEMPOTENCY_CACHE_SIZE: Variable<Count> = Variable {
    name: "IDEMPOTENCY_CACHE_SIZE",
    default: "10000",
    kind: Count {
        min: 1,
        max: limits::ANSWERS_CACHED_MAX as u64,
    },
    example: "10000",
    about: "answers kept in memory, per shard",
};

pub static SHARDS: Variable<Shards> = Variable {
    name: "SHARDS",
    default: "all",
    kind: Shards,
    example: "all",
    about: "the CPUs to serve on, one shard each",
};

pub static SPIN_BEFORE_PARK: Variable<Span> = Variable {
    name: "SPIN_BEFORE_PARK",
    default: "0",
    kind: Span {
        min: Duration::ZERO,
        max: limits::SPIN_BEFORE_PARK_MAX,
        zero: Some("off"),
        bare: Bare::Refused,
    },
    example: "50us",
    about: "busy wait before an idle shard sleeps",
};

pub static SHUTDOWN_GRACE: Variable<Span> = Variable {
    name: "SHUTDOWN_GRACE",
    default: "30s",
    kind: Span {
        min: Duration::ZERO,
        max: limits::SHUTDOWN_GRACE_MAX,
        zero: Some("at once"),
        bare: Bare::Refused,
    },
    example: "30s",
    about: "what a stop leaves to calls under way",
};

pub static SHARD_STALL_LIMIT: Variable<Span> = Variable {
    name: "SHARD_STALL_LIMIT",
    default: "5s",
    kind: Span {
        min: limits::SHARD_STALL_MIN,
        max: limits::SHARD_STALL_MAX,
        zero: None,
        bare: Bare::Refused,
    },
    example: "5s",
    about: "a shard that stands still so long: not ready",
};

pub static SHARD_STALL_EXIT: Variable<Span> = Variable {
    name: "SHARD_STALL_EXIT",
    default: "15s",
    kind: Span {
        min: limits::SHARD_STALL_MIN,
        max: limits::SHARD_STALL_MAX,
        zero: Some("never"),
        bare: Bare::Refused,
    },
    example: "15s",
    about: "so long: the process ends",
};

pub static LOG_LEVEL: Variable<Level> = Variable {
    name: "LOG_LEVEL",
    default: "info",
    kind: Level,
    example: "info",
    about: "how much is logged",
};

const LABEL: Text = Text {
    what: "a name",
    min: 1,
    max: limits::LABEL_BYTES_MAX,
    alphabet: "printable characters",
    allows: |c| !c.is_control(),
};

pub static SERVICE_NAME: Variable<Text> = Variable {
    name: "SERVICE_NAME",
    default: "inventory-api",
    kind: LABEL,
    example: "inventory-api",
    about: "service name in metrics",
};

pub static SERVICE_VERSION: Variable<Text> = Variable {
    name: "SERVICE_VERSION",
    default: "1.0.0",
    kind: LABEL,
    example: "1.0.0",
    about: "service version in metrics",
};

pub static OTEL_EXPORTER_OTLP_ENDPOINT: Variable<Maybe<Url>> = Variable {
    name: "OTEL_EXPORTER_OTLP_ENDPOINT",
    default: "http://otel-collector:4317",
    kind: Maybe(Url),
    example: "http://otel-collector:4317",
    about: "where spans go, over gRPC",
};

pub static LOG_CALLS_RATIO: Variable<Ratio> = Variable {
    name: "LOG_CALLS_RATIO",
    default: "0",
    kind: Ratio,
    example: "0.001",
    about: "the part of all calls that is logged",
};

pub static OTEL_TRACES_EXPORTER: Variable<Exporter> = Variable {
    name: "OTEL_TRACES_EXPORTER",
    default: "otlp",
    kind: Exporter,
    example: "otlp",
    about: "whether spans are sent",
};

pub static OTEL_TRACES_SAMPLER: Variable<Sampler> = Variable {
    name: "OTEL_TRACES_SAMPLER",
    default: "parentbased_traceidratio",
    kind: Sampler,
    example: "parentbased_traceidratio",
    about: "which calls are sampled",
};

pub static OTEL_TRACES_SAMPLER_ARG: Variable<Ratio> = Variable {
    name: "OTEL_TRACES_SAMPLER_ARG",
    default: "0.001",
    kind: Ratio,
    example: "0.001",
    about: "what a ratio sampler takes",
};

pub static OTEL_SDK_DISABLED: Variable<Flag> = Variable {
    name: "OTEL_SDK_DISABLED",
    default: "false",
    kind: Flag,
    example: "false",
    about: "true: no spans at all",
};
