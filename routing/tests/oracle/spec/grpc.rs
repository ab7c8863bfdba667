//! Which rule of a GRPCRoute wins (G-1, G-2; `GRPCRouteRule.matches`).

use serde_json::{Value, json};

use super::{CART_ANY, Candidate, GET_OR_LIST, Request, Winner, first_by_age, has_header, items, keep_most, once, text, valid};

/// A match that the call satisfies.
struct Satisfied<'v> {
    route: &'v Value,
    rule: u64,
    service: usize,
    method: usize,
    headers: usize,
}

impl Candidate for Satisfied<'_> {
    fn route(&self) -> &Value {
        self.route
    }

    fn rule(&self) -> u64 {
        self.rule
    }
}

/// "Proxy or Load Balancer routing configuration generated from GRPCRoutes MUST prioritize rules based on the following criteria, continuing on
/// ties. Merging MUST not be done between GRPCRoutes and HTTPRoutes. Precedence MUST be given to the rule with the largest number of:"
pub(super) fn winner(routes: &[&Value], request: &Request) -> Option<Winner> {
    let mut left = candidates(routes, request);
    // Characters in a matching service.
    keep_most(&mut left, |candidate| candidate.service);
    // Characters in a matching method.
    keep_most(&mut left, |candidate| candidate.method);
    // Header matches.
    keep_most(&mut left, |candidate| candidate.headers);
    first_by_age(left)
}

fn candidates<'v>(routes: &[&'v Value], request: &Request) -> Vec<Satisfied<'v>> {
    let mut found = Vec::new();
    for route in routes {
        for (index, rule) in valid::rules(route) {
            // "If no matches are specified, the implementation MUST match every gRPC request."
            let everything = [json!({})];
            let written: Vec<&Value> = items(&rule["matches"]).collect();
            let written = if written.is_empty() { everything.iter().collect() } else { written };
            for written in written.into_iter().filter(|written| accepts(written, request)) {
                let characters = |part: &str| text(&written["method"][part]).chars().count();
                let headers = once(&written["headers"], true).len();
                found.push(Satisfied { route, rule: index, service: characters("service"), method: characters("method"), headers });
            }
        }
    }
    found
}

/// "service only = any method"; what is not written is not asked for. A call's path is `/` service `/` method, and a method has no slash.
fn accepts(written: &Value, request: &Request) -> bool {
    let call = request.path().strip_prefix('/').and_then(|path| path.rsplit_once('/'));
    let asked = &written["method"];
    let asks_nothing = asked.get("service").is_none() && asked.get("method").is_none();
    let has_method = match call {
        Some((service, method)) => has(asked, "service", service) && has(asked, "method", method),
        None => asks_nothing,
    };
    has_method && once(&written["headers"], true).into_iter().all(|entry| has_header(entry, request))
}

/// Case-sensitive.
fn has(asked: &Value, part: &str, value: &str) -> bool {
    let Some(wanted) = asked.get(part).map(text) else { return true };
    match wanted {
        CART_ANY if asked["type"] == "RegularExpression" => value.starts_with("shop.Cart"),
        GET_OR_LIST if asked["type"] == "RegularExpression" => value == "Get" || value == "List",
        exact => value == exact,
    }
}
