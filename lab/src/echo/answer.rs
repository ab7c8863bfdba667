//! The answer to a request: the request as it was seen, in JSON, or as the one message of a gRPC call.
//!
//! A request says in its query what it wants, or in header fields `x-...`, since the path of a gRPC call has no query:
//!
//! - `delay_ms`: the answer comes later
//! - `status`: with this status
//! - `trailer`: with a trailer
//! - `grpc_status`: the gRPC call ends with this status
//! - `id`: the request counts, for this pod in `/-/seen?id=`, and for all pods together in `attempt`
//! - `fail`: so many attempts are answered with `status`, 500 where none is given; later ones as if they had asked for nothing
//! - `set_header`: `NAME:VALUE` is a field of the answer
//! - `drop`: so many attempts get no answer: their connection ends, or in HTTP/2 their stream

use std::convert::Infallible;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Collected, Empty, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::tally::Tally;
use super::{Common, websocket};
use crate::roles::PodName;

/// The longest delay that a request can ask for.
const DELAY_MAX: Duration = Duration::from_secs(60);
/// Where a pod says how often it was asked for a key, and what came last.
const SEEN: &str = "/-/seen";

type Body = BoxBody<Bytes, Infallible>;

/// What a pod answers with.
pub(super) struct Responder {
    pod: PodName,
    /// Before every answer.
    delay: Duration,
    common: Arc<Common>,
    seen: Tally,
}

/// What a request wants.
struct Wanted<'r>(&'r Parts);

impl Wanted<'_> {
    fn text(&self, name: &str) -> Option<String> {
        let query = self.0.uri.query().unwrap_or_default();
        let in_query = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        in_query.or_else(|| self.0.headers.get(format!("x-{}", name.replace('_', "-"))).map(text))
    }

    fn parsed<T: FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

impl Responder {
    pub(super) fn new(pod: PodName, delay: Duration, common: Arc<Common>) -> Self {
        Self { pod, delay, common, seen: Tally::default() }
    }

    pub(super) fn pod(&self) -> &PodName {
        &self.pod
    }

    /// Answers.
    ///
    /// # Errors
    /// It was asked to give none.
    pub(super) async fn answer(&self, mut request: Request<Incoming>, sni: Option<&str>) -> io::Result<Response<Body>> {
        if let Some(switched) = websocket::switch(&mut request) {
            return Ok(self.signed(switched.map(|()| Empty::new().boxed())));
        }
        let (head, body) = request.into_parts();
        let wanted = Wanted(&head);
        if head.uri.path() == SEEN {
            return Ok(self.signed(as_json(&self.seen.read(&wanted.text("id").unwrap_or_default()))));
        }
        let is_grpc = head.headers.get("content-type").is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        let body = body.collect().await.map(Collected::to_bytes);
        let body = body.map(|body| if is_grpc { message(&body) } else { body });
        let id = wanted.text("id");
        let attempt = id.as_deref().map(|id| self.common.attempts.add(id, Value::Null));
        let seen = self.seen(&head, &body.map_err(|error| error.to_string()), sni, attempt);
        if let Some(id) = &id {
            self.seen.add(id, seen.clone());
        }
        let is_among_first = |name| wanted.parsed::<u64>(name).zip(attempt).is_some_and(|(count, attempt)| attempt <= count);
        if is_among_first("drop") {
            return Err(io::Error::other("no answer was asked for"));
        }
        let delay = self.delay + wanted.parsed("delay_ms").map(Duration::from_millis).unwrap_or_default();
        if !delay.is_zero() {
            tokio::time::sleep(delay.min(DELAY_MAX)).await;
        }
        let status = wanted.text("status").and_then(|value| StatusCode::try_from(value.as_str()).ok());
        let counts = wanted.text("fail").or_else(|| wanted.text("drop")).is_some();
        let status = match wanted.text("fail") {
            // A test that forgets the key should not pass because nothing fails.
            _ if counts && attempt.is_none() => StatusCode::BAD_REQUEST,
            None => status.unwrap_or(StatusCode::OK),
            Some(_) if is_among_first("fail") => status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            Some(_) => StatusCode::OK,
        };
        let mut response = if is_grpc {
            as_grpc(&seen, wanted.parsed("grpc_status").unwrap_or_default())
        } else if wanted.text("trailer").is_some() {
            as_json(&seen).map(|body| with_trailer(body, "x-trailer", HeaderValue::from_static("seen")))
        } else {
            as_json(&seen)
        };
        *response.status_mut() = status;
        response.headers_mut().extend(wanted.text("set_header").as_deref().and_then(field));
        if head.method == Method::HEAD {
            // In HTTP/2 nobody else leaves it out.
            response = response.map(|_| Empty::new().boxed());
        }
        Ok(self.signed(response))
    }

    fn seen(&self, head: &Parts, body: &Result<Bytes, String>, sni: Option<&str>, attempt: Option<u64>) -> Value {
        let headers: Vec<(String, String)> = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        json!({
            "cluster": self.pod.cluster, "namespace": self.pod.namespace, "pod": self.pod.name,
            "protocol": format!("{:?}", head.version), "method": head.method.as_str(), "target": head.uri.to_string(),
            "path": head.uri.path(), "query": head.uri.query(),
            "host": head.uri.authority().map(ToString::to_string).or_else(|| head.headers.get("host").map(text)),
            "headers": headers, "sni": sni, "attempt": attempt,
            "body": body.as_ref().map_or_else(|error| format!("error: {error}"), |body| String::from_utf8_lossy(body).into_owned()),
        })
    }

    /// Says whose answer it is.
    fn signed(&self, mut response: Response<Body>) -> Response<Body> {
        if let Ok(name) = HeaderValue::try_from(self.pod.to_string()) {
            response.headers_mut().insert("x-served-by", name);
        }
        response
    }
}

fn field(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':')?;
    Some((name.parse().ok()?, value.parse().ok()?))
}

fn as_json(value: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{value}\n"))).boxed());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    response
}

/// One message: a zero for "not compressed", its length, itself.
fn as_grpc(value: &Value, status: u16) -> Response<Body> {
    let text = value.to_string();
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    framed.put_slice(text.as_bytes());
    let body = Full::new(framed.freeze()).boxed();
    let mut response = Response::new(with_trailer(body, "grpc-status", HeaderValue::from(status)));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// The message of a call, without what frames it.
fn message(body: &Bytes) -> Bytes {
    body.slice(body.len().min(5)..)
}

fn with_trailer(body: Body, name: &'static str, value: HeaderValue) -> Body {
    let trailers = HeaderMap::from_iter([(HeaderName::from_static(name), value)]);
    body.with_trailers(std::future::ready(Some(Ok(trailers)))).boxed()
}
