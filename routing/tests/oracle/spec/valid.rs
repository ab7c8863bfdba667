//! Which rules can be obeyed (H-8, H-10, S-6): of everything that is generated, the oracle knows what is wrong with it.

use serde_json::{Value, json};

use super::{BROKEN, duration, headers, items, text};

/// The rules as they stand; an HTTPRoute without any has one that matches everything.
pub(super) fn written(route: &Value) -> Vec<Value> {
    let rules: Vec<Value> = items(&route["spec"]["rules"]).cloned().collect();
    if rules.is_empty() && route["kind"] == "HTTPRoute" { vec![json!({})] } else { rules }
}

/// Those that can be obeyed, with their positions: bad rules are dropped and leave the others alone.
pub(super) fn rules(route: &Value) -> Vec<(u64, Value)> {
    (0..).zip(written(route)).filter(|(_, rule)| fault(route, rule).is_none()).collect()
}

/// The reason of the first rule that cannot be obeyed.
pub(super) fn reason(route: &Value) -> &'static str {
    written(route).iter().find_map(|rule| fault(route, rule)).unwrap_or_default()
}

fn fault(route: &Value, rule: &Value) -> Option<&'static str> {
    let has_backends = items(&rule["backendRefs"]).next().is_some();
    match text(&route["kind"]) {
        // "hostnames required, no IPs" (L-4); "1..16 backendRefs" (L-2).
        "TLSRoute" => {
            let has_names = items(&route["spec"]["hostnames"]).next().is_some();
            (!has_names || !has_backends).then_some("UnsupportedValue")
        }
        "TCPRoute" => (!has_backends).then_some("UnsupportedValue"),
        _ => match_fault(rule).or_else(|| filter_fault(rule)).or_else(|| time_fault(rule)),
    }
}

/// "unknown enum / bad regex" (S-8).
fn match_fault(rule: &Value) -> Option<&'static str> {
    let typed = |value: &Value, known: &[&str]| {
        let kind = value["type"].as_str();
        let is_broken = ["value", "service", "method"].iter().any(|part| value[*part] == BROKEN) && kind == Some("RegularExpression");
        kind.is_some_and(|kind| !known.contains(&kind)) || is_broken
    };
    let is_bad = items(&rule["matches"]).any(|written| {
        let path = typed(&written["path"], &["Exact", "PathPrefix", "RegularExpression"]);
        let rpc = written["method"].is_object() && typed(&written["method"], &["Exact", "RegularExpression"]);
        let mut values = items(&written["headers"]).chain(items(&written["queryParams"]));
        path || rpc || values.any(|value| typed(value, &["Exact", "RegularExpression"]))
    });
    is_bad.then_some("UnsupportedValue")
}

/// "RequestRedirect+URLRewrite together forbidden ... RequestRedirect with backendRefs in one rule forbidden" (H-10); "ReplacePrefixMatch needs
/// exactly one match in the rule and it PathPrefix" (H-14).
fn filter_fault(rule: &Value) -> Option<&'static str> {
    let filters: Vec<&Value> = items(&rule["filters"]).collect();
    let is_modifier = |filter: &&&Value| text(&filter["type"]).ends_with("HeaderModifier");
    let edits = filters.iter().filter(is_modifier).map(|filter| &filter["requestHeaderModifier"]);
    let modifiers = filters.iter().flat_map(|filter| [&filter["requestRedirect"]["path"], &filter["urlRewrite"]["path"]]);
    let replaces_prefix = modifiers.into_iter().any(|modifier| modifier["type"] == "ReplacePrefixMatch");
    let matches: Vec<&Value> = items(&rule["matches"]).collect();
    let is_prefix = |written: &Value| written["path"]["type"].as_str().is_none_or(|kind| kind == "PathPrefix");
    let has_one_prefix = matches.len() <= 1 && matches.iter().all(|written| is_prefix(written));
    if edits.into_iter().any(|edit| !headers::is_valid(edit)) || (replaces_prefix && !has_one_prefix) {
        return Some("UnsupportedValue");
    }
    let has = |kind: &str| filters.iter().any(|filter| filter["type"] == kind);
    let count = |kind: &str| filters.iter().filter(|filter| filter["type"] == kind).count();
    let is_repeated = ["RequestHeaderModifier", "RequestRedirect", "URLRewrite"].into_iter().any(|kind| count(kind) > 1);
    let has_backends = items(&rule["backendRefs"]).next().is_some();
    let excludes = has("RequestRedirect") && (has("URLRewrite") || has_backends);
    (is_repeated || excludes).then_some("IncompatibleFilters")
}

/// "must be <= request (CEL, unless request is 0s)" (H-25).
fn time_fault(rule: &Value) -> Option<&'static str> {
    let texts = [&rule["timeouts"]["request"], &rule["timeouts"]["backendRequest"], &rule["retry"]["backoff"]];
    if texts.into_iter().filter_map(Value::as_str).any(|text| duration::parse(text).is_none()) {
        return Some("UnsupportedValue");
    }
    let [request, attempt, _] = texts.map(|text| text.as_str().and_then(duration::parse));
    let is_longer = request.is_some_and(|request| !request.is_zero() && attempt.is_some_and(|attempt| attempt > request));
    is_longer.then_some("UnsupportedValue")
}
