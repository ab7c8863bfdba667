//! Header fields that a filter of the rule, or of the backendRef, sets, adds and removes.

use super::Expected::From;
use super::{Parent, Replay, get, prefix, rule, seen_header};

const CHANGES: [(&str, &str); 5] = [
    ("/set", "set: [{name: X-Header-Set, value: set-overwrites-values}]"),
    ("/add", "add: [{name: X-Header-Add, value: add-appends-values}]"),
    ("/remove", "remove: [X-Header-Remove]"),
    (
        "/multiple",
        "set: [{name: X-Header-Set-1, value: header-set-1}, {name: X-Header-Set-2, value: header-set-2}], add: [{name: X-Header-Add-1, value: \
         header-add-1}, {name: X-Header-Add-2, value: header-add-2}, {name: X-Header-Add-3, value: header-add-3}], remove: \
         [X-Header-Remove-1, X-Header-Remove-2]",
    ),
    (
        "/case-insensitivity",
        "set: [{name: X-Header-Set, value: header-set}], add: [{name: X-Header-Add, value: header-add}], remove: [X-Header-Remove]",
    ),
];

/// What is asked for, what is sent, what the backend should see; an empty value is an absent field.
pub(super) type Case = (&'static str, &'static [(&'static str, &'static str)], &'static [(&'static str, &'static str)]);

const CASES: [Case; 7] = [
    ("/set", &[("Some-Other-Header", "val")], &[("Some-Other-Header", "val"), ("X-Header-Set", "set-overwrites-values")]),
    (
        "/set",
        &[("Some-Other-Header", "val"), ("X-Header-Set", "some-other-value")],
        &[("Some-Other-Header", "val"), ("X-Header-Set", "set-overwrites-values")],
    ),
    ("/add", &[("Some-Other-Header", "val")], &[("Some-Other-Header", "val"), ("X-Header-Add", "add-appends-values")]),
    (
        "/add",
        &[("Some-Other-Header", "val"), ("X-Header-Add", "some-other-value")],
        &[("Some-Other-Header", "val"), ("X-Header-Add", "some-other-value,add-appends-values")],
    ),
    ("/remove", &[("X-Header-Remove", "val")], &[("X-Header-Remove", "")]),
    (
        "/multiple",
        &[
            ("X-Header-Set-2", "set-val-2"),
            ("X-Header-Add-2", "add-val-2"),
            ("X-Header-Remove-2", "remove-val-2"),
            ("Another-Header", "another-header-val"),
        ],
        &[
            ("X-Header-Set-1", "header-set-1"),
            ("X-Header-Set-2", "header-set-2"),
            ("X-Header-Add-1", "header-add-1"),
            ("X-Header-Add-2", "add-val-2,header-add-2"),
            ("X-Header-Add-3", "header-add-3"),
            ("Another-Header", "another-header-val"),
            ("X-Header-Remove-1", ""),
            ("X-Header-Remove-2", ""),
        ],
    ),
    (
        "/case-insensitivity",
        &[
            ("x-header-set", "original-val-set"),
            ("x-header-add", "original-val-add"),
            ("x-header-remove", "original-val-remove"),
            ("Another-Header", "another-header-val"),
        ],
        &[
            ("X-Header-Set", "header-set"),
            ("X-Header-Add", "original-val-add,header-add"),
            ("X-Header-Remove", ""),
            ("Another-Header", "another-header-val"),
        ],
    ),
];

fn filter(changes: &str) -> String {
    format!("{{type: RequestHeaderModifier, requestHeaderModifier: {{{changes}}}}}")
}

fn obeys(replay: &Replay) {
    for parent in Parent::BOTH {
        for (target, sent, expected) in CASES {
            let ask = sent.iter().fold(get(target), |ask, (name, value)| ask.with(name, value));
            let answer = replay.check(parent, "echo", ask, &From("echo-v1"));
            for (name, value) in expected {
                let wanted = (!value.is_empty()).then(|| (*value).to_owned());
                assert_eq!(seen_header(&answer, name), wanted, "{parent:?} {target} {name}");
            }
        }
    }
}

#[test]
fn mesh_http_route_request_header_modifier() {
    obeys(&Replay::start(|parent| {
        let rules =
            CHANGES.map(|(path, changes)| rule(&[&prefix(path, "")], &[&filter(changes)], &[parent.backend("echo-v1", "port: 8080")]));
        parent.route("mesh-request-header-modifier", &parent.reference("echo", "port: 80"), &rules)
    }));
}

#[test]
fn mesh_http_route_backend_request_header_modifier() {
    obeys(&Replay::start(|parent| {
        let rules = CHANGES.map(|(path, changes)| {
            let backend = parent.backend("echo-v1", &format!("port: 8080, filters: [{}]", filter(changes)));
            rule(&[&prefix(path, "")], &[], &[backend])
        });
        parent.route("mesh-request-header-modifier", &parent.reference("echo", "port: 80"), &rules)
    }));
}
