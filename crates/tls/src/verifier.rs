//! Accepts a client certificate if an authority of the port has issued it and one of its names is allowed.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};

use crate::names::{NamePattern, PeerNames};
use crate::provider;

/// Requires a certificate of one of `authorities`. An empty list of patterns allows all of its names.
pub(crate) fn client_verifier(
    authorities: RootCertStore,
    allowed: Vec<NamePattern>,
) -> Result<Arc<dyn ClientCertVerifier>, rustls::server::VerifierBuilderError> {
    let chains =
        WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider()).build()?;
    Ok(match allowed.is_empty() {
        true => chains,
        false => Arc::new(NameVerifier { chains, allowed }),
    })
}

#[derive(Debug)]
struct NameVerifier {
    chains: Arc<dyn ClientCertVerifier>,
    allowed: Vec<NamePattern>,
}

impl ClientCertVerifier for NameVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chains.verify_client_cert(end_entity, intermediates, now)?;
        let names = PeerNames::of(end_entity);
        let is_allowed = |name: &str| self.allowed.iter().any(|pattern| pattern.allows(name));
        match names.iter().any(is_allowed) {
            true => Ok(verified),
            // The client gets the alert access_denied.
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}
