//! What the one who runs the controller decides; each flag has a twin in the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, ValueEnum};
use routing::world::{self, Settings};

/// Turns Kubernetes objects into what sidecars need and writes route status.
#[derive(Clone, Debug, Parser)]
#[command(name = "isthmus-controller", version)]
pub struct Config {
    /// Where objects come from: kubernetes, the API server; or dir:PATH, a directory of Kubernetes YAML that is followed
    #[arg(long, env = "ISTHMUS_SOURCE")]
    pub source: Source,
    /// Name of this cluster in the ClusterSet
    #[arg(long, env = "ISTHMUS_CLUSTER")]
    pub cluster: String,
    /// Address on which sidecars are served
    #[arg(long, env = "ISTHMUS_LISTEN", default_value = "127.0.0.1:15010")]
    pub listen: SocketAddr,
    /// Address of /livez, /readyz, /metrics, /sidecars and /await
    #[arg(long, env = "ISTHMUS_ADMIN", default_value = "127.0.0.1:15011")]
    pub admin: SocketAddr,
    /// Serve sidecars without TLS and believe what they say of themselves; the only way with dir:PATH
    #[arg(long, env = "ISTHMUS_PLAINTEXT", default_value_t = false)]
    pub plaintext: bool,
    /// What only a Kubernetes source has.
    #[command(flatten)]
    pub kubernetes: KubernetesConfig,
    /// Directory for route status, one file KIND.NAMESPACE.NAME.yaml a route; not inside the source
    #[arg(long, env = "ISTHMUS_STATUS_DIR")]
    pub status_dir: Option<PathBuf>,
    /// Whether a backendRef into a foreign namespace needs a ReferenceGrant
    #[arg(long, env = "ISTHMUS_CROSS_NAMESPACE_BACKENDS", default_value = "granted")]
    pub cross_namespace_backends: CrossNamespaceBackends,
    /// Which kinds of parent are obeyed
    #[arg(long, env = "ISTHMUS_PARENTS", default_value = "all")]
    pub parents: Parents,
    /// Whether session affinity ClientIP of a Service or ServiceImport is kept towards its endpoints
    #[arg(long, env = "ISTHMUS_SESSION_AFFINITY", default_value = "honored")]
    pub session_affinity: SessionAffinity,
}

/// Flags for `--source kubernetes`.
#[derive(Args, Clone, Debug)]
pub struct KubernetesConfig {
    /// Namespace of the controller: of its lease, its CA and its Service
    #[arg(long, env = "ISTHMUS_NAMESPACE", default_value = "isthmus-system")]
    pub namespace: String,
    /// Name of this pod, which holds the lease
    #[arg(long, env = "ISTHMUS_POD", default_value = "isthmus-controller")]
    pub pod: String,
    /// Name of the controller's Service, to which its certificate is made out
    #[arg(long, env = "ISTHMUS_SERVICE", default_value = "isthmus-controller")]
    pub service: String,
    /// Address of the injection webhook; none if not given
    #[arg(long, env = "ISTHMUS_WEBHOOK")]
    pub webhook: Option<SocketAddr>,
    /// Name of the MutatingWebhookConfiguration, which is told the CA
    #[arg(long, env = "ISTHMUS_WEBHOOK_CONFIGURATION", default_value = "isthmus-injector")]
    pub webhook_configuration: String,
    /// Image of isthmus-sidecar
    #[arg(long, env = "ISTHMUS_SIDECAR_IMAGE", default_value = concat!("isthmus.dev/isthmus-sidecar:", env!("CARGO_PKG_VERSION")))]
    pub sidecar_image: String,
    /// Image of isthmus-init
    #[arg(long, env = "ISTHMUS_INIT_IMAGE", default_value = concat!("isthmus.dev/isthmus-init:", env!("CARGO_PKG_VERSION")))]
    pub init_image: String,
    /// Ranges of VIPs, for pods whose interception is by ranges; those of the cluster's ServiceCIDRs if not given
    #[arg(long, env = "ISTHMUS_VIP_RANGE", value_delimiter = ',')]
    pub vip_range: Vec<String>,
    /// Whether pods get native sidecars
    #[arg(long, env = "ISTHMUS_NATIVE_SIDECARS", default_value = "auto")]
    pub native_sidecars: NativeSidecars,
    /// Collector of OpenTelemetry that sidecars send spans to, OTLP over gRPC, for example <http://collector.monitoring:4317>; none if not given
    #[arg(long, env = "ISTHMUS_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// Share of the traces that begin at a sidecar which are sampled, 0 to 1
    #[arg(long, env = "ISTHMUS_TRACE_SAMPLING", default_value = "0.1")]
    pub trace_sampling: f64,
    /// After SIGTERM the controller serves for so long, until everyone has heard that it ends
    #[arg(long, env = "ISTHMUS_DRAIN_GRACE_S", default_value = "5")]
    pub drain_grace_s: u64,
    /// A certificate of the controller is good for so long, and renewed when two thirds of it are over
    #[arg(long, env = "ISTHMUS_CERTIFICATE_LIFETIME_S", default_value = "86400", value_parser = clap::value_parser!(u64).range(10..))]
    pub certificate_lifetime_s: u64,
}

/// `--native-sidecars`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum NativeSidecars {
    /// Where the API server's version has them by default: 1.29 and later
    Auto,
    /// They do
    Always,
    /// They do not
    Never,
}

/// `--source`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// `kubernetes`.
    Kubernetes,
    /// `dir:PATH`.
    Directory(PathBuf),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("dir:") {
            None if text == "kubernetes" => Ok(Self::Kubernetes),
            Some(path) if !path.is_empty() => Ok(Self::Directory(path.into())),
            Some(_) | None => Err(format!("{text:?} is neither kubernetes nor dir:PATH")),
        }
    }
}

/// `--cross-namespace-backends`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum CrossNamespaceBackends {
    /// It does
    Granted,
    /// It does not
    Any,
}

/// `--parents`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Parents {
    /// ServiceImports and Services
    All,
    /// ServiceImports alone, beside a mesh that owns Services
    ServiceImport,
}

/// `--session-affinity`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SessionAffinity {
    /// It is, as the platform's own forwarding does
    Honored,
    /// Each request is balanced on its own
    Ignored,
}

impl Config {
    /// What the routing rules need to know of it.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            cluster: self.cluster.clone(),
            cross_namespace_backends: match self.cross_namespace_backends {
                CrossNamespaceBackends::Granted => world::CrossNamespaceBackends::Granted,
                CrossNamespaceBackends::Any => world::CrossNamespaceBackends::Any,
            },
            parents: match self.parents {
                Parents::All => world::Parents::All,
                Parents::ServiceImport => world::Parents::ServiceImport,
            },
            session_affinity: match self.session_affinity {
                SessionAffinity::Honored => world::SessionAffinity::Honored,
                SessionAffinity::Ignored => world::SessionAffinity::Ignored,
            },
        }
    }
}
