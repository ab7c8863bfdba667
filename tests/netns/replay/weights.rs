//! Shares of backends.

use std::collections::BTreeMap;

use super::{Parent, Replay, rule};

/// Four times as many as upstream, which tries up to ten times: five points are then nearly five standard deviations of a share of 70 %.
pub(super) const REQUESTS: usize = 2000;
const TOLERANCE: usize = REQUESTS / 20;

/// Deployments and their share in per cent; nobody else has any.
pub(super) fn are(shares: &BTreeMap<String, usize>, expected: &[(&str, usize)]) {
    let mut of_all = 0;
    for (deployment, per_cent) in expected {
        let of = |who: &str| who.split_once('/').is_some_and(|(_, name)| name == *deployment);
        let count: usize = shares.iter().filter(|(who, _)| of(who)).map(|(_, count)| count).sum();
        assert!(count.abs_diff(REQUESTS * per_cent / 100) <= TOLERANCE, "{deployment} {per_cent} %: {shares:?}");
        of_all += count;
    }
    assert_eq!(of_all, REQUESTS, "{shares:?}");
}

#[test]
fn mesh_http_route_weight() {
    let replay = Replay::start(|parent| {
        let backends = [parent.backend("echo-v1", "port: 8080, weight: 70"), parent.backend("echo-v2", "port: 8080, weight: 30")];
        parent.route("mesh-weighted-backends", &parent.reference("echo", "port: 80"), &[rule(&[], &[], &backends)])
    });
    for parent in Parent::BOTH {
        let shares = replay.bed.shares_from(&replay.client, REQUESTS, &parent.host("echo"), "/").expect("answers");
        are(&shares, &[("echo-v1", 70), ("echo-v2", 30)]);
    }
}
