//! Which ports of which parent a parentRef means (GEP-1294; digest M-1 to M-14, D-6, D-10, D-11).

use std::num::NonZeroU16;

use crate::api::{GATEWAY_GROUP, MCS_GROUP, ParentReference};
use crate::model::{ServiceKind, ServiceRef};
use crate::service::{Form, ServiceObject};

/// The Service or ServiceImport that a parentRef names; none: another kind, which is not ours to judge.
pub(crate) fn parent(reference: &ParentReference, route_namespace: &str) -> Option<ServiceRef> {
    let group = reference.group.as_deref().unwrap_or(GATEWAY_GROUP);
    let kind = match (group, reference.kind.as_deref().unwrap_or("Gateway")) {
        ("" | "core", "Service") => ServiceKind::Service,
        (MCS_GROUP, "ServiceImport") => ServiceKind::ServiceImport,
        _ => return None,
    };
    let namespace = reference.namespace.as_deref().unwrap_or(route_namespace);
    Some(ServiceRef { kind, namespace: namespace.to_owned(), name: reference.name.clone() })
}

/// The ports of the parent that the reference means, at least one.
///
/// # Errors
/// One sentence that says why the route cannot be attached (NoMatchingParent).
pub(crate) fn ports(reference: &ParentReference, id: &ServiceRef, service: Option<&ServiceObject>) -> Result<Vec<NonZeroU16>, String> {
    let service = service.ok_or_else(|| format!("{id} does not exist"))?;
    match service.form {
        Form::VirtualIp if service.ips.is_empty() => Err(match id.kind {
            ServiceKind::Service => format!("{id} has no ClusterIP yet"),
            ServiceKind::ServiceImport => format!("{id} has no ClusterSetIP yet"),
        }),
        Form::VirtualIp => Ok(()),
        Form::Headless => Err(format!("{id} is headless; only a virtual IP can be a parent")),
        Form::ExternalName => Err(format!("{id} is of type ExternalName; only a virtual IP can be a parent")),
    }?;
    let wanted = |number: NonZeroU16| reference.port.is_none_or(|port| port == i64::from(number.get()));
    let named = |name: &str| reference.section_name.as_deref().is_none_or(|section| section == name);
    let ports: Vec<NonZeroU16> =
        service.ports.iter().filter(|port| wanted(port.number) && named(&port.name)).map(|port| port.number).collect();
    if ports.is_empty() { Err(format!("{id} has no TCP port{}", selection(reference))) } else { Ok(ports) }
}

fn selection(reference: &ParentReference) -> String {
    let number = reference.port.map(|port| format!(" {port}")).unwrap_or_default();
    let name = reference.section_name.as_ref().map(|name| format!(" named {name:?}")).unwrap_or_default();
    format!("{number}{name}")
}
