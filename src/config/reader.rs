//! Reads variables one by one and collects all errors.

use std::ffi::OsString;
use std::fmt;

use super::env::{Env, is_service_link};
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

/// A variable that is ignored, or whose value is. The server starts without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SettingWarning {
    /// One name, or several with commas.
    pub(crate) variable: String,
    /// The problem, and what to do.
    pub(crate) reason: String,
}

impl fmt::Display for SettingWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.variable, self.reason)
    }
}

/// Reads settings from an environment; [`SettingsReader::finish`] returns the errors.
pub(super) struct SettingsReader<'e, E> {
    env: &'e E,
    errors: Vec<ConfigError>,
    warnings: Vec<SettingWarning>,
    #[cfg(test)]
    pub(super) seen: Vec<String>,
}

/// Value of a variable that another standard defines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StandardValue<T> {
    Unset,
    /// Reported as a warning.
    Invalid,
    Set(T),
}

impl<T> StandardValue<T> {
    /// The value; an invalid one counts as unset.
    pub(super) fn valid(self) -> Option<T> {
        match self {
            StandardValue::Set(value) => Some(value),
            StandardValue::Unset | StandardValue::Invalid => None,
        }
    }
}

const SERVICE_LINK: &str = "Kubernetes sets it for a service of that name; the default is used; set \
    enableServiceLinks: false in the pod, or the variable itself";

impl<'e, E: Env> SettingsReader<'e, E> {
    pub(super) fn new(env: &'e E) -> Self {
        Self {
            env,
            errors: Vec::new(),
            warnings: Vec::new(),
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
        self.seen.push(variable.name.to_owned());
        let Some(raw) = self.env.var(variable.name) else {
            return default_of(variable);
        };
        let Some(text) = self.text_of(variable, raw) else {
            return default_of(variable);
        };
        if is_service_link(variable.name, &text) {
            self.warn(variable.name, SERVICE_LINK.to_owned());
            return default_of(variable);
        }
        match variable.kind.parse(text.trim()) {
            Ok(value) => value,
            Err(problem) => {
                let problem = if text.trim().is_empty() { "is empty".to_owned() } else { problem };
                self.refuse(variable, text, problem);
                default_of(variable)
            }
        }
    }

    /// Reads a variable whose standard forbids to fail: an empty value counts as unset, an invalid one becomes a warning.
    pub(super) fn read_standard<K: ValueKind>(
        &mut self,
        name: &str,
        kind: &K,
    ) -> StandardValue<K::Value> {
        #[cfg(test)]
        self.seen.push(name.to_owned());
        let Some(raw) = self.env.var(name) else {
            return StandardValue::Unset;
        };
        let text = raw.to_string_lossy();
        let text = text.trim();
        if text.is_empty() {
            return StandardValue::Unset;
        }
        match kind.parse(text) {
            Ok(value) => StandardValue::Set(value),
            Err(problem) => {
                let shown = kind.shown(text).map(|text| format!("{text:?} ")).unwrap_or_default();
                let (expected, quoted) = (kind.expected(), quotation_hint(text));
                self.warn(name, format!("{shown}{problem}; want {expected}{quoted}"));
                StandardValue::Invalid
            }
        }
    }

    /// Records a warning about `variable`.
    pub(super) fn warn(&mut self, variable: &str, reason: String) {
        self.warnings.push(SettingWarning { variable: variable.to_owned(), reason });
    }

    /// The warnings so far.
    pub(super) fn take_warnings(&mut self) -> Vec<SettingWarning> {
        std::mem::take(&mut self.warnings)
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
        let quoted = quotation_hint(&value);
        let (name, expected, example) = (variable.name(), variable.expected(), variable.example());
        let cure = format!("want {expected}, for example {name}={example}{quoted}");
        self.errors.push(ConfigError { variable: name, value, problem, cure });
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

/// The cure for a value in quotation marks, which env files and manifests hand over with the value.
fn quotation_hint(value: &str) -> &'static str {
    let value = value.trim();
    let is_quoted = |mark| value.len() > 1 && value.starts_with(mark) && value.ends_with(mark);
    match is_quoted('"') || is_quoted('\'') {
        true => ", without quotation marks: an env file of Docker has none",
        false => "",
    }
}

/// Parses the default like any other value.
pub(super) fn default_of<K: ValueKind>(variable: &'static Variable<K>) -> K::Value {
    match variable.kind.parse(variable.default) {
        Ok(value) => value,
        // The table is a constant of this program, and a test parses every default.
        Err(problem) => unreachable!("the default of {} {problem}", variable.name),
    }
}
