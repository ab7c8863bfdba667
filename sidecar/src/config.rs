//! What the one who runs the sidecar decides; each flag has a twin in the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// Takes a pod's redirected connections, obeys routes, forwards to endpoints.
#[derive(Clone, Debug, Parser)]
#[command(name = "isthmus-sidecar", version, args_override_self = true)]
pub struct Config {
    /// The controller of this cluster, for example <http://isthmus-controller:15010>
    #[arg(long, env = "ISTHMUS_CONTROLLER")]
    pub controller: String,
    /// CA certificates of the controller, PEM text; needed where it is reached by https
    #[arg(long, env = "ISTHMUS_CONTROLLER_CA", hide_env_values = true)]
    pub controller_ca: Option<String>,
    /// File with the token that says to the controller who this is; read anew for every connection
    #[arg(long, env = "ISTHMUS_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Namespace of this pod; decides which consumer routes apply
    #[arg(long, env = "ISTHMUS_NAMESPACE")]
    pub namespace: String,
    /// Name of this pod
    #[arg(long, env = "ISTHMUS_POD")]
    pub pod: String,
    /// Node of this pod
    #[arg(long, env = "ISTHMUS_NODE", default_value = "")]
    pub node: String,
    /// Zone of this pod
    #[arg(long, env = "ISTHMUS_ZONE", default_value = "")]
    pub zone: String,
    /// Name of this cluster in the ClusterSet
    #[arg(long, env = "ISTHMUS_CLUSTER")]
    pub cluster: String,
    /// Addresses that connections are redirected to; one whose family the pod does not have is left out
    #[arg(long, env = "ISTHMUS_OUTBOUND", value_delimiter = ',', default_value = "127.0.0.1:15001,[::1]:15001")]
    pub outbound: Vec<SocketAddr>,
    /// Address of /livez, /readyz, /metrics, /config and /tap
    #[arg(long, env = "ISTHMUS_ADMIN", default_value = "127.0.0.1:15000")]
    pub admin: SocketAddr,
    /// A second address, for what a kubelet or Prometheus reaches: /livez, /readyz, /startupz and /metrics
    #[arg(long, env = "ISTHMUS_HEALTH")]
    pub health: Option<SocketAddr>,
    /// /startupz waits so long for the first state, and then lets the pod go: its connections pass through until there is one
    #[arg(long, env = "ISTHMUS_STARTUP_WAIT_S", default_value = "10")]
    pub startup_wait_s: u64,
    /// Do not serve: wait until the sidecar at --health has started, as its /startupz says. For the postStart hook of a sidecar that is no
    /// init container, so that the application's container begins after it
    #[arg(long)]
    pub await_startup: bool,
    /// Unix socket of `isthmus-init watch`, which intercepts exactly the VIPs that have routes
    #[arg(long, env = "ISTHMUS_VIP_SOCKET")]
    pub vip_socket: Option<PathBuf>,
    /// Worker threads; as many as the pod's CPU quota if not given
    #[arg(long, env = "ISTHMUS_WORKERS", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: Option<u16>,
    /// Socket mark of the sidecar's own connections, where interception exempts them by mark and not by uid; needs CAP_NET_ADMIN
    #[arg(long, env = "ISTHMUS_MARK")]
    pub mark: Option<u32>,
    /// Where one JSON line a request goes: a path, or - for standard output; none if not given
    #[arg(long, env = "ISTHMUS_ACCESS_LOG")]
    pub access_log: Option<PathBuf>,
    /// Collector of OpenTelemetry that spans of requests go to, OTLP over gRPC, for example <http://collector.monitoring:4317>; none if not given
    #[arg(long, env = "ISTHMUS_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// Share of the traces that begin here which are sampled, 0 to 1; a trace that a request comes with keeps its caller's decision
    #[arg(long, env = "ISTHMUS_TRACE_SAMPLING", default_value = "0.1")]
    pub trace_sampling: f64,
    /// After SIGTERM connections have this long to end by themselves
    #[arg(long, env = "ISTHMUS_DRAIN_GRACE_S", default_value = "30")]
    pub drain_grace_s: u64,
    /// A request or response that stands still for so long is given up; pass-through and upgraded connections never are
    #[arg(long, env = "ISTHMUS_STREAM_IDLE_S", default_value = "3600")]
    pub stream_idle_s: u64,
    /// A client connection without a request is closed after so long
    #[arg(long, env = "ISTHMUS_CONNECTION_IDLE_S", default_value = "3600")]
    pub connection_idle_s: u64,
    /// A request's head has to arrive within this time
    #[arg(long, env = "ISTHMUS_HEAD_TIMEOUT_S", default_value = "10")]
    pub head_timeout_s: u64,
    /// Connections that passed through before their VIP got a route are closed over this time, so that clients reconnect and obey; never
    /// if not given
    #[arg(long, env = "ISTHMUS_PASSTHROUGH_DRAIN_S")]
    pub passthrough_drain_s: Option<u64>,
}

/// Whatever can grow, and its maximum; times in which something has to happen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// A request's head has to arrive within this time.
    pub(crate) head: Duration,
    /// A request or response that stands still for so long is given up.
    pub(crate) stream_idle: Duration,
    /// A client connection without a request is closed after so long.
    pub(crate) connection_idle: Duration,
    /// See [`Config::passthrough_drain_s`].
    pub(crate) passthrough_drain: Option<Duration>,
}

impl Config {
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            head: Duration::from_secs(self.head_timeout_s),
            stream_idle: Duration::from_secs(self.stream_idle_s),
            connection_idle: Duration::from_secs(self.connection_idle_s),
            passthrough_drain: self.passthrough_drain_s.map(Duration::from_secs),
        }
    }

    /// One worker below a quota of 1.5 CPUs, else as many as whole CPUs.
    pub(crate) fn worker_count(&self) -> usize {
        // The standard library reads the cgroup's quota.
        let available = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.workers.map_or_else(available, usize::from)
    }
}
