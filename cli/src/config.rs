//! The command line of `isthmus`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::say::say;

/// A service mesh for Multi-Cluster Services.
#[derive(Clone, Debug, Parser)]
#[command(name = "isthmus", version)]
pub struct Config {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run clusters on this machine, in network namespaces, and show where requests go
    Demo(Demo),
    /// Look whether everything that the mesh needs is there, and say what to do about what is not
    Check(Check),
    /// Give the pods of manifests their sidecar, as the webhook would
    Inject(Inject),
    /// Say why a request goes where it goes, by the objects of a cluster or of a folder, and by what the pod's sidecar holds
    Explain(Explain),
    /// Find what in manifests would be refused, left out or never reached
    Lint(Lint),
    /// Draw what leads where: frontends, routes, weights, backends, clusters, and what is broken
    Graph(Graph),
    /// List routes: whether they are accepted, and in how many of the sidecars that they concern they are live
    Status(Status),
    /// List sidecars: who serves them, what they hold, and whether it is the newest state
    Proxies(Proxies),
    /// Show requests as they end, from the sidecars themselves, and why each went where it went
    Tap(Tap),
    /// Say the versions of this program, of the controller and of the sidecars
    Version(Version),
    /// Write a script that completes this program's command line in a shell
    Completion(Completion),
    /// Write manual pages into a folder
    #[command(hide = true)]
    Man(Man),
    /// Do nothing until standard input ends; the first process of a demo's process id namespace
    #[command(hide = true)]
    Hold,
    /// Make one HTTP request and print the answer; for the shell of a demo
    Request(Request),
}

/// `check`.
#[derive(Args, Clone, Debug)]
pub struct Check {
    /// Context of the kubeconfig; the current one if not given
    #[arg(long)]
    pub context: Option<String>,
    /// Namespace of the controller
    #[arg(short, long, default_value = "isthmus-system")]
    pub namespace: String,
    /// How it is said
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

/// A mesh that runs.
#[derive(Args, Clone, Debug)]
pub struct Mesh {
    /// Context of the kubeconfig; the current one if not given
    #[arg(long)]
    pub context: Option<String>,
    /// Namespace of the controller
    #[arg(long, default_value = "isthmus-system")]
    pub controller_namespace: String,
}

/// `--output`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Output {
    /// For people
    #[value(alias = "table", alias = "wide")]
    Text,
    /// For programs
    Json,
    /// For both
    Yaml,
}

impl Output {
    /// Prints a value in this form.
    pub(crate) fn say(self, value: &impl serde::Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        say(&match self {
            Self::Text => text(),
            Self::Json => serde_json::to_string_pretty(value)? + "\n",
            // More may follow: each is a document of its own.
            Self::Yaml => format!("---\n{}", serde_saphyr::to_string(value)?),
        })
    }
}

/// `inject`.
#[derive(Args, Clone, Debug)]
pub struct Inject {
    /// File with Kubernetes YAML; - for standard input
    #[arg(short, long)]
    pub filename: PathBuf,
    /// Where sidecars find the controller
    #[arg(long, default_value = "https://isthmus-controller.isthmus-system.svc:15010")]
    pub controller: String,
    /// File with the CA of the controller, PEM: the entry tls.crt of the Secret isthmus-ca
    #[arg(long)]
    pub controller_ca: PathBuf,
    /// Name of the cluster in the ClusterSet
    #[arg(long, default_value = "")]
    pub cluster: String,
    /// Image of isthmus-sidecar
    #[arg(long, default_value = concat!("isthmus.dev/isthmus-sidecar:", env!("CARGO_PKG_VERSION")))]
    pub sidecar_image: String,
    /// Image of isthmus-init
    #[arg(long, default_value = concat!("isthmus.dev/isthmus-init:", env!("CARGO_PKG_VERSION")))]
    pub init_image: String,
    /// For clusters without native sidecars, before Kubernetes 1.29: interception is by ranges then
    #[arg(long)]
    pub no_native_sidecars: bool,
    /// Ranges of VIPs, for pods whose interception is by ranges
    #[arg(long, value_delimiter = ',')]
    pub vip_range: Vec<String>,
    /// Collector of OpenTelemetry that sidecars send spans to, OTLP over gRPC, for example <http://collector.monitoring:4317>; none if not given
    #[arg(long)]
    pub otlp_endpoint: Option<String>,
    /// Share of the traces that begin at a sidecar which are sampled, 0 to 1
    #[arg(long, default_value = "0.1")]
    pub trace_sampling: f64,
}

/// `explain`.
#[derive(Args, Clone, Debug)]
pub struct Explain {
    /// Method and URL, for example `GET http://store.shop.svc.clusterset.local/cart?x=1`; GET may be left out
    pub request: String,
    /// Folder or file with the Kubernetes YAML or JSON of a cluster; or folder with one folder a cluster, whose exports are imported in all of them; the
    /// cluster of the kubeconfig if not given
    #[arg(short, long)]
    pub filename: Option<PathBuf>,
    /// Context of the kubeconfig; the current one if not given
    #[arg(long, conflicts_with = "filename")]
    pub context: Option<String>,
    /// Namespace of the controller, whose settings count
    #[arg(long, default_value = "isthmus-system")]
    pub controller_namespace: String,
    /// Who asks: namespace, or NAMESPACE/POD, whose node, zone and sidecar then count
    #[arg(long, default_value = "default")]
    pub from: String,
    /// Header, 'NAME: VALUE'; may be repeated
    #[arg(short = 'H', long)]
    pub header: Vec<String>,
    /// The request is made in HTTP/2, as gRPC is
    #[arg(long)]
    pub http2: bool,
    /// Name of the client's cluster in the ClusterSet
    #[arg(long, default_value = "")]
    pub cluster: String,
    /// Node of the client's pod, where that matters for endpoints
    #[arg(long, default_value = "")]
    pub node: String,
    /// Zone of the client's pod, where that matters for endpoints
    #[arg(long, default_value = "")]
    pub zone: String,
    /// How it is said
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

/// `lint`.
#[derive(Args, Clone, Debug)]
pub struct Lint {
    /// Folder or file with the Kubernetes YAML or JSON of a cluster; or folder with one folder a cluster, whose exports are imported in all of them
    pub path: PathBuf,
    /// Warnings count as errors
    #[arg(long)]
    pub strict: bool,
    /// How it is said
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

/// `proxies`.
#[derive(Args, Clone, Debug)]
pub struct Proxies {
    /// Those of this namespace alone
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Which mesh
    #[command(flatten)]
    pub mesh: Mesh,
    /// How it is said
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

/// `graph`.
#[derive(Args, Clone, Debug)]
pub struct Graph {
    /// Folder or file with the Kubernetes YAML or JSON of a cluster; or folder with one folder a cluster, of which --cluster names one; the cluster of the
    /// kubeconfig if not given
    #[arg(short, long)]
    pub filename: Option<PathBuf>,
    /// Name of the cluster in the ClusterSet whose sidecars' view is drawn
    #[arg(long, default_value = "")]
    pub cluster: String,
    /// What is dialled in this namespace alone
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Context of the kubeconfig; the current one if not given
    #[arg(long, conflicts_with = "filename")]
    pub context: Option<String>,
    /// Namespace of the controller, whose settings count
    #[arg(long, default_value = "isthmus-system")]
    pub controller_namespace: String,
    /// What it is drawn as
    #[arg(short, long, default_value = "svg")]
    pub output: Picture,
}

/// `--output` of `graph`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Picture {
    /// For a browser
    Svg,
    /// For Graphviz
    Dot,
    /// For programs
    Json,
}

/// `status`.
#[derive(Args, Clone, Debug)]
pub struct Status {
    /// [KIND/]NAME of a route, for example httproute/store; all of the namespace if not given
    pub route: Option<String>,
    /// Namespace; that of the context if not given
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Those of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// Look again and again, and say what has changed; of one route until it is accepted and live everywhere
    #[arg(short, long)]
    pub watch: bool,
    /// Which mesh
    #[command(flatten)]
    pub mesh: Mesh,
    /// How it is said
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

/// `tap`.
#[derive(Args, Clone, Debug)]
pub struct Tap {
    /// Pods, [NAMESPACE/]POD; all of the namespace that have a sidecar if none is given
    pub pod: Vec<String>,
    /// Namespace; that of the context if not given
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// The pods of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// Requests under this route alone, NAMESPACE/NAME
    #[arg(long)]
    pub route: Option<String>,
    /// Requests to this backend alone; the beginning of its name is enough
    #[arg(long)]
    pub backend: Option<String>,
    /// Requests to endpoints of this cluster alone
    #[arg(long)]
    pub cluster: Option<String>,
    /// Requests with this method alone
    #[arg(long)]
    pub method: Option<String>,
    /// Requests whose path begins like this alone
    #[arg(long)]
    pub path: Option<String>,
    /// Requests that were answered with this status, or class of statuses, alone: 503, 5xx
    #[arg(long)]
    pub status: Option<String>,
    /// Requests that the sidecar answered itself for this reason alone
    #[arg(long)]
    pub reason: Option<String>,
    /// Lines a second and pod at most; how many are left out is said
    #[arg(long, default_value = "100")]
    pub rate: u32,
    /// End after so many lines
    #[arg(long)]
    pub count: Option<u64>,
    /// Context of the kubeconfig; the current one if not given
    #[arg(long)]
    pub context: Option<String>,
    /// How it is said
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

/// `version`.
#[derive(Args, Clone, Debug)]
pub struct Version {
    /// That of this program alone
    #[arg(long)]
    pub client: bool,
    /// Which mesh
    #[command(flatten)]
    pub mesh: Mesh,
    /// How it is said
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

/// `completion`.
#[derive(Args, Clone, Debug)]
pub struct Completion {
    /// Which shell
    pub shell: clap_complete::Shell,
}

/// `man`.
#[derive(Args, Clone, Debug)]
pub struct Man {
    /// Folder, which exists
    pub folder: PathBuf,
}

/// `demo`.
#[derive(Args, Clone, Debug)]
pub struct Demo {
    /// Folder with one folder a cluster, each with Kubernetes YAML or JSON, and perhaps an expected.yaml
    #[arg(default_value = "manifests/examples/gamma")]
    pub folder: PathBuf,
    /// Ask this, for example 'GET /cart', instead of what expected.yaml says; may be repeated
    #[arg(long)]
    pub request: Vec<String>,
    /// Where --request goes, HOST:PORT as the pod knows it; the first ServiceImport with a route if not given
    #[arg(long)]
    pub to: Option<String>,
    /// Pod that asks, CLUSTER/NAMESPACE/NAME; the first one with a sidecar if not given
    #[arg(long)]
    pub from: Option<String>,
    /// Header of --request, 'NAME: VALUE'; may be repeated
    #[arg(long)]
    pub header: Vec<String>,
    /// How connections reach the sidecar
    #[arg(long, default_value = "exact")]
    pub intercept: Intercept,
    /// Draw what leads where into this file, as SVG
    #[arg(long)]
    pub picture: Option<PathBuf>,
    /// Open a shell in the pod afterwards; edits to the YAML take effect at once
    #[arg(long)]
    pub shell: bool,
    /// Stay until Ctrl-C; edits to the YAML take effect at once
    #[arg(long)]
    pub keep: bool,
}

/// `--intercept`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Intercept {
    /// Exactly the VIPs that have routes
    Exact,
    /// All VIPs
    Cidr,
}

/// `request`.
#[derive(Args, Clone, Debug)]
pub struct Request {
    /// Method and URL, for example GET store.default.svc.clusterset.local/cart; GET may be left out
    #[arg(required = true, num_args = 1..=2)]
    pub what: Vec<String>,
    /// Header, 'NAME: VALUE'; may be repeated
    #[arg(long)]
    pub header: Vec<String>,
    /// Body
    #[arg(long, default_value = "")]
    pub body: String,
    /// Speak HTTP/2 with prior knowledge
    #[arg(long)]
    pub http2: bool,
}
