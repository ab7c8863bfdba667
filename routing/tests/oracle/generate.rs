//! Objects and requests. Few names, few times, few values: most pairs of things collide in something.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use crate::spec::{BROKEN, CART_ANY, Dialled, GET_OR_LIST, ONE_OR_TWO, PATH_PATTERNS, Request};

type Texts = &'static [&'static str];

/// Routes that are all attached to one import, and a request.
#[derive(Clone, Debug)]
pub(crate) struct Merged {
    pub(crate) objects: Vec<Value>,
    pub(crate) request: Request,
}

/// Routes of every kind in several namespaces, some of which are deleted again.
#[derive(Clone, Debug)]
pub(crate) struct Mesh {
    /// What is left in the end.
    pub(crate) objects: Vec<Value>,
    /// What was there before; all of it came in this order.
    pub(crate) arrived: Vec<Value>,
    pub(crate) gone: Vec<Value>,
    pub(crate) dialled: Dialled,
    pub(crate) request: Request,
}

/// An object of these parts, those that are null left out.
pub(crate) fn object<const N: usize>(parts: [(&str, Value); N]) -> Value {
    Value::Object(parts.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.to_owned(), value)).collect())
}

pub(crate) fn store() -> Value {
    json!({
        "apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceImport", "metadata": {"name": "store", "namespace": "shop"},
        "spec": {"type": "ClusterSetIP", "ips": ["10.201.0.1"], "ports": [
            {"name": "http", "port": 80}, {"name": "admin", "port": 8080, "protocol": "TCP"}, {"name": "tls", "port": 443, "protocol": ""},
            {"name": "udp", "port": 81, "protocol": "UDP"},
        ]},
    })
}

pub(crate) fn at_store(port: i64) -> Dialled {
    let text = str::to_owned;
    Dialled { kind: text("ServiceImport"), namespace: text("shop"), name: text("store"), port, client: text("shop") }
}

pub(crate) fn route(kind: &str, namespace: &str, name: &str, created: Option<&str>, spec: Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created}, "spec": spec,
    })
}

pub(crate) fn to_store() -> Value {
    json!([{"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "store"}])
}

fn created() -> impl Strategy<Value = Option<&'static str>> {
    select(&[None, Some("2026-01-01T00:00:00Z"), Some("2026-01-02T00:00:00Z")][..])
}

fn typed(kind: &'static str, values: Texts) -> impl Strategy<Value = Value> {
    select(values).prop_map(move |value| json!({"type": kind, "value": value}))
}

fn path() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => typed("PathPrefix", &["/", "/a", "/a/", "/a/b", "/ab", "/a/b/c"]),
        6 => typed("Exact", &["/", "/a", "/a/", "/a/b", "/ab"]),
        1 => typed("RegularExpression", PATH_PATTERNS),
        2 => select(&["/", "/a"][..]).prop_map(|value| json!({"value": value})),
        1 => Just(json!({"type": "Exact"})),
    ]
}

/// Matches of headers or parameters.
fn named(names: Texts) -> impl Strategy<Value = Value> {
    let value = prop_oneof![
        8 => typed("Exact", &["1", "2", "1, 2", "a b"]),
        4 => select(&["1", "2"][..]).prop_map(|value| json!({"value": value})),
        // Few, since compiling them is most of the time that a run takes.
        1 => typed("RegularExpression", &[ONE_OR_TWO]),
    ];
    let one = (select(names), value).prop_map(|(name, mut value)| {
        value["name"] = json!(name);
        value
    });
    proptest::collection::vec(one, 0..3).prop_map(|list| if list.is_empty() { Value::Null } else { Value::Array(list) })
}

fn http_match() -> impl Strategy<Value = Value> {
    let method = proptest::option::of(select(&["GET", "POST"][..]));
    let parts = (proptest::option::of(path()), method, named(&["x-one", "X-One", "x-two", "Host"]), named(&["q", "Q", "r"]));
    parts.prop_map(|(path, method, headers, query)| {
        object([("path", json!(path)), ("method", json!(method)), ("headers", headers), ("queryParams", query)])
    })
}

fn grpc_match() -> impl Strategy<Value = Value> {
    let exact =
        (proptest::option::of(Just("Exact")), select(&["shop.Cart", "shop.CartV2", "shop.User", ""][..]), select(&["Get", "List", ""][..]));
    let exact = exact.prop_map(|(kind, service, method)| {
        let given = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
        let method = if service.is_empty() && method.is_empty() { "Get" } else { method };
        object([("type", json!(kind)), ("service", given(service)), ("method", given(method))])
    });
    let pattern = select(&[(true, true), (true, false), (false, true)][..]).prop_map(|(service, method)| {
        let (service, method) = (service.then_some(CART_ANY), method.then_some(GET_OR_LIST));
        object([("type", json!("RegularExpression")), ("service", json!(service)), ("method", json!(method))])
    });
    let method = prop_oneof![3 => Just(Value::Null), 10 => exact, 1 => pattern];
    (method, named(&["x-one", "X-One", "x-two"])).prop_map(|(method, headers)| object([("method", method), ("headers", headers)]))
}

fn rules(one: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    let rule = proptest::collection::vec(one, 0..3);
    let rule = rule.prop_map(|matches| if matches.is_empty() { json!({}) } else { json!({"matches": matches}) });
    proptest::collection::vec(rule, 1..4).prop_map(Value::Array)
}

fn merged(
    kind: &'static str,
    rules: impl Strategy<Value = Value>,
    request: impl Strategy<Value = Request>,
) -> impl Strategy<Value = Merged> {
    let routes = proptest::collection::vec((created(), rules), 1..4).prop_map(move |routes| {
        let written = routes.into_iter().zip(["b", "a", "a-b"]);
        let routes =
            written.map(|((created, rules), name)| route(kind, "shop", name, created, json!({"parentRefs": to_store(), "rules": rules})));
        routes.chain([store()]).collect()
    });
    (routes, request).prop_map(|(objects, request)| Merged { objects, request })
}

pub(crate) fn http_routes() -> impl Strategy<Value = Merged> {
    merged("HTTPRoute", rules(http_match()), request(HTTP_TARGETS))
}

pub(crate) fn grpc_routes() -> impl Strategy<Value = Merged> {
    merged("GRPCRoute", rules(grpc_match()), request(GRPC_TARGETS))
}

const HTTP_TARGETS: Texts = &[
    "/",
    "/a",
    "/a/",
    "/a/b",
    "/ab",
    "/a/b/c",
    "/A",
    "*",
    "/a?q=1",
    "/a?q=2&q=1",
    "/a/b?Q=%31&r=2",
    "/?r=1&q=2",
    "/abc?q=1",
    "/a?%71=a+b",
    "/a/b?q=a%20b&",
];
const GRPC_TARGETS: Texts = &[
    "/shop.Cart/Get",
    "/shop.Cart/List",
    "/shop.CartV2/Get",
    "/shop.User/Put",
    "/shop.User/List",
    "/Shop.Cart/Get",
    "/shop.Cart/get",
    "/a",
    "/",
    "*",
];

fn request(targets: Texts) -> impl Strategy<Value = Request> {
    let header = (select(&["x-one", "X-ONE", "x-two"][..]), select(&["1", "2", "3"][..]));
    let parts = (
        select(&["GET", "POST", "PUT"][..]),
        select(targets),
        select(&["1", "2", "store.shop"][..]),
        proptest::collection::vec(header, 0..3),
        server_name(),
    );
    parts.prop_map(|(method, target, authority, headers, server_name)| Request {
        method: method.to_owned(),
        target: target.to_owned(),
        authority: authority.to_owned(),
        headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        server_name,
    })
}

fn server_name() -> impl Strategy<Value = String> {
    let names =
        ["a.shop.example", "A.Shop.Example", "b.shop.example", "x.a.shop.example", "shop.example", "ashop.example", "example", "other", ""];
    select(names.to_vec()).prop_map(str::to_owned)
}

fn hostnames() -> impl Strategy<Value = Value> {
    let names = ["a.shop.example", "b.shop.example", "shop.example", "*.shop.example", "*.example", "*.a.shop.example"];
    proptest::collection::vec(select(names.to_vec()), 0..4).prop_map(|names| json!(names))
}

/// TLSRoutes on one import.
pub(crate) fn tls_routes() -> impl Strategy<Value = Merged> {
    let routes = proptest::collection::vec((created(), hostnames()), 1..5).prop_map(|routes| {
        let written = routes.into_iter().zip(["b", "a", "a-b", "c"]).map(|((created, hostnames), name)| {
            let spec = json!({"parentRefs": to_store(), "hostnames": hostnames, "rules": [{"backendRefs": [{"name": "b", "port": 1}]}]});
            route("TLSRoute", "shop", name, created, spec)
        });
        written.chain([store()]).collect()
    });
    (routes, request(&["/"])).prop_map(|(objects, request)| Merged { objects, request })
}

fn parent() -> impl Strategy<Value = Value> {
    let object = prop_oneof![
        12 => Just(("multicluster.x-k8s.io", "ServiceImport", "store")),
        2 => Just(("", "Service", "store")),
        1 => Just(("core", "Service", "store")),
        3 => Just(("", "Service", "derived")),
        1 => Just(("multicluster.x-k8s.io", "ServiceImport", "none")),
        1 => Just(("gateway.networking.k8s.io", "Gateway", "store")),
    ];
    let namespace = prop_oneof![4 => Just(Some("shop")), 1 => Just(None)];
    let port = prop_oneof![4 => Just(None), 4 => select(vec![80, 8080, 443, 81]).prop_map(Some)];
    let section = prop_oneof![6 => Just(None), 2 => select(vec!["http", "admin", "tls", "udp"]).prop_map(Some)];
    (object, namespace, port, section).prop_map(|((group, kind, name), namespace, port, section)| {
        let mut parent =
            Map::from_iter([("group".to_owned(), json!(group)), ("kind".to_owned(), json!(kind)), ("name".to_owned(), json!(name))]);
        parent.extend(namespace.map(|namespace| ("namespace".to_owned(), json!(namespace))));
        parent.extend(port.map(|port| ("port".to_owned(), json!(port))));
        parent.extend(section.map(|section| ("sectionName".to_owned(), json!(section))));
        Value::Object(parent)
    })
}

/// Rules of which few match, and some cannot be obeyed.
fn sparse_rules(kind: &'static str) -> BoxedStrategy<Value> {
    let backends = || prop_oneof![5 => Just(json!([{"name": "b", "port": 1}])), 1 => Just(json!([]))];
    let http = select(vec![
        json!({}),
        json!({"path": {"value": "/a"}}),
        json!({"path": {"type": "Exact", "value": "/a"}}),
        json!({"path": {"type": "Exact", "value": "/shop.Cart/Get"}}),
        json!({"headers": [{"name": "x-one", "value": "1"}]}),
        json!({"path": {"type": "Glob", "value": "/a"}}),
        json!({"path": {"type": "RegularExpression", "value": BROKEN}}),
    ]);
    let grpc = select(vec![
        json!({}),
        json!({"method": {"service": "shop.Cart"}}),
        json!({"method": {"service": "shop.Cart", "method": "Get"}}),
        json!({"method": {"method": "Get"}}),
        json!({"method": {"type": "Glob", "method": "Get"}}),
        json!({"method": {"type": "RegularExpression", "service": BROKEN}}),
    ]);
    match kind {
        "HTTPRoute" => proptest::collection::vec(http, 0..3).prop_map(each_a_rule).boxed(),
        "GRPCRoute" => proptest::collection::vec(grpc, 1..3).prop_map(each_a_rule).boxed(),
        _ => backends().prop_map(|backends| json!([{"backendRefs": backends}])).boxed(),
    }
}

fn each_a_rule(matches: Vec<Value>) -> Value {
    matches.into_iter().map(|written| json!({"matches": [written]})).collect()
}

fn some_route() -> impl Strategy<Value = (Value, bool)> {
    let kind = prop_oneof![4 => Just("HTTPRoute"), 3 => Just("GRPCRoute"), 2 => Just("TLSRoute"), 2 => Just("TCPRoute")];
    let namespace = prop_oneof![3 => Just("shop"), 3 => Just("buyers"), 1 => Just("others")];
    let rest = (created(), proptest::collection::vec(parent(), 1..3), hostnames(), proptest::bool::weighted(0.2));
    let parts = (kind.prop_flat_map(|kind| (Just(kind), sparse_rules(kind))), namespace, rest);
    parts.prop_map(|((kind, rules), namespace, (created, parents, hostnames, is_gone))| {
        let mut spec = json!({"parentRefs": parents, "rules": rules});
        // Of other kinds than TLSRoute nothing is inferred from them (M-22).
        spec["hostnames"] = hostnames;
        (route(kind, namespace, "", created, spec), is_gone)
    })
}

/// The import, its namesake and a Service derived from it, as they should be or not.
fn frontends() -> impl Strategy<Value = Vec<Value>> {
    let import = prop_oneof![
        10 => Just(None),
        1 => Just(Some(("ips", json!([])))),
        1 => Just(Some(("type", json!("Headless")))),
        1 => Just(Some(("ports", json!([])))),
        1 => Just(Some(("ports", json!([{"name": "http", "port": 80}])))),
    ];
    let derived = select(vec![("10.201.0.1", "store"), ("10.201.0.1", "store"), ("10.101.0.2", "store"), ("10.101.0.2", "other")]);
    (import, select(vec!["10.101.0.1", "None"]), derived).prop_map(|(change, ip, (derived_ip, owner))| {
        let mut import = store();
        if let Some((field, value)) = change {
            import["spec"][field] = value;
        }
        let ports = json!([{"name": "http", "port": 80}, {"name": "admin", "port": 8080}]);
        let service = |name: &str, ip: &str, owners: Value| {
            let metadata = json!({"name": name, "namespace": "shop", "ownerReferences": owners});
            json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"clusterIP": ip, "ports": ports}})
        };
        let owners = json!([{"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceImport", "name": owner}]);
        vec![import, service("store", ip, json!([])), service("derived", derived_ip, owners)]
    })
}

pub(crate) fn mesh() -> impl Strategy<Value = Mesh> {
    let kind = prop_oneof![5 => Just("ServiceImport"), 1 => Just("Service")];
    let dialled = (kind, select(vec![80, 8080, 443]), select(vec!["shop", "buyers", "others"])).prop_map(|(kind, port, client)| Dialled {
        kind: kind.to_owned(),
        client: client.to_owned(),
        ..at_store(port)
    });
    let routes = proptest::collection::vec(some_route(), 0..7);
    let request = request(&["/", "/a", "/b", "/shop.Cart/Get", "/shop.Cart/List"]);
    let parts = (frontends(), routes, dialled, request).prop_flat_map(|(frontends, routes, dialled, request)| {
        let mut gone = Vec::new();
        let mut objects = frontends;
        for ((mut route, is_gone), name) in routes.into_iter().zip(["b", "a", "a-b", "c", "e", "d", "f"]) {
            route["metadata"]["name"] = json!(name);
            if is_gone { gone.push(route) } else { objects.push(route) }
        }
        let all: Vec<Value> = objects.iter().chain(&gone).cloned().collect();
        (Just(objects), Just(all).prop_shuffle(), Just(gone), Just(dialled), Just(request))
    });
    parts.prop_map(|(objects, arrived, gone, dialled, request)| Mesh { objects, arrived, gone, dialled, request })
}
