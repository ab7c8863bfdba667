//! GEP-1748's own example, and what surrounds it: names, VIPs, ports, families, the namesake Service (T-1, T-2, T-3, T-23).

use lab::lab::{Intercept, Options};
use tests::{Bed, who, yaml};

const STORE: &str = "store.default.svc.clusterset.local";

/// `store` in west, `cart` in both; the route is the GEP's.
pub(crate) fn files() -> Vec<(&'static str, String)> {
    let ports = "[{name: http, port: 80, targetPort: 8080}, {name: alt, port: 8081, targetPort: 8080}]";
    let store = yaml::all(&[
        yaml::deployment("store", "default", 1, "[{containerPort: 8080}]"),
        yaml::service("store", "default", ports, ""),
        yaml::export("store", "default"),
    ]);
    let cart = yaml::all(&[
        yaml::deployment("cart", "default", 1, "[{containerPort: 8080}]"),
        yaml::service("cart", "default", ports, ""),
        yaml::export("cart", "default"),
    ]);
    vec![
        ("west/client.yaml", yaml::client("default")),
        ("west/store.yaml", store),
        ("west/cart.yaml", cart.clone()),
        ("west/route.yaml", yaml::route("store", "", &[yaml::import("store", "")], &[yaml::to_import("/cart", "cart")])),
        ("east/cart.yaml", cart),
    ]
}

fn bed(intercept: Intercept) -> Bed {
    Bed::start(&files(), Options { intercept, ..Options::default() }).expect("a lab")
}

#[test]
fn what_is_dialled_at_store_under_cart_lands_at_cart_in_both_clusters() {
    for intercept in [Intercept::Exact, Intercept::Cidr] {
        let bed = bed(intercept);
        for target in ["/cart", "/cart/", "/cart/x?y"] {
            let answer = bed.get(STORE, target).expect("an answer");
            assert_eq!(answer.status, 200, "{target}");
            assert_eq!(answer.seen()["target"], target, "the path is not rewritten");
            assert_eq!(answer.seen()["host"], STORE, "Host is not rewritten (E1-3)");
        }
        let shares = bed.shares(60, STORE, "/cart").expect("answers");
        assert_eq!(shares.keys().collect::<Vec<_>>(), ["east/cart", "west/cart"], "{shares:?}");
        for target in ["/cartoon", "/", "/Cart", "/x/cart"] {
            let answer = bed.get(STORE, target).expect("an answer");
            assert_eq!((answer.status.as_u16(), answer.reason()), (404, Some("no_route")), "{target} (M-9)");
        }
    }
}

#[test]
fn every_vip_and_every_tcp_port_of_the_import_is_the_frontend() {
    let bed = bed(Intercept::Exact);
    let client = bed.client().expect("a client");
    let vips = bed.resolve(&client, STORE).expect("VIPs");
    assert!(vips.iter().any(std::net::IpAddr::is_ipv4) && vips.iter().any(std::net::IpAddr::is_ipv6), "{vips:?}");
    for vip in vips {
        for port in [80, 8081] {
            let to = std::net::SocketAddr::new(vip, port).to_string();
            let answer = bed.get(&to, "/cart").expect("an answer");
            assert!(who(&answer).ends_with("/cart"), "{to}: {answer:?}");
            assert_eq!(bed.get(&to, "/").expect("an answer").status, 404, "{to}");
        }
    }
    // Host is not the key: a wrong one at the right VIP is routed, and matched by nothing (M-5).
    let answer = bed.ask(&client, STORE, &lab::client::Ask::get("somewhere.else", "/cart")).expect("an answer");
    assert_eq!(answer.seen()["host"], "somewhere.else");
}

#[test]
fn the_service_of_the_same_name_is_another_frontend() {
    let mut bed = bed(Intercept::Exact);
    let service = "store.default.svc.cluster.local";
    assert_eq!(who(&bed.get(service, "/anything").expect("an answer")), "west/store", "the import's route does not touch it (T-3)");
    // And the reverse: a route on the Service leaves the import alone.
    let parent = "{group: \"\", kind: Service, name: store}".to_owned();
    bed.apply("west/route.yaml", &yaml::route("store", "", &[parent], &[yaml::to_import("/", "cart")])).expect("in force");
    assert!(who(&bed.get(service, "/anything").expect("an answer")).ends_with("/cart"));
    assert_eq!(who(&bed.get(STORE, "/cart").expect("an answer")), "west/store", "no route on the import any more");
}

#[test]
fn a_pod_s_own_address_has_no_routes_and_hostnames_mean_nothing() {
    let mut bed = bed(Intercept::Exact);
    let store = bed.pod("west/default/store-0").expect("a pod");
    for address in bed.addresses(&store).expect("addresses") {
        let to = std::net::SocketAddr::new(address, 8080).to_string();
        assert_eq!(who(&bed.get(&to, "/").expect("an answer")), "west/store", "direct (M-6)");
    }
    // hostnames on the route are ignored (M-22), a header match on Host is not.
    let rules = [
        format!("{{matches: [{{headers: [{{name: Host, value: special}}]}}], backendRefs: [{}]}}", yaml::import("cart", "")),
        format!("{{backendRefs: [{}]}}", yaml::import("store", "")),
    ];
    let route =
        yaml::route("store", "", &[yaml::import("store", "")], &rules).replace("spec:\n", "spec:\n  hostnames: [never.example.com]\n");
    bed.apply("west/route.yaml", &route).expect("in force");
    assert_eq!(who(&bed.get(STORE, "/").expect("an answer")), "west/store");
    let client = bed.client().expect("a client");
    let answer = bed.ask(&client, STORE, &lab::client::Ask::get("special", "/")).expect("an answer");
    assert!(who(&answer).ends_with("/cart"), "{answer:?}");
}
