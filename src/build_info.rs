//! Version and revision of this build.

use std::sync::OnceLock;

use crate::config::Config;

/// Version of the package.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Set by the binary: only its crate is compiled again when the revision changes.
static REVISION: OnceLock<&'static str> = OnceLock::new();

/// Sets the git revision of the build, once, before anything else runs.
pub fn set_revision(revision: &'static str) {
    let _ = REVISION.set(revision);
}

/// The git revision, with `-dirty` if the checkout differed from it; `unknown` if the build had no git.
pub(crate) fn revision() -> &'static str {
    REVISION.get().copied().filter(|revision| !revision.is_empty()).unwrap_or("unknown")
}

/// Version and revision as text: `0.1.0 (3f2a1b0c9d8e)`.
pub(crate) fn version_text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| format!("{VERSION} ({})", revision()))
}

/// The version in metrics and spans: SERVICE_VERSION or, without it, the version of the build.
pub(crate) fn service_version(config: &Config) -> String {
    config.service_version.clone().unwrap_or_else(|| VERSION.to_owned())
}
