//! What there is to be sent, encoded once, and brought up to date where a change touched it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Message;
use proto::{resources as wire, type_url};
use routing::api::{ObjectKey, ObjectKind};
use routing::model::{FrontendId, ServiceRef};
use routing::world::{Touched, World};

use super::{Kind, Resource};

/// What is to be sent, and whose endpoints whoever sees it may ask for.
#[derive(Debug)]
struct Entry {
    resource: Arc<Resource>,
    backends: BTreeSet<String>,
    /// Of a frontend.
    routes: Vec<RouteVersion>,
    /// Of a VIP: the frontend.
    leads_to: Option<String>,
}

/// A route that somebody sees.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct RouteVersion {
    /// Which.
    pub key: ObjectKey,
    /// Its `metadata.generation`.
    pub generation: i64,
}

/// What clients of different namespaces see under one name: routes of their own namespace replace the producer's (GEP-1294).
#[derive(Debug, Default)]
struct Scoped {
    /// For everybody else.
    everybody: Option<Arc<Entry>>,
    /// Where it is another.
    consumers: BTreeMap<String, Arc<Entry>>,
}

impl Scoped {
    fn entry(&self, namespace: &str) -> Option<&Arc<Entry>> {
        self.consumers.get(namespace).or(self.everybody.as_ref())
    }

    fn of(&self, namespace: &str) -> Option<&Arc<Resource>> {
        Some(&self.entry(namespace)?.resource)
    }

    fn is_empty(&self) -> bool {
        self.everybody.is_none() && self.consumers.is_empty()
    }

    fn versions(&self) -> Versions {
        let consumers = self.consumers.iter().map(|(namespace, entry)| (namespace.clone(), Some(entry.resource.version.clone())));
        Versions { everybody: self.everybody.as_ref().map(|entry| entry.resource.version.clone()), consumers: consumers.collect() }
    }
}

/// The versions that are seen under one name, and by whom.
#[derive(Debug, Default, Eq, PartialEq)]
struct Versions {
    everybody: Option<String>,
    consumers: BTreeMap<String, Option<String>>,
}

impl Versions {
    fn of(&self, namespace: &str) -> Option<&str> {
        self.consumers.get(namespace).unwrap_or(&self.everybody).as_deref()
    }
}

/// Who sees a backend: whoever sees a frontend that refers to it, counted by frontends.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Readers {
    /// Frontends that refer to it as everybody else sees them.
    everybody: i64,
    /// How many more, or fewer, do as clients of a namespace see them.
    otherwise: BTreeMap<String, i64>,
}

impl Readers {
    fn include(&self, namespace: &str) -> bool {
        self.everybody + self.otherwise.get(namespace).unwrap_or(&0) > 0
    }

    fn is_empty(&self) -> bool {
        self.everybody == 0 && self.otherwise.is_empty()
    }

    fn add(&mut self, consumer: Option<&str>, count: i64) {
        let Some(namespace) = consumer else {
            self.everybody += count;
            return;
        };
        let more = self.otherwise.entry(namespace.to_owned()).or_default();
        *more += count;
        if *more == 0 {
            self.otherwise.remove(namespace);
        }
    }

    /// Who of them sees a version.
    fn versions(&self, version: Option<&str>) -> Versions {
        let version = |is_seen: bool| version.filter(|_| is_seen).map(str::to_owned);
        let consumers = self.otherwise.keys().map(|namespace| (namespace.clone(), version(self.include(namespace))));
        Versions { everybody: version(self.everybody > 0), consumers: consumers.collect() }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Shown {
    vips: BTreeMap<String, Scoped>,
    /// Names of the VIPs of a Service or ServiceImport.
    vips_of: BTreeMap<ServiceRef, BTreeSet<String>>,
    frontends: BTreeMap<String, Scoped>,
    backends: BTreeMap<String, Arc<Resource>>,
    /// By the name of a backend, whether it exists or not; nobody reads those that are not here.
    readers: BTreeMap<String, Readers>,
    /// What it was made of: written once for all who are sent it.
    pub(super) revision: String,
}

/// A name under which something else is seen than before, by whom.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) kind: Kind,
    pub(super) name: String,
    before: Versions,
    after: Versions,
}

impl Changed {
    fn new(kind: Kind, name: String, before: Versions, after: Versions) -> Option<Self> {
        (before != after).then_some(Self { kind, name, before, after })
    }

    /// Whether clients of a namespace see something else.
    pub(super) fn concerns(&self, namespace: &str) -> bool {
        self.before.of(namespace) != self.after.of(namespace)
    }
}

/// Backends of which something differs, as they were: their version and their readers.
type FormerBackends = BTreeMap<String, (Option<String>, Readers)>;

impl Shown {
    /// Computes anew what was touched, and says what differs.
    pub(super) fn refresh(&mut self, world: &World, touched: &Touched) -> Vec<Changed> {
        let mut changed = Vec::new();
        let mut backends = FormerBackends::new();
        for service in &touched.backends {
            self.refresh_backends(world, service, &mut backends);
        }
        // An address may have gone from one of them to another.
        let mut before = BTreeMap::new();
        for service in &touched.frontends {
            for name in self.vips_of.remove(service).unwrap_or_default() {
                before.extend(self.vips.remove_entry(&name));
            }
        }
        for service in &touched.frontends {
            self.refresh_frontends(world, service, &mut backends, &mut changed);
            self.insert_vips(world, service, &mut before);
        }
        changed.extend(before.into_iter().filter_map(|(name, before)| {
            let after = self.vips.get(&name).map(Scoped::versions).unwrap_or_default();
            Changed::new(Kind::Vip, name, before.versions(), after)
        }));
        changed.extend(backends.into_iter().filter_map(|(name, (version, readers))| {
            let (before, after) = (readers.versions(version.as_deref()), self.backend_versions(&name));
            Changed::new(Kind::Backend, name, before, after)
        }));
        changed
    }

    fn backend_versions(&self, name: &str) -> Versions {
        let version = self.backends.get(name).map(|resource| resource.version.as_str());
        self.readers.get(name).map(|readers| readers.versions(version)).unwrap_or_default()
    }

    /// Remembers how a backend was before the first change of it.
    fn remember(&self, name: &str, former: &mut FormerBackends) {
        if !former.contains_key(name) {
            let version = self.backends.get(name).map(|resource| resource.version.clone());
            former.insert(name.to_owned(), (version, self.readers.get(name).cloned().unwrap_or_default()));
        }
    }

    fn refresh_backends(&mut self, world: &World, service: &ServiceRef, former: &mut FormerBackends) {
        let mut gone = names_below(&self.backends, &format!("{service}/"));
        for backend in world.backends(service) {
            let resource = resource(backend.id.to_string(), type_url::BACKEND, &wire::Backend::from(&backend));
            gone.remove(&resource.name);
            if self.backends.get(&resource.name).is_none_or(|present| present.version != resource.version) {
                self.remember(&resource.name, former);
                self.backends.insert(resource.name.clone(), resource);
            }
        }
        for name in gone {
            self.remember(&name, former);
            self.backends.remove(&name);
        }
    }

    fn refresh_frontends(&mut self, world: &World, service: &ServiceRef, former: &mut FormerBackends, changed: &mut Vec<Changed>) {
        let mut before: BTreeMap<String, Scoped> = names_below(&self.frontends, &format!("{service}/"))
            .into_iter()
            .filter_map(|name| self.frontends.remove_entry(&name))
            .collect();
        let mut after = Vec::new();
        for id in world.frontends(service) {
            let encoded = |namespace: &str| {
                let frontend = world.frontend(&id, namespace)?;
                let resource = resource(id.to_string(), type_url::FRONTEND, &wire::Frontend::from(&frontend));
                let backends = frontend.backend_ids().map(ToString::to_string).collect();
                let kind = ObjectKind::Route(frontend.kind);
                let routes = frontend.routes.into_iter().map(|route| RouteVersion {
                    key: ObjectKey { kind, namespace: route.namespace, name: route.name },
                    generation: route.generation,
                });
                Some(Arc::new(Entry { resource, backends, routes: routes.collect(), leads_to: None }))
            };
            let scoped = scoped(world, &id, encoded);
            if !scoped.is_empty() {
                before.entry(id.to_string()).or_default();
                after.push((id.to_string(), scoped));
            }
        }
        before.values().for_each(|scoped| self.count(scoped, -1, former));
        after.iter().for_each(|(_, scoped)| self.count(scoped, 1, former));
        self.frontends.extend(after);
        changed.extend(before.into_iter().filter_map(|(name, before)| {
            let after = self.frontends.get(&name).map(Scoped::versions).unwrap_or_default();
            Changed::new(Kind::Frontend, name, before.versions(), after)
        }));
    }

    /// Counts those who see a frontend among the readers of the backends that it refers to, or no more.
    fn count(&mut self, scoped: &Scoped, count: i64, former: &mut FormerBackends) {
        let everybody = scoped.everybody.as_ref().map(|entry| &entry.backends);
        let mut add = |name: &str, consumer: Option<&str>, count: i64| {
            self.remember(name, former);
            let readers = self.readers.entry(name.to_owned()).or_default();
            readers.add(consumer, count);
            if readers.is_empty() {
                self.readers.remove(name);
            }
        };
        for name in everybody.into_iter().flatten() {
            add(name, None, count);
        }
        for (namespace, entry) in &scoped.consumers {
            entry.backends.iter().for_each(|name| add(name, Some(namespace), count));
            // They see their own instead of what everybody else sees.
            everybody.into_iter().flatten().for_each(|name| add(name, Some(namespace), -count));
        }
    }

    fn insert_vips(&mut self, world: &World, service: &ServiceRef, before: &mut BTreeMap<String, Scoped>) {
        let mut names = BTreeSet::new();
        for vip in world.addresses(service) {
            let name = vip.address().to_string();
            let resource = resource(name.clone(), type_url::VIP, &wire::Vip::from(&vip));
            let encoded =
                Arc::new(Entry { resource, backends: BTreeSet::new(), routes: Vec::new(), leads_to: Some(vip.frontend.to_string()) });
            let scoped = scoped(world, &vip.frontend, |namespace| world.has_route(&vip.frontend, namespace).then(|| Arc::clone(&encoded)));
            if !scoped.is_empty() {
                before.entry(name.clone()).or_default();
                self.vips.insert(name.clone(), scoped);
                names.insert(name);
            }
        }
        if !names.is_empty() {
            self.vips_of.insert(service.clone(), names);
        }
    }

    /// What clients of a namespace see under a name.
    pub(super) fn get(&self, kind: Kind, name: &str, namespace: &str) -> Option<&Arc<Resource>> {
        match kind {
            Kind::Vip => self.vips.get(name)?.of(namespace),
            Kind::Frontend => self.frontends.get(name)?.of(namespace),
            Kind::Backend => self.backends.get(name).filter(|_| self.reads(namespace, name)),
        }
    }

    /// Routes that anybody sees, one that is seen in several places several times.
    pub(super) fn routes(&self) -> impl Iterator<Item = &RouteVersion> {
        let entries = self.frontends.values().flat_map(|scoped| scoped.everybody.iter().chain(scoped.consumers.values()));
        entries.flat_map(|entry| &entry.routes)
    }

    /// The version of a frontend that clients of a namespace see, and its routes.
    pub(super) fn routes_of(&self, frontend: &str, namespace: &str) -> Option<(&str, &[RouteVersion])> {
        let entry = self.frontends.get(frontend)?.entry(namespace)?;
        Some((&entry.resource.version, &entry.routes))
    }

    /// The routes that clients of a namespace see behind a VIP.
    pub(super) fn routes_behind(&self, vip: &str, namespace: &str) -> Option<&[RouteVersion]> {
        let frontend = self.vips.get(vip)?.entry(namespace)?.leads_to.as_ref()?;
        Some(self.routes_of(frontend, namespace)?.1)
    }

    /// Whether nothing that clients of a namespace see refers to it; whether it exists is not told then.
    pub(super) fn is_withheld(&self, kind: Kind, name: &str, namespace: &str) -> bool {
        match kind {
            Kind::Vip | Kind::Frontend => false,
            Kind::Backend => !self.reads(namespace, name),
        }
    }

    /// Whether a frontend that clients of a namespace see refers to a backend.
    fn reads(&self, namespace: &str, backend: &str) -> bool {
        self.readers.get(backend).is_some_and(|readers| readers.include(namespace))
    }

    /// All that clients of a namespace see.
    pub(super) fn all<'s>(&'s self, kind: Kind, namespace: &'s str) -> Box<dyn Iterator<Item = &'s Arc<Resource>> + 's> {
        match kind {
            Kind::Vip => Box::new(self.vips.values().filter_map(|scoped| scoped.of(namespace))),
            Kind::Frontend => Box::new(self.frontends.values().filter_map(|scoped| scoped.of(namespace))),
            Kind::Backend => Box::new(self.backends.values().filter(|resource| self.reads(namespace, &resource.name))),
        }
    }
}

/// What each namespace sees. Those without routes of their own on the parent see what the parent's own namespace sees.
fn scoped(world: &World, id: &FrontendId, seen: impl Fn(&str) -> Option<Arc<Entry>>) -> Scoped {
    let parent = &id.0.service;
    let everybody = seen(&parent.namespace);
    let others = world.namespaces_with_routes_on(parent).into_iter().filter(|namespace| *namespace != parent.namespace);
    let consumers = others.filter_map(|namespace| Some((namespace.to_owned(), seen(namespace)?)));
    let version = |entry: &Arc<Entry>| entry.resource.version.clone();
    let consumers = consumers.filter(|(_, entry)| everybody.as_ref().map(version) != Some(version(entry))).collect();
    Scoped { everybody, consumers }
}

fn names_below<T>(map: &BTreeMap<String, T>, prefix: &str) -> BTreeSet<String> {
    map.range(prefix.to_owned()..).map(|(name, _)| name).take_while(|name| name.starts_with(prefix)).cloned().collect()
}

fn resource(name: String, type_url: &str, message: &impl Message) -> Arc<Resource> {
    let any = prost_types::Any { type_url: type_url.to_owned(), value: message.encode_to_vec() };
    Arc::new(Resource::new(name, proto::version(message), Some(any)))
}
