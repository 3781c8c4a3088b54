//! Checks everything that a start requires, and explains what is missing.
//!
//! [`run`] implements the command `check`; [`explain`] has the same explanations for a failed start;
//! [`facts`] reads the facts of this machine. Nothing here changes anything, except
//! [`facts::raise_soft_limits`].

pub(crate) mod explain;
pub(crate) mod facts;
mod host;
mod members;
mod store;
mod tuning;

use std::fmt;
use std::path::Path;

use crate::config::{Config, MembershipMode};

pub(crate) use explain::{
    Explanation, explain_listen_error, explain_missing_table, explain_ring_error,
    explain_store_unreachable, explain_topology_error,
};
pub(crate) use facts::{HostFacts, raise_soft_limits};
pub(crate) use host::connections_per_shard;
pub(crate) use store::{
    StoreQueryError, explain_connect_error, explain_query_error, query_at, require_store,
    resolve_store,
};

/// Result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckResult {
    Ok,
    /// The server starts and runs, but the operator should know.
    Note,
    Wrong,
}

/// One requirement of a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PreflightCheck {
    pub(crate) name: &'static str,
    pub(crate) verdict: CheckResult,
    pub(crate) finding: String,
    /// Remedies: one alternative each.
    pub(crate) fixes: Vec<String>,
}

/// All checks, and the facts behind them.
#[derive(Clone, Debug)]
pub(crate) struct PreflightReport {
    pub(crate) checks: Vec<PreflightCheck>,
    pub(crate) facts: HostFacts,
}

impl PreflightReport {
    pub(crate) fn wrong(&self) -> usize {
        let wrong = self.checks.iter().filter(|check| check.verdict == CheckResult::Wrong);
        wrong.count()
    }
}

/// Runs every check; takes seconds at most, also when the store does not answer.
pub(crate) fn run(config: &Config) -> PreflightReport {
    let facts = HostFacts::read();
    let (mut checks, has_ring) = host::checks(config, &facts);
    checks.extend(config.warnings.iter().map(|warning| PreflightCheck {
        name: "settings",
        verdict: CheckResult::Note,
        finding: warning.to_string(),
        fixes: Vec::new(),
    }));
    checks.push(tuning::check(Path::new("/"), &config.shard_cpus));
    let reads_members = config.membership == MembershipMode::Store;
    checks.extend(store::checks(&config.store, has_ring, reads_members));
    PreflightReport { checks, facts }
}

impl fmt::Display for PreflightReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        for check in &self.checks {
            let verdict = match check.verdict {
                CheckResult::Ok => "ok",
                CheckResult::Note => "note",
                CheckResult::Wrong => "wrong",
            };
            writeln!(f, "{:width$}  {verdict:5}  {}", check.name, check.finding)?;
            for fix in &check.fixes {
                writeln!(f, "{:width$}  {:5}  {fix}", "", "fix")?;
            }
        }
        let wrong = self.checks.iter().filter(|check| check.verdict == CheckResult::Wrong);
        let mut names: Vec<&str> = wrong.map(|check| check.name).collect();
        let count = names.len();
        names.dedup();
        let names = names.join(", ");
        match count {
            0 => write!(f, "\nready to serve"),
            1 => write!(f, "\none thing is wrong: {names}\nmachine: {}", self.facts),
            n => write!(f, "\n{n} things are wrong: {names}\nmachine: {}", self.facts),
        }
    }
}
