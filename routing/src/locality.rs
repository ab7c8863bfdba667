//! Which of a backend's endpoints are for a client at a place (digest D-17): traffic policies, hints and preferences.

use crate::model::{Backend, Distribution, Endpoint};

/// Where a client is; empty: unknown.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Location {
    /// Its cluster.
    pub cluster: String,
    /// Its node.
    pub node: String,
    /// Its zone.
    pub zone: String,
}

impl Location {
    fn is_node_of(&self, endpoint: &Endpoint) -> bool {
        endpoint.cluster == self.cluster && endpoint.node.as_deref() == Some(&self.node)
    }

    /// Whether `internalTrafficPolicy: Local` can be obeyed at all.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !self.cluster.is_empty() && !self.node.is_empty()
    }
}

/// Those of `endpoints` that the client should use. `internalTrafficPolicy: Local` leaves the others out even if none is left, unless the
/// client's node is unknown; a hint or a preference that nothing fulfils is none.
#[must_use]
pub fn usable(backend: &Backend, endpoints: Vec<Endpoint>, client: &Location) -> Vec<Endpoint> {
    if backend.policy.is_local && client.is_known() {
        return endpoints.into_iter().filter(|endpoint| client.is_node_of(endpoint)).collect();
    }
    let same_node = |endpoint: &Endpoint| client.is_known() && client.is_node_of(endpoint);
    let same_zone = |endpoint: &Endpoint| !client.zone.is_empty() && endpoint.zone.as_deref() == Some(&client.zone);
    let hinted = |endpoint: &Endpoint| !client.zone.is_empty() && endpoint.for_zones.contains(&client.zone);
    let all_hinted = endpoints.iter().all(|endpoint| !endpoint.for_zones.is_empty());
    match backend.policy.distribution {
        Some(Distribution::SameNode) if endpoints.iter().any(same_node) => keep(endpoints, same_node),
        // As kube-proxy does: one endpoint without a hint, and hints count for nothing.
        _ if all_hinted && endpoints.iter().any(hinted) => keep(endpoints, hinted),
        Some(Distribution::SameZone | Distribution::SameNode) if endpoints.iter().any(same_zone) => keep(endpoints, same_zone),
        Some(_) | None => endpoints,
    }
}

fn keep(endpoints: Vec<Endpoint>, condition: impl Fn(&Endpoint) -> bool) -> Vec<Endpoint> {
    endpoints.into_iter().filter(condition).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Addresses, AppProtocol, BackendId, TrafficPolicy};

    fn endpoint(cluster: &str, node: &str, zone: &str, for_zones: &[&str]) -> Endpoint {
        Endpoint {
            cluster: cluster.to_owned(),
            address: "10.0.0.1:80".parse().expect("an address"),
            zone: Some(zone.to_owned()),
            node: Some(node.to_owned()),
            for_zones: for_zones.iter().map(|zone| (*zone).to_owned()).collect(),
        }
    }

    fn chosen(policy: TrafficPolicy, endpoints: &[Endpoint], client: &Location) -> Vec<usize> {
        let backend = Backend {
            id: BackendId("ServiceImport/shop/cart/80".parse().expect("a name")),
            protocol: AppProtocol::Infer,
            affinity: None,
            policy,
            tls: None,
            retry_budget: None,
            persistence: None,
            addresses: Addresses::Endpoints(Vec::new()),
        };
        let left = usable(&backend, endpoints.to_vec(), client);
        (0..endpoints.len()).filter(|index| left.contains(&endpoints[*index])).collect()
    }

    fn at(cluster: &str, node: &str, zone: &str) -> Location {
        Location { cluster: cluster.to_owned(), node: node.to_owned(), zone: zone.to_owned() }
    }

    #[test]
    fn local_means_the_node_of_the_client_in_its_own_cluster() {
        let endpoints = [endpoint("west", "n1", "a", &[]), endpoint("west", "n2", "a", &[]), endpoint("east", "n1", "b", &[])];
        let local = TrafficPolicy { is_local: true, distribution: None };
        assert_eq!(chosen(local, &endpoints, &at("west", "n1", "a")), [0]);
        assert_eq!(chosen(local, &endpoints, &at("west", "n3", "a")), [0_usize; 0], "none there: none at all");
        assert_eq!(chosen(local, &endpoints, &at("west", "", "a")), [0, 1, 2], "unknown node: ignored");
    }

    #[test]
    fn a_preference_falls_back() {
        let endpoints = [endpoint("west", "n1", "a", &[]), endpoint("west", "n2", "a", &[]), endpoint("east", "n1", "b", &[])];
        let prefer = |distribution| TrafficPolicy { is_local: false, distribution: Some(distribution) };
        assert_eq!(chosen(prefer(Distribution::SameZone), &endpoints, &at("west", "n1", "a")), [0, 1]);
        assert_eq!(chosen(prefer(Distribution::SameZone), &endpoints, &at("west", "n1", "c")), [0, 1, 2]);
        assert_eq!(chosen(prefer(Distribution::SameNode), &endpoints, &at("west", "n2", "a")), [1]);
        assert_eq!(chosen(prefer(Distribution::SameNode), &endpoints, &at("west", "n9", "b")), [2], "then the zone");
        assert_eq!(chosen(TrafficPolicy::default(), &endpoints, &at("west", "n1", "a")), [0, 1, 2], "all of the ClusterSet");
    }

    #[test]
    fn hints_count_if_every_endpoint_has_one() {
        let hinted = [endpoint("west", "n1", "a", &["b"]), endpoint("west", "n2", "b", &["a"])];
        let close = TrafficPolicy { is_local: false, distribution: Some(Distribution::SameZone) };
        for policy in [close, TrafficPolicy::default()] {
            assert_eq!(chosen(policy, &hinted, &at("west", "n1", "a")), [1]);
        }
        let partly = [endpoint("west", "n1", "a", &["b"]), endpoint("west", "n2", "b", &[])];
        assert_eq!(chosen(TrafficPolicy::default(), &partly, &at("west", "n1", "b")), [0, 1]);
    }
}
