//! Whether one match accepts every request that another one accepts. Where that cannot be known, it is said not to.

use crate::matcher::after_prefix;
use crate::model::{PathMatch, RouteMatch, RpcMatch, ValueMatch};

/// Whether `wide` accepts whatever `narrow` accepts.
pub(super) fn covers(wide: &RouteMatch, narrow: &RouteMatch) -> bool {
    let has_header = |wanted: &crate::model::HeaderMatch| {
        narrow.headers.iter().any(|header| header.name == wanted.name && value_covers(&wanted.value, &header.value))
    };
    let has_query = |wanted: &crate::model::QueryMatch| {
        narrow.query.iter().any(|query| query.name == wanted.name && value_covers(&wanted.value, &query.value))
    };
    path_covers(&wide.path, &narrow.path)
        && (wide.method.is_none() || wide.method == narrow.method)
        && wide.headers.iter().all(has_header)
        && wide.query.iter().all(has_query)
}

fn path_covers(wide: &PathMatch, narrow: &PathMatch) -> bool {
    match (wide, narrow) {
        (PathMatch::Prefix(wide), PathMatch::Prefix(narrow)) => {
            // With or without its last slash a prefix means the same.
            after_prefix(wide, narrow.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(narrow)).is_some()
        }
        (PathMatch::Regex(wide), PathMatch::Regex(narrow)) => wide == narrow,
        (PathMatch::Rpc(wide), PathMatch::Rpc(narrow)) => rpc_covers(wide, narrow),
        (wide, PathMatch::Exact(path)) => wide.accepts(path),
        (_, _) => false,
    }
}

fn rpc_covers(wide: &RpcMatch, narrow: &RpcMatch) -> bool {
    let covers = |wide: &Option<ValueMatch>, narrow: &Option<ValueMatch>| match (wide, narrow) {
        (None, _) => true,
        (Some(wide), Some(narrow)) => value_covers(wide, narrow),
        (Some(_), None) => false,
    };
    covers(&wide.service, &narrow.service) && covers(&wide.method, &narrow.method)
}

fn value_covers(wide: &ValueMatch, narrow: &ValueMatch) -> bool {
    match (wide, narrow) {
        (wide, ValueMatch::Exact(value)) => wide.accepts(value),
        (wide, narrow) => wide == narrow,
    }
}
