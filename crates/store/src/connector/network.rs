//! How connections to AWS are opened: trusted certificate authorities and proxies. Read once per process, shared by all
//! shards. Not here: which proxy there is for a URL (`proxy`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_rustls::rustls::{self, ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;

use super::origin::StoreOrigin;
use super::proxy::{Proxies, Proxy, ProxyError, variable};

/// Trusted authorities and proxies. Cheap to clone.
#[derive(Clone)]
pub(crate) struct NetworkSettings {
    pub(super) tls: Arc<ClientConfig>,
    /// `None`: direct connections only.
    proxies: Option<Proxies>,
}

/// Why the AWS configuration names a network that cannot be used.
#[derive(Debug, Error)]
pub(crate) enum NetworkError {
    #[error(transparent)]
    CaBundle(#[from] CaBundleError),
    #[error(transparent)]
    Proxy(#[from] ProxyError),
}

/// The file of extra certificate authorities cannot be used.
#[derive(Debug, Error)]
#[error(
    "certificate authorities in {path} (AWS_CA_BUNDLE, or ca_bundle of the profile): {why}; want \
     a readable PEM file with at least one authority",
    path = path.display()
)]
pub struct CaBundleError {
    pub path: PathBuf,
    pub why: String,
}

impl NetworkSettings {
    /// Direct connections that trust the public authorities and those of `ca_bundle`.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub(super) fn direct(ca_bundle: Option<&Path>) -> Result<Self, CaBundleError> {
        Ok(Self { tls: client_config(ca_bundle, None)?, proxies: None })
    }

    /// From the environment. `given` wins over AWS_CA_BUNDLE, which wins over the `ca_bundle` of the profile.
    ///
    /// # Errors
    /// A bundle or a proxy that cannot be used.
    pub(crate) fn from_environment(
        given: Option<&Path>,
        of_profile: Option<&str>,
    ) -> Result<Self, NetworkError> {
        let file = |name| variable(name).map(PathBuf::from);
        let bundle = given
            .map(Path::to_owned)
            .or_else(|| file("AWS_CA_BUNDLE"))
            .or_else(|| of_profile.map(str::trim).filter(|path| !path.is_empty()).map(Into::into));
        let tls = client_config(bundle.as_deref(), file("SSL_CERT_FILE").as_deref())?;
        Ok(Self { tls, proxies: Some(Proxies::from_environment()?) })
    }

    /// The proxy for connections to `origin`.
    pub(super) fn proxy(&self, origin: &StoreOrigin) -> Option<Proxy> {
        self.proxies.as_ref()?.for_url(&origin.url()?)
    }

    /// The proxy for connections to a URL, for messages.
    pub(crate) fn proxy_for(&self, url: &str) -> Option<String> {
        let proxy = self.proxies.as_ref()?.for_url(&url.parse().ok()?)?;
        Some(format!("{}:{}", proxy.host, proxy.port))
    }
}

/// The public authorities, those of the bundle and, if the file can be read, those of `also`.
fn client_config(
    ca_bundle: Option<&Path>,
    also: Option<&Path>,
) -> Result<Arc<ClientConfig>, CaBundleError> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = ca_bundle {
        add_authorities(&mut roots, path)
            .map_err(|why| CaBundleError { path: path.to_owned(), why })?;
    }
    if let Some(path) = also
        && let Err(error) = add_authorities(&mut roots, path)
    {
        tracing::warn!(variable = "SSL_CERT_FILE", path = %path.display(), error, "setting ignored");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| CaBundleError { path: PathBuf::new(), why: error.to_string() })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Adds the certificates of a PEM file; skips those that cannot be authorities, as a system's bundle may have some.
fn add_authorities(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let (added, _) = roots.add_parsable_certificates(certificates.map_err(|e| e.to_string())?);
    if added == 0 { Err("holds no certificate authority".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_bundle_that_is_missing_or_empty_is_named() {
        let missing = client_config(Some(Path::new("/nowhere/ca.pem")), None).unwrap_err();
        assert!(missing.to_string().contains("/nowhere/ca.pem"), "{missing}");
        let empty = tempfile::NamedTempFile::new().unwrap();
        let error = client_config(Some(empty.path()), None).unwrap_err();
        assert!(error.to_string().contains("no certificate"), "{error}");
        client_config(None, Some(Path::new("/nowhere/ca.pem"))).unwrap();
    }
}
