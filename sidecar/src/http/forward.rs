//! The walk of a request: one look at the snapshot, a rule, its filters, a backend, an endpoint, the answer.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::LOCATION;
use ::http::request::Parts;
use ::http::uri::PathAndQuery;
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use routing::filter::{authority_of, location, rewrite_path};
use routing::matcher::RequestHead;
use routing::model::{Filter, HeaderEdit, RouteMatch, Scheme};
use routing::split;
use tracing::debug;

use super::body::{Guards, Replayable, ResponseBody, Streamed, Used};
use super::head;
use super::send::{Prepared, Target, send};
use super::{Connection, Routes};
use crate::passthrough;
use crate::reason::{REASON_HEADER, Reason};
use crate::telemetry::Record;

/// An answer of the sidecar's own.
struct Own {
    reason: Reason,
    location: Option<HeaderValue>,
}

impl From<Reason> for Own {
    fn from(reason: Reason) -> Self {
        Self { reason, location: None }
    }
}

/// A request with what its rule wants of it.
struct Routed {
    prepared: Prepared,
    response_edits: Vec<HeaderEdit>,
}

/// Answers a request; every answer is recorded, also when nobody waits for it any more.
pub(crate) async fn answer(mut request: Request<Incoming>, connection: Rc<Connection>) -> Response<ResponseBody> {
    let shared = &connection.worker.shared;
    let in_flight = connection.meter.request();
    let client_upgrade = request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>();
    let (parts, body) = request.into_parts();
    let mut record = Record::begin(&shared.telemetry, Arc::clone(&connection.name), &shared.empty, &parts);
    let idle = shared.limits.stream_idle;
    if connection.is_loading() {
        connection.worker.wait_for(&connection.frontend, connection.destination).await;
    }
    let routed = match route(parts, Replayable::new(body, idle), &connection, &mut record) {
        Ok(routed) => routed,
        Err(own) => return own_answer(own, Guards { record, in_flight }),
    };
    let (mut response, used) = match send_within(idle, &connection, &routed.prepared, &mut record).await {
        Ok(sent) => sent,
        Err(reason) => return own_answer(reason.into(), Guards { record, in_flight }),
    };
    record.head(response.status(), None);
    let guards = Guards { record, in_flight };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        || (routed.prepared.parts.method == Method::CONNECT && response.status().is_success())
    {
        let upgraded = client_upgrade.zip(response.extensions_mut().remove::<hyper::upgrade::OnUpgrade>());
        return switch(response, upgraded, guards, used);
    }
    head::strip_hop_by_hop(response.headers_mut());
    for edit in &routed.response_edits {
        edit.apply(response.headers_mut());
    }
    response.map(|incoming| ResponseBody::Streamed(Box::new(Streamed::new(incoming, idle, guards, used))))
}

/// Sends, and gives up once neither a part of the request nor the head of a response has moved for the idle limit.
async fn send_within(
    idle: Duration,
    connection: &Connection,
    prepared: &Prepared,
    record: &mut Record,
) -> Result<(Response<Incoming>, Used), Reason> {
    let mut sent = pin!(send(&connection.worker, prepared, record));
    loop {
        let end = prepared.body.moved() + idle;
        match tokio::time::timeout_at(end, sent.as_mut()).await {
            Ok(result) => return result,
            Err(_) if prepared.body.moved() + idle <= tokio::time::Instant::now() => return Err(Reason::StreamIdle),
            Err(_) => {}
        }
    }
}

/// Everything that is decided before a byte is sent. One look at the snapshot, which is let go at the end.
fn route(mut parts: Parts, body: Replayable, connection: &Connection, record: &mut Record) -> Result<Routed, Own> {
    let worker = &connection.worker;
    head::check_framing(&parts.headers)?;
    let authority = head::authority(&parts)?;
    if parts.method == Method::CONNECT && parts.version == ::http::Version::HTTP_2 {
        return Err(Reason::UnsupportedConnect.into());
    }
    let upgrade = head::upgrade(&parts);
    let destination = connection.destination;
    let live = match connection.routes() {
        Routes::Here(live) => live,
        Routes::NotLoaded => return Err(Reason::NotLoaded.into()),
        Routes::Gone => {
            head::strip_hop_by_hop(&mut parts.headers);
            let prepared = Prepared { target: Target::Vip(destination), parts, authority, body, upgrade, destination };
            return Ok(Routed { prepared, response_edits: Vec::new() });
        }
    };
    live.touch(worker.shared.began.elapsed().as_secs());
    let selection = live.table.select(&request_head(&parts, authority.as_ref())).ok_or(Reason::NoRoute)?;
    let position = selection.position;
    let labels = live.rules.get(position.route).and_then(|rules| rules.get(position.rule));
    let told = record.told();
    if let Some(labels) = labels {
        told.route = Arc::clone(&labels.route);
        told.rule = Arc::clone(&labels.rule);
    }
    head::strip_hop_by_hop(&mut parts.headers);
    let mut filtered = Filtered { parts, authority, response_edits: Vec::new(), port: connection.frontend.0.port };
    for filter in &selection.rule.filters {
        filtered.apply(filter, selection.matched)?;
    }
    let chosen = split::pick(&selection.rule.backends, worker.random()).ok_or(Reason::NoBackend)?;
    let weighted = selection.rule.backends.get(chosen).ok_or(Reason::NoBackend)?;
    let invalid = matches!(weighted.target, routing::model::BackendTarget::Invalid(_));
    if invalid {
        return Err(Reason::InvalidBackend.into());
    }
    let backend = labels.and_then(|labels| labels.backends.get(chosen)).and_then(Clone::clone).ok_or(Reason::NoEndpoint)?;
    record.told().backend = Arc::clone(&backend.name);
    for filter in &weighted.filters {
        filtered.apply(filter, selection.matched)?;
    }
    let Filtered { parts, authority, response_edits, .. } = filtered;
    let prepared = Prepared { target: Target::Backend(backend), parts, authority, body, upgrade, destination };
    Ok(Routed { prepared, response_edits })
}

fn request_head<'p>(parts: &'p Parts, authority: Option<&'p HeaderValue>) -> RequestHead<'p> {
    RequestHead {
        method: &parts.method,
        path: parts.uri.path(),
        query: parts.uri.query(),
        authority: authority.and_then(|authority| authority.to_str().ok()),
        headers: &parts.headers,
    }
}

/// A request's head while filters are applied in their order.
struct Filtered {
    parts: Parts,
    authority: Option<HeaderValue>,
    response_edits: Vec<HeaderEdit>,
    port: std::num::NonZeroU16,
}

impl Filtered {
    fn apply(&mut self, filter: &Filter, matched: &RouteMatch) -> Result<(), Own> {
        match filter {
            Filter::RequestHeaders(edit) => {
                edit.apply(&mut self.parts.headers);
                if let Some(authority) = authority_of(edit) {
                    self.authority = Some(authority.clone());
                }
            }
            Filter::ResponseHeaders(edit) => self.response_edits.push(edit.clone()),
            Filter::Redirect(redirect) => {
                let head = request_head(&self.parts, self.authority.as_ref());
                let location = location(redirect, &head, Scheme::Http, self.port, matched).map_err(|error| {
                    debug!(%error, "redirect");
                    Reason::InvalidTarget
                })?;
                return Err(Own { reason: Reason::Redirect(redirect.status), location: Some(location) });
            }
            Filter::Rewrite(rewrite) => {
                if let Some(hostname) = &rewrite.hostname {
                    self.authority = Some(HeaderValue::try_from(hostname).map_err(|_| Reason::InvalidTarget)?);
                }
                if let Some(modifier) = &rewrite.path {
                    let path = rewrite_path(modifier, matched, self.parts.uri.path());
                    self.parts.uri = with_path(&path, self.parts.uri.query())?;
                }
            }
            Filter::Unsupported(what) => {
                debug!(what, "unsupported filter");
                return Err(Reason::UnsupportedFilter.into());
            }
        }
        Ok(())
    }
}

fn with_path(path: &str, query: Option<&str>) -> Result<Uri, Reason> {
    let text = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    PathAndQuery::try_from(text).map(Uri::from).map_err(|_| Reason::InvalidTarget)
}

fn own_answer(own: Own, mut guards: Guards) -> Response<ResponseBody> {
    let Own { reason, location } = own;
    guards.record.head(reason.status(), Some(reason));
    let text = if reason.sentence().is_empty() { Bytes::new() } else { format!("isthmus: {}\n", reason.sentence()).into() };
    let mut headers = HeaderMap::with_capacity(3);
    headers.insert(REASON_HEADER, HeaderValue::from_static(reason.label()));
    if !text.is_empty() {
        headers.insert(::http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    if let Some(location) = location {
        headers.insert(LOCATION, location);
    }
    let mut response = Response::new(ResponseBody::Own(Full::new(text), Box::new(guards)));
    *response.status_mut() = reason.status();
    *response.headers_mut() = headers;
    response
}

/// Both sides stop speaking HTTP; from then on bytes are copied, without limits of time, until both have ended.
fn switch(
    response: Response<Incoming>,
    upgraded: Option<(hyper::upgrade::OnUpgrade, hyper::upgrade::OnUpgrade)>,
    guards: Guards,
    used: Used,
) -> Response<ResponseBody> {
    let Some((client, endpoint)) = upgraded else {
        return own_answer(Reason::EndpointProtocol.into(), guards);
    };
    let (head, _) = response.into_parts();
    let Guards { mut record, in_flight } = guards;
    // Ends with both sides; the worker's LocalSet owns it.
    tokio::task::spawn_local(async move {
        let (_in_flight, _used) = (in_flight, used);
        match tokio::try_join!(client, endpoint) {
            Ok((client, endpoint)) => {
                let copied = passthrough::copy_both(&mut TokioIo::new(client), &mut TokioIo::new(endpoint)).await;
                match copied {
                    Ok(bytes) => record.told().bytes_sent = bytes,
                    Err(error) => debug!(%error, "upgraded"),
                }
            }
            Err(error) => debug!(%error, "upgrade"),
        }
    });
    let mut response = Response::new(ResponseBody::Switched);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}
