//! Filters of routes.

use serde::Deserialize;

use super::{BackendObjectReference, or_default};

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
    /// Sends a copy elsewhere.
    pub request_mirror: Option<RequestMirror>,
    /// For other origins.
    pub cors: Option<Cors>,
    /// Asks an authorization service.
    pub external_auth: Option<ExternalAuth>,
}

/// HTTPRequestMirrorFilter.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RequestMirror {
    /// Where the copy goes.
    pub backend_ref: BackendObjectReference,
    /// Of so many of a hundred requests.
    pub percent: Option<i64>,
    /// Of this share of requests.
    pub fraction: Option<Fraction>,
}

/// Fraction.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Fraction {
    /// At most the denominator.
    pub numerator: i64,
    /// 100 if absent.
    pub denominator: Option<i64>,
}

/// HTTPCORSFilter.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Cors {
    /// `SCHEME://HOST[:PORT]`, or `*`.
    #[serde(default, deserialize_with = "or_default")]
    pub allow_origins: Vec<String>,
    /// Methods, or `*`.
    #[serde(default, deserialize_with = "or_default")]
    pub allow_methods: Vec<String>,
    /// Header names, or `*`.
    #[serde(default, deserialize_with = "or_default")]
    pub allow_headers: Vec<String>,
    /// Header names, or `*`.
    #[serde(default, deserialize_with = "or_default")]
    pub expose_headers: Vec<String>,
    /// Five seconds if absent.
    pub max_age: Option<i64>,
    /// False if absent.
    pub allow_credentials: Option<bool>,
}

/// HTTPExternalAuthFilter.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ExternalAuth {
    /// `HTTP` or `GRPC`.
    pub protocol: String,
    /// Who is asked.
    pub backend_ref: BackendObjectReference,
    /// For `HTTP`.
    pub http: Option<HttpAuth>,
    /// For `GRPC`.
    pub grpc: Option<GrpcAuth>,
    /// Whether the body is sent along.
    pub forward_body: Option<ForwardBody>,
}

/// HTTPAuthConfig.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HttpAuth {
    /// Before the client's path.
    pub path: Option<String>,
    /// Further request headers.
    #[serde(default, deserialize_with = "or_default")]
    pub allowed_headers: Vec<String>,
    /// Headers copied from the answer.
    #[serde(default, deserialize_with = "or_default")]
    pub allowed_response_headers: Vec<String>,
}

/// GRPCAuthConfig.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GrpcAuth {
    /// Request headers that are sent.
    #[serde(default, deserialize_with = "or_default")]
    pub allowed_headers: Vec<String>,
}

/// ForwardBodyConfig.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ForwardBody {
    /// Bytes.
    pub max_size: Option<i64>,
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
