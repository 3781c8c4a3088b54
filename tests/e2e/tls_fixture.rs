//! A server with TLS, and clients with and without certificates.

use std::path::{Path, PathBuf};

use inventory_client::ClientTls;
use inventory_testkit::certificates::{
    Authority, CertificateFiles, CertificateSpec, CertificateUsage,
};
use inventory_testkit::server::ServerCommand;
use inventory_tls::FileSetting;
use inventory_tls::client::ClientFiles;
use inventory_tls::rustls::{ClientConnection, RootCertStore};
use rustls_pki_types::ServerName;

/// An authority, and a directory with the files of a server.
pub(crate) struct TlsFixture {
    directory: tempfile::TempDir,
    pub(crate) authority: Authority,
    server: CertificateFiles,
    authorities: PathBuf,
}

impl TlsFixture {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new("ca");
        let server = authority.issue_server().write(directory.path(), "server");
        let authorities = authority.write(directory.path(), "ca.crt");
        Self { directory, authority, server, authorities }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A server with TLS.
    pub(crate) fn command(&self) -> ServerCommand {
        ServerCommand::dev_in_memory()
            .env("TLS_CERT_FILE", self.server.certificate.to_str().unwrap())
            .env("TLS_KEY_FILE", self.server.key.to_str().unwrap())
    }

    /// A server with mutual TLS for clients with these names.
    pub(crate) fn mutual(&self, allowed: &str) -> ServerCommand {
        self.command()
            .env("TLS_CLIENT_CA_FILE", self.authorities.to_str().unwrap())
            .env("TLS_ALLOWED_CLIENTS", allowed)
    }

    pub(crate) fn trusting(&self) -> ClientTls {
        ClientTls::trusting(file(&self.authorities)).unwrap()
    }

    /// The first message of a handshake, which a server answers each time that it arrives.
    pub(crate) fn client_hello(&self) -> Vec<u8> {
        let files = ClientFiles { authorities: Some(file(&self.authorities)), pair: None };
        let config = files.load(RootCertStore::empty, &[b"h2"]).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut hello = Vec::new();
        ClientConnection::new(config, name).unwrap().write_tls(&mut hello).unwrap();
        hello
    }

    /// A client with a certificate of `authority`.
    pub(crate) fn client(&self, authority: &Authority, name: &str, years: (i32, i32)) -> ClientTls {
        let usage = CertificateUsage::Client;
        let issued = authority.issue(CertificateSpec { names: &[name], years, usage });
        let pair = issued.write(self.path(), "client");
        let files = ClientFiles {
            authorities: Some(file(&self.authorities)),
            pair: Some((file(&pair.certificate), file(&pair.key))),
        };
        ClientTls::load(&files).unwrap()
    }
}

pub(crate) fn file(path: &Path) -> FileSetting {
    FileSetting { setting: "FILE", path: path.to_owned() }
}
