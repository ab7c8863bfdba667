//! Where a backendRef leads, or why nowhere (digest H-23, M-18, D-4, D-7, D-19).

use std::num::NonZeroU16;

use crate::api::{GATEWAY_GROUP, MCS_GROUP, ReferenceGrant, ReferenceGrantFrom, ReferenceGrantTo};
use crate::model::{BackendFault, BackendFaultReason, BackendId, BackendTarget, RouteKind, ServiceKind, ServicePort, ServiceRef};
use crate::parse::Reference;
use crate::service::{Form, PortProtocol, ServiceObject, ServicePortObject};

/// Where a route stands while its backends are resolved.
pub(crate) struct Place<'a> {
    pub(crate) kind: RouteKind,
    pub(crate) route_namespace: &'a str,
    pub(crate) parent_namespace: &'a str,
    /// The frontend's port, from which a port-less reference takes its own (D-7).
    pub(crate) dialled: Option<NonZeroU16>,
}

/// The Service or ServiceImport that a backendRef names; none: another kind.
pub(crate) fn service(backend: &Reference, route_namespace: &str) -> Option<ServiceRef> {
    let kind = match (backend.group.as_str(), backend.kind.as_str()) {
        ("" | "core", "Service") => ServiceKind::Service,
        (MCS_GROUP, "ServiceImport") => ServiceKind::ServiceImport,
        _ => return None,
    };
    let namespace = backend.namespace.as_deref().unwrap_or(route_namespace);
    Some(ServiceRef { kind, namespace: namespace.to_owned(), name: backend.name.clone() })
}

/// Resolves one reference. The grant is judged before existence, so that a route learns nothing about namespaces it may not refer to.
pub(crate) fn target<'s>(
    backend: &Reference,
    place: &Place<'_>,
    permitted: impl Fn(&ServiceRef) -> bool,
    find: impl Fn(&ServiceRef) -> Option<&'s ServiceObject>,
    has_tls: impl Fn(&ServiceObject, &ServicePortObject) -> bool,
) -> BackendTarget {
    match resolve(backend, place, permitted, find, has_tls) {
        Ok(port) => BackendTarget::Backend(BackendId(port)),
        Err((reason, message)) => BackendTarget::Invalid(BackendFault { reason, message }),
    }
}

fn resolve<'s>(
    backend: &Reference,
    place: &Place<'_>,
    permitted: impl Fn(&ServiceRef) -> bool,
    find: impl Fn(&ServiceRef) -> Option<&'s ServiceObject>,
    has_tls: impl Fn(&ServiceObject, &ServicePortObject) -> bool,
) -> Result<ServicePort, (BackendFaultReason, String)> {
    let id = service(backend, place.route_namespace).ok_or_else(|| {
        let group = if backend.group.is_empty() { "core" } else { &backend.group };
        (BackendFaultReason::InvalidKind, format!("{group}/{} is no kind of backend", backend.kind))
    })?;
    let home = id.namespace == place.route_namespace || id.namespace == place.parent_namespace;
    if !home && !permitted(&id) {
        let message =
            format!("{id} needs a ReferenceGrant in namespace {} for {}s of {}", id.namespace, place.kind.as_str(), place.route_namespace);
        return Err((BackendFaultReason::RefNotPermitted, message));
    }
    let object = find(&id).ok_or_else(|| (BackendFaultReason::BackendNotFound, format!("{id} does not exist")))?;
    if object.form == Form::ExternalName {
        return Err((BackendFaultReason::InvalidKind, format!("{id} is of type ExternalName, which has no endpoints")));
    }
    let port = port(backend, object, place.dialled).map_err(|message| (BackendFaultReason::BackendNotFound, message))?;
    let complaint = object.port(port).and_then(|object_port| unspeakable(object, object_port, place.kind, has_tls));
    match complaint {
        Some(complaint) => Err((BackendFaultReason::UnsupportedProtocol, format!("{id} port {port} has appProtocol {complaint}"))),
        None => Ok(ServicePort { service: id, port }),
    }
}

/// Why a route of this kind cannot speak what the port speaks (GEP-1911; digest H-30).
fn unspeakable(
    object: &ServiceObject,
    port: &ServicePortObject,
    kind: RouteKind,
    has_tls: impl Fn(&ServiceObject, &ServicePortObject) -> bool,
) -> Option<String> {
    match (kind, &port.protocol) {
        (RouteKind::Tls | RouteKind::Tcp, _) => None,
        (RouteKind::Http, PortProtocol::Secure(protocol)) => {
            (!has_tls(object, port)).then(|| format!("{protocol}, which needs a BackendTLSPolicy"))
        }
        (RouteKind::Grpc, PortProtocol::Secure(protocol) | PortProtocol::WebSocket(protocol)) => {
            Some(format!("{protocol}, which is no gRPC"))
        }
        (RouteKind::Http | RouteKind::Grpc, PortProtocol::WebSocket(_) | PortProtocol::Spoken(_)) => None,
    }
}

/// D-7: the port written; else, for a ServiceImport, the dialled one, else its only one.
fn port(backend: &Reference, object: &ServiceObject, dialled: Option<NonZeroU16>) -> Result<NonZeroU16, String> {
    let id = &object.id;
    match (backend.port, id.kind) {
        (Some(port), _) if object.port(port).is_some() => Ok(port),
        (Some(port), _) => Err(format!("{id} has no TCP port {port}")),
        (None, ServiceKind::Service) => Err(format!("port required: a backendRef to {id} must name one")),
        (None, ServiceKind::ServiceImport) => match (dialled.filter(|port| object.port(*port).is_some()), object.ports.as_slice()) {
            (Some(port), _) => Ok(port),
            (None, [only]) => Ok(only.number),
            (None, ports) => Err(format!("port required: {id} has {} TCP ports and none is the dialled one", ports.len())),
        },
    }
}

/// Whether a grant in the target's namespace lets routes of this kind and namespace refer to it.
pub(crate) fn grants(grant: &ReferenceGrant, place: &Place<'_>, target: &ServiceRef) -> bool {
    let group = match target.kind {
        ServiceKind::Service => "",
        ServiceKind::ServiceImport => MCS_GROUP,
    };
    let from = |from: &ReferenceGrantFrom| {
        from.group == GATEWAY_GROUP && from.kind == place.kind.as_str() && from.namespace == place.route_namespace
    };
    let to = |to: &ReferenceGrantTo| {
        to.group == group && to.kind == target.kind.as_str() && to.name.as_ref().is_none_or(|name| name.is_empty() || *name == target.name)
    };
    grant.metadata.namespace == target.namespace && grant.spec.from.iter().any(from) && grant.spec.to.iter().any(to)
}
