//! HTTPRoute and ReferenceGrant.

use serde::Deserialize;
use serde_json::Value;

use super::{DecodeError, Metadata, decode_at, or_default};

/// An HTTPRoute; its rules stay as written until each is parsed on its own.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRoute {
    /// `metadata`.
    pub metadata: Metadata,
    /// `spec.parentRefs`.
    pub parents: Vec<ParentRef>,
    /// `spec.rules`; none written means one rule that matches everything.
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
    rules: Vec<Value>,
}

impl HttpRoute {
    pub(super) fn decode(value: &Value) -> Result<Self, DecodeError> {
        let Envelope { metadata, spec } = decode_at(value, "")?;
        let parents = spec.parent_refs.into_iter().enumerate().map(|(index, written)| {
            let reference = decode_at(&written, &format!("spec.parentRefs[{index}]"))?;
            Ok(ParentRef { written, reference })
        });
        let parents = parents.collect::<Result<_, DecodeError>>()?;
        let rules = if spec.rules.is_empty() { vec![Value::Object(serde_json::Map::new())] } else { spec.rules };
        Ok(Self { metadata, parents, rules })
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

/// HTTPRouteFilter.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteFilter {
    /// Which of the following is meant.
    #[serde(rename = "type")]
    pub kind: String,
    /// Edits the request.
    pub request_header_modifier: Option<HeaderModifier>,
    /// Edits the response.
    pub response_header_modifier: Option<HeaderModifier>,
    /// Answers with a redirect.
    pub request_redirect: Option<RequestRedirect>,
    /// Rewrites host and path.
    pub url_rewrite: Option<UrlRewrite>,
}

/// HTTPHeaderFilter.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct HeaderModifier {
    /// Replaces.
    #[serde(default, deserialize_with = "or_default")]
    pub set: Vec<NamedValue>,
    /// Appends.
    #[serde(default, deserialize_with = "or_default")]
    pub add: Vec<NamedValue>,
    /// Removes.
    #[serde(default, deserialize_with = "or_default")]
    pub remove: Vec<String>,
}

/// HTTPHeader.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct NamedValue {
    /// Name of the header.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// HTTPRequestRedirectFilter.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RequestRedirect {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// New host.
    pub hostname: Option<String>,
    /// New path.
    pub path: Option<PathModifier>,
    /// New port.
    pub port: Option<i64>,
    /// 302 if absent.
    pub status_code: Option<i64>,
}

/// HTTPURLRewriteFilter.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct UrlRewrite {
    /// New host.
    pub hostname: Option<String>,
    /// New path.
    pub path: Option<PathModifier>,
}

/// HTTPPathModifier.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PathModifier {
    /// `ReplaceFullPath` or `ReplacePrefixMatch`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Instead of the whole path.
    pub replace_full_path: Option<String>,
    /// Instead of the matched prefix.
    pub replace_prefix_match: Option<String>,
}

/// HTTPBackendRef.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct BackendRef {
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
