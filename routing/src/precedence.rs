//! The total order of matches "across all rules specified on applicable Routes" (HTTPRouteRule.matches).
//!
//! Invariant: no two matches of a frontend compare equal, so arrival order never decides.

use std::cmp::Reverse;

use crate::model::{PathMatch, Route, RouteMatch, Rule, ValueMatch};

/// Derived order = field order = the list in `HTTPRouteRule.matches` and in `GRPCRouteRule.matches`; the smaller goes first.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Precedence {
    path: PathRank,
    method: Reverse<bool>,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    oldest: i64,
    /// `{namespace}/{name}`, compared as one text.
    route: String,
    rule: u32,
    /// Position in `matches`: one rule either way, but a prefix rewrite needs to know which prefix it was.
    position: usize,
}

/// Exact before patterns before prefixes (patterns are implementation-specific), longer first.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
enum PathRank {
    Exact,
    Regex(Reverse<usize>),
    Prefix(Reverse<usize>),
    /// Characters in the service, then in the method (GRPCRouteRule.matches); never beside the others, since kinds do not mix.
    Rpc(Reverse<usize>, Reverse<usize>),
}

impl Precedence {
    pub(crate) fn of(route: &Route, rule: &Rule, position: usize, matched: &RouteMatch) -> Self {
        let path = match &matched.path {
            PathMatch::Exact(_) => PathRank::Exact,
            PathMatch::Regex(pattern) => PathRank::Regex(Reverse(pattern.source().chars().count())),
            PathMatch::Prefix(prefix) => PathRank::Prefix(Reverse(prefix.chars().count())),
            PathMatch::Rpc(rpc) => {
                PathRank::Rpc(Reverse(written_length(rpc.service.as_ref())), Reverse(written_length(rpc.method.as_ref())))
            }
        };
        Self {
            path,
            method: Reverse(matched.method.is_some()),
            headers: Reverse(matched.headers.len()),
            query: Reverse(matched.query.len()),
            oldest: route.created_s,
            route: format!("{}/{}", route.namespace, route.name),
            rule: rule.index,
            position,
        }
    }
}

impl Precedence {
    /// Why this one goes before a later one, in the words of the list.
    pub(crate) fn goes_first_because(&self, later: &Self) -> &'static str {
        if self.path != later.path {
            match (&self.path, &later.path) {
                (PathRank::Exact, _) => "its path is exact",
                (PathRank::Regex(_), PathRank::Prefix(_)) => "its path is a pattern and not a prefix",
                (PathRank::Rpc(..), _) => "its service or method is longer",
                (PathRank::Regex(_) | PathRank::Prefix(_), _) => "its path is longer",
            }
        } else if self.method != later.method {
            "it asks for a method"
        } else if self.headers != later.headers {
            "it asks for more headers"
        } else if self.query != later.query {
            "it asks for more query parameters"
        } else if self.oldest != later.oldest {
            "its route is older"
        } else if self.route != later.route {
            "its route's name comes first in the alphabet"
        } else if self.rule != later.rule {
            "its rule comes first in the route"
        } else {
            "it comes first in the rule"
        }
    }
}

fn written_length(value: Option<&ValueMatch>) -> usize {
    value.map_or(0, |value| match value {
        ValueMatch::Exact(text) => text.chars().count(),
        ValueMatch::Regex(pattern) => pattern.source().chars().count(),
    })
}
