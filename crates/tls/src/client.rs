//! TLS of a client: authorities that it trusts, and its own certificate.

use std::sync::Arc;

use rustls::ClientConfig;

use crate::files::{self, FileSetting, PairBytes, TlsFileError};
use crate::provider;

/// The files of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// Authorities of servers.
    pub authorities: Option<FileSetting>,
    /// The client's certificate and its key.
    pub pair: Option<(FileSetting, FileSetting)>,
}

impl ClientFiles {
    /// The configuration of a client that offers `protocols` (ALPN); without authorities it trusts `public`.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub fn load(
        &self,
        public: impl FnOnce() -> rustls::RootCertStore,
        protocols: &[&[u8]],
    ) -> Result<Arc<ClientConfig>, TlsFileError> {
        let authorities = match &self.authorities {
            Some(file) => files::authorities(file, &files::read_authorities(file)?)?,
            None => public(),
        };
        // The provider has all versions of TLS.
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap_or_else(|error| unreachable!("{error}"))
            .with_root_certificates(authorities);
        let mut config = match &self.pair {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let bytes = PairBytes::read(certificate, key)?;
                let chain = files::chain(certificate, &bytes.certificate)?;
                let private = files::private_key(key, &bytes.key)?;
                let made = builder.with_client_auth_cert(chain, private);
                made.map_err(|why| files::mismatch(key, &why))?
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }
}
