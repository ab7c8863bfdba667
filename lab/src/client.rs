//! Requests as an application in a pod makes them. Everything here belongs to the network namespace of the thread that calls it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// Before each message of a gRPC call: whether it is compressed, and its length.
const GRPC_PREFIX_BYTES: usize = 5;

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// GET where nothing else is said.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// Host or `:authority`.
    pub host: String,
    /// Header fields.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Bytes,
}

impl Ask {
    /// A GET.
    #[must_use]
    pub fn get(host: &str, target: &str) -> Self {
        Self { host: host.to_owned(), target: target.to_owned(), ..Self::default() }
    }

    /// A gRPC call, `/PACKAGE.SERVICE/METHOD`, with an empty message.
    #[must_use]
    pub fn grpc(host: &str, path: &str) -> Self {
        let headers = [("content-type", "application/grpc"), ("te", "trailers")];
        Self {
            method: Method::POST,
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            body: Bytes::from_static(&[0; GRPC_PREFIX_BYTES]),
            ..Self::get(host, path)
        }
    }

    /// With one more header field.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn request(&self, version: Version) -> anyhow::Result<Request<Full<Bytes>>> {
        let uri: Uri = if version == Version::HTTP_2 {
            format!("http://{}{}", self.host, self.target).parse().with_context(|| format!("{:?}", self.target))?
        } else {
            self.target.parse().with_context(|| format!("{:?}", self.target))?
        };
        let mut request = Request::builder().method(self.method.clone()).uri(uri).version(version);
        if version != Version::HTTP_2 {
            request = request.header("host", &self.host);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(self.body.clone())).context("request")
    }
}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Its trailers.
    pub trailers: Option<HeaderMap>,
    /// From the first byte sent to the last one received.
    pub took: Duration,
}

impl Answer {
    /// A header field as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// `CLUSTER/NAMESPACE/POD` of the echo server that answered; none if a sidecar did.
    #[must_use]
    pub fn served_by(&self) -> Option<&str> {
        self.header("x-served-by")
    }

    /// Why a sidecar answered itself.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.header("x-isthmus-reason")
    }

    /// What the echo server saw.
    #[must_use]
    pub fn seen(&self) -> Value {
        let is_grpc = self.header("content-type").is_some_and(|value| value.starts_with("application/grpc"));
        let skipped = if is_grpc { GRPC_PREFIX_BYTES } else { 0 };
        self.body.get(skipped..).and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default()
    }

    /// How a gRPC call ended: in the trailers, or in the header where there is nothing else.
    #[must_use]
    pub fn grpc_status(&self) -> Option<u16> {
        let trailer = self.trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
        trailer.or_else(|| self.headers.get("grpc-status"))?.to_str().ok()?.parse().ok()
    }
}

/// A kept connection.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// There is no connection.
    pub async fn open(address: SocketAddr, version: Version) -> anyhow::Result<Self> {
        let connected = tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await;
        let stream =
            connected.with_context(|| format!("connect to {address}: no answer"))?.with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        Self::on(stream, version).await
    }

    /// Speaks HTTP on a connection that there is.
    ///
    /// # Errors
    /// The other side does not.
    pub async fn on(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, version: Version) -> anyhow::Result<Self> {
        let sender = if version == Version::HTTP_2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            // Ends with its sender; what goes wrong is said by the request that it happens to.
            tokio::spawn(async move { drop(connection.await) });
            Sender::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(async move { drop(connection.with_upgrades().await) });
            Sender::Http1(sender)
        };
        Ok(Self { sender })
    }

    /// Asks and waits for the whole answer.
    ///
    /// # Errors
    /// There is no whole answer.
    pub async fn ask(&mut self, ask: &Ask) -> anyhow::Result<Answer> {
        let began = Instant::now();
        let asked = async {
            let response = match &mut self.sender {
                Sender::Http1(sender) => {
                    sender.ready().await?;
                    sender.send_request(ask.request(Version::HTTP_11)?).await?
                }
                Sender::Http2(sender) => {
                    sender.ready().await?;
                    sender.send_request(ask.request(Version::HTTP_2)?).await?
                }
            };
            let (head, body) = response.into_parts();
            let collected = body.collect().await.context("body")?;
            let trailers = collected.trailers().cloned();
            let body = collected.to_bytes();
            Ok(Answer { status: head.status, headers: head.headers, body, trailers, took: began.elapsed() })
        };
        tokio::time::timeout(PATIENCE, asked).await.with_context(|| format!("{} {}: no answer", ask.method, ask.target))?
    }
}

/// One request on a connection of its own.
///
/// # Errors
/// There is no whole answer.
pub async fn ask(address: SocketAddr, version: Version, ask: &Ask) -> anyhow::Result<Answer> {
    Connection::open(address, version).await?.ask(ask).await
}
