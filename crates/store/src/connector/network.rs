//! How connections are opened: trusted certificate authorities and proxies. Read once per process, shared by all
//! shards.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use futures_rustls::rustls::{self, ClientConfig, RootCertStore};
use http::HeaderValue;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;

use super::origin::StoreOrigin;
use crate::limits;

/// Trusted authorities and proxies. Cheap to clone.
#[derive(Clone)]
pub(crate) struct NetworkSettings {
    pub(super) tls: Arc<ClientConfig>,
    /// `None`: direct connections only.
    proxies: Option<Arc<Matcher>>,
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

/// A proxy cannot be used. The value of the variable may contain a password and is not repeated.
#[derive(Debug, Error)]
#[error("{variable}: {why}; want http://host:port, or unset {variable} for this process")]
pub struct ProxyError {
    pub variable: &'static str,
    pub why: String,
}

/// Spellings of each variable, as curl and the AWS SDKs have them.
const PROXY_VARIABLES: [(&str, &str); 3] =
    [("HTTPS_PROXY", "https_proxy"), ("HTTP_PROXY", "http_proxy"), ("ALL_PROXY", "all_proxy")];

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
        Ok(Self { tls, proxies: Some(Arc::new(proxies(variable)?)) })
    }

    /// The proxy for connections to `origin`; none for this machine and its metadata service.
    pub(super) fn proxy(&self, origin: &StoreOrigin) -> Option<Proxy> {
        if is_local(&origin.host) {
            return None;
        }
        let intercept = self.proxies.as_ref()?.intercept(&origin.url()?)?;
        Proxy::of(&intercept)
    }

    /// The proxy for connections to a URL, for messages.
    pub(crate) fn proxy_for(&self, url: &str) -> Option<String> {
        let origin = StoreOrigin::of(&url.parse().ok()?).ok()?;
        let proxy = self.proxy(&origin)?;
        Some(format!("{}:{}", proxy.host, proxy.port))
    }
}

fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok()?;
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

/// # Errors
/// A variable that names no proxy of a kind that is supported.
fn proxies(get: impl Fn(&str) -> Option<String>) -> Result<Matcher, ProxyError> {
    let either = |(upper, lower)| get(upper).or_else(|| get(lower)).unwrap_or_default();
    let values = PROXY_VARIABLES.map(either);
    for ((name, _), value) in PROXY_VARIABLES.iter().zip(&values) {
        check_proxy(name, value)?;
    }
    let [https, http, all] = values;
    let no_proxy = either(("NO_PROXY", "no_proxy"));
    // `*.example.com` and `example.com:443` are common spellings that the matcher does not know.
    let no_proxy: Vec<&str> = no_proxy.split(',').map(str::trim).map(plain_entry).collect();
    let no_proxy = no_proxy.join(",");
    Ok(Matcher::builder().https(https).http(http).all(all).no(no_proxy).build())
}

fn plain_entry(entry: &str) -> &str {
    let entry = entry.strip_prefix("*.").unwrap_or(entry);
    match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && port.parse::<u16>().is_ok() => host,
        _ => entry,
    }
}

fn check_proxy(variable: &'static str, value: &str) -> Result<(), ProxyError> {
    if value.is_empty() {
        return Ok(());
    }
    let fail = |why: String| ProxyError { variable, why };
    let probe = Matcher::builder().all(value).build();
    let found = probe.intercept(&http::Uri::from_static("http://store.example"));
    let found = found.ok_or_else(|| fail("its value is no URL".to_owned()))?;
    match found.uri().scheme_str() {
        Some("http") => Ok(()),
        other => {
            Err(fail(format!("proxies of the kind {}:// are not supported", other.unwrap_or(""))))
        }
    }
}

/// Whether only this machine can reach the address: loopback, and the link-local addresses of metadata and credentials.
fn is_local(host: &str) -> bool {
    use std::net::IpAddr;
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_link_local(),
        // fd00:ec2::/32 are the metadata and Pod Identity addresses.
        Ok(IpAddr::V6(ip)) => {
            ip.is_loopback() || ip.is_unicast_link_local() || ip.segments()[..2] == [0xfd00, 0x0ec2]
        }
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

/// An HTTP proxy.
#[derive(Clone, Debug)]
pub(super) struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
    authorization: Option<HeaderValue>,
}

impl Proxy {
    fn of(intercept: &Intercept) -> Option<Self> {
        let uri = intercept.uri();
        Some(Self {
            host: uri.host()?.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(80),
            authorization: intercept.basic_auth().cloned(),
        })
    }

    /// Asks the proxy for a tunnel to `origin`; from then on the stream is a connection to it.
    pub(super) async fn tunnel(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        origin: &StoreOrigin,
    ) -> std::io::Result<()> {
        let authority = origin.authority();
        let mut request =
            format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n").into_bytes();
        if let Some(authorization) = &self.authorization {
            request.extend_from_slice(b"proxy-authorization: ");
            request.extend_from_slice(authorization.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        stream.write_all(&request).await?;
        stream.flush().await?;
        // The peer behind the tunnel never speaks first, so nothing follows the head of the answer.
        let mut answer = Vec::new();
        let mut chunk = [0; 1024];
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            let count = stream.read(&mut chunk).await?;
            answer.extend_from_slice(&chunk[..count]);
            if count == 0 || answer.len() > limits::PROXY_ANSWER_BYTES_MAX {
                return Err(std::io::Error::other("the proxy gave no answer to CONNECT"));
            }
        }
        let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line).into_owned();
        match line.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok()) {
            Some(200..=299) => Ok(()),
            Some(407) => Err(std::io::Error::other(
                "the proxy wants credentials (407): write them into the URL, http://user:password@host:port",
            )),
            _ => Err(std::io::Error::other(format!("the proxy answered CONNECT with {line:?}"))),
        }
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

    /// The proxy for `url`, with these variables.
    fn proxy(url: &str, variables: &[(&str, &str)]) -> Option<String> {
        let get = |name: &str| {
            let found = variables.iter().find(|(given, _)| *given == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let network = NetworkSettings {
            tls: client_config(None, None).unwrap(),
            proxies: Some(Arc::new(proxies(get).unwrap())),
        };
        network.proxy_for(url)
    }

    const DYNAMODB: &str = "https://dynamodb.eu-west-1.amazonaws.com";

    #[test]
    fn proxy_follows_the_scheme_and_either_spelling() {
        let found = Some("proxy:3128".to_owned());
        for (name, value) in [
            ("HTTPS_PROXY", "http://proxy:3128"),
            ("https_proxy", "proxy:3128"),
            ("ALL_PROXY", "http://user:secret@proxy:3128/"),
        ] {
            assert_eq!(proxy(DYNAMODB, &[(name, value)]), found, "{name}");
        }
        assert_eq!(proxy(DYNAMODB, &[("HTTP_PROXY", "http://proxy:3128")]), None);
        assert_eq!(proxy("http://store:8000", &[("HTTP_PROXY", "http://proxy:3128")]), found);
        assert_eq!(proxy(DYNAMODB, &[("HTTPS_PROXY", "")]), None);
    }

    #[test]
    fn no_proxy_excludes_domains_networks_and_everything() {
        for no_proxy in [
            ".amazonaws.com",
            "amazonaws.com",
            "*.amazonaws.com",
            "*",
            "x, dynamodb.eu-west-1.amazonaws.com",
            "dynamodb.eu-west-1.amazonaws.com:443",
        ] {
            let variables = [("HTTPS_PROXY", "http://proxy:3128"), ("NO_PROXY", no_proxy)];
            assert_eq!(proxy(DYNAMODB, &variables), None, "{no_proxy}");
        }
        let other = [("HTTPS_PROXY", "http://proxy:3128"), ("no_proxy", "example.com,10.0.0.0/8")];
        assert!(proxy(DYNAMODB, &other).is_some());
        assert!(proxy("https://10.1.2.3:8000", &other).is_none());
    }

    #[test]
    fn this_machine_and_its_metadata_need_no_proxy() {
        let all = [("ALL_PROXY", "http://proxy:3128")];
        for url in [
            "http://localhost:8000",
            "http://127.0.0.1:8000",
            "http://[::1]:8000",
            "http://169.254.169.254",
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials",
        ] {
            assert_eq!(proxy(url, &all), None, "{url}");
        }
    }

    #[test]
    fn proxy_of_another_kind_is_refused_without_its_password() {
        let get =
            |name: &str| (name == "HTTPS_PROXY").then(|| "socks5://u:secret@proxy:1080".to_owned());
        let error = proxies(get).unwrap_err().to_string();
        assert!(error.contains("HTTPS_PROXY") && error.contains("socks5"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }

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
