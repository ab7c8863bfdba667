//! Policies on backends: which is in force (the oldest; GEP-713 "Conflict resolution"), and what is said of each.

use serde_json::{Value, json};

use super::{Name, World};
use crate::api::{LocalObjectReference, MCS_GROUP, Policy, PolicyTarget};
use crate::model::{BackendTls, Roots, ServiceKind, ServiceRef};
use crate::parse::{Fault, TlsPolicy, TlsRoots, TrafficPolicy, is_certificate_bundle};
use crate::service::{ServiceObject, ServicePortObject};
use crate::status::{EntryStatus, PolicyFindings, policy_conditions};

/// A policy, parsed or not.
#[derive(Debug)]
pub(super) struct ParsedPolicy<T> {
    pub(super) object: Policy,
    pub(super) parsed: Result<T, Fault>,
}

/// What references to certificates come to.
struct FoundRoots {
    /// None: nothing to verify with.
    roots: Option<Roots>,
    /// Reason and message of the first that leads nowhere.
    fault: Option<(&'static str, String)>,
}

/// The Service or ServiceImport that a target names.
pub(super) fn target(target: &PolicyTarget, namespace: &str) -> Option<ServiceRef> {
    let kind = match (target.group.as_str(), target.kind.as_str()) {
        ("" | "core", "Service") => ServiceKind::Service,
        (MCS_GROUP, "ServiceImport") => ServiceKind::ServiceImport,
        _ => return None,
    };
    Some(ServiceRef { kind, namespace: namespace.to_owned(), name: target.name.clone() })
}

impl<T> ParsedPolicy<T> {
    fn namespace(&self) -> &str {
        &self.object.metadata.namespace
    }

    /// What it is attached to.
    pub(super) fn targets(&self) -> impl Iterator<Item = ServiceRef> {
        self.object.spec.target_refs.iter().filter_map(|written| target(written, self.namespace()))
    }

    fn age(&self) -> (i64, &str) {
        (self.object.metadata.created_s(), &self.object.metadata.name)
    }

    fn has(&self, service: &ServiceRef, section: Option<&str>) -> bool {
        let is_same = |written: &&PolicyTarget| {
            target(written, self.namespace()).as_ref() == Some(service) && written.section_name.as_deref() == section
        };
        self.object.spec.target_refs.iter().any(|written| is_same(&written))
    }
}

/// The oldest of the policies with exactly this target.
fn oldest<'p, T: 'p>(
    policies: impl Iterator<Item = &'p ParsedPolicy<T>>,
    service: &ServiceRef,
    section: Option<&str>,
) -> Option<&'p ParsedPolicy<T>> {
    policies.filter(|policy| policy.namespace() == service.namespace && policy.has(service, section)).min_by(|a, b| a.age().cmp(&b.age()))
}

impl World {
    fn tls_policies_on<'w>(&'w self, service: &ServiceRef) -> impl Iterator<Item = &'w ParsedPolicy<TlsPolicy>> + use<'w> {
        self.relations.tls.of(service).filter_map(|name| self.tls_policies.get(name))
    }

    fn tls_policy(&self, service: &ServiceRef, port: &ServicePortObject) -> Option<&ParsedPolicy<TlsPolicy>> {
        let of_port = (!port.name.is_empty()).then(|| oldest(self.tls_policies_on(service), service, Some(&port.name))).flatten();
        of_port.or_else(|| oldest(self.tls_policies_on(service), service, None))
    }

    /// Whether a policy says that a port's endpoints are spoken to in TLS, whether or not it can be met.
    pub(super) fn has_tls(&self, service: &ServiceObject, port: &ServicePortObject) -> bool {
        self.tls_policy(&service.id, port).is_some()
    }

    /// How a port's endpoints are spoken to in TLS, if a policy says so.
    pub(super) fn tls(&self, service: &ServiceObject, port: &ServicePortObject) -> Option<BackendTls> {
        let policy = self.tls_policy(&service.id, port)?;
        let broken = |message: String| BackendTls::Broken(format!("BackendTLSPolicy {}: {message}", policy.object.metadata.full_name()));
        let parsed = match &policy.parsed {
            Ok(parsed) => parsed,
            Err(fault) => return Some(broken(fault.to_string())),
        };
        let found = self.roots(policy.namespace(), &parsed.roots);
        Some(match found.roots {
            Some(roots) => BackendTls::Verified { hostname: parsed.hostname.clone(), alt_names: parsed.alt_names.clone(), roots },
            None => broken(found.fault.map(|(_, message)| message).unwrap_or_default()),
        })
    }

    /// Those references that lead to certificates count; a policy is lost only if none does (BackendTLSPolicyValidation.caCertificateRefs).
    fn roots(&self, namespace: &str, roots: &TlsRoots) -> FoundRoots {
        let TlsRoots::References(references) = roots else { return FoundRoots { roots: Some(Roots::System), fault: None } };
        let mut bundle = String::new();
        let mut fault = None;
        for reference in references {
            match self.certificates(namespace, reference) {
                Ok(certificates) => {
                    bundle.push_str(certificates);
                    bundle.push('\n');
                }
                Err(found) => fault = fault.or(Some(found)),
            }
        }
        FoundRoots { roots: (!bundle.is_empty()).then_some(Roots::Pem(bundle)), fault }
    }

    fn certificates(&self, namespace: &str, reference: &LocalObjectReference) -> Result<&str, (&'static str, String)> {
        if !(matches!(reference.group.as_str(), "" | "core") && reference.kind == "ConfigMap") {
            return Err(("InvalidKind", format!("{}/{} is no kind of CA certificate; ConfigMap is", reference.group, reference.kind)));
        }
        let invalid = |message: &str| ("InvalidCACertificateRef", format!("ConfigMap {namespace}/{} {message}", reference.name));
        let name: Name = (namespace.to_owned(), reference.name.clone());
        let map = self.config_maps.get(&name).ok_or_else(|| invalid("does not exist"))?;
        let certificates = map.data.get("ca.crt").ok_or_else(|| invalid("has no key ca.crt"))?;
        if !is_certificate_bundle(certificates) {
            return Err(invalid("has no certificates in PEM under ca.crt"));
        }
        Ok(certificates)
    }

    /// The oldest that can be read: what asks for nothing keeps nobody else from asking. (A BackendTLSPolicy that cannot be read does: there
    /// the safe side is to send nothing.)
    fn traffic_policy(&self, service: &ServiceRef) -> Option<&ParsedPolicy<TrafficPolicy>> {
        let policies = self.relations.traffic.of(service).filter_map(|name| self.traffic_policies.get(name));
        oldest(policies.filter(|policy| policy.parsed.is_ok()), service, None)
    }

    /// What an XBackendTrafficPolicy asks for on a backend; an invalid one asks for nothing.
    pub(super) fn traffic(&self, service: &ServiceObject) -> TrafficPolicy {
        let policy = self.traffic_policy(&service.id).and_then(|policy| policy.parsed.as_ref().ok());
        let mut traffic = policy.cloned().unwrap_or_default();
        if service.affinity.is_some() {
            traffic.persistence = None;
        }
        traffic
    }

    pub(super) fn tls_policy_status(&self, name: &Name) -> Option<Vec<EntryStatus>> {
        let policy = self.tls_policies.get(name)?;
        let found = policy.parsed.as_ref().ok().map(|parsed| self.roots(policy.namespace(), &parsed.roots));
        let unresolved = found.as_ref().map(|found| found.fault.clone().map_or(Ok(()), Err));
        let no_certificate = found.filter(|found| found.roots.is_none()).and_then(|found| found.fault);
        let no_certificate = no_certificate.map(|(_, message)| ("NoValidCACertificate", message));
        let judge = |service: &ServiceRef, section: Option<&str>| {
            let winner = oldest(self.tls_policies_on(service), service, section);
            self.refusal(policy, winner, service, section).or_else(|| no_certificate.clone())
        };
        Some(entries(policy, unresolved.as_ref(), judge))
    }

    pub(super) fn traffic_policy_status(&self, name: &Name) -> Option<Vec<EntryStatus>> {
        let policy = self.traffic_policies.get(name)?;
        let asks_for_session = policy.parsed.as_ref().is_ok_and(|parsed| parsed.persistence.is_some());
        let judge = |service: &ServiceRef, section: Option<&str>| {
            let winner = self.traffic_policy(service);
            let is_affine = || self.services.get(service).is_some_and(|service| service.affinity.is_some());
            self.refusal(policy, winner, service, section).or_else(|| {
                let message = || format!("sessionPersistence cannot be had together with session affinity ClientIP of {service}");
                (asks_for_session && is_affine()).then(|| ("Invalid", message()))
            })
        };
        Some(entries(policy, None, judge))
    }

    /// Why a policy is not in force on one of its targets (PolicyConditionReason; digest S-9).
    fn refusal<T>(
        &self,
        policy: &ParsedPolicy<T>,
        winner: Option<&ParsedPolicy<T>>,
        service: &ServiceRef,
        section: Option<&str>,
    ) -> Option<(&'static str, String)> {
        if let Err(fault) = &policy.parsed {
            return Some(("Invalid", fault.to_string()));
        }
        let Some(object) = self.services.get(service) else { return Some(("TargetNotFound", format!("{service} does not exist"))) };
        if let Some(section) = section
            && !object.ports.iter().any(|port| port.name == section)
        {
            return Some(("TargetNotFound", format!("{service} has no TCP port named {section:?}")));
        }
        let winner = winner.filter(|winner| winner.age() != policy.age())?;
        Some(("Conflicted", format!("{} is older and has the same target", winner.object.metadata.full_name())))
    }
}

/// One entry a target that is ours; the ancestor of a mesh's policy is what it is attached to.
fn entries<T>(
    policy: &ParsedPolicy<T>,
    unresolved: Option<&Result<(), (&'static str, String)>>,
    judge: impl Fn(&ServiceRef, Option<&str>) -> Option<(&'static str, String)>,
) -> Vec<EntryStatus> {
    let ours = policy.object.spec.target_refs.iter().filter_map(|written| Some((written, target(written, policy.namespace())?)));
    let entries = ours.map(|(written, service)| {
        let section = written.section_name.as_deref();
        let findings = PolicyFindings {
            generation: policy.object.metadata.generation(),
            refused: judge(&service, section),
            unresolved: unresolved.cloned(),
        };
        EntryStatus { reference: ancestor(written), conditions: policy_conditions(&findings) }
    });
    entries.collect()
}

fn ancestor(target: &PolicyTarget) -> Value {
    let mut reference = json!({"group": target.group, "kind": target.kind, "name": target.name});
    if let Some(section) = &target.section_name {
        reference["sectionName"] = json!(section);
    }
    reference
}
