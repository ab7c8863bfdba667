//! BackendTLSPolicy and XBackendTrafficPolicy: what is in force, and what status says (S-9, H-28, H-33).

use std::time::Duration;

use super::*;
use crate::certificates;
use crate::model::{BackendTls, Carrier, MinRetryRate, RetryBudget, Roots};

fn authority(name: &str, base64: &str) -> String {
    let certificate = certificates::pem(base64).replace('\n', "\\n");
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: shop}}\ndata: {{ca.crt: \"{certificate}\"}}")
}

const TO_CA: &str = "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]";
const SYSTEM: &str = "wellKnownCACertificates: System";
/// Two named ports.
const CART2: &str = "
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {name: cart, namespace: shop}
spec: {type: ClusterSetIP, ips: [10.201.0.2], ports: [{name: a, port: 80}, {name: b, port: 8080}]}
";

fn tls(name: &str, target: &str, validation: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  targetRefs: [{target}]\n  validation: {{hostname: {name}.example, {validation}}}"
    )
}

fn traffic(name: &str, target: &str, spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackendTrafficPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  targetRefs: [{target}]\n{spec}"
    )
}

fn aged(policy: &str, created: &str) -> String {
    policy.replacen("metadata: {", &format!("metadata: {{creationTimestamp: '{created}T00:00:00Z', "), 1)
}

fn key(kind: ObjectKind, name: &str) -> ObjectKey {
    ObjectKey { kind, namespace: "shop".to_owned(), name: name.to_owned() }
}

/// `Accepted=true/Accepted ...` of each target.
fn said(world: &World, kind: ObjectKind, name: &str) -> Vec<String> {
    let of = |entry: &EntryStatus| {
        let said = entry.conditions.iter().map(|condition| format!("{}={}/{}", condition.kind, condition.status, condition.reason));
        said.collect::<Vec<_>>().join(" ")
    };
    world.status(&key(kind, name)).expect("the policy").iter().map(of).collect()
}

/// The server name that a backend's certificate is verified for, or why it cannot be; none: no TLS.
fn server_name(world: &World, id: &str) -> Option<Result<String, String>> {
    world.backend(&BackendId(port(id))).expect("the backend").tls.map(|tls| match tls {
        BackendTls::Verified { hostname, .. } => Ok(hostname),
        BackendTls::Broken(message) => Err(message),
    })
}

const TLS: ObjectKind = ObjectKind::BackendTlsPolicy;
const TRAFFIC: ObjectKind = ObjectKind::BackendTrafficPolicy;
const IN_FORCE: &str = "Accepted=true/Accepted ResolvedRefs=true/ResolvedRefs";

#[test]
fn a_tls_policy_needs_certificates_that_exist() {
    let none = "Accepted=false/NoValidCACertificate ResolvedRefs=false/InvalidCACertificateRef";
    let ca = format!("{CART2}\n---\n{}", authority("ca", certificates::ONE));
    for (objects, validation, expected, broken) in [
        (CART2, SYSTEM, IN_FORCE, None),
        (ca.as_str(), TO_CA, IN_FORCE, None),
        (CART2, TO_CA, none, Some("BackendTLSPolicy shop/p: ConfigMap shop/ca does not exist")),
        (&ca.replace("ca.crt", "other"), TO_CA, none, Some("BackendTLSPolicy shop/p: ConfigMap shop/ca has no key ca.crt")),
        (
            &ca.replace("CERTIFICATE", "PRIVATE KEY"),
            TO_CA,
            none,
            Some("BackendTLSPolicy shop/p: ConfigMap shop/ca has no certificates in PEM under ca.crt"),
        ),
        (
            &ca.replace(certificates::ONE, "!"),
            TO_CA,
            none,
            Some("BackendTLSPolicy shop/p: ConfigMap shop/ca has no certificates in PEM under ca.crt"),
        ),
        (
            &ca,
            &TO_CA.replace("ConfigMap", "Secret"),
            "Accepted=false/NoValidCACertificate ResolvedRefs=false/InvalidKind",
            Some("BackendTLSPolicy shop/p: /Secret is no kind of CA certificate; ConfigMap is"),
        ),
        (
            &ca,
            &format!("{TO_CA}, {SYSTEM}"),
            "Accepted=false/Invalid",
            Some("BackendTLSPolicy shop/p: spec.validation: names both caCertificateRefs and wellKnownCACertificates"),
        ),
    ] {
        let world = world(&[objects, &tls("p", TO_CART, validation)]);
        assert_eq!(said(&world, TLS, "p"), [expected], "{validation}");
        let expected = broken.map_or_else(|| Ok("p.example".to_owned()), |broken| Err(broken.to_owned()));
        assert_eq!(server_name(&world, "ServiceImport/shop/cart/80"), Some(expected), "nothing is sent in plain text");
    }
}

#[test]
fn the_roots_are_all_of_the_config_maps() {
    let second = authority("more", certificates::OTHER);
    let validation = "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}, {group: core, kind: ConfigMap, name: more}]";
    let world = world(&[CART2, &authority("ca", certificates::ONE), &second, &tls("p", TO_CART, validation)]);
    let Some(BackendTls::Verified { roots: Roots::Pem(roots), .. }) =
        world.backend(&BackendId(port("ServiceImport/shop/cart/80"))).and_then(|backend| backend.tls)
    else {
        panic!("verified by certificates of ours")
    };
    assert!(roots.contains(certificates::ONE) && roots.contains(certificates::OTHER), "{roots}");
}

#[test]
fn a_policy_needs_a_target_that_exists() {
    let section = |name: &str| TO_CART.replace("name: cart", &format!("name: cart, sectionName: {name}"));
    let refused = |kind: ObjectKind| {
        if kind == TLS { "Accepted=false/TargetNotFound ResolvedRefs=true/ResolvedRefs" } else { "Accepted=false/TargetNotFound" }
    };
    let accepted = |kind: ObjectKind| if kind == TLS { IN_FORCE } else { "Accepted=true/Accepted" };
    for (kind, policy) in [(TLS, tls("p", "TARGET", SYSTEM)), (TRAFFIC, traffic("p", "TARGET", "retryConstraint: {}"))] {
        for (target, expected) in [
            (TO_CART, vec![accepted(kind)]),
            (&section("a"), vec![accepted(kind)]),
            (&section("c"), vec![refused(kind)]),
            (&TO_CART.replace("cart", "none"), vec![refused(kind)]),
            ("{group: '', kind: Service, name: cart}", vec![refused(kind)]),
            ("{group: example.org, kind: Bucket, name: b}", vec![]),
            (&format!("{}, {TO_CART}", TO_CART.replace("cart", "none")), vec![refused(kind), accepted(kind)]),
        ] {
            let world = world(&[CART2, &policy.replace("TARGET", target)]);
            assert_eq!(said(&world, kind, "p"), expected, "{kind:?} {target}");
        }
    }
}

/// GEP-713: the oldest, then the first by name, whatever the order in which they come; a loser is in force once the winner is gone.
#[test]
fn of_policies_with_one_target_the_oldest_is_in_force() {
    let (old, young) = ("2026-01-01", "2026-01-02");
    let lost = |kind: ObjectKind| {
        if kind == TLS { "Accepted=false/Conflicted ResolvedRefs=true/ResolvedRefs" } else { "Accepted=false/Conflicted" }
    };
    let won = |kind: ObjectKind| if kind == TLS { IN_FORCE } else { "Accepted=true/Accepted" };
    for (a, b, winner, loser) in [(young, old, "b", "a"), (old, young, "a", "b"), (old, old, "a", "b")] {
        for kind in [TLS, TRAFFIC] {
            let policy = |name: &str| if kind == TLS { tls(name, TO_CART, SYSTEM) } else { traffic(name, TO_CART, "retryConstraint: {}") };
            let (a, b) = (aged(&policy("a"), a), aged(&policy("b"), b));
            for order in [[&a, &b], [&b, &a]] {
                let mut world = world(&[CART2, order[0], order[1]]);
                assert_eq!(said(&world, kind, winner), [won(kind)]);
                assert_eq!(said(&world, kind, loser), [lost(kind)]);
                if kind == TLS {
                    assert_eq!(server_name(&world, "ServiceImport/shop/cart/80"), Some(Ok(format!("{winner}.example"))));
                }
                let touched = world.delete(&key(kind, winner));
                assert_eq!(said(&world, kind, loser), [won(kind)]);
                assert!(touched.statuses.contains(&key(kind, loser)), "{touched:?}");
            }
        }
    }
}

/// H-33: a policy on a port takes that port from a policy on the whole, and both are accepted.
#[test]
fn a_tls_policy_on_a_port_goes_before_one_on_the_whole() {
    let section = TO_CART.replace("name: cart", "name: cart, sectionName: b");
    let world = world(&[CART2, &aged(&tls("whole", TO_CART, SYSTEM), "2026-01-01"), &aged(&tls("port", &section, SYSTEM), "2026-01-02")]);
    assert_eq!(server_name(&world, "ServiceImport/shop/cart/80"), Some(Ok("whole.example".to_owned())));
    assert_eq!(server_name(&world, "ServiceImport/shop/cart/8080"), Some(Ok("port.example".to_owned())));
    assert_eq!(said(&world, TLS, "whole"), [IN_FORCE]);
    assert_eq!(said(&world, TLS, "port"), [IN_FORCE]);
    let entry = world.status(&key(TLS, "port")).expect("the policy").remove(0);
    let expected = serde_json::json!({"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "cart", "sectionName": "b"});
    assert_eq!(entry.reference, expected);
}

#[test]
fn a_policy_of_another_namespace_concerns_nobody() {
    let foreign = tls("p", TO_CART, SYSTEM).replace("namespace: shop", "namespace: bank");
    assert_eq!(server_name(&world(&[CART2, &foreign]), "ServiceImport/shop/cart/80"), None);
}

#[test]
fn a_traffic_policy_sets_the_retry_budget_and_the_persistence_of_a_backend() {
    let backend = |spec: &str| {
        let world = world(&[CART2, &traffic("p", TO_CART, spec)]);
        world.backend(&BackendId(port("ServiceImport/shop/cart/80"))).expect("the backend")
    };
    let default =
        RetryBudget { percent: 20, interval: Duration::from_secs(10), min: MinRetryRate { count: 10, interval: Duration::from_secs(1) } };
    assert_eq!(backend("retryConstraint: {}").retry_budget, Some(default));
    let written = "retryConstraint: {budget: {percent: 50, interval: 1m}, minRetryRate: {count: 3, interval: 100ms}}";
    let expected = RetryBudget {
        percent: 50,
        interval: Duration::from_secs(60),
        min: MinRetryRate { count: 3, interval: Duration::from_millis(100) },
    };
    assert_eq!(backend(written).retry_budget, Some(expected));
    assert_eq!(backend("retryConstraint: {budget: {percent: 101}}").retry_budget, None, "an invalid policy asks for nothing");
    assert_eq!(backend("").retry_budget, None);
    let persistence = backend("sessionPersistence: {sessionName: s, type: Header}").persistence.expect("asked for");
    assert_eq!((persistence.session_name.as_deref(), persistence.carrier), (Some("s"), Carrier::Header));
}

#[test]
fn a_traffic_policy_with_a_bad_value_is_invalid() {
    for (spec, message) in [
        ("retryConstraint: {budget: {percent: 101}}", "spec.retryConstraint.budget.percent: 101 is not between 0 and 100"),
        ("retryConstraint: {budget: {interval: 2h}}", "spec.retryConstraint.budget.interval: \"2h\" is not between 1s and 3600s"),
        ("retryConstraint: {minRetryRate: {count: 0}}", "spec.retryConstraint.minRetryRate.count: 0 is not between 1 and 1000000"),
        ("sessionPersistence: {type: Query}", "spec.sessionPersistence.type: \"Query\" is neither Cookie nor Header"),
    ] {
        let world = world(&[CART2, &traffic("p", TO_CART, spec)]);
        assert_eq!(said(&world, TRAFFIC, "p"), ["Accepted=false/Invalid"], "{spec}");
        assert_eq!(world.status(&key(TRAFFIC, "p")).expect("the policy")[0].conditions[0].message, message);
    }
}

/// GEP-1619: not both; the retry budget of the same policy stays in force.
#[test]
fn a_traffic_policy_cannot_ask_for_sessions_where_there_is_affinity() {
    let affine = CART2.replace("ips:", "sessionAffinity: ClientIP, ips:");
    let world = world(&[&affine, &traffic("p", TO_CART, "sessionPersistence: {}\nretryConstraint: {}")]);
    assert_eq!(said(&world, TRAFFIC, "p"), ["Accepted=false/Invalid"]);
    let backend = world.backend(&BackendId(port("ServiceImport/shop/cart/80"))).expect("the backend");
    assert_eq!(backend.persistence, None);
    assert_eq!(backend.affinity, Some(Duration::from_secs(10_800)));
}
