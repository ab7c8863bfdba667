//! Filters, with the request before and after.

use std::num::NonZeroU16;

use serde::Serialize;

use super::{Outcome, ended};
use crate::filter::step::{Passing, ResponseChange, Step};
use crate::model::{BackendId, BackendTarget, Filter, RouteMatch};

/// A filter that had its turn.
#[derive(Clone, Debug, Serialize)]
pub struct Applied {
    /// Its type, as in the object.
    pub filter: &'static str,
    /// What it does to this request.
    pub effect: String,
    /// The request line before.
    pub before: String,
    /// And after it.
    pub after: String,
}

/// Lets a request pass; the outcome is there if one of the filters ends its way. `cannot_ask` says what a request gets whose service cannot be asked.
pub(super) fn apply(
    filters: &[Filter],
    passing: &mut Passing,
    (matched, port): (&RouteMatch, NonZeroU16),
    cannot_ask: &impl Fn(&BackendId) -> Option<Outcome>,
) -> (Vec<Applied>, Option<Outcome>) {
    let mut applied = Vec::new();
    for filter in filters {
        let headers = passing.parts.headers.clone();
        let before = line(passing);
        let step = filter.step(passing, matched, port);
        let effect = match &step {
            Step::Passes => match passing.parts.headers == headers && before == line(passing) {
                true => "nothing, for this request".to_owned(),
                false => edits(&headers, &passing.parts.headers),
            },
            Step::Changes(ResponseChange::Edit(_)) => "changes headers of the response".to_owned(),
            Step::Changes(ResponseChange::Cors(_) | ResponseChange::Add(..)) => "adds headers to the response".to_owned(),
            Step::Copies(mirror) => match &mirror.target {
                BackendTarget::Backend(id) => {
                    format!("copies {} of {} such requests to {id}", mirror.fraction.numerator, mirror.fraction.denominator)
                }
                BackendTarget::Invalid(fault) => format!("copies nothing: {}: {}", fault.reason.as_str(), fault.message),
            },
            Step::Asks(asked) => match &asked.target {
                BackendTarget::Backend(id) => match cannot_ask(id) {
                    Some(why) => format!("lets nothing pass: {}", why.message),
                    None => format!("asks {id}; a yes lets it pass"),
                },
                BackendTarget::Invalid(fault) => format!("lets nothing pass: {}: {}", fault.reason.as_str(), fault.message),
            },
            Step::Redirects { .. } | Step::Preflight(_) | Step::InvalidTarget(_) | Step::Unsupported(_) => "answers".to_owned(),
        };
        let outcome = ended(&step, cannot_ask);
        applied.push(Applied { filter: name(filter), effect, before, after: line(passing) });
        if outcome.is_some() {
            return (applied, outcome);
        }
    }
    (applied, None)
}

fn line(passing: &Passing) -> String {
    let host = passing.authority.as_ref().map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned()).unwrap_or_default();
    let target = passing.parts.uri.path_and_query().map_or("/", |path| path.as_str());
    format!("{} {host}{target}", passing.parts.method)
}

fn edits(before: &http::HeaderMap, after: &http::HeaderMap) -> String {
    let text = |headers: &http::HeaderMap, name: &http::HeaderName| {
        let values: Vec<_> = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
        values.join(", ")
    };
    let set = after.keys().filter(|name| text(before, name) != text(after, name)).map(|name| format!("{name}: {}", text(after, name)));
    let gone = before.keys().filter(|name| !after.contains_key(*name)).map(|name| format!("without {name}"));
    let edits: Vec<String> = set.chain(gone).collect();
    if edits.is_empty() { "rewrites it".to_owned() } else { edits.join("; ") }
}

fn name(filter: &Filter) -> &'static str {
    match filter {
        Filter::RequestHeaders(_) => "RequestHeaderModifier",
        Filter::ResponseHeaders(_) => "ResponseHeaderModifier",
        Filter::Redirect(_) => "RequestRedirect",
        Filter::Rewrite(_) => "URLRewrite",
        Filter::Mirror(_) => "RequestMirror",
        Filter::Cors(_) => "CORS",
        Filter::ExternalAuth(_) => "ExternalAuth",
        Filter::Unsupported(_) => "unsupported",
    }
}
