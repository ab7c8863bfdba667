//! Where it happens: a lab with a client whose sidecar is measured, backends that cost little, and a second VIP that peers are redirected from.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lab::lab::{Intercept, Options};
use lab::roles::PodName;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tests::{Bed, yaml};

use crate::measure::{Tracer, cpu_ns, ended_within, machine_ns, processes, rss_kib};
use crate::peers::{Kind, Peer};
use crate::report::{Figures, PerUnit};
use crate::scenario::{Port, Said, Scenario};

/// What is dialled of Isthmus.
const HOST: &str = "store.default.svc.clusterset.local";
/// What is dialled of Isthmus on the port without a route, which leads to its own pods.
const UNROUTED_HOST: &str = "cart.default.svc.clusterset.local";
/// What is dialled of everybody else; nobody has this address.
const PEERS_VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 10));
/// Uids of peers, which redirection leaves alone: from here on.
pub(crate) const PEER_UIDS: u32 = 2301;
/// The backends' uid.
const BACKEND_UID: u32 = 2300;
/// Where bodies of requests are taken in, in each pod that serves.
const BODY_SINK: &str = "127.0.0.1:8084";
/// Pods that serve, each by one process of a kind: who asks shares requests out between two processes by its own balancing, whatever the order of
/// their connections is. One server of two processes takes connections as its processes happen to be awake, and a proxy with few of them to it
/// may find all in one process.
const CARTS: usize = 2;
/// A program that does not answer for so long has not started.
const START_MAX: Duration = Duration::from_secs(20);
/// And is asked this often; it is what the time to the first answer is known to.
const ASK_EVERY: Duration = Duration::from_micros(500);
/// Beyond the time of a turn, for connecting and the last answers.
const LOAD_SLACK: Duration = Duration::from_secs(20);

/// See the module.
pub(crate) struct Stage {
    // Programs end before their namespaces.
    running: Vec<(u32, Child)>,
    bed: Bed,
    client: PodName,
    carts: Vec<PodName>,
    folder: TempDir,
}

impl Stage {
    /// Builds it; `tools` is where `prepare` has put Envoy.
    pub(crate) fn build(tools: &Path, intercept: Intercept) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("isthmus-bench-").tempdir()?;
        let run = folder.path();
        // Every uid writes its own files there.
        fs::set_permissions(run, fs::Permissions::from_mode(0o1777))?;
        // Where every uid can reach it.
        fs::copy(tools.join("envoy"), run.join("envoy")).with_context(|| format!("{}: tests/bench/prepare makes it", tools.display()))?;
        for (name, bytes) in [("1m", 1 << 20), ("4m", 4 << 20)] {
            fs::write(run.join(name), vec![b'x'; bytes])?;
            fs::write(run.join(format!("upload-{name}.lua")), format!("wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", {bytes})\n"))?;
        }
        // A gRPC message of 64 bytes.
        fs::write(run.join("message.bin"), [&[0, 0, 0, 0, 64][..], &[b'x'; 64]].concat())?;
        let ports = "[{name: http, port: 80, targetPort: 8080}, {name: h2, port: 81, targetPort: 8081, appProtocol: kubernetes.io/h2c}, \
                     {name: grpc, port: 82, targetPort: 8082, appProtocol: kubernetes.io/h2c}, {name: tcp, port: 83, targetPort: 8083}, \
                     {name: unrouted, port: 84, targetPort: 8083}]";
        let app = |name: &str, replicas: usize| {
            yaml::all(&[
                yaml::deployment(name, "default", replicas, "[]"),
                yaml::service(name, "default", ports, ""),
                yaml::export(name, "default"),
            ])
        };
        let parent = |port: u16| yaml::import("store", &format!("port: {port}"));
        let http = [80, 81, 82].map(|port| {
            let rules = ["/cart", "/"].map(|prefix| {
                let backend = yaml::import(if prefix == "/" { "store" } else { "cart" }, &format!("port: {port}"));
                format!("{{matches: [{{path: {{type: PathPrefix, value: {prefix}}}}}], backendRefs: [{backend}]}}")
            });
            yaml::route(&format!("port-{port}"), "", &[parent(port)], &rules)
        });
        let tcp = format!(
            "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TCPRoute\nmetadata: {{name: port-83}}\nspec:\n  parentRefs: [{}]\n  rules: \
             [{{backendRefs: [{}]}}]\n",
            parent(83),
            yaml::import("cart", "port: 83")
        );
        let files = [
            ("west/client.yaml", yaml::client("default")),
            ("west/apps.yaml", yaml::all(&[app("store", 1), app("cart", CARTS)])),
            ("west/routes.yaml", yaml::all(&[yaml::all(&http), tcp])),
        ];
        let sidecar_arguments = vec!["--workers=2".to_owned()];
        let options = Options { intercept, without_access_log: true, sidecar_arguments, ..Options::default() };
        let bed = Bed::start(&files, options)?;
        let client = bed.client()?;
        let carts = (0..CARTS).map(|number| bed.pod(&format!("west/default/cart-{number}"))).collect::<anyhow::Result<_>>()?;
        let mut stage = Self { running: Vec::new(), bed, client, carts, folder };
        stage.backends()?;
        stage.nft(CHAIN)?;
        stage.tune()?;
        Ok(stage)
    }

    /// The folder for what programs write.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The addresses of those that serve.
    pub(crate) fn carts(&self, port: Port) -> anyhow::Result<Vec<SocketAddr>> {
        self.carts.iter().map(|pod| self.address(pod, port)).collect()
    }

    /// The address of what routes know too, and nobody asks.
    pub(crate) fn store(&self, port: Port) -> anyhow::Result<SocketAddr> {
        self.address(&self.bed.pod("west/default/store-0")?, port)
    }

    fn address(&self, pod: &PodName, port: Port) -> anyhow::Result<SocketAddr> {
        Ok(SocketAddr::new(self.bed.addresses(pod)?[0], port.of_backend()))
    }

    /// Many short connections need many ports.
    fn tune(&self) -> anyhow::Result<()> {
        for pod in self.carts.iter().chain([&self.client]) {
            self.bed.namespace(pod)?.run(|| {
                for (name, value) in [
                    ("net.ipv4.ip_local_port_range", "1024 65535"),
                    ("net.ipv4.tcp_tw_reuse", "1"),
                    ("net.core.somaxconn", "8192"),
                    ("net.ipv4.tcp_max_syn_backlog", "8192"),
                ] {
                    let status = Command::new("sysctl").args(["-qw", &format!("{name}={value}")]).status()?;
                    ensure!(status.success(), "sysctl {name}: {status}");
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn backends(&mut self) -> anyhow::Result<()> {
        let own = std::env::current_exe()?.display().to_string();
        for cart in self.carts.clone() {
            for command in [
                vec!["nginx".to_owned(), "-c".to_owned(), self.backend_configuration(&cart)?],
                vec![own.clone(), "grpc-server".to_owned(), "0.0.0.0:8082".to_owned()],
                vec![own.clone(), "sink".to_owned(), "0.0.0.0:8083".to_owned()],
                vec![own.clone(), "body-sink".to_owned(), BODY_SINK.to_owned()],
            ] {
                self.spawn(&cart, BACKEND_UID, &command)?;
            }
            self.wait_for_answer(self.address(&cart, Port::Http1)?)?;
        }
        Ok(())
    }

    /// Writes what nginx serves in a pod; the file.
    fn backend_configuration(&self, pod: &PodName) -> anyhow::Result<String> {
        let run = self.folder().display().to_string();
        let own = self.folder().join(pod.to_string().replace('/', "-")).display().to_string();
        let temporary: String =
            ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {own}-{name};\n")).concat();
        let configuration = format!(
            "worker_processes 1; daemon off; error_log {own}.log warn; pid {own}.pid;\n\
             events {{ worker_connections 16384; }}\n\
             http {{\naccess_log off; sendfile on; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 600s; server_tokens off;\n\
             http2_max_concurrent_streams 512; client_max_body_size 16m; {temporary} types {{ }} default_type text/plain; open_file_cache max=10;\n\
             upstream bodies {{ server {BODY_SINK}; keepalive 64; }}\n\
             server {{ listen 8080 backlog=8192; listen 8081 http2 backlog=8192;\n\
             location / {{ return 200 \"served\\n\"; }}\n\
             location = /cart/up {{ proxy_pass http://bodies; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_request_buffering off; }}\n\
             location = /cart/1m {{ alias {run}/1m; }} location = /cart/4m {{ alias {run}/4m; }} }} }}\n"
        );
        let file = format!("{own}.conf");
        fs::write(&file, configuration)?;
        Ok(file)
    }

    fn spawn(&mut self, pod: &PodName, uid: u32, command: &[String]) -> anyhow::Result<()> {
        let (program, arguments) = command.split_first().context("a program")?;
        let log = fs::File::options().create(true).append(true).open(self.folder().join(format!("{uid}.log")))?;
        let folder = self.folder().to_owned();
        let child = self.bed.namespace(pod)?.run(|| {
            let mut command = Command::new(program);
            command.args(arguments).current_dir(&folder).uid(uid).gid(uid).process_group(0);
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            command.spawn().with_context(|| program.clone())
        })?;
        self.running.push((uid, child));
        Ok(())
    }

    /// Starts a peer and waits for its first answer; of Isthmus and of none it is there already.
    pub(crate) fn begin(&mut self, peer: &Peer) -> anyhow::Result<()> {
        if let Kind::Program { uid, command } = &peer.kind {
            let client = self.client.clone();
            self.spawn(&client, *uid, command)?;
        }
        self.turn_to(peer)?;
        self.wait_for_answer(self.destination(peer, Port::Http1)?).with_context(|| format!("{} does not answer", peer.name))?;
        Ok(())
    }

    /// Time from starting a peer's program to its first answer; none of what is no program. It runs no more afterwards.
    pub(crate) fn start_again(&mut self, peer: &Peer) -> anyhow::Result<Option<Duration>> {
        self.turn_to(peer)?;
        let destination = self.destination(peer, Port::Http1)?;
        let began = Instant::now();
        match &peer.kind {
            Kind::Direct | Kind::Dnat => return Ok(None),
            Kind::Isthmus => {
                let client = self.client.clone();
                self.bed.end_sidecar(&client, Signal::SIGTERM)?;
                let (sender, answered) = std::sync::mpsc::channel();
                // The lab waits for more than the first answer.
                let asker = self.bed.namespace(&client)?.spawn("first answer", move || {
                    // Whoever waits may have given up.
                    let _ = sender.send(ask_until_answered(destination));
                })?;
                let began = Instant::now();
                self.bed.start_sidecar(&client)?;
                let answered = answered.recv().context("the asker ended")??;
                asker.join().map_err(|_| anyhow::anyhow!("the asker panicked"))?;
                return Ok(Some(answered - began));
            }
            Kind::Program { uid, command } => {
                let client = self.client.clone();
                self.spawn(&client, *uid, command)?;
            }
        }
        self.wait_for_answer(destination)?;
        let took = began.elapsed();
        if let Kind::Program { uid, .. } = &peer.kind {
            self.end_those(*uid, Signal::SIGTERM);
        }
        Ok(Some(took))
    }

    /// From now on the VIP of the peers leads to this one.
    pub(crate) fn turn_to(&self, peer: &Peer) -> anyhow::Result<()> {
        let mut rules = "flush chain ip bench output\n".to_owned();
        let rule =
            |port: Port, verdict: String| format!("add rule ip bench output ip daddr {PEERS_VIP} tcp dport {} {verdict}\n", port.of_vip());
        match &peer.kind {
            Kind::Direct | Kind::Isthmus => {}
            Kind::Dnat => {
                for port in Port::ALL {
                    let addresses = self.carts(port)?;
                    let in_turn = addresses.iter().enumerate().map(|(number, to)| format!("{number} : {} . {}", to.ip(), to.port()));
                    let in_turn = in_turn.collect::<Vec<_>>().join(", ");
                    rules += &rule(port, format!("dnat ip to numgen inc mod {} map {{ {in_turn} }}", addresses.len()));
                }
            }
            Kind::Program { .. } => {
                rules += &format!("add rule ip bench output meta skuid {PEER_UIDS}-{} return\n", PEER_UIDS + 98);
                for port in Port::ALL {
                    if let Some(local) = peer.ports[port as usize] {
                        rules += &rule(port, format!("redirect to :{local}"));
                    }
                }
            }
        }
        self.nft(&rules)
    }

    fn nft(&self, rules: &str) -> anyhow::Result<()> {
        self.bed.namespace(&self.client)?.run(|| nft(rules))
    }

    fn destination(&self, peer: &Peer, port: Port) -> anyhow::Result<SocketAddr> {
        match peer.kind {
            Kind::Direct => self.address(&self.carts[0], port),
            Kind::Isthmus => {
                let host = if port == Port::Unrouted { UNROUTED_HOST } else { HOST };
                self.bed.address(&self.client, &format!("{host}:{}", port.of_vip()))
            }
            Kind::Dnat | Kind::Program { .. } => Ok(SocketAddr::new(PEERS_VIP, port.of_vip())),
        }
    }

    fn wait_for_answer(&self, destination: SocketAddr) -> anyhow::Result<()> {
        self.bed.namespace(&self.client)?.run(|| ask_until_answered(destination).map(drop))
    }

    /// A target that does something else is not measured.
    pub(crate) fn check(&self, peer: &Peer) -> anyhow::Result<()> {
        let destination = self.destination(peer, Port::Http1)?;
        self.bed.namespace(&self.client)?.run(|| {
            let answer = get(destination, "/cart/x")?;
            ensure!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("served\n"), "{}: {answer}", peer.name);
            Ok(())
        })
    }

    fn pids(&self, peer: &Peer) -> anyhow::Result<Vec<u32>> {
        match peer.kind {
            Kind::Direct | Kind::Dnat => Ok(Vec::new()),
            Kind::Isthmus => Ok(vec![self.bed.sidecar_pid(&self.client)?]),
            Kind::Program { uid, .. } => processes(uid),
        }
    }

    /// Resident memory of a peer, KiB.
    pub(crate) fn memory(&self, peer: &Peer) -> anyhow::Result<u64> {
        rss_kib(&self.pids(peer)?)
    }

    /// One turn.
    pub(crate) fn load(&self, peer: &Peer, scenario: &Scenario, time: Duration) -> anyhow::Result<Figures> {
        let (pids, backend) = (self.pids(peer)?, processes(BACKEND_UID)?);
        let (proxy_before, backend_before, machine_before) = (cpu_ns(&pids), cpu_ns(&backend), machine_ns()?);
        let began = Instant::now();
        let (said, rss_kib) = self.ask(peer, scenario, time, &pids)?;
        let took = began.elapsed().as_secs_f64();
        let per_unit = |nanoseconds: u64| as_f64(nanoseconds) / 1e3 / said.count;
        let (proxy, served) = (cpu_ns(&pids) - proxy_before, cpu_ns(&backend) - backend_before);
        let machine = machine_ns()? - machine_before;
        Ok(Figures {
            proxy_us: per_unit(proxy),
            backend_us: per_unit(served),
            machine_us: per_unit(machine),
            busy: as_f64(machine) / 1e9 / took,
            per_second: said.count / time.as_secs_f64(),
            errors: said.errors,
            latency_us: said.latency_us,
            rss_kib: (scenario.connections() >= 256).then_some(rss_kib),
        })
    }

    /// One turn in which the system calls of a peer are counted: how many it makes for one unit, by name; none of what is no program.
    pub(crate) fn system_calls(&self, peer: &Peer, scenario: &Scenario, time: Duration) -> anyhow::Result<Option<PerUnit>> {
        let pids = self.pids(peer)?;
        if pids.is_empty() {
            return Ok(None);
        }
        let tracer = Tracer::attach(&pids)?;
        let (said, _) = self.ask(peer, scenario, time, &pids)?;
        let calls = tracer.detach()?;
        Ok(Some(calls.into_iter().map(|(name, calls)| (name, as_f64(calls) / said.count)).collect()))
    }

    /// Runs the load program; what it says, and the memory of these processes while it ran, KiB.
    fn ask(&self, peer: &Peer, scenario: &Scenario, time: Duration, pids: &[u32]) -> anyhow::Result<(Said, u64)> {
        let destination = self.destination(peer, scenario.port)?;
        let command = scenario.command(HOST, destination.ip(), destination.port(), time);
        let folder = self.folder();
        let (printed, rss_kib) = self.bed.namespace(&self.client)?.run(|| {
            let (program, arguments) = command.split_first().context("a program")?;
            let mut load = Command::new(program);
            load.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let child = load.spawn().with_context(|| program.clone())?;
            // A point of time and not a wait: memory is read while the load program, which says nothing meanwhile, has all connections open.
            std::thread::sleep(time.mul_f64(0.7));
            let rss = if pids.is_empty() { 0 } else { rss_kib(pids)? };
            let output = ended_within(child, time + LOAD_SLACK)?;
            ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
            Ok((String::from_utf8_lossy(&output.stdout).into_owned(), rss))
        })?;
        let said = scenario.read(&printed)?;
        ensure!(said.count > 0.0, "{}: {} did nothing: {printed}", peer.name, scenario.name);
        Ok((said, rss_kib))
    }

    fn end_those(&mut self, of: u32, with: Signal) {
        for (_, mut child) in self.running.extract_if(.., |(uid, _)| *uid == of) {
            if let Ok(pid) = i32::try_from(child.id()) {
                // All of its group; one that has ended already needs no signal.
                let _ = kill(Pid::from_raw(-pid), with);
            }
            // How it ends is nobody's concern here; that it has is.
            let _ = child.wait();
        }
    }

    /// Ends all programs, and the sidecar as a kubelet would: one that counts what it does writes that at its end.
    pub(crate) fn finish(&mut self) -> anyhow::Result<()> {
        self.end(Signal::SIGTERM);
        let client = self.client.clone();
        self.bed.end_sidecar(&client, Signal::SIGTERM)
    }

    fn end(&mut self, with: Signal) {
        let uids: Vec<u32> = self.running.iter().map(|(uid, _)| *uid).collect();
        uids.into_iter().for_each(|uid| self.end_those(uid, with));
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.end(Signal::SIGKILL);
    }
}

/// Makes the chain `ip bench output`, in which what is dialled is led elsewhere.
pub(crate) const CHAIN: &str = "add table ip bench\nadd chain ip bench output { type nat hook output priority -110; }\n";

/// Changes the rules of the network namespace that the calling thread is in.
pub(crate) fn nft(rules: &str) -> anyhow::Result<()> {
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().context("nft")?;
    nft.stdin.take().context("standard input")?.write_all(rules.as_bytes())?;
    let status = nft.wait()?;
    ensure!(status.success(), "nft: {status}: {rules}");
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

/// Asks until there is an answer; when it came.
fn ask_until_answered(destination: SocketAddr) -> anyhow::Result<Instant> {
    let end = Instant::now() + START_MAX;
    loop {
        match get(destination, "/cart/x") {
            Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => return Ok(Instant::now()),
            Ok(answer) => ensure!(Instant::now() < end, "{destination} answers {answer}"),
            Err(error) => ensure!(Instant::now() < end, "{destination}: {error}"),
        }
        // Nobody says when a program of others that has just been started answers.
        std::thread::sleep(ASK_EVERY);
    }
}

fn get(destination: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&destination, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
