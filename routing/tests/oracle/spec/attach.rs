//! Which routes are in force (M-1 to M-21, D-5, D-6, D-26).

use serde_json::Value;

use super::{Dialled, full_name, items, namespace, text, valid};

/// "Order, first wins: GRPCRoute, HTTPRoute, TLSRoute, TCPRoute." (M-21)
pub(super) const KINDS: [&str; 4] = ["GRPCRoute", "HTTPRoute", "TLSRoute", "TCPRoute"];

/// M-20: "Cset = {r in G: r.ns==C and r.ns!=F.ns}; Pset = {r in G: r.ns==F.ns}; active = Cset if non-empty else Pset", for each port (D-5).
pub(crate) fn in_force<'v>(objects: &'v [Value], dialled: &Dialled) -> Vec<&'v Value> {
    let name = format!("{}/{}", dialled.namespace, dialled.name);
    let Some(frontend) = objects.iter().find(|object| object["kind"] == dialled.kind.as_str() && full_name(object) == name) else {
        return Vec::new();
    };
    let consumers = group(objects, frontend, dialled.port, &dialled.client);
    let producers = group(objects, frontend, dialled.port, namespace(frontend));
    if !consumers.is_empty() && dialled.client != namespace(frontend) { consumers } else { producers }
}

/// The routes of one namespace that are attached to a port, without those that conflict: "If multiple routes with different types both bind to the
/// same Service and Port pair, only a single route type should be applied."
fn group<'v>(objects: &'v [Value], frontend: &Value, port: i64, of: &str) -> Vec<&'v Value> {
    let of_kind = |kind: &str| -> Vec<&'v Value> {
        let routes = objects.iter().filter(|object| object["kind"] == kind && namespace(object) == of);
        routes.filter(|route| is_attached(objects, route, frontend, port)).collect()
    };
    KINDS.into_iter().map(of_kind).find(|routes| !routes.is_empty()).unwrap_or_default()
}

/// "If `port` is set, the implementation MUST associate the route only with that port. If `port` is not set, the implementation MUST associate the
/// route with all ports defined in the Service."; a route none of whose rules can be obeyed is as if absent (S-8).
fn is_attached(objects: &[Value], route: &Value, frontend: &Value, port: i64) -> bool {
    let mut same = objects.iter().filter(|object| *object == frontend || stands_for(object, frontend));
    let refers = same
        .any(|object| items(&route["spec"]["parentRefs"]).any(|parent| is(parent, route, object) && ports(parent, object).contains(&port)));
    refers && !valid::rules(route).is_empty()
}

/// "If one IP belongs to both an SI and a Service (derived Service, ownerReference kind ServiceImport): SI owns it; routes whose parent is that
/// derived Service also apply, merged as one group with the SI's" (D-8).
pub(super) fn stands_for(service: &Value, import: &Value) -> bool {
    let mut owners = items(&service["metadata"]["ownerReferences"]);
    let is_derived = owners.any(|owner| owner["kind"] == "ServiceImport" && owner["name"] == import["metadata"]["name"]);
    let shares = has_virtual_ip(import) && items(&import["spec"]["ips"]).any(|ip| *ip == service["spec"]["clusterIP"]);
    service["kind"] == "Service" && import["kind"] == "ServiceImport" && namespace(service) == namespace(import) && is_derived && shares
}

/// Whether a parentRef names an object (M-2).
pub(super) fn is(parent: &Value, route: &Value, object: &Value) -> bool {
    let same_kind = match text(&object["kind"]) {
        "ServiceImport" => parent["group"] == "multicluster.x-k8s.io" && parent["kind"] == "ServiceImport",
        "Service" => (parent["group"] == "" || parent["group"] == "core") && parent["kind"] == "Service",
        _ => false,
    };
    let place = parent["namespace"].as_str().unwrap_or(namespace(route));
    same_kind && place == namespace(object) && parent["name"] == object["metadata"]["name"]
}

fn has_virtual_ip(object: &Value) -> bool {
    let spec = &object["spec"];
    match text(&object["kind"]) {
        "ServiceImport" => spec["type"] == "ClusterSetIP" && items(&spec["ips"]).next().is_some(),
        _ => spec["type"] != "ExternalName" && spec["clusterIP"].as_str().is_some_and(|ip| ip != "None"),
    }
}

/// The ports of an object that a parentRef means; none: it cannot be attached. "both must agree on one port", TCP alone (D-6).
pub(super) fn ports(parent: &Value, object: &Value) -> Vec<i64> {
    if !has_virtual_ip(object) {
        return Vec::new();
    }
    let meant = items(&object["spec"]["ports"]).filter(|port| {
        let is_tcp = port["protocol"].is_null() || port["protocol"] == "" || port["protocol"] == "TCP";
        let is_number = parent["port"].is_null() || parent["port"] == port["port"];
        let is_name = parent["sectionName"].is_null() || parent["sectionName"] == port["name"];
        is_tcp && is_number && is_name
    });
    meant.filter_map(|port| port["port"].as_i64()).collect()
}

/// Kinds of routes of this namespace that are attached to a port.
pub(super) fn kinds_on<'v>(objects: &'v [Value], frontend: &Value, port: i64, of: &str) -> Vec<&'v str> {
    group(objects, frontend, port, of).into_iter().map(|route| text(&route["kind"])).collect()
}
