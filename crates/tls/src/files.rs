//! Reads PEM files. Each error names the setting, the file, what is wrong with it and what would be right.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

use crate::validity::Validity;

/// Largest PEM file, in bytes: a bundle of all public authorities is a quarter of it.
pub(crate) const PEM_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A file and the setting that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSetting {
    /// Name of the variable or option.
    pub setting: &'static str,
    pub path: PathBuf,
}

/// A file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{setting}={path}: {problem}; {fix}", path = path.display())]
pub struct TlsFileError {
    pub setting: &'static str,
    pub path: PathBuf,
    pub problem: String,
    /// What would be right.
    pub fix: &'static str,
}

const CHAIN_WANTED: &str =
    "want a PEM file with the certificate first, then the intermediate authorities";
const KEY_WANTED: &str =
    "want a PEM file with the unencrypted private key of the certificate (PKCS#8, PKCS#1 or SEC1)";
const CA_WANTED: &str = "want a PEM file with at least one certificate authority";

impl FileSetting {
    pub(crate) fn error(&self, problem: impl Into<String>, fix: &'static str) -> TlsFileError {
        TlsFileError {
            setting: self.setting,
            path: self.path.clone(),
            problem: problem.into(),
            fix,
        }
    }

    /// The content of the file.
    pub(crate) fn read(&self, fix: &'static str) -> Result<Vec<u8>, TlsFileError> {
        read_bounded(&self.path).map_err(|problem| self.error(problem, fix))
    }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let file = fs::File::open(path).map_err(cannot)?;
    if !file.metadata().map_err(cannot)?.is_file() {
        return Err("is no regular file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(PEM_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > PEM_FILE_BYTES_MAX {
        return Err(format!("is larger than {PEM_FILE_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}

/// The contents of a certificate file and its key file.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PairBytes {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

impl PairBytes {
    pub(crate) fn read(certificate: &FileSetting, key: &FileSetting) -> Result<Self, TlsFileError> {
        Ok(Self { certificate: certificate.read(CHAIN_WANTED)?, key: key.read(KEY_WANTED)? })
    }
}

/// The certificates of a chain, the certificate of the server or client first.
pub(crate) fn chain(
    file: &FileSetting,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let chain = certificates(pem).map_err(|why| file.error(why, CHAIN_WANTED))?;
    match chain.is_empty() {
        false => Ok(chain),
        true => Err(file.error("has no certificate", CHAIN_WANTED)),
    }
}

pub(crate) fn private_key(
    file: &FileSetting,
    pem: &[u8],
) -> Result<PrivateKeyDer<'static>, TlsFileError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|why| {
        let problem = match why {
            rustls_pki_types::pem::Error::NoItemsFound => {
                "has no unencrypted private key".to_owned()
            }
            // The parser's texts may repeat a line of the file.
            _ => "is no valid PEM".to_owned(),
        };
        file.error(problem, KEY_WANTED)
    })
}

pub(crate) fn authorities(file: &FileSetting, pem: &[u8]) -> Result<RootCertStore, TlsFileError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem).map_err(|why| file.error(why, CA_WANTED))? {
        let added = store.add(certificate);
        added.map_err(|why| file.error(format!("has an unusable authority: {why}"), CA_WANTED))?;
    }
    match store.is_empty() {
        false => Ok(store),
        true => Err(file.error("has no certificate", CA_WANTED)),
    }
}

pub(crate) fn read_authorities(file: &FileSetting) -> Result<Vec<u8>, TlsFileError> {
    file.read(CA_WANTED)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| "is no valid PEM".to_owned())
}

/// The period in which every certificate of `chain` is valid, which must include `now` (seconds since 1970).
pub(crate) fn usable_now(
    file: &FileSetting,
    chain: &[CertificateDer<'_>],
    now: u64,
) -> Result<Validity, TlsFileError> {
    let mut whole = Validity { not_before: 0, not_after: u64::MAX };
    for certificate in chain {
        let Some(one) = Validity::of(certificate) else {
            return Err(file.error("has a certificate that cannot be parsed", CHAIN_WANTED));
        };
        whole.not_before = whole.not_before.max(one.not_before);
        whole.not_after = whole.not_after.min(one.not_after);
    }
    if now > whole.not_after {
        let ago = now - whole.not_after;
        let problem = format!("has a certificate that expired {ago} s ago");
        return Err(file.error(problem, "want a certificate that is valid now"));
    }
    if now < whole.not_before {
        let ahead = whole.not_before - now;
        let problem = format!("has a certificate that is not valid for another {ahead} s");
        return Err(file.error(problem, "want a certificate that is valid now"));
    }
    Ok(whole)
}

/// Why the certificate and the key do not go together, as an error of the key.
pub(crate) fn mismatch(key: &FileSetting, why: &rustls::Error) -> TlsFileError {
    let problem = match why {
        rustls::Error::InconsistentKeys(_) => "is not the key of the certificate".to_owned(),
        other => format!("cannot be used with the certificate: {other}"),
    };
    key.error(problem, KEY_WANTED)
}
