//! The lab of the tests for Gateways: the Gateway is a ServiceImport, its listeners are that import's ports, and its backends are imports too.

use lab::client::{Answer, Ask};
use lab::lab::Options;
use lab::roles::PodName;
use tests::{Bed, yaml};

use super::{Expected, Parent, check, status};

/// Upstream's namespaces: of the Gateways and most backends, and of what others own.
pub(super) const INFRA: &str = "gateway-conformance-infra";
pub(super) const WEB: &str = "gateway-conformance-web-backend";
pub(super) const APP: &str = "gateway-conformance-app-backend";
/// What is dialled.
const GATEWAY: &str = "same-namespace";

/// The lab of a test.
pub(super) struct Gateway {
    pub(super) bed: Bed,
    pub(super) client: PodName,
}

/// A parentRef.
pub(super) fn parent(more: &str) -> String {
    yaml::import(GATEWAY, more)
}

/// The backendRef of an import of these namespaces, all of which have port 8080.
pub(super) fn backend(name: &str, more: &str) -> String {
    let comma = if more.is_empty() { "" } else { ", " };
    yaml::import(name, &format!("port: 8080{comma}{more}"))
}

/// A route attached to the whole import.
pub(super) fn route(name: &str, rules: &[String]) -> String {
    yaml::route(name, &format!("namespace: {INFRA}"), &[parent("")], rules)
}

/// A Deployment that serves HTTP on 3000, and its Service on 8080, exported.
fn backends(name: &str, namespace: &str) -> String {
    yaml::all(&[
        yaml::deployment(name, namespace, 1, "[{containerPort: 3000}]"),
        yaml::service(name, namespace, "[{port: 8080, targetPort: 3000}]", ""),
        yaml::export(name, namespace),
    ])
}

impl Gateway {
    /// Upstream's base manifests, its first and third backend in a cluster each and the second in both, and a file of the test's own.
    pub(super) fn start(own: String) -> Self {
        let ports = "[{name: http, port: 80}, {name: http-alt, port: 8080}, {name: other, port: 443}]";
        let west = [
            yaml::client(INFRA),
            yaml::service(GATEWAY, INFRA, ports, ""),
            yaml::export(GATEWAY, INFRA),
            backends("infra-backend-v1", INFRA),
            backends("infra-backend-v2", INFRA),
            backends("app-backend-v1", APP),
        ];
        let east = [
            backends("infra-backend-v2", INFRA),
            backends("infra-backend-v3", INFRA),
            backends("app-backend-v2", APP),
            backends("web-backend", WEB),
        ];
        let files = [("west/base.yaml", yaml::all(&west)), ("east/base.yaml", yaml::all(&east)), ("west/own.yaml", own)];
        let bed = Bed::start(&files, Options::default()).expect("a lab");
        let client = bed.client().expect("a client");
        Self { bed, client }
    }

    /// The same, with a route that is accepted wholly.
    pub(super) fn with(name: &str, rules: &[String]) -> Self {
        let gateway = Self::start(route(name, rules));
        assert_eq!(gateway.status(name, "Accepted"), ("True".to_owned(), "Accepted".to_owned()));
        assert_eq!(gateway.status(name, "ResolvedRefs"), ("True".to_owned(), "ResolvedRefs".to_owned()));
        gateway
    }

    /// Status and reason of a condition.
    pub(super) fn status(&self, route: &str, condition: &str) -> (String, String) {
        status(&self.bed, ("HTTPRoute", INFRA, route), condition)
    }

    /// Asks port 80 and compares.
    pub(super) fn check(&self, ask: Ask, expected: &Expected) -> Answer {
        self.check_at(80, ask, expected)
    }

    /// Asks a port and compares.
    pub(super) fn check_at(&self, port: u16, ask: Ask, expected: &Expected) -> Answer {
        let host = format!("{GATEWAY}.{INFRA}.svc.clusterset.local");
        let address = if port == 80 { host } else { format!("{host}:{port}") };
        check(&self.bed, &self.client, Parent::ServiceImport, &address, ask, expected)
    }

    /// Who answered so many requests on port 80.
    pub(super) fn shares(&self, times: usize, target: &str) -> std::collections::BTreeMap<String, usize> {
        self.bed.shares(times, &format!("{GATEWAY}.{INFRA}.svc.clusterset.local"), target).expect("answers")
    }
}
