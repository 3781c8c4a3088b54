//! Reads variables one after the other and remembers everything that is wrong.

use std::ffi::OsString;
use std::fmt;

use super::env::Env;
use super::value_kind::ValueKind;
use super::variables::{Variable, VariableHelp};

/// One setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub variable: &'static str,
    /// The value as it was given; bytes that are no text are shown as �.
    pub value: String,
    /// What is wrong with it.
    pub problem: String,
    /// What would be right, and an example.
    pub cure: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            variable,
            value,
            problem,
            cure,
        } = self;
        write!(f, "{variable}={value:?} {problem}; {cure}")
    }
}

/// All settings that cannot be used, in the order in which they were read. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

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

/// Reads from an environment; [`SettingsReader::finish`] tells whether all was well.
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

    /// The variable's value; its default when it is not set, and also when it is wrong: then
    /// [`SettingsReader::finish`] fails, so the stand-in is never used.
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
                let problem = if text.trim().is_empty() {
                    "is empty".to_owned()
                } else {
                    problem
                };
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

    /// Records that `variable` cannot be used, with the cure its kind knows.
    pub(super) fn refuse(&mut self, variable: &dyn VariableHelp, value: String, problem: String) {
        self.errors.push(ConfigError {
            variable: variable.name(),
            value,
            problem,
            cure: format!(
                "want {}, for example {}={}",
                variable.wants(),
                variable.name(),
                variable.example()
            ),
        });
    }

    /// Whether `variable` was refused so far.
    pub(super) fn refused(&self, variable: &str) -> bool {
        self.errors.iter().any(|error| error.variable == variable)
    }

    /// Records a problem between variables, with a cure of its own.
    pub(super) fn refuse_with(&mut self, error: ConfigError) {
        self.errors.push(error);
    }

    /// `value` if every variable was fine.
    ///
    /// # Errors
    /// Everything that was refused.
    pub(super) fn finish<T>(self, value: T) -> Result<T, ConfigErrors> {
        if self.errors.is_empty() {
            Ok(value)
        } else {
            Err(ConfigErrors(self.errors))
        }
    }
}

/// The default, parsed as any value is.
fn default_of<K: ValueKind>(variable: &'static Variable<K>) -> K::Value {
    match variable.kind.parse(variable.default) {
        Ok(value) => value,
        // The table is a constant of this program, and a test reads every default of it.
        Err(problem) => unreachable!("the default of {} {problem}", variable.name),
    }
}
