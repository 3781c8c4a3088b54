//! Every environment variable of the server: name, default, kind and what it does.
//!
//! The one table of settings. Parsing, `serve --help` and the reference in the docs come from it.

use super::duration::DefaultUnit;
use super::value_kind::{
    AddressKind, CountKind, DurationKind, ExporterKind, FlagKind, LateCommitKind, LogLevelKind,
    OptionalKind, OptionalPortKind, PortKind, RatioKind, SamplerKind, ShardsKind, TextKind,
    UrlKind, ValueKind,
};
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
pub trait VariableHelp: Sync {
    fn name(&self) -> &'static str;
    /// Empty when there is none.
    fn default(&self) -> &'static str;
    /// What a value must be, with units and bounds.
    fn wants(&self) -> String;
    fn example(&self) -> &'static str;
    fn about(&self) -> &'static str;
}

impl<K: ValueKind> VariableHelp for Variable<K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn default(&self) -> &'static str {
        self.default
    }

    fn wants(&self) -> String {
        self.kind.expected()
    }

    fn example(&self) -> &'static str {
        self.example
    }

    fn about(&self) -> &'static str {
        self.about
    }
}

/// Variables that belong together, under one heading.
pub struct VariableGroup {
    pub title: &'static str,
    pub variables: &'static [&'static dyn VariableHelp],
}

/// All of them, in the order in which help shows them.
pub static VARIABLES: &[VariableGroup] = &[
    VariableGroup {
        title: "Addresses",
        variables: &[&GRPC_PORT, &METRICS_PORT, &ADMIN_PORT, &ADMIN_HOST],
    },
    VariableGroup {
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
    VariableGroup {
        title: "Holds",
        variables: &[&HOLD_TTL, &HOLD_TTL_MAX, &LATE_COMMIT],
    },
    VariableGroup {
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
    VariableGroup {
        title: "Repeated calls",
        variables: &[&IDEMPOTENCY_TTL_SECONDS, &IDEMPOTENCY_CACHE_SIZE],
    },
    VariableGroup {
        title: "The process",
        variables: &[
            &SHARDS,
            &SPIN_BEFORE_PARK,
            &SHUTDOWN_GRACE,
            &SHARD_STALL_LIMIT,
            &SHARD_STALL_EXIT,
        ],
    },
    VariableGroup {
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

pub static GRPC_PORT: Variable<PortKind> = Variable {
    name: "GRPC_PORT",
    default: "8080",
    kind: PortKind,
    example: "8080",
    about: "where clients call",
};

pub static METRICS_PORT: Variable<PortKind> = Variable {
    name: "METRICS_PORT",
    default: "9090",
    kind: PortKind,
    example: "9090",
    about: "/metrics, /healthz and /readyz",
};

pub static ADMIN_PORT: Variable<OptionalPortKind> = Variable {
    name: "ADMIN_PORT",
    default: "8081",
    kind: OptionalPortKind,
    example: "8081",
    about: "where events are created and shown",
};

pub static ADMIN_HOST: Variable<AddressKind> = Variable {
    name: "ADMIN_HOST",
    default: "127.0.0.1",
    kind: AddressKind,
    example: "127.0.0.1",
    about: "who reaches ADMIN_PORT; it asks no password",
};

pub static GRPC_TIMEOUT: Variable<DurationKind> = Variable {
    name: "GRPC_TIMEOUT",
    default: "250ms",
    kind: DurationKind {
        min: limits::CONFIGURED_SPAN_MIN,
        max: limits::CALL_TIMEOUT_MAX,
        zero: None,
        bare: DefaultUnit::Refused,
    },
    example: "250ms",
    about: "deadline of a call that brings none",
};

pub static GRPC_MAX_CONCURRENCY: Variable<CountKind> = Variable {
    name: "GRPC_MAX_CONCURRENCY",
    default: "1000",
    kind: CountKind {
        min: 1,
        max: limits::STREAMS_PER_CONNECTION_MAX as u64,
    },
    example: "1000",
    about: "calls of one connection at a time",
};

pub static GRPC_KEEP_ALIVE_PERIOD: Variable<DurationKind> = Variable {
    name: "GRPC_KEEP_ALIVE_PERIOD",
    default: "30s",
    kind: DurationKind {
        min: limits::KEEP_ALIVE_PERIOD_MIN,
        max: limits::KEEP_ALIVE_PERIOD_MAX,
        zero: None,
        bare: DefaultUnit::Refused,
    },
    example: "30s",
    about: "how long a peer is silent before it is pinged",
};

pub static MAX_CONNECTION_AGE: Variable<DurationKind> = Variable {
    name: "MAX_CONNECTION_AGE",
    default: "30m",
    kind: DurationKind {
        min: limits::CONNECTION_AGE_MIN,
        max: limits::CONNECTION_AGE_MAX,
        zero: Some("never"),
        bare: DefaultUnit::Refused,
    },
    example: "30m",
    about: "when a connection is asked to reconnect",
};

pub static MAX_QTY: Variable<CountKind> = Variable {
    name: "MAX_QTY",
    default: "10",
    kind: CountKind {
        min: 1,
        max: limits::QTY_MAX_CEILING as u64,
    },
    example: "10",
    about: "tickets of one reservation",
};

pub static SOLD_OUT_LATCH_MS: Variable<DurationKind> = Variable {
    name: "SOLD_OUT_LATCH_MS",
    default: "50",
    kind: DurationKind {
        min: limits::READ_STALENESS_MIN,
        max: limits::SOLD_OUT_LATCH_MAX,
        zero: Some("each caller has a look of its own"),
        bare: DefaultUnit::Millis,
    },
    example: "50",
    about: "how long a look at all stripes may say sold out",
};

pub static READ_STALENESS_MS: Variable<DurationKind> = Variable {
    name: "READ_STALENESS_MS",
    default: "50",
    kind: DurationKind {
        min: limits::READ_STALENESS_MIN,
        max: limits::READ_STALENESS_MAX,
        zero: Some("always a read"),
        bare: DefaultUnit::Millis,
    },
    example: "50",
    about: "how old the stock may be that a check is told",
};

pub static HOLD_TTL: Variable<DurationKind> = Variable {
    name: "HOLD_TTL",
    default: "60s",
    kind: HOLD,
    example: "60s",
    about: "how long a hold lasts that names no end",
};

pub static HOLD_TTL_MAX: Variable<DurationKind> = Variable {
    name: "HOLD_TTL_MAX",
    default: "15m",
    kind: HOLD,
    example: "15m",
    about: "longest hold; a longer one is cut to it",
};

const HOLD: DurationKind = DurationKind {
    min: limits::HOLD_TTL_MIN,
    max: limits::HOLD_TTL_CEILING,
    zero: None,
    bare: DefaultUnit::Refused,
};

pub static LATE_COMMIT: Variable<LateCommitKind> = Variable {
    name: "LATE_COMMIT",
    default: "reacquire",
    kind: LateCommitKind,
    example: "reacquire",
    about: "a commit that comes after its hold",
};

pub static AWS_REGION: Variable<TextKind> = Variable {
    name: "AWS_REGION",
    default: "ap-northeast-2",
    kind: TextKind {
        what: "a region",
        min: 1,
        max: limits::LABEL_BYTES_MAX,
        alphabet: "[a-z0-9-]",
        allows: |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-',
    },
    example: "ap-northeast-2",
    about: "region of the tables",
};

pub static AWS_PROFILE: Variable<OptionalKind<TextKind>> = Variable {
    name: "AWS_PROFILE",
    default: "",
    kind: OptionalKind(TextKind {
        what: "a profile's name",
        min: 1,
        max: limits::LABEL_BYTES_MAX,
        alphabet: "printable characters",
        allows: |c| !c.is_control(),
    }),
    example: "staging",
    about: "profile in ~/.aws that has the credentials",
};

const TABLE: TextKind = TextKind {
    what: "a table name",
    min: limits::TABLE_NAME_BYTES_MIN,
    max: limits::TABLE_NAME_BYTES_MAX,
    alphabet: "[A-Za-z0-9_.-]",
    allows: |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'),
};

pub static DDB_TABLE_INVENTORY: Variable<TextKind> = Variable {
    name: "DDB_TABLE_INVENTORY",
    default: "inventory",
    kind: TABLE,
    example: "inventory",
    about: "table of the events' stock",
};

pub static DDB_TABLE_SEATS: Variable<TextKind> = Variable {
    name: "DDB_TABLE_SEATS",
    default: "inventory_seats",
    kind: TABLE,
    example: "inventory_seats",
    about: "table of the seats",
};

pub static DDB_TABLE_IDEMPOTENCY: Variable<TextKind> = Variable {
    name: "DDB_TABLE_IDEMPOTENCY",
    default: "idempotency",
    kind: TABLE,
    example: "idempotency",
    about: "table of the reservations",
};

pub static DDB_TIMEOUT: Variable<DurationKind> = Variable {
    name: "DDB_TIMEOUT",
    default: "200ms",
    kind: DurationKind {
        min: limits::CONFIGURED_SPAN_MIN,
        max: limits::STORE_ATTEMPT_TIMEOUT_MAX,
        zero: None,
        bare: DefaultUnit::Refused,
    },
    example: "200ms",
    about: "one attempt at the store",
};

pub static DDB_MAX_RETRIES: Variable<CountKind> = Variable {
    name: "DDB_MAX_RETRIES",
    default: "3",
    kind: CountKind {
        min: 0,
        max: limits::STORE_READ_RETRIES_MAX as u64,
    },
    example: "3",
    about: "more attempts at a read",
};

pub static IDEMPOTENCY_TTL_SECONDS: Variable<DurationKind> = Variable {
    name: "IDEMPOTENCY_TTL_SECONDS",
    default: "300",
    kind: DurationKind {
        min: limits::ANSWERS_CACHED_FOR_MIN,
        max: limits::ANSWERS_CACHED_FOR_MAX,
        zero: None,
        bare: DefaultUnit::Seconds,
    },
    example: "300",
    about: "how long an answer is kept in memory",
};

pub static IDEMPOTENCY_CACHE_SIZE: Variable<CountKind> = Variable {
    name: "IDEMPOTENCY_CACHE_SIZE",
    default: "10000",
    kind: CountKind {
        min: 1,
        max: limits::ANSWERS_CACHED_MAX as u64,
    },
    example: "10000",
    about: "answers kept in memory, per shard",
};

pub static SHARDS: Variable<ShardsKind> = Variable {
    name: "SHARDS",
    default: "all",
    kind: ShardsKind,
    example: "all",
    about: "the CPUs to serve on, one shard each",
};

pub static SPIN_BEFORE_PARK: Variable<DurationKind> = Variable {
    name: "SPIN_BEFORE_PARK",
    default: "0",
    kind: DurationKind {
        min: Duration::ZERO,
        max: limits::SPIN_BEFORE_PARK_MAX,
        zero: Some("off"),
        bare: DefaultUnit::Refused,
    },
    example: "50us",
    about: "busy wait before an idle shard sleeps",
};

pub static SHUTDOWN_GRACE: Variable<DurationKind> = Variable {
    name: "SHUTDOWN_GRACE",
    default: "30s",
    kind: DurationKind {
        min: Duration::ZERO,
        max: limits::SHUTDOWN_GRACE_MAX,
        zero: Some("at once"),
        bare: DefaultUnit::Refused,
    },
    example: "30s",
    about: "what a stop leaves to calls under way",
};

pub static SHARD_STALL_LIMIT: Variable<DurationKind> = Variable {
    name: "SHARD_STALL_LIMIT",
    default: "5s",
    kind: DurationKind {
        min: limits::SHARD_STALL_MIN,
        max: limits::SHARD_STALL_MAX,
        zero: None,
        bare: DefaultUnit::Refused,
    },
    example: "5s",
    about: "a shard that stands still so long: not ready",
};

pub static SHARD_STALL_EXIT: Variable<DurationKind> = Variable {
    name: "SHARD_STALL_EXIT",
    default: "15s",
    kind: DurationKind {
        min: limits::SHARD_STALL_MIN,
        max: limits::SHARD_STALL_MAX,
        zero: Some("never"),
        bare: DefaultUnit::Refused,
    },
    example: "15s",
    about: "so long: the process ends",
};

pub static LOG_LEVEL: Variable<LogLevelKind> = Variable {
    name: "LOG_LEVEL",
    default: "info",
    kind: LogLevelKind,
    example: "info",
    about: "how much is logged",
};

const LABEL: TextKind = TextKind {
    what: "a name",
    min: 1,
    max: limits::LABEL_BYTES_MAX,
    alphabet: "printable characters",
    allows: |c| !c.is_control(),
};

pub static SERVICE_NAME: Variable<TextKind> = Variable {
    name: "SERVICE_NAME",
    default: "inventory-api",
    kind: LABEL,
    example: "inventory-api",
    about: "service name in metrics",
};

pub static SERVICE_VERSION: Variable<TextKind> = Variable {
    name: "SERVICE_VERSION",
    default: "1.0.0",
    kind: LABEL,
    example: "1.0.0",
    about: "service version in metrics",
};

pub static OTEL_EXPORTER_OTLP_ENDPOINT: Variable<OptionalKind<UrlKind>> = Variable {
    name: "OTEL_EXPORTER_OTLP_ENDPOINT",
    default: "http://otel-collector:4317",
    kind: OptionalKind(UrlKind),
    example: "http://otel-collector:4317",
    about: "where spans go, over gRPC",
};

pub static LOG_CALLS_RATIO: Variable<RatioKind> = Variable {
    name: "LOG_CALLS_RATIO",
    default: "0",
    kind: RatioKind,
    example: "0.001",
    about: "the part of all calls that is logged",
};

pub static OTEL_TRACES_EXPORTER: Variable<ExporterKind> = Variable {
    name: "OTEL_TRACES_EXPORTER",
    default: "otlp",
    kind: ExporterKind,
    example: "otlp",
    about: "whether spans are sent",
};

pub static OTEL_TRACES_SAMPLER: Variable<SamplerKind> = Variable {
    name: "OTEL_TRACES_SAMPLER",
    default: "parentbased_traceidratio",
    kind: SamplerKind,
    example: "parentbased_traceidratio",
    about: "which calls are sampled",
};

pub static OTEL_TRACES_SAMPLER_ARG: Variable<RatioKind> = Variable {
    name: "OTEL_TRACES_SAMPLER_ARG",
    default: "0.001",
    kind: RatioKind,
    example: "0.001",
    about: "what a ratio sampler takes",
};

pub static OTEL_SDK_DISABLED: Variable<FlagKind> = Variable {
    name: "OTEL_SDK_DISABLED",
    default: "false",
    kind: FlagKind,
    example: "false",
    about: "true: no spans at all",
};
