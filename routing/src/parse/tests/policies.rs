//! BackendTLSPolicy and XBackendTrafficPolicy (H-28, H-33).

use super::*;
use crate::api::Policy;
use crate::certificates;
use crate::model::AltName;

fn policy(kind: &str, spec: &Value) -> Policy {
    let api_version = if kind == "BackendTLSPolicy" { "gateway.networking.k8s.io/v1" } else { "gateway.networking.x-k8s.io/v1alpha1" };
    let written = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "p"}, "spec": spec});
    match Object::decode(&written) {
        Ok(Some(Object::BackendTlsPolicy(policy) | Object::BackendTrafficPolicy(policy))) => policy,
        other => panic!("{other:?} is no policy"),
    }
}

fn tls(validation: &Value) -> Parsed<TlsPolicy> {
    tls_policy(&policy("BackendTLSPolicy", &json!({"targetRefs": [], "validation": validation})))
}

fn with(more: Value) -> Value {
    let mut validation = json!({"hostname": "a.example", "wellKnownCACertificates": "System"});
    for (field, value) in more.as_object().into_iter().flatten() {
        validation[field] = value.clone();
    }
    validation
}

#[test]
fn certificates_are_of_the_system_or_referred_to() {
    assert_eq!(tls(&with(json!({}))).expect("valid").roots, TlsRoots::System);
    let reference = json!({"group": "", "kind": "ConfigMap", "name": "ca"});
    let referred = |count: usize| tls(&with(json!({"wellKnownCACertificates": "", "caCertificateRefs": vec![reference.clone(); count]})));
    assert!(matches!(referred(8).expect("valid").roots, TlsRoots::References(references) if references.len() == 8));
    assert_eq!(referred(9).expect_err("too many").to_string(), "spec.validation.caCertificateRefs: has more than 8 entries");
    for (validation, expected) in [
        (json!({"hostname": "a.example"}), "spec.validation: names neither caCertificateRefs nor wellKnownCACertificates"),
        (with(json!({"wellKnownCACertificates": "Web"})), "spec.validation.wellKnownCACertificates: \"Web\" is not known; System is"),
        (with(json!({"caCertificateRefs": [reference]})), "spec.validation: names both caCertificateRefs and wellKnownCACertificates"),
        (with(json!({"hostname": "*.example"})), "spec.validation.hostname: \"*.example\" is no host name"),
    ] {
        assert_eq!(tls(&validation).expect_err("a fault").to_string(), expected);
    }
    assert_eq!(tls(&json!({"wellKnownCACertificates": "System"})).expect_err("no name").field, "spec.validation");
    assert_eq!(tls_policy(&policy("BackendTLSPolicy", &json!({}))).expect_err("nothing").field, "spec");
}

#[test]
fn alternative_names_are_host_names_or_uris() {
    let names = |names: Value| tls(&with(json!({"subjectAltNames": names})));
    let good = json!([{"type": "Hostname", "hostname": "*.a.example"}, {"type": "URI", "uri": "spiffe://a.example/b"}]);
    let expected = [AltName::Hostname("*.a.example".to_owned()), AltName::Uri("spiffe://a.example/b".to_owned())];
    assert_eq!(names(good).expect("valid").alt_names, expected);
    for (name, expected) in [
        (json!({"type": "URI", "uri": "a.example"}), ".uri: \"a.example\" has no scheme"),
        (json!({"type": "URI", "hostname": "a.example"}), ": of type URI needs that and nothing else"),
        (json!({"type": "URI", "uri": "spiffe://a", "hostname": "a.example"}), ": of type URI needs that and nothing else"),
        (json!({"type": "Hostname"}), ": of type Hostname needs that and nothing else"),
        (json!({"type": "Hostname", "hostname": "A"}), ": \"A\" is no host name"),
        (json!({"type": "Email"}), ".type: \"Email\" is neither Hostname nor URI"),
    ] {
        assert_eq!(names(json!([name])).expect_err("a fault").to_string(), format!("spec.validation.subjectAltNames[0]{expected}"));
    }
    let many = |count: usize| names(json!(vec![json!({"type": "Hostname", "hostname": "a.example"}); count])).is_ok();
    assert!(many(5) && !many(6));
}

#[test]
fn a_certificate_bundle_is_certificates_in_pem_and_nothing_broken() {
    let pem = |label: &str, content: &str| format!("-----BEGIN {label}-----\n{content}\n-----END {label}-----\n");
    let good = certificates::pem(certificates::ONE);
    assert!(is_certificate_bundle(&good));
    assert!(is_certificate_bundle(&format!("{good}{good}")));
    for text in [
        "",
        certificates::ONE,
        &pem("PRIVATE KEY", certificates::ONE),
        &pem("CERTIFICATE", "!"),
        &pem("CERTIFICATE", "MIIB"),
        &format!("{good}{}", pem("CERTIFICATE", "!")),
    ] {
        assert!(!is_certificate_bundle(text), "{text}");
    }
}

#[test]
fn the_intervals_of_a_budget_have_bounds() {
    let valid = |constraint: Value| traffic_policy(&policy("XBackendTrafficPolicy", &json!({"retryConstraint": constraint}))).is_ok();
    for (interval, is_valid) in [("1s", true), ("1h", true), ("999ms", false), ("3600s1ms", false), ("0s", false), ("x", false)] {
        assert_eq!(valid(json!({"budget": {"interval": interval}})), is_valid, "{interval}");
    }
    for (interval, is_valid) in [("1ms", true), ("1h", true), ("0s", false), ("3601s", false)] {
        assert_eq!(valid(json!({"minRetryRate": {"interval": interval}})), is_valid, "{interval}");
    }
    for (count, is_valid) in [(1, true), (1_000_000, true), (0, false), (1_000_001, false), (-1, false)] {
        assert_eq!(valid(json!({"minRetryRate": {"count": count}})), is_valid, "{count}");
    }
    for (percent, is_valid) in [(0, true), (100, true), (101, false), (-1, false)] {
        assert_eq!(valid(json!({"budget": {"percent": percent}})), is_valid, "{percent}");
    }
}
