//! Objects are written as a user writes them.

mod attachment;
mod changes;
mod endpoints;
mod policies;
mod pool;
mod references;
mod status;

use std::fmt::Write as _;

use super::*;
use crate::manifest;

const STORE: &str = "
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {name: store, namespace: shop}
spec:
  type: ClusterSetIP
  ips: [10.201.0.1, 'fd00:2:1::1']
  ports: [{name: http, port: 80}, {name: admin, port: 8080}]
";

const CART: &str = "
apiVersion: multicluster.x-k8s.io/v1alpha1
kind: ServiceImport
metadata: {name: cart, namespace: shop}
spec: {type: ClusterSetIP, ips: [10.201.0.2], ports: [{port: 8080}]}
";

const CART_EAST: &str = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: cart-east
  namespace: shop
  labels: {multicluster.kubernetes.io/service-name: cart, multicluster.kubernetes.io/source-cluster: east}
addressType: IPv4
ports: [{port: 3000}]
endpoints:
- {addresses: [10.2.0.1], conditions: {ready: true}}
- {addresses: [10.2.0.2], conditions: {ready: false}}
";

fn route(name: &str, namespace: &str, spec: &str) -> String {
    let mut text =
        format!("\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n");
    for line in spec.lines() {
        let _ = writeln!(text, "  {line}");
    }
    text
}

const PARENT: &str = "{group: multicluster.x-k8s.io, kind: ServiceImport, name: store}";

const TO_CART: &str = "{group: multicluster.x-k8s.io, kind: ServiceImport, name: cart}";

fn gamma() -> String {
    route("store", "shop", &format!("parentRefs: [{PARENT}]\nrules:\n- matches: [{{path: {{value: /cart}}}}]\n  backendRefs: [{TO_CART}]"))
}

fn objects(texts: &[&str]) -> Vec<Object> {
    let text = texts.join("\n---\n");
    let documents = manifest::parse(&text).expect("YAML");
    documents.iter().map(|document| Object::decode(&document.value).expect("decodes").expect("a kind that is read")).collect()
}

fn world_with(settings: Settings, texts: &[&str]) -> World {
    let mut world = World::new(settings);
    for object in objects(texts) {
        world.apply(object);
    }
    world
}

fn world(texts: &[&str]) -> World {
    world_with(Settings { cluster: "west".to_owned(), ..Settings::default() }, texts)
}

fn port(text: &str) -> ServicePort {
    text.parse().expect("KIND/NAMESPACE/NAME/PORT")
}

fn frontend(world: &World, id: &str, client: &str) -> Option<Frontend> {
    world.frontend(&FrontendId(port(id)), client)
}

fn vips(world: &World, client: &str) -> Vec<String> {
    world.vips(client).iter().map(|vip| format!("{} {}", vip.address(), vip.frontend)).collect()
}

/// `Accepted=True/Accepted ResolvedRefs=False/InvalidKind` of the route `shop/store`'s first parent.
fn status(world: &World) -> String {
    let key = ObjectKey { kind: ObjectKind::Route(RouteKind::Http), namespace: "shop".to_owned(), name: "store".to_owned() };
    let parents = world.status(&key).expect("the route");
    let said = |condition: &crate::status::Condition| format!("{}={}/{}", condition.kind, condition.status, condition.reason);
    parents.first().map(|parent| parent.conditions.iter().map(said).collect::<Vec<_>>().join(" ")).unwrap_or_default()
}

/// Targets of the first rule for clients in `shop` on port 80.
fn targets(world: &World) -> Vec<String> {
    let frontend = frontend(world, "ServiceImport/shop/store/80", "shop").expect("an active route");
    frontend.routes[0].rules[0]
        .backends
        .iter()
        .map(|backend| match &backend.target {
            BackendTarget::Backend(id) => id.to_string(),
            BackendTarget::Invalid(fault) => fault.reason.as_str().to_owned(),
        })
        .collect()
}
