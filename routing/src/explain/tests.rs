use http::Request;

use super::*;
use crate::api::Object;
use crate::manifest;
use crate::world::Settings;

const OBJECTS: &str = "
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {name: store, namespace: shop}
spec: {type: ClusterSetIP, ips: [10.201.0.1], ports: [{port: 80}]}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {name: cart, namespace: shop}
spec: {type: ClusterSetIP, ips: [10.201.0.2], ports: [{port: 80}]}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {name: silent, namespace: shop}
spec: {type: ClusterSetIP, ips: [10.201.0.3], ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: silent-east
  namespace: shop
  labels: {multicluster.kubernetes.io/service-name: silent, multicluster.kubernetes.io/source-cluster: east}
addressType: IPv4
ports: [{port: 3000}]
endpoints: []
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: cart-east
  namespace: shop
  labels: {multicluster.kubernetes.io/service-name: cart, multicluster.kubernetes.io/source-cluster: east}
addressType: IPv4
ports: [{port: 3000}]
endpoints: [{addresses: [10.2.0.1], conditions: {ready: true}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: store, namespace: shop}
spec:
  parentRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: store}]
  rules:
  - matches: [{path: {value: /cart}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /basket}}}]
    backendRefs:
    - {group: multicluster.x-k8s.io, kind: ServiceImport, name: cart, port: 80, weight: 3}
    - {group: multicluster.x-k8s.io, kind: ServiceImport, name: missing, port: 80, weight: 1}
  - matches: [{path: {type: Exact, value: /cart}, method: POST}]
    backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: store, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: own, namespace: checkout}
spec:
  parentRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: store, namespace: shop}]
  rules: [{}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: guarded, namespace: shop}
spec:
  parentRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: silent}]
  rules:
  - matches: [{path: {value: /asks/nobody}}]
    filters:
    - type: ExternalAuth
      externalAuth: {protocol: HTTP, backendRef: {group: multicluster.x-k8s.io, kind: ServiceImport, name: silent, port: 80}, http: {}}
    backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: cart, port: 80}]
  - matches: [{path: {value: /asks/cart}}]
    filters:
    - type: ExternalAuth
      externalAuth: {protocol: HTTP, backendRef: {group: multicluster.x-k8s.io, kind: ServiceImport, name: cart, port: 80}, http: {}}
    backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: cart, port: 80}]
";

fn told(client: &str, host: &str, request: Request<()>) -> Result<Explanation, Unexplained> {
    let mut world = World::new(Settings { cluster: "west".to_owned(), ..Settings::default() });
    for document in manifest::parse(OBJECTS).expect("YAML") {
        world.apply(Object::decode(&document.value).expect("decodes").expect("a kind that is read"));
    }
    let asked = Asked {
        client_namespace: client.to_owned(),
        location: Location::default(),
        host: host.to_owned(),
        server_name: None,
        port: 80.try_into().expect("a port"),
        request: request.into_parts().0,
    };
    explain(&world, &asked)
}

fn get(target: &str) -> Request<()> {
    Request::get(target).body(()).expect("a request")
}

const STORE: &str = "store.shop.svc.clusterset.local";

#[test]
fn the_walk_is_told_to_its_end() {
    let told = told("shop", STORE, get("/cart/1?x=1")).expect("known");
    assert_eq!(told.frontend, "ServiceImport/shop/store/80");
    let roles: Vec<_> = told.routes.iter().map(|route| (route.route.as_str(), route.in_force, route.role)).collect();
    assert_eq!(roles, [("shop/store", true, Role::Producer), ("checkout/own", false, Role::Consumer)]);
    assert_eq!(told.routes[1].why, "it is for clients of namespace checkout alone");
    let verdicts: Vec<_> = told.matches.iter().map(|candidate| (candidate.rule, candidate.verdict)).collect();
    assert_eq!(verdicts, [(1, Verdict::Mismatched), (0, Verdict::Won)]);
    assert_eq!(told.matches[0].why, "the path is \"/cart/1\", not exactly \"/cart\"");
    assert_eq!((told.filters[0].filter, told.filters[0].after.as_str()), ("URLRewrite", &*format!("GET {STORE}/basket/1?x=1")));
    assert_eq!((told.backends[0].percent, told.backends[1].percent), (75.0, 25.0));
    assert!(told.backends[1].backend.starts_with("BackendNotFound: "), "{:?}", told.backends[1]);
    assert_eq!(told.outcome.kind, OutcomeKind::PartlyForwarded);
    assert!(told.outcome.message.starts_with("25.0 % "), "{}", told.outcome.message);
}

#[test]
fn a_match_says_to_whom_it_lost_and_why() {
    let told = told("shop", STORE, Request::post("/cart").body(()).expect("a request")).expect("known");
    let lost = &told.matches[1];
    assert_eq!((lost.verdict, lost.why.as_str()), (Verdict::Lost, "rank 1 goes first: its path is exact"));
    // The store's own import has no EndpointSlice: the platform's address is dialled (digest D-3).
    assert!(matches!(&told.backends[0].destination, Destination::Vips(vips) if vips.len() == 1), "{:?}", told.backends);
    assert_eq!(told.outcome.kind, OutcomeKind::Forwarded);
}

#[test]
fn a_service_that_nobody_can_ask_lets_nothing_pass() {
    let refused = told("shop", "silent.shop.svc.clusterset.local", get("/asks/nobody")).expect("known");
    assert_eq!((refused.outcome.kind, refused.outcome.reason), (OutcomeKind::Refused, Some(Reason::AuthUnavailable.label())));
    let why = &refused.outcome.message;
    assert!(why.starts_with("the authorization service ServiceImport/shop/silent/80: "), "{why}");
    assert_eq!(refused.filters[0].effect, format!("lets nothing pass: {why}"));
    // One that can be asked may say yes.
    assert_eq!(told("shop", "silent.shop.svc.clusterset.local", get("/asks/cart")).expect("known").outcome.kind, OutcomeKind::Forwarded);
}

#[test]
fn who_is_asked_and_who_asks_decide() {
    let other = told("checkout", "10.201.0.1", get("/")).expect("known");
    assert_eq!(other.routes[0].route, "checkout/own");
    assert_eq!(other.routes[1].why, "routes of namespace checkout, the client's own, replace it");
    assert_eq!(other.outcome.reason, Some("no_backend"));
    assert_eq!(told("shop", STORE, get("/")).expect("known").outcome.reason, Some("no_route"));
    assert_eq!(told("shop", "cart.shop.svc.clusterset.local", get("/")).expect("known").outcome.kind, OutcomeKind::PassesThrough);
    let unknown = told("shop", "nobody.shop.svc.clusterset.local", get("/")).expect_err("not known");
    assert_eq!(unknown.to_string(), "nobody.shop.svc.clusterset.local: no Service or ServiceImport is known by this name or address");
}
