//! Fuzz target of certificates, keys, lists of authorities, names and patterns. Compiled for tests, which replay the corpus,
//! and for the programs in `tests/fuzz`.
//!
//! Not here: handshakes and the verification of chains, which are those of rustls.

use std::path::PathBuf;

use rustls_pki_types::CertificateDer;

use crate::files::{self, FileSetting};
use crate::names::{
    NAMES_MAX, NamePattern, PATTERN_BYTES_MAX, PATTERNS_MAX, PeerNames, parse_patterns,
};
use crate::server::{ServerFileContents, ServerFiles};
use crate::validity::Validity;

/// Latest end of a certificate: 9999-12-31T23:59:59Z, with a leap second.
const NOT_AFTER_MAX: u64 = 253_402_300_800;

/// A line of a key file has 64 characters; a message that has this many of them shows a part of the key.
const KEY_PART_BYTES: usize = 24;

/// Separates the files of one input, and a pattern from a name.
const SEPARATOR: u8 = 0;

/// One byte for the format, and the rest is a certificate in DER, or the PEM files of a port, or a pattern and a name.
pub fn certificates(input: &[u8]) {
    let Some((format, rest)) = input.split_first() else {
        return;
    };
    match format % 3 {
        0 => certificate(rest),
        1 => port_files(rest),
        _ => patterns(&String::from_utf8_lossy(rest)),
    }
}

/// The period of a certificate is within the calendar; its names are few, and each is a name that a pattern can allow.
fn certificate(der: &[u8]) {
    if let Some(validity) = Validity::of(der) {
        assert!(validity.not_before <= NOT_AFTER_MAX, "{validity:?}");
        assert!(validity.not_after <= NOT_AFTER_MAX, "{validity:?}");
    }
    let names = PeerNames::of(&CertificateDer::from(der));
    assert!(names.iter().count() <= NAMES_MAX, "{names}");
    for name in names.iter() {
        let is_uri = name.contains("://");
        assert!(is_uri || !name.contains('*'), "a wildcard as the name of a client: {name}");
        if let Ok(pattern) = NamePattern::parse(name)
            && !name.contains('*')
        {
            assert!(pattern.allows(name), "{pattern} does not allow itself");
        }
    }
}

/// Files that cannot be used give an error with the setting and without a part of the key.
fn port_files(input: &[u8]) {
    let mut parts = input.split(|byte| *byte == SEPARATOR);
    let [certificate, key, authorities] = [(); 3].map(|()| parts.next().unwrap_or_default());
    let file = |setting| FileSetting { setting, path: PathBuf::from("file.pem") };
    let server = ServerFiles {
        certificate: file("TLS_CERT_FILE"),
        key: file("TLS_KEY_FILE"),
        client_authorities: Some(file("TLS_CLIENT_CA_FILE")),
        allowed_clients: Vec::new(),
    };
    let contents = ServerFileContents::of(certificate, key, authorities);
    let settings = ["TLS_CERT_FILE=", "TLS_KEY_FILE=", "TLS_CLIENT_CA_FILE="];
    match server.load(&contents) {
        Ok(tls) => assert!(tls.not_after <= NOT_AFTER_MAX, "{}", tls.not_after),
        Err(error) => {
            let text = error.to_string();
            assert!(settings.iter().any(|setting| text.starts_with(setting)), "{text}");
            assert!(text.contains("; want "), "{text}");
            let leak = key.windows(KEY_PART_BYTES).find(|part| {
                let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
                part.iter().all(is_base64)
                    && text.as_bytes().windows(KEY_PART_BYTES).any(|shown| shown == *part)
            });
            assert_eq!(leak, None, "a part of the key is in: {text}");
        }
    }
    // Each file alone, because the first one that is wrong ends the load.
    let _ = files::private_key(&server.key, key);
    let _ = files::authorities(&server.certificate, authorities);
}

/// Patterns are few and short, and allow what a plain search for all ways to match allows.
fn patterns(text: &str) {
    let (list, name) = text.split_once('\0').unwrap_or((text, text));
    let Ok(patterns) = parse_patterns(list) else {
        return;
    };
    assert!(patterns.len() <= PATTERNS_MAX, "{} patterns", patterns.len());
    for pattern in patterns {
        let written = pattern.to_string();
        assert!(written.len() <= PATTERN_BYTES_MAX, "{} bytes", written.len());
        assert_eq!(NamePattern::parse(&written).as_ref(), Ok(&pattern), "{written}");
        let is_uri = written.contains("://");
        let lower_case = name.to_ascii_lowercase();
        let (compared, separator) = if is_uri { (name, b'/') } else { (&*lower_case, b'.') };
        let expected = is_uri == name.contains("://")
            && allows_somehow(written.as_bytes(), compared.as_bytes(), separator);
        assert_eq!(pattern.allows(name), expected, "{written} {name}");
        assert!(pattern.allows(&written.replace('*', "a")), "{written} allows no name");
    }
}

/// All ways to match: the lengths of `name` that the pattern so far can end at.
fn allows_somehow(pattern: &[u8], name: &[u8], separator: u8) -> bool {
    let mut ends = vec![false; name.len() + 1];
    ends[0] = true;
    for byte in pattern {
        let mut next = vec![false; name.len() + 1];
        for at in 0..name.len() {
            let goes_on = match byte {
                b'*' => (ends[at] || next[at]) && name[at] != separator,
                byte => ends[at] && name[at] == *byte,
            };
            next[at + 1] |= goes_on;
        }
        ends = next;
    }
    ends[name.len()]
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpus_of_certificates_is_read_or_refused_without_showing_keys() {
        inventory_testkit::corpus::replay("certificates", super::certificates);
    }
}
