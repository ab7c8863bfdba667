//! Kubernetes objects as they are written: our own lenient types, enums as strings, unknown fields left out, so that one value of a later
//! version never hides a whole object.

mod core;
mod filter;
mod gateway;
mod policy;

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::model::{RouteKind, ServiceKind};

pub use self::core::{
    ConfigMap, Endpoint, EndpointConditions, EndpointSlice, Namespace, Port, Service, ServiceImport, SessionAffinityConfig, SlicePort,
};
pub use filter::{
    Cors, ExternalAuth, ForwardBody, Fraction, GrpcAuth, HeaderModifier, HttpAuth, HttpRouteFilter, NamedValue, PathModifier,
    RequestMirror, RequestRedirect, UrlRewrite,
};
pub use gateway::{
    BackendObjectReference, BackendRef, CookieConfig, GrpcMethodMatch, GrpcRouteMatch, GrpcRouteRule, HttpRouteMatch, HttpRouteRetry,
    HttpRouteRule, HttpRouteTimeouts, NamedMatch, ParentRef, ParentReference, PathValue, ReferenceGrant, ReferenceGrantFrom,
    ReferenceGrantTo, Route, SessionPersistence, StreamRouteRule,
};
pub use policy::{
    BackendTlsPolicyRest, BackendTlsValidation, BackendTrafficPolicyRest, BudgetDetails, LocalObjectReference, Policy, PolicySpec,
    PolicyTarget, RequestRate, RetryConstraint, SubjectAltName,
};

/// The API group of Gateway API kinds.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
/// The API group of its experimental kinds.
pub const GATEWAY_GROUP_EXPERIMENTAL: &str = "gateway.networking.x-k8s.io";
/// The API group of Multi-Cluster Services kinds.
pub const MCS_GROUP: &str = "multicluster.x-k8s.io";

/// `metadata`, as far as it is read.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The object's name.
    pub name: String,
    /// `default` where none is written, as a Kubernetes client would have it.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Labels.
    #[serde(default, deserialize_with = "or_default")]
    pub labels: std::collections::BTreeMap<String, String>,
    /// What the object was derived from.
    #[serde(default, deserialize_with = "or_default")]
    pub owner_references: Vec<OwnerReference>,
    creation_timestamp: Option<jiff::Timestamp>,
    generation: Option<i64>,
}

/// An owner of an object, in the same namespace.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
}

fn default_namespace() -> String {
    "default".to_owned()
}

impl Metadata {
    /// Seconds since the epoch; the epoch where none is written.
    #[must_use]
    pub fn created_s(&self) -> i64 {
        self.creation_timestamp.map_or(0, jiff::Timestamp::as_second)
    }

    /// 1 where none is written.
    #[must_use]
    pub fn generation(&self) -> i64 {
        self.generation.unwrap_or(1)
    }

    /// `namespace/name`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// An object of a kind that is read.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// HTTPRoute, GRPCRoute, TLSRoute, TCPRoute.
    Route(Route),
    /// multicluster.x-k8s.io/v1beta1 or v1alpha1 ServiceImport.
    ServiceImport(ServiceImport),
    /// v1 Service.
    Service(Service),
    /// discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice(EndpointSlice),
    /// gateway.networking.k8s.io/v1 or v1beta1 ReferenceGrant.
    ReferenceGrant(ReferenceGrant),
    /// gateway.networking.k8s.io/v1 BackendTLSPolicy.
    BackendTlsPolicy(Policy),
    /// gateway.networking.x-k8s.io/v1alpha1 XBackendTrafficPolicy.
    BackendTrafficPolicy(Policy),
    /// v1 ConfigMap.
    ConfigMap(ConfigMap),
    /// v1 Namespace.
    Namespace(Namespace),
}

/// The kinds that are read.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ObjectKind {
    /// HTTPRoute, GRPCRoute, TLSRoute, TCPRoute.
    Route(RouteKind),
    /// ServiceImport.
    ServiceImport,
    /// Service.
    Service,
    /// EndpointSlice.
    EndpointSlice,
    /// ReferenceGrant.
    ReferenceGrant,
    /// BackendTLSPolicy.
    BackendTlsPolicy,
    /// XBackendTrafficPolicy.
    BackendTrafficPolicy,
    /// ConfigMap.
    ConfigMap,
    /// Namespace.
    Namespace,
}

impl ObjectKind {
    /// The Kubernetes kind, as written in manifests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Route(kind) => kind.as_str(),
            Self::ServiceImport => ServiceKind::ServiceImport.as_str(),
            Self::Service => ServiceKind::Service.as_str(),
            Self::EndpointSlice => "EndpointSlice",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::BackendTlsPolicy => "BackendTLSPolicy",
            Self::BackendTrafficPolicy => "XBackendTrafficPolicy",
            Self::ConfigMap => "ConfigMap",
            Self::Namespace => "Namespace",
        }
    }

    /// Whether objects of this kind have a status of ours.
    #[must_use]
    pub fn has_status(self) -> bool {
        match self {
            Self::Route(_) | Self::BackendTlsPolicy | Self::BackendTrafficPolicy => true,
            Self::ServiceImport | Self::Service | Self::EndpointSlice | Self::ReferenceGrant | Self::ConfigMap | Self::Namespace => false,
        }
    }

    /// The kind that an apiVersion and kind name, if it is read.
    #[must_use]
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Some(match (group, kind, version) {
            (GATEWAY_GROUP, "HTTPRoute", "v1") => Self::Route(RouteKind::Http),
            (GATEWAY_GROUP, "GRPCRoute", "v1") => Self::Route(RouteKind::Grpc),
            (GATEWAY_GROUP, "TLSRoute", "v1" | "v1alpha2" | "v1alpha3") => Self::Route(RouteKind::Tls),
            (GATEWAY_GROUP, "TCPRoute", "v1" | "v1alpha2") => Self::Route(RouteKind::Tcp),
            (GATEWAY_GROUP, "ReferenceGrant", "v1" | "v1beta1") => Self::ReferenceGrant,
            (GATEWAY_GROUP, "BackendTLSPolicy", "v1" | "v1alpha3") => Self::BackendTlsPolicy,
            (GATEWAY_GROUP_EXPERIMENTAL, "XBackendTrafficPolicy", "v1alpha1") => Self::BackendTrafficPolicy,
            (MCS_GROUP, "ServiceImport", "v1alpha1" | "v1beta1") => Self::ServiceImport,
            ("", "Service", "v1") => Self::Service,
            ("discovery.k8s.io", "EndpointSlice", "v1") => Self::EndpointSlice,
            ("", "ConfigMap", "v1") => Self::ConfigMap,
            ("", "Namespace", "v1") => Self::Namespace,
            _ => return None,
        })
    }
}

/// What an object is known by.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ObjectKey {
    /// Its kind; versions of a kind are one.
    pub kind: ObjectKind,
    /// Its namespace; of a Namespace: empty.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}

/// An object that cannot be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct DecodeError {
    /// For example `spec.parentRefs[0].name`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl Object {
    /// Reads an object; none if its kind is not one that is read.
    ///
    /// # Errors
    /// A field that the object cannot do without is missing or of another type. Bad values inside a route's rules are no error here: they
    /// concern their rule alone (digest S-6).
    pub fn decode(value: &Value) -> Result<Option<Self>, DecodeError> {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
        let Some(kind) = ObjectKind::of(text("apiVersion"), text("kind")) else { return Ok(None) };
        let object = match kind {
            ObjectKind::Route(kind) => Self::Route(Route::decode(kind, value)?),
            ObjectKind::ServiceImport => Self::ServiceImport(decode_at(value, "")?),
            ObjectKind::Service => Self::Service(decode_at(value, "")?),
            ObjectKind::EndpointSlice => Self::EndpointSlice(decode_at(value, "")?),
            ObjectKind::ReferenceGrant => Self::ReferenceGrant(decode_at(value, "")?),
            ObjectKind::BackendTlsPolicy => Self::BackendTlsPolicy(decode_at(value, "")?),
            ObjectKind::BackendTrafficPolicy => Self::BackendTrafficPolicy(decode_at(value, "")?),
            ObjectKind::ConfigMap => Self::ConfigMap(decode_at(value, "")?),
            ObjectKind::Namespace => Self::Namespace(decode_at(value, "")?),
        };
        let key = object.key();
        let namespace = (key.kind != ObjectKind::Namespace).then_some(("metadata.namespace", &key.namespace));
        for (field, name) in [("metadata.name", &key.name)].into_iter().chain(namespace) {
            // On the wire and in logs names are joined by slashes.
            if name.is_empty() || name.contains('/') {
                return Err(DecodeError { field: field.to_owned(), message: format!("{name:?} is no Kubernetes name") });
            }
        }
        Ok(Some(object))
    }

    /// What the object is known by.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        let (kind, metadata) = match self {
            Self::Route(object) => (ObjectKind::Route(object.kind), &object.metadata),
            Self::ServiceImport(object) => (ObjectKind::ServiceImport, &object.metadata),
            Self::Service(object) => (ObjectKind::Service, &object.metadata),
            Self::EndpointSlice(object) => (ObjectKind::EndpointSlice, &object.metadata),
            Self::ReferenceGrant(object) => (ObjectKind::ReferenceGrant, &object.metadata),
            Self::BackendTlsPolicy(object) => (ObjectKind::BackendTlsPolicy, &object.metadata),
            Self::BackendTrafficPolicy(object) => (ObjectKind::BackendTrafficPolicy, &object.metadata),
            Self::ConfigMap(object) => (ObjectKind::ConfigMap, &object.metadata),
            Self::Namespace(object) => {
                return ObjectKey { kind: ObjectKind::Namespace, namespace: String::new(), name: object.metadata.name.clone() };
            }
        };
        ObjectKey { kind, namespace: metadata.namespace.clone(), name: metadata.name.clone() }
    }
}

/// Reads a value that stands at `parent` in its object.
pub(crate) fn decode_at<T: DeserializeOwned>(value: &Value, parent: &str) -> Result<T, DecodeError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let field = match (parent, path.as_str()) {
            ("", path) => path.to_owned(),
            (parent, ".") => parent.to_owned(),
            (parent, path) if path.starts_with('[') => format!("{parent}{path}"),
            (parent, path) => format!("{parent}.{path}"),
        };
        DecodeError { field, message: error.inner().to_string() }
    })
}

/// For `deserialize_with`: `null` is the same as absent.
///
/// # Errors
/// The value is of another type.
pub fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_bad_field_is_named() {
        let import = json!({"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceImport", "metadata": {"name": "store"},
            "spec": {"type": "ClusterSetIP", "ports": [{"port": 80}, {"port": "eighty"}]}});
        let error = Object::decode(&import).expect_err("a port is a number");
        assert_eq!(error.field, "spec.ports[1].port");
        let route = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "r"},
            "spec": {"parentRefs": [{"name": "a"}, {"kind": "Service"}]}});
        let error = Object::decode(&route).expect_err("a parentRef has a name");
        assert_eq!((error.field.as_str(), error.message.as_str()), ("spec.parentRefs[1]", "missing field `name`"));
    }

    #[test]
    fn a_name_is_one_segment() {
        for (name, namespace, field) in [("a/b", "shop", "metadata.name"), ("", "shop", "metadata.name"), ("a", "/", "metadata.namespace")]
        {
            let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}});
            let error = Object::decode(&service).expect_err("no Kubernetes name");
            assert_eq!(error.field, field, "{name:?} {namespace:?}");
        }
    }

    #[test]
    fn other_kinds_and_versions_are_left_alone() {
        for (api_version, kind) in [("v1", "Pod"), ("gateway.networking.k8s.io/v1alpha2", "HTTPRoute"), ("", "")] {
            assert_eq!(Object::decode(&json!({"apiVersion": api_version, "kind": kind})), Ok(None));
        }
    }

    #[test]
    fn without_timestamp_and_generation_it_is_the_epoch_and_one() {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "creationTimestamp": null}});
        let Ok(Some(Object::Namespace(namespace))) = Object::decode(&namespace) else { panic!("a Namespace") };
        assert_eq!((namespace.metadata.created_s(), namespace.metadata.generation()), (0, 1));
    }

    #[test]
    fn a_timestamp_is_read_to_the_second() {
        let service =
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "creationTimestamp": "1970-01-02T00:00:01Z"}});
        let Ok(Some(Object::Service(service))) = Object::decode(&service) else { panic!("a Service") };
        assert_eq!(service.metadata.created_s(), 86_401);
    }
}
