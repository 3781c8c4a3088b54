//! Names in client certificates (subject alternative names), and patterns that allow some of them.

use std::fmt;

use rustls_pki_types::CertificateDer;

/// Longest pattern, in bytes: longer than any DNS name, and than the SPIFFE ids in use.
pub const PATTERN_BYTES_MAX: usize = 512;

/// Most patterns of one list; each new connection is compared with all of them.
pub const PATTERNS_MAX: usize = 64;

/// Names of one certificate that are compared or shown; further ones are ignored.
pub(crate) const NAMES_MAX: usize = 64;

/// The DNS names and URIs of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerNames(Vec<String>);

impl PeerNames {
    /// The names of a certificate; none if it has none or cannot be parsed.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let Ok(parsed) = webpki::EndEntityCert::try_from(certificate) else {
            return Self::default();
        };
        // A URI without a scheme could be taken for a DNS name.
        let uris = parsed.valid_uri_names().filter(|uri| uri.contains("://"));
        // A wildcard names no client.
        let names = parsed.valid_dns_names().filter(|name| !name.contains('*'));
        Self(uris.chain(names).take(NAMES_MAX).map(str::to_owned).collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl fmt::Display for PeerNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.is_empty() {
            true => f.write_str("a certificate without DNS names and URIs"),
            false => f.write_str(&self.0.join(", ")),
        }
    }
}

/// A DNS name or a URI in which each `*` stands for one or more characters of one label of the name, or of one segment
/// of the URI's path. The scheme and the authority of a URI have no `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(String);

impl NamePattern {
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(format!("has a pattern of {} bytes", text.len()));
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            let authority = rest.split('/').next().unwrap_or_default();
            if scheme.is_empty()
                || authority.is_empty()
                || format!("{scheme}{authority}").contains('*')
            {
                return Err(format!(
                    "has the URI {text:?}, whose scheme and host must be written out"
                ));
            }
            let bad = text.chars().find(|c| !c.is_ascii_graphic());
            return match bad {
                Some(bad) => Err(format!("has {bad:?} in the URI {text:?}")),
                None => Ok(Self(text.to_owned())),
            };
        }
        let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*');
        if let Some(bad) = text.chars().find(|c| !is_legal(*c)) {
            return Err(format!("has {bad:?} in the name {text:?}"));
        }
        if text.split('.').any(str::is_empty) {
            return Err(format!("has an empty label in the name {text:?}"));
        }
        // A pattern of stars only would allow every name of the authority, which no pattern does too.
        if !text.chars().any(|c| c.is_ascii_alphanumeric()) {
            return Err(format!("has the name {text:?}, which allows every name"));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// Whether the pattern allows `name`: a URI as it is written, a DNS name in any case.
    pub fn allows(&self, name: &str) -> bool {
        let is_uri = self.0.contains("://");
        if is_uri != name.contains("://") {
            return false;
        }
        match is_uri {
            true => matches(self.0.as_bytes(), name.as_bytes(), b'/'),
            false => matches(self.0.as_bytes(), name.to_ascii_lowercase().as_bytes(), b'.'),
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `*` matches one or more bytes that are not `separator`. Goes back to the last `*` only: O(pattern × name).
fn matches(pattern: &[u8], name: &[u8], separator: u8) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where the pattern goes on after the last star, and the end of what that star has matched.
    let mut star: Option<(usize, usize)> = None;
    loop {
        match pattern.get(p) {
            Some(b'*') if name.get(n).is_some_and(|byte| *byte != separator) => {
                star = Some((p + 1, n + 1));
                (p, n) = (p + 1, n + 1);
                continue;
            }
            Some(byte) if *byte != b'*' && name.get(n) == Some(byte) => {
                (p, n) = (p + 1, n + 1);
                continue;
            }
            None if n == name.len() => return true,
            _ => {}
        }
        match star {
            Some((after, end)) if name.get(end).is_some_and(|byte| *byte != separator) => {
                star = Some((after, end + 1));
                (p, n) = (after, end + 1);
            }
            _ => return false,
        }
    }
}

/// Parses a list of patterns, separated by commas.
///
/// # Errors
/// What is wrong with the first invalid one.
pub fn parse_patterns(text: &str) -> Result<Vec<NamePattern>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let patterns: Vec<NamePattern> = parts.map(NamePattern::parse).collect::<Result<_, _>>()?;
    match patterns.len() {
        count if count > PATTERNS_MAX => Err(format!("has {count} patterns")),
        _ => Ok(patterns),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use inventory_testkit::certificates::{Authority, CertificateSpec, CertificateUsage};

    fn allows(pattern: &str, name: &str) -> bool {
        NamePattern::parse(pattern).unwrap().allows(name)
    }

    #[test]
    fn stars_match_within_one_label_or_segment() {
        for (pattern, name, expected) in [
            ("api.sale.svc", "api.sale.svc", true),
            ("API.sale.svc", "api.SALE.svc", true),
            ("api.sale.svc", "api.sale.svc.evil", false),
            ("api.sale.svc", "xapi.sale.svc", false),
            ("*.sale.svc", "api.sale.svc", true),
            ("*.sale.svc", "a.b.sale.svc", false),
            ("*.sale.svc", ".sale.svc", false),
            ("api-*.sale.svc", "api-7.sale.svc", true),
            ("api-*.sale.svc", "api-.sale.svc", false),
            ("a*b*c.x", "aXbYbZc.x", true),
            ("a*b*c.x", "aXbc.x", false),
            ("*.x.*", "a.x.b", true),
            ("spiffe://c.local/ns/sale/sa/*", "spiffe://c.local/ns/sale/sa/api", true),
            ("spiffe://c.local/ns/sale/sa/*", "spiffe://c.local/ns/sale/sa/api/x", false),
            ("spiffe://c.local/ns/sale/sa/*", "spiffe://c.local/ns/other/sa/api", false),
            ("spiffe://c.local/NS/a", "spiffe://c.local/ns/a", false),
            ("c.local", "spiffe://c.local", false),
        ] {
            assert_eq!(allows(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn patterns_that_allow_too_much_or_nothing_are_refused() {
        for wrong in ["*", "*.*", "a..b", ".a", "a b", "spiffe://*/x", "://x", "a/b", "a,*"] {
            assert!(parse_patterns(wrong).is_err(), "{wrong}");
        }
        let many = vec!["a"; PATTERNS_MAX + 1].join(",");
        assert!(parse_patterns(&many).unwrap_err().contains("65 patterns"));
        assert!(parse_patterns(&"a".repeat(PATTERN_BYTES_MAX + 1)).is_err());
        assert_eq!(parse_patterns(" a , b,, ").unwrap().len(), 2);
    }

    #[test]
    fn names_are_the_dns_names_and_uris_of_the_certificate() {
        let names = ["b.test", "*.wild.test", "spiffe://c.local/ns/a", "10.0.0.1"];
        let usage = CertificateUsage::Client;
        let spec = CertificateSpec { names: &names, years: (2020, 4000), usage };
        let made = Authority::new("ca").issue(spec);
        let names = PeerNames::of(&CertificateDer::from(made.der));
        assert_eq!(names.to_string(), "spiffe://c.local/ns/a, b.test");
        assert_eq!(PeerNames::of(&CertificateDer::from(vec![1, 2])), PeerNames::default());
    }
}
