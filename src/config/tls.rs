//! Settings of TLS: which files belong together.

use std::net::SocketAddr;
use std::path::PathBuf;

use inventory_tls::FileSetting;
use inventory_tls::names::NamePattern;
use inventory_tls::server::ServerFiles;

use super::env::Env;
use super::otel::kinds::FileKind;
use super::reader::{ConfigError, SettingsReader};
use super::value_kind::NamePatternsKind;
use super::variables::{self as v, Variable};

/// The variables of a port's TLS.
struct TlsVariables {
    certificate: &'static Variable<FileKind>,
    key: &'static Variable<FileKind>,
    client_authorities: &'static Variable<FileKind>,
    allowed_clients: &'static Variable<NamePatternsKind>,
}

/// TLS of GRPC_PORT; `None`: connections without TLS.
pub(super) fn read_grpc(reader: &mut SettingsReader<'_, impl Env>) -> Option<ServerFiles> {
    read(
        reader,
        &TlsVariables {
            certificate: &v::TLS_CERT_FILE,
            key: &v::TLS_KEY_FILE,
            client_authorities: &v::TLS_CLIENT_CA_FILE,
            allowed_clients: &v::TLS_ALLOWED_CLIENTS,
        },
    )
}

/// Who may call ADMIN_PORT, and over what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AdminAccessFiles {
    /// TLS of the port; `None`: connections without TLS.
    pub(crate) tls: Option<ServerFiles>,
    /// The file of tokens; `None`: calls need none.
    pub(crate) tokens: Option<FileSetting>,
}

impl AdminAccessFiles {
    pub(super) fn read(reader: &mut SettingsReader<'_, impl Env>) -> Self {
        let tls = read(
            reader,
            &TlsVariables {
                certificate: &v::ADMIN_TLS_CERT_FILE,
                key: &v::ADMIN_TLS_KEY_FILE,
                client_authorities: &v::ADMIN_TLS_CLIENT_CA_FILE,
                allowed_clients: &v::ADMIN_TLS_ALLOWED_CLIENTS,
            },
        );
        let tokens = reader.read(&v::ADMIN_TOKEN_FILE);
        let tokens = tokens.map(|path| FileSetting { setting: v::ADMIN_TOKEN_FILE.name, path });
        Self { tls, tokens }
    }

    /// Whether callers are known: by a certificate or a token.
    pub(crate) fn authenticates(&self) -> bool {
        let has_authorities =
            self.tls.as_ref().is_some_and(|files| files.client_authorities.is_some());
        has_authorities || self.tokens.is_some()
    }

    /// Rejects an admin port that other machines reach and that serves everybody.
    pub(super) fn refuse_an_open_port(
        &self,
        address: Option<SocketAddr>,
        reader: &mut SettingsReader<'_, impl Env>,
    ) {
        let Some(address) = address.filter(|address| !address.ip().is_loopback()) else {
            return;
        };
        let access =
            [&v::ADMIN_TLS_CERT_FILE, &v::ADMIN_TLS_KEY_FILE, &v::ADMIN_TLS_CLIENT_CA_FILE];
        let is_refused = access.iter().any(|variable| reader.refused(variable.name));
        if self.authenticates() || is_refused || reader.refused(v::ADMIN_HOST.name) {
            return;
        }
        reader.refuse_with(ConfigError {
            variable: v::ADMIN_HOST.name,
            value: address.ip().to_string(),
            problem: "makes the admin port serve everybody that reaches it".to_owned(),
            cure: format!(
                "want a loopback address, {}={}, or mutual TLS ({}, {}, {})",
                v::ADMIN_TOKEN_FILE.name,
                v::ADMIN_TOKEN_FILE.example,
                access[0].name,
                access[1].name,
                access[2].name
            ),
        });
    }
}

fn read(
    reader: &mut SettingsReader<'_, impl Env>,
    variables: &TlsVariables,
) -> Option<ServerFiles> {
    let certificate = file(variables.certificate, reader);
    let key = file(variables.key, reader);
    let client_authorities = file(variables.client_authorities, reader);
    let allowed_clients: Vec<NamePattern> = reader.read(variables.allowed_clients);
    // Each of these without the one that it needs would be silently without effect.
    let needs = [
        (certificate.as_ref(), variables.key.name, key.is_some(), variables.key.example),
        (
            key.as_ref(),
            variables.certificate.name,
            certificate.is_some(),
            variables.certificate.example,
        ),
        (
            client_authorities.as_ref(),
            variables.certificate.name,
            certificate.is_some(),
            variables.certificate.example,
        ),
    ];
    for (file, other, is_set, example) in needs {
        if let Some(FileSetting { setting, path }) = file
            && !is_set
        {
            refuse(reader, setting, path.display().to_string(), other, example);
        }
    }
    if client_authorities.is_none() && !allowed_clients.is_empty() {
        let patterns: Vec<String> = allowed_clients.iter().map(ToString::to_string).collect();
        let needed = variables.client_authorities;
        let setting = variables.allowed_clients.name;
        refuse(reader, setting, patterns.join(","), needed.name, needed.example);
    }
    Some(ServerFiles { certificate: certificate?, key: key?, client_authorities, allowed_clients })
}

fn file(
    variable: &'static Variable<FileKind>,
    reader: &mut SettingsReader<'_, impl Env>,
) -> Option<FileSetting> {
    let path: PathBuf = reader.read(variable)?;
    Some(FileSetting { setting: variable.name, path })
}

fn refuse(
    reader: &mut SettingsReader<'_, impl Env>,
    variable: &'static str,
    value: String,
    needed: &str,
    example: &str,
) {
    reader.refuse_with(ConfigError {
        variable,
        value,
        problem: format!("has no effect without {needed}"),
        cure: format!("want both, for example {needed}={example}, or neither"),
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::{Config, FixedEnv};

    fn config(variables: &[(&str, &str)]) -> Result<Config, String> {
        let env =
            variables.iter().fold(FixedEnv::on([0]), |env, (name, value)| env.with(name, *value));
        Config::from_env(&env).map_err(|errors| errors.to_string())
    }

    #[test]
    fn tls_is_off_without_a_certificate() {
        assert_eq!(config(&[]).unwrap().grpc_tls, None);
        assert_eq!(
            config(&[("TLS_CERT_FILE", ""), ("TLS_ALLOWED_CLIENTS", "")]).unwrap().grpc_tls,
            None
        );
    }

    #[test]
    fn files_and_patterns_are_read_together() {
        let tls = config(&[
            ("TLS_CERT_FILE", "a.crt"),
            ("TLS_KEY_FILE", "a.key"),
            ("TLS_CLIENT_CA_FILE", "ca.crt"),
            ("TLS_ALLOWED_CLIENTS", "api.sale.svc, *.team.test"),
        ]);
        let tls = tls.unwrap().grpc_tls.unwrap();
        assert_eq!(tls.certificate.setting, "TLS_CERT_FILE");
        assert_eq!(tls.client_authorities.unwrap().path.to_str(), Some("ca.crt"));
        assert_eq!(tls.allowed_clients.len(), 2);
    }

    #[test]
    fn settings_without_effect_are_refused_with_the_missing_one() {
        for (set, value, missing) in [
            ("TLS_CERT_FILE", "a.crt", "TLS_KEY_FILE"),
            ("TLS_KEY_FILE", "a.key", "TLS_CERT_FILE"),
            ("TLS_CLIENT_CA_FILE", "ca.crt", "TLS_CERT_FILE"),
            ("TLS_ALLOWED_CLIENTS", "api.sale.svc", "TLS_CLIENT_CA_FILE"),
        ] {
            let error = config(&[(set, value)]).unwrap_err();
            assert!(
                error.contains(&format!("{set}={value:?}")) && error.contains(missing),
                "{error}"
            );
        }
        let error = config(&[("TLS_ALLOWED_CLIENTS", "*")]).unwrap_err();
        assert!(error.contains("TLS_ALLOWED_CLIENTS") && error.contains("every name"), "{error}");
    }

    #[test]
    fn an_admin_port_beyond_loopback_needs_a_token_or_mutual_tls() {
        let error = config(&[("ADMIN_HOST", "0.0.0.0")]).unwrap_err();
        for needle in ["ADMIN_HOST=\"0.0.0.0\"", "ADMIN_TOKEN_FILE", "ADMIN_TLS_CLIENT_CA_FILE"] {
            assert!(error.contains(needle), "no {needle} in {error}");
        }
        let tls = [("ADMIN_HOST", "::"), ("ADMIN_TLS_CERT_FILE", "a"), ("ADMIN_TLS_KEY_FILE", "a")];
        assert!(config(&tls).is_err(), "TLS alone is no identity");
        let mutual = [&tls[..], &[("ADMIN_TLS_CLIENT_CA_FILE", "a")]].concat();
        for accepted in [
            &[("ADMIN_HOST", "::1")][..],
            &[("ADMIN_HOST", "0.0.0.0"), ("ADMIN_PORT", "off")],
            &[("ADMIN_HOST", "0.0.0.0"), ("ADMIN_TOKEN_FILE", "a")],
            &mutual,
        ] {
            assert!(config(accepted).is_ok(), "{accepted:?}");
        }
    }
}
