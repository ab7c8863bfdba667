//! What runs in a pod: servers that answer with their cluster, their pod, and the request as they saw it.

mod answer;
mod bytes;
mod tally;
mod tls;
mod websocket;

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use self::answer::Responder;
use self::tally::Tally;
use self::tls::Authority;
use crate::Namespace;
use crate::manifests::Served;
use crate::plan::Servers;
use crate::roles::PodName;

/// A stopping server gives requests in flight this long.
const STOP_MAX: Duration = Duration::from_secs(3);

/// What the servers of all pods of a lab have in common.
#[derive(Debug)]
pub(crate) struct Common {
    /// Signs their certificates.
    authority: Authority,
    /// How often each key was asked for, whichever pod was asked.
    attempts: Tally,
}

impl Common {
    /// A new authority, and nothing asked yet.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self { authority: Authority::new().context("certificate authority")?, attempts: Tally::default() })
    }

    /// The certificate that signs all others.
    pub(crate) fn ca_pem(&self) -> String {
        self.authority.pem()
    }
}

/// Running servers; stop when dropped.
#[derive(Debug)]
pub(crate) struct Echo {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Serves the ports of a pod.
    pub(crate) fn start(namespace: &Namespace, pod: &PodName, servers: &Servers, common: &Arc<Common>) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let (bound, wait) = std::sync::mpsc::sync_channel(1);
        let has_tls = servers.ports.iter().any(|port| port.served() == Served::Tls);
        let acceptor = has_tls.then(|| common.authority.acceptor(&servers.tls_names).context("certificate")).transpose()?;
        let responder = Responder::new(pod.clone(), servers.delay, Arc::clone(common));
        let binding = Binding { responder: Arc::new(responder), acceptor, running: TaskTracker::new(), stop: stop.clone() };
        let servers = servers.clone();
        let thread = namespace.spawn("echo", move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(bound.send(Err(error))),
            };
            runtime.block_on(async move {
                let result = binding.bind(&servers).await;
                if result.is_err() {
                    binding.stop.cancel();
                }
                // The other side waits for exactly this.
                let _ = bound.send(result);
                binding.running.close();
                binding.running.wait().await;
            });
        })?;
        wait.recv().context("the server ended early")?.context("server")?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic of the server was printed by its own thread.
            let _ = thread.join();
        }
    }
}

/// What every port of a pod is served with.
struct Binding {
    responder: Arc<Responder>,
    /// If there is a port for it.
    acceptor: Option<TlsAcceptor>,
    running: TaskTracker,
    stop: CancellationToken,
}

impl Binding {
    async fn bind(&self, servers: &Servers) -> io::Result<()> {
        for port in &servers.ports {
            let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port.container_port));
            let (responder, stop) = (Arc::clone(&self.responder), self.stop.clone());
            match port.served() {
                Served::Datagrams => {
                    let socket = UdpSocket::bind(address).await?;
                    self.running.spawn(async move { stop.run_until_cancelled(bytes::datagrams(socket, responder.pod())).await });
                }
                Served::Bytes => {
                    let listener = TcpListener::bind(address).await?;
                    self.running.spawn(async move { stop.run_until_cancelled(bytes::streams(listener, responder.pod())).await });
                }
                Served::Tls => {
                    self.running.spawn(http(TcpListener::bind(address).await?, self.acceptor.clone(), responder, stop));
                }
                Served::Http => {
                    self.running.spawn(http(TcpListener::bind(address).await?, None, responder, stop));
                }
            }
        }
        Ok(())
    }
}

/// HTTP, over TLS if there is an acceptor.
async fn http(listener: TcpListener, acceptor: Option<TlsAcceptor>, responder: Arc<Responder>, stop: CancellationToken) {
    let graceful = GracefulShutdown::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((stream, _)) = accepted else { break };
        // Small answers should not wait for each other; an error here means that the client is gone.
        let _ = stream.set_nodelay(true);
        let (watcher, responder) = (graceful.watcher(), Arc::clone(&responder));
        match acceptor.clone() {
            None => drop(tokio::spawn(connection(stream, None, responder, watcher))),
            Some(acceptor) => drop(tokio::spawn(secured(stream, acceptor, responder, watcher, stop.clone()))),
        }
    }
    drop(listener);
    if tokio::time::timeout(STOP_MAX, graceful.shutdown()).await.is_err() {
        debug!("requests were still in flight");
    }
}

/// A connection over TLS.
async fn secured(stream: TcpStream, acceptor: TlsAcceptor, responder: Arc<Responder>, watcher: Watcher, stop: CancellationToken) {
    match stop.run_until_cancelled(acceptor.accept(stream)).await {
        Some(Ok(stream)) => {
            let sni = stream.get_ref().1.server_name().map(str::to_owned);
            connection(stream, sni, responder, watcher).await;
        }
        Some(Err(error)) => debug!(%error, "tls"),
        None => {}
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    sni: Option<String>,
    responder: Arc<Responder>,
    watcher: Watcher,
) {
    let sni = Arc::new(sni);
    let service = service_fn(move |request| {
        let (responder, sni) = (Arc::clone(&responder), Arc::clone(&sni));
        async move { responder.answer(request, sni.as_deref()).await }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        debug!(error, "http");
    }
}
