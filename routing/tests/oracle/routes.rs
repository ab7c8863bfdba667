//! Which route and rule decide: precedence, merging, producers and consumers, ports, kinds; and what status says of it.

use std::cmp::Reverse;
use std::net::SocketAddr;

use proptest::prelude::*;
use routing::api::ObjectKey;
use routing::model::{Frontend, PathMatch, Route, RouteMatch, Rule, ValueMatch};
use routing::world::World;
use serde_json::Value;

use crate::generate::{self, Merged, Mesh, at_store};
use crate::spec::{self, Answer, Request};
use crate::{compare, differs, subject};

fn merged_oracle(case: &Merged) -> Answer {
    spec::answer(&case.objects, &at_store(80), &case.request)
}

fn merged_subject(case: &Merged) -> Answer {
    subject::answer(&subject::world(&case.objects), &at_store(80), &case.request)
}

#[test]
fn the_rule_of_the_http_routes_that_the_specification_names_wins() {
    compare(&generate::http_routes(), merged_oracle, merged_subject).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_rule_of_the_grpc_routes_that_the_specification_names_wins() {
    compare(&generate::grpc_routes(), merged_oracle, merged_subject).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_order_in_which_objects_arrive_never_matters() {
    let shuffled = generate::http_routes().prop_flat_map(|case| (Just(case.clone()), Just(case.objects).prop_shuffle()));
    let shuffled = shuffled.prop_map(|(case, objects)| (case.clone(), Merged { objects, ..case }));
    compare(&shuffled, |(case, _)| merged_subject(case), |(_, case)| merged_subject(case)).unwrap_or_else(|error| panic!("{error}"));
}

/// The world after everything came, in whatever order, and some went (D-26: a loser is in force again).
pub(crate) fn world(case: &Mesh) -> World {
    let mut world = subject::world(&case.arrived);
    for gone in &case.gone {
        let key: ObjectKey = subject::object(gone).key();
        world.delete(&key);
    }
    world
}

pub(crate) fn mesh_oracle(case: &Mesh) -> Answer {
    spec::answer(&case.objects, &case.dialled, &case.request)
}

#[test]
fn the_routes_in_force_are_those_of_the_specification() {
    compare(&generate::mesh(), mesh_oracle, |case| subject::answer(&world(case), &case.dialled, &case.request))
        .unwrap_or_else(|error| panic!("{error}"));
}

/// Where a client finds what it dials; none: it has no virtual IP.
fn address(case: &Mesh) -> Option<SocketAddr> {
    let name = format!("{}/{}", case.dialled.namespace, case.dialled.name);
    let object = case.objects.iter().find(|object| object["kind"] == case.dialled.kind.as_str() && spec::full_name(object) == name)?;
    let ip = if object["spec"]["type"] == "ClusterSetIP" { &object["spec"]["ips"][0] } else { &object["spec"]["clusterIP"] };
    Some(SocketAddr::new(ip.as_str()?.parse().ok()?, u16::try_from(case.dialled.port).ok()?))
}

#[test]
fn an_address_is_intercepted_if_a_route_is_in_force_there() {
    let is_in_force = |case: &Mesh| !spec::attach::in_force(&case.objects, &case.dialled).is_empty();
    let is_intercepted = |case: &Mesh| {
        let address = address(case);
        world(case).vips(&case.dialled.client).iter().any(|vip| Some(vip.address()) == address)
    };
    compare(&generate::mesh(), is_in_force, is_intercepted).unwrap_or_else(|error| panic!("{error}"));
}

fn routes_of(case: &Mesh) -> impl Iterator<Item = &Value> {
    case.objects.iter().filter(|object| spec::text(&object["kind"]).ends_with("Route"))
}

#[test]
fn status_says_which_routes_are_in_force() {
    let oracle = |case: &Mesh| routes_of(case).map(|route| spec::status::of(&case.objects, route)).collect::<Vec<_>>();
    let subject = |case: &Mesh| {
        let world = world(case);
        routes_of(case).map(|route| subject::status(&world, route, &spec::status::of(&case.objects, route))).collect::<Vec<_>>()
    };
    compare(&generate::mesh(), oracle, subject).unwrap_or_else(|error| panic!("{error}"));
}

/// A mistake in the order of matches that an implementation could make.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Disorder {
    /// An equally long prefix goes before an exact path.
    PrefixBeatsExact,
    /// A header match goes before a method match.
    HeaderBeatsMethod,
    /// The method of a call goes before its service.
    RpcMethodBeatsService,
    /// A younger route goes before an older one.
    YoungestBeatsOldest,
    /// None: shows that the construction itself is sound.
    None,
}

/// Selects by brute force over the crate's model, with a mistake in the order.
fn disordered(mistake: Disorder, frontend: Option<Frontend>, request: &Request) -> Answer {
    let Some(frontend) = frontend else { return Answer::Untouched };
    let rules = frontend.routes.iter().flat_map(|route| route.rules.iter().map(move |rule| (route, rule)));
    let matches = rules.flat_map(|(route, rule)| rule.matches.iter().map(move |found| (route, rule, found)));
    let chosen = subject::with_head(request, |head| {
        let accepted = matches.filter(|(_, _, found)| found.accepts(head));
        accepted.min_by_key(|(route, rule, found)| rank(mistake, route, rule, found))
    });
    chosen.map_or(Answer::NoMatch, |(route, rule, _)| Answer::Rule(subject::winner(frontend.kind, route, rule.index)))
}

/// The smaller wins.
fn rank(mistake: Disorder, route: &Route, rule: &Rule, found: &RouteMatch) -> impl Ord + use<> {
    let length = |value: &Option<ValueMatch>| match value {
        Some(ValueMatch::Exact(text)) => text.len(),
        Some(ValueMatch::Regex(pattern)) => pattern.source().len(),
        None => 0,
    };
    let path = match &found.path {
        // An exact path is as long as the request's, so a prefix that matches can be equally long.
        PathMatch::Exact(path) if mistake == Disorder::PrefixBeatsExact => (2, Reverse(path.len()), Reverse(0), 1),
        PathMatch::Exact(_) => (0, Reverse(0), Reverse(0), 0),
        PathMatch::Regex(pattern) => (1, Reverse(pattern.source().len()), Reverse(0), 0),
        PathMatch::Prefix(path) => (2, Reverse(path.len()), Reverse(0), 0),
        PathMatch::Rpc(rpc) => {
            let (service, method) = (length(&rpc.service), length(&rpc.method));
            let (first, second) = if mistake == Disorder::RpcMethodBeatsService { (method, service) } else { (service, method) };
            (3, Reverse(first), Reverse(second), 0)
        }
    };
    let (method, headers) = (usize::from(found.method.is_some()), found.headers.len());
    let (third, fourth) = if mistake == Disorder::HeaderBeatsMethod { (headers, method) } else { (method, headers) };
    let created_s = if mistake == Disorder::YoungestBeatsOldest { -route.created_s } else { route.created_s };
    let name = format!("{}/{}", route.namespace, route.name);
    (path, Reverse(third), Reverse(fourth), Reverse(found.query.len()), created_s, name, rule.index)
}

#[test]
fn the_comparison_finds_mistakes_in_the_order_of_matches() {
    let with = |mistake: Disorder| {
        move |case: &Merged| {
            let frontend = subject::frontend(&subject::world(&case.objects), &at_store(80));
            disordered(mistake, frontend, &case.request)
        }
    };
    let (http, grpc) = (generate::http_routes(), generate::grpc_routes());
    compare(&http, merged_oracle, with(Disorder::None)).unwrap_or_else(|error| panic!("{error}"));
    compare(&grpc, merged_oracle, with(Disorder::None)).unwrap_or_else(|error| panic!("{error}"));
    for mistake in [Disorder::PrefixBeatsExact, Disorder::HeaderBeatsMethod, Disorder::YoungestBeatsOldest] {
        assert!(differs(&http, merged_oracle, with(mistake)), "{mistake:?} went unnoticed");
    }
    assert!(differs(&grpc, merged_oracle, with(Disorder::RpcMethodBeatsService)), "went unnoticed");
}

/// A mistake in what is in force.
#[derive(Clone, Copy, Debug)]
enum Misattachment {
    /// What no consumer route matches goes on to the producer routes.
    ConsumersFallThrough,
    /// A consumer route reaches the clients of every namespace.
    ConsumersReachAll,
    /// `port` of a parentRef is ignored.
    PortIgnored,
    /// Without a match the request passes as if no route existed.
    PassesWithoutMatch,
}

fn misattached(mistake: Misattachment, case: &Mesh) -> Answer {
    let answer = subject::answer(&world(case), &case.dialled, &case.request);
    let from = |client: &str| {
        let dialled = spec::Dialled { client: client.to_owned(), ..case.dialled.clone() };
        subject::answer(&world(case), &dialled, &case.request)
    };
    match mistake {
        Misattachment::ConsumersFallThrough if answer == Answer::NoMatch => from("shop"),
        Misattachment::ConsumersReachAll if case.dialled.client == "others" => from("buyers"),
        Misattachment::PassesWithoutMatch if answer == Answer::NoMatch => Answer::Untouched,
        Misattachment::PortIgnored => {
            let mut case = case.clone();
            let parents = case.arrived.iter_mut().filter_map(|object| object["spec"].get_mut("parentRefs")?.as_array_mut());
            for parent in parents.flatten() {
                parent.as_object_mut().map(|parent| parent.remove("port"));
            }
            subject::answer(&world(&case), &case.dialled, &case.request)
        }
        Misattachment::ConsumersFallThrough | Misattachment::ConsumersReachAll | Misattachment::PassesWithoutMatch => answer,
    }
}

#[test]
fn the_comparison_finds_mistakes_in_what_is_in_force() {
    for mistake in [
        Misattachment::ConsumersFallThrough,
        Misattachment::ConsumersReachAll,
        Misattachment::PortIgnored,
        Misattachment::PassesWithoutMatch,
    ] {
        assert!(differs(&generate::mesh(), mesh_oracle, |case| misattached(mistake, case)), "{mistake:?} went unnoticed");
    }
}
