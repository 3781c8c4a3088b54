//! Every environment variable of the server: name, default, kind and description.
//!
//! The only table of settings: parsing, `serve --help` and `docs/reference/settings.md` are derived from it.

use super::duration::DefaultUnit;
use super::otel::kinds::{
    AttributesKind, COMPRESSIONS, EndpointKind, ExportersKind, FLAG, FileKind, HeadersKind,
    OtlpCompression, OtlpProtocol, PROTOCOLS, SAMPLERS, SamplerName, TIMEOUT,
};
use super::value_kind::{
    AddressKind, CountKind, DurationKind, KeywordKind, LATE_COMMIT_POLICIES, LOG_LEVELS,
    MembershipKind, NamePatternsKind, OptionalKind, OptionalPortKind, PortKind, RatioKind,
    ShardsKind, TextKind, TokenFileKind, ValueKind,
};
use crate::limits;
use crate::telemetry::log::LogLevel;
use inventory_core::rules::LateCommit;
use std::time::Duration;

/// One variable. `default` is a text and parsed like any other value.
pub(crate) struct Variable<K> {
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    pub(crate) kind: K,
    /// A valid value, for error messages.
    pub(crate) example: &'static str,
    /// Description in a few words.
    pub(crate) about: &'static str,
}

/// A variable of any kind, as help and documentation show it.
pub trait VariableHelp: Sync {
    fn name(&self) -> &'static str;
    /// Empty if there is no default.
    fn default(&self) -> &'static str;
    /// Description of valid values, with units and bounds.
    fn expected(&self) -> String;
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

    fn expected(&self) -> String {
        self.kind.expected()
    }

    fn example(&self) -> &'static str {
        self.example
    }

    fn about(&self) -> &'static str {
        self.about
    }
}

/// Variables under one heading.
pub struct VariableGroup {
    pub(crate) title: &'static str,
    pub variables: &'static [&'static dyn VariableHelp],
}

/// All variables, in the order of the help.
pub static VARIABLES: &[VariableGroup] = &[
    VariableGroup {
        title: "Addresses",
        variables: &[&GRPC_PORT, &GRPC_HOST, &METRICS_PORT, &ADMIN_PORT, &ADMIN_HOST],
    },
    VariableGroup {
        title: "TLS of GRPC_PORT",
        variables: &[&TLS_CERT_FILE, &TLS_KEY_FILE, &TLS_CLIENT_CA_FILE, &TLS_ALLOWED_CLIENTS],
    },
    VariableGroup {
        title: "Access to ADMIN_PORT",
        variables: &[
            &ADMIN_TOKEN_FILE,
            &ADMIN_TLS_CERT_FILE,
            &ADMIN_TLS_KEY_FILE,
            &ADMIN_TLS_CLIENT_CA_FILE,
            &ADMIN_TLS_ALLOWED_CLIENTS,
        ],
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
    VariableGroup { title: "Holds", variables: &[&HOLD_TTL, &HOLD_TTL_MAX, &LATE_COMMIT] },
    VariableGroup {
        title: "DynamoDB",
        variables: &[
            &AWS_REGION,
            &AWS_DEFAULT_REGION,
            &AWS_PROFILE,
            &DDB_TABLE_INVENTORY,
            &DDB_TABLE_SEATS,
            &DDB_TABLE_IDEMPOTENCY,
            &DDB_TIMEOUT,
            &DDB_MAX_RETRIES,
        ],
    },
    VariableGroup {
        title: "Idempotency cache",
        variables: &[&IDEMPOTENCY_TTL_SECONDS, &IDEMPOTENCY_CACHE_SIZE],
    },
    VariableGroup {
        title: "Process",
        variables: &[
            &SHARDS,
            &MEMBERSHIP,
            &SPIN_BEFORE_PARK,
            &SHUTDOWN_GRACE,
            &SHARD_STALL_LIMIT,
            &SHARD_STALL_EXIT,
        ],
    },
    VariableGroup {
        title: "Telemetry",
        variables: &[&LOG_LEVEL, &SERVICE_NAME, &SERVICE_VERSION, &LOG_CALLS_RATIO],
    },
    VariableGroup {
        title: "Spans (OpenTelemetry)",
        variables: &[
            &OTEL_SDK_DISABLED,
            &OTEL_TRACES_EXPORTER,
            &OTEL_TRACES_SAMPLER,
            &OTEL_TRACES_SAMPLER_ARG,
            &OTEL_SERVICE_NAME,
            &OTEL_RESOURCE_ATTRIBUTES,
            &OTEL_EXPORTER_OTLP_ENDPOINT,
            &OTEL_EXPORTER_OTLP_PROTOCOL,
            &OTEL_EXPORTER_OTLP_COMPRESSION,
            &OTEL_EXPORTER_OTLP_HEADERS,
            &OTEL_EXPORTER_OTLP_TIMEOUT,
            &OTEL_EXPORTER_OTLP_INSECURE,
            &OTEL_EXPORTER_OTLP_CERTIFICATE,
        ],
    },
];

/// Further variables of the span exporter: listed in the help, without a row of their own in the table.
pub(crate) static FURTHER_OF_THE_EXPORTER: &[(&str, &str)] = &[
    (
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE, OTEL_EXPORTER_OTLP_CLIENT_KEY",
        "client certificate, PEM",
    ),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "the whole URL for spans; wins over the general one"),
    (
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL, OTEL_EXPORTER_OTLP_TRACES_HEADERS, ...",
        "for spans only; wins",
    ),
];

/// Variables that the AWS SDK reads: listed in the help, never parsed here.
pub(crate) static READ_BY_THE_SDK: &[(&str, &str)] = &[
    ("AWS_ENDPOINT_URL", "endpoint of all AWS services"),
    ("AWS_ENDPOINT_URL_DYNAMODB", "endpoint of DynamoDB"),
    (
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN",
        "credentials, before all others",
    ),
    ("AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE", "files with the profiles"),
    ("AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN", "role by a token (IRSA)"),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "role of the container (Pod Identity)"),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "role of the container (ECS)"),
    ("AWS_EC2_METADATA_DISABLED", "true: no role of the instance"),
];

/// Variables of the connections to AWS and, for proxies, to the collector, read by the store client: listed in the help, never parsed here.
pub(crate) static READ_BY_THE_STORE: &[(&str, &str)] = &[
    (
        "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY",
        "http:// proxy to AWS and collector; never for loopback",
    ),
    ("NO_PROXY", "names and networks that are reached without a proxy"),
    ("AWS_CA_BUNDLE", "PEM file of certificate authorities, in addition to the public ones"),
    ("SSL_CERT_FILE", "the same; ignored with a warning if the file cannot be read"),
];

pub(crate) static GRPC_PORT: Variable<PortKind> = Variable {
    name: "GRPC_PORT",
    default: "8080",
    kind: PortKind,
    example: "8080",
    about: "port for gRPC clients",
};

pub(crate) static GRPC_HOST: Variable<AddressKind> = Variable {
    name: "GRPC_HOST",
    default: "::",
    kind: AddressKind,
    example: "127.0.0.1",
    about: "listen address of GRPC_PORT",
};

pub(crate) static METRICS_PORT: Variable<PortKind> = Variable {
    name: "METRICS_PORT",
    default: "9090",
    kind: PortKind,
    example: "9090",
    about: "port for /metrics, /healthz and /readyz",
};

pub(crate) static ADMIN_PORT: Variable<OptionalPortKind> = Variable {
    name: "ADMIN_PORT",
    default: "8081",
    kind: OptionalPortKind,
    example: "8081",
    about: "port of the admin service",
};

pub(crate) static ADMIN_HOST: Variable<AddressKind> = Variable {
    name: "ADMIN_HOST",
    default: "127.0.0.1",
    kind: AddressKind,
    example: "127.0.0.1",
    about: "listen address; mTLS or a token off loopback",
};

pub(crate) static TLS_CERT_FILE: Variable<FileKind> = Variable {
    name: "TLS_CERT_FILE",
    default: "",
    kind: FileKind,
    example: "/etc/inventory/tls/tls.crt",
    about: "certificate and intermediates; unset: no TLS",
};

pub(crate) static TLS_KEY_FILE: Variable<FileKind> = Variable {
    name: "TLS_KEY_FILE",
    default: "",
    kind: FileKind,
    example: "/etc/inventory/tls/tls.key",
    about: "private key of the certificate",
};

pub(crate) static TLS_CLIENT_CA_FILE: Variable<FileKind> = Variable {
    name: "TLS_CLIENT_CA_FILE",
    default: "",
    kind: FileKind,
    example: "/etc/inventory/tls/ca.crt",
    about: "authorities of client certificates (mTLS)",
};

pub(crate) static TLS_ALLOWED_CLIENTS: Variable<NamePatternsKind> = Variable {
    name: "TLS_ALLOWED_CLIENTS",
    default: "",
    kind: NamePatternsKind,
    example: "api.sale.svc,spiffe://cluster.local/ns/sale/sa/*",
    about: "names in certificates of clients that may call",
};

pub(crate) static ADMIN_TOKEN_FILE: Variable<TokenFileKind> = Variable {
    name: "ADMIN_TOKEN_FILE",
    default: "",
    kind: TokenFileKind,
    example: "/etc/inventory/admin-token",
    about: "tokens; each call must have one of them",
};

pub(crate) static ADMIN_TLS_CERT_FILE: Variable<FileKind> = Variable {
    name: "ADMIN_TLS_CERT_FILE",
    default: "",
    kind: FileKind,
    example: "/etc/inventory/tls/tls.crt",
    about: "certificate and intermediates; unset: no TLS",
};

pub(crate) static ADMIN_TLS_KEY_FILE: Variable<FileKind> = Variable {
    name: "ADMIN_TLS_KEY_FILE",
    default: "",
    kind: FileKind,
    example: "/etc/inventory/tls/tls.key",
    about: "private key of the certificate",
};

pub(crate) static ADMIN_TLS_CLIENT_CA_FILE: Variable<FileKind> = Variable {
    name: "ADMIN_TLS_CLIENT_CA_FILE",
    default: "",
    kind: FileKind,
    example: "/etc/inventory/tls/ca.crt",
    about: "authorities of client certificates (mTLS)",
};

pub(crate) static ADMIN_TLS_ALLOWED_CLIENTS: Variable<NamePatternsKind> = Variable {
    name: "ADMIN_TLS_ALLOWED_CLIENTS",
    default: "",
    kind: NamePatternsKind,
    example: "ops.sale.svc",
    about: "names in certificates of clients that may call",
};

pub(crate) static GRPC_TIMEOUT: Variable<DurationKind> = Variable {
    name: "GRPC_TIMEOUT",
    default: "250ms",
    kind: DurationKind {
        min: limits::CONFIGURED_SPAN_MIN,
        max: limits::CALL_TIMEOUT_MAX,
        zero: None,
        bare: DefaultUnit::Refused,
    },
    example: "250ms",
    about: "default deadline of calls without grpc-timeout",
};

pub(crate) static GRPC_MAX_CONCURRENCY: Variable<CountKind> = Variable {
    name: "GRPC_MAX_CONCURRENCY",
    default: "1000",
    kind: CountKind { min: 1, max: limits::STREAMS_PER_CONNECTION_MAX as u64 },
    example: "1000",
    about: "concurrent calls per connection",
};

pub(crate) static GRPC_KEEP_ALIVE_PERIOD: Variable<DurationKind> = Variable {
    name: "GRPC_KEEP_ALIVE_PERIOD",
    default: "30s",
    kind: DurationKind {
        min: limits::KEEP_ALIVE_PERIOD_MIN,
        max: limits::KEEP_ALIVE_PERIOD_MAX,
        zero: None,
        bare: DefaultUnit::Refused,
    },
    example: "30s",
    about: "idle time after which a client is pinged",
};

pub(crate) static MAX_CONNECTION_AGE: Variable<DurationKind> = Variable {
    name: "MAX_CONNECTION_AGE",
    default: "30m",
    kind: DurationKind {
        min: limits::CONNECTION_AGE_MIN,
        max: limits::CONNECTION_AGE_MAX,
        zero: Some("never"),
        bare: DefaultUnit::Refused,
    },
    example: "30m",
    about: "age at which a connection is closed gracefully",
};

pub(crate) static MAX_QTY: Variable<CountKind> = Variable {
    name: "MAX_QTY",
    default: "10",
    kind: CountKind { min: 1, max: limits::QTY_MAX_CEILING as u64 },
    example: "10",
    about: "maximum quantity; at most 99 in a seated event",
};

pub(crate) static SOLD_OUT_LATCH_MS: Variable<DurationKind> = Variable {
    name: "SOLD_OUT_LATCH_MS",
    default: "50",
    kind: DurationKind {
        min: limits::READ_STALENESS_MIN,
        max: limits::SOLD_OUT_LATCH_MAX,
        zero: Some("each call reads by itself"),
        bare: DefaultUnit::Millis,
    },
    example: "50",
    about: "maximum age of a read used to answer \"sold out\"",
};

pub(crate) static READ_STALENESS_MS: Variable<DurationKind> = Variable {
    name: "READ_STALENESS_MS",
    default: "50",
    kind: DurationKind {
        min: limits::READ_STALENESS_MIN,
        max: limits::READ_STALENESS_MAX,
        zero: Some("every check reads"),
        bare: DefaultUnit::Millis,
    },
    example: "50",
    about: "maximum age of the stock snapshot of checks",
};

pub(crate) static HOLD_TTL: Variable<DurationKind> = Variable {
    name: "HOLD_TTL",
    default: "60s",
    kind: HOLD,
    example: "60s",
    about: "duration of holds without hold_expires_at",
};

pub(crate) static HOLD_TTL_MAX: Variable<DurationKind> = Variable {
    name: "HOLD_TTL_MAX",
    default: "15m",
    kind: HOLD,
    example: "15m",
    about: "longest hold; longer requests are shortened",
};

const HOLD: DurationKind = DurationKind {
    min: limits::HOLD_TTL_MIN,
    max: limits::HOLD_TTL_CEILING,
    zero: None,
    bare: DefaultUnit::Refused,
};

pub(crate) static LATE_COMMIT: Variable<KeywordKind<LateCommit>> = Variable {
    name: "LATE_COMMIT",
    default: "reacquire",
    kind: LATE_COMMIT_POLICIES,
    example: "reacquire",
    about: "policy for the commit of an expired hold",
};

const REGION: OptionalKind<TextKind> = OptionalKind(TextKind {
    what: "a region",
    min: 1,
    max: limits::LABEL_BYTES_MAX,
    alphabet: "[a-z0-9-]",
    allows: |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-',
});

pub(crate) static AWS_REGION: Variable<OptionalKind<TextKind>> = Variable {
    name: "AWS_REGION",
    default: "",
    kind: REGION,
    example: "ap-northeast-2",
    about: "AWS region of the tables",
};

pub(crate) static AWS_DEFAULT_REGION: Variable<OptionalKind<TextKind>> = Variable {
    name: "AWS_DEFAULT_REGION",
    default: "",
    kind: REGION,
    example: "ap-northeast-2",
    about: "second choice; then profile, ap-northeast-2",
};

pub(crate) static AWS_PROFILE: Variable<OptionalKind<TextKind>> = Variable {
    name: "AWS_PROFILE",
    default: "",
    kind: OptionalKind(TextKind {
        what: "a profile name",
        min: 1,
        max: limits::LABEL_BYTES_MAX,
        alphabet: "printable characters",
        allows: |c| !c.is_control(),
    }),
    example: "staging",
    about: "profile in ~/.aws with the credentials",
};

const TABLE: TextKind = TextKind {
    what: "a table name",
    min: limits::TABLE_NAME_BYTES_MIN,
    max: limits::TABLE_NAME_BYTES_MAX,
    alphabet: "[A-Za-z0-9_.-]",
    allows: |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'),
};

pub(crate) static DDB_TABLE_INVENTORY: Variable<TextKind> = Variable {
    name: "DDB_TABLE_INVENTORY",
    default: "inventory",
    kind: TABLE,
    example: "inventory",
    about: "table of events and stock",
};

pub(crate) static DDB_TABLE_SEATS: Variable<TextKind> = Variable {
    name: "DDB_TABLE_SEATS",
    default: "inventory_seats",
    kind: TABLE,
    example: "inventory_seats",
    about: "table of seats",
};

pub(crate) static DDB_TABLE_IDEMPOTENCY: Variable<TextKind> = Variable {
    name: "DDB_TABLE_IDEMPOTENCY",
    default: "idempotency",
    kind: TABLE,
    example: "idempotency",
    about: "table of reservations",
};

pub(crate) static DDB_TIMEOUT: Variable<DurationKind> = Variable {
    name: "DDB_TIMEOUT",
    default: "200ms",
    kind: DurationKind {
        min: limits::CONFIGURED_SPAN_MIN,
        max: limits::STORE_ATTEMPT_TIMEOUT_MAX,
        zero: None,
        bare: DefaultUnit::Refused,
    },
    example: "200ms",
    about: "time limit of one attempt at the store",
};

pub(crate) static DDB_MAX_RETRIES: Variable<CountKind> = Variable {
    name: "DDB_MAX_RETRIES",
    default: "3",
    kind: CountKind { min: 0, max: limits::STORE_READ_RETRIES_MAX as u64 },
    example: "3",
    about: "retries of a read",
};

pub(crate) static IDEMPOTENCY_TTL_SECONDS: Variable<DurationKind> = Variable {
    name: "IDEMPOTENCY_TTL_SECONDS",
    default: "300",
    kind: DurationKind {
        min: limits::ANSWERS_CACHED_FOR_MIN,
        max: limits::ANSWERS_CACHED_FOR_MAX,
        zero: None,
        bare: DefaultUnit::Seconds,
    },
    example: "300",
    about: "how long a completed answer is cached",
};

pub(crate) static IDEMPOTENCY_CACHE_SIZE: Variable<CountKind> = Variable {
    name: "IDEMPOTENCY_CACHE_SIZE",
    default: "10000",
    kind: CountKind { min: 1, max: limits::ANSWERS_CACHED_MAX as u64 },
    example: "10000",
    about: "completed answers cached per shard",
};

pub(crate) static SHARDS: Variable<ShardsKind> = Variable {
    name: "SHARDS",
    default: "all",
    kind: ShardsKind,
    example: "all",
    about: "CPUs that get a shard each",
};

pub(crate) static MEMBERSHIP: Variable<MembershipKind> = Variable {
    name: "MEMBERSHIP",
    default: "store",
    kind: MembershipKind,
    example: "static:0/3",
    about: "how processes on one store find each other",
};

pub(crate) static SPIN_BEFORE_PARK: Variable<DurationKind> = Variable {
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

pub(crate) static SHUTDOWN_GRACE: Variable<DurationKind> = Variable {
    name: "SHUTDOWN_GRACE",
    default: "30s",
    kind: DurationKind {
        min: Duration::ZERO,
        max: limits::SHUTDOWN_GRACE_MAX,
        zero: Some("at once"),
        bare: DefaultUnit::Refused,
    },
    example: "30s",
    about: "time for calls in flight at shutdown",
};

/// The default is far longer than any loop iteration of a healthy shard, and short enough for a load balancer to react.
pub(crate) static SHARD_STALL_LIMIT: Variable<DurationKind> = Variable {
    name: "SHARD_STALL_LIMIT",
    default: "5s",
    kind: DurationKind {
        min: limits::SHARD_STALL_MIN,
        max: limits::SHARD_STALL_MAX,
        zero: None,
        bare: DefaultUnit::Refused,
    },
    example: "5s",
    about: "stall of a shard after which readiness is off",
};

/// A live migration of a virtual machine stalls it for some seconds; longer stalls do not recover.
pub(crate) static SHARD_STALL_EXIT: Variable<DurationKind> = Variable {
    name: "SHARD_STALL_EXIT",
    default: "15s",
    kind: DurationKind {
        min: limits::SHARD_STALL_MIN,
        max: limits::SHARD_STALL_MAX,
        zero: Some("never"),
        bare: DefaultUnit::Refused,
    },
    example: "15s",
    about: "stall of a shard after which the process exits",
};

pub(crate) static LOG_LEVEL: Variable<KeywordKind<LogLevel>> = Variable {
    name: "LOG_LEVEL",
    default: "info",
    kind: LOG_LEVELS,
    example: "info",
    about: "minimum level of log lines",
};

const LABEL: TextKind = TextKind {
    what: "a name",
    min: 1,
    max: limits::LABEL_BYTES_MAX,
    alphabet: "printable characters",
    allows: |c| !c.is_control(),
};

pub(crate) static SERVICE_NAME: Variable<TextKind> = Variable {
    name: "SERVICE_NAME",
    default: "inventory-api",
    kind: LABEL,
    example: "inventory-api",
    about: "service name in metrics and spans",
};

pub(crate) static SERVICE_VERSION: Variable<OptionalKind<TextKind>> = Variable {
    name: "SERVICE_VERSION",
    default: "",
    kind: OptionalKind(LABEL),
    example: "1.0.0",
    about: "replaces the version in metrics and spans",
};

pub(crate) static LOG_CALLS_RATIO: Variable<RatioKind> = Variable {
    name: "LOG_CALLS_RATIO",
    default: "0",
    kind: RatioKind,
    example: "0.001",
    about: "fraction of all calls that is logged",
};

pub(crate) static OTEL_SDK_DISABLED: Variable<KeywordKind<bool>> = Variable {
    name: "OTEL_SDK_DISABLED",
    default: "false",
    kind: FLAG,
    example: "false",
    about: "true: no spans",
};

pub(crate) static OTEL_TRACES_EXPORTER: Variable<ExportersKind> = Variable {
    name: "OTEL_TRACES_EXPORTER",
    default: "otlp",
    kind: ExportersKind,
    example: "otlp",
    about: "exporter of spans",
};

pub(crate) static OTEL_TRACES_SAMPLER: Variable<KeywordKind<SamplerName>> = Variable {
    name: "OTEL_TRACES_SAMPLER",
    default: "parentbased_traceidratio",
    kind: SAMPLERS,
    example: "parentbased_traceidratio",
    about: "sampler of calls",
};

pub(crate) static OTEL_TRACES_SAMPLER_ARG: Variable<RatioKind> = Variable {
    name: "OTEL_TRACES_SAMPLER_ARG",
    default: "0.001",
    kind: RatioKind,
    example: "0.001",
    about: "ratio; 1 if only the sampler is set",
};

pub(crate) static OTEL_SERVICE_NAME: Variable<OptionalKind<TextKind>> = Variable {
    name: "OTEL_SERVICE_NAME",
    default: "",
    kind: OptionalKind(LABEL),
    example: "inventory-api",
    about: "service name in spans, before SERVICE_NAME",
};

pub(crate) static OTEL_RESOURCE_ATTRIBUTES: Variable<AttributesKind> = Variable {
    name: "OTEL_RESOURCE_ATTRIBUTES",
    default: "",
    kind: AttributesKind,
    example: "deployment.environment.name=prod",
    about: "attributes of all spans",
};

pub(crate) static OTEL_EXPORTER_OTLP_ENDPOINT: Variable<EndpointKind> = Variable {
    name: "OTEL_EXPORTER_OTLP_ENDPOINT",
    default: "http://otel-collector:4317",
    kind: EndpointKind,
    example: "http://otel-collector:4317",
    about: "collector of spans",
};

pub(crate) static OTEL_EXPORTER_OTLP_PROTOCOL: Variable<KeywordKind<OtlpProtocol>> = Variable {
    name: "OTEL_EXPORTER_OTLP_PROTOCOL",
    default: "grpc",
    kind: PROTOCOLS,
    example: "grpc",
    about: "protocol of the export",
};

pub(crate) static OTEL_EXPORTER_OTLP_COMPRESSION: Variable<KeywordKind<OtlpCompression>> =
    Variable {
        name: "OTEL_EXPORTER_OTLP_COMPRESSION",
        default: "none",
        kind: COMPRESSIONS,
        example: "gzip",
        about: "compression of the export",
    };

pub(crate) static OTEL_EXPORTER_OTLP_HEADERS: Variable<HeadersKind> = Variable {
    name: "OTEL_EXPORTER_OTLP_HEADERS",
    default: "",
    kind: HeadersKind,
    example: "authorization=Bearer%20TOKEN",
    about: "headers of every export",
};

pub(crate) static OTEL_EXPORTER_OTLP_TIMEOUT: Variable<CountKind> = Variable {
    name: "OTEL_EXPORTER_OTLP_TIMEOUT",
    default: "10000",
    kind: TIMEOUT,
    example: "10000",
    about: "time limit of an export, in ms",
};

pub(crate) static OTEL_EXPORTER_OTLP_INSECURE: Variable<KeywordKind<bool>> = Variable {
    name: "OTEL_EXPORTER_OTLP_INSECURE",
    default: "false",
    kind: FLAG,
    example: "false",
    about: "no TLS if the URL has no scheme",
};

pub(crate) static OTEL_EXPORTER_OTLP_CERTIFICATE: Variable<FileKind> = Variable {
    name: "OTEL_EXPORTER_OTLP_CERTIFICATE",
    default: "",
    kind: FileKind,
    example: "/etc/otel/ca.pem",
    about: "authorities of the collector",
};
