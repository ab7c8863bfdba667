//! Policies that are attached to backends: BackendTLSPolicy and XBackendTrafficPolicy.

use serde::Deserialize;
use serde_json::Value;

use super::{Metadata, SessionPersistence, or_default};

/// A policy of either kind; everything but its targets stays as written until it is parsed, so that a bad value is said in its status.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Policy {
    /// `metadata`.
    pub metadata: Metadata,
    /// `spec`.
    pub spec: PolicySpec,
}

/// `spec` of a policy.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PolicySpec {
    /// What it is attached to, in its own namespace.
    #[serde(default, deserialize_with = "or_default")]
    pub target_refs: Vec<PolicyTarget>,
    /// The rest.
    #[serde(flatten)]
    pub rest: Value,
}

/// LocalPolicyTargetReferenceWithSectionName.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTarget {
    /// Empty for core.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Name of a port; every port if absent.
    pub section_name: Option<String>,
}

/// What a BackendTLSPolicy says.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct BackendTlsPolicyRest {
    /// `validation`.
    pub validation: BackendTlsValidation,
}

/// BackendTLSPolicyValidation.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BackendTlsValidation {
    /// ConfigMaps.
    #[serde(default, deserialize_with = "or_default", rename = "caCertificateRefs")]
    pub ca_certificate_refs: Vec<LocalObjectReference>,
    /// `System`.
    #[serde(rename = "wellKnownCACertificates")]
    pub well_known_ca_certificates: Option<String>,
    /// Server name.
    pub hostname: String,
    /// What the certificate must be for instead.
    #[serde(default, deserialize_with = "or_default")]
    pub subject_alt_names: Vec<SubjectAltName>,
}

/// LocalObjectReference.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct LocalObjectReference {
    /// Empty for core.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
}

/// SubjectAltName.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct SubjectAltName {
    /// `Hostname` or `URI`.
    #[serde(rename = "type")]
    pub kind: String,
    /// With `Hostname`.
    pub hostname: Option<String>,
    /// With `URI`.
    pub uri: Option<String>,
}

/// What an XBackendTrafficPolicy says.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BackendTrafficPolicyRest {
    /// `retryConstraint`.
    pub retry_constraint: Option<RetryConstraint>,
    /// `sessionPersistence`.
    pub session_persistence: Option<SessionPersistence>,
}

/// RetryConstraint.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RetryConstraint {
    /// `budget`.
    pub budget: Option<BudgetDetails>,
    /// `minRetryRate`.
    pub min_retry_rate: Option<RequestRate>,
}

/// BudgetDetails.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct BudgetDetails {
    /// 20 if absent.
    pub percent: Option<i64>,
    /// Ten seconds if absent; a GEP-2257 duration.
    pub interval: Option<String>,
}

/// RequestRate.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct RequestRate {
    /// Ten if absent.
    pub count: Option<i64>,
    /// One second if absent; a GEP-2257 duration.
    pub interval: Option<String>,
}
