//! A request's head while the filters of its rule, and of its backend, are applied in their order.

use std::rc::Rc;
use std::sync::Arc;

use ::http::header::{LOCATION, ORIGIN};
use ::http::request::Parts;
use ::http::uri::PathAndQuery;
use ::http::{HeaderMap, HeaderValue, Uri};
use routing::filter::{authority_of, cors, leads_to_itself, location, rewrite_path};
use routing::matcher::RequestHead;
use routing::model::{Filter, HeaderEdit, RouteMatch, Scheme};
use tracing::debug;

use super::auth;
use super::body::Replayable;
use super::own::Own;
use crate::reason::Reason;
use crate::snapshot::{LiveBackend, LiveRule};
use crate::worker::Worker;

/// What happens to a response.
#[derive(Debug)]
pub(crate) enum ResponseChange {
    /// A header modifier.
    Edit(HeaderEdit),
    /// A CORS filter's words instead of the backend's own about CORS.
    Cors(HeaderMap),
    /// This field is added.
    Add(::http::HeaderName, HeaderValue),
}

impl ResponseChange {
    /// Makes it.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        match self {
            Self::Edit(edit) => edit.apply(headers),
            Self::Cors(fields) => {
                for name in cors::OF_ACTUAL {
                    headers.remove(name);
                }
                for (name, value) in fields {
                    if name == ::http::header::VARY {
                        headers.append(name, value.clone());
                    } else {
                        headers.insert(name, value.clone());
                    }
                }
            }
            Self::Add(name, value) => drop(headers.append(name, value.clone())),
        }
    }
}

/// A copy of a request on its way to a mirror: as it was when the mirror's filter had its turn.
#[derive(Debug)]
pub(crate) struct Copy {
    /// Where it goes.
    pub(crate) backend: Arc<LiveBackend>,
    /// Its head.
    pub(crate) parts: Parts,
    /// Host or `:authority`.
    pub(crate) authority: Option<HeaderValue>,
}

/// A request's head while filters are applied in their order.
pub(crate) struct Filtered<'r> {
    /// Who applies them.
    pub(crate) worker: &'r Rc<Worker>,
    /// The head.
    pub(crate) parts: Parts,
    /// Host or `:authority`.
    pub(crate) authority: Option<HeaderValue>,
    /// The body, for who has to see it first.
    pub(crate) body: &'r Replayable,
    /// What happens to the response.
    pub(crate) changes: Vec<ResponseChange>,
    /// Copies to be sent.
    pub(crate) copies: Vec<Copy>,
    /// The port that was dialled.
    pub(crate) port: std::num::NonZeroU16,
    /// The address that was dialled.
    pub(crate) destination: std::net::SocketAddr,
}

/// A head as routes see it.
pub(crate) fn request_head<'p>(parts: &'p Parts, authority: Option<&'p HeaderValue>) -> RequestHead<'p> {
    RequestHead {
        method: &parts.method,
        path: parts.uri.path(),
        query: parts.uri.query(),
        authority: authority.and_then(|authority| authority.to_str().ok()),
        headers: &parts.headers,
    }
}

impl Filtered<'_> {
    /// Applies filters in their order; an answer of one of them ends it.
    pub(crate) async fn apply(&mut self, filters: &[Filter], matched: &RouteMatch, rule: &LiveRule) -> Result<(), Own> {
        for filter in filters {
            if let Filter::ExternalAuth(asked) = filter {
                // Rare, and large: nobody else's request is to have room for it.
                Box::pin(auth::authorize(self, asked, rule)).await?;
            } else {
                self.apply_one(filter, matched, rule)?;
            }
        }
        Ok(())
    }

    fn apply_one(&mut self, filter: &Filter, matched: &RouteMatch, rule: &LiveRule) -> Result<(), Own> {
        match filter {
            Filter::RequestHeaders(edit) => {
                edit.apply(&mut self.parts.headers);
                if let Some(authority) = authority_of(edit) {
                    self.authority = Some(authority.clone());
                }
            }
            Filter::ResponseHeaders(edit) => self.changes.push(ResponseChange::Edit(edit.clone())),
            Filter::Redirect(redirect) => {
                let head = request_head(&self.parts, self.authority.as_ref());
                let location = location(redirect, &head, Scheme::Http, self.port, matched).map_err(|error| {
                    debug!(%error, "redirect");
                    Reason::InvalidTarget
                })?;
                if leads_to_itself(&location, &head, Scheme::Http, self.port, matched) {
                    self.worker.shared.telemetry.redirect_loop(&rule.route);
                }
                let mut headers = HeaderMap::with_capacity(4);
                headers.insert(LOCATION, location);
                return Err(Own::with_headers(Reason::Redirect(redirect.status), headers));
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
            Filter::Cors(filter) => {
                if cors::is_preflight(&self.parts.method, &self.parts.headers) {
                    return Err(Own::with_headers(Reason::Preflight, filter.preflight(&self.parts.headers)));
                }
                if self.parts.headers.contains_key(ORIGIN) {
                    self.changes.push(ResponseChange::Cors(filter.actual(&self.parts.headers)));
                }
            }
            Filter::Mirror(mirror) => {
                if mirror.fraction.takes(self.worker.random())
                    && let Some(backend) = rule.other(&mirror.target)
                {
                    self.copies.push(Copy { backend, parts: self.parts.clone(), authority: self.authority.clone() });
                }
            }
            Filter::Unsupported(what) => {
                debug!(what, "unsupported filter");
                return Err(Reason::UnsupportedFilter.into());
            }
            // It has to be waited for: see `apply`.
            Filter::ExternalAuth(_) => return Err(Reason::UnsupportedFilter.into()),
        }
        Ok(())
    }
}

fn with_path(path: &str, query: Option<&str>) -> Result<Uri, Reason> {
    let text = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    PathAndQuery::try_from(text).map(Uri::from).map_err(|_| Reason::InvalidTarget)
}
