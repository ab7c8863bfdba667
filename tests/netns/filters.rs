//! Filters in their places: on rules and on backendRefs, in their order, with the path, Host, Location and header fields that come of them (T-20,
//! T-21).

use http::header::SET_COOKIE;
use http::{Method, Version};
use lab::client::{Answer, Ask};
use tests::{who, yaml};

use super::replay::{prefix, rule, seen_header};
use super::store::{STORE, bed, condition, filtered_backend, own_answer};

fn cart() -> [String; 1] {
    [yaml::import("cart", "")]
}

fn request_headers(changes: &str) -> String {
    format!("{{type: RequestHeaderModifier, requestHeaderModifier: {{{changes}}}}}")
}

fn response_headers(changes: &str) -> String {
    format!("{{type: ResponseHeaderModifier, responseHeaderModifier: {{{changes}}}}}")
}

fn rewrite(fields: &str) -> String {
    format!("{{type: URLRewrite, urlRewrite: {{{fields}}}}}")
}

fn redirect(fields: &str) -> String {
    format!("{{type: RequestRedirect, requestRedirect: {{{fields}}}}}")
}

fn cart_in_east() -> Vec<(&'static str, String)> {
    vec![("east/cart.yaml", yaml::exported("cart", "default", 1))]
}

/// All values of a field of an answer.
fn values(answer: &Answer, name: &str) -> Vec<String> {
    answer.headers.get_all(name).iter().map(|value| value.to_str().expect("text").to_owned()).collect()
}

/// Request, prefix, replacement, result (HTTPPathModifier.replacePrefixMatch; H-14).
const ROWS: [(&str, &str, &str, &str); 11] = [
    ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
    ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
    ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
    ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
    ("/foo", "/foo", "/xyz", "/xyz"),
    ("/foo/", "/foo", "/xyz", "/xyz/"),
    ("/foo/bar", "/foo", "", "/bar"),
    ("/foo/", "/foo", "", "/"),
    ("/foo", "/foo", "", "/"),
    ("/foo/", "/foo", "/", "/"),
    ("/foo", "/foo", "/", "/"),
];

#[test]
fn the_table_of_replaced_prefixes_in_rewrites_and_redirects() {
    // The six pairs of prefix and replacement, each for both filters; a header says which is meant.
    let mut pairs: Vec<(&str, &str)> = ROWS.map(|(_, prefix, replacement, _)| (prefix, replacement)).to_vec();
    pairs.sort_unstable();
    pairs.dedup();
    let path = |replacement: &str| format!("path: {{type: ReplacePrefixMatch, replacePrefixMatch: \"{replacement}\"}}");
    let matching = |matched: &str, row: &str| prefix(matched, &format!("headers: [{{name: x-row, value: \"{row}\"}}]"));
    let named = |filter: &str, (prefix, replacement): (&str, &str)| format!("{filter} {prefix}>{replacement}");
    let mut rules = Vec::new();
    for (prefix, replacement) in &pairs {
        let row = |filter: &str| matching(prefix, &named(filter, (prefix, replacement)));
        rules.push(rule(&[&row("rewrite")], &[&rewrite(&path(replacement))], &cart()));
        rules.push(rule(&[&row("redirect")], &[&redirect(&path(replacement))], &[]));
    }
    let bed = bed(&rules, cart_in_east());
    assert_eq!(condition(&bed, "PartiallyInvalid")[0], "", "all rules are obeyed");
    let client = bed.client().expect("a client");
    for (request, prefix, replacement, result) in ROWS {
        for query in ["", "?x=1"] {
            let asked = |filter: &str| {
                let row = named(filter, (prefix, replacement));
                let ask = Ask::get(STORE, &format!("{request}{query}")).with("x-row", &row);
                bed.ask(&client, STORE, &ask).expect("an answer")
            };
            let seen = asked("rewrite").seen();
            assert_eq!(seen["target"], format!("{result}{query}"), "{request}{query} | {prefix} | {replacement}");
            let answer = asked("redirect");
            let location = format!("http://{STORE}{result}{query}");
            assert_eq!(answer.header("location"), Some(location.as_str()), "{request}{query} | {prefix} | {replacement}");
        }
    }
}

#[test]
fn a_redirect_without_port_goes_to_the_one_that_was_dialled() {
    let ports = "[{name: http, port: 80, targetPort: 8080}, {name: alt, port: 8080}, {name: https, port: 443, targetPort: 8080}]";
    let store = yaml::all(&[
        yaml::deployment("store", "default", 1, "[{containerPort: 8080}]"),
        yaml::service("store", "default", ports, ""),
        yaml::export("store", "default"),
    ]);
    let rules = [
        rule(&[&prefix("/same", "")], &[&redirect("path: {type: ReplaceFullPath, replaceFullPath: /there}")], &[]),
        rule(&[&prefix("/backend", "")], &[], &[filtered_backend("store", &[&redirect("statusCode: 307")])]),
    ];
    let bed = bed(&rules, vec![("west/store.yaml", store)]);
    let client = bed.client().expect("a client");
    for (port, said) in [(80, ""), (8080, ":8080"), (443, ":443")] {
        // What Host says about a port counts for nothing.
        for host in [STORE.to_owned(), format!("{STORE}:{port}"), format!("{STORE}:9")] {
            for version in [Version::HTTP_11, Version::HTTP_2] {
                for (path, status, location) in [("/same/x", 302, "/there"), ("/backend/x", 307, "/backend/x")] {
                    let to = format!("{STORE}:{port}");
                    let answer = bed.ask_in(&client, &to, version, &Ask::get(&host, path)).expect("an answer");
                    assert_eq!(own_answer(&answer), (status, Some("redirect")), "{to} {host}");
                    let location = format!("http://{STORE}{said}{location}");
                    assert_eq!(answer.header("location"), Some(location.as_str()), "{to} {host} {version:?}");
                }
            }
        }
    }
}

#[test]
fn a_redirect_keeps_the_brackets_of_an_address() {
    let bed = bed(&[rule(&[], &[&redirect("statusCode: 301")], &[])], Vec::new());
    let client = bed.client().expect("a client");
    for vip in bed.resolve(&client, STORE).expect("VIPs") {
        let to = std::net::SocketAddr::new(vip, 80);
        let host = to.to_string().strip_suffix(":80").expect("a port").to_owned();
        for said in [host.clone(), to.to_string()] {
            let answer = bed.ask(&client, &to.to_string(), &Ask::get(&said, "/x?y")).expect("an answer");
            assert_eq!(answer.header("location"), Some(format!("http://{host}/x?y").as_str()), "{said}");
        }
    }
}

#[test]
fn filters_of_a_backend_come_after_those_of_its_rule() {
    let of_rule = [
        request_headers("set: [{name: x-both, value: rule}, {name: x-rule, value: rule}], add: [{name: x-list, value: rule}]"),
        response_headers("set: [{name: x-both, value: rule}, {name: x-rule, value: rule}], add: [{name: x-list, value: rule}]"),
        rewrite("hostname: rule.example.com, path: {type: ReplacePrefixMatch, replacePrefixMatch: /rule}"),
    ];
    let of_backend = [
        request_headers("set: [{name: x-both, value: backend}], add: [{name: x-list, value: backend}], remove: [x-mine]"),
        response_headers("set: [{name: x-both, value: backend}], add: [{name: x-list, value: backend}], remove: [date]"),
        rewrite("hostname: backend.example.com, path: {type: ReplaceFullPath, replaceFullPath: /backend}"),
    ];
    let [rule_filters, backend_filters] = [&of_rule, &of_backend].map(|filters| filters.each_ref().map(String::as_str));
    let rules = [
        rule(&[&prefix("/both", "")], &rule_filters, &[filtered_backend("cart", &backend_filters)]),
        rule(&[&prefix("/rule", "")], &rule_filters, &cart()),
        rule(&[&prefix("/backend", "")], &[], &[filtered_backend("cart", &backend_filters)]),
    ];
    let bed = bed(&rules, cart_in_east());
    let client = bed.client().expect("a client");
    for (path, host, target, list, mine) in [
        ("/both", "backend.example.com", "/backend?y", &["rule", "backend"][..], None),
        ("/rule", "rule.example.com", "/rule/x?y", &["rule"], Some("1")),
        ("/backend", "backend.example.com", "/backend?y", &["backend"], None),
    ] {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let ask = Ask::get(STORE, &format!("{path}/x?y")).with("x-mine", "1").with("x-both", "client");
            let answer = bed.ask_in(&client, STORE, version, &ask).expect("an answer");
            let seen = answer.seen();
            assert_eq!((seen["host"].as_str(), seen["target"].as_str()), (Some(host), Some(target)), "{path}");
            let last = list.last().copied();
            assert_eq!(seen_header(&answer, "x-both").as_deref(), last, "{path}: {seen}");
            assert_eq!(seen_header(&answer, "x-list"), Some(list.join(",")), "{path}: {seen}");
            assert_eq!(seen_header(&answer, "x-mine").as_deref(), mine, "{path}: {seen}");
            assert_eq!((answer.header("x-both"), values(&answer, "x-list")), (last, list.iter().map(ToString::to_string).collect()));
            assert_eq!(answer.header("date").is_some(), mine.is_some(), "{path}: {answer:?}");
        }
    }
}

#[test]
fn an_answer_of_the_sidecar_s_own_has_what_earlier_filters_add() {
    let add = response_headers("add: [{name: x-added, value: early}]");
    let cors = "{type: CORS, cors: {allowOrigins: [\"https://app.example\"]}}";
    let to = redirect("hostname: example.org");
    let rules = [
        rule(&[&prefix("/early", "")], &[&add, &to], &[]),
        rule(&[&prefix("/late", "")], &[&to, &add], &[]),
        rule(&[&prefix("/error", "")], &[&add], &[yaml::import("missing", "")]),
        rule(&[&prefix("/cors", "")], &[cors, &to], &[]),
        rule(
            &[&prefix("/rewritten", "")],
            &[&rewrite("hostname: rule.example.com")],
            &[filtered_backend("cart", &[&redirect("scheme: https")])],
        ),
    ];
    let bed = bed(&rules, cart_in_east());
    let client = bed.client().expect("a client");
    for (path, status, added) in [("/early", 302, Some("early")), ("/late", 302, None), ("/error", 500, Some("early"))] {
        let answer = bed.get(STORE, path).expect("an answer");
        assert_eq!((own_answer(&answer).0, answer.header("x-added")), (status, added), "{path}");
    }
    let answer = bed.ask(&client, STORE, &Ask::get(STORE, "/cors").with("origin", "https://app.example")).expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (302, Some("https://app.example")));
    let answer = bed.get(STORE, "/rewritten").expect("an answer");
    assert_eq!(answer.header("location"), Some("https://rule.example.com/rewritten"), "the request as it then is");
}

#[test]
fn fields_with_several_values_keep_all_of_them() {
    let rules = [rule(&[], &[&response_headers("add: [{name: set-cookie, value: b=2}]")], &cart())];
    let bed = bed(&rules, cart_in_east());
    let client = bed.client().expect("a client");
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let ask = Ask::get(STORE, "/").with("x-set-header", "set-cookie:a=1").with("x-list", "one").with("x-list", "two");
        let answer = bed.ask_in(&client, STORE, version, &ask).expect("an answer");
        assert_eq!(values(&answer, SET_COOKIE.as_str()), ["a=1", "b=2"], "{version:?}");
        assert_eq!(seen_header(&answer, "x-list").as_deref(), Some("one,two"), "{version:?}");
    }
}

#[test]
fn host_is_set_as_the_authority_it_is() {
    let rules = [rule(&[], &[&request_headers("set: [{name: Host, value: other.example.com}]")], &cart())];
    let bed = bed(&rules, cart_in_east());
    let client = bed.client().expect("a client");
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let answer = bed.ask_in(&client, STORE, version, &Ask::get(STORE, "/")).expect("an answer");
        assert_eq!(answer.seen()["host"], "other.example.com", "{version:?}");
        assert_eq!(seen_header(&answer, "host").as_deref(), Some("other.example.com"), "once: {version:?}");
    }
}

#[test]
fn a_filter_that_cannot_be_obeyed_is_never_skipped() {
    let extension = "{type: ExtensionRef, extensionRef: {group: example.com, kind: Teleport, name: x}}";
    let rules = [
        rule(&[&prefix("/unknown", "")], &["{type: Teleport}"], &cart()),
        rule(&[&prefix("/twice", "")], &[&rewrite("hostname: a.example"), &redirect("hostname: b.example")], &[]),
        rule(&[&prefix("/extension", "")], &[extension], &cart()),
        rule(&[&prefix("/backend", "")], &[], &[filtered_backend("cart", &[extension])]),
        rule(&[&prefix("/good", "")], &[&rewrite("hostname: a.example")], &cart()),
    ];
    let bed = bed(&rules, cart_in_east());
    assert_eq!(condition(&bed, "Accepted")[..2], ["True", "Accepted"]);
    let [status, reason, message] = condition(&bed, "PartiallyInvalid");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "UnsupportedValue"), "{message}");
    assert!(message.starts_with("Dropped Rule") && message.contains("Teleport"), "{message}");
    for (path, status, reason) in [
        ("/unknown", 404, "no_route"),
        ("/twice", 404, "no_route"),
        ("/extension", 500, "unsupported_filter"),
        ("/backend", 500, "unsupported_filter"),
    ] {
        for method in [Method::GET, Method::POST] {
            let ask = Ask { method, ..Ask::get(STORE, &format!("{path}?id=refused")) };
            let answer = bed.ask(&bed.client().expect("a client"), STORE, &ask).expect("an answer");
            assert_eq!(own_answer(&answer), (status, Some(reason)), "{path}");
        }
    }
    assert_eq!(who(&bed.get(STORE, "/good").expect("an answer")), "east/cart");
    assert_eq!(bed.seen("east/default/cart-0", "refused", 0).expect("a count")["count"], 0);
}
