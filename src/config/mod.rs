//! Settings of the server: read from the environment once and typed; all errors are reported together.
//!
//! [`variables`] is the table of all settings, [`value_kind`] parses each kind of value, [`cpus`] determines the CPUs. A
//! [`Config`] is valid by construction; no other code validates settings.
//!
//! Not here: the effect of a setting, and defaults that are not in the table.

pub(crate) mod cpus;
mod duration;
mod env;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod otel;
mod range;
mod reader;
mod tls;
mod unknown;
mod value_kind;
pub(crate) mod variables;

#[cfg(test)]
mod otel_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod unknown_tests;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub(crate) use duration::{format_span, parse_with_unit};
#[cfg(any(test, fuzzing))]
pub(crate) use env::FixedEnv;
pub(crate) use env::{Env, ProcessEnv};
pub(crate) use otel::{OtelConfig, OtlpCompression, OtlpConfig, OtlpProtocol, SERVICE_NAME_KEY};
pub(crate) use range::whole_number;
pub(crate) use reader::{ConfigError, ConfigErrors, SettingWarning};
pub(crate) use tls::AdminAccessFiles;
pub(crate) use value_kind::MembershipMode;

use crate::limits;
use inventory_core::rules::LateCommit;
use inventory_store::{DEFAULT_REGION, StoreRegion, StoreSettings, TableNames};
use inventory_tls::server::ServerFiles;
use reader::SettingsReader;
use variables as v;

/// All settings of the server, valid.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// Port for clients; 0 selects a free one.
    pub(crate) grpc_port: u16,
    /// Listen address for clients; `::` is every address, also of IPv4.
    pub(crate) grpc_host: IpAddr,
    /// Port for metrics and probes; 0 selects a free one.
    pub(crate) metrics_port: u16,
    /// Address of the admin service, loopback by default; `None`: disabled. Port 0 selects a free one.
    pub(crate) admin: Option<SocketAddr>,
    /// TLS of the port for clients; `None`: connections without TLS.
    pub(crate) grpc_tls: Option<ServerFiles>,
    pub(crate) admin_access: AdminAccessFiles,

    /// Default deadline for calls without a grpc-timeout, 1 ms to 30 s.
    pub(crate) call_timeout: Duration,
    /// Concurrent streams per connection, at least 1.
    pub(crate) streams_per_connection: u32,
    /// Silence of a peer after which it is pinged, 1 s to 1 h.
    pub(crate) keep_alive_period: Duration,
    /// Age at which a connection is closed gracefully; `None`: never.
    pub(crate) connection_age: Option<Duration>,
    /// Most units of one reservation, at least 1.
    pub(crate) max_qty: u32,
    /// How long one strong read of all stripes may be reused to answer "sold out", up to 1 s; zero: only for calls that
    /// arrived before it.
    pub(crate) sold_out_latch: Duration,
    /// Maximum age of the stock snapshot used by CheckAvailability, 1 ms to 1 s; zero: every check reads.
    pub(crate) read_staleness: Duration,

    /// Duration of a hold without hold_expires_at, 1 s to `hold_ttl_max`.
    pub(crate) hold_ttl: Duration,
    /// Longest hold, up to 24 h.
    pub(crate) hold_ttl_max: Duration,
    /// Policy for the commit of an expired hold.
    pub(crate) late_commit: LateCommit,

    pub(crate) store: StoreConfig,

    /// How long a shard caches a completed answer, 1 s to 24 h.
    pub(crate) answers_cached_for: Duration,
    /// Number of cached answers, at least 1.
    pub(crate) answers_cached: usize,

    /// The CPUs that get a shard: ascending, distinct, at least one, all of them allowed.
    pub(crate) shard_cpus: Vec<usize>,
    /// How the server processes of the store find each other.
    pub(crate) membership: MembershipMode,
    /// Busy wait of an idle shard before it sleeps, up to 1 ms; zero: none.
    pub(crate) spin_before_park: Duration,
    /// Time for calls in flight at shutdown, up to 10 min; zero: none.
    pub(crate) shutdown_grace: Duration,
    /// Stall of a shard after which the process is not ready, 1 s to 10 min.
    pub(crate) shard_stall_limit: Duration,
    /// Stall of a shard after which the process exits, longer than that; `None`: never.
    pub(crate) shard_stall_exit: Option<Duration>,

    pub(crate) log_level: crate::telemetry::log::LogLevel,
    pub(crate) service_name: String,
    /// `None`: the version of the build.
    pub(crate) service_version: Option<String>,
    /// Fraction of all calls that is logged at info, 0 to 1.
    pub(crate) log_calls_ratio: f64,
    pub(crate) otel: OtelConfig,

    /// Variables that have no effect, or a value that has none.
    pub(crate) warnings: Vec<SettingWarning>,
}

/// Settings of the store. Endpoint and credentials are read by the AWS SDK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreConfig {
    /// The region that a variable names; once resolved, the region in use.
    pub(crate) region: Option<StoreRegion>,
    pub(crate) profile: Option<String>,
    /// Distinct.
    pub(crate) tables: TableNames,
    /// Time limit of one attempt at the store, 1 ms to 30 s.
    pub(crate) attempt_timeout: Duration,
    /// Retries of a read, up to 10.
    pub(crate) read_retries: u32,
}

impl Config {
    /// Reads all variables of the table.
    ///
    /// # Errors
    /// All errors, not only the first; the process then exits with code 64.
    pub(crate) fn from_env(env: &impl Env) -> Result<Config, ConfigErrors> {
        let mut reader = SettingsReader::new(env);
        let mut config = Self::read(&mut reader);
        config.warnings = reader.take_warnings();
        config.warnings.extend(unknown::warnings(env));
        reader.finish(config)
    }

    fn read(reader: &mut SettingsReader<'_, impl Env>) -> Config {
        let age = |span: Duration| (!span.is_zero()).then_some(span);
        let config = Config {
            grpc_port: reader.read(&v::GRPC_PORT),
            grpc_host: reader.read(&v::GRPC_HOST),
            metrics_port: reader.read(&v::METRICS_PORT),
            admin: read_admin(reader),
            grpc_tls: tls::read_grpc(reader),
            admin_access: AdminAccessFiles::read(reader),
            call_timeout: reader.read(&v::GRPC_TIMEOUT),
            streams_per_connection: reader.read(&v::GRPC_MAX_CONCURRENCY) as u32,
            keep_alive_period: reader.read(&v::GRPC_KEEP_ALIVE_PERIOD),
            connection_age: age(reader.read(&v::MAX_CONNECTION_AGE)),
            max_qty: reader.read(&v::MAX_QTY) as u32,
            sold_out_latch: reader.read(&v::SOLD_OUT_LATCH_MS),
            read_staleness: reader.read(&v::READ_STALENESS_MS),
            hold_ttl: reader.read(&v::HOLD_TTL),
            hold_ttl_max: reader.read(&v::HOLD_TTL_MAX),
            late_commit: reader.read(&v::LATE_COMMIT),
            store: StoreConfig::read(reader),
            answers_cached_for: reader.read(&v::IDEMPOTENCY_TTL_SECONDS),
            answers_cached: reader.read(&v::IDEMPOTENCY_CACHE_SIZE) as usize,
            shard_cpus: read_shards(reader),
            membership: reader.read(&v::MEMBERSHIP),
            spin_before_park: reader.read(&v::SPIN_BEFORE_PARK),
            shutdown_grace: reader.read(&v::SHUTDOWN_GRACE),
            shard_stall_limit: reader.read(&v::SHARD_STALL_LIMIT),
            shard_stall_exit: age(reader.read(&v::SHARD_STALL_EXIT)),
            log_level: reader.read(&v::LOG_LEVEL),
            service_name: reader.read(&v::SERVICE_NAME),
            service_version: reader.read(&v::SERVICE_VERSION),
            log_calls_ratio: reader.read(&v::LOG_CALLS_RATIO),
            otel: OtelConfig::read(reader),
            warnings: Vec::new(),
        };
        config.refuse_shared_ports(reader);
        config.admin_access.refuse_an_open_port(config.admin, reader);
        config.refuse_holds_past_their_longest(reader);
        config.refuse_an_exit_before_the_warning(reader);
        refuse_shared_tables(&config.store.tables, reader);
        config
    }

    pub(crate) fn grpc_address(&self) -> SocketAddr {
        SocketAddr::new(self.grpc_host, self.grpc_port)
    }

    /// Removes the default endpoint for spans, for commands that run without a collector.
    pub(crate) fn without_default_collector(mut self) -> Self {
        self.otel.exporter = self.otel.exporter.filter(|exporter| exporter.endpoint_is_set);
        self
    }

    /// Rejects two services on one port: the second would receive half of the first one's connections, or fail to
    /// start.
    fn refuse_shared_ports(&self, reader: &mut SettingsReader<'_, impl Env>) {
        let admin = self.admin.map_or(0, |address| address.port());
        let mut ports = [
            (v::GRPC_PORT.name, self.grpc_port),
            (v::METRICS_PORT.name, self.metrics_port),
            (v::ADMIN_PORT.name, admin),
        ];
        // Reports the variable that was set, not the default that conflicts with it.
        ports.sort_by_key(|(name, _)| reader.env().var(name).is_some());
        for (at, (name, port)) in ports.iter().enumerate() {
            let twin = ports[..at].iter().find(|(_, other)| other == port);
            let Some((other, _)) = twin.filter(|_| *port != 0) else {
                continue;
            };
            // An invalid variable has its default here, which nobody requested.
            if reader.refused(name) || reader.refused(other) {
                continue;
            }
            reader.refuse_with(ConfigError {
                variable: name,
                value: port.to_string(),
                problem: format!("is the port of {other} too"),
                cure: format!(
                    "want another port, for example {name}={}",
                    free_port_beside(ports.map(|p| p.1))
                ),
            });
        }
    }

    /// A process that exits before it was ever not ready takes its calls with it.
    fn refuse_an_exit_before_the_warning(&self, reader: &mut SettingsReader<'_, impl Env>) {
        let (limit, exit) = (&v::SHARD_STALL_LIMIT, &v::SHARD_STALL_EXIT);
        let Some(at) = self.shard_stall_exit.filter(|at| *at <= self.shard_stall_limit) else {
            return;
        };
        if reader.refused(limit.name) || reader.refused(exit.name) {
            return;
        }
        let (bound, shown) = (format_span(self.shard_stall_limit), format_span(at));
        let longer = match self.shard_stall_limit * 3 {
            span if span <= limits::SHARD_STALL_MAX => format_span(span),
            _ => "0".to_owned(),
        };
        // Reports the variable that was set, not the default that conflicts with it.
        let is_limit_alone =
            reader.env().var(limit.name).is_some() && reader.env().var(exit.name).is_none();
        reader.refuse_with(match is_limit_alone {
            true => ConfigError {
                variable: limit.name,
                value: bound,
                problem: format!("is not shorter than {}, which is {shown}", exit.name),
                cure: format!("want less than {shown}, or {}={longer} too", exit.name),
            },
            false => ConfigError {
                variable: exit.name,
                value: shown,
                problem: format!("is not longer than {}, which is {bound}", limit.name),
                cure: format!(
                    "want a longer time or 0 for never, for example {}={longer}",
                    exit.name
                ),
            },
        });
    }

    fn refuse_holds_past_their_longest(&self, reader: &mut SettingsReader<'_, impl Env>) {
        let (usual, longest) = (&v::HOLD_TTL, &v::HOLD_TTL_MAX);
        if self.hold_ttl <= self.hold_ttl_max
            || reader.refused(usual.name)
            || reader.refused(longest.name)
        {
            return;
        }
        let (ttl, max) = (format_span(self.hold_ttl), format_span(self.hold_ttl_max));
        // Reports the variable that was set, not the default that conflicts with it.
        let longest_set = reader.env().var(longest.name).is_some();
        let usual_set = reader.env().var(usual.name).is_some();
        reader.refuse_with(if longest_set && !usual_set {
            ConfigError {
                variable: longest.name,
                value: max,
                problem: format!("is shorter than {}, which is {ttl}", usual.name),
                cure: format!("want {ttl} or more, or {} set too", usual.name),
            }
        } else {
            ConfigError {
                variable: usual.name,
                value: ttl,
                problem: format!("is longer than {}, which is {max}", longest.name),
                cure: format!("want {max} or less, for example {}={max}", usual.name),
            }
        });
    }
}

/// A port near the usual ones that is not in `taken`.
fn free_port_beside(taken: [u16; 3]) -> u16 {
    (8_080..).find(|port| !taken.contains(port)).unwrap_or(0)
}

impl StoreConfig {
    fn read(reader: &mut SettingsReader<'_, impl Env>) -> Self {
        Self {
            region: read_region(reader),
            profile: reader.read(&v::AWS_PROFILE),
            tables: TableNames {
                inventory: reader.read(&v::DDB_TABLE_INVENTORY),
                seats: reader.read(&v::DDB_TABLE_SEATS),
                idempotency: reader.read(&v::DDB_TABLE_IDEMPOTENCY),
            },
            attempt_timeout: reader.read(&v::DDB_TIMEOUT),
            read_retries: reader.read(&v::DDB_MAX_RETRIES) as u32,
        }
    }

    /// Settings of a shard's store client: DynamoDB, or the endpoint of the AWS variables.
    pub(crate) fn settings(&self) -> StoreSettings {
        StoreSettings {
            region: self.region.clone(),
            profile: self.profile.clone(),
            tables: self.tables.clone(),
            attempt_timeout: self.attempt_timeout,
            read_retries: self.read_retries,
            ..StoreSettings::default()
        }
    }

    /// Name of the region in use, or of the default one as long as it is not resolved.
    pub(crate) fn region_name(&self) -> &str {
        self.region.as_ref().map_or(DEFAULT_REGION, |region| &region.name)
    }

    /// The region and what names it, for messages.
    pub(crate) fn region_text(&self) -> String {
        match &self.region {
            Some(StoreRegion { name, source }) => format!("{name} ({source})"),
            None => DEFAULT_REGION.to_owned(),
        }
    }

    /// The variable that names `table`.
    pub(crate) fn variable_of_table(&self, table: &str) -> &'static str {
        let named = named(&self.tables);
        let found = named.iter().find(|(_, name)| *name == table);
        found.map_or("DDB_TABLE_*", |(variable, _)| variable.name)
    }
}

/// AWS_REGION or, without it, AWS_DEFAULT_REGION.
fn read_region(reader: &mut SettingsReader<'_, impl Env>) -> Option<StoreRegion> {
    let mut read = |variable: &'static v::Variable<_>| {
        let name = reader.read(variable)?;
        Some(StoreRegion { name, source: variable.name.to_owned() })
    };
    let (usual, general) = (read(&v::AWS_REGION), read(&v::AWS_DEFAULT_REGION));
    usual.or(general)
}

/// Rejects two roles of one table, which would overwrite each other's items.
fn refuse_shared_tables(tables: &TableNames, reader: &mut SettingsReader<'_, impl Env>) {
    let mut tables = named(tables);
    // Reports the variable that was set, not the default that conflicts with it.
    tables.sort_by_key(|(variable, _)| reader.env().var(variable.name).is_some());
    for (at, (variable, table)) in tables.iter().enumerate() {
        let twin = tables[..at].iter().find(|(_, other)| other == table);
        if let Some((other, _)) = twin
            && !reader.refused(other.name)
            && !reader.refused(variable.name)
        {
            reader.refuse_with(ConfigError {
                variable: variable.name,
                value: (*table).to_owned(),
                problem: format!("is the table of {} too", other.name),
                cure: format!(
                    "want a table of its own, for example {}={table}_{}",
                    variable.name, variable.example
                ),
            });
        }
    }
}

/// Each table with the variable that names it.
fn named(tables: &TableNames) -> [(&'static v::Variable<value_kind::TextKind>, &str); 3] {
    [
        (&v::DDB_TABLE_INVENTORY, &tables.inventory),
        (&v::DDB_TABLE_SEATS, &tables.seats),
        (&v::DDB_TABLE_IDEMPOTENCY, &tables.idempotency),
    ]
}

/// Client address of the local server, for commands that need no other setting.
///
/// # Errors
/// When GRPC_PORT or GRPC_HOST is invalid.
pub(crate) fn grpc_address(env: &impl Env) -> Result<SocketAddr, ConfigErrors> {
    let mut reader = SettingsReader::new(env);
    let address = SocketAddr::new(reader.read(&v::GRPC_HOST), reader.read(&v::GRPC_PORT));
    reader.finish(address)
}

/// Whether the port for clients has TLS, for commands that need no other setting.
///
/// # Errors
/// When a setting of TLS is invalid.
pub(crate) fn grpc_has_tls(env: &impl Env) -> Result<bool, ConfigErrors> {
    let mut reader = SettingsReader::new(env);
    let tls = tls::read_grpc(&mut reader);
    reader.finish(tls.is_some())
}

/// Whether the admin port has TLS, for commands that need no other setting.
///
/// # Errors
/// When a setting of its TLS is invalid.
pub(crate) fn admin_has_tls(env: &impl Env) -> Result<bool, ConfigErrors> {
    let mut reader = SettingsReader::new(env);
    let access = AdminAccessFiles::read(&mut reader);
    reader.finish(access.tls.is_some())
}

/// Metrics port of the local server, for commands that need no other setting.
///
/// # Errors
/// When METRICS_PORT is invalid.
pub(crate) fn metrics_port(env: &impl Env) -> Result<u16, ConfigErrors> {
    let mut reader = SettingsReader::new(env);
    let port = reader.read(&v::METRICS_PORT);
    reader.finish(port)
}

/// Admin address of the local server, for commands that need no other setting.
///
/// # Errors
/// When ADMIN_PORT or ADMIN_HOST is invalid.
pub(crate) fn admin_address(env: &impl Env) -> Result<Option<SocketAddr>, ConfigErrors> {
    let mut reader = SettingsReader::new(env);
    let address = read_admin(&mut reader);
    reader.finish(address)
}

/// Warnings about variables that have no effect.
pub(crate) fn warnings(env: &impl Env) -> Vec<SettingWarning> {
    unknown::warnings(env)
}

/// Settings of the store, for commands that need no other setting.
///
/// # Errors
/// When one of its variables is invalid.
pub(crate) fn store(env: &impl Env) -> Result<StoreConfig, ConfigErrors> {
    let mut reader = SettingsReader::new(env);
    let store = StoreConfig::read(&mut reader);
    refuse_shared_tables(&store.tables, &mut reader);
    reader.finish(store)
}

fn read_admin(reader: &mut SettingsReader<'_, impl Env>) -> Option<SocketAddr> {
    let host = reader.read(&v::ADMIN_HOST);
    let port = reader.read(&v::ADMIN_PORT);
    port.map(|port| SocketAddr::new(host, port))
}

fn read_shards(reader: &mut SettingsReader<'_, impl Env>) -> Vec<usize> {
    let spec = reader.read(&v::SHARDS);
    let cpus = match reader.env().allowed_cpus() {
        Ok(cpus) => cpus,
        Err(why) => {
            let problem = format!("cannot be resolved: the kernel does not tell the CPUs ({why})");
            reader.refuse(&v::SHARDS, spec.to_string(), problem);
            return Vec::new();
        }
    };
    match cpus::resolve(&spec, &cpus) {
        Ok(shards) => shards,
        Err(problem) => {
            reader.refuse(&v::SHARDS, spec.to_string(), problem.to_string());
            Vec::new()
        }
    }
}
