//! Which endpoint gets a request: the source cluster by its share of endpoints, then the less loaded of two in it, so that distance does
//! not starve a far cluster.

use std::net::SocketAddr;
use std::time::Instant;

use crate::snapshot::{Affine, LiveBackend, LiveEndpoint};

/// What the choice depends on besides the backend.
pub(crate) struct Circumstances<'a> {
    /// Whether the client dialled an IPv6 address: that family is preferred (digest D-18).
    pub(crate) is_ipv6: bool,
    /// Endpoints that could not be connected to for this request.
    pub(crate) tried: &'a [SocketAddr],
    /// Milliseconds on the clock of [`crate::endpoint::EndpointState`].
    pub(crate) now_ms: u64,
    /// Now.
    pub(crate) now: Instant,
}

/// Chooses an endpoint that was not tried yet; none if there is none.
pub(crate) fn pick<'b>(
    backend: &'b LiveBackend,
    circumstances: &Circumstances<'_>,
    mut random: impl FnMut() -> u64,
) -> Option<&'b LiveEndpoint> {
    let (preferred, other) = if circumstances.is_ipv6 { (&backend.v6, &backend.v4) } else { (&backend.v4, &backend.v6) };
    let Some(timeout) = backend.model.affinity else {
        let chosen = pick_from(preferred, circumstances, &mut random);
        return chosen.or_else(|| pick_from(other, circumstances, &mut random));
    };
    let endpoints = if preferred.is_empty() { other } else { preferred };
    // One lock a backend with affinity; a sidecar has one client.
    let mut kept = backend.affinity.lock();
    let kept = &mut kept[usize::from(circumstances.is_ipv6)];
    let alive = kept.filter(|kept| circumstances.now.duration_since(kept.used) < timeout);
    let former = alive.and_then(|kept| {
        let usable = |endpoint: &&LiveEndpoint| endpoint.address == kept.address && is_usable(endpoint, circumstances);
        endpoints.iter().find(usable)
    });
    let chosen = former.or_else(|| pick_from(endpoints, circumstances, &mut random))?;
    *kept = Some(Affine { address: chosen.address, used: circumstances.now });
    Some(chosen)
}

/// The endpoint that a session keeps, if it is there and fit for use.
pub(crate) fn kept<'b>(backend: &'b LiveBackend, address: SocketAddr, circumstances: &Circumstances<'_>) -> Option<&'b LiveEndpoint> {
    let family = if address.is_ipv4() { &backend.v4 } else { &backend.v6 };
    family.iter().find(|endpoint| endpoint.address == address && is_usable(endpoint, circumstances))
}

fn is_usable(endpoint: &LiveEndpoint, circumstances: &Circumstances<'_>) -> bool {
    !circumstances.tried.contains(&endpoint.address) && !endpoint.state.is_ejected(circumstances.now_ms)
}

fn pick_from<'b>(
    endpoints: &'b [LiveEndpoint],
    circumstances: &Circumstances<'_>,
    random: &mut impl FnMut() -> u64,
) -> Option<&'b LiveEndpoint> {
    if endpoints.iter().all(|endpoint| is_usable(endpoint, circumstances)) {
        return two_choices(endpoints, random);
    }
    let usable: Vec<&LiveEndpoint> = endpoints.iter().filter(|endpoint| is_usable(endpoint, circumstances)).collect();
    if !usable.is_empty() {
        return two_choices(&usable, random).copied();
    }
    // All that are left are ejected: better one of these than none.
    let untried: Vec<&LiveEndpoint> = endpoints.iter().filter(|endpoint| !circumstances.tried.contains(&endpoint.address)).collect();
    two_choices(&untried, random).copied()
}

/// Uniform over endpoints gives each cluster its share; the rival comes from the same cluster. Endpoints are sorted by cluster.
fn two_choices<'b, E: std::borrow::Borrow<LiveEndpoint>>(endpoints: &'b [E], random: &mut impl FnMut() -> u64) -> Option<&'b E> {
    let first = endpoints.get(index(random(), endpoints.len())?)?;
    let cluster = &first.borrow().cluster;
    let begin = endpoints.partition_point(|endpoint| endpoint.borrow().cluster < *cluster);
    let end = endpoints.partition_point(|endpoint| endpoint.borrow().cluster <= *cluster);
    let rival = endpoints.get(begin + index(random(), end - begin)?)?;
    let is_better = rival.borrow().state.cost() < first.borrow().state.cost();
    Some(if is_better { rival } else { first })
}

fn index(random: u64, length: usize) -> Option<usize> {
    usize::try_from(random.checked_rem(length as u64)?).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};
    use routing::model::{Addresses, AppProtocol, Backend, BackendId, Endpoint};

    use super::*;
    use routing::locality::Location;
    use routing::model::TrafficPolicy;

    use crate::endpoint::{EndpointTable, Outcome};

    fn backend(addresses: &[(&str, &str)], affinity: Option<Duration>) -> LiveBackend {
        let id = BackendId("ServiceImport/shop/cart/80".parse().expect("a name"));
        let endpoint = |(cluster, address): &(&str, &str)| Endpoint {
            cluster: (*cluster).to_owned(),
            address: address.parse().expect("an address"),
            zone: None,
            node: None,
            for_zones: Vec::new(),
        };
        let mut endpoints: Vec<Endpoint> = addresses.iter().map(endpoint).collect();
        endpoints.sort();
        let model = Backend {
            id,
            protocol: AppProtocol::Infer,
            affinity,
            policy: TrafficPolicy::default(),
            tls: None,
            retry_budget: None,
            persistence: None,
            addresses: Addresses::Endpoints(endpoints),
        };
        LiveBackend::compile(model, None, &mut EndpointTable::default(), &Location::default())
    }

    fn now(tried: &[SocketAddr]) -> Circumstances<'_> {
        Circumstances { is_ipv6: false, tried, now_ms: 5000, now: Instant::now() }
    }

    const THREE: [(&str, &str); 3] = [("east", "10.2.0.1:80"), ("west", "10.1.0.1:80"), ("west", "10.1.0.2:80")];

    #[test]
    fn a_cluster_gets_its_share_however_slow_it_is() {
        let backend = backend(&THREE, None);
        backend.v4[0].state.observe(Duration::from_secs(1));
        let mut generator = SmallRng::seed_from_u64(1);
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..3000 {
            let chosen = pick(&backend, &now(&[]), || generator.random()).expect("an endpoint");
            *counts.entry(chosen.cluster.to_string()).or_default() += 1;
        }
        assert!((900..1100).contains(&counts["east"]), "{counts:?}");
    }

    #[test]
    fn within_a_cluster_the_faster_one_is_preferred() {
        let backend = backend(&THREE[1..], None);
        backend.v4[0].state.observe(Duration::from_millis(50));
        backend.v4[1].state.observe(Duration::from_millis(1));
        let mut generator = SmallRng::seed_from_u64(1);
        let slow = (0..1000).filter(|_| {
            let chosen = pick(&backend, &now(&[]), || generator.random()).expect("an endpoint");
            chosen.address == backend.v4[0].address
        });
        assert!((200..300).contains(&slow.count()), "only when drawn twice");
    }

    #[test]
    fn never_more_than_half_of_a_backend_is_ejected() {
        for (count, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)] {
            let addresses: Vec<String> = (0..count).map(|number| format!("10.0.0.{number}:80")).collect();
            let endpoints: Vec<(&str, &str)> = addresses.iter().map(|address| ("west", address.as_str())).collect();
            let backend = backend(&endpoints, None);
            for endpoint in &backend.v4 {
                backend.note(endpoint, Outcome::Unreachable, 5000, || 0);
            }
            assert_eq!(backend.v4.iter().filter(|endpoint| endpoint.state.is_ejected(5000)).count(), most, "of {count}");
        }
    }

    #[test]
    fn an_ejected_endpoint_is_passed_over_until_it_is_the_last() {
        let backend = backend(&THREE[1..], None);
        backend.note(&backend.v4[0], Outcome::Unreachable, 4500, || 0);
        for random in 0..10 {
            let chosen = pick(&backend, &now(&[]), || random).expect("an endpoint");
            assert_eq!(chosen.address, backend.v4[1].address);
        }
        let tried = [backend.v4[1].address];
        assert_eq!(pick(&backend, &now(&tried), || 0).expect("the failed one").address, backend.v4[0].address);
        let tried = [backend.v4[0].address, backend.v4[1].address];
        assert!(pick(&backend, &now(&tried), || 0).is_none());
    }

    #[test]
    fn the_dialled_family_is_preferred_and_the_other_better_than_none() {
        let both = backend(&[("west", "10.1.0.1:80"), ("west", "[fd00::1]:80")], None);
        let six = Circumstances { is_ipv6: true, ..now(&[]) };
        assert!(pick(&both, &six, || 0).expect("an endpoint").address.is_ipv6());
        assert!(pick(&backend(&THREE, None), &six, || 0).expect("an endpoint").address.is_ipv4());
        let tried = ["[fd00::1]:80".parse().expect("an address")];
        let chosen = pick(&both, &Circumstances { tried: &tried, ..six }, || 0);
        assert!(chosen.expect("an endpoint").address.is_ipv4(), "once the dialled family is out of reach");
    }

    #[test]
    fn affinity_keeps_an_endpoint_until_it_is_gone_or_forgotten() {
        let backend = backend(&THREE, Some(Duration::from_secs(60)));
        let mut random = 0;
        let mut chosen = |circumstances: &Circumstances<'_>| {
            random += 1;
            pick(&backend, circumstances, || random).expect("an endpoint").address
        };
        let first = chosen(&now(&[]));
        assert!((0..20).all(|_| chosen(&now(&[])) == first));
        let tried = [first];
        assert_ne!(chosen(&now(&tried)), first, "gone: another is chosen");
        let later = Circumstances { now: Instant::now() + Duration::from_secs(120), ..now(&[]) };
        let again: Vec<_> = (0..3).map(|_| chosen(&later)).collect();
        assert!(again.iter().all(|address| *address == again[0]), "and kept again: {again:?}");
    }
}
