//! Conversion both ways between the wire and the routing model.
//!
//! Model to wire never fails. Wire to model checks everything: a peer of another version may send what this one cannot obey, and then the
//! resource is rejected by name (NACK) and its last good form stays.

mod backend;
mod filter;
mod frontend;
mod rule;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use routing::model::{BackendId, FrontendId, ServiceKind, ServicePort, ServiceRef, Vip};

use crate::resources as wire;

/// Why a resource does not convert.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct ConvertError {
    /// Path of the field inside the resource, for example `routes[0].rules[1].matches[0].path`.
    pub field: String,
    /// What is wrong with it; names the value.
    pub message: String,
}

impl ConvertError {
    fn new(field: &str, message: impl Into<String>) -> Self {
        Self { field: field.to_owned(), message: message.into() }
    }

    /// The same error seen from the message that holds the field.
    fn within(mut self, parent: &str) -> Self {
        self.field = if self.field.is_empty() { parent.to_owned() } else { format!("{parent}.{}", self.field) };
        self
    }
}

type Converted<T> = Result<T, ConvertError>;

/// A message field that must be there.
fn required<T>(value: Option<T>, field: &str) -> Converted<T> {
    value.ok_or_else(|| ConvertError::new(field, "is missing"))
}

/// Converts each item of a list; an error names the item's position.
fn list<W, M>(items: Vec<W>, field: &str, convert: impl Fn(W) -> Converted<M>) -> Converted<Vec<M>> {
    items.into_iter().enumerate().map(|(index, item)| convert(item).map_err(|error| error.within(&format!("{field}[{index}]")))).collect()
}

fn duration_ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Durations of the API are far below the limit of the type.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A port number, 1 to 65535.
fn port(value: u32, field: &str) -> Converted<NonZeroU16> {
    u16::try_from(value).ok().and_then(NonZeroU16::new).ok_or_else(|| ConvertError::new(field, format!("{value} is no port number")))
}

/// An address of 4 or 16 bytes.
fn ip(bytes: &[u8], field: &str) -> Converted<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(v4));
    }
    let v6 = <[u8; 16]>::try_from(bytes).map_err(|_| ConvertError::new(field, format!("{} bytes are no IP address", bytes.len())))?;
    Ok(IpAddr::from(v6))
}

fn ip_bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn socket_address(address: wire::SocketAddress) -> Converted<SocketAddr> {
    Ok(SocketAddr::new(ip(&address.ip, "ip")?, port(address.port, "port")?.get()))
}

fn socket_address_to_wire(address: SocketAddr) -> wire::SocketAddress {
    wire::SocketAddress { ip: ip_bytes(address.ip()), port: address.port().into() }
}

fn service_port(value: Option<wire::ServicePort>, field: &str) -> Converted<ServicePort> {
    let value = required(value, field)?;
    let kind = match wire::ServiceKind::try_from(value.kind) {
        Ok(wire::ServiceKind::Service) => ServiceKind::Service,
        Ok(wire::ServiceKind::ServiceImport) => ServiceKind::ServiceImport,
        Ok(wire::ServiceKind::Unspecified) | Err(_) => {
            return Err(ConvertError::new("kind", format!("{} is no kind of service", value.kind)).within(field));
        }
    };
    for (part, text) in [("namespace", &value.namespace), ("name", &value.name)] {
        if text.is_empty() || text.contains('/') {
            return Err(ConvertError::new(part, format!("{text:?} is no Kubernetes name")).within(field));
        }
    }
    let port = port(value.port, "port").map_err(|error| error.within(field))?;
    Ok(ServicePort { service: ServiceRef { kind, namespace: value.namespace, name: value.name }, port })
}

fn service_port_to_wire(port: &ServicePort) -> wire::ServicePort {
    let kind = match port.service.kind {
        ServiceKind::Service => wire::ServiceKind::Service,
        ServiceKind::ServiceImport => wire::ServiceKind::ServiceImport,
    };
    wire::ServicePort {
        kind: kind.into(),
        namespace: port.service.namespace.clone(),
        name: port.service.name.clone(),
        port: port.port.get().into(),
    }
}

fn frontend_id(value: Option<wire::ServicePort>, field: &str) -> Converted<FrontendId> {
    service_port(value, field).map(FrontendId)
}

fn backend_id(value: Option<wire::ServicePort>, field: &str) -> Converted<BackendId> {
    service_port(value, field).map(BackendId)
}

impl TryFrom<wire::Vip> for Vip {
    type Error = ConvertError;

    fn try_from(vip: wire::Vip) -> Converted<Self> {
        Ok(Self { ip: ip(&vip.ip, "ip")?, frontend: frontend_id(vip.frontend, "frontend")? })
    }
}

impl From<&Vip> for wire::Vip {
    fn from(vip: &Vip) -> Self {
        Self { ip: ip_bytes(vip.ip), frontend: Some(service_port_to_wire(&vip.frontend.0)) }
    }
}
