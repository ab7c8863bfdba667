//! Which TLSRoute gets a connection (D-20).

use serde_json::Value;

use super::{Request, Winner, items, keep, keep_most, oldest, text, winner_of};

/// "match SNI against hostnames (exact, "*." suffix; most specific, then oldest)".
pub(super) fn winner(routes: &[&Value], request: &Request) -> Option<Winner> {
    let asked = request.server_name.to_lowercase();
    let pairs = routes.iter().flat_map(|route| items(&route["spec"]["hostnames"]).map(move |name| (*route, text(name))));
    let mut left: Vec<(&Value, &str)> = pairs.filter(|(_, name)| fits(name, &asked)).collect();
    keep(&mut left, |(_, name)| !name.starts_with('*'));
    keep_most(&mut left, |(_, name)| name.chars().count());
    let routes: Vec<&Value> = left.into_iter().map(|(route, _)| route).collect();
    oldest(&routes).map(|route| winner_of(route, 0))
}

/// "`*.example.com` would match both `test.example.com`, and `foo.test.example.com`", not `example.com` (TLSRouteSpec.hostnames).
fn fits(name: &str, asked: &str) -> bool {
    let labels = |name: &str| name.split('.').rev().map(str::to_owned).collect::<Vec<_>>();
    match name.strip_prefix("*.") {
        Some(rest) => labels(asked).starts_with(&labels(rest)) && labels(asked).len() > labels(rest).len(),
        None => name == asked,
    }
}
