//! The conformance tests of the Gateway API, replayed: those for meshes, each under its name in snake case, with a Service as parent as upstream
//! has it and with a ServiceImport as parent and backends; and those for Gateways that mean something in a mesh, with a ServiceImport.
//!
//! Asserted is also what upstream's comparison leaves out: Location, the path and Host that the backend saw, who answered, route status.

mod frontends;
mod gateway;
mod gateway_backends;
mod gateway_filters;
mod gateway_grants;
mod gateway_grpc;
mod gateway_matching;
mod grpc;
mod headers;
mod matching;
mod redirects;
mod rewrites;
mod weights;

use http::Version;
use lab::client::{Answer, Ask};
use lab::lab::Options;
use lab::roles::PodName;
use tests::{Bed, who, yaml};

/// Upstream's namespaces.
const MESH: &str = "gateway-conformance-mesh";
const CONSUMER: &str = "gateway-conformance-mesh-consumer";

/// The kind of a route's parents and backends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Parent {
    Service,
    ServiceImport,
}

impl Parent {
    const BOTH: [Self; 2] = [Self::Service, Self::ServiceImport];

    /// A parentRef; `more` is further fields.
    fn reference(self, name: &str, more: &str) -> String {
        match self {
            Self::Service => self.backend(name, more).replacen('{', "{group: \"\", kind: Service, ", 1),
            Self::ServiceImport => yaml::import(name, more),
        }
    }

    /// A backendRef.
    fn backend(self, name: &str, more: &str) -> String {
        let comma = if more.is_empty() { "" } else { ", " };
        match self {
            Self::Service => format!("{{name: {name}{comma}{more}}}"),
            Self::ServiceImport => yaml::import(name, more),
        }
    }

    /// What is dialled, and said in Host.
    fn host(self, name: &str) -> String {
        match self {
            Self::Service => name.to_owned(),
            Self::ServiceImport => format!("{name}.{MESH}.svc.clusterset.local"),
        }
    }

    /// An HTTPRoute in upstream's namespace; the two kinds are side by side there.
    fn route(self, name: &str, parent: &str, rules: &[String]) -> String {
        yaml::route(&self.name(name), &format!("namespace: {MESH}"), &[parent.to_owned()], rules)
    }

    fn name(self, name: &str) -> String {
        match self {
            Self::Service => name.to_owned(),
            Self::ServiceImport => format!("{name}-import"),
        }
    }
}

/// A rule; `matches` and `filters` are lists of items.
pub(crate) fn rule(matches: &[&str], filters: &[&str], backends: &[String]) -> String {
    let lists = [("matches", matches.join(", ")), ("filters", filters.join(", ")), ("backendRefs", backends.join(", "))];
    let present = lists.into_iter().filter(|(_, items)| !items.is_empty()).map(|(field, items)| format!("{field}: [{items}]"));
    format!("{{{}}}", present.collect::<Vec<_>>().join(", "))
}

/// A match of a path prefix; `more` is further fields.
pub(crate) fn prefix(path: &str, more: &str) -> String {
    let comma = if more.is_empty() { "" } else { ", " };
    format!("{{path: {{type: PathPrefix, value: {path}}}{comma}{more}}}")
}

/// A rule of one path prefix and one filter.
pub(crate) fn filtered(path: &str, filter: &str, backends: &[String]) -> String {
    rule(&[&prefix(path, "")], &[filter], backends)
}

/// A GET; who asks it fills in Host.
fn get(target: &str) -> Ask {
    Ask::get("", target)
}

/// What should become of a request.
#[derive(Debug)]
enum Expected<'e> {
    /// Pods of this Deployment saw it as it was sent.
    From(&'e str),
    /// Pods of this Deployment saw it with this Host, empty if the one that was sent, and this path and query.
    Rewritten(&'e str, &'e str, &'e str),
    /// The sidecar redirects, with this status and Location; `HOST` in it is the Host that was sent.
    Redirect(u16, &'e str),
    /// The sidecar answers with this status and for this reason.
    Own(u16, &'e str),
}

const NOT_FOUND: Expected<'_> = Expected::Own(404, "no_route");

/// The lab of a test.
struct Replay {
    bed: Bed,
    client: PodName,
}

impl Replay {
    /// Upstream's base manifests and the routes of a test for both kinds of parent, all of which are accepted and resolved.
    fn start(routes: impl Fn(Parent) -> String) -> Self {
        let replay = Self::start_unresolved(routes);
        for resolved in replay.resolved_refs() {
            assert_eq!(resolved, ("True".to_owned(), "ResolvedRefs".to_owned()));
        }
        replay
    }

    /// The same, whatever is said about references.
    fn start_unresolved(routes: impl Fn(Parent) -> String) -> Self {
        let [service, import] = Parent::BOTH.map(routes);
        let files = [base(), vec![("west/service-routes.yaml", service), ("west/import-routes.yaml", import)]].concat();
        let bed = Bed::start(&files, Options::default()).expect("a lab");
        let client = bed.pod(&format!("west/{MESH}/client")).expect("a client");
        Self { bed, client }
    }

    /// Whether the references of the test's routes are resolved, for each; all of them are accepted.
    fn resolved_refs(&self) -> Vec<(String, String)> {
        let files = ["service-routes.yaml", "import-routes.yaml"].map(|file| self.bed.written("west", file).expect("routes"));
        let routes = files.iter().flatten().map(|route| {
            let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
            let metadata = &route["metadata"];
            let (kind, namespace, name) = (text(&route["kind"]), text(&metadata["namespace"]), text(&metadata["name"]));
            let condition = |condition: &str| status(&self.bed, (&kind, &namespace, &name), condition);
            assert_eq!(condition("Accepted"), ("True".to_owned(), "Accepted".to_owned()), "{namespace}/{name}");
            condition("ResolvedRefs")
        });
        routes.collect()
    }

    /// Asks `NAME` or `NAME:PORT` and compares.
    fn check(&self, parent: Parent, to: &str, ask: Ask, expected: &Expected) -> Answer {
        let (name, port) = to.split_once(':').map_or((to, String::new()), |(name, port)| (name, format!(":{port}")));
        check(&self.bed, &self.client, parent, &format!("{}{port}", parent.host(name)), ask, expected)
    }
}

fn check(bed: &Bed, client: &PodName, parent: Parent, address: &str, ask: Ask, expected: &Expected) -> Answer {
    let ask = if ask.host.is_empty() { Ask { host: address.to_owned(), ..ask } } else { ask };
    let is_grpc = ask.headers.iter().any(|(_, value)| value == "application/grpc");
    let version = if is_grpc { Version::HTTP_2 } else { Version::HTTP_11 };
    let answer = bed.ask_in(client, address, version, &ask).expect("an answer");
    compare(parent, &ask, &answer, expected);
    answer
}

fn compare(parent: Parent, ask: &Ask, answer: &Answer, expected: &Expected) {
    let said = || format!("{parent:?} {ask:?}: {answer:?}");
    let from = |deployment: &str, host: &str, target: &str| {
        let (seen, from) = (answer.seen(), who(answer));
        assert_eq!((answer.status.as_u16(), from.split_once('/').map(|(_, name)| name)), (200, Some(deployment)), "{}", said());
        assert!(parent == Parent::ServiceImport || from.starts_with("west/"), "a Service is of its own cluster: {}", said());
        let seen_target = [seen["path"].as_str(), seen["query"].as_str()].into_iter().flatten().collect::<Vec<_>>().join("?");
        assert_eq!((seen["host"].as_str(), seen_target.as_str()), (Some(host), target), "{}", said());
    };
    match *expected {
        Expected::From(deployment) => from(deployment, &ask.host, &ask.target),
        Expected::Rewritten(deployment, host, target) => from(deployment, if host.is_empty() { &ask.host } else { host }, target),
        Expected::Redirect(status, location) => {
            let location = location.replace("HOST", &ask.host);
            let is = (answer.status.as_u16(), answer.header("location"), answer.reason());
            assert_eq!(is, (status, Some(location.as_str()), Some("redirect")), "{}", said());
        }
        Expected::Own(status, reason) => assert_eq!((answer.status.as_u16(), answer.reason()), (status, Some(reason)), "{}", said()),
    }
}

/// All values of a header field as the backend saw them.
pub(crate) fn seen_header(answer: &Answer, name: &str) -> Option<String> {
    let headers: Vec<(String, String)> = serde_json::from_value(answer.seen()["headers"].clone()).expect("pairs");
    let values: Vec<String> = headers.into_iter().filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// Status and reason of a condition of a route's first parent.
fn status(bed: &Bed, (kind, namespace, name): (&str, &str, &str), condition: &str) -> (String, String) {
    let route = bed.status("west", kind, namespace, name).expect("a status");
    let conditions = route["status"]["parents"][0]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|found| found["type"] == condition).unwrap_or_default();
    let text = |field: &str| found[field].as_str().map_or_else(|| format!("none: {route}"), str::to_owned);
    (text("status"), text("reason"))
}

/// What mesh/manifests.yaml of the suite has, with clients of their own, as the lab's VIPs do not lead a pod back to itself; every Service is
/// exported, and `echo` and `echo-v2` have endpoints in another cluster too.
fn base() -> Vec<(&'static str, String)> {
    let west = [
        yaml::client(MESH),
        yaml::client(CONSUMER),
        pods("echo-v1"),
        pods("echo-v2"),
        service("echo-v1", ""),
        service("echo-v2", ""),
        service("echo", ", appProtocol: kubernetes.io/h2c"),
    ];
    let east = [pods("echo-v2"), service("echo-v2", ""), service("echo", ", appProtocol: kubernetes.io/h2c")];
    vec![("west/base.yaml", yaml::all(&west)), ("east/base.yaml", yaml::all(&east))]
}

fn pods(name: &str) -> String {
    let ports = "[{containerPort: 8080}, {name: tls, containerPort: 8443}, {name: tcp, containerPort: 9090}, {containerPort: 7070}]";
    let version = name.rsplit_once('-').map_or("", |(_, version)| version);
    let labels = format!("labels: {{app: echo, version: {version}}}");
    yaml::deployment(name, MESH, 1, ports).replace(&format!("labels: {{app: {name}}}"), &labels)
}

fn service(name: &str, grpc: &str) -> String {
    let ports = format!(
        "[{{name: http, port: 80, appProtocol: http, targetPort: 8080}}, {{name: http-alt, port: 8080, appProtocol: http}}, {{name: https, \
         port: 443, targetPort: 8443}}, {{name: tcp, port: 9090}}, {{name: grpc, port: 7070{grpc}}}]"
    );
    let selector = match name.split_once('-') {
        Some((app, version)) => format!("app: {app}, version: {version}"),
        None => format!("app: {name}"),
    };
    let service =
        yaml::service(name, MESH, &ports, "").replace(&format!("selector: {{app: {name}}}"), &format!("selector: {{{selector}}}"));
    yaml::all(&[service, yaml::export(name, MESH)])
}
