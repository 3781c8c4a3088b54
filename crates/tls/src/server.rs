//! TLS of a port, loaded from files. A certificate is used only if its key and the authorities can be used, too.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;

use crate::files::{self, FileSetting, PairBytes, TlsFileError};
use crate::names::NamePattern;
use crate::{ALPN_H2, provider, verifier};

/// The files of a port's TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// The certificate of the server, then intermediate authorities.
    pub certificate: FileSetting,
    pub key: FileSetting,
    /// Authorities of client certificates; `None`: clients need no certificate.
    pub client_authorities: Option<FileSetting>,
    /// Clients that may connect, by names in their certificates; empty: all with a valid certificate.
    pub allowed_clients: Vec<NamePattern>,
}

/// The contents of the files of a port.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerFileContents {
    pair: PairBytes,
    client_authorities: Option<Vec<u8>>,
}

#[cfg(any(test, fuzzing))]
impl ServerFileContents {
    /// As if the files had these contents.
    pub(crate) fn of(certificate: &[u8], key: &[u8], client_authorities: &[u8]) -> Self {
        let pair = PairBytes { certificate: certificate.to_vec(), key: key.to_vec() };
        Self { pair, client_authorities: Some(client_authorities.to_vec()) }
    }
}

/// TLS of a port.
#[derive(Clone, Debug)]
pub struct ServerTls {
    pub config: Arc<ServerConfig>,
    /// End of the validity of the first certificate of the chain to expire, in seconds since 1970.
    pub not_after: u64,
}

impl ServerFiles {
    /// Reads the files, without looking at what is in them.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(&self) -> Result<ServerFileContents, TlsFileError> {
        let client_authorities = self.client_authorities.as_ref().map(files::read_authorities);
        Ok(ServerFileContents {
            pair: PairBytes::read(&self.certificate, &self.key)?,
            client_authorities: client_authorities.transpose()?,
        })
    }

    /// Makes the configuration of the port.
    ///
    /// # Errors
    /// Contents that cannot be used, also a certificate that is not valid now.
    pub fn load(&self, contents: &ServerFileContents) -> Result<ServerTls, TlsFileError> {
        let chain = files::chain(&self.certificate, &contents.pair.certificate)?;
        let key = files::private_key(&self.key, &contents.pair.key)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
        let validity = files::usable_now(&self.certificate, &chain, now)?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|why| self.certificate.error(why.to_string(), ""))?;
        let builder = match (&self.client_authorities, &contents.client_authorities) {
            (Some(file), Some(pem)) => {
                let authorities = files::authorities(file, pem)?;
                let allowed = self.allowed_clients.clone();
                let verifier = verifier::client_verifier(authorities, allowed)
                    .map_err(|why| file.error(why.to_string(), "want certificate authorities"))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config =
            builder.with_single_cert(chain, key).map_err(|why| files::mismatch(&self.key, &why))?;
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        // No resumption: a resumed session would bypass the check of a client certificate that has expired since. gRPC
        // connections live for minutes, so that full handshakes are rare.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(ServerTls { config: Arc::new(config), not_after: validity.not_after })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;
    use inventory_testkit::certificates::{
        Authority, CertificateFiles, CertificateSpec, CertificateUsage,
    };

    fn files(of: &CertificateFiles, authorities: Option<PathBuf>) -> ServerFiles {
        let file = |setting, path: &Path| FileSetting { setting, path: path.to_owned() };
        ServerFiles {
            certificate: file("TLS_CERT_FILE", &of.certificate),
            key: file("TLS_KEY_FILE", &of.key),
            client_authorities: authorities.map(|path| file("TLS_CLIENT_CA_FILE", &path)),
            allowed_clients: Vec::new(),
        }
    }

    #[track_caller]
    fn refused(files: &ServerFiles, needles: &[&str]) {
        let error = files.read().and_then(|contents| files.load(&contents)).unwrap_err();
        for needle in needles {
            assert!(error.to_string().contains(needle), "no {needle:?} in: {error}");
        }
    }

    #[test]
    fn usable_files_are_loaded_with_their_expiry() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("ca");
        let pair = authority.issue_server().write(dir.path(), "server");
        let files = files(&pair, Some(authority.write(dir.path(), "ca.crt")));
        let tls = files.load(&files.read().unwrap()).unwrap();
        // 4000-01-01.
        assert_eq!(tls.not_after, 64_060_588_800);
    }

    #[test]
    fn each_unusable_file_is_named_with_its_setting() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("ca");
        let pair = authority.issue_server().write(dir.path(), "server");
        let other = authority.issue_server().write(dir.path(), "other");
        let missing = dir.path().join("missing.pem");
        let empty = dir.path().join("empty.pem");
        fs::write(&empty, "").unwrap();

        let with = |certificate: &Path, key: &Path| {
            let pair = CertificateFiles { certificate: certificate.into(), key: key.into() };
            files(&pair, None)
        };
        let (certificate, key) = (&pair.certificate, &pair.key);
        refused(&with(&missing, key), &["TLS_CERT_FILE", "missing.pem", "No such file"]);
        refused(&with(certificate, &missing), &["TLS_KEY_FILE", "missing.pem", "No such file"]);
        refused(&with(&empty, key), &["TLS_CERT_FILE", "has no certificate", "want a PEM"]);
        refused(&with(dir.path(), key), &["TLS_CERT_FILE", "no regular file"]);
        refused(&with(certificate, certificate), &["TLS_KEY_FILE", "no unencrypted private key"]);
        refused(
            &with(certificate, &other.key),
            &["TLS_KEY_FILE", "not the key of the certificate"],
        );
        refused(&files(&pair, Some(empty)), &["TLS_CLIENT_CA_FILE", "has no certificate"]);
        refused(&files(&pair, Some(missing)), &["TLS_CLIENT_CA_FILE", "No such file"]);
    }

    #[test]
    fn certificates_that_are_not_valid_now_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("ca");
        for (years, needle) in [((2000, 2001), "expired"), ((3000, 3001), "not valid for another")]
        {
            let usage = CertificateUsage::Server;
            let issued = authority.issue(CertificateSpec { names: &["localhost"], years, usage });
            let pair = issued.write(dir.path(), needle);
            refused(&files(&pair, None), &["TLS_CERT_FILE", needle, "valid now"]);
        }
    }
}
