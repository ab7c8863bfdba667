//! Certificates of a lab: one authority that is made with it, one certificate a pod.

use std::sync::Arc;

use anyhow::Context;
use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

/// Whose certificate a test trusts.
#[derive(Debug)]
pub(super) struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a key and signs itself.
    pub(super) fn new() -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "isthmus lab");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key)?;
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// Its certificate.
    pub(super) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Takes connections with a certificate for these names; one with `://` in it is a URI.
    pub(super) fn acceptor(&self, names: &[String]) -> anyhow::Result<TlsAcceptor> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        for name in names {
            let text = name.as_str().try_into().with_context(|| name.clone())?;
            params.subject_alt_names.push(if name.contains("://") { SanType::URI(text) } else { SanType::DnsName(text) });
        }
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
