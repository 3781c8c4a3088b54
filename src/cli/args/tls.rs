//! How commands reach a server over TLS.

use std::path::PathBuf;

use clap::Args;
use http::Uri;
use inventory_client::ClientTls;
use inventory_tls::FileSetting;
use inventory_tls::client::ClientFiles;

use super::super::CommandError;

/// TLS of the connection, for an address that begins with https://.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "TLS (for https:// addresses)")]
pub(in crate::cli) struct TlsArgs {
    /// Authorities of the server, PEM [default: the public ones]
    #[arg(
        long = "tls-ca",
        value_name = "FILE",
        env = "CLIENT_TLS_CA_FILE",
        hide_env_values = true
    )]
    authorities: Option<PathBuf>,

    /// Certificate of this client, PEM
    #[arg(
        long = "tls-cert",
        value_name = "FILE",
        env = "CLIENT_TLS_CERT_FILE",
        hide_env_values = true,
        requires = "key"
    )]
    certificate: Option<PathBuf>,

    /// Private key of that certificate, PEM
    #[arg(
        long = "tls-key",
        value_name = "FILE",
        env = "CLIENT_TLS_KEY_FILE",
        hide_env_values = true,
        requires = "certificate"
    )]
    key: Option<PathBuf>,

    /// Name in the certificate of the server [default: the host of its address]
    #[arg(
        long = "tls-name",
        value_name = "NAME",
        env = "CLIENT_TLS_SERVER_NAME",
        hide_env_values = true
    )]
    server_name: Option<String>,
}

impl TlsArgs {
    /// The settings for `server`; `None` for an address without TLS.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub(in crate::cli) fn settings(&self, server: &Uri) -> Result<Option<ClientTls>, CommandError> {
        if server.scheme_str() != Some("https") {
            return Ok(None);
        }
        let file = |setting, path: &Option<PathBuf>| {
            path.clone().map(|path| FileSetting { setting, path })
        };
        let certificate = file("--tls-cert", &self.certificate);
        let files = ClientFiles {
            authorities: file("--tls-ca", &self.authorities),
            pair: certificate.zip(file("--tls-key", &self.key)),
        };
        let tls = ClientTls::load(&files).map_err(CommandError::usage)?;
        match &self.server_name {
            None => Ok(Some(tls)),
            Some(name) => {
                let named = tls.with_server_name(name);
                named.map(Some).map_err(|why| CommandError::usage(format!("--tls-name: {why}")))
            }
        }
    }

    /// The options as they must be typed again.
    pub(in crate::cli) fn typed(&self) -> String {
        let files = [
            ("--tls-ca", &self.authorities),
            ("--tls-cert", &self.certificate),
            ("--tls-key", &self.key),
        ];
        let files = files.into_iter().filter_map(|(option, path)| {
            path.as_ref().map(|path| format!(" {option} {}", path.display()))
        });
        let name = self.server_name.as_ref().map(|name| format!(" --tls-name {name}"));
        files.chain(name).collect()
    }
}
