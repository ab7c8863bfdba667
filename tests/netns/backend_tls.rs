//! BackendTLSPolicy (H-33; GEP-1897): TLS towards endpoints, who is trusted for what, and what is said where that cannot be had.

use http::{Method, Version};
use lab::client::Ask;
use lab::lab::Options;
use serde_json::Value;
use tests::{Bed, who, yaml};
use tokio_tungstenite::tungstenite::Message;

use super::echo::frames;

const STORE: &str = "store.default.svc.clusterset.local";
/// What the certificates of `secure` are for.
const NAMES: &str = "a.example.com, b.example.com, *.wild.example.com, spiffe://lab/secure";

/// Pods with TLS on 8443 and plain HTTP on 8080; their Service has `web` on 443 and `plain` on 80, and further ports of the TLS server.
fn secure(app_protocol: &str) -> String {
    let ports = "[{name: tls-web, containerPort: 8443}, {name: http, containerPort: 8080}]";
    let annotated = format!("labels: {{app: secure}}, annotations: {{isthmus.dev/lab-tls-names: \"{NAMES}\"}}");
    let pods = yaml::deployment("secure", "default", 1, ports).replace("labels: {app: secure}", &annotated);
    let service = format!(
        "[{{name: web, port: 443, targetPort: 8443{app_protocol}}}, {{name: plain, port: 80, targetPort: 8080}}, {{name: h2, port: 444, \
         targetPort: 8443, appProtocol: kubernetes.io/h2c}}]"
    );
    yaml::all(&[pods, yaml::service("secure", "default", &service, ""), yaml::export("secure", "default")])
}

fn rule(prefix: &str, backend: &str) -> String {
    format!("{{matches: [{{path: {{type: PathPrefix, value: {prefix}}}}}], backendRefs: [{backend}]}}")
}

/// `store`, whose route leads to every port of `secure`, the import that is in east and the Service that is in west.
fn bed_with(app_protocol: &str) -> Bed {
    let rules = [
        rule("/import", &yaml::import("secure", "port: 443")),
        rule("/service", "{name: secure, port: 443}"),
        rule("/plain", &yaml::import("secure", "port: 80")),
        rule("/h2", &yaml::import("secure", "port: 444")),
    ];
    let unexported = secure(app_protocol).replace(&yaml::export("secure", "default"), "{}");
    let files = [
        ("west/client.yaml", yaml::client("default")),
        ("west/store.yaml", yaml::exported("store", "default", 1)),
        ("west/secure.yaml", unexported),
        ("east/secure.yaml", secure(app_protocol)),
        ("west/route.yaml", yaml::route("store", "", &[yaml::import("store", "")], &rules)),
    ];
    Bed::start(&files, Options::default()).expect("a lab")
}

fn bed() -> Bed {
    bed_with("")
}

/// A ConfigMap with these certificates under a key.
fn config_map(key: &str, pem: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ca}}\ndata:\n  {key}: |\n    {}\n", pem.trim_end().replace('\n', "\n    "))
}

/// A policy for `secure` of a kind, with this server name; `target` and `validation` are further fields.
fn policy_for(kind: &str, target: &str, hostname: &str, validation: &str) -> String {
    let group = if kind == "Service" { "\"\"" } else { "multicluster.x-k8s.io" };
    let [target, validation] = [target, validation].map(|more| if more.is_empty() { String::new() } else { format!(", {more}") });
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: {}}}\nspec:\n  targetRefs: [{{group: {group}, \
         kind: {kind}, name: secure{target}}}]\n  validation: {{hostname: {hostname}, caCertificateRefs: [{{group: \"\", kind: ConfigMap, \
         name: ca}}]{validation}}}\n",
        kind.to_lowercase()
    )
}

fn policy(hostname: &str, validation: &str) -> String {
    policy_for("ServiceImport", "", hostname, validation)
}

/// Puts the lab's own certificate authority into force.
fn trust(bed: &mut Bed) {
    let pem = bed.ca_pem();
    bed.apply("west/ca.yaml", &config_map("ca.crt", &pem)).expect("in force");
}

/// A trusted authority and a policy on the import.
fn trusting(hostname: &str, validation: &str) -> Bed {
    let mut bed = bed();
    trust(&mut bed);
    bed.apply("west/policy.yaml", &policy(hostname, validation)).expect("in force");
    bed
}

/// The status, the reason if it is the sidecar's own, and the server name that the endpoint was asked for.
fn asked(bed: &Bed, target: &str) -> (u16, Option<String>, Option<String>) {
    let answer = bed.get(STORE, target).expect("an answer");
    (answer.status.as_u16(), answer.reason().map(str::to_owned), answer.seen()["sni"].as_str().map(str::to_owned))
}

fn secured(name: &str) -> (u16, Option<String>, Option<String>) {
    (200, None, Some(name.to_owned()))
}

fn refused(status: u16, reason: &str) -> (u16, Option<String>, Option<String>) {
    (status, Some(reason.to_owned()), None)
}

/// Type, status and reason of the conditions of a policy's first ancestor.
fn said(bed: &Bed, name: &str) -> Vec<(String, String, String)> {
    let policy = bed.status("west", "BackendTLSPolicy", "default", name).expect("a status");
    let conditions = policy["status"]["ancestors"][0]["conditions"].as_array().cloned().unwrap_or_default();
    let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    conditions.iter().map(|condition| (text(condition, "type"), text(condition, "status"), text(condition, "reason"))).collect()
}

fn condition(kind: &str, status: &str, reason: &str) -> (String, String, String) {
    (kind.to_owned(), status.to_owned(), reason.to_owned())
}

#[test]
fn endpoints_of_both_kinds_of_backend_are_spoken_to_in_tls() {
    let mut bed = bed();
    trust(&mut bed);
    let policies = [policy_for("ServiceImport", "", "a.example.com", ""), policy_for("Service", "", "b.example.com", "")];
    bed.apply("west/policies.yaml", &yaml::all(&policies)).expect("in force");
    for (target, name, cluster) in [("/import", "a.example.com", "east/secure"), ("/service", "b.example.com", "west/secure")] {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let client = bed.client().expect("a client");
            let ask = Ask { method: Method::POST, body: "some body".into(), ..Ask::get(STORE, target) };
            let answer = bed.ask_in(&client, STORE, version, &ask).expect("an answer");
            let seen = answer.seen();
            assert_eq!((who(&answer).as_str(), seen["sni"].as_str()), (cluster, Some(name)), "the policy's name, {version:?}: {answer:?}");
            assert_eq!((seen["protocol"].as_str(), seen["body"].as_str()), (Some("HTTP/1.1"), Some("some body")), "{seen}");
            assert_eq!(seen["host"], STORE, "the server name is not Host (D-24)");
        }
    }
    for name in ["serviceimport", "service"] {
        let all = [condition("Accepted", "True", "Accepted"), condition("ResolvedRefs", "True", "ResolvedRefs")];
        assert_eq!(said(&bed, name), all, "{name}");
    }
    let status = bed.status("west", "BackendTLSPolicy", "default", "serviceimport").expect("a status");
    let ancestor = &status["status"]["ancestors"][0];
    assert_eq!(
        (ancestor["ancestorRef"]["kind"].as_str(), ancestor["ancestorRef"]["name"].as_str()),
        (Some("ServiceImport"), Some("secure"))
    );
}

#[test]
fn http2_and_grpc_are_spoken_in_tls_too() {
    let bed = trusting("a.example.com", "");
    let client = bed.client().expect("a client");
    let grpc = |target: &str| Ask::grpc(STORE, target);
    for (target, ask) in [("/h2", Ask::get(STORE, "/h2")), ("/h2/Say", grpc("/h2/Say")), ("/import/Say", grpc("/import/Say"))] {
        for _ in 0..2 {
            let answer = bed.ask_in(&client, STORE, Version::HTTP_2, &ask).expect("an answer");
            let seen = answer.seen();
            let spoken = (answer.status.as_u16(), seen["protocol"].as_str(), seen["sni"].as_str());
            assert_eq!(spoken, (200, Some("HTTP/2.0"), Some("a.example.com")), "{target}: {answer:?}");
            assert_eq!(answer.grpc_status(), ask.headers.first().map(|_| 0), "{target}");
        }
    }
    let from_http1 = bed.get(STORE, "/h2").expect("an answer");
    assert_eq!(from_http1.seen()["protocol"], "HTTP/2.0", "appProtocol h2c with a policy is h2");
}

#[test]
fn a_certificate_of_another_authority_or_for_another_name_is_refused() {
    let mut bed = bed();
    let other = rcgen::generate_simple_self_signed(vec!["a.example.com".to_owned()]).expect("a certificate").cert.pem();
    bed.apply("west/ca.yaml", &config_map("ca.crt", &other)).expect("in force");
    bed.apply("west/policy.yaml", &policy("a.example.com", "")).expect("in force");
    assert_eq!(asked(&bed, "/import"), refused(502, "tls_failed"), "another authority");
    let own = bed.ca_pem();
    bed.apply("west/ca.yaml", &config_map("ca.crt", &format!("{other}{own}"))).expect("in force");
    assert_eq!(asked(&bed, "/import"), secured("a.example.com"), "one of several is enough");
    for name in ["c.example.com", "x.y.wild.example.com", "wild.example.com"] {
        bed.apply("west/policy.yaml", &policy(name, "")).expect("in force");
        assert_eq!(asked(&bed, "/import"), refused(502, "tls_failed"), "{name}");
    }
    bed.apply("west/policy.yaml", &policy("x.wild.example.com", "")).expect("in force");
    assert_eq!(asked(&bed, "/import"), secured("x.wild.example.com"), "a wildcard is for one label");
    bed.apply("west/policy.yaml", "{}").expect("in force");
    let policy = policy("a.example.com", "")
        .replace("caCertificateRefs: [{group: \"\", kind: ConfigMap, name: ca}]", "wellKnownCACertificates: System");
    bed.apply("west/policy.yaml", &policy).expect("in force");
    let (status, reason, _) = asked(&bed, "/import");
    assert!(
        matches!((status, reason.as_deref()), (502, Some("tls_failed")) | (500, Some("tls_unusable"))),
        "nobody public signed it: {reason:?}"
    );
}

#[test]
fn alternative_names_replace_the_server_name_for_verification() {
    let mut bed = trusting("b.example.com", "");
    let dns = |name: &str| format!("{{type: Hostname, hostname: \"{name}\"}}");
    let uri = |name: &str| format!("{{type: URI, uri: \"{name}\"}}");
    for (names, is_one) in [
        (vec![dns("a.example.com")], true),
        (vec![dns("x.wild.example.com")], true),
        (vec![dns("*.wild.example.com")], true),
        (vec![uri("spiffe://lab/secure")], true),
        (vec![dns("c.example.com"), uri("spiffe://lab/secure")], true),
        (vec![dns("c.example.com")], false),
        (vec![uri("spiffe://lab/secur")], false),
        (vec![uri("spiffe://lab/secure/x"), dns("example.com")], false),
    ] {
        let names = names.join(", ");
        bed.apply("west/policy.yaml", &policy("sni.example.org", &format!("subjectAltNames: [{names}]"))).expect("in force");
        let expected = if is_one { secured("sni.example.org") } else { refused(502, "tls_failed") };
        assert_eq!(asked(&bed, "/import"), expected, "{names}");
    }
    bed.apply("west/policy.yaml", &policy("b.example.com", &format!("subjectAltNames: [{}]", dns("c.example.com")))).expect("in force");
    assert_eq!(asked(&bed, "/import"), refused(502, "tls_failed"), "the server name alone is not enough then");
}

#[test]
fn a_section_name_means_one_port() {
    let mut bed = bed();
    trust(&mut bed);
    bed.apply("west/policy.yaml", &policy_for("ServiceImport", "sectionName: web", "a.example.com", "")).expect("in force");
    assert_eq!(asked(&bed, "/import"), secured("a.example.com"));
    assert_eq!(asked(&bed, "/plain"), (200, None, None), "another port is plain");
    let whole = policy_for("ServiceImport", "", "b.example.com", "").replace("name: serviceimport", "name: whole");
    bed.apply("west/whole.yaml", &whole).expect("in force");
    assert_eq!(asked(&bed, "/import"), secured("a.example.com"), "the more specific one");
    assert_eq!(asked(&bed, "/plain"), refused(502, "tls_failed"), "the other one is for all else, also where nobody speaks TLS");
    bed.apply("west/policy.yaml", &policy_for("ServiceImport", "sectionName: none", "a.example.com", "")).expect("in force");
    assert_eq!(said(&bed, "serviceimport")[0], condition("Accepted", "False", "TargetNotFound"));
    assert_eq!(asked(&bed, "/import"), secured("b.example.com"));
}

#[test]
fn of_two_policies_the_oldest_is_obeyed() {
    let dated = |name: &str, day: u32, hostname: &str| {
        let metadata = format!("metadata: {{name: {name}, creationTimestamp: \"2026-01-{day:02}T00:00:00Z\"}}");
        policy(hostname, "").replace("metadata: {name: serviceimport}", &metadata)
    };
    let mut bed = bed();
    trust(&mut bed);
    bed.apply("west/policies.yaml", &yaml::all(&[dated("a", 2, "a.example.com"), dated("b", 1, "b.example.com")])).expect("in force");
    assert_eq!(asked(&bed, "/import"), secured("b.example.com"));
    assert_eq!(
        [said(&bed, "a")[0].clone(), said(&bed, "b")[0].clone()],
        [condition("Accepted", "False", "Conflicted"), condition("Accepted", "True", "Accepted")]
    );
    bed.apply("west/policies.yaml", &dated("a", 2, "a.example.com")).expect("in force");
    assert_eq!(asked(&bed, "/import"), secured("a.example.com"));
    assert_eq!(said(&bed, "a")[0], condition("Accepted", "True", "Accepted"));
}

#[test]
fn certificates_that_cannot_be_had_make_an_error_until_they_can() {
    let mut bed = bed();
    bed.apply("west/policy.yaml", &policy("a.example.com", "")).expect("in force");
    let pem = bed.ca_pem();
    let bad = [
        ("no ConfigMap", "{}".to_owned()),
        ("another key", config_map("other.crt", &pem)),
        ("no PEM", config_map("ca.crt", "no certificate")),
        ("a broken one", config_map("ca.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----")),
    ];
    for (what, map) in bad {
        bed.apply("west/ca.yaml", &map).expect("in force");
        let (status, reason, _) = asked(&bed, "/import");
        assert_eq!((status, reason.as_deref()), (500, Some("tls_unusable")), "{what}");
        assert_eq!(asked(&bed, "/plain"), refused(500, "tls_unusable"), "never in plain text instead: {what}");
        let conditions =
            [condition("Accepted", "False", "NoValidCACertificate"), condition("ResolvedRefs", "False", "InvalidCACertificateRef")];
        assert_eq!(said(&bed, "serviceimport"), conditions, "{what}");
        trust(&mut bed);
        assert_eq!(asked(&bed, "/import"), secured("a.example.com"), "at once, after {what}");
        assert_eq!(said(&bed, "serviceimport")[0], condition("Accepted", "True", "Accepted"), "{what}");
    }
    bed.delete("west/ca.yaml").expect("in force");
    assert_eq!(asked(&bed, "/import"), refused(500, "tls_unusable"), "a connection of before is not used either");
}

#[test]
fn a_policy_that_changes_or_goes_leaves_no_connection_behind() {
    let mut bed = trusting("a.example.com", "");
    let client = bed.client().expect("a client");
    let address = bed.address(&client, STORE).expect("a VIP");
    // One client connection throughout, so that nothing but the sidecar's own connections could be new.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let opened = bed.namespace(&client).expect("its namespace").block_on(|| async {
        let stream = tokio::net::TcpStream::connect(address).await?;
        Ok(stream.into_std()?)
    });
    let stream = opened.expect("a connection");
    let mut connection = runtime
        .block_on(async { lab::client::Connection::on(tokio::net::TcpStream::from_std(stream)?, Version::HTTP_11).await })
        .expect("a connection");
    let mut ask = |target: &str| {
        let answer = runtime.block_on(connection.ask(&Ask::get(STORE, target))).expect("an answer");
        (answer.status.as_u16(), answer.reason().map(str::to_owned), answer.seen()["sni"].as_str().map(str::to_owned))
    };
    assert_eq!(ask("/import"), secured("a.example.com"));
    assert_eq!(ask("/h2"), secured("a.example.com"));
    bed.apply("west/policy.yaml", &policy("b.example.com", "")).expect("in force");
    assert_eq!(ask("/import"), secured("b.example.com"), "the former policy's connection is not used again");
    assert_eq!(ask("/h2"), secured("b.example.com"));
    assert_eq!(ask("/plain"), refused(502, "tls_failed"), "it is for every port");
    bed.delete("west/policy.yaml").expect("in force");
    assert_eq!(ask("/plain"), (200, None, None), "plain again");
    let (status, reason, _) = ask("/import");
    assert!(status >= 500 && reason.is_some(), "and plain where TLS is spoken: {status} {reason:?}");
    bed.apply("west/policy.yaml", &policy("a.example.com", "")).expect("in force");
    assert_eq!(ask("/import"), secured("a.example.com"));
}

#[test]
fn a_websocket_over_tls_needs_a_policy() {
    let mut bed = bed_with(", appProtocol: kubernetes.io/wss");
    trust(&mut bed);
    let to_secure = yaml::route("store", "", &[yaml::import("store", "")], &[rule("/", &yaml::import("secure", "port: 443"))]);
    bed.apply("west/route.yaml", &to_secure).expect("in force");
    let resolved = |bed: &Bed| {
        let status = bed.route_status("west", "default", "store").expect("a status");
        let conditions = status["status"]["parents"][0]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.into_iter().find(|condition| condition["type"] == "ResolvedRefs").unwrap_or_default();
        found["reason"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(resolved(&bed), "UnsupportedProtocol");
    assert_eq!(asked(&bed, "/"), refused(500, "invalid_backend"));
    bed.apply("west/policy.yaml", &policy("a.example.com", "")).expect("in force");
    assert_eq!(resolved(&bed), "ResolvedRefs");
    assert_eq!(asked(&bed, "/"), secured("a.example.com"));
    let sent = [Message::text("some text"), Message::binary(vec![0, 255])];
    assert_eq!(frames(&bed, STORE, &sent), sent);
    bed.delete("west/policy.yaml").expect("in force");
    assert_eq!((resolved(&bed), asked(&bed, "/")), ("UnsupportedProtocol".to_owned(), refused(500, "invalid_backend")));
}
