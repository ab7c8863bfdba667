//! The targets: none, the kernel, Isthmus, and others set up to do the same.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::scenario::{Port, Scenario};
use crate::stage::{PEER_UIDS, Stage};

/// A target.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Where it listens, by [`Port`]; none: it is not made for that.
    pub(crate) ports: [Option<u16>; Port::ALL.len()],
}

/// What it is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// The backend's own address.
    Direct,
    /// What kube-proxy does.
    Dnat,
    /// The sidecar of the lab.
    Isthmus,
    /// A program in the client's pod.
    Program { uid: u32, command: Vec<String> },
}

/// Threads or processes of each.
const WORKERS: u32 = 2;
/// Connections and requests, where a program wants to know.
const MANY: u32 = 16_384;

impl Peer {
    /// All of them; their configurations are written for this stage.
    pub(crate) fn all(stage: &Stage) -> anyhow::Result<Vec<Self>> {
        let folder = stage.folder();
        let addresses = Addresses { store: all_ports(|port| Ok(vec![stage.store(port)?]))?, cart: all_ports(|port| stage.carts(port))? };
        let write = |name: &str, text: String| -> anyhow::Result<String> {
            let path = folder.join(name);
            fs::write(&path, text)?;
            Ok(path.display().to_string())
        };
        let envoy = write("envoy.json", envoy(&addresses).to_string())?;
        let nginx = write("nginx.conf", nginx(&addresses, folder))?;
        let haproxy = write("haproxy.cfg", haproxy(&addresses))?;
        let own = std::env::current_exe()?.display().to_string();
        let copies = Port::ALL
            .map(|port| format!("{}={}", COPY_PORTS + port as u16, each(&addresses.cart[port as usize], ",", |_, to| to.to_string())));
        let words = |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let all = |first: u16| Port::ALL.map(|port| Some(first + port as u16));
        let none = [None; Port::ALL.len()];
        let envoy = format!("{}/envoy -c {envoy} --concurrency {WORKERS} --disable-hot-restart -l warning", folder.display());
        let program = |number: u32, command: String| Kind::Program { uid: PEER_UIDS + number, command: words(command) };
        Ok(vec![
            Self { name: "direct", kind: Kind::Direct, ports: none },
            Self { name: "dnat", kind: Kind::Dnat, ports: none },
            Self { name: "isthmus", kind: Kind::Isthmus, ports: none },
            Self { name: "envoy", kind: program(0, envoy), ports: all(ENVOY_PORTS) },
            Self { name: "nginx", kind: program(1, format!("nginx -c {nginx}")), ports: without_grpc(all(NGINX_PORTS)) },
            Self { name: "haproxy", kind: program(2, format!("haproxy -db -f {haproxy}")), ports: all(HAPROXY_PORTS) },
            Self { name: "copy", kind: program(3, format!("{own} copy {WORKERS} {}", copies.join(" "))), ports: all(COPY_PORTS) },
        ])
    }

    /// Whether it can be measured in this.
    pub(crate) fn takes(&self, scenario: &Scenario) -> bool {
        match self.kind {
            Kind::Direct | Kind::Dnat | Kind::Isthmus => true,
            Kind::Program { .. } => self.ports[scenario.port as usize].is_some(),
        }
    }
}

const ENVOY_PORTS: u16 = 19_000;
const NGINX_PORTS: u16 = 17_000;
const HAPROXY_PORTS: u16 = 16_000;
const COPY_PORTS: u16 = 18_000;

/// Of each port the addresses that serve it.
type Ports = [Vec<SocketAddr>; Port::ALL.len()];

struct Addresses {
    store: Ports,
    cart: Ports,
}

fn all_ports(addresses: impl Fn(Port) -> anyhow::Result<Vec<SocketAddr>>) -> anyhow::Result<Ports> {
    let ports = Port::ALL.into_iter().map(addresses).collect::<anyhow::Result<Vec<_>>>()?;
    ports.try_into().map_err(|_| anyhow::anyhow!("as many as ports"))
}

/// What a configuration says of each address, by its number.
fn each(addresses: &[SocketAddr], between: &str, text: impl Fn(usize, &SocketAddr) -> String) -> String {
    addresses.iter().enumerate().map(|(number, address)| text(number, address)).collect::<Vec<_>>().join(between)
}

/// nginx speaks gRPC to gRPC backends alone, by rules of their own.
fn without_grpc(mut ports: [Option<u16>; Port::ALL.len()]) -> [Option<u16>; Port::ALL.len()] {
    ports[Port::Grpc as usize] = None;
    ports
}

/// Envoy as a mesh sets it up: original destination, a route table a port, no limits of its own, retries where nothing was processed.
fn envoy(addresses: &Addresses) -> Value {
    let listeners = Port::ALL.map(|port| {
        let http_filters = json!([{"name": "envoy.filters.http.router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        }}]);
        let to = |name: &str| {
            json!({"cluster": format!("{name}-{}", port.of_vip()), "timeout": "0s", "retry_policy": {
                "retry_on": "connect-failure,refused-stream,reset-before-request", "num_retries": 2,
            }})
        };
        let weighted = json!({"timeout": "0s", "weighted_clusters": {"clusters": [
            {"name": format!("store-{}", port.of_vip()), "weight": 90}, {"name": format!("cart-{}", port.of_vip()), "weight": 10},
        ]}});
        let filter = match port {
            Port::Http1 | Port::Http2 | Port::Grpc => json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": format!("port_{}", port.of_vip()), "codec_type": "AUTO", "use_remote_address": false,
                "upgrade_configs": [{"upgrade_type": "websocket"}], "http_filters": http_filters,
                "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                    {"match": {"path_separated_prefix": "/cart"}, "route": to("cart")},
                    {"match": {"path_separated_prefix": "/split"}, "route": weighted},
                    {"match": {"prefix": "/"}, "route": to("store")},
                ]}]},
            }}),
            Port::Tcp | Port::Unrouted => json!({"name": "envoy.filters.network.tcp_proxy", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": format!("port_{}", port.of_vip()), "cluster": format!("cart-{}", port.of_vip()),
            }}),
        };
        json!({
            "name": format!("port_{}", port.of_vip()), "filter_chains": [{"filters": [filter]}],
            "address": {"socket_address": {"address": "0.0.0.0", "port_value": ENVOY_PORTS + port as u16}},
            "listener_filters": [{"name": "envoy.filters.listener.original_dst", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
            }}],
        })
    });
    let clusters = [("store", &addresses.store), ("cart", &addresses.cart)].into_iter().flat_map(|(name, ports)| {
        Port::ALL.map(|port| {
            let endpoints: Vec<Value> = ports[port as usize]
                .iter()
                .map(
                    |address| json!({"endpoint": {"address": {"socket_address": {"address": address.ip(), "port_value": address.port()}}}}),
                )
                .collect();
            let unlimited =
                json!({"max_connections": u32::MAX, "max_pending_requests": u32::MAX, "max_requests": u32::MAX, "max_retries": u32::MAX});
            let cluster_name = format!("{name}-{}", port.of_vip());
            let mut cluster = json!({
                "name": cluster_name, "type": "STATIC", "connect_timeout": "10s", "lb_policy": "LEAST_REQUEST",
                "circuit_breakers": {"thresholds": [unlimited]},
                "load_assignment": {"cluster_name": cluster_name, "endpoints": [{"lb_endpoints": endpoints}]},
            });
            if matches!(port, Port::Http2 | Port::Grpc) {
                cluster["typed_extension_protocol_options"] = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}},
                }});
            }
            cluster
        })
    });
    json!({"static_resources": {"listeners": listeners, "clusters": clusters.collect::<Vec<_>>()}})
}

/// nginx, HTTP/1.1 to backends whatever the client speaks: it can do nothing else.
fn nginx(addresses: &Addresses, folder: &Path) -> String {
    let run = folder.display();
    let temporary: String =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {run}/nginx;\n")).concat();
    let servers = |of: &Ports, port: Port| each(&of[port as usize], " ", |_, address| format!("server {address};"));
    let upstream = |name: &str, of: &Ports| {
        let servers = servers(of, Port::Http1);
        format!("upstream {name} {{ {servers} keepalive 1024; keepalive_requests 1000000000; keepalive_timeout 600s; }}\n")
    };
    let stream = [Port::Tcp, Port::Unrouted].map(|port| {
        let (servers, vip) = (servers(&addresses.cart, port), port.of_vip());
        let listen = NGINX_PORTS + port as u16;
        format!("upstream cart{vip} {{ {servers} }} server {{ listen {listen}; proxy_pass cart{vip}; proxy_buffer_size 64k; }}\n")
    });
    format!(
        "worker_processes {WORKERS}; daemon off; error_log {run}/nginx.log warn; pid {run}/nginx.pid;\n\
         load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
         events {{ worker_connections {MANY}; }}\n\
         stream {{ {} }}\n\
         http {{\naccess_log off; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 600s; http2_max_concurrent_streams 512;\n\
         client_max_body_size 16m; proxy_request_buffering off; proxy_max_temp_file_size 0; {temporary}\
         proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;\n\
         {}{}server {{ listen {} backlog=8192; listen {} http2 backlog=8192;\n\
         location /cart {{ proxy_pass http://cart; }} location / {{ proxy_pass http://store; }} }} }}\n",
        stream.concat(),
        upstream("store", &addresses.store),
        upstream("cart", &addresses.cart),
        NGINX_PORTS + Port::Http1 as u16,
        NGINX_PORTS + Port::Http2 as u16,
    )
}

/// HAProxy, connections to backends shared, splice for bytes.
fn haproxy(addresses: &Addresses) -> String {
    let mut text = format!(
        "global\n  nbthread {WORKERS}\n  maxconn 5000\ndefaults\n  mode http\n  timeout connect 10s\n  timeout client 600s\n  \
         timeout server 600s\n  http-reuse always\n"
    );
    for port in Port::ALL {
        let number = port as usize;
        let (listen, vip) = (HAPROXY_PORTS + port as u16, port.of_vip());
        let servers = |of: &Ports, more: &str| each(&of[number], "", |nth, address| format!("  server s{nth} {address}{more}\n"));
        let protocol = if matches!(port, Port::Http2 | Port::Grpc) { " proto h2" } else { "" };
        text += &match port {
            Port::Http1 | Port::Http2 | Port::Grpc => format!(
                "frontend f{vip}\n  bind :{listen}{protocol}\n  acl cart path -m beg /cart\n  use_backend cart{vip} if cart\n  \
                 default_backend store{vip}\nbackend cart{vip}\n{}backend store{vip}\n{}",
                servers(&addresses.cart, protocol),
                servers(&addresses.store, protocol)
            ),
            Port::Tcp | Port::Unrouted => format!(
                "frontend f{vip}\n  mode tcp\n  option splice-auto\n  bind :{listen}\n  default_backend cart{vip}\nbackend cart{vip}\n  mode tcp\n  \
                 option splice-auto\n{}",
                servers(&addresses.cart, "")
            ),
        };
    }
    text
}
