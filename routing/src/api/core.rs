//! Service, ServiceImport, EndpointSlice, Namespace, ConfigMap.

use serde::Deserialize;

use super::{Metadata, or_default};

/// A Service.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// `metadata`.
    pub metadata: Metadata,
    /// `spec`.
    #[serde(default, deserialize_with = "or_default")]
    pub spec: ServiceSpec,
}

/// `spec` of a Service.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    /// ClusterIP if absent.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// `None` for a headless Service.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    /// All of them, the first equal to `clusterIP`.
    #[serde(default, rename = "clusterIPs", deserialize_with = "or_default")]
    pub cluster_ips: Vec<String>,
    /// Its ports.
    #[serde(default, deserialize_with = "or_default")]
    pub ports: Vec<Port>,
    /// `ClientIP` or `None`.
    pub session_affinity: Option<String>,
    /// How long an affinity lasts.
    pub session_affinity_config: Option<SessionAffinityConfig>,
    /// `Cluster` if absent, or `Local`.
    pub internal_traffic_policy: Option<String>,
    /// `PreferClose`, `PreferSameZone` or `PreferSameNode`.
    pub traffic_distribution: Option<String>,
}

/// A ServiceImport.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceImport {
    /// `metadata`.
    pub metadata: Metadata,
    /// `spec`.
    pub spec: ServiceImportSpec,
    /// `status`.
    #[serde(default, deserialize_with = "or_default")]
    pub status: ServiceImportStatus,
}

/// `spec` of a ServiceImport; fields beyond ports, type and ips came with later releases (digest C-1).
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceImportSpec {
    /// `ClusterSetIP` or `Headless`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// ClusterSetIPs of this cluster, free text.
    #[serde(default, deserialize_with = "or_default")]
    pub ips: Vec<String>,
    /// Its ports.
    #[serde(default, deserialize_with = "or_default")]
    pub ports: Vec<Port>,
    /// `ClientIP` or `None`.
    pub session_affinity: Option<String>,
    /// How long an affinity lasts.
    pub session_affinity_config: Option<SessionAffinityConfig>,
    /// `Cluster` if absent, or `Local`.
    pub internal_traffic_policy: Option<String>,
    /// `PreferClose`, `PreferSameZone` or `PreferSameNode`.
    pub traffic_distribution: Option<String>,
}

/// `status` of a ServiceImport.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceImportStatus {
    /// `Present` or `Absent`: whether EndpointSlices are published (digest C-3).
    pub endpoint_slice_objects: Option<String>,
}

/// `sessionAffinityConfig`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SessionAffinityConfig {
    /// `clientIP`.
    #[serde(rename = "clientIP")]
    pub client_ip: Option<ClientIpConfig>,
}

/// `sessionAffinityConfig.clientIP`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClientIpConfig {
    /// Three hours if absent.
    pub timeout_seconds: Option<u64>,
}

/// A port of a Service or ServiceImport.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Absent or empty where it is the only one.
    pub name: Option<String>,
    /// TCP if absent or empty.
    pub protocol: Option<String>,
    /// What is spoken on it (GEP-1911).
    pub app_protocol: Option<String>,
    /// 1 to 65535.
    pub port: i64,
}

/// An EndpointSlice.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    /// `metadata`; the labels say whose it is.
    pub metadata: Metadata,
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    /// Ports of the pods.
    #[serde(default, deserialize_with = "or_default")]
    pub ports: Vec<SlicePort>,
    /// The pods.
    #[serde(default, deserialize_with = "or_default")]
    pub endpoints: Vec<Endpoint>,
}

/// A port of an EndpointSlice: a port of the pods.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct SlicePort {
    /// The name of the Service's port.
    pub name: Option<String>,
    /// TCP if absent or empty.
    pub protocol: Option<String>,
    /// Absent: every port.
    pub port: Option<i64>,
}

/// An endpoint of an EndpointSlice.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Only the first counts.
    #[serde(default, deserialize_with = "or_default")]
    pub addresses: Vec<String>,
    /// Its state.
    #[serde(default, deserialize_with = "or_default")]
    pub conditions: EndpointConditions,
    /// Node in the source cluster.
    pub node_name: Option<String>,
    /// Zone in the source cluster.
    pub zone: Option<String>,
    /// For whom it is.
    #[serde(default, deserialize_with = "or_default")]
    pub hints: EndpointHints,
}

/// `hints` of an endpoint.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct EndpointHints {
    /// Zones that should use it.
    #[serde(default, deserialize_with = "or_default")]
    pub for_zones: Vec<ForZone>,
}

/// A zone of `hints.forZones`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct ForZone {
    /// Its name.
    pub name: String,
}

/// `conditions` of an endpoint.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct EndpointConditions {
    /// Absent means true.
    pub ready: Option<bool>,
    /// Whether it serves, even while it terminates; absent means as `ready`.
    pub serving: Option<bool>,
    /// Whether it is going away.
    pub terminating: Option<bool>,
}

/// A Namespace.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Namespace {
    /// `metadata`.
    pub metadata: Metadata,
}

/// A ConfigMap.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct ConfigMap {
    /// `metadata`.
    pub metadata: Metadata,
    /// `data`.
    #[serde(default, deserialize_with = "or_default")]
    pub data: std::collections::BTreeMap<String, String>,
}
