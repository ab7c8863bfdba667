//! Redirects: status and Location, which upstream does not look at.

use super::Expected::Redirect;
use super::{NOT_FOUND, Parent, Replay, filtered, get};

/// A route of redirects, then for each request the status and Location; `HOST` is what was dialled.
fn redirects(name: &str, rules: &[(&str, &str)], cases: &[(&str, u16, &str)]) {
    let rules: Vec<String> = rules
        .iter()
        .map(|(path, fields)| filtered(path, &format!("{{type: RequestRedirect, requestRedirect: {{{fields}}}}}"), &[]))
        .collect();
    let replay = Replay::start(|parent| parent.route(name, &parent.reference("echo", "port: 80"), &rules));
    for parent in Parent::BOTH {
        for (target, status, location) in cases {
            replay.check(parent, "echo", get(target), &Redirect(*status, location));
        }
        replay.check(parent, "echo", get("/elsewhere"), &NOT_FOUND);
    }
}

#[test]
fn mesh_http_route_redirect_host_and_status() {
    redirects(
        "mesh-redirect-host-and-status",
        &[("/hostname-redirect", "hostname: example.org"), ("/host-and-status", "statusCode: 301, hostname: example.org")],
        &[
            ("/hostname-redirect", 302, "http://example.org/hostname-redirect"),
            ("/hostname-redirect/x?y=1", 302, "http://example.org/hostname-redirect/x?y=1"),
            ("/host-and-status", 301, "http://example.org/host-and-status"),
        ],
    );
}

#[test]
fn mesh_http_route_redirect_path() {
    let replace_prefix = "path: {type: ReplacePrefixMatch, replacePrefixMatch: /replacement-prefix}";
    let replace_full = "path: {type: ReplaceFullPath, replaceFullPath: /replacement-full}";
    redirects(
        "mesh-redirect-path",
        &[
            ("/original-prefix", replace_prefix),
            ("/full", "path: {type: ReplaceFullPath, replaceFullPath: /full-path-replacement}"),
            ("/path-and-host", &format!("hostname: example.org, {replace_prefix}")),
            ("/path-and-status", &format!("{replace_prefix}, statusCode: 301")),
            ("/full-path-and-host", &format!("hostname: example.org, {replace_full}")),
            ("/full-path-and-status", &format!("{replace_full}, statusCode: 301")),
        ],
        &[
            ("/original-prefix/lemon", 302, "http://HOST/replacement-prefix/lemon"),
            ("/original-prefix?lemon", 302, "http://HOST/replacement-prefix?lemon"),
            ("/full/path/original", 302, "http://HOST/full-path-replacement"),
            ("/path-and-host/lemon", 302, "http://example.org/replacement-prefix/lemon"),
            ("/path-and-status/lemon", 301, "http://HOST/replacement-prefix/lemon"),
            ("/full-path-and-host/lemon", 302, "http://example.org/replacement-full"),
            ("/full-path-and-status/lemon", 301, "http://HOST/replacement-full"),
        ],
    );
}

#[test]
fn mesh_http_route_redirect_port() {
    redirects(
        "mesh-redirect-port",
        &[
            ("/port", "port: 8083"),
            ("/port-and-host", "hostname: example.org, port: 8083"),
            ("/port-and-status", "port: 8083, statusCode: 301"),
            ("/port-and-host-and-status", "port: 8083, hostname: example.org, statusCode: 302"),
        ],
        &[
            ("/port", 302, "http://HOST:8083/port"),
            ("/port-and-host", 302, "http://example.org:8083/port-and-host"),
            ("/port-and-status", 301, "http://HOST:8083/port-and-status"),
            ("/port-and-host-and-status", 302, "http://example.org:8083/port-and-host-and-status"),
        ],
    );
}

#[test]
fn mesh_http_route_scheme_redirect() {
    redirects(
        "mesh-redirect-scheme",
        &[
            ("/scheme", "scheme: https"),
            ("/scheme-and-host", "hostname: example.org, scheme: https"),
            ("/scheme-and-status", "scheme: https, statusCode: 301"),
            ("/scheme-and-host-and-status", "scheme: https, statusCode: 302, hostname: example.org"),
        ],
        &[
            ("/scheme", 302, "https://HOST/scheme"),
            ("/scheme-and-host", 302, "https://example.org/scheme-and-host"),
            ("/scheme-and-status", 301, "https://HOST/scheme-and-status"),
            ("/scheme-and-host-and-status", 302, "https://example.org/scheme-and-host-and-status"),
        ],
    );
}

#[test]
fn mesh_http_route_303_redirect() {
    redirects("mesh-303-redirect", &[("/redirect", "statusCode: 303")], &[("/redirect", 303, "http://HOST/redirect")]);
}

#[test]
fn mesh_http_route_307_redirect() {
    redirects("mesh-307-redirect", &[("/temporary", "statusCode: 307")], &[("/temporary", 307, "http://HOST/temporary")]);
}

#[test]
fn mesh_http_route_308_redirect() {
    redirects("mesh-308-redirect", &[("/permanent", "statusCode: 308")], &[("/permanent", 308, "http://HOST/permanent")]);
}
