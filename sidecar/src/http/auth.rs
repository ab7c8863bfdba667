//! ExternalAuth (GEP-1494; digest H-18): asks an authorization service before a request goes on. Whatever goes wrong, nothing passes.

use std::sync::Arc;
use std::time::Duration;

use ::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRAILER};
use ::http::request::Parts;
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Limited};
use prost::Message;
use proto::ext_authz as wire;
use routing::filter::step::ResponseChange;
use routing::model::{AuthProtocol, BackendTarget, ExternalAuth};
use tracing::debug;

use super::filters::Filtered;
use super::head;
use super::own::{Own, Words};
use super::prepared::{Prepared, RequestBody, Target};
use super::send::{Sent, send};
use crate::reason::Reason;
use crate::snapshot::LiveRule;
use crate::telemetry::Told;

/// An authorization service has this long to answer.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Its answer is read up to this.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Where Envoy's protocol is spoken.
const CHECK_PATH: &str = "/envoy.service.auth.v3.Authorization/Check";
/// A flag and a length before each message.
const GRPC_PREFIX_BYTES: usize = 5;

/// Goes on if the service says yes; its no is the answer.
pub(crate) async fn authorize(filtered: &mut Filtered<'_>, asked: &ExternalAuth, rule: &LiveRule) -> Result<(), Own> {
    let body = forwarded(filtered, asked.body_bytes_max).await?;
    let backend = match (&asked.target, rule.other(&asked.target)) {
        (BackendTarget::Invalid(_), _) => return Err(Reason::InvalidBackend.into()),
        (BackendTarget::Backend(_), None) => return Err(Reason::AuthUnavailable.into()),
        (BackendTarget::Backend(_), Some(backend)) => backend,
    };
    let (parts, body, is_grpc) = match &asked.protocol {
        AuthProtocol::Http { path, allowed_headers, .. } => (http_request(filtered, path, allowed_headers, &body)?, body, false),
        AuthProtocol::Grpc { allowed_headers } => {
            let (parts, body) = grpc_request(filtered, allowed_headers, body);
            (parts, body, true)
        }
    };
    let authority =
        if is_grpc { HeaderValue::try_from(backend.model.id.0.service.name.clone()).ok() } else { filtered.passing.authority.clone() };
    let prepared = Prepared {
        target: Target::Backend(backend),
        parts,
        authority,
        body: RequestBody::Own(body),
        upgrade: None,
        destination: filtered.destination,
        obeyed: None,
        kept: None,
        is_grpc,
    };
    let answer = match tokio::time::timeout(TIME_MAX, ask(filtered, &prepared)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(why)) => {
            debug!(why, "authorization service");
            return Err(Reason::AuthUnavailable.into());
        }
        Err(_) => return Err(Reason::AuthUnavailable.into()),
    };
    match &asked.protocol {
        AuthProtocol::Http { allowed_response_headers, .. } => obey_http(filtered, answer, allowed_response_headers),
        AuthProtocol::Grpc { .. } => obey_grpc(filtered, &answer),
    }
}

/// So much of the body as the service is to see; a longer one is refused.
async fn forwarded(filtered: &Filtered<'_>, body_bytes_max: u32) -> Result<Bytes, Own> {
    if body_bytes_max == 0 {
        return Ok(Bytes::new());
    }
    let max = usize::try_from(body_bytes_max).unwrap_or(usize::MAX);
    match filtered.body.first_bytes(max).await {
        Ok((bytes, false)) => Ok(bytes),
        Ok((_, true)) => Err(Reason::AuthBodyTooLarge.into()),
        Err(_) => Err(Reason::RequestAborted.into()),
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

async fn ask(filtered: &Filtered<'_>, prepared: &Prepared) -> Result<Answer, &'static str> {
    let worker = filtered.worker;
    let empty = &worker.shared.empty;
    let mut told = Told::new(Arc::clone(empty), empty);
    let Sent { response, used, .. } = *send(worker, prepared, &mut told).await.map_err(Reason::label)?;
    let (head, body) = response.into_parts();
    let collected = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|_| "its answer is too long or broke off")?;
    let mut headers = head.headers;
    if let Some(trailers) = collected.trailers() {
        headers.extend(trailers.clone());
    }
    worker.pool.give_back(used.lease);
    Ok(Answer { status: head.status, headers, body: collected.to_bytes() })
}

/// The client's method, path and Host, and the headers that are always sent or were asked for.
fn http_request(filtered: &Filtered<'_>, prefix: &str, allowed: &[HeaderName], body: &Bytes) -> Result<Box<Parts>, Own> {
    let target = filtered.passing.parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let uri: Uri = format!("{prefix}{target}").parse().map_err(|_| Reason::InvalidTarget)?;
    let mut headers = HeaderMap::new();
    for name in [&AUTHORIZATION].into_iter().chain(allowed).filter(|name| !is_framing(name)) {
        copy(&filtered.passing.parts.headers, &mut headers, name);
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    Ok(parts(filtered.passing.parts.method.clone(), uri, Version::HTTP_11, headers))
}

fn grpc_request(filtered: &Filtered<'_>, allowed: &[HeaderName], body: Bytes) -> (Box<Parts>, Bytes) {
    let head = &filtered.passing.parts;
    let mut headers = std::collections::BTreeMap::new();
    for name in head.headers.keys().filter(|name| allowed.is_empty() || allowed.contains(name)) {
        let values: Vec<_> = head.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        headers.insert(name.to_string(), values.join(","));
    }
    let request = wire::attribute_context::HttpRequest {
        method: head.method.to_string(),
        headers,
        path: head.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        host: filtered.passing.authority.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned(),
        scheme: "http".to_owned(),
        size: i64::try_from(body.len()).unwrap_or(-1),
        protocol: if head.version == Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" }.to_owned(),
        raw_body: body.to_vec(),
    };
    let context = wire::AttributeContext { request: Some(wire::attribute_context::Request { http: Some(request) }) };
    let message = wire::CheckRequest { attributes: Some(context) }.encode_to_vec();
    let mut framed = BytesMut::with_capacity(GRPC_PREFIX_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.extend_from_slice(&message);
    let headers = [(CONTENT_TYPE, "application/grpc"), (TE, "trailers")].map(|(name, value)| (name, HeaderValue::from_static(value)));
    (parts(Method::POST, Uri::from_static(CHECK_PATH), Version::HTTP_2, headers.into_iter().collect()), framed.freeze())
}

fn parts(method: Method, uri: Uri, version: Version, headers: HeaderMap) -> Box<Parts> {
    let mut parts = Box::new(::http::Request::new(()).into_parts().0);
    (parts.method, parts.uri, parts.version, parts.headers) = (method, uri, version, headers);
    parts
}

/// 200 and nothing else is a yes; 3xx and 4xx are the service's own answer to the client.
fn obey_http(filtered: &mut Filtered<'_>, mut answer: Answer, allowed: &[HeaderName]) -> Result<(), Own> {
    head::strip_hop_by_hop(&mut answer.headers);
    if answer.status != StatusCode::OK {
        return Err(match answer.status {
            status if status.is_redirection() || status.is_client_error() => denied(status, answer.headers, answer.body),
            status if status.is_server_error() => Reason::AuthUnavailable.into(),
            _ => Reason::AuthDenied.into(),
        });
    }
    let names: Vec<HeaderName> = answer.headers.keys().filter(|name| allowed.is_empty() || allowed.contains(name)).cloned().collect();
    for name in names.iter().filter(|name| !is_framing(name)) {
        filtered.passing.parts.headers.remove(name);
        copy(&answer.headers, &mut filtered.passing.parts.headers, name);
    }
    Ok(())
}

fn obey_grpc(filtered: &mut Filtered<'_>, answer: &Answer) -> Result<(), Own> {
    let is_ok = answer.headers.get(head::GRPC_STATUS).is_some_and(|status| status == "0");
    let mut body = answer.body.clone();
    if !is_ok || body.len() < GRPC_PREFIX_BYTES || body[0] != 0 {
        debug!(status = ?answer.headers.get(head::GRPC_STATUS), "authorization service");
        return Err(Reason::AuthUnavailable.into());
    }
    body.advance(GRPC_PREFIX_BYTES);
    let response = wire::CheckResponse::decode(body).map_err(|error| {
        debug!(%error, "authorization service");
        Reason::AuthUnavailable
    })?;
    let is_allowed = response.status.as_ref().is_none_or(|status| status.code == 0);
    match response.http_response {
        Some(wire::check_response::HttpResponse::DeniedResponse(no)) => {
            let status = no.status.and_then(|status| u16::try_from(status.code).ok()).and_then(|code| StatusCode::from_u16(code).ok());
            // A no that looks like a yes, or like no answer at all, is none.
            let status = status.filter(|status| status.is_redirection() || status.is_client_error() || status.is_server_error());
            let mut headers = HeaderMap::new();
            set(&mut headers, no.headers);
            Err(denied(status.unwrap_or(StatusCode::FORBIDDEN), headers, no.body.into()))
        }
        _ if !is_allowed => Err(Reason::AuthDenied.into()),
        Some(wire::check_response::HttpResponse::OkResponse(yes)) => {
            for name in yes.headers_to_remove.iter().filter_map(|name| name.parse::<HeaderName>().ok()).filter(|name| !is_framing(name)) {
                filtered.passing.parts.headers.remove(name);
            }
            set(&mut filtered.passing.parts.headers, yes.headers);
            for (name, value, _) in yes.response_headers_to_add.into_iter().filter_map(header) {
                filtered.changes.push(ResponseChange::Add(name, value));
            }
            Ok(())
        }
        None => Ok(()),
    }
}

fn set(headers: &mut HeaderMap, options: Vec<wire::HeaderValueOption>) {
    for (name, value, is_appended) in options.into_iter().filter_map(header) {
        if is_appended {
            headers.append(name, value);
        } else {
            headers.insert(name, value);
        }
    }
}

/// Name, value, and whether it comes beside what is there; none for what is no header or is not the service's to set.
fn header(option: wire::HeaderValueOption) -> Option<(HeaderName, HeaderValue, bool)> {
    let header = option.header?;
    let name: HeaderName = header.key.parse().ok().filter(|name| !is_framing(name))?;
    let value = if header.raw_value.is_empty() { header.value.into_bytes() } else { header.raw_value };
    Some((name, HeaderValue::from_bytes(&value).ok()?, option.append.unwrap_or(false)))
}

fn denied(status: StatusCode, mut headers: HeaderMap, body: Bytes) -> Own {
    headers.remove(CONTENT_LENGTH);
    Own::with_words(Reason::AuthDenied, Words { status, headers, body })
}

/// What says how long a message is and what it is made of belongs to that message; Host is the route's.
fn is_framing(name: &HeaderName) -> bool {
    *name == HOST || *name == TRAILER || name.as_str().starts_with("content-") || head::is_hop_by_hop(name)
}

fn copy(from: &HeaderMap, to: &mut HeaderMap, name: &HeaderName) {
    for value in from.get_all(name) {
        to.append(name.clone(), value.clone());
    }
}
