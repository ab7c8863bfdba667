//! What there is to be sent, encoded once, and brought up to date where a change touched it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Message;
use proto::{resources as wire, type_url};
use routing::model::{FrontendId, ServiceRef};
use routing::world::{Touched, World};

use super::{Kind, Resource};
use crate::revision::Revision;

/// What clients of different namespaces see under one name: routes of their own namespace replace the producer's (GEP-1294).
#[derive(Debug, Default)]
struct Scoped {
    /// For everybody else.
    everybody: Option<Arc<Resource>>,
    /// Where it is another.
    consumers: BTreeMap<String, Arc<Resource>>,
}

impl Scoped {
    fn of(&self, namespace: &str) -> Option<&Arc<Resource>> {
        self.consumers.get(namespace).or(self.everybody.as_ref())
    }

    fn is_empty(&self) -> bool {
        self.everybody.is_none() && self.consumers.is_empty()
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
    /// What it was made of.
    pub(super) revision: Revision,
}

/// A name under which something else is seen than before, by whom.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) kind: Kind,
    pub(super) name: String,
    before: Scoped,
    /// None: of a backend everybody sees the same.
    after: Option<BTreeMap<String, String>>,
    everybody: Option<String>,
}

impl Changed {
    fn scoped(kind: Kind, name: String, before: Scoped, after: Option<&Scoped>) -> Option<Self> {
        let versions = |scoped: &Scoped| -> BTreeMap<String, String> {
            scoped.consumers.iter().map(|(namespace, resource)| (namespace.clone(), resource.version.clone())).collect()
        };
        let everybody = after.and_then(|after| Some(after.everybody.as_ref()?.version.clone()));
        let after = after.map(versions).unwrap_or_default();
        let is_equal = version(before.everybody.as_ref()) == everybody.as_deref() && versions(&before) == after;
        (!is_equal).then_some(Self { kind, name, before, after: Some(after), everybody })
    }

    fn backend(name: String) -> Self {
        Self { kind: Kind::Backend, name, before: Scoped::default(), after: None, everybody: None }
    }

    /// Whether clients of a namespace see something else.
    pub(super) fn concerns(&self, namespace: &str) -> bool {
        let Some(after) = &self.after else { return true };
        version(self.before.of(namespace)) != after.get(namespace).or(self.everybody.as_ref()).map(String::as_str)
    }
}

fn version(resource: Option<&Arc<Resource>>) -> Option<&str> {
    resource.map(|resource| resource.version.as_str())
}

impl Shown {
    /// Computes anew what was touched, and says what differs.
    pub(super) fn refresh(&mut self, world: &World, touched: &Touched) -> Vec<Changed> {
        let mut changed = Vec::new();
        for service in &touched.backends {
            self.refresh_backends(world, service, &mut changed);
        }
        // An address may have gone from one of them to another.
        let mut before = BTreeMap::new();
        for service in &touched.frontends {
            for name in self.vips_of.remove(service).unwrap_or_default() {
                before.extend(self.vips.remove_entry(&name));
            }
        }
        for service in &touched.frontends {
            self.refresh_frontends(world, service, &mut changed);
            self.insert_vips(world, service, &mut before);
        }
        changed.extend(before.into_iter().filter_map(|(name, before)| {
            let after = self.vips.get(&name);
            Changed::scoped(Kind::Vip, name.clone(), before, after)
        }));
        changed
    }

    fn refresh_backends(&mut self, world: &World, service: &ServiceRef, changed: &mut Vec<Changed>) {
        let prefix = format!("{service}/");
        let mut gone: BTreeSet<String> = names_below(&self.backends, &prefix);
        for backend in world.backends(service) {
            let resource = resource(backend.id.to_string(), type_url::BACKEND, &wire::Backend::from(&backend));
            gone.remove(&resource.name);
            if version(self.backends.get(&resource.name)) != Some(&resource.version) {
                changed.push(Changed::backend(resource.name.clone()));
                self.backends.insert(resource.name.clone(), resource);
            }
        }
        for name in gone {
            self.backends.remove(&name);
            changed.push(Changed::backend(name));
        }
    }

    fn refresh_frontends(&mut self, world: &World, service: &ServiceRef, changed: &mut Vec<Changed>) {
        let mut before: BTreeMap<String, Scoped> = names_below(&self.frontends, &format!("{service}/"))
            .into_iter()
            .filter_map(|name| self.frontends.remove_entry(&name))
            .collect();
        for id in world.frontends(service) {
            let encoded = |namespace: &str| {
                let frontend = world.frontend(&id, namespace)?;
                Some(resource(id.to_string(), type_url::FRONTEND, &wire::Frontend::from(&frontend)))
            };
            let scoped = scoped(world, &id, encoded);
            if !scoped.is_empty() {
                before.entry(id.to_string()).or_default();
                self.frontends.insert(id.to_string(), scoped);
            }
        }
        changed.extend(before.into_iter().filter_map(|(name, before)| {
            let after = self.frontends.get(&name);
            Changed::scoped(Kind::Frontend, name.clone(), before, after)
        }));
    }

    fn insert_vips(&mut self, world: &World, service: &ServiceRef, before: &mut BTreeMap<String, Scoped>) {
        let mut names = BTreeSet::new();
        for vip in world.addresses(service) {
            let name = vip.address().to_string();
            let encoded = resource(name.clone(), type_url::VIP, &wire::Vip::from(&vip));
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
            Kind::Backend => self.backends.get(name),
        }
    }

    /// All that clients of a namespace see.
    pub(super) fn all<'s>(&'s self, kind: Kind, namespace: &'s str) -> Box<dyn Iterator<Item = &'s Arc<Resource>> + 's> {
        match kind {
            Kind::Vip => Box::new(self.vips.values().filter_map(|scoped| scoped.of(namespace))),
            Kind::Frontend => Box::new(self.frontends.values().filter_map(|scoped| scoped.of(namespace))),
            Kind::Backend => Box::new(self.backends.values()),
        }
    }
}

/// What each namespace sees. Those without routes of their own on the parent see what the parent's own namespace sees.
fn scoped(world: &World, id: &FrontendId, seen: impl Fn(&str) -> Option<Arc<Resource>>) -> Scoped {
    let parent = &id.0.service;
    let everybody = seen(&parent.namespace);
    let others = world.namespaces_with_routes_on(parent).into_iter().filter(|namespace| *namespace != parent.namespace);
    let consumers = others.filter_map(|namespace| Some((namespace.to_owned(), seen(namespace)?)));
    let consumers = consumers.filter(|(_, resource)| version(everybody.as_ref()) != Some(&resource.version)).collect();
    Scoped { everybody, consumers }
}

fn names_below<T>(map: &BTreeMap<String, T>, prefix: &str) -> BTreeSet<String> {
    map.range(prefix.to_owned()..).map(|(name, _)| name).take_while(|name| name.starts_with(prefix)).cloned().collect()
}

fn resource(name: String, type_url: &str, message: &impl Message) -> Arc<Resource> {
    let any = prost_types::Any { type_url: type_url.to_owned(), value: message.encode_to_vec() };
    Arc::new(Resource::new(name, proto::version(message), Some(any)))
}
