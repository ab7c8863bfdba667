//! `isthmus status`: whether routes are accepted, and where they are live.

use std::collections::BTreeMap;
use std::process::exit;
use std::time::Duration;

use anyhow::{bail, ensure};
use controller::live::{Lagging, Live, RouteLive, merge, unlist};
use kube::{Client, ResourceExt as _};
use routing::api::{ObjectKey, ObjectKind};
use routing::model::RouteKind;
use routing::status::CONTROLLER_NAME;
use serde::Serialize;
use serde_json::Value;

use crate::config::Status;
use crate::kubernetes;
use crate::table::table;

/// `--watch` looks again after this time.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A route.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Route {
    kind: &'static str,
    namespace: String,
    name: String,
    generation: i64,
    /// The generation that its status speaks of.
    observed: i64,
    /// What is wrong with it, by its own status: empty if it is accepted whole.
    refused: Vec<String>,
    /// Where it is live; none: no controller knows it as attached to anything.
    live: Option<Live>,
}

/// What is asked for.
struct Asked {
    kind: Option<RouteKind>,
    name: Option<String>,
    /// None: all of them.
    namespace: Option<String>,
}

/// Lists them, and ends the program with 1 if one of them is not accepted or not live.
pub(crate) fn run(config: &Status) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = kubernetes::client(config.mesh.context.as_ref()).await?;
        let asked = Asked::new(config, client.default_namespace())?;
        let mut said: Option<Vec<Route>> = None;
        loop {
            let looked = look(&client, config, &asked).await;
            let (routes, unasked) = match looked {
                Ok(looked) => looked,
                // What passes is waited for.
                Err(error) if config.watch && said.is_some() => {
                    eprintln!("{error:#}");
                    tokio::time::sleep(LOOK_EVERY).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            unasked.iter().for_each(|why| eprintln!("{why}; its sidecars are missing here"));
            let is_missing = asked.name.is_some() && routes.is_empty();
            if let Some(name) = asked.name.as_ref().filter(|_| is_missing && !config.watch) {
                bail!("no route of ours of this name in namespace {}: {name}", asked.namespace.as_deref().unwrap_or("(any)"));
            }
            let is_well = !is_missing && unasked.is_empty() && routes.iter().all(Route::is_well);
            // How long somebody has been behind is no news by itself.
            let is_news = said.as_ref().is_none_or(|said| !said.iter().map(Route::timeless).eq(routes.iter().map(Route::timeless)));
            if is_news {
                config.output.say(&routes, || text(&routes))?;
                said = Some(routes);
            }
            if !config.watch || (is_well && asked.name.is_some()) {
                exit(i32::from(!is_well));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
}

impl Asked {
    fn new(config: &Status, default_namespace: &str) -> anyhow::Result<Self> {
        let namespace = (!config.all_namespaces).then(|| config.namespace.clone().unwrap_or_else(|| default_namespace.to_owned()));
        let Some(route) = &config.route else { return Ok(Self { kind: None, name: None, namespace }) };
        let (kind, name) = match route.split_once('/') {
            None => (None, route.as_str()),
            Some((kind, name)) => (Some(kind_of(kind)?), name),
        };
        ensure!(!name.is_empty(), "{route:?} names no route: [KIND/]NAME");
        Ok(Self { kind, name: Some(name.to_owned()), namespace })
    }

    fn includes(&self, namespace: &str, name: &str) -> bool {
        let is = |asked: &Option<String>, it: &str| asked.as_ref().is_none_or(|asked| asked == it);
        is(&self.namespace, namespace) && is(&self.name, name)
    }
}

/// As kubectl takes kinds: in any case, singular or plural.
fn kind_of(text: &str) -> anyhow::Result<RouteKind> {
    let lower = text.to_lowercase();
    let singular = lower.strip_suffix('s').unwrap_or(&lower);
    let found = RouteKind::ALL.into_iter().find(|kind| kind.as_str().to_lowercase() == singular);
    let kinds = RouteKind::ALL.map(|kind| kind.as_str().to_lowercase()).join(", ");
    found.ok_or_else(|| anyhow::anyhow!("{text:?} is no kind of route: {kinds}"))
}

impl Route {
    /// Accepted and live everywhere, in the generation that the object has.
    fn is_well(&self) -> bool {
        let is_newest = |live: &Live| live.generation == self.generation && live.is_everywhere();
        self.refused.is_empty() && self.observed == self.generation && self.live.as_ref().is_some_and(is_newest)
    }

    /// All of it but for how long somebody has been behind.
    fn timeless(&self) -> Self {
        let mut timeless = self.clone();
        timeless.live.iter_mut().flat_map(|live| &mut live.lagging).for_each(|lagging| lagging.behind_s = 0);
        timeless
    }
}

/// The routes, and which replicas of the controller could not be asked.
async fn look(client: &Client, config: &Status, asked: &Asked) -> anyhow::Result<(Vec<Route>, Vec<String>)> {
    let (answers, unasked) = kubernetes::ask_controllers::<Vec<RouteLive>>(client, &config.mesh.controller_namespace, "/live").await?;
    let mut lives = BTreeMap::new();
    answers.into_iter().for_each(|(_, list)| merge(&mut lives, unlist(list)));
    let mut routes = Vec::new();
    for kind in RouteKind::ALL.into_iter().filter(|kind| asked.kind.is_none_or(|asked| asked == *kind)) {
        for object in kubernetes::list(client, ObjectKind::Route(kind)).await? {
            let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
            let ours = ours(&object.data["status"]);
            // Routes of other implementations are none of our business.
            if ours.is_empty() || !asked.includes(&namespace, &name) {
                continue;
            }
            let live = lives.remove(&ObjectKey { kind: ObjectKind::Route(kind), namespace: namespace.clone(), name: name.clone() });
            let generation = object.metadata.generation.unwrap_or_default();
            let (observed, refused) = (observed(&ours), refused(&ours));
            routes.push(Route { kind: kind.as_str(), namespace, name, generation, observed, refused, live });
        }
    }
    routes.sort_by(|one, other| (&one.namespace, &one.name, one.kind).cmp(&(&other.namespace, &other.name, other.kind)));
    Ok((routes, unasked))
}

/// What our controller says of a route's parents.
fn ours(status: &Value) -> Vec<&Value> {
    let parents = status["parents"].as_array().map(Vec::as_slice).unwrap_or_default();
    parents.iter().filter(|parent| parent["controllerName"] == CONTROLLER_NAME).collect()
}

/// The generation of which everything has been said that the rest depends on.
fn observed(parents: &[&Value]) -> i64 {
    let conditions = parents.iter().filter_map(|parent| parent["conditions"].as_array()).flatten();
    let accepted = conditions.filter(|condition| condition["type"] == "Accepted");
    accepted.filter_map(|condition| condition["observedGeneration"].as_i64()).min().unwrap_or_default()
}

/// What is wrong by conditions that are about the route itself.
fn refused(parents: &[&Value]) -> Vec<String> {
    let conditions = parents.iter().filter_map(|parent| parent["conditions"].as_array()).flatten();
    let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    let wrong = conditions.filter(|condition| match condition["type"].as_str() {
        Some("Accepted" | "ResolvedRefs") => condition["status"] != "True",
        Some("PartiallyInvalid") => condition["status"] == "True",
        _ => false,
    });
    let mut wrong: Vec<String> = wrong.map(|wrong| format!("{}: {}", text(wrong, "reason"), text(wrong, "message"))).collect();
    wrong.sort();
    wrong.dedup();
    wrong
}

fn text(routes: &[Route]) -> String {
    let row = |route: &Route| {
        let live = route.live.as_ref();
        vec![
            route.namespace.clone(),
            format!("{}/{}", route.kind.to_lowercase(), route.name),
            route.generation.to_string(),
            match (route.refused.is_empty(), route.observed == route.generation) {
                (_, false) => "not yet".to_owned(),
                (true, true) => "yes".to_owned(),
                (false, true) => "no".to_owned(),
            },
            match live {
                Some(live) if live.generation == route.generation => format!("{}/{}", live.live, live.sidecars),
                Some(live) => format!("{}/{} of generation {}", live.live, live.sidecars, live.generation),
                None => "-".to_owned(),
            },
            live.and_then(|live| Some(behind(live, live.lagging.first()?)))
                .into_iter()
                .chain(route.refused.clone())
                .collect::<Vec<_>>()
                .join("; "),
        ]
    };
    table(&["NAMESPACE", "ROUTE", "GENERATION", "ACCEPTED", "LIVE", "WHAT IS MISSING"], &routes.iter().map(row).collect::<Vec<_>>())
}

fn behind(live: &Live, one: &Lagging) -> String {
    let Lagging { namespace, pod, behind_s, rejected } = one;
    let others = live.sidecars - live.live - 1;
    let more = if others > 0 { format!(" and {others} more") } else { String::new() };
    match rejected.is_empty() {
        true => format!("{namespace}/{pod}{more} behind for {behind_s} s"),
        false => format!("{namespace}/{pod}{more} rejects it: {rejected}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_are_taken_as_kubectl_takes_them() {
        for text in ["HTTPRoute", "httproute", "httproutes"] {
            assert_eq!(kind_of(text).expect("a kind"), RouteKind::Http);
        }
        let error = kind_of("service").expect_err("no route").to_string();
        assert_eq!(error, "\"service\" is no kind of route: grpcroute, httproute, tlsroute, tcproute");
    }

    #[test]
    fn what_is_missing_is_said() {
        let status = json!({"parents": [
            {"controllerName": "example.org/other", "conditions": [{"type": "Accepted", "status": "False", "reason": "Theirs"}]},
            {"controllerName": CONTROLLER_NAME, "conditions": [
                {"type": "Accepted", "status": "True", "reason": "Accepted"},
                {"type": "ResolvedRefs", "status": "False", "reason": "RefNotPermitted", "message": "no grant"},
                {"type": "isthmus.dev/Live", "status": "False", "reason": "Lagging"},
            ]},
        ]});
        let refused = refused(&ours(&status));
        assert_eq!(refused, ["RefNotPermitted: no grant"]);
        let lagging = vec![Lagging { namespace: "shop".to_owned(), pod: "web".to_owned(), behind_s: 12, ..Lagging::default() }];
        let live = Some(Live { generation: 2, sidecars: 3, live: 1, lagging });
        let route =
            Route { kind: "HTTPRoute", namespace: "shop".to_owned(), name: "store".to_owned(), generation: 2, observed: 2, refused, live };
        assert!(!route.is_well());
        let text = text(&[route]);
        let line = text.lines().nth(1).expect("a row");
        assert_eq!(
            line,
            "shop       httproute/store  2           no        1/3   shop/web and 1 more behind for 12 s; RefNotPermitted: no grant"
        );
    }
}
