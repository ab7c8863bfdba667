//! The walk of a request: one look at the snapshot, a rule, its filters, a backend, an endpoint, the answer.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ::http::request::Parts;
use ::http::{Method, Response, StatusCode};
use routing::filter::step::{Passing, ResponseChange, request_head};
use routing::model::{BackendTarget, Persistence, RouteKind, Rule};
use routing::session::{Kept, Scope};
use routing::split;
use tokio::time::Instant;
use tracing::debug;

use super::body::{ClientBody, EndpointBody, Replayable};
use super::filters::{Copy, Filtered};
use super::head::{self, Fields};
use super::meter::Metered;
use super::own::{Form, Own};
use super::prepared::{Obeyed, Prepared, RequestBody, Target};
use super::response::{Guards, ResponseBody, Streamed, Used};
use super::send::{Sent, send, wall_clock};
use super::{Connection, Routes, mirror};
use crate::http1::client::Switched;
use crate::http1::server::Switch;
use crate::passthrough;
use crate::reason::Reason;
use crate::snapshot::{LiveBackend, LiveFrontend, LiveRule};
use crate::telemetry::{Record, Told};

/// A request as it came: its head, its body, and what the connection becomes if the answer switches protocols (none: it cannot become anything).
pub(crate) type Received = (Box<Parts>, ClientBody, Option<Switch<Metered>>);

/// A request with what its rule wants of it; large, so that it is handed on in a box.
struct Routed {
    prepared: Prepared,
    changes: Vec<ResponseChange>,
    copies: Vec<Copy>,
    session: Option<Session>,
}

/// A session that the response establishes, unless it is the one that the request came with.
struct Session {
    persistence: Persistence,
    scope: Scope,
    backend: Arc<LiveBackend>,
    kept: Option<Kept>,
}

/// Answers a request; every answer is recorded, also when nobody waits for it any more.
///
/// `received` is a request, or why what came is none.
pub(crate) async fn answer(received: Result<Received, Reason>, connection: Rc<Connection>) -> Response<ResponseBody> {
    let (mut parts, body, client) = match received {
        Ok(received) => received,
        Err(reason) => return refuse(reason, &connection),
    };
    let shared = &connection.worker.shared;
    let in_flight = connection.meter.request();
    let fields = Fields::of(&parts.headers);
    let upgrade = head::check_framing(fields).map(|()| head::upgrade(parts.version, fields));
    // One that asked for nothing else cannot be made to speak it.
    let client = client.filter(|_| matches!(upgrade, Ok(Some(_))));
    let mut record = Record::begin(&shared.telemetry, Arc::clone(&connection.name), &shared.empty, &parts);
    record.trace(&mut parts.headers, || connection.worker.random());
    let began = Instant::from_std(record.began());
    let mut moved = began;
    let idle = shared.limits.stream_idle;
    if connection.is_loading() {
        connection.worker.wait_for(&connection.frontend, connection.destination).await;
        moved = Instant::now();
    }
    let routes = connection.routes();
    let form = form(&parts, &routes);
    let body = Replayable::new(body, idle, moved, &connection.meter);
    let mut limit = Limit { began, request: None };
    let decided = decide(parts, upgrade, body.clone(), routes, &connection, &mut limit, &mut record).await;
    let sent = match decided {
        Ok(routed) => match send_within(&connection, &routed.prepared, limit, record.told()).await {
            Ok(sent) => Ok((routed, sent)),
            Err(reason) => Err(Own::from(reason).changed(routed.changes)),
        },
        Err(own) => Err(own),
    };
    let (routed, Sent { mut response, used, endpoint, answered, deadline }) = match sent {
        Ok((routed, sent)) => (routed, *sent),
        Err(own) => {
            body.give_up();
            return own.response(form, Guards { record, in_flight });
        }
    };
    record.head(response.status(), None, answered);
    let guards = Guards { record, in_flight };
    let is_switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if !is_switched {
        head::strip_hop_by_hop(response.headers_mut());
    }
    for change in &routed.changes {
        change.apply(response.headers_mut());
    }
    if let Some((name, value)) = routed.session.and_then(|session| session.establish(endpoint)) {
        response.headers_mut().append(name, value);
    }
    if is_switched {
        let upgraded = client.zip(used.lease.switch());
        return switch(response, upgraded, guards, used);
    }
    response.map(|incoming| ResponseBody::Streamed(Box::new(Streamed::new(incoming, idle, (limit.end(), deadline), guards, used))))
}

/// The answer to what is no request.
fn refuse(reason: Reason, connection: &Connection) -> Response<ResponseBody> {
    let shared = &connection.worker.shared;
    let record = Record::stream(&shared.telemetry, Arc::clone(&connection.name), &shared.empty, "HTTP/1.1");
    Own::from(reason).response(Form::Whole, Guards { record, in_flight: connection.meter.request() })
}

fn form(parts: &Parts, routes: &Routes) -> Form {
    match routes {
        _ if parts.method == Method::HEAD => Form::Head,
        Routes::Here(live) if is_grpc(live) && head::is_grpc(parts) => Form::Grpc,
        Routes::Here(_) | Routes::Gone | Routes::NotLoaded => Form::Whole,
    }
}

fn is_grpc(live: &LiveFrontend) -> bool {
    live.table.frontend().kind == RouteKind::Grpc
}

/// `timeouts.request` of the rule, once that is known.
#[derive(Clone, Copy)]
struct Limit {
    began: Instant,
    request: Option<Duration>,
}

impl Limit {
    fn end(self) -> Option<Instant> {
        self.request.map(|request| self.began + request)
    }
}

/// From the routes to what is sent; its copies are on their way then.
async fn decide(
    parts: Box<Parts>,
    upgrade: Result<Option<::http::HeaderValue>, Reason>,
    body: Replayable,
    routes: Routes,
    connection: &Connection,
    limit: &mut Limit,
    record: &mut Record,
) -> Result<Box<Routed>, Own> {
    let upgrade = upgrade?;
    let authority = head::authority(&parts)?;
    if parts.method == Method::CONNECT {
        return Err(Reason::UnsupportedConnect.into());
    }
    let live = match routes {
        Routes::Here(live) => live,
        Routes::NotLoaded => return Err(Reason::NotLoaded.into()),
        Routes::Gone => return Ok(Box::new(to_vip(parts, authority, body, upgrade, connection))),
    };
    live.touch(limit.began.into_std().saturating_duration_since(connection.worker.shared.began).as_secs());
    if is_grpc(&live) && !head::is_grpc(&parts) {
        return Err(Reason::NotGrpc.into());
    }
    let selection = live.table.select(&request_head(&parts, authority.as_ref())).ok_or(Reason::NoRoute)?;
    limit.request = selection.rule.timeouts.request;
    let position = selection.position;
    let rule = live.rules.get(position.route).and_then(|rules| rules.get(position.rule)).ok_or(Reason::NoRoute)?;
    let told = record.told();
    told.route = Arc::clone(&rule.route);
    told.rule = Arc::clone(&rule.rule);
    let obeyed = Obeyed::new(&live.table, position);
    let mut routed = {
        let routed = pin!(route(parts, authority, &body, upgrade, connection, (&live, selection, rule), obeyed, record.told()));
        within(limit.end(), routed).await.unwrap_or(Err(Reason::RequestTimeout.into()))?
    };
    drop(live);
    let is_grpc = routed.prepared.is_grpc;
    mirror::send_copies(&connection.worker, std::mem::take(&mut routed.copies), &body, connection.destination, is_grpc);
    Ok(routed)
}

/// Its result, unless the time is over before; none: it is.
async fn within<T>(end: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match end {
        Some(end) => tokio::time::timeout_at(end, work).await.ok(),
        None => Some(work.await),
    }
}

/// Sends, and gives up once neither a part of the request nor the head of a response has moved for the idle limit, or the rule's time is over.
async fn send_within(connection: &Connection, prepared: &Prepared, limit: Limit, told: &mut Told) -> Result<Box<Sent>, Reason> {
    let idle = connection.worker.shared.limits.stream_idle;
    let RequestBody::Client(body) = &prepared.body else { return send(&connection.worker, prepared, told).await };
    let mut sent = pin!(send(&connection.worker, prepared, told));
    loop {
        let idle_end = body.moved() + idle;
        let end = limit.end().map_or(idle_end, |end| end.min(idle_end));
        match tokio::time::timeout_at(end, sent.as_mut()).await {
            Ok(result) => return result,
            Err(_) if limit.end().is_some_and(|end| end <= Instant::now()) => return Err(Reason::RequestTimeout),
            Err(_) if body.moved() + idle <= Instant::now() => return Err(Reason::StreamIdle),
            Err(_) => {}
        }
    }
}

/// A request whose routes are gone: what was dialled gets it, as without a mesh.
fn to_vip(
    mut parts: Box<Parts>,
    authority: Option<::http::HeaderValue>,
    body: Replayable,
    upgrade: Option<::http::HeaderValue>,
    connection: &Connection,
) -> Routed {
    head::strip_hop_by_hop(&mut parts.headers);
    let destination = connection.destination;
    let prepared = Prepared {
        target: Target::Vip(destination),
        parts,
        authority,
        body: RequestBody::Client(body),
        upgrade,
        destination,
        obeyed: None,
        kept: None,
        is_grpc: false,
    };
    Routed { prepared, changes: Vec::new(), copies: Vec::new(), session: None }
}

/// Everything that is decided before a byte is sent: filters, backend, session.
#[expect(clippy::too_many_arguments, reason = "each is one thing that the decision depends on")]
async fn route(
    mut parts: Box<Parts>,
    authority: Option<::http::HeaderValue>,
    body: &Replayable,
    upgrade: Option<::http::HeaderValue>,
    connection: &Connection,
    (live, selection, rule): (&LiveFrontend, routing::table::Selection<'_>, &LiveRule),
    obeyed: Obeyed,
    told: &mut Told,
) -> Result<Box<Routed>, Own> {
    let worker = &connection.worker;
    head::strip_hop_by_hop(&mut parts.headers);
    let mut filtered = Filtered {
        worker,
        passing: Passing { parts, authority },
        body,
        changes: Vec::new(),
        copies: Vec::new(),
        port: connection.frontend.0.port,
        destination: connection.destination,
    };
    let Chosen { backend, session, kept } = match choose(&mut filtered, &selection, rule, told).await {
        Ok(chosen) => chosen,
        // A browser, for one, is to see an error as it would see an answer.
        Err(own) => return Err(own.changed(filtered.changes)),
    };
    let Filtered { passing: Passing { parts, authority }, changes, copies, .. } = filtered;
    let prepared = Prepared {
        target: Target::Backend(backend),
        parts,
        authority,
        body: RequestBody::Client(body.clone()),
        upgrade,
        destination: connection.destination,
        obeyed: Some(obeyed),
        kept,
        is_grpc: is_grpc(live),
    };
    Ok(Box::new(Routed { prepared, changes, copies, session }))
}

/// Where a request goes.
struct Chosen {
    backend: Arc<LiveBackend>,
    session: Option<Session>,
    kept: Option<std::net::SocketAddr>,
}

/// Applies filters on the way to a backend.
async fn choose(
    filtered: &mut Filtered<'_>,
    selection: &routing::table::Selection<'_>,
    rule: &LiveRule,
    told: &mut Told,
) -> Result<Chosen, Own> {
    filtered.apply(&selection.rule.filters, selection.matched, rule).await?;
    let session = kept(selection.rule, rule, &filtered.passing.parts);
    let kept = session.as_ref().and_then(|(_, kept)| rule.session(&kept.as_ref()?.endpoint));
    // A session goes to its own backend even if that has no weight any more (GEP-1619).
    let chosen = match kept {
        Some((backend, _)) => backend,
        None => split::pick(&selection.rule.backends, filtered.worker.random()).ok_or(Reason::NoBackend)?,
    };
    let weighted = selection.rule.backends.get(chosen).ok_or(Reason::NoBackend)?;
    if matches!(weighted.target, BackendTarget::Invalid(_)) {
        return Err(Reason::InvalidBackend.into());
    }
    let backend = rule.backends.get(chosen).and_then(Clone::clone).ok_or(Reason::NoEndpoint)?;
    told.backend = Arc::clone(&backend.name);
    filtered.apply(&weighted.filters, selection.matched, rule).await?;
    let session = match session {
        Some((persistence, kept)) => Some(Session { persistence, scope: rule.scope.clone(), backend: Arc::clone(&backend), kept }),
        None => of_backend(&backend, &filtered.passing.parts),
    };
    let kept = kept.map(|(_, address)| address).or_else(|| session.as_ref().and_then(Session::address));
    Ok(Chosen { backend, session, kept })
}

/// The rule's own persistence, and the session that a request comes with.
fn kept(rule: &Rule, live: &LiveRule, parts: &Parts) -> Option<(Persistence, Option<Kept>)> {
    let persistence = rule.persistence.clone()?;
    let kept = persistence.kept(&live.scope, &parts.headers, wall_clock());
    Some((persistence, kept))
}

/// The same of a backend's policy, for a rule that has none of its own.
fn of_backend(backend: &Arc<LiveBackend>, parts: &Parts) -> Option<Session> {
    let persistence = backend.model.persistence.clone()?;
    let scope = Scope::of_backend(&backend.model.id);
    let kept = persistence.kept(&scope, &parts.headers, wall_clock());
    Some(Session { persistence, scope, backend: Arc::clone(backend), kept })
}

impl Session {
    /// The endpoint that it keeps, looked for in its backend.
    fn address(&self) -> Option<std::net::SocketAddr> {
        let token = &self.kept.as_ref()?.endpoint;
        let mut endpoints = self.backend.v4.iter().chain(&self.backend.v6);
        let found = endpoints.find(|endpoint| self.scope.endpoint(&self.backend.model.id, endpoint.address) == *token);
        found.map(|endpoint| endpoint.address)
    }

    /// The header that makes the client come back to the endpoint that answered; none if it does already.
    fn establish(self, endpoint: std::net::SocketAddr) -> Option<(::http::HeaderName, ::http::HeaderValue)> {
        let token = self.scope.endpoint(&self.backend.model.id, endpoint);
        if self.kept.is_some_and(|kept| kept.endpoint == token) {
            return None;
        }
        self.persistence.establish(&self.scope, &Kept { since: wall_clock(), endpoint: token })
    }
}

/// Both sides stop speaking HTTP; from then on bytes are copied, without limits of time, until both have ended.
fn switch(
    response: Response<EndpointBody>,
    upgraded: Option<(Switch<Metered>, Switched)>,
    guards: Guards,
    used: Used,
) -> Response<ResponseBody> {
    let Some((client, mut endpoint)) = upgraded else {
        return Own::from(Reason::EndpointProtocol).response(Form::Whole, guards);
    };
    let (head, _) = response.into_parts();
    let Guards { mut record, in_flight } = guards;
    // Ends with both sides; the worker's LocalSet owns it.
    tokio::task::spawn_local(async move {
        let (_in_flight, _used) = (in_flight, used);
        let Some(mut client) = client.stream().await else { return debug!("the client did not take the upgrade") };
        match passthrough::copy_both(&mut client, &mut endpoint.stream).await {
            Ok(bytes) => record.told().bytes_sent = bytes,
            Err(error) => debug!(%error, "upgraded"),
        }
    });
    let mut response = Response::new(ResponseBody::Switched);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}
