//! Where a backendRef leads, or why nowhere (digest H-23, M-18, D-4, D-7, D-19).

use std::num::NonZeroU16;

use crate::api::{GATEWAY_GROUP, MCS_GROUP, ReferenceGrant, ReferenceGrantFrom, ReferenceGrantTo};
use crate::model::{BackendFault, BackendFaultReason, BackendId, BackendTarget, ServiceKind, ServicePort, ServiceRef};
use crate::parse::ParsedBackend;
use crate::service::{Form, PortProtocol, ServiceObject};

/// Where a route stands while its backends are resolved.
pub(crate) struct Place<'a> {
    pub(crate) route_namespace: &'a str,
    pub(crate) parent_namespace: &'a str,
    /// The frontend's port, from which a port-less reference takes its own (D-7).
    pub(crate) dialled: Option<NonZeroU16>,
}

/// The Service or ServiceImport that a backendRef names; none: another kind.
pub(crate) fn service(backend: &ParsedBackend, route_namespace: &str) -> Option<ServiceRef> {
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
    backend: &ParsedBackend,
    place: &Place<'_>,
    permitted: impl Fn(&ServiceRef) -> bool,
    find: impl Fn(&ServiceRef) -> Option<&'s ServiceObject>,
) -> BackendTarget {
    match resolve(backend, place, permitted, find) {
        Ok(port) => BackendTarget::Backend(BackendId(port)),
        Err((reason, message)) => BackendTarget::Invalid(BackendFault { reason, message }),
    }
}

fn resolve<'s>(
    backend: &ParsedBackend,
    place: &Place<'_>,
    permitted: impl Fn(&ServiceRef) -> bool,
    find: impl Fn(&ServiceRef) -> Option<&'s ServiceObject>,
) -> Result<ServicePort, (BackendFaultReason, String)> {
    let id = service(backend, place.route_namespace).ok_or_else(|| {
        let group = if backend.group.is_empty() { "core" } else { &backend.group };
        (BackendFaultReason::InvalidKind, format!("{group}/{} is no kind of backend", backend.kind))
    })?;
    let home = id.namespace == place.route_namespace || id.namespace == place.parent_namespace;
    if !home && !permitted(&id) {
        let message = format!("{id} needs a ReferenceGrant in namespace {} for HTTPRoutes of {}", id.namespace, place.route_namespace);
        return Err((BackendFaultReason::RefNotPermitted, message));
    }
    let object = find(&id).ok_or_else(|| (BackendFaultReason::BackendNotFound, format!("{id} does not exist")))?;
    if object.form == Form::ExternalName {
        return Err((BackendFaultReason::InvalidKind, format!("{id} is of type ExternalName, which has no endpoints")));
    }
    let port = port(backend, object, place.dialled).map_err(|message| (BackendFaultReason::BackendNotFound, message))?;
    if let Some(PortProtocol::Unspeakable(protocol)) = object.port(port).map(|port| &port.protocol) {
        let message = format!("{id} port {port} has appProtocol {protocol}, which needs a BackendTLSPolicy");
        return Err((BackendFaultReason::UnsupportedProtocol, message));
    }
    Ok(ServicePort { service: id, port })
}

/// D-7: the port written; else, for a ServiceImport, the dialled one, else its only one.
fn port(backend: &ParsedBackend, object: &ServiceObject, dialled: Option<NonZeroU16>) -> Result<NonZeroU16, String> {
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

/// Whether a grant in the target's namespace lets HTTPRoutes of `route_namespace` refer to it.
pub(crate) fn grants(grant: &ReferenceGrant, route_namespace: &str, target: &ServiceRef) -> bool {
    let group = match target.kind {
        ServiceKind::Service => "",
        ServiceKind::ServiceImport => MCS_GROUP,
    };
    let from = |from: &ReferenceGrantFrom| from.group == GATEWAY_GROUP && from.kind == "HTTPRoute" && from.namespace == route_namespace;
    let to = |to: &ReferenceGrantTo| {
        to.group == group && to.kind == target.kind.as_str() && to.name.as_ref().is_none_or(|name| name.is_empty() || *name == target.name)
    };
    grant.metadata.namespace == target.namespace && grant.spec.from.iter().any(from) && grant.spec.to.iter().any(to)
}
