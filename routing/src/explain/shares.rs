//! Backends of a rule: their share, and where their requests go.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;

use super::{Applied, Asked, Outcome, OutcomeKind};
use crate::locality::usable;
use crate::model::{Addresses, Backend, BackendId, BackendTarget, BackendTls, Filter, RouteKind, Rule, WeightedBackend};
use crate::reason::Reason;
use crate::world::World;

/// A backend of a rule.
#[derive(Clone, Debug, Serialize)]
pub struct Share {
    /// Which, `KIND/NAMESPACE/NAME/PORT`; or what is wrong with it.
    pub backend: String,
    /// Its weight.
    pub weight: u32,
    /// Of all requests of the rule, in percent.
    pub percent: f64,
    /// Its own filters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Applied>,
    /// Where its requests go.
    pub destination: Destination,
    /// What the client gets instead of its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead: Option<Outcome>,
}

/// Where a backend's requests go.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    /// To one of these, by source cluster.
    Endpoints(BTreeMap<String, Vec<SocketAddr>>),
    /// To the platform's own virtual IPs.
    Vips(Vec<SocketAddr>),
    /// Nowhere.
    Nowhere,
}

/// All of a rule's. `apply` lets the request pass a backend's filters.
pub(super) fn all(
    world: &World,
    asked: &Asked,
    (kind, rule): (RouteKind, &Rule),
    apply: impl Fn(&[Filter]) -> (Vec<Applied>, Option<Outcome>),
) -> Vec<Share> {
    let total: u64 = rule.backends.iter().map(|backend| u64::from(backend.weight)).sum();
    rule.backends.iter().map(|weighted| share(world, asked, (kind, weighted), total, &apply)).collect()
}

fn share(
    world: &World,
    asked: &Asked,
    (kind, weighted): (RouteKind, &WeightedBackend),
    total: u64,
    apply: &impl Fn(&[Filter]) -> (Vec<Applied>, Option<Outcome>),
) -> Share {
    let weight = weighted.weight;
    #[expect(clippy::cast_precision_loss, reason = "weights have at most 24 bits")]
    let percent = if total == 0 { 0.0 } else { f64::from(weight) * 100.0 / total as f64 };
    let nowhere = |backend: String, instead| Share {
        backend,
        weight,
        percent,
        filters: Vec::new(),
        destination: Destination::Nowhere,
        instead: Some(instead),
    };
    let id = match &weighted.target {
        BackendTarget::Backend(id) => id,
        BackendTarget::Invalid(fault) => {
            let why = format!("{}: {}", fault.reason.as_str(), fault.message);
            return nowhere(why.clone(), Outcome::of(OutcomeKind::Refused, Reason::InvalidBackend, why));
        }
    };
    let Some(backend) = world.backend(id) else { return nowhere(id.to_string(), Outcome::refused(Reason::NoEndpoint)) };
    let (filters, answered) = apply(&weighted.filters);
    let destination = destination(&backend, asked);
    let instead = answered.or_else(|| unreachable(&backend, kind, &destination));
    Share { backend: id.to_string(), weight, percent, filters, destination, instead }
}

fn destination(backend: &Backend, asked: &Asked) -> Destination {
    match &backend.addresses {
        Addresses::Vips(vips) => Destination::Vips(vips.clone()),
        Addresses::Endpoints(endpoints) => {
            let mut clusters: BTreeMap<String, Vec<SocketAddr>> = BTreeMap::new();
            for endpoint in usable(backend, endpoints.clone(), &asked.location) {
                clusters.entry(endpoint.cluster).or_default().push(endpoint.address);
            }
            Destination::Endpoints(clusters)
        }
    }
}

/// Why nobody of a backend can be asked.
fn unreachable(backend: &Backend, kind: RouteKind, destination: &Destination) -> Option<Outcome> {
    match &backend.tls {
        // The client's own TLS passes through as it is.
        Some(BackendTls::Broken(why)) if kind != RouteKind::Tls => {
            return Some(Outcome::of(OutcomeKind::Refused, Reason::TlsUnusable, format!("{}: {why}", Reason::TlsUnusable.sentence())));
        }
        Some(BackendTls::Broken(_) | BackendTls::Verified { .. }) | None => {}
    }
    let is_empty = matches!(destination, Destination::Endpoints(clusters) if clusters.is_empty());
    is_empty.then(|| Outcome::refused(Reason::NoEndpoint))
}

/// What a request gets that has to ask a service first, if nobody of that can be asked.
pub(super) fn cannot_ask(world: &World, asked: &Asked, service: &BackendId) -> Option<Outcome> {
    let why = match world.backend(service) {
        Some(backend) => unreachable(&backend, RouteKind::Http, &destination(&backend, asked))?,
        None => Outcome::refused(Reason::NoEndpoint),
    };
    Some(Outcome::of(OutcomeKind::Refused, Reason::AuthUnavailable, format!("the authorization service {service}: {}", why.message)))
}

/// What a client gets of these.
pub(super) fn outcome(shares: &[Share]) -> Outcome {
    let chosen: Vec<&Share> = shares.iter().filter(|share| share.weight > 0).collect();
    let failing: Vec<&&Share> = chosen.iter().filter(|share| share.instead.is_some()).collect();
    match (chosen.as_slice(), failing.as_slice()) {
        ([], _) => Outcome::refused(Reason::NoBackend),
        ([only], []) => Outcome::new(OutcomeKind::Forwarded, format!("{} answers", only.backend)),
        (all, []) => Outcome::new(OutcomeKind::Forwarded, format!("one of {} backends answers, by weight", all.len())),
        (all, [first, ..]) if all.len() == failing.len() => first.instead.clone().unwrap_or_else(|| Outcome::refused(Reason::NoBackend)),
        (_, failing) => {
            let percent: f64 = failing.iter().map(|share| share.percent).sum();
            let errors: Vec<String> = failing.iter().filter_map(|share| share.instead.as_ref()).map(|own| own.message.clone()).collect();
            Outcome::new(
                OutcomeKind::PartlyForwarded,
                format!("{percent:.1} % of such requests get no backend's answer: {}", errors.join("; ")),
            )
        }
    }
}
