//! What `explain` says of a request is what becomes of it: generated routes, generated requests, the real sidecar.

use std::collections::BTreeMap;

use http::{Method, Request, Version};
use lab::client::{Answer, Ask, Connection};
use lab::lab::Options;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng, SeedableRng};
use routing::api::Object;
use routing::explain::{Asked, Destination, Explanation, OutcomeKind, Share, Verdict, explain};
use routing::locality::Location;
use routing::world::{Settings, World};
use serde_json::Value;
use tests::{Bed, yaml};

use crate::store::log;

const STORE: &str = "store.default.svc.clusterset.local";
const SETS: usize = 50;
const REQUESTS: usize = 200;
/// The same cases every time; another number makes others.
const SEED: u64 = 1748;

fn one<'t>(random: &mut SmallRng, texts: &[&'t str]) -> &'t str {
    texts.choose(random).copied().unwrap_or_default()
}

/// A match of few values, so that rules get in each other's way.
fn matched(random: &mut SmallRng) -> String {
    let path = match random.random_range(0..6) {
        0 => format!("path: {{type: Exact, value: {}}}", one(random, &["/a", "/a/b", "/b"])),
        1 => format!("path: {{type: RegularExpression, value: '{}'}}", one(random, &["/a.*", "/(a|b)/.", ".*"])),
        _ => format!("path: {{type: PathPrefix, value: {}}}", one(random, &["/", "/a", "/a/", "/a/b", "/b"])),
    };
    let method = one(random, &["", "", ", method: GET", ", method: POST"]);
    let header =
        one(random, &["", "", ", headers: [{name: x, value: '1'}]", ", headers: [{name: x, type: RegularExpression, value: '[12]'}]"]);
    let query = one(random, &["", "", ", queryParams: [{name: q, value: '1'}]"]);
    format!("{{{path}{method}{header}{query}}}")
}

fn rule(random: &mut SmallRng) -> String {
    let matches: Vec<String> = (0..random.random_range(1..3)).map(|_| matched(random)).collect();
    let redirect = "{type: RequestRedirect, requestRedirect: {statusCode: 302, path: {type: ReplaceFullPath, replaceFullPath: /z}}}";
    let rewrite = "{type: URLRewrite, urlRewrite: {hostname: other.example, path: {type: ReplaceFullPath, replaceFullPath: /r}}}";
    let set = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: y, value: z}]}}";
    let (filter, backends) = match random.random_range(0..6) {
        0 => (redirect, String::new()),
        filtered => {
            let backends = (0..random.random_range(0..4)).map(|_| {
                let name = one(random, &["cart", "cart", "store", "empty", "missing"]);
                yaml::import(name, &format!("port: 80, weight: {}", random.random_range(0..3)))
            });
            let backends = backends.collect::<Vec<_>>().join(", ");
            (["", rewrite, set].get(filtered).copied().unwrap_or_default(), backends)
        }
    };
    format!("{{matches: [{}], filters: [{filter}], backendRefs: [{backends}]}}", matches.join(", "))
}

fn routes(random: &mut SmallRng) -> String {
    let route = |(index, name): (usize, &str), random: &mut SmallRng| {
        let rules: Vec<String> = (0..random.random_range(1..4)).map(|_| rule(random)).collect();
        let created = format!("creationTimestamp: \"2026-01-0{}T00:00:00Z\"", (index + random.random_range(0..2)) % 3 + 1);
        yaml::route(name, &created, &[yaml::import("store", "")], &rules)
    };
    yaml::all(&["a", "b"].into_iter().enumerate().map(|named| route(named, random)).collect::<Vec<_>>())
}

fn request(random: &mut SmallRng) -> Ask {
    let path = one(random, &["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/b", "/b/c", "/c"]);
    let mut ask = Ask::get(STORE, &format!("{path}{}", one(random, &["", "?q=1", "?q=2&q=1"])));
    ask.method = if random.random() { Method::GET } else { Method::POST };
    match one(random, &["", "1", "2", "12"]) {
        "" => ask,
        value => ask.with("x", value),
    }
}

/// What the controller of the client's cluster reads.
fn world(bed: &Bed) -> World {
    let mut world = World::new(Settings { cluster: "west".to_owned(), ..Settings::default() });
    for file in ["apps.yaml", "routes.yaml", "lab-imports.yaml", "lab-endpoints.yaml"] {
        for document in bed.written("west", file).expect("a file") {
            if let Some(object) = Object::decode(&document).expect("decodes") {
                world.apply(object);
            }
        }
    }
    world
}

fn explained(world: &World, ask: &Ask) -> Explanation {
    let mut request = Request::builder().method(ask.method.clone()).uri(&ask.target).header("host", &ask.host);
    for (name, value) in &ask.headers {
        request = request.header(name, value);
    }
    let asked = Asked {
        client_namespace: "default".to_owned(),
        location: Location { cluster: "west".to_owned(), ..Location::default() },
        host: ask.host.clone(),
        server_name: None,
        port: 80.try_into().expect("a port"),
        request: request.body(()).expect("a request").into_parts().0,
    };
    explain(world, &asked).expect("known")
}

/// Whether an answer is one that was foretold.
fn agrees(bed: &Bed, explanation: &Explanation, ask: &Ask, answer: &Answer) -> Result<(), String> {
    let own = (Some(answer.status.as_u16()), answer.reason());
    let outcome = &explanation.outcome;
    let taker = answer.served_by().map(|pod| bed.addresses(&bed.pod(pod).expect("a pod")).expect("addresses"));
    let takes = |share: &Share| match &share.destination {
        Destination::Endpoints(clusters) => {
            share.percent > 0.0 && clusters.values().flatten().any(|endpoint| taker.is_some_and(|taker| taker.contains(&endpoint.ip())))
        }
        Destination::Vips(_) | Destination::Nowhere => false,
    };
    let is_instead = |share: &Share| {
        let instead = share.instead.as_ref();
        share.percent > 0.0 && instead.is_some_and(|instead| (instead.status, instead.reason) == own)
    };
    let is_foretold = match outcome.kind {
        OutcomeKind::Forwarded => explanation.backends.iter().any(takes),
        OutcomeKind::PartlyForwarded => explanation.backends.iter().any(|share| takes(share) || is_instead(share)),
        OutcomeKind::Refused => taker.is_none() && ((outcome.status, outcome.reason) == own || explanation.backends.iter().any(is_instead)),
        OutcomeKind::Answered => taker.is_none() && (outcome.status, outcome.reason) == own,
        OutcomeKind::PassesThrough => false,
    };
    if !is_foretold {
        return Err(format!("{ask:?}: {own:?} of {:?}: {explanation:#?}", answer.served_by()));
    }
    let seen = taker.map(|_| answer.seen());
    let expected =
        explanation.filters.last().map_or_else(|| format!("{} {}{}", ask.method, ask.host, ask.target), |last| last.after.clone());
    let text = |seen: &Value, name: &str| seen[name].as_str().unwrap_or_default().to_owned();
    let seen = seen.map(|seen| format!("{} {}{}", text(&seen, "method"), text(&seen, "host"), text(&seen, "target")));
    if seen.as_ref().is_some_and(|seen| *seen != expected) {
        return Err(format!("{ask:?}: the backend saw {seen:?}: {explanation:#?}"));
    }
    Ok(())
}

/// Route and rule.
fn winner(explanation: &Explanation) -> (String, String) {
    let won = explanation.matches.iter().find(|candidate| candidate.verdict == Verdict::Won);
    won.map(|won| (won.route.clone(), won.rule.to_string())).unwrap_or_default()
}

#[test]
fn ten_thousand_requests_fare_as_is_explained() {
    let nobody =
        yaml::all(&[yaml::service("empty", "default", "[{name: http, port: 80, targetPort: 8080}]", ""), yaml::export("empty", "default")]);
    let apps = yaml::all(&[yaml::exported("store", "default", 1), yaml::exported("cart", "default", 1), nobody]);
    let mut random = SmallRng::seed_from_u64(SEED);
    let files = vec![
        ("west/client.yaml", yaml::client("default")),
        ("west/apps.yaml", apps),
        ("west/routes.yaml", routes(&mut random)),
        ("east/cart.yaml", yaml::exported("cart", "default", 2)),
    ];
    let mut bed = Bed::start(&files, Options::default()).expect("a lab");
    let client = bed.client().expect("a client");
    let address = bed.address(&client, STORE).expect("an address");
    let mut winners = Vec::new();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for set in 0..SETS {
        let text = routes(&mut random);
        bed.apply("west/routes.yaml", &text).expect("in force");
        let world = world(&bed);
        let asks: Vec<Ask> = (0..REQUESTS).map(|_| request(&mut random)).collect();
        let asked = async {
            let mut connection = Connection::open(address, Version::HTTP_11).await?;
            let mut answers = Vec::new();
            for ask in &asks {
                answers.push(connection.ask(ask).await?);
            }
            anyhow::Ok(answers)
        };
        let answers = bed.namespace(&client).expect("a namespace").block_on(|| asked).expect("answers");
        for (ask, answer) in asks.iter().zip(&answers) {
            let explanation = explained(&world, ask);
            agrees(&bed, &explanation, ask, answer).unwrap_or_else(|why| panic!("set {set}: {why}\n{text}"));
            *kinds.entry(format!("{:?}", explanation.outcome.kind)).or_default() += 1;
            winners.push(winner(&explanation));
        }
    }
    assert_eq!(winners.len(), 10_000);
    for kind in ["Forwarded", "PartlyForwarded", "Answered", "Refused"] {
        assert!(kinds.get(kind).is_some_and(|count| *count > 500), "{kinds:?}: hardly any case of one kind");
    }
    let lines = log(&bed, winners.len());
    let text = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let logged: Vec<(String, String)> = lines.iter().map(|line| (text(line, "route"), text(line, "rule"))).collect();
    assert!(logged == winners, "another rule decided: {:?}", logged.iter().zip(&winners).find(|(logged, told)| logged != told));
}
