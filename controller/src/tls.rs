//! TLS towards sidecars and the API server: a listener whose certificate can be replaced while it serves.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// A peer has this long for its handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Handshakes at once; beyond it the kernel's backlog pushes back.
const HANDSHAKES_MAX: usize = 256;
/// After an error of the machine (no file descriptors, no memory) the next attempt waits this long.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// The certificate that is shown to peers.
#[derive(Debug)]
pub struct Certificates(ArcSwap<CertifiedKey>);

impl Certificates {
    /// Begins with this one.
    #[must_use]
    pub fn new(key: CertifiedKey) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(key)))
    }

    /// Shows another one from now on.
    pub fn replace(&self, key: CertifiedKey) {
        self.0.store(Arc::new(key));
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Connections whose handshake is done.
#[derive(Debug)]
pub struct TlsListener {
    address: SocketAddr,
    accepted: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl TlsListener {
    /// Accepts on a task of its own until cancelled.
    ///
    /// # Errors
    /// The kernel does not say the address.
    pub fn new(
        listener: TcpListener,
        certificates: Arc<Certificates>,
        protocols: &[&str],
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(certificates);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let address = listener.local_addr()?;
        let (sender, accepted) = mpsc::channel(HANDSHAKES_MAX);
        tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), sender, stop));
        Ok(Self { address, accepted })
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    accepted: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let next = async {
            let turn = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((turn, listener.accept().await?))
        };
        let (turn, (stream, peer)) = tokio::select! {
            () = stop.cancelled() => return,
            next = next => match next {
                Ok(next) => next,
                Err(error) => {
                    warn!(%error, "accept");
                    tokio::time::sleep(ERROR_PAUSE).await;
                    continue;
                }
            },
        };
        let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
        // Bounded in number by its turn and in time by the handshake's maximum.
        tokio::spawn(async move {
            let _turn = turn;
            match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
                // Nobody takes it any more at the end alone.
                Ok(Ok(stream)) => drop(accepted.send((stream, peer)).await),
                Ok(Err(error)) => debug!(%peer, %error, "TLS handshake"),
                Err(_) => debug!(%peer, "TLS handshake takes too long"),
            }
        });
    }
}

/// For tonic, which has its own trait for a connection's facts.
impl tokio_stream::Stream for TlsListener {
    type Item = io::Result<TlsStream<TcpStream>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.accepted.poll_recv(cx).map(|accepted| accepted.map(|(stream, _)| Ok(stream)))
    }
}

/// For axum.
impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.accepted.recv().await {
            Some(accepted) => accepted,
            // The acceptor has ended; so does the server, whose shutdown has the same cause.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
