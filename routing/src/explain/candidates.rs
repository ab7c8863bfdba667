//! Matches in their order of precedence, and what became of each.

use serde::Serialize;

use crate::matcher::{Mismatch, RequestHead};
use crate::model::{Frontend, HeaderMatch, HostPattern, PathMatch, QueryMatch, RouteKind, RouteMatch, RpcMatch, ValueMatch};
use crate::precedence::Precedence;
use crate::table::{RouteTable, Selection};

/// A match of a rule.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// Its place in the order of precedence, from 1.
    pub rank: usize,
    /// Its route, `NAMESPACE/NAME`.
    pub route: String,
    /// Its rule: position in `spec.rules`.
    pub rule: u32,
    /// The rule's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_name: Option<String>,
    /// What it asks for.
    pub asks: String,
    /// What became of it.
    pub verdict: Verdict,
    /// Why.
    pub why: String,
}

/// What became of a match.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Its rule is obeyed.
    Won,
    /// The request has all that it asks for, and so it has of one that goes before.
    Lost,
    /// The request does not have what it asks for.
    Mismatched,
}

/// All of a table's.
pub(super) fn all(table: &RouteTable, head: &RequestHead<'_>) -> Vec<Candidate> {
    let mut winner: Option<(usize, Precedence)> = None;
    let verdicts = table.verdicts(head).enumerate().map(|(index, (selection, mismatch))| {
        let rank = index + 1;
        let Selection { route, rule, matched, position } = selection;
        let precedence = Precedence::of(route, rule, position.matched, matched);
        let (verdict, why) = match (mismatch, &winner) {
            (Some(mismatch), _) => (Verdict::Mismatched, lacks(mismatch, head)),
            (None, Some((first, before))) => {
                (Verdict::Lost, format!("rank {first} goes first: {}", before.goes_first_because(&precedence)))
            }
            (None, None) => {
                winner = Some((rank, precedence));
                (Verdict::Won, "the first that the request has everything for".to_owned())
            }
        };
        let route = format!("{}/{}", route.namespace, route.name);
        Candidate { rank, route, rule: rule.index, rule_name: rule.name.clone(), asks: asks(matched), verdict, why }
    });
    verdicts.collect()
}

/// Routes of connections whose bytes are not read: a server name chooses, or the oldest.
pub(super) fn of_streams(frontend: &Frontend, selected: Option<usize>, name: &str) -> Vec<Candidate> {
    let candidates = frontend.routes.iter().enumerate().map(|(index, route)| {
        let names: Vec<String> = route
            .hostnames
            .iter()
            .map(|pattern| match pattern {
                HostPattern::Exact(name) => name.clone(),
                HostPattern::Under(suffix) => format!("*{suffix}"),
            })
            .collect();
        let is_tls = frontend.kind == RouteKind::Tls;
        let (verdict, why) = match selected {
            Some(winner) if winner == index && is_tls => (Verdict::Won, "no other server name fits better".to_owned()),
            Some(winner) if winner == index => (Verdict::Won, "it is the oldest".to_owned()),
            _ if is_tls && !route.hostnames.iter().any(|pattern| pattern.accepts(name)) => {
                (Verdict::Mismatched, format!("the server name is {name:?}"))
            }
            _ => (Verdict::Lost, "another one fits better or is older".to_owned()),
        };
        Candidate {
            rank: index + 1,
            route: format!("{}/{}", route.namespace, route.name),
            rule: route.rules.first().map_or(0, |rule| rule.index),
            rule_name: None,
            asks: if is_tls { format!("server name {}", names.join(" or ")) } else { "any connection".to_owned() },
            verdict,
            why,
        }
    });
    candidates.collect()
}

fn lacks(mismatch: Mismatch<'_>, head: &RequestHead<'_>) -> String {
    match mismatch {
        Mismatch::Path(wanted) => format!("the path is {:?}, not {}", head.path, path(wanted)),
        Mismatch::Method(wanted) => format!("the method is {}, not {wanted}", head.method),
        Mismatch::Header(wanted) => {
            let values: Vec<_> = head.headers.get_all(&wanted.name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
            match (wanted.name == http::header::HOST, values.is_empty()) {
                (true, _) => format!("the host is {:?}, not {}", head.authority.unwrap_or_default(), value(&wanted.value)),
                (false, true) => format!("there is no header {}", wanted.name),
                (false, false) => format!("header {} is {:?}, not {}", wanted.name, values.join(", "), value(&wanted.value)),
            }
        }
        Mismatch::Query(wanted) => {
            let mut pairs = form_urlencoded::parse(head.query.unwrap_or_default().as_bytes());
            match pairs.find(|(name, _)| *name == wanted.name) {
                Some((_, found)) => format!("query parameter {} is {found:?}, not {}", wanted.name, value(&wanted.value)),
                None => format!("there is no query parameter {}", wanted.name),
            }
        }
    }
}

/// What a match asks for, in one line.
fn asks(matched: &RouteMatch) -> String {
    let method = matched.method.iter().map(|method| format!("method {method}"));
    let headers = matched.headers.iter().map(|HeaderMatch { name, value: wanted }| format!("header {name} {}", value(wanted)));
    let query = matched.query.iter().map(|QueryMatch { name, value: wanted }| format!("query parameter {name} {}", value(wanted)));
    std::iter::once(format!("path {}", path(&matched.path))).chain(method).chain(headers).chain(query).collect::<Vec<_>>().join(", ")
}

fn path(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(exact) => format!("exactly {exact:?}"),
        PathMatch::Prefix(prefix) => format!("under {prefix:?}"),
        PathMatch::Regex(pattern) => format!("like /{}/", pattern.source()),
        PathMatch::Rpc(RpcMatch { service, method }) => {
            let part = |wanted: &Option<ValueMatch>| wanted.as_ref().map_or("any".to_owned(), value);
            format!("of service {}, method {}", part(service), part(method))
        }
    }
}

fn value(wanted: &ValueMatch) -> String {
    match wanted {
        ValueMatch::Exact(exact) => format!("{exact:?}"),
        ValueMatch::Regex(pattern) => format!("like /{}/", pattern.source()),
    }
}
