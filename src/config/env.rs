//! Sources of settings: the process environment, or a list given by a test or by `demo`.

use std::ffi::OsString;
use std::io;

/// Environment of a starting server.
pub(crate) trait Env {
    /// The value of an environment variable, `None` if it is not set.
    fn var(&self, name: &str) -> Option<OsString>;

    /// Names of all variables that are set. A name that is not UTF-8 is none of any program.
    fn names(&self) -> Vec<String>;

    /// The CPUs this process may run on, ascending.
    ///
    /// # Errors
    /// The operating system's error.
    fn allowed_cpus(&self) -> io::Result<Vec<usize>>;
}

/// Environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProcessEnv;

impl Env for ProcessEnv {
    fn var(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    fn names(&self) -> Vec<String> {
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
    }

    fn allowed_cpus(&self) -> io::Result<Vec<usize>> {
        inventory_runtime::allowed_cpus()
    }
}

/// Whether Kubernetes set the variable, for a service with that name: `GRPC_PORT=tcp://10.0.0.1:8080`.
pub(super) fn is_service_link(name: &str, value: &str) -> bool {
    let schemes = ["tcp://", "udp://", "sctp://"];
    name.ends_with("_PORT") && schemes.iter().any(|scheme| value.starts_with(scheme))
}

/// Settings given in code; all others have their defaults.
#[cfg(any(test, fuzzing))]
#[derive(Clone, Debug)]
pub(crate) struct FixedEnv {
    vars: Vec<(String, OsString)>,
    cpus: Vec<usize>,
}

#[cfg(any(test, fuzzing))]
impl FixedEnv {
    /// No settings, on these CPUs.
    pub(crate) fn on(cpus: impl IntoIterator<Item = usize>) -> Self {
        Self { vars: Vec::new(), cpus: cpus.into_iter().collect() }
    }

    /// Adds a setting; the last one of a name wins.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.vars.push((name.to_owned(), value.into()));
        self
    }
}

#[cfg(any(test, fuzzing))]
impl Env for FixedEnv {
    fn var(&self, name: &str) -> Option<OsString> {
        self.vars.iter().rev().find(|(given, _)| given == name).map(|(_, value)| value.clone())
    }

    fn names(&self) -> Vec<String> {
        self.vars.iter().map(|(name, _)| name.clone()).collect()
    }

    fn allowed_cpus(&self) -> io::Result<Vec<usize>> {
        Ok(self.cpus.clone())
    }
}
