//! Settings of TLS: which files belong together.

use std::path::PathBuf;

use inventory_tls::FileSetting;
use inventory_tls::names::NamePattern;
use inventory_tls::server::ServerFiles;

use super::env::Env;
use super::otel::FileKind;
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
}
