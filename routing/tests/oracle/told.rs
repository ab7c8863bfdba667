//! What an explanation tells is what becomes of the request, by the specification's own sentences.

use proptest::prelude::*;
use routing::explain::{Asked, OutcomeKind, Verdict, explain};
use routing::locality::Location;
use routing::world::World;

use crate::generate::{self, Merged, Mesh, at_store};
use crate::spec::{self, Answer, Dialled, Request, Winner};
use crate::{compare, routes, subject};

/// The same answer, as it is told.
fn told(world: &World, dialled: &Dialled, request: &Request) -> Answer {
    let zone = if dialled.kind == "ServiceImport" { "clusterset.local" } else { "cluster.local" };
    let mut parts = http::Request::new(()).into_parts().0;
    parts.method = request.method.parse().expect("a method");
    parts.uri = request.target.parse().expect("a target");
    parts.headers = subject::headers(&request.headers);
    parts.headers.insert(http::header::HOST, request.authority.parse().expect("a value"));
    let asked = Asked {
        client_namespace: dialled.client.clone(),
        location: Location::default(),
        host: format!("{}.{}.svc.{zone}", dialled.name, dialled.namespace),
        server_name: Some(request.server_name.clone()),
        port: u16::try_from(dialled.port).ok().and_then(|port| port.try_into().ok()).expect("a port"),
        request: parts,
    };
    // What does not exist or has no such port has no routes either.
    let Ok(explanation) = explain(world, &asked) else { return Answer::Untouched };
    if explanation.outcome.kind == OutcomeKind::PassesThrough {
        return Answer::Untouched;
    }
    let kind = explanation.routes.iter().find(|route| route.in_force).expect("a route in force").kind;
    let mut won = explanation.matches.iter().filter(|candidate| candidate.verdict == Verdict::Won);
    let (first, second) = (won.next(), won.next());
    assert!(second.is_none(), "two winners: {explanation:?}");
    first.map_or(Answer::NoMatch, |winner| {
        Answer::Rule(Winner { kind: kind.to_owned(), route: winner.route.clone(), rule: winner.rule.into() })
    })
}

fn agrees_where(cases: &impl Strategy<Value = Merged>, port: i64) {
    let oracle = |case: &Merged| spec::answer(&case.objects, &at_store(port), &case.request);
    compare(cases, oracle, |case| told(&subject::world(&case.objects), &at_store(port), &case.request))
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn what_is_told_of_a_request_is_what_becomes_of_it() {
    agrees_where(&generate::http_routes(), 80);
    agrees_where(&generate::grpc_routes(), 80);
    agrees_where(&generate::tls_routes(), 443);
}

#[test]
fn what_is_told_of_routes_in_force_is_what_becomes_of_a_request() {
    let oracle = |cases: &Vec<Mesh>| cases.iter().map(routes::mesh_oracle).collect::<Vec<_>>();
    let subject = |cases: &Vec<Mesh>| cases.iter().map(|case| told(&routes::world(case), &case.dialled, &case.request)).collect::<Vec<_>>();
    compare(&prop::collection::vec(generate::mesh(), 2), oracle, subject).unwrap_or_else(|error| panic!("{error}"));
}
