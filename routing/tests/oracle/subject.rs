//! What the crate says about the same objects and requests.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use routing::api::{Object, ObjectKey, ObjectKind};
use routing::matcher::RequestHead;
use routing::model::{Frontend, FrontendId, Route, RouteKind};
use routing::server_name;
use routing::table::RouteTable;
use routing::world::{Settings, World};
use serde_json::Value;

use crate::spec::status::Said;
use crate::spec::{Answer, Dialled, Request, Winner};

pub(crate) fn object(value: &Value) -> Object {
    Object::decode(value).expect("decodes").expect("a kind that is read")
}

pub(crate) fn world<'v>(objects: impl IntoIterator<Item = &'v Value>) -> World {
    let mut world = World::new(Settings { cluster: "west".to_owned(), ..Settings::default() });
    for value in objects {
        world.apply(object(value));
    }
    world
}

/// The routes in force where something is dialled.
pub(crate) fn frontend(world: &World, dialled: &Dialled) -> Option<Frontend> {
    let id = format!("{}/{}/{}/{}", dialled.kind, dialled.namespace, dialled.name, dialled.port);
    world.frontend(&FrontendId(id.parse().expect("a name")), &dialled.client)
}

pub(crate) fn headers<'l>(lines: impl IntoIterator<Item = &'l (String, String)>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(name.parse::<HeaderName>().expect("a name"), value.parse::<HeaderValue>().expect("a value"));
    }
    headers
}

pub(crate) fn with_head<T>(request: &Request, ask: impl FnOnce(&RequestHead<'_>) -> T) -> T {
    let headers = headers(&request.headers);
    let method: Method = request.method.parse().expect("a method");
    let (path, query) = request.target.split_once('?').map_or((request.target.as_str(), None), |(path, query)| (path, Some(query)));
    ask(&RequestHead { method: &method, path, query, authority: Some(&request.authority), headers: &headers })
}

pub(crate) fn answer(world: &World, dialled: &Dialled, request: &Request) -> Answer {
    frontend(world, dialled).map_or(Answer::Untouched, |frontend| within(frontend, request))
}

/// What becomes of a request where these routes are in force.
pub(crate) fn within(frontend: Frontend, request: &Request) -> Answer {
    let kind = frontend.kind;
    let winner = match kind {
        RouteKind::Grpc | RouteKind::Http => {
            let table = RouteTable::compile(Arc::new(frontend));
            with_head(request, |head| table.select(head).map(|selection| winner(kind, selection.route, selection.rule.index)))
        }
        RouteKind::Tls => server_name::select(&frontend, &request.server_name).map(|(_, route)| winner(kind, route, 0)),
        RouteKind::Tcp => frontend.routes.first().map(|route| winner(kind, route, 0)),
    };
    winner.map_or(Answer::NoMatch, Answer::Rule)
}

pub(crate) fn winner(kind: RouteKind, route: &Route, rule: u32) -> Winner {
    Winner { kind: kind.as_str().to_owned(), route: format!("{}/{}", route.namespace, route.name), rule: rule.into() }
}

/// The entries of a route's status, with those ports left out of `lost` that the message does not name.
pub(crate) fn status(world: &World, route: &Value, expected: &[Said]) -> Vec<Said> {
    let Object::Route(routing::api::Route { kind, .. }) = object(route) else { panic!("{route} is no route") };
    let text = |field: &str| route["metadata"][field].as_str().expect("a text").to_owned();
    let entries = world.status(&ObjectKey { kind: ObjectKind::Route(kind), namespace: text("namespace"), name: text("name") });
    let entries = entries.expect("the route is known").into_iter().enumerate().map(|(index, entry)| {
        let condition = |kind: &str| entry.conditions.iter().find(|condition| condition.kind == kind);
        let accepted = condition("Accepted").expect("always there");
        let lost = expected.get(index).map(|said| said.lost.as_slice()).unwrap_or_default();
        Said {
            parent: entry.reference.clone(),
            accepted: accepted.status,
            reason: accepted.reason.to_owned(),
            is_partially_invalid: condition("PartiallyInvalid").is_some_and(|condition| condition.status),
            lost: lost.iter().copied().filter(|port| accepted.message.contains(&port.to_string())).collect(),
        }
    });
    entries.collect()
}
