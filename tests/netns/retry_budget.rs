//! Retry budgets of backends (XBackendTrafficPolicy, GEP-3388; H-28), and what is said about the policy (S-9).

use serde_json::{Value, json};
use tests::{Bed, who, yaml};

use super::replay::{prefix, rule};
use super::store::{STORE, bed, own_answer, with};

/// `name` on a target of the same cluster.
pub(crate) fn policy(name: &str, target: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: gateway.networking.x-k8s.io/v1alpha1, kind: XBackendTrafficPolicy, metadata: {{name: {name}, namespace: default, \
         generation: 3}}, spec: {{targetRefs: [{target}], {spec}}}}}"
    )
}

/// The target that is an import.
pub(crate) fn on_import(name: &str) -> String {
    format!("{{group: multicluster.x-k8s.io, kind: ServiceImport, name: {name}}}")
}

/// Nothing is forgotten while a test runs.
fn budget(percent: u32, count: u32) -> String {
    format!("retryConstraint: {{budget: {{percent: {percent}, interval: 1h}}, minRetryRate: {{count: {count}, interval: 1h}}}}")
}

fn retried(path: &str, backend: &str, attempts: u32) -> String {
    let rule = rule(&[&prefix(path, "")], &[], &[backend.to_owned()]);
    with(&rule, &format!("retry: {{codes: [500], attempts: {attempts}, backoff: 1ms}}"))
}

const ON_SERVICE: &str = "{group: \"\", kind: Service, name: local}";

/// What is said about the only target of a policy: the target, and status and reason of Accepted.
pub(crate) fn ancestor(bed: &Bed, name: &str) -> (Value, [String; 2]) {
    let policy = bed.status("west", "XBackendTrafficPolicy", "default", name).expect("a status");
    let ancestors = policy["status"]["ancestors"].as_array().cloned().unwrap_or_default();
    assert_eq!(ancestors.len(), 1, "{policy}");
    let conditions = ancestors[0]["conditions"].as_array().cloned().unwrap_or_default();
    let accepted = conditions.iter().find(|condition| condition["type"] == "Accepted").cloned().unwrap_or_default();
    assert_eq!(accepted["observedGeneration"], 3, "{policy}");
    assert!(ancestors[0]["controllerName"].as_str().is_some_and(|name| name.contains('/')), "{policy}");
    (ancestors[0]["ancestorRef"].clone(), ["status", "reason"].map(|field| accepted[field].as_str().unwrap_or_default().to_owned()))
}

#[test]
fn past_the_budget_a_retry_is_refused() {
    let rules = [
        retried("/import", &yaml::import("cart", ""), 3),
        retried("/service", "{kind: Service, name: local, port: 80}", 3),
        retried("/free", &yaml::import("free", ""), 3),
    ];
    let app = |name| yaml::exported(name, "default", 1);
    let policies = [policy("import", &on_import("cart"), &budget(0, 3)), policy("service", ON_SERVICE, &budget(0, 3))];
    let bed = bed(
        &rules,
        vec![
            ("east/apps.yaml", yaml::all(&[app("cart"), app("free")])),
            ("west/local.yaml", yaml::app("local", "default", 1)),
            ("west/policies.yaml", yaml::all(&policies)),
        ],
    );
    for (path, cluster) in [("/import", "east/cart"), ("/service", "west/local")] {
        for number in 0..6 {
            let answer = bed.get(STORE, &format!("{path}?fail=1&id={number}{path}")).expect("an answer");
            if number < 3 {
                assert_eq!(
                    (answer.status.as_u16(), who(&answer).as_str()),
                    (200, cluster),
                    "{path} {number}: the rate that is allowed anyway"
                );
            } else {
                assert_eq!(own_answer(&answer), (503, Some("retry_budget")), "{path} {number}");
            }
        }
        let answer = bed.get(STORE, path).expect("an answer");
        assert_eq!((answer.status.as_u16(), who(&answer).as_str()), (200, cluster), "what needs no retry needs no budget");
        let answer = bed.get(STORE, &format!("{path}?fail=1&status=503&id=other{path}")).expect("an answer");
        assert_eq!((answer.status.as_u16(), who(&answer).as_str()), (503, cluster), "nor does what is not retried");
    }
    for number in 0..20 {
        assert_eq!(bed.get(STORE, &format!("/free?fail=3&id=free-{number}")).expect("an answer").status, 200, "without a policy");
    }
}

#[test]
fn a_budget_is_a_share_of_what_is_sent_to_its_backend_by_all_rules() {
    let rules = [retried("/one", &yaml::import("cart", ""), 3), retried("/two", &yaml::import("cart", ""), 3)];
    let more = vec![
        ("east/cart.yaml", yaml::exported("cart", "default", 1)),
        ("west/policy.yaml", policy("import", &on_import("cart"), &budget(20, 1))),
    ];
    let bed = bed(&rules, more);
    bed.shares(79, STORE, "/one").expect("answers");
    let mut good = 0;
    for number in 0..30 {
        let path = if number % 2 == 0 { "/one" } else { "/two" };
        let answer = bed.get(STORE, &format!("{path}?fail=1&id={number}")).expect("an answer");
        match answer.status.as_u16() {
            200 => good += 1,
            _ => assert_eq!(own_answer(&answer), (503, Some("retry_budget")), "{number}"),
        }
    }
    assert_eq!(good, 27, "20 % of what is sent, 109 requests and their retries");
}

#[test]
fn what_is_said_about_a_policy() {
    let policies = [
        policy("import", &on_import("cart"), &budget(20, 1)),
        policy("later", &on_import("cart"), &budget(50, 1)),
        policy("service", ON_SERVICE, &budget(20, 1)),
        policy("missing", &on_import("missing"), &budget(20, 1)),
        policy("invalid", &on_import("other"), &budget(101, 1)),
    ];
    let mut bed = bed(
        &[retried("/", &yaml::import("cart", ""), 1)],
        vec![
            ("east/apps.yaml", yaml::all(&[yaml::exported("cart", "default", 1), yaml::exported("other", "default", 1)])),
            ("west/local.yaml", yaml::app("local", "default", 1)),
            ("west/policies.yaml", yaml::all(&policies)),
        ],
    );
    for (name, target, status, reason) in [
        ("import", json!({"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "cart"}), "True", "Accepted"),
        ("later", json!({"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "cart"}), "False", "Conflicted"),
        ("service", json!({"group": "", "kind": "Service", "name": "local"}), "True", "Accepted"),
        ("missing", json!({"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "missing"}), "False", "TargetNotFound"),
        ("invalid", json!({"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "other"}), "False", "Invalid"),
    ] {
        assert_eq!(ancestor(&bed, name), (target, [status.to_owned(), reason.to_owned()]), "{name}");
    }
    bed.apply("west/policies.yaml", &yaml::all(&policies[1..])).expect("in force");
    assert_eq!(ancestor(&bed, "later").1, ["True", "Accepted"], "the older one is gone");
}
