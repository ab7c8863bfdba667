//! Where routes are live: in how many of the sidecars that they concern, and which are behind.
//!
//! A route concerns a connected sidecar that follows one of its frontends and sees the route in it, or that has not acknowledged an address that
//! leads there. It is live there once the sidecar has acknowledged the addresses, and the frontend in the form that contains this generation
//! of the route. A sidecar that does not follow the frontend asks for it when it is dialled, and waits for it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use routing::api::{ObjectKey, ObjectKind};
use routing::model::RouteKind;
use serde::{Deserialize, Serialize};

use crate::index::{Index, RouteVersion, Routes};
use crate::registry::{Connected, Unacknowledged};

/// A sidecar that has come for the first time is of a pod that is being made for so long.
const NEW_MAX: Duration = Duration::from_secs(10);
/// Sidecars that are named as behind, of each route.
pub const LAGGING_MAX: usize = 10;

/// How far a generation of a route has come.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Live {
    /// `metadata.generation`.
    pub generation: i64,
    /// Connected sidecars that it concerns.
    pub sidecars: usize,
    /// Those that have acknowledged it.
    pub live: usize,
    /// Some of the others, at most [`LAGGING_MAX`].
    pub lagging: Vec<Lagging>,
}

/// A sidecar that has not acknowledged what concerns it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Lagging {
    /// Namespace of its pod.
    pub namespace: String,
    /// Name of its pod.
    pub pod: String,
    /// For so long.
    pub behind_s: u64,
    /// What it says against it; empty: nothing yet.
    pub rejected: String,
}

/// By route.
pub type Lives = BTreeMap<ObjectKey, Live>;

/// A route and how far it has come, as it is told to others.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RouteLive {
    /// Kind of the route.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How far it has come.
    #[serde(flatten)]
    pub live: Live,
}

/// How far every attached route has come among these sidecars.
#[must_use]
pub fn lives(index: &Index, sidecars: &[Connected]) -> Lives {
    let newest = newest(sidecars);
    index.look_at_routes(|routes| {
        let mut lives: Lives =
            routes.all().map(|route| (route.key.clone(), Live { generation: route.generation, ..Live::default() })).collect();
        for sidecar in newest.into_values() {
            for (key, behind) in concerned(routes, sidecar) {
                if let Some(live) = lives.get_mut(key) {
                    live.count(behind.map(|behind| Lagging::of(sidecar, behind)));
                }
            }
        }
        lives
    })
}

/// A stream that broke without a word may still be there when its sidecar is back: the younger one counts.
fn newest(sidecars: &[Connected]) -> BTreeMap<(&str, &str), &Connected> {
    let mut newest: BTreeMap<(&str, &str), &Connected> = BTreeMap::new();
    for sidecar in sidecars {
        let place = newest.entry((&sidecar.node.namespace, &sidecar.node.pod)).or_insert(sidecar);
        if sidecar.since > place.since {
            *place = sidecar;
        }
    }
    newest
}

/// The routes that concern a sidecar, and what it has not acknowledged of each. One may have several frontends: it is live where all are.
fn concerned<'r>(routes: Routes<'r>, sidecar: &Connected) -> BTreeMap<&'r ObjectKey, Option<Unacknowledged>> {
    let namespace = &sidecar.node.namespace;
    let mut concerned: BTreeMap<&ObjectKey, Option<Unacknowledged>> = BTreeMap::new();
    let mut add = |route: &'r RouteVersion, behind: Option<Unacknowledged>| {
        let before = concerned.entry(&route.key).or_default();
        *before = match (*before, behind) {
            (Some(before), Some(behind)) => {
                Some(Unacknowledged { told: before.told.min(behind.told), is_refused: before.is_refused || behind.is_refused })
            }
            (before, behind) => before.or(behind),
        };
    };
    for held in sidecar.progress.frontends.iter() {
        let Some((version, seen)) = routes.seen(&held.resource.name, namespace) else { continue };
        // A newer form is about to be told.
        let now = (held.resource.version != version).then(|| Unacknowledged { told: Instant::now(), is_refused: false });
        seen.iter().for_each(|route| add(route, held.unacknowledged.or(now)));
    }
    // A pod that is only just being made obeys no earlier routes.
    if sidecar.progress.is_returning || sidecar.since.elapsed() > NEW_MAX {
        for (vip, behind) in sidecar.vips_behind() {
            routes.behind(&vip, namespace).unwrap_or_default().iter().for_each(|route| add(route, Some(behind)));
        }
    }
    concerned
}

impl Live {
    fn count(&mut self, lagging: Option<Lagging>) {
        self.sidecars += 1;
        match lagging {
            None => self.live += 1,
            Some(lagging) if self.lagging.len() < LAGGING_MAX => self.lagging.push(lagging),
            Some(_) => {}
        }
    }

    /// Whether every sidecar that it concerns has acknowledged it.
    #[must_use]
    pub fn is_everywhere(&self) -> bool {
        self.live == self.sidecars
    }

    /// Adds what another replica's sidecars have come to. One that knows an earlier generation has sidecars that are behind.
    pub fn merge(&mut self, other: &Self) {
        let (newer, older) = if self.generation >= other.generation { (&*self, other) } else { (other, &*self) };
        let counts = if newer.generation == older.generation { older.live } else { 0 };
        let mut lagging = newer.lagging.clone();
        lagging.extend(older.lagging.iter().take(LAGGING_MAX.saturating_sub(lagging.len())).cloned());
        *self = Self { generation: newer.generation, sidecars: newer.sidecars + older.sidecars, live: newer.live + counts, lagging };
    }
}

impl Lagging {
    fn of(sidecar: &Connected, behind: Unacknowledged) -> Self {
        let rejected = sidecar.progress.rejected.iter().filter(|_| behind.is_refused);
        Self {
            namespace: sidecar.node.namespace.clone(),
            pod: sidecar.node.pod.clone(),
            behind_s: behind.told.elapsed().as_secs(),
            rejected: rejected.map(|(kind, why)| format!("{kind}: {why}")).collect::<Vec<_>>().join("; "),
        }
    }
}

/// What is told to others.
#[must_use]
pub fn list(lives: Lives) -> Vec<RouteLive> {
    let one =
        |(key, live): (ObjectKey, Live)| RouteLive { kind: key.kind.as_str().to_owned(), namespace: key.namespace, name: key.name, live };
    lives.into_iter().map(one).collect()
}

/// What others told; kinds that are not known here are left out.
#[must_use]
pub fn unlist(list: Vec<RouteLive>) -> Lives {
    let kind = |name: &str| RouteKind::ALL.into_iter().map(ObjectKind::Route).find(|kind| kind.as_str() == name);
    let one = |route: RouteLive| Some((ObjectKey { kind: kind(&route.kind)?, namespace: route.namespace, name: route.name }, route.live));
    list.into_iter().filter_map(one).collect()
}

/// Adds what another replica told.
pub fn merge(all: &mut Lives, others: Lives) {
    for (key, other) in others {
        match all.get_mut(&key) {
            Some(live) => live.merge(&other),
            None => {
                all.insert(key, other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(generation: i64, sidecars: usize, live: usize) -> Live {
        let lagging = (live..sidecars).map(|number| Lagging { pod: format!("pod-{number}"), ..Lagging::default() });
        Live { generation, sidecars, live, lagging: lagging.take(LAGGING_MAX).collect() }
    }

    #[test]
    fn replicas_add_up() {
        let mut one = live(3, 4, 4);
        one.merge(&live(3, 2, 1));
        assert_eq!((one.generation, one.sidecars, one.live, one.lagging.len()), (3, 6, 5, 1));
        assert!(!one.is_everywhere());
    }

    #[test]
    fn a_replica_that_knows_an_earlier_generation_has_sidecars_that_are_behind() {
        for (mut one, other) in [(live(3, 4, 4), live(2, 2, 2)), (live(2, 2, 2), live(3, 4, 4))] {
            one.merge(&other);
            assert_eq!((one.generation, one.sidecars, one.live), (3, 6, 4));
        }
    }

    #[test]
    fn few_are_named() {
        let mut one = live(1, 30, 0);
        one.merge(&live(1, 30, 0));
        assert_eq!((one.sidecars, one.lagging.len()), (60, LAGGING_MAX));
    }

    #[test]
    fn what_is_told_is_what_is_read() {
        let key = ObjectKey { kind: ObjectKind::Route(RouteKind::Grpc), namespace: "shop".to_owned(), name: "store".to_owned() };
        let lives = Lives::from([(key, live(2, 3, 1))]);
        let text = serde_json::to_string(&list(lives.clone())).expect("JSON");
        assert_eq!(unlist(serde_json::from_str(&text).expect("a list")), lives);
    }
}
