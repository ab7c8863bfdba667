//! The manifests of a lab: a folder with one folder a cluster, each with ordinary Kubernetes YAML.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use controller::directory::{self, Files};
use routing::api::or_default;
use routing::manifest;
use serde::Deserialize;
use serde_json::Value;

/// A pod with this label gets a sidecar when its value is `enabled`.
pub const INJECT_LABEL: &str = "isthmus.dev/inject";
/// On a ServiceExport: the ClusterSetIPs that its ServiceImport gets in every cluster, comma-separated, instead of ones that are drawn.
pub const CLUSTERSET_IP_ANNOTATION: &str = "isthmus.dev/lab-clusterset-ips";
/// On a ServiceExport: with the value `absent` its ServiceImport has no EndpointSlices and says so in its status.
pub const SLICES_ANNOTATION: &str = "isthmus.dev/lab-slices";
/// On a pod: each of its answers over HTTP comes so many milliseconds later.
pub const DELAY_ANNOTATION: &str = "isthmus.dev/lab-delay-ms";
/// On a pod: the names in its certificate, comma-separated; one with `://` in it is a URI.
pub const TLS_NAMES_ANNOTATION: &str = "isthmus.dev/lab-tls-names";
/// On a pod: the node that it is on.
pub const NODE_ANNOTATION: &str = "isthmus.dev/lab-node";
/// On a pod: the zone that it is in.
pub const ZONE_ANNOTATION: &str = "isthmus.dev/lab-zone";

/// The manifests of every cluster, by its name.
pub type Manifests = BTreeMap<String, Cluster>;

/// The manifests of one cluster.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Files by relative name.
    pub files: BTreeMap<String, ManifestFile>,
    /// Why others could not be read.
    pub unread: BTreeMap<String, String>,
}

/// One file.
#[derive(Clone, Debug)]
pub enum ManifestFile {
    /// Its documents.
    Documents(Vec<Value>),
    /// No YAML: handed on as it is, for the controller to say so.
    Unreadable(Vec<u8>),
}

/// Reads a folder: its folders are clusters, in the order of their names.
///
/// # Errors
/// The folder or something in one of a cluster cannot be read, or there is no cluster.
pub fn read(folder: &Path) -> anyhow::Result<Manifests> {
    let (clusters, _) = find(folder)?;
    ensure!(!clusters.is_empty(), "{}: no folder of a cluster in it, for example {}", folder.display(), folder.join("west").display());
    for (cluster, Cluster { unread, .. }) in &clusters {
        if let Some((name, why)) = unread.first_key_value() {
            bail!("{}: {why}", folder.join(cluster).join(name).display());
        }
    }
    Ok(clusters)
}

/// As [`read`], perhaps none and with what can be read of them; and what lies beside their folders.
///
/// # Errors
/// The folder cannot be read.
pub fn find(folder: &Path) -> anyhow::Result<(Manifests, Files)> {
    let said = || folder.display().to_string();
    let mut clusters = Manifests::new();
    for entry in fs::read_dir(folder).with_context(said)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // Names that begin with a dot are somebody else's: of an editor, of version control.
        if path.is_dir() && !name.starts_with('.') {
            clusters.insert(name, Cluster::default());
        }
    }
    let Files { contents, unread, dangling } = directory::read(folder).with_context(said)?;
    let mut beside = Files { dangling, ..Files::default() };
    for (name, bytes) in contents {
        match name.split_once('/').and_then(|(cluster, name)| Some((clusters.get_mut(cluster)?, name))) {
            Some((cluster, name)) => drop(cluster.files.insert(name.to_owned(), ManifestFile::of(bytes))),
            None => drop(beside.contents.insert(name, bytes)),
        }
    }
    for (name, why) in unread {
        // The folder itself has no name in it.
        let (cluster, rest) = name.split_once('/').unwrap_or((&name, ""));
        match clusters.get_mut(cluster) {
            Some(cluster) => drop(cluster.unread.insert(rest.to_owned(), why)),
            None => drop(beside.unread.insert(name, why)),
        }
    }
    Ok((clusters, beside))
}

impl ManifestFile {
    fn of(bytes: Vec<u8>) -> Self {
        match std::str::from_utf8(&bytes).ok().and_then(|text| manifest::parse(text).ok()) {
            Some(documents) => Self::Documents(documents.into_iter().map(|document| document.value).collect()),
            None => Self::Unreadable(bytes),
        }
    }
}

impl Cluster {
    /// The documents of one kind that can be read; one that cannot is the controller's to report.
    pub fn objects<T: for<'d> Deserialize<'d>>(&self, kind: &str) -> Vec<T> {
        let documents = self.files.values().filter_map(|file| match file {
            ManifestFile::Documents(documents) => Some(documents),
            ManifestFile::Unreadable(_) => None,
        });
        let of_kind = documents.flatten().filter(|document| document.get("kind").and_then(Value::as_str) == Some(kind));
        of_kind.filter_map(|document| T::deserialize(document).ok()).collect()
    }
}

/// `metadata`.
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
pub struct Metadata {
    /// The name.
    #[serde(default)]
    pub name: String,
    /// `default` where none is written.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Labels.
    #[serde(default, deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
}

fn default_namespace() -> String {
    "default".to_owned()
}

/// A Pod, or the template of one.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub struct Pod {
    /// `metadata`; without a name in a template.
    pub metadata: Metadata,
    /// `spec`.
    pub spec: PodSpec,
}

/// `spec` of a Pod.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub struct PodSpec {
    /// Its containers; only their ports are looked at.
    #[serde(default, deserialize_with = "or_default")]
    pub containers: Vec<Container>,
}

/// A container.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub struct Container {
    /// What it listens on.
    #[serde(default, deserialize_with = "or_default")]
    pub ports: Vec<ContainerPort>,
}

/// A port of a container. A TCP port whose name begins with `tcp` gets a server that speaks first and no HTTP, with `tls` HTTP over TLS.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    /// The number.
    pub container_port: u16,
    /// The name.
    #[serde(default)]
    pub name: String,
    /// `TCP` where none is written.
    #[serde(default = "tcp")]
    pub protocol: String,
}

/// What is served on a port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Served {
    /// Datagrams come back.
    Datagrams,
    /// Bytes come back; the server speaks first.
    Bytes,
    /// HTTP over TLS.
    Tls,
    /// HTTP.
    Http,
}

impl ContainerPort {
    /// Which server it gets.
    #[must_use]
    pub fn served(&self) -> Served {
        match self.name.as_str() {
            _ if self.protocol == "UDP" => Served::Datagrams,
            name if name.starts_with("tcp") => Served::Bytes,
            name if name.starts_with("tls") => Served::Tls,
            _ => Served::Http,
        }
    }
}

fn tcp() -> String {
    "TCP".to_owned()
}

/// A Deployment.
#[derive(Clone, Debug, Deserialize)]
pub struct Deployment {
    /// `metadata`.
    pub metadata: Metadata,
    /// `spec`.
    pub spec: DeploymentSpec,
}

/// `spec` of a Deployment.
#[derive(Clone, Debug, Deserialize)]
pub struct DeploymentSpec {
    /// One where none is written.
    #[serde(default = "one")]
    pub replicas: usize,
    /// What its pods are like.
    pub template: Pod,
}

fn one() -> usize {
    1
}

/// A Service.
#[derive(Clone, Debug, Deserialize)]
pub struct Service {
    /// `metadata`.
    pub metadata: Metadata,
    /// `spec`.
    pub spec: ServiceSpec,
}

/// `spec` of a Service.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    /// Labels of its pods; without any it has no endpoints.
    #[serde(default, deserialize_with = "or_default")]
    pub selector: BTreeMap<String, String>,
    /// Its ports.
    #[serde(default, deserialize_with = "or_default")]
    pub ports: Vec<ServicePort>,
    /// `None` for a headless Service.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    /// Both where none are written.
    #[serde(default, deserialize_with = "or_default")]
    pub ip_families: Vec<String>,
    /// `ClientIP` or `None`.
    pub session_affinity: Option<String>,
    /// How long an affinity lasts; handed on as it is, like the next two.
    pub session_affinity_config: Option<Value>,
    /// `Cluster` or `Local`.
    pub internal_traffic_policy: Option<Value>,
    /// Which endpoints are preferred.
    pub traffic_distribution: Option<Value>,
}

/// A port of a Service.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// The name.
    #[serde(default)]
    pub name: String,
    /// The number.
    pub port: u16,
    /// `TCP` where none is written.
    #[serde(default = "tcp")]
    pub protocol: String,
    /// Number or name of a container's port; the same number where none is written.
    pub target_port: Option<Value>,
    /// What is spoken on it.
    pub app_protocol: Option<String>,
}

/// A ServiceExport.
#[derive(Clone, Debug, Deserialize)]
pub struct ServiceExport {
    /// `metadata`.
    pub metadata: Metadata,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_has_what_is_below_its_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).and_then(|()| fs::write(&path, text)).expect("written");
        };
        assert!(read(folder.path()).is_err_and(|error| error.to_string().contains("no folder of a cluster in it")));
        write("expected.yaml", "[]");
        write(".git/config.yaml", "{}");
        write("west/store/service.yaml", "{kind: Service}");
        write("west/bad.json", "{");
        write("west/notes.txt", "");
        write("east/.service.yaml.swp", "");
        let clusters = read(folder.path()).expect("clusters");
        assert_eq!(clusters.keys().collect::<Vec<_>>(), ["east", "west"]);
        assert!(clusters["east"].files.is_empty());
        let west = &clusters["west"].files;
        assert!(
            matches!(west["store/service.yaml"], ManifestFile::Documents(_)) && matches!(west["bad.json"], ManifestFile::Unreadable(_))
        );
        assert_eq!(west.len(), 2);
    }
}
