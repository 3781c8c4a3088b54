//! Reads variables one by one and collects all errors.

use std::ffi::OsString;
use std::fmt;

use super::env::Env;
use super::value_kind::ValueKind;
use super::variables::{Variable, VariableHelp};

/// An invalid setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigError {
    pub(crate) variable: &'static str,
    /// The given value; invalid UTF-8 is displayed as �.
    pub(crate) value: String,
    /// The problem of the value.
    pub(crate) problem: String,
    /// A valid value, and an example.
    pub(crate) cure: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { variable, value, problem, cure } = self;
        write!(f, "{variable}={value:?} {problem}; {cure}")
    }
}

/// All invalid settings, in the order of reading. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "one setting cannot be used:")?,
            n => write!(f, "{n} settings cannot be used:")?,
        }
        for error in &self.0 {
            write!(f, "\n  {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Reads settings from an environment; [`SettingsReader::finish`] returns the errors.
pub(super) struct SettingsReader<'e, E> {
    env: &'e E,
    errors: Vec<ConfigError>,
    #[cfg(test)]
    pub(super) seen: Vec<&'static str>,
}

impl<'e, E: Env> SettingsReader<'e, E> {
    pub(super) fn new(env: &'e E) -> Self {
        Self {
            env,
            errors: Vec::new(),
            #[cfg(test)]
            seen: Vec::new(),
        }
    }

    pub(super) fn env(&self) -> &'e E {
        self.env
    }

    /// Returns the variable's value; its default if it is not set or invalid. In the latter case
    /// [`SettingsReader::finish`] fails, so the default is never used.
    pub(super) fn read<K: ValueKind>(&mut self, variable: &'static Variable<K>) -> K::Value {
        #[cfg(test)]
        self.seen.push(variable.name);
        let Some(raw) = self.env.var(variable.name) else {
            return default_of(variable);
        };
        let Some(text) = self.text_of(variable, raw) else {
            return default_of(variable);
        };
        match variable.kind.parse(text.trim()) {
            Ok(value) => value,
            Err(problem) => {
                let problem = if text.trim().is_empty() { "is empty".to_owned() } else { problem };
                self.refuse(variable, text, problem);
                default_of(variable)
            }
        }
    }

    fn text_of<K: ValueKind>(
        &mut self,
        variable: &'static Variable<K>,
        raw: OsString,
    ) -> Option<String> {
        match raw.into_string() {
            Ok(text) => Some(text),
            Err(raw) => {
                let shown = raw.to_string_lossy().into_owned();
                self.refuse(variable, shown, "is not UTF-8 text".to_owned());
                None
            }
        }
    }

    /// Records that `variable` is invalid; the cure comes from its kind.
    pub(super) fn refuse(&mut self, variable: &dyn VariableHelp, value: String, problem: String) {
        self.errors.push(ConfigError {
            variable: variable.name(),
            value,
            problem,
            cure: format!(
                "want {}, for example {}={}",
                variable.expected(),
                variable.name(),
                variable.example()
            ),
        });
    }

    /// Whether `variable` was invalid so far.
    pub(super) fn refused(&self, variable: &str) -> bool {
        self.errors.iter().any(|error| error.variable == variable)
    }

    /// Records a conflict between variables, with its own cure.
    pub(super) fn refuse_with(&mut self, error: ConfigError) {
        self.errors.push(error);
    }

    /// Returns `value` if every variable was valid.
    ///
    /// # Errors
    /// All invalid settings.
    pub(super) fn finish<T>(self, value: T) -> Result<T, ConfigErrors> {
        if self.errors.is_empty() { Ok(value) } else { Err(ConfigErrors(self.errors)) }
    }
}

/// Parses the default like any other value.
fn default_of<K: ValueKind>(variable: &'static Variable<K>) -> K::Value {
    match variable.kind.parse(variable.default) {
        Ok(value) => value,
        // The table is a constant of this program, and a test parses every default.
        Err(problem) => unreachable!("the default of {} {problem}", variable.name),
    }
}
