//! What one filter does to a request on its way: the data path does it, an explanation tells it.

use std::num::NonZeroU16;

use http::header::ORIGIN;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};

use super::{authority_of, cors, leads_to_itself, location, rewrite_path};
use crate::matcher::RequestHead;
use crate::model::{ExternalAuth, Filter, HeaderEdit, Mirror, RouteMatch, Scheme};

/// A request's head on its way through filters.
#[derive(Clone, Debug)]
pub struct Passing {
    /// The head; large, and handed on often.
    pub parts: Box<Parts>,
    /// Host or `:authority`.
    pub authority: Option<HeaderValue>,
}

impl Passing {
    /// The head as routes see it.
    #[must_use]
    pub fn head(&self) -> RequestHead<'_> {
        request_head(&self.parts, self.authority.as_ref())
    }
}

/// A head as routes see it.
#[must_use]
pub fn request_head<'p>(parts: &'p Parts, authority: Option<&'p HeaderValue>) -> RequestHead<'p> {
    RequestHead {
        method: &parts.method,
        path: parts.uri.path(),
        query: parts.uri.query(),
        authority: authority.and_then(|authority| authority.to_str().ok()),
        headers: &parts.headers,
    }
}

/// What happens to a response.
#[derive(Clone, Debug)]
pub enum ResponseChange {
    /// A header modifier.
    Edit(HeaderEdit),
    /// A CORS filter's words instead of the backend's own about CORS.
    Cors(HeaderMap),
    /// This field is added.
    Add(HeaderName, HeaderValue),
}

impl ResponseChange {
    /// Makes it.
    pub fn apply(&self, headers: &mut HeaderMap) {
        match self {
            Self::Edit(edit) => edit.apply(headers),
            Self::Cors(fields) => {
                for name in cors::OF_ACTUAL {
                    headers.remove(name);
                }
                for (name, value) in fields {
                    if name == http::header::VARY {
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

/// What comes of a filter.
#[derive(Clone, Debug)]
pub enum Step<'f> {
    /// The request goes on, perhaps as another one.
    Passes,
    /// It goes on, and its response is changed.
    Changes(ResponseChange),
    /// It goes on, and some of its like are copied.
    Copies(&'f Mirror),
    /// An authorization service decides.
    Asks(&'f ExternalAuth),
    /// It ends here: the client is sent elsewhere.
    Redirects {
        /// The filter's.
        status: StatusCode,
        /// Where to.
        location: HeaderValue,
        /// A client that follows it asks for the very same again (digest D-14).
        leads_to_itself: bool,
    },
    /// It ends here: a preflight request is answered with these.
    Preflight(HeaderMap),
    /// It ends here: a redirect without a host to go to, or a rewrite that makes no request target; the text says which.
    InvalidTarget(String),
    /// It ends here: the filter cannot be obeyed; the text says why.
    Unsupported(&'f str),
}

impl Filter {
    /// Lets a request pass that was made to this port and came here by this match.
    pub fn step<'f>(&'f self, passing: &mut Passing, matched: &RouteMatch, port: NonZeroU16) -> Step<'f> {
        match self {
            Self::RequestHeaders(edit) => {
                edit.apply(&mut passing.parts.headers);
                if let Some(authority) = authority_of(edit) {
                    passing.authority = Some(authority.clone());
                }
                Step::Passes
            }
            Self::ResponseHeaders(edit) => Step::Changes(ResponseChange::Edit(edit.clone())),
            Self::Redirect(redirect) => {
                let head = passing.head();
                match location(redirect, &head, Scheme::Http, port, matched) {
                    Ok(location) => {
                        let leads_to_itself = leads_to_itself(&location, &head, Scheme::Http, port, matched);
                        Step::Redirects { status: redirect.status, location, leads_to_itself }
                    }
                    Err(error) => Step::InvalidTarget(error.to_string()),
                }
            }
            Self::Rewrite(rewrite) => {
                if let Some(hostname) = &rewrite.hostname {
                    match HeaderValue::try_from(hostname) {
                        Ok(hostname) => passing.authority = Some(hostname),
                        Err(_) => return Step::InvalidTarget(format!("{hostname:?} is no host")),
                    }
                }
                if let Some(modifier) = &rewrite.path {
                    let path = rewrite_path(modifier, matched, passing.parts.uri.path());
                    match with_path(&path, passing.parts.uri.query()) {
                        Some(uri) => passing.parts.uri = uri,
                        None => return Step::InvalidTarget(format!("{path:?} is no path")),
                    }
                }
                Step::Passes
            }
            Self::Cors(filter) => {
                let headers = &passing.parts.headers;
                if cors::is_preflight(&passing.parts.method, headers) {
                    return Step::Preflight(filter.preflight(headers));
                }
                if headers.contains_key(ORIGIN) { Step::Changes(ResponseChange::Cors(filter.actual(headers))) } else { Step::Passes }
            }
            Self::Mirror(mirror) => Step::Copies(mirror),
            Self::ExternalAuth(asked) => Step::Asks(asked),
            Self::Unsupported(what) => Step::Unsupported(what),
        }
    }
}

fn with_path(path: &str, query: Option<&str>) -> Option<Uri> {
    let text = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    PathAndQuery::try_from(text).map(Uri::from).ok()
}
