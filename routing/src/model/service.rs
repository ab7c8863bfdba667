//! Services and ServiceImports by name: what is dialled, and what is chosen.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

/// The two kinds that can be dialled and can be backends (GEP-1294 "Allowed service types", GEP-1748).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ServiceKind {
    /// A core Kubernetes `Service`: its endpoints are those of the local cluster.
    Service,
    /// A `multicluster.x-k8s.io` `ServiceImport`: its endpoints are those of the whole ClusterSet.
    ServiceImport,
}

impl ServiceKind {
    /// The Kubernetes kind, as written in manifests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::ServiceImport => "ServiceImport",
        }
    }
}

/// A Service or ServiceImport by name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServiceRef {
    /// Service or ServiceImport.
    pub kind: ServiceKind,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes name.
    pub name: String,
}

impl fmt::Display for ServiceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}

/// One port of a Service or ServiceImport; `Display` gives `KIND/NAMESPACE/NAME/PORT`, which is also its name on the wire.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServicePort {
    /// The Service or ServiceImport.
    pub service: ServiceRef,
    /// `spec.ports[].port`, never a target port.
    pub port: NonZeroU16,
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.port)
    }
}

/// A text that is not `KIND/NAMESPACE/NAME/PORT`.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is not KIND/NAMESPACE/NAME/PORT")]
pub struct InvalidServicePort(pub String);

impl FromStr for ServicePort {
    type Err = InvalidServicePort;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidServicePort(text.to_owned());
        let mut parts = text.split('/');
        let (Some(kind), Some(namespace), Some(name), Some(port), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(invalid());
        };
        let kind = match kind {
            "Service" => ServiceKind::Service,
            "ServiceImport" => ServiceKind::ServiceImport,
            _ => return Err(invalid()),
        };
        if namespace.is_empty() || name.is_empty() {
            return Err(invalid());
        }
        let port = port.parse().map_err(|_| invalid())?;
        Ok(Self { service: ServiceRef { kind, namespace: namespace.to_owned(), name: name.to_owned() }, port })
    }
}

/// What a client dialled: a Service or ServiceImport and one of its ports.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FrontendId(pub ServicePort);

impl fmt::Display for FrontendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a rule chose: a Service or ServiceImport and one of its ports; it means endpoints, never a frontend (GEP-1294: routes never chain).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BackendId(pub ServicePort);

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
