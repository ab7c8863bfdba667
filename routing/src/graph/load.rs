//! What sidecars have seen lately, put on the picture: how many requests go which way, how many of them fail, which endpoints are left out.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{BY_PLATFORM, Edge, Graph, Health, Node, NodeKind, THIS_CLUSTER};

/// What goes one way.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Load {
    /// What is dialled.
    pub frontend: String,
    /// `NAMESPACE/NAME` of the route; empty: none matched.
    pub route: String,
    /// What was chosen; empty: nothing was.
    pub backend: String,
    /// The cluster of the endpoint; empty where none was asked.
    pub source_cluster: String,
    /// Why no backend was asked, of requests that failed without one; empty otherwise. Who is older does not say it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// How often, and how often it failed.
    #[serde(flatten)]
    pub rate: Rate,
}

/// How often something happens.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Rate {
    /// Requests a second.
    pub per_second: f64,
    /// Of these: answered with a status of 500 or more, or not at all.
    pub failed_per_second: f64,
}

/// An endpoint that a sidecar leaves out for a while because it failed.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct EjectedEndpoint {
    /// Whose it is.
    pub backend: String,
    /// Where it is.
    pub source_cluster: String,
    /// `IP:PORT`.
    pub address: String,
}

/// What sidecars have seen lately.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Loads {
    /// Each way once.
    pub loads: Vec<Load>,
    /// By any of them.
    pub ejected: BTreeSet<EjectedEndpoint>,
}

impl Loads {
    /// What several have seen.
    #[must_use]
    pub fn together(all: impl IntoIterator<Item = Self>) -> Self {
        let mut ways: BTreeMap<[String; 5], Rate> = BTreeMap::new();
        let mut ejected = BTreeSet::new();
        for one in all {
            for Load { frontend, route, backend, source_cluster, reason, rate } in one.loads {
                ways.entry([frontend, route, backend, source_cluster, reason]).or_default().add(rate);
            }
            ejected.extend(one.ejected);
        }
        let loads = ways.into_iter().map(|([frontend, route, backend, source_cluster, reason], rate)| Load {
            frontend,
            route,
            backend,
            source_cluster,
            reason,
            rate,
        });
        Self { loads: loads.collect(), ejected }
    }
}

impl Rate {
    fn add(&mut self, other: Self) {
        self.per_second += other.per_second;
        self.failed_per_second += other.failed_per_second;
    }

    /// None of them fails, some do, or all.
    fn health(self) -> Health {
        if self.failed_per_second <= 0.0 {
            Health::Well
        } else if self.failed_per_second < self.per_second {
            Health::Impaired
        } else {
            Health::Broken
        }
    }

    fn requests(self) -> String {
        match self.per_second {
            rate if rate >= 10.0 => format!("{rate:.0}/s"),
            rate if rate >= 0.1 => format!("{rate:.1}/s"),
            _ => "<0.1/s".to_owned(),
        }
    }

    /// For a reader.
    fn text(self) -> String {
        let rate = self.requests();
        let share = 100.0 * self.failed_per_second / self.per_second;
        match self.health() {
            Health::Well => rate,
            Health::Broken => format!("{rate}, all fail"),
            Health::Impaired if share < 1.0 => format!("{rate}, <1 % fail"),
            Health::Impaired => format!("{rate}, {share:.0} % fail"),
        }
    }
}

/// Names of both ends of an edge, without the kind of a route: metrics do not have it.
type Ends<'g> = (NodeKind, &'g str, &'g str);

fn name(node: &Node) -> &str {
    match node.kind {
        NodeKind::Route => node.label.split_once(' ').map_or(node.label.as_str(), |(_, name)| name),
        // Endpoints without a cluster.
        NodeKind::Cluster if [BY_PLATFORM, THIS_CLUSTER].contains(&node.label.as_str()) => "",
        NodeKind::Frontend | NodeKind::Backend | NodeKind::Cluster => &node.label,
    }
}

/// The edges that a load is on.
fn ends(load: &Load) -> [Ends<'_>; 3] {
    let Load { frontend, route, backend, source_cluster, .. } = load;
    [(NodeKind::Frontend, frontend, route), (NodeKind::Route, route, backend), (NodeKind::Backend, backend, source_cluster)]
}

impl Graph {
    /// The picture with what sidecars have seen lately; what they saw of things that are not in the picture is left out.
    #[must_use]
    pub fn with(mut self, loads: &Loads) -> Self {
        let mut rates: BTreeMap<Ends<'_>, Rate> = BTreeMap::new();
        let mut unserved = BTreeMap::<(&str, &str), Rate>::new();
        let (mut dialled, mut chosen) = (BTreeMap::<&str, Rate>::new(), BTreeMap::<&str, Rate>::new());
        for load in &loads.loads {
            dialled.entry(&load.frontend).or_default().add(load.rate);
            chosen.entry(&load.backend).or_default().add(load.rate);
            if !load.reason.is_empty() {
                unserved.entry((&load.route, &load.reason)).or_default().add(load.rate);
            }
            for ends in ends(load) {
                rates.entry(ends).or_default().add(load.rate);
            }
        }
        let nodes: BTreeMap<&str, &Node> = self.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
        // Where several ways of a route end for one reason, nobody knows which of them was taken.
        let mut ends_here = BTreeMap::<(String, &str), usize>::new();
        for edge in self.edges.iter().filter(|edge| !edge.reason.is_empty()) {
            *ends_here.entry((edge.from.clone(), edge.reason)).or_default() += 1;
        }
        for edge in &mut self.edges {
            let (Some(from), Some(to)) = (nodes.get(edge.from.as_str()), nodes.get(edge.to.as_str())) else { continue };
            let is_alone = ends_here.get(&(edge.from.clone(), edge.reason)) == Some(&1);
            let sent = rates.get(&(from.kind, name(from), name(to)));
            let rate = sent.or_else(|| unserved.get(&(name(from), edge.reason)).filter(|_| is_alone && from.kind == NodeKind::Route));
            if let Some(rate) = rate {
                edge.take(*rate);
            }
        }
        let mut left_out: BTreeMap<&str, usize> = BTreeMap::new();
        for endpoint in &loads.ejected {
            *left_out.entry(&endpoint.backend).or_default() += 1;
        }
        for node in &mut self.nodes {
            match node.kind {
                NodeKind::Frontend => {
                    if let Some(rate) = dialled.get(node.label.as_str()) {
                        node.say(&rate.text(), rate.health());
                    }
                }
                NodeKind::Backend => {
                    let rate = chosen.get(node.label.as_str()).copied().unwrap_or_default();
                    node.health = node.health.min(rate.health());
                    if let Some(count) = left_out.get(node.label.as_str()) {
                        node.say(&format!("{count} ejected"), Health::Impaired);
                    }
                }
                NodeKind::Route | NodeKind::Cluster => {}
            }
        }
        self.sort();
        self
    }
}

impl Edge {
    /// What goes there, for a reader; a reason says already that all of it fails.
    pub(super) fn rate_text(&self) -> String {
        match self.rate {
            Some(rate) if !self.reason.is_empty() && rate.health() == Health::Broken => rate.requests(),
            rate => rate.map(Rate::text).unwrap_or_default(),
        }
    }

    fn take(&mut self, rate: Rate) {
        self.health = self.health.min(rate.health());
        self.rate = Some(rate);
    }
}

impl Node {
    fn say(&mut self, what: &str, health: Health) {
        let comma = if self.detail.is_empty() { "" } else { ", " };
        self.detail = format!("{}{comma}{what}", self.detail);
        self.health = self.health.min(health);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(ways: [&str; 4], per_second: f64, failed_per_second: f64) -> Load {
        let [frontend, route, backend, source_cluster] = ways.map(str::to_owned);
        Load { frontend, route, backend, source_cluster, reason: String::new(), rate: Rate { per_second, failed_per_second } }
    }

    fn node(kind: NodeKind, label: &str) -> Node {
        Node { id: format!("{kind:?} {label}"), kind, label: label.to_owned(), detail: String::new(), health: Health::Well }
    }

    fn graph() -> Graph {
        let nodes = vec![
            node(NodeKind::Frontend, "f"),
            node(NodeKind::Route, "HTTPRoute shop/r"),
            node(NodeKind::Backend, "b"),
            node(NodeKind::Backend, "c"),
            node(NodeKind::Cluster, "west"),
        ];
        let edge = |from: usize, to: usize| Edge {
            from: nodes[from].id.clone(),
            to: nodes[to].id.clone(),
            label: String::new(),
            health: Health::Well,
            reason: "",
            rate: None,
        };
        let edges = vec![edge(0, 1), edge(1, 2), edge(1, 3), edge(2, 4), edge(3, 4)];
        Graph { nodes, edges }
    }

    #[test]
    fn each_way_has_what_goes_there() {
        let loads = Loads {
            loads: vec![
                load(["f", "shop/r", "b", "west"], 8.0, 0.0),
                load(["f", "shop/r", "c", "west"], 2.0, 2.0),
                load(["f", "", "", ""], 1.0, 0.0),
                load(["elsewhere", "shop/r", "b", "west"], 1.0, 0.0),
            ],
            ejected: BTreeSet::from([EjectedEndpoint {
                backend: "c".to_owned(),
                source_cluster: "west".to_owned(),
                address: "a".to_owned(),
            }]),
        };
        let graph = graph().with(&loads);
        let said = |from: &str, to: &str| {
            let edge = graph.edges.iter().find(|edge| edge.from.ends_with(from) && edge.to.ends_with(to)).expect("an edge");
            (edge.rate.map(Rate::text).unwrap_or_default(), edge.health)
        };
        for (from, to, text, health) in [
            (" f", "/r", "10/s, 20 % fail", Health::Impaired),
            ("/r", " b", "9.0/s", Health::Well),
            ("/r", " c", "2.0/s, all fail", Health::Broken),
            (" b", "west", "9.0/s", Health::Well),
        ] {
            assert_eq!(said(from, to), (text.to_owned(), health), "{from} to {to}");
        }
        let node = |label: &str| graph.nodes.iter().find(|node| node.label == label).expect("a node");
        assert_eq!((node("f").detail.as_str(), node("f").health), ("11/s, 18 % fail", Health::Impaired));
        assert_eq!((node("c").detail.as_str(), node("c").health), ("1 ejected", Health::Broken));
        assert_eq!((node("b").detail.as_str(), node("b").health), ("", Health::Well));
        let order: Vec<&str> = graph.nodes.iter().map(|node| node.label.as_str()).collect();
        assert_eq!(order, ["f", "HTTPRoute shop/r", "c", "b", "west"], "what fails comes first");
    }

    #[test]
    fn a_way_that_ends_before_a_backend_has_what_failed_there() {
        let mut graph = graph();
        graph.edges[1].reason = "invalid_backend";
        let unserved = Load { reason: "invalid_backend".to_owned(), ..load(["f", "shop/r", "", ""], 2.0, 2.0) };
        let loads = Loads { loads: vec![unserved, load(["f", "shop/r", "", ""], 5.0, 0.0)], ejected: BTreeSet::new() };
        let rate = |graph: &Graph, number: usize| graph.edges[number].rate_text();
        let seen = graph.clone().with(&loads);
        assert_eq!([rate(&seen, 1), rate(&seen, 2)], ["2.0/s", ""]);
        graph.edges[2].reason = "invalid_backend";
        let seen = graph.with(&loads);
        assert_eq!([rate(&seen, 1), rate(&seen, 2)], ["", ""], "it may be either");
    }

    #[test]
    fn endpoints_without_a_cluster_are_somewhere() {
        let mut graph = graph();
        graph.nodes[4].label = BY_PLATFORM.to_owned();
        let graph = graph.with(&Loads { loads: vec![load(["f", "shop/r", "b", ""], 1.0, 0.0)], ejected: BTreeSet::new() });
        let last = graph.edges.iter().find(|edge| edge.from == "Backend b").expect("an edge");
        assert_eq!(last.rate.map(Rate::text).as_deref(), Some("1.0/s"));
    }

    #[test]
    fn what_several_have_seen_adds_up() {
        let way = ["f", "r", "b", "west"];
        let one = Loads { loads: vec![load(way, 1.0, 0.5)], ejected: BTreeSet::new() };
        let other = Loads { loads: vec![load(way, 2.0, 0.0), load(["f", "r", "b", "east"], 1.0, 0.0)], ejected: BTreeSet::new() };
        let both = Loads::together([one, other]);
        assert_eq!(both.loads, [load(["f", "r", "b", "east"], 1.0, 0.0), load(way, 3.0, 0.5)]);
        let text = serde_json::to_string(&both).expect("JSON");
        assert_eq!(serde_json::from_str::<Loads>(&text).expect("what it was"), both);
    }

    #[test]
    fn rates_are_short() {
        let text = |per_second, failed_per_second| Rate { per_second, failed_per_second }.text();
        assert_eq!(text(1234.5, 0.0), "1234/s");
        assert_eq!(text(0.04, 0.0), "<0.1/s");
        assert_eq!(text(1000.0, 0.5), "1000/s, <1 % fail");
    }
}
