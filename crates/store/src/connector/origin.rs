//! Where a connection goes: scheme, host and port of a URL.

/// Scheme, host and port of a request: connections are shared by requests to the same origin only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoreOrigin {
    pub(super) https: bool,
    /// A name, or an address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl StoreOrigin {
    /// # Errors
    /// A text with the problem of the URL.
    pub(super) fn of(uri: &http::Uri) -> Result<Self, String> {
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(format!("{uri} is no http:// or https:// URL")),
        };
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| format!("{uri} names no host"))?;
        Ok(Self {
            https,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if https { 443 } else { 80 }),
        })
    }

    /// `host:port`, with brackets around an IPv6 address.
    pub(super) fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    pub(super) fn url(&self) -> Option<http::Uri> {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}/", self.authority()).parse().ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn origin(uri: &str) -> Result<StoreOrigin, String> {
        StoreOrigin::of(&uri.parse().unwrap())
    }

    #[test]
    fn origin_has_the_default_port_of_its_scheme() {
        let aws = origin("https://dynamodb.ap-northeast-2.amazonaws.com/").unwrap();
        assert_eq!((aws.https, aws.port), (true, 443));
        let local = origin("http://127.0.0.1:8000/").unwrap();
        assert_eq!((local.https, local.port), (false, 8000));
        assert_eq!(origin("http://[::1]/").unwrap().host, "::1");
    }

    #[test]
    fn a_url_without_a_usable_scheme_is_named() {
        assert!(origin("ftp://somewhere/").unwrap_err().contains("ftp://"));
        assert!(origin("/path").unwrap_err().contains("http://"));
    }
}
