//! What leads where, as a picture: frontends, the routes attached to them, the backends that these choose by weight, and the clusters of their
//! endpoints.
//!
//! Like [`mod@crate::explain`] it decides nothing itself: routes, shares and endpoints are those of the data path.

mod draw;
mod load;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::model::{Addresses, BackendId, BackendTarget, BackendTls, Filter, Frontend, FrontendId, Rule};
use crate::reason::Reason;
use crate::world::World;
pub use draw::{dot, svg};
pub use load::{EjectedEndpoint, Load, Loads, Rate};

/// The cluster of endpoints that only the platform knows.
const BY_PLATFORM: &str = "by the platform";
/// The cluster of endpoints that are said to be in none.
const THIS_CLUSTER: &str = "(this cluster)";

/// How something fares.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Requests get errors there.
    Broken,
    /// Some of them do.
    Impaired,
    /// Nothing is known to be wrong.
    #[default]
    Well,
}

/// A place on the way of a request; the order is that of the columns.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// What is dialled.
    Frontend,
    /// A route.
    Route,
    /// What a rule chooses.
    Backend,
    /// A cluster with endpoints.
    Cluster,
}

/// Something in the picture.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Node {
    /// Unique.
    pub id: String,
    /// What it is.
    pub kind: NodeKind,
    /// Its name.
    pub label: String,
    /// What else there is to say; may be empty.
    pub detail: String,
    /// How it fares.
    pub health: Health,
}

/// A way from one to the next.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Edge {
    /// Id of the node that it begins at.
    pub from: String,
    /// Id of the node that it leads to.
    pub to: String,
    /// Shares, or how many endpoints; may be empty.
    pub label: String,
    /// How it fares.
    pub health: Health,
    /// The reason of the answer that requests get there; empty: none.
    pub reason: &'static str,
    /// What goes there, if sidecars have told so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

/// The picture. What is broken comes first.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Graph {
    /// By kind, then what is broken first, then by name.
    pub nodes: Vec<Node>,
    /// Between them.
    pub edges: Vec<Edge>,
}

impl Graph {
    /// Of everything that has a route, or of one namespace's frontends.
    #[must_use]
    pub fn of(world: &World, namespace: Option<&str>) -> Self {
        let mut maker = Maker { world, nodes: BTreeMap::new(), edges: BTreeMap::new() };
        for service in world.services() {
            if namespace.is_some_and(|namespace| namespace != service.namespace) {
                continue;
            }
            for id in world.frontends(service) {
                maker.frontend(&id);
            }
        }
        maker.finish()
    }

    fn sort(&mut self) {
        self.nodes.sort_by(|one, other| (one.kind, one.health, &one.label).cmp(&(other.kind, other.health, &other.label)));
    }

    /// How many nodes of a kind there are, and how many of these are not well.
    #[must_use]
    pub fn count(&self, kind: NodeKind) -> (usize, usize) {
        let of_kind = self.nodes.iter().filter(|node| node.kind == kind);
        of_kind.fold((0, 0), |(all, ill), node| (all + 1, ill + usize::from(node.health != Health::Well)))
    }
}

/// What flows on an edge, while it is made.
#[derive(Default)]
struct Flow {
    labels: BTreeSet<String>,
    healths: BTreeSet<Health>,
    reason: &'static str,
}

struct Maker<'w> {
    world: &'w World,
    nodes: BTreeMap<String, Node>,
    edges: BTreeMap<(String, String), Flow>,
}

impl Maker<'_> {
    /// A frontend as each namespace sees it that has routes of its own on it, the producer's first (GEP-1294).
    fn frontend(&mut self, id: &FrontendId) {
        let producer = id.0.service.namespace.as_str();
        let consumers = self.world.namespaces_with_routes_on(&id.0.service);
        let viewers: BTreeSet<&str> = consumers.into_iter().chain([producer]).collect();
        for viewer in viewers {
            if let Some(frontend) = self.world.frontend(id, viewer) {
                self.routes(id, &frontend, (viewer != producer).then_some(viewer));
            }
        }
    }

    fn routes(&mut self, id: &FrontendId, frontend: &Frontend, consumer: Option<&str>) {
        let name = self.node(NodeKind::Frontend, &id.to_string(), "");
        for route in &frontend.routes {
            if consumer.is_some_and(|consumer| consumer != route.namespace) {
                continue;
            }
            let detail = consumer.map(|consumer| format!("for clients in {consumer}")).unwrap_or_default();
            let label = format!("{} {}/{}", frontend.kind.as_str(), route.namespace, route.name);
            let route_name = self.node(NodeKind::Route, &label, &detail);
            self.edge(&name, &route_name, String::new(), Health::Well, "");
            for rule in &route.rules {
                self.rule(&route_name, rule);
            }
        }
    }

    fn rule(&mut self, route: &str, rule: &Rule) {
        let rule_name = rule.name.clone().unwrap_or_else(|| rule.index.to_string());
        let sum: u64 = rule.backends.iter().map(|backend| u64::from(backend.weight)).sum();
        // Refused before a backend is chosen, or no backend can be.
        let all_filters = rule.filters.iter().chain(rule.backends.iter().flat_map(|backend| &backend.filters));
        for filter in all_filters {
            if let Filter::Unsupported(what) = filter {
                self.broken(route, &format!("rule {rule_name}"), what, Reason::UnsupportedFilter);
            }
        }
        let is_answered = rule.filters.iter().any(|filter| matches!(filter, Filter::Redirect(_)));
        if sum == 0 && !is_answered {
            self.broken(
                route,
                &format!("rule {rule_name}"),
                &format!("no backend of rule {rule_name} of {route} has a weight"),
                Reason::NoBackend,
            );
        }
        for filter_backend in rule.filter_backends() {
            let name = self.node(NodeKind::Backend, &filter_backend.to_string(), "");
            let trouble = self.endpoints(&name, filter_backend);
            self.edge(route, &name, format!("rule {rule_name}: by a filter"), health(trouble), trouble.map_or("", Reason::label));
        }
        for backend in rule.backends.iter().filter(|backend| backend.weight > 0) {
            let share = (u64::from(backend.weight) * 100).checked_div(sum).unwrap_or_default();
            let label = if rule.backends.len() == 1 { format!("rule {rule_name}") } else { format!("rule {rule_name}: {share} %") };
            match &backend.target {
                BackendTarget::Invalid(fault) => {
                    self.broken(route, &label, &format!("{}: {}", fault.reason.as_str(), fault.message), Reason::InvalidBackend);
                }
                BackendTarget::Backend(id) => {
                    let name = self.node(NodeKind::Backend, &id.to_string(), "");
                    let trouble = self.endpoints(&name, id);
                    self.edge(route, &name, label, health(trouble), trouble.map_or("", Reason::label));
                }
            }
        }
    }

    /// A way that ends with an answer of the sidecar's own.
    fn broken(&mut self, route: &str, label: &str, what: &str, reason: Reason) {
        let name = self.node(NodeKind::Backend, what, reason.sentence());
        self.ill(&name);
        self.edge(route, &name, label.to_owned(), Health::Broken, reason.label());
    }

    /// The clusters of a backend's endpoints; why none of them can be spoken to, if that is so.
    fn endpoints(&mut self, backend: &str, id: &BackendId) -> Option<Reason> {
        let known = self.world.backend(id);
        if let Some(BackendTls::Broken(why)) = known.as_ref().and_then(|known| known.tls.as_ref()) {
            self.ill(backend);
            if let Some(node) = self.nodes.get_mut(backend) {
                node.detail.clone_from(why);
            }
            return Some(Reason::TlsUnusable);
        }
        let addresses = known.map(|known| known.addresses);
        let mut clusters: BTreeMap<String, usize> = BTreeMap::new();
        match addresses {
            Some(Addresses::Endpoints(endpoints)) => {
                for endpoint in endpoints {
                    *clusters.entry(endpoint.cluster).or_default() += 1;
                }
            }
            Some(Addresses::Vips(vips)) if !vips.is_empty() => {
                clusters.insert(BY_PLATFORM.to_owned(), vips.len());
            }
            Some(Addresses::Vips(_)) | None => {}
        }
        if clusters.is_empty() {
            self.ill(backend);
            if let Some(node) = self.nodes.get_mut(backend) {
                "no ready endpoint".clone_into(&mut node.detail);
            }
            return Some(Reason::NoEndpoint);
        }
        let counts: Vec<String> = clusters.iter().map(|(cluster, count)| format!("{count} {cluster}").trim_end().to_owned()).collect();
        if let Some(node) = self.nodes.get_mut(backend) {
            node.detail = format!("endpoints: {}", counts.join(", "));
        }
        for (cluster, count) in clusters {
            let label = if cluster.is_empty() { THIS_CLUSTER.to_owned() } else { cluster };
            let name = self.node(NodeKind::Cluster, &label, "");
            let plural = if count == 1 { "" } else { "s" };
            self.edge(backend, &name, format!("{count} endpoint{plural}"), Health::Well, "");
        }
        None
    }

    fn node(&mut self, kind: NodeKind, label: &str, detail: &str) -> String {
        let id = format!("{kind:?} {label}");
        let node = Node { id: id.clone(), kind, label: label.to_owned(), detail: detail.to_owned(), health: Health::Well };
        self.nodes.entry(id.clone()).or_insert(node);
        id
    }

    fn ill(&mut self, node: &str) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.health = Health::Broken;
        }
    }

    fn edge(&mut self, from: &str, to: &str, label: String, health: Health, reason: &'static str) {
        let flow = self.edges.entry((from.to_owned(), to.to_owned())).or_default();
        flow.labels.extend(Some(label).filter(|label| !label.is_empty()));
        flow.healths.insert(health);
        if !reason.is_empty() {
            flow.reason = reason;
        }
    }

    /// What leads to something broken is broken itself, or impaired if it leads elsewhere too.
    fn finish(mut self) -> Graph {
        for kind in [NodeKind::Route, NodeKind::Frontend] {
            let ids: Vec<String> = self.nodes.values().filter(|node| node.kind == kind).map(|node| node.id.clone()).collect();
            for id in ids {
                let mut healths = BTreeSet::new();
                let own = self.edges.range_mut((id.clone(), String::new())..).take_while(|((from, _), _)| *from == id);
                for ((_, to), flow) in own {
                    let target = self.nodes.get(to).map(|node| node.health).unwrap_or_default();
                    healths.extend(flow.healths.iter().map(|health| target.min(*health)));
                    flow.healths.insert(target);
                }
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.health = together(&healths);
                }
            }
        }
        let edge = |((from, to), flow): ((String, String), Flow)| Edge {
            from,
            to,
            label: flow.labels.into_iter().collect::<Vec<_>>().join(", "),
            health: flow.healths.first().copied().unwrap_or_default(),
            reason: flow.reason,
            rate: None,
        };
        let mut graph = Graph { nodes: self.nodes.into_values().collect(), edges: self.edges.into_iter().map(edge).collect() };
        graph.sort();
        graph
    }
}

fn health(trouble: Option<Reason>) -> Health {
    if trouble.is_some() { Health::Broken } else { Health::Well }
}

fn together(healths: &BTreeSet<Health>) -> Health {
    match (healths.contains(&Health::Broken), healths.contains(&Health::Well) || healths.contains(&Health::Impaired)) {
        (true, false) => Health::Broken,
        (true, true) => Health::Impaired,
        (false, _) if healths.contains(&Health::Impaired) => Health::Impaired,
        (false, _) => Health::Well,
    }
}

#[cfg(test)]
mod tests;
