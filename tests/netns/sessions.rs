//! Session persistence (GEP-1619; H-29): who comes with its cookie or header gets the endpoint that it had, as long as there is one.

use std::collections::BTreeSet;
use std::time::Instant;

use http::Version;
use lab::client::{Answer, Ask, Connection};
use tests::{Bed, who, yaml};

use super::bytes::PATIENCE;
use super::replay::{prefix, rule};
use super::retry_budget::{ancestor, on_import, policy};
use super::store::{STORE, bed, condition, own_answer, route, with};

fn persistent(path: &str, backends: &[String], session: &str) -> String {
    with(&rule(&[&prefix(path, "")], &[], backends), &format!("sessionPersistence: {{{session}}}"))
}

fn cart() -> [String; 1] {
    [yaml::import("cart", "")]
}

/// `cart` with two pods in each cluster.
fn cart_bed(rules: &[String], more: Vec<(&str, String)>) -> Bed {
    let carts = ["west/cart.yaml", "east/cart.yaml"].map(|file| (file, yaml::exported("cart", "default", 2)));
    bed(rules, [carts.to_vec(), more].concat())
}

/// What an answer tells the client to come with the next time.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Carried {
    name: String,
    value: String,
    attributes: Vec<String>,
}

/// The cookie that an answer sets.
fn cookie(answer: &Answer) -> Option<Carried> {
    let cookies: Vec<&str> = answer.headers.get_all("set-cookie").iter().filter_map(|value| value.to_str().ok()).collect();
    assert!(cookies.len() <= 1, "{answer:?}");
    let mut parts = cookies.first()?.split(';').map(str::trim);
    let (name, value) = parts.next()?.split_once('=')?;
    Some(Carried { name: name.to_owned(), value: value.to_owned(), attributes: parts.map(str::to_owned).collect() })
}

fn pod(answer: &Answer) -> String {
    answer.served_by().unwrap_or_else(|| panic!("a pod: {answer:?}")).to_owned()
}

fn ask_with(bed: &Bed, path: &str, carried: &Carried) -> Answer {
    let ask = Ask::get(STORE, path).with("cookie", &format!("other=1; {}={}; more=2", carried.name, carried.value));
    bed.ask(&bed.client().expect("a client"), STORE, &ask).expect("an answer")
}

/// The answer to a first request, and its cookie.
fn establish(bed: &Bed, path: &str) -> (String, Carried) {
    let answer = bed.get(STORE, path).expect("an answer");
    let carried = cookie(&answer).unwrap_or_else(|| panic!("a cookie: {answer:?}"));
    (pod(&answer), carried)
}

/// The pods of so many requests on one connection; none of the answers sets a cookie or this header.
fn pods(bed: &Bed, version: Version, ask: &Ask, header: &str) -> BTreeSet<String> {
    let client = bed.client().expect("a client");
    let address = bed.address(&client, STORE).expect("a VIP");
    let served = bed.namespace(&client).expect("its namespace").block_on(|| async {
        let mut connection = Connection::open(address, version).await?;
        let mut served = BTreeSet::new();
        for _ in 0..100 {
            let answer = connection.ask(ask).await?;
            anyhow::ensure!(answer.header("set-cookie").is_none() && answer.header(header).is_none(), "{answer:?}");
            served.insert(pod(&answer));
        }
        Ok(served)
    });
    served.expect("answers")
}

#[test]
fn a_session_stays_on_one_pod() {
    let rules = [
        persistent("/cookie", &cart(), "sessionName: mine"),
        persistent("/header", &cart(), "type: Header, sessionName: x-session"),
        persistent("/unnamed", &cart(), "type: Cookie"),
    ];
    let bed = cart_bed(&rules, Vec::new());
    let mut met = BTreeSet::new();
    for _ in 0..30 {
        let (pod, carried) = establish(&bed, "/cookie");
        assert_eq!(carried.name, "mine");
        let has = |attribute: &str| carried.attributes.iter().any(|found| found.eq_ignore_ascii_case(attribute));
        assert!(has("Path=/") && !carried.attributes.iter().any(|found| found.starts_with("Max-Age")), "{carried:?}");
        met.insert(pod);
    }
    assert!(met.iter().any(|pod| pod.starts_with("west")) && met.iter().any(|pod| pod.starts_with("east")), "no session, no pod: {met:?}");
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for path in ["/cookie", "/unnamed"] {
            let (first, carried) = establish(&bed, path);
            let ask = Ask::get(STORE, path).with("cookie", &format!("{}={}", carried.name, carried.value));
            assert_eq!(pods(&bed, version, &ask, "x-session"), BTreeSet::from([first]), "{path} {version:?}");
        }
        let answer = bed.get(STORE, "/header").expect("an answer");
        let value = answer.header("x-session").unwrap_or_else(|| panic!("a session: {answer:?}"));
        assert_eq!(cookie(&answer), None, "{answer:?}");
        let ask = Ask::get(STORE, "/header").with("x-session", value);
        assert_eq!(pods(&bed, version, &ask, "x-session"), BTreeSet::from([pod(&answer)]), "{version:?}");
    }
    for value in ["", "x", "ffffffffffffffffffffffffffffffffffffffffffffffff"] {
        let carried = Carried { name: "mine".to_owned(), value: value.to_owned(), attributes: Vec::new() };
        let answer = ask_with(&bed, "/cookie", &carried);
        assert!(answer.status == 200 && cookie(&answer).is_some(), "what is no session is none: {value:?} {answer:?}");
    }
}

#[test]
fn two_rules_never_share_a_session() {
    let rules = [
        persistent("/one", &cart(), "sessionName: mine"),
        persistent("/two", &cart(), "sessionName: mine"),
        rule(&[&prefix("/none", "")], &[], &cart()),
    ];
    let bed = cart_bed(&rules, Vec::new());
    for _ in 0..5 {
        let (_, carried) = establish(&bed, "/one");
        let answer = ask_with(&bed, "/two", &carried);
        let own = cookie(&answer).unwrap_or_else(|| panic!("a session of its own: {answer:?}"));
        assert_ne!(own.value, carried.value);
        assert_eq!(cookie(&ask_with(&bed, "/one", &carried)), None, "still there");
        assert_eq!(cookie(&ask_with(&bed, "/two", &own)), None, "there too");
        assert_eq!(cookie(&ask_with(&bed, "/none", &carried)), None, "a rule without sessions");
    }
}

#[test]
fn a_session_goes_to_its_backend_whatever_the_weights() {
    let split = |old: u32, new: u32| {
        let backends = [yaml::import("cart", &format!("weight: {old}")), yaml::import("next", &format!("weight: {new}"))];
        persistent("/", &backends, "sessionName: mine")
    };
    let mut bed = cart_bed(&[split(1, 0)], vec![("east/next.yaml", yaml::exported("next", "default", 2))]);
    let (first, carried) = establish(&bed, "/");
    assert!(first.contains("/cart-"), "{first}");
    for (old, new) in [(1, 1), (0, 1)] {
        bed.apply("west/route.yaml", &route(&[split(old, new)])).expect("in force");
        for _ in 0..20 {
            let answer = ask_with(&bed, "/", &carried);
            assert_eq!((pod(&answer), cookie(&answer)), (first.clone(), None), "{old}:{new}");
        }
    }
    let shares = bed.shares(20, STORE, "/").expect("answers");
    assert_eq!(shares.keys().collect::<Vec<_>>(), ["east/next"], "whoever has no session: {shares:?}");
    bed.apply("west/route.yaml", &route(&[persistent("/", &[yaml::import("next", "")], "sessionName: mine")])).expect("in force");
    let answer = ask_with(&bed, "/", &carried);
    assert_eq!(who(&answer), "east/next", "its backend is gone");
    assert!(cookie(&answer).is_some(), "{answer:?}");
}

#[test]
fn a_session_whose_endpoint_is_gone_begins_anew() {
    let mut bed = cart_bed(&[persistent("/", &cart(), "sessionName: mine")], Vec::new());
    let (first, carried) = establish(&bed, "/");
    let cluster = first.split('/').next().expect("a cluster").to_owned();
    bed.delete(&format!("{cluster}/cart.yaml")).expect("in force");
    let answer = ask_with(&bed, "/", &carried);
    let again = cookie(&answer).unwrap_or_else(|| panic!("a new session: {answer:?}"));
    assert!(answer.status == 200 && !pod(&answer).starts_with(&cluster) && again.value != carried.value, "{answer:?}");
    for _ in 0..20 {
        let kept = ask_with(&bed, "/", &again);
        assert_eq!((pod(&kept), cookie(&kept)), (pod(&answer), None));
    }
    // A server that is gone although its endpoint is still listed.
    let gone = bed.pod(&pod(&answer)).expect("a pod");
    bed.stop_server(&gone).expect("stopped");
    let moved = ask_with(&bed, "/", &again);
    assert!(moved.status == 200 && pod(&moved) != pod(&answer) && cookie(&moved).is_some(), "{moved:?}");
}

#[test]
fn an_absolute_timeout_ends_a_session() {
    let rules = [
        persistent("/short", &cart(), "sessionName: mine, absoluteTimeout: 1s"),
        persistent("/header", &cart(), "type: Header, sessionName: x-session, absoluteTimeout: 1s"),
        persistent("/permanent", &cart(), "sessionName: lasting, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}"),
        persistent("/nothing", &cart(), "cookieConfig: {lifetimeType: Permanent}"),
    ];
    let bed = cart_bed(&rules, Vec::new());
    let (_, permanent) = establish(&bed, "/permanent");
    assert!(permanent.attributes.iter().any(|found| found.eq_ignore_ascii_case("Max-Age=3600")), "{permanent:?}");
    assert_eq!(cookie(&ask_with(&bed, "/permanent", &permanent)), None);
    assert_eq!(own_answer(&bed.get(STORE, "/nothing").expect("an answer")), (404, Some("no_route")), "Permanent needs an end");
    assert_eq!(condition(&bed, "PartiallyInvalid")[..2], ["True", "UnsupportedValue"]);

    let client = bed.client().expect("a client");
    for path in ["/short", "/header"] {
        let began = Instant::now();
        let first = bed.get(STORE, path).expect("an answer");
        let ask = match cookie(&first) {
            Some(carried) => Ask::get(STORE, path).with("cookie", &format!("{}={}", carried.name, carried.value)),
            None => Ask::get(STORE, path).with("x-session", first.header("x-session").expect("a session")),
        };
        let mut kept = 0;
        loop {
            let answer = bed.ask(&client, STORE, &ask).expect("an answer");
            if cookie(&answer).is_some() || answer.header("x-session").is_some() {
                break;
            }
            assert_eq!(pod(&answer), pod(&first), "{path}");
            kept += 1;
            assert!(began.elapsed() < PATIENCE, "{path}: it never ends");
        }
        assert!(began.elapsed().as_millis() >= 900 && kept > 0, "{path}: {:?}, {kept}", began.elapsed());
    }
}

#[test]
fn sessions_and_session_affinity_exclude_each_other() {
    let ports = "[{port: 80, targetPort: 8080}]";
    let sticky = yaml::all(&[
        yaml::deployment("sticky", "default", 2, "[{containerPort: 8080}]"),
        yaml::service("sticky", "default", ports, "sessionAffinity: ClientIP"),
        yaml::export("sticky", "default"),
    ]);
    let affine = || persistent("/affine", &[yaml::import("cart", ""), yaml::import("sticky", "")], "sessionName: mine");
    let rules = [affine(), persistent("/good", &cart(), "sessionName: mine")];
    let policies = policy("sessions", &on_import("sticky"), "sessionPersistence: {sessionName: policy}");
    let mut bed = cart_bed(&rules, vec![("east/sticky.yaml", sticky), ("west/policy.yaml", policies)]);
    assert_eq!(condition(&bed, "Accepted")[..2], ["True", "Accepted"]);
    let [status, reason, message] = condition(&bed, "PartiallyInvalid");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "UnsupportedValue"));
    assert!(message.starts_with("Dropped Rule") && message.contains("sticky"), "{message}");
    assert_eq!(own_answer(&bed.get(STORE, "/affine").expect("an answer")), (404, Some("no_route")));
    establish(&bed, "/good");
    assert_eq!(ancestor(&bed, "sessions").1, ["False", "Invalid"], "a policy neither");

    bed.apply("west/route.yaml", &route(&[affine()])).expect("in force");
    assert_eq!(condition(&bed, "Accepted")[..2], ["False", "UnsupportedValue"]);
    assert_eq!(condition(&bed, "PartiallyInvalid")[0], "", "nothing of it is obeyed");
    assert_eq!(who(&bed.get(STORE, "/affine").expect("an answer")), "west/store", "as if there were no route");
}

#[test]
fn a_policy_on_the_backend_makes_sessions_of_rules_that_say_nothing() {
    let rules = [
        rule(&[&prefix("/one", "")], &[], &cart()),
        persistent("/own", &cart(), "sessionName: mine"),
        rule(&[&prefix("/other", "")], &[], &[yaml::import("other", "")]),
    ];
    let more = vec![
        ("west/policy.yaml", policy("sessions", &on_import("cart"), "sessionPersistence: {sessionName: policy}")),
        ("east/other.yaml", yaml::exported("other", "default", 1)),
    ];
    let mut bed = cart_bed(&rules, more);
    assert_eq!(ancestor(&bed, "sessions").1, ["True", "Accepted"]);
    let (first, carried) = establish(&bed, "/one");
    assert_eq!(carried.name, "policy");
    let ask = Ask::get(STORE, "/one").with("cookie", &format!("policy={}", carried.value));
    assert_eq!(pods(&bed, Version::HTTP_11, &ask, "x-session"), BTreeSet::from([first]));
    assert_eq!(establish(&bed, "/own").1.name, "mine", "a rule's own words count");
    assert_eq!(cookie(&bed.get(STORE, "/other").expect("an answer")), None);
    bed.delete("west/policy.yaml").expect("in force");
    assert_eq!(cookie(&ask_with(&bed, "/one", &carried)), None, "no policy, no session");
}

#[test]
fn a_grpcroute_has_sessions_too() {
    let rules = [with(&rule(&[], &[], &cart()), "sessionPersistence: {type: Header, sessionName: x-session}")];
    let bed = cart_bed(&[], vec![("west/route.yaml", route(&rules).replace("HTTPRoute", "GRPCRoute"))]);
    let client = bed.client().expect("a client");
    let call = Ask::grpc(STORE, "/echo.Echo/Say");
    let first = bed.ask_in(&client, STORE, Version::HTTP_2, &call).expect("an answer");
    let value = first.header("x-session").unwrap_or_else(|| panic!("a session: {first:?}"));
    let kept = pods(&bed, Version::HTTP_2, &call.with("x-session", value), "x-session");
    assert_eq!(kept, BTreeSet::from([pod(&first)]));
}

#[test]
fn an_endpoint_that_fails_leaves_its_session_to_the_one_that_answered() {
    let retried = with(&persistent("/", &cart(), "sessionName: mine"), "retry: {codes: [503], attempts: 1, backoff: 1ms}");
    let bed = cart_bed(&[retried], Vec::new());
    let (first, carried) = establish(&bed, "/");
    let answer = ask_with(&bed, "/?fail=1&id=a&status=503", &carried);
    let moved = cookie(&answer).unwrap_or_else(|| panic!("a session with the other: {answer:?}"));
    assert!(answer.status == 200 && pod(&answer) != first, "{answer:?}");
    let kept = ask_with(&bed, "/", &moved);
    assert_eq!((pod(&kept), cookie(&kept)), (pod(&answer), None));
}

#[test]
fn a_websocket_has_a_session_too() {
    let bed = cart_bed(&[persistent("/", &cart(), "sessionName: mine")], Vec::new());
    let client = bed.client().expect("a client");
    let address = bed.address(&client, STORE).expect("a VIP");
    let headers = bed.namespace(&client).expect("its namespace").block_on(|| async move {
        let stream = tokio::net::TcpStream::connect(address).await?;
        let (_, response) = tokio_tungstenite::client_async(format!("ws://{STORE}/"), stream).await?;
        Ok(response.headers().clone())
    });
    let headers = headers.expect("an upgrade");
    let text = headers.get("set-cookie").and_then(|value| value.to_str().ok()).unwrap_or_else(|| panic!("a cookie: {headers:?}"));
    let pair = text.split(';').next().expect("a pair");
    let answer = bed.ask(&client, STORE, &Ask::get(STORE, "/").with("cookie", pair)).expect("an answer");
    assert_eq!((answer.served_by(), cookie(&answer)), (headers["x-served-by"].to_str().ok(), None));
}
