//! The HTTP proxies that the environment names: which one there is for a URL, and a tunnel through it.
//!
//! Not here: connections. The caller opens them, on any runtime.

use std::fmt;
use std::sync::Arc;

use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use thiserror::Error;

use crate::limits;

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

/// The proxies of the environment. Cheap to clone.
#[derive(Clone)]
pub struct Proxies(Arc<Matcher>);

impl Proxies {
    /// # Errors
    /// A variable that names no proxy of a kind that is supported.
    pub fn from_environment() -> Result<Self, ProxyError> {
        Self::read(variable)
    }

    /// As [`Proxies::from_environment`], with the values that `get` returns for the names of variables.
    ///
    /// # Errors
    /// A variable that names no proxy of a kind that is supported.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, ProxyError> {
        let either = |(upper, lower)| get(upper).or_else(|| get(lower)).unwrap_or_default();
        let values = PROXY_VARIABLES.map(either);
        for ((name, _), value) in PROXY_VARIABLES.iter().zip(&values) {
            check_proxy(name, value)?;
        }
        let [https, http, all] = values;
        let no_proxy = either(("NO_PROXY", "no_proxy"));
        // `*.example.com` and `example.com:443` are common spellings that the matcher does not know.
        let no_proxy: Vec<&str> = no_proxy.split(',').map(str::trim).map(plain_entry).collect();
        let matcher = Matcher::builder().https(https).http(http).all(all).no(no_proxy.join(","));
        Ok(Self(Arc::new(matcher.build())))
    }

    /// The proxy for connections to a URL with scheme and host; none for this machine and its metadata service.
    pub fn for_url(&self, url: &Uri) -> Option<Proxy> {
        if is_local(url.host()?.trim_matches(['[', ']'])) {
            return None;
        }
        Proxy::of(&self.0.intercept(url)?)
    }
}

fn plain_entry(entry: &str) -> &str {
    let entry = entry.strip_prefix("*.").unwrap_or(entry);
    match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && port.parse::<u16>().is_ok() => host,
        _ => entry,
    }
}

/// A variable of the environment, without surrounding blanks; `None` if it is not set or empty.
pub(super) fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok()?;
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

fn check_proxy(variable: &'static str, value: &str) -> Result<(), ProxyError> {
    if value.is_empty() {
        return Ok(());
    }
    let fail = |why: String| ProxyError { variable, why };
    let probe = Matcher::builder().all(value).build();
    let found = probe.intercept(&http::Uri::from_static("http://store.example"));
    let found = found.ok_or_else(|| fail("its value is no URL".to_owned()))?;
    let authority = found.uri().authority().map_or("", |authority| authority.as_str());
    // Behind the user and an IPv6 address.
    let place = authority.rsplit(['@', ']']).next().unwrap_or_default();
    if place.contains(':') && found.uri().port_u16().is_none() {
        return Err(fail("its port is no number from 1 to 65535".to_owned()));
    }
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
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    pub host: String,
    pub port: u16,
    authorization: Option<HeaderValue>,
}

/// Without the credentials.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Proxy").field(&self.host).field(&self.port).finish()
    }
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

    /// Asks the proxy for a tunnel to `authority`, a host with its port; from then on the stream is a connection to it.
    ///
    /// # Errors
    /// The proxy refuses, or does not answer as HTTP proxies do.
    pub async fn tunnel(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        authority: &str,
    ) -> std::io::Result<()> {
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
        let proxy = Proxies::read(get).unwrap().for_url(&url.parse().unwrap())?;
        Some(format!("{}:{}", proxy.host, proxy.port))
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
    fn proxy_with_a_port_that_is_no_number_is_refused() {
        for value in ["proxy:abc", "http://proxy:99999", "http://user:secret@[::1]:x"] {
            let error = Proxies::read(|name| (name == "ALL_PROXY").then(|| value.to_owned()));
            let error = error.err().unwrap().to_string();
            assert!(error.contains("ALL_PROXY: its "), "{value}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        for value in ["proxy", "http://user:secret@proxy", "http://user:1:2@[::1]:3128"] {
            Proxies::read(|name| (name == "ALL_PROXY").then(|| value.to_owned())).unwrap();
        }
    }

    #[test]
    fn proxy_of_another_kind_is_refused_without_its_password() {
        let get =
            |name: &str| (name == "HTTPS_PROXY").then(|| "socks5://u:secret@proxy:1080".to_owned());
        let error = Proxies::read(get).err().unwrap().to_string();
        assert!(error.contains("HTTPS_PROXY") && error.contains("socks5"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}
