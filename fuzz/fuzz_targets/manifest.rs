//! Manifests as a user writes them, up to every answer that follows from them.
//!
//! Nothing panics; the order in which objects come changes no answer; what a change may change is said beforehand; and what is answered
//! is understood by the sidecar that it is sent to.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use libfuzzer_sys::fuzz_target;
use prost::Message;
use proto::resources as wire;
use routing::api::{Object, ObjectKey};
use routing::manifest;
use routing::model::{Backend, Frontend, FrontendId, ServiceKind, ServicePort, ServiceRef, Vip};
use routing::status::EntryStatus;
use routing::world::{CrossNamespaceBackends, Parents, Settings, Touched, World};

/// More objects say nothing more, and every one is applied and deleted with all the others looked at.
const OBJECTS_MAX: usize = 16;
const PORTS_MAX: usize = 4;

fuzz_target!(|text: &str| {
    let Ok(documents) = manifest::parse(text) else { return };
    let decoded = documents.iter().filter_map(|document| Object::decode(&document.value).ok().flatten());
    // Of two forms of an object the later one counts, so their order is no mere order of arrival.
    let objects: BTreeMap<ObjectKey, Object> = decoded.take(OBJECTS_MAX).map(|object| (object.key(), object)).collect();
    if objects.is_empty() {
        return;
    }
    let questions = Questions::about(&objects);
    // Bits of the text that mean nothing to YAML choose the settings.
    let settings = Settings {
        cluster: "west".to_owned(),
        cross_namespace_backends: if text.len() % 2 == 0 { CrossNamespaceBackends::Granted } else { CrossNamespaceBackends::Any },
        parents: if text.len() % 3 == 0 { Parents::ServiceImport } else { Parents::All },
        ..Settings::default()
    };
    let (mut forwards, mut backwards) = (World::new(settings.clone()), World::new(settings));
    let nothing = questions.ask(&forwards);
    let mut before = questions.ask(&forwards);
    for object in objects.values() {
        let touched = forwards.apply(object.clone());
        let after = questions.ask(&forwards);
        after.differs_only_in(&before, &touched, &object.key());
        before = after;
    }
    for object in objects.values().rev() {
        backwards.apply(object.clone());
    }
    assert_eq!(before, questions.ask(&backwards), "the order of arrival matters");
    before.are_understood();
    for key in objects.keys() {
        let touched = backwards.delete(key);
        let after = questions.ask(&backwards);
        after.differs_only_in(&before, &touched, key);
        before = after;
    }
    assert_eq!(before, nothing, "something is left");
});

/// Everything that can be asked about some objects.
struct Questions {
    namespaces: BTreeSet<String>,
    services: BTreeSet<ServiceRef>,
    ports: BTreeSet<NonZeroU16>,
    keys: Vec<ObjectKey>,
}

impl Questions {
    fn about(objects: &BTreeMap<ObjectKey, Object>) -> Self {
        let mut namespaces: BTreeSet<String> = objects.keys().map(|key| key.namespace.clone()).collect();
        namespaces.insert("elsewhere".to_owned());
        let service = |(key, object): (&ObjectKey, &Object)| {
            let (kind, ports) = match object {
                Object::Service(service) => (ServiceKind::Service, &service.spec.ports),
                Object::ServiceImport(import) => (ServiceKind::ServiceImport, &import.spec.ports),
                _ => return None,
            };
            Some((ServiceRef { kind, namespace: key.namespace.clone(), name: key.name.clone() }, ports.clone()))
        };
        let services: Vec<_> = objects.iter().filter_map(service).collect();
        let numbers = services.iter().flat_map(|(_, ports)| ports.iter().take(PORTS_MAX).map(|port| port.port));
        Self {
            namespaces,
            ports: numbers.filter_map(|number| NonZeroU16::new(u16::try_from(number).ok()?)).collect(),
            services: services.iter().map(|(service, _)| service.clone()).collect(),
            keys: objects.keys().cloned().collect(),
        }
    }

    fn ask(&self, world: &World) -> Answers {
        let mut answers = Answers::default();
        for namespace in &self.namespaces {
            for vip in world.vips(namespace) {
                answers.vips.insert((namespace.clone(), vip));
            }
            for (service, port) in self.services.iter().flat_map(|service| self.ports.iter().map(move |port| (service, *port))) {
                let id = FrontendId(ServicePort { service: service.clone(), port });
                answers.frontends.extend(world.frontend(&id, namespace).map(|frontend| ((namespace.clone(), id), frontend)));
            }
        }
        answers.backends = self.services.iter().map(|service| (service.clone(), world.backends(service))).collect();
        answers.statuses = self.keys.iter().filter_map(|key| Some((key.clone(), world.status(key)?))).collect();
        assert!(world.with_status().all(|key| answers.statuses.contains_key(&key)));
        answers
    }
}

#[derive(Debug, Default, PartialEq)]
struct Answers {
    vips: BTreeSet<(String, Vip)>,
    frontends: BTreeMap<(String, FrontendId), Frontend>,
    backends: BTreeMap<ServiceRef, Vec<Backend>>,
    statuses: BTreeMap<ObjectKey, Vec<EntryStatus>>,
}

impl Answers {
    fn differs_only_in(&self, before: &Self, touched: &Touched, by: &ObjectKey) {
        for (_, vip) in self.vips.symmetric_difference(&before.vips) {
            assert!(touched.frontends.contains(&vip.frontend.0.service), "{by} changes {vip:?} and does not say so: {touched:?}");
        }
        for (_, id) in changed(&self.frontends, &before.frontends) {
            assert!(touched.frontends.contains(&id.0.service), "{by} changes frontend {id} and does not say so: {touched:?}");
        }
        for id in changed(&self.backends, &before.backends) {
            assert!(touched.backends.contains(id), "{by} changes backend {id} and does not say so: {touched:?}");
        }
        for key in changed(&self.statuses, &before.statuses) {
            assert!(touched.statuses.contains(key), "{by} changes the status of {key} and does not say so: {touched:?}");
        }
    }

    /// Through the bytes, as a sidecar gets them.
    fn are_understood(&self) {
        for (_, vip) in &self.vips {
            let sent = wire::Vip::decode(wire::Vip::from(vip).encode_to_vec().as_slice()).expect("it was encoded");
            assert_eq!(Vip::try_from(sent).as_ref(), Ok(vip));
        }
        for frontend in self.frontends.values() {
            let sent = wire::Frontend::decode(wire::Frontend::from(frontend).encode_to_vec().as_slice()).expect("it was encoded");
            assert_eq!(Frontend::try_from(sent).as_ref(), Ok(frontend));
        }
        for backend in self.backends.values().flatten() {
            let sent = wire::Backend::decode(wire::Backend::from(backend).encode_to_vec().as_slice()).expect("it was encoded");
            assert_eq!(Backend::try_from(sent).as_ref(), Ok(backend));
        }
    }
}

fn changed<'a, K: Ord, V: PartialEq>(now: &'a BTreeMap<K, V>, before: &'a BTreeMap<K, V>) -> Vec<&'a K> {
    let keys: BTreeSet<&K> = now.keys().chain(before.keys()).collect();
    keys.into_iter().filter(|key| now.get(key) != before.get(key)).collect()
}
