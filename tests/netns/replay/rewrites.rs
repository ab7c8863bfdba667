//! Rewritten paths, as the backend sees them.

use super::Expected::Rewritten;
use super::{NOT_FOUND, Parent, Replay, get, prefix, rule, seen_header};

#[test]
fn mesh_http_route_rewrite_path() {
    let rewrite = |path: &str| format!("{{type: URLRewrite, urlRewrite: {{path: {{{path}}}}}}}");
    let headers = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Header-Set, value: set-overwrites-values}], add: \
                   [{name: X-Header-Add, value: header-val-1}, {name: X-Header-Add-Append, value: header-val-2}], remove: [X-Header-Remove]}}";
    let [to_one, to_root, to_prefix] =
        ["/one", "/", "/prefix"].map(|path| rewrite(&format!("type: ReplacePrefixMatch, replacePrefixMatch: {path}")));
    let [full_one, full_test] = ["/one", "/test"].map(|path| rewrite(&format!("type: ReplaceFullPath, replaceFullPath: {path}")));
    let rules: [(&str, Vec<&str>); 5] = [
        ("/prefix/one", vec![&to_one]),
        ("/strip-prefix", vec![&to_root]),
        ("/full/one", vec![&full_one]),
        ("/full/rewrite-path-and-modify-headers", vec![&full_test, headers]),
        ("/prefix/rewrite-path-and-modify-headers", vec![&to_prefix, headers]),
    ];
    let replay = Replay::start(|parent| {
        let rules = rules.clone().map(|(path, filters)| rule(&[&prefix(path, "")], &filters, &[parent.backend("echo-v1", "port: 80")]));
        parent.route("mesh-rewrite-path", &parent.reference("echo", "port: 80"), &rules)
    });
    for parent in Parent::BOTH {
        for (target, seen) in [
            ("/prefix/one/two", "/one/two"),
            ("/strip-prefix/three", "/three"),
            ("/strip-prefix", "/"),
            ("/full/one/two", "/one"),
            ("/prefix/one", "/one"),
            ("/prefix/one/two?x=1", "/one/two?x=1"),
            ("/full/one?x=1", "/one?x=1"),
        ] {
            replay.check(parent, "echo", get(target), &Rewritten("echo-v1", "", seen));
        }
        replay.check(parent, "echo", get("/prefix/oneself"), &NOT_FOUND);
        for (target, seen) in
            [("/full/rewrite-path-and-modify-headers/test", "/test"), ("/prefix/rewrite-path-and-modify-headers/one", "/prefix/one")]
        {
            let ask = get(target)
                .with("X-Header-Remove", "remove-val")
                .with("X-Header-Add-Append", "append-val-1")
                .with("X-Header-Set", "set-val");
            let answer = replay.check(parent, "echo", ask, &Rewritten("echo-v1", "", seen));
            for (name, value) in [
                ("X-Header-Add", Some("header-val-1")),
                ("X-Header-Add-Append", Some("append-val-1,header-val-2")),
                ("X-Header-Set", Some("set-overwrites-values")),
                ("X-Header-Remove", None),
            ] {
                assert_eq!(seen_header(&answer, name).as_deref(), value, "{parent:?} {target} {name}");
            }
        }
    }
}
