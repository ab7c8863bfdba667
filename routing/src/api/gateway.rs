//! Routes and ReferenceGrants.

use serde::Deserialize;
use serde_json::Value;

use super::{DecodeError, HttpRouteFilter, Metadata, decode_at, or_default};
use crate::model::RouteKind;

/// A route of any kind; its rules stay as written until each is parsed on its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Which kind.
    pub kind: RouteKind,
    /// `metadata`.
    pub metadata: Metadata,
    /// `spec.parentRefs`.
    pub parents: Vec<ParentRef>,
    /// `spec.hostnames`; only those of a TLSRoute mean anything (digest M-22).
    pub hostnames: Vec<String>,
    /// `spec.rules`; none written in an HTTPRoute means one rule that matches everything.
    pub rules: Vec<Value>,
}

/// A parentRef and how it was written: status repeats it verbatim (digest S-2).
#[derive(Clone, Debug, PartialEq)]
pub struct ParentRef {
    /// As written.
    pub written: Value,
    /// As read.
    pub reference: ParentReference,
}

/// ParentReference.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ParentReference {
    /// The Gateway API's own group if absent.
    pub group: Option<String>,
    /// `Gateway` if absent.
    pub kind: Option<String>,
    /// The route's if absent.
    pub namespace: Option<String>,
    /// Name of the parent.
    pub name: String,
    /// Name of a port of the parent.
    pub section_name: Option<String>,
    /// Number of a port of the parent.
    pub port: Option<i64>,
}

#[derive(Deserialize)]
struct Envelope {
    metadata: Metadata,
    #[serde(default, deserialize_with = "or_default")]
    spec: RouteSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RouteSpec {
    #[serde(default, deserialize_with = "or_default")]
    parent_refs: Vec<Value>,
    #[serde(default, deserialize_with = "or_default")]
    hostnames: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    rules: Vec<Value>,
}

impl Route {
    pub(super) fn decode(kind: RouteKind, value: &Value) -> Result<Self, DecodeError> {
        let Envelope { metadata, spec } = decode_at(value, "")?;
        let parents = spec.parent_refs.into_iter().enumerate().map(|(index, written)| {
            let reference = decode_at(&written, &format!("spec.parentRefs[{index}]"))?;
            Ok(ParentRef { written, reference })
        });
        let parents = parents.collect::<Result<_, DecodeError>>()?;
        let is_everything = kind == RouteKind::Http && spec.rules.is_empty();
        let rules = if is_everything { vec![Value::Object(serde_json::Map::new())] } else { spec.rules };
        Ok(Self { kind, metadata, parents, hostnames: spec.hostnames, rules })
    }
}

/// HTTPRouteRule.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteRule {
    /// Name of the rule.
    pub name: Option<String>,
    /// None: everything.
    #[serde(default, deserialize_with = "or_default")]
    pub matches: Vec<HttpRouteMatch>,
    /// In the order in which they apply.
    #[serde(default, deserialize_with = "or_default")]
    pub filters: Vec<HttpRouteFilter>,
    /// Weighted.
    #[serde(default, deserialize_with = "or_default")]
    pub backend_refs: Vec<BackendRef>,
    /// How long things may take.
    pub timeouts: Option<HttpRouteTimeouts>,
    /// When a request is sent again.
    pub retry: Option<HttpRouteRetry>,
    /// Which endpoint a session keeps.
    pub session_persistence: Option<SessionPersistence>,
}

/// GRPCRouteRule.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRouteRule {
    /// Name of the rule.
    pub name: Option<String>,
    /// None: every call.
    #[serde(default, deserialize_with = "or_default")]
    pub matches: Vec<GrpcRouteMatch>,
    /// In the order in which they apply.
    #[serde(default, deserialize_with = "or_default")]
    pub filters: Vec<HttpRouteFilter>,
    /// Weighted.
    #[serde(default, deserialize_with = "or_default")]
    pub backend_refs: Vec<BackendRef>,
    /// Which endpoint a session keeps.
    pub session_persistence: Option<SessionPersistence>,
}

/// GRPCRouteMatch.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct GrpcRouteMatch {
    /// Every method if absent.
    pub method: Option<GrpcMethodMatch>,
    /// All must hold.
    #[serde(default, deserialize_with = "or_default")]
    pub headers: Vec<NamedMatch>,
}

/// GRPCMethodMatch.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct GrpcMethodMatch {
    /// `Exact` if absent.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Full name of the service.
    pub service: Option<String>,
    /// Name of the method.
    pub method: Option<String>,
}

/// TLSRouteRule and TCPRouteRule.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StreamRouteRule {
    /// Name of the rule.
    pub name: Option<String>,
    /// Weighted.
    #[serde(default, deserialize_with = "or_default")]
    pub backend_refs: Vec<BackendRef>,
}

/// HTTPRouteTimeouts; GEP-2257 durations.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteTimeouts {
    /// The whole.
    pub request: Option<String>,
    /// One attempt.
    pub backend_request: Option<String>,
}

/// HTTPRouteRetry.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct HttpRouteRetry {
    /// Statuses, 400 to 599.
    #[serde(default, deserialize_with = "or_default")]
    pub codes: Vec<i64>,
    /// Times it is sent again.
    pub attempts: Option<i64>,
    /// The least wait, a GEP-2257 duration.
    pub backoff: Option<String>,
}

/// SessionPersistence.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SessionPersistence {
    /// Name of the cookie or header.
    pub session_name: Option<String>,
    /// `Cookie` if absent.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// A GEP-2257 duration.
    pub absolute_timeout: Option<String>,
    /// Only for a cookie.
    pub cookie_config: Option<CookieConfig>,
}

/// CookieConfig.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CookieConfig {
    /// `Session` if absent, or `Permanent`.
    pub lifetime_type: Option<String>,
}

/// HTTPRouteMatch.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteMatch {
    /// Prefix `/` if absent.
    pub path: Option<PathValue>,
    /// Every method if absent.
    pub method: Option<String>,
    /// All must hold.
    #[serde(default, deserialize_with = "or_default")]
    pub headers: Vec<NamedMatch>,
    /// All must hold.
    #[serde(default, deserialize_with = "or_default")]
    pub query_params: Vec<NamedMatch>,
}

/// HTTPPathMatch.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct PathValue {
    /// `PathPrefix` if absent.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// `/` if absent.
    pub value: Option<String>,
}

/// HTTPHeaderMatch and HTTPQueryParamMatch.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct NamedMatch {
    /// `Exact` if absent.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Name of the header or parameter.
    pub name: String,
    /// What its value must be.
    pub value: String,
}

/// BackendObjectReference.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct BackendObjectReference {
    /// The core group if absent.
    pub group: Option<String>,
    /// `Service` if absent.
    pub kind: Option<String>,
    /// The route's if absent.
    pub namespace: Option<String>,
    /// Name of the backend.
    pub name: String,
    /// A port of the Service or ServiceImport, never of the pods.
    pub port: Option<i64>,
}

/// HTTPBackendRef.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct BackendRef {
    /// What is referred to.
    #[serde(flatten)]
    pub object: BackendObjectReference,
    /// 1 if absent.
    pub weight: Option<i64>,
    /// Applied when this backend is chosen.
    #[serde(default, deserialize_with = "or_default")]
    pub filters: Vec<HttpRouteFilter>,
}

/// A ReferenceGrant.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct ReferenceGrant {
    /// `metadata`; grants speak for their namespace.
    pub metadata: Metadata,
    /// `spec`.
    pub spec: ReferenceGrantSpec,
}

/// `spec` of a ReferenceGrant.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct ReferenceGrantSpec {
    /// Who may refer.
    pub from: Vec<ReferenceGrantFrom>,
    /// To what.
    pub to: Vec<ReferenceGrantTo>,
}

/// ReferenceGrantFrom.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct ReferenceGrantFrom {
    /// Group of the kind that refers.
    pub group: String,
    /// Kind that refers.
    pub kind: String,
    /// Namespace it stands in.
    pub namespace: String,
}

/// ReferenceGrantTo.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct ReferenceGrantTo {
    /// Group of the kind referred to; empty for core.
    pub group: String,
    /// Kind referred to.
    pub kind: String,
    /// Every object of the kind if absent.
    pub name: Option<String>,
}
