//! TLS towards endpoints, as a BackendTLSPolicy wants it (GEP-1897): server name, who may have signed, what the certificate must be for.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use routing::model::{AltName, BackendTls, Roots};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::pipe::Socket;
use crate::pool::Transport;

/// What a policy comes to: sessions are resumed within it and never across policies.
pub(crate) struct ClientTls {
    /// Part of a connection's key: a changed policy never uses a connection of the former.
    id: u64,
    name: ServerName<'static>,
    http1: TlsConnector,
    http2: TlsConnector,
    /// Without a protocol to agree upon.
    bytes: TlsConnector,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl ClientTls {
    /// Prepares a policy.
    ///
    /// # Errors
    /// One sentence that says why it cannot be met.
    pub(crate) fn new(policy: &BackendTls) -> Result<Self, String> {
        let (hostname, alt_names, roots) = match policy {
            BackendTls::Verified { hostname, alt_names, roots } => (hostname, alt_names, roots),
            BackendTls::Broken(why) => return Err(why.clone()),
        };
        let name = ServerName::try_from(hostname.clone()).map_err(|error| format!("{hostname:?}: {error}"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(Verifier { roots: root_store(roots)?, alt_names: alt_names.clone(), provider: Arc::clone(&provider) });
        let connector = |protocols: &[&[u8]]| {
            let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
            let builder = builder.map_err(|error| error.to_string())?;
            let mut config = builder.dangerous().with_custom_certificate_verifier(Arc::clone(&verifier) as _).with_no_client_auth();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Ok::<_, String>(TlsConnector::from(Arc::new(config)))
        };
        let (http1, http2, bytes) = (connector(&[b"http/1.1"])?, connector(&[b"h2"])?, connector(&[])?);
        Ok(Self { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), name, http1, http2, bytes })
    }

    /// Distinguishes it from every other one.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The handshake; none: what is spoken inside is not known.
    pub(crate) async fn connect(&self, stream: TcpStream, transport: Option<Transport>) -> io::Result<Stream> {
        let connector = match transport {
            Some(Transport::Http1) => &self.http1,
            Some(Transport::Http2) => &self.http2,
            None => &self.bytes,
        };
        let stream = connector.connect(self.name.clone(), stream).await?;
        Ok(Stream::Tls(Box::new(stream)))
    }
}

fn root_store(roots: &Roots) -> Result<RootCertStore, String> {
    let certificates: Vec<CertificateDer<'static>> = match roots {
        Roots::System => rustls_native_certs::load_native_certs().certs,
        Roots::Pem(bundle) => CertificateDer::pem_slice_iter(bundle.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| format!("CA certificates: {error}"))?,
    };
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(certificates);
    match (added, roots) {
        (0, Roots::System) => Err("the system has no CA certificates".to_owned()),
        (0, Roots::Pem(_)) => Err("no certificate of the bundle can be used as a CA".to_owned()),
        (_, _) => Ok(store),
    }
}

/// Verifies as usual, but for the names of the policy where it has some.
#[derive(Debug)]
struct Verifier {
    roots: RootCertStore,
    alt_names: Vec<AltName>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        if self.alt_names.is_empty() {
            verify_server_name(&certificate, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        let names = webpki::EndEntityCert::try_from(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        let is_one = self.alt_names.iter().any(|wanted| match wanted {
            AltName::Uri(uri) => names.valid_uri_names().any(|name| name == uri),
            AltName::Hostname(pattern) if pattern.starts_with("*.") => names.valid_dns_names().any(|name| is_under(name, pattern)),
            AltName::Hostname(name) => {
                ServerName::try_from(name.as_str()).is_ok_and(|name| verify_server_name(&certificate, &name).is_ok())
            }
        });
        if is_one { Ok(ServerCertVerified::assertion()) } else { Err(CertificateError::NotValidForName.into()) }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The pattern itself, or a name of one label before its suffix.
fn is_under(name: &str, pattern: &str) -> bool {
    let rest = name.split_once('.').map(|(_, rest)| rest);
    name.eq_ignore_ascii_case(pattern) || rest.is_some_and(|rest| pattern.get(2..).is_some_and(|suffix| rest.eq_ignore_ascii_case(suffix)))
}

/// A connection to an endpoint.
#[derive(Debug)]
pub(crate) enum Stream {
    /// In plain text.
    Plain(TcpStream),
    /// In TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket for Stream {
    fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Tls(_) => None,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, buffer),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, context: &mut Context<'_>, buffers: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_for_one_label() {
        for (name, is_one) in
            [("a.example.com", true), ("*.example.com", true), ("A.Example.com", true), ("example.com", false), ("b.a.example.com", false)]
        {
            assert_eq!(is_under(name, "*.example.com"), is_one, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_met_is_said() {
        let pem = |roots: &str| BackendTls::Verified {
            hostname: "a.example".to_owned(),
            alt_names: Vec::new(),
            roots: Roots::Pem(roots.to_owned()),
        };
        for policy in [
            BackendTls::Broken("no such ConfigMap".to_owned()),
            pem(""),
            pem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ] {
            let why = ClientTls::new(&policy).expect_err("cannot be met");
            assert!(!why.is_empty(), "{policy:?}");
        }
    }
}
