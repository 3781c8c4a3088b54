//! Certificate authorities and certificates for tests of TLS, as PEM texts and as files.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

/// A certificate authority of its own.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What a certificate says.
#[derive(Clone, Copy)]
pub struct CertificateSpec<'a> {
    /// Names and addresses; a text with `://` is a URI.
    pub names: &'a [&'a str],
    /// Valid from the first of January of the one year to that of the other.
    pub years: (i32, i32),
    pub usage: CertificateUsage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum CertificateUsage {
    Server,
    Client,
}

/// A certificate and its key.
pub struct IssuedCertificate {
    pub certificate_pem: String,
    pub key_pem: String,
    pub der: Vec<u8>,
}

/// The files of a certificate and its key.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn issue(&self, spec: CertificateSpec<'_>) -> IssuedCertificate {
        let (uris, names): (Vec<&str>, Vec<&str>) =
            spec.names.iter().partition(|name| name.contains("://"));
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(names).unwrap();
        let uris = uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap()));
        params.subject_alt_names.extend(uris);
        params.not_before = date_time_ymd(spec.years.0, 1, 1);
        params.not_after = date_time_ymd(spec.years.1, 1, 1);
        params.extended_key_usages = vec![match spec.usage {
            CertificateUsage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            CertificateUsage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        IssuedCertificate {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            der: certificate.der().to_vec(),
        }
    }

    /// A certificate of a server on this machine.
    pub fn issue_server(&self) -> IssuedCertificate {
        self.issue(CertificateSpec {
            names: &["localhost", "127.0.0.1"],
            years: (2020, 4000),
            usage: CertificateUsage::Server,
        })
    }

    /// A certificate of a client with one name.
    pub fn issue_client(&self, name: &str) -> IssuedCertificate {
        self.issue(CertificateSpec {
            names: &[name],
            years: (2020, 4000),
            usage: CertificateUsage::Client,
        })
    }

    /// Writes the certificate of the authority to `directory`.
    pub fn write(&self, directory: &Path, name: &str) -> PathBuf {
        let path = directory.join(name);
        fs::write(&path, self.pem()).unwrap();
        path
    }
}

impl IssuedCertificate {
    /// Writes `NAME.crt` and `NAME.key` to `directory`.
    pub fn write(&self, directory: &Path, name: &str) -> CertificateFiles {
        let files = CertificateFiles {
            certificate: directory.join(format!("{name}.crt")),
            key: directory.join(format!("{name}.key")),
        };
        fs::write(&files.certificate, &self.certificate_pem).unwrap();
        fs::write(&files.key, &self.key_pem).unwrap();
        files
    }
}
