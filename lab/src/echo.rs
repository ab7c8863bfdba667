//! What runs in a pod: a server that answers with its cluster, its pod, and the request as it saw it.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::Namespace;
use crate::manifests::ContainerPort;
use crate::roles::PodName;

/// A stopping server gives requests in flight this long.
const STOP_MAX: Duration = Duration::from_secs(3);
/// The longest delay that a request can ask for.
const DELAY_MAX: Duration = Duration::from_secs(60);
const DATAGRAM_BYTES_MAX: usize = 64 * 1024;

/// A running server; stops when dropped.
#[derive(Debug)]
pub(crate) struct Echo {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Serves the ports of a pod.
    pub(crate) fn start(namespace: &Namespace, pod: &PodName, ports: &[ContainerPort]) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let (bound, wait) = std::sync::mpsc::sync_channel(1);
        let (pod, ports, until) = (Arc::new(pod.clone()), ports.to_vec(), stop.clone());
        let thread = namespace.spawn("echo", move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(bound.send(Err(error))),
            };
            runtime.block_on(async move {
                let servers = TaskTracker::new();
                let result = bind(&pod, &ports, &servers, &until).await;
                if result.is_err() {
                    until.cancel();
                }
                // The other side waits for exactly this.
                let _ = bound.send(result);
                servers.close();
                servers.wait().await;
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

async fn bind(pod: &Arc<PodName>, ports: &[ContainerPort], servers: &TaskTracker, stop: &CancellationToken) -> io::Result<()> {
    for port in ports {
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port.container_port));
        let (pod, stop) = (Arc::clone(pod), stop.clone());
        if port.protocol == "UDP" {
            let socket = UdpSocket::bind(address).await?;
            servers.spawn(async move { stop.run_until_cancelled(datagrams(socket, pod)).await });
            continue;
        }
        let listener = TcpListener::bind(address).await?;
        if port.name.starts_with("tcp") {
            servers.spawn(async move { stop.run_until_cancelled(bytes(listener, pod)).await });
        } else {
            servers.spawn(http(listener, pod, stop));
        }
    }
    Ok(())
}

/// UDP: each datagram comes back with the pod's name in front.
async fn datagrams(socket: UdpSocket, pod: Arc<PodName>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let answer = [pod.to_string().as_bytes(), b" ", &buffer[..length]].concat();
        if let Err(error) = socket.send_to(&answer, from).await {
            debug!(%error, "datagram");
        }
    }
}

/// TCP without HTTP: speaks first, sends everything back, and after the client's end says how much that was.
async fn bytes(listener: TcpListener, pod: Arc<PodName>) {
    while let Ok((stream, _)) = listener.accept().await {
        let pod = Arc::clone(&pod);
        // Ends with its client, or with the server's runtime.
        tokio::spawn(async move {
            if let Err(error) = converse(stream, &pod).await {
                debug!(%error, "bytes");
            }
        });
    }
}

async fn converse(mut stream: TcpStream, pod: &PodName) -> io::Result<()> {
    stream.write_all(format!("hello from {pod}\n").as_bytes()).await?;
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let mut total = 0;
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            break;
        }
        total += length;
        stream.write_all(&buffer[..length]).await?;
    }
    stream.write_all(format!("bye {total}\n").as_bytes()).await?;
    stream.shutdown().await
}

async fn http(listener: TcpListener, pod: Arc<PodName>, stop: CancellationToken) {
    let graceful = GracefulShutdown::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((stream, _)) = accepted else { break };
        // Small answers should not wait for each other; an error here means that the client is gone.
        let _ = stream.set_nodelay(true);
        let pod = Arc::clone(&pod);
        let service = service_fn(move |request| {
            let pod = Arc::clone(&pod);
            async move { Ok::<_, Infallible>(answer(request, &pod).await) }
        });
        let builder = auto::Builder::new(TokioExecutor::new());
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(error, "http");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(STOP_MAX, graceful.shutdown()).await.is_err() {
        debug!("requests were still in flight");
    }
}

/// `?delay_ms=`, `?status=` and `?trailer` do what they say.
async fn answer(request: Request<Incoming>, pod: &PodName) -> Response<http_body_util::combinators::BoxBody<Bytes, Infallible>> {
    let (head, body) = request.into_parts();
    let query = head.uri.query().unwrap_or_default();
    let asked = |name: &str| form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    let body = body.collect().await.map(http_body_util::Collected::to_bytes);
    if let Some(delay_ms) = asked("delay_ms").and_then(|value| value.parse().ok()) {
        tokio::time::sleep(Duration::from_millis(delay_ms).min(DELAY_MAX)).await;
    }
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers: Vec<(String, String)> = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let seen = json!({
        "cluster": pod.cluster, "namespace": pod.namespace, "pod": pod.name,
        "protocol": format!("{:?}", head.version), "method": head.method.as_str(), "target": head.uri.to_string(),
        "path": head.uri.path(), "query": head.uri.query(),
        "host": head.uri.authority().map(ToString::to_string).or_else(|| head.headers.get("host").map(text)),
        "headers": headers,
        "body": body.as_ref().map_or_else(|error| format!("error: {error}"), |body| String::from_utf8_lossy(body).into_owned()),
    });
    let status = asked("status").and_then(|value| StatusCode::try_from(value.as_str()).ok()).unwrap_or(StatusCode::OK);
    let full = Full::new(Bytes::from(format!("{seen}\n")));
    let with_trailer = asked("trailer").map(|_| {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-trailer", HeaderValue::from_static("seen"));
        trailers
    });
    let body = match with_trailer {
        Some(trailers) => full.with_trailers(std::future::ready(Some(Ok(trailers)))).boxed(),
        None => full.boxed(),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    if let Ok(name) = HeaderValue::try_from(pod.to_string()) {
        headers.insert("x-served-by", name);
    }
    response
}
