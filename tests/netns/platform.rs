//! The programs in the surroundings that a platform gives them: uids, capabilities, ports that are taken, families that are missing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use init::cidr::Cidr;
use init::plan::{Exempt, Lifetime, Plan};
use init::segments::Segments;
use lab::lab::{Intercept, Options};
use nix::sys::signal::Signal;
use tests::{Bed, who, yaml};

use super::bytes::{PATIENCE, RAW, dial, inside, raw_bed};
use super::demo::{open_folder, programs, shown};
use super::gamma;

const STORE: &str = "store.default.svc.clusterset.local";

#[test]
fn the_sidecar_has_no_capability_and_cannot_gain_one() {
    let bed = Bed::start(&gamma::files(), Options::default()).expect("a lab");
    let pid = bed.sidecar_pid(&bed.client().expect("a client")).expect("a pid");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    assert_eq!((field("CapEff:"), field("CapPrm:")), ("0".repeat(16), "0".repeat(16)));
    assert_eq!((field("NoNewPrivs:").as_str(), field("Uid:").as_str()), ("1", "2102\t2102\t2102\t2102"));
}

#[test]
fn the_sidecar_s_own_uid_reaches_the_vip_itself_and_every_other_one_is_routed() {
    let bed = Bed::start(&gamma::files(), Options::default()).expect("a lab");
    let folder = open_folder();
    let program = programs(folder.path());
    let ask = |uid: u32| {
        let mut command = Command::new(&program);
        command.args(["request", &format!("http://{STORE}/cart")]).uid(uid);
        shown(&inside(&bed, move || Ok(command.output()?)))
    };
    assert!(ask(2102).contains("/store-0"), "exempt: {}", ask(2102));
    for uid in [0, 1000] {
        assert!(ask(uid).contains("/cart-0"), "{uid}: {}", ask(uid));
    }
}

#[test]
fn init_needs_one_capability_and_no_file_to_write() {
    let folder = open_folder();
    let program = programs(folder.path()).with_file_name("isthmus-init");
    let namespace = lab::Namespace::new(None).expect("a namespace");
    let run = |capabilities: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65532", "--regid=65532", "--clear-groups", "--no-new-privs"]);
        command.args([
            format!("--inh-caps={capabilities}"),
            format!("--ambient-caps={capabilities}"),
            format!("--bounding-set={capabilities}"),
        ]);
        command.args(["env", "-i"]).arg(&program).args(["install", "--vip=10.96.0.1:80"]);
        namespace.run(move || {
            // Everything read-only, as far as this thread and its children see.
            let none: Option<&str> = None;
            let flags = nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_BIND | nix::mount::MsFlags::MS_RDONLY;
            nix::mount::mount(none, "/", none, flags, none)?;
            Ok(command.output()?)
        })
    };
    let with = shown(&run("-all,+net_admin").expect("setpriv runs"));
    assert!(with.starts_with("exit status: 0"), "{with}");
    let output = run("-all").expect("setpriv runs");
    let without = shown(&output);
    assert!(!output.status.success() && without.contains("EPERM") && without.contains("CAP_NET_ADMIN"), "{without}");
}

#[test]
fn without_ipv6_both_programs_start_and_ipv4_works() {
    let namespace = lab::Namespace::new(None).expect("a namespace");
    let folder = open_folder();
    let program = programs(folder.path());
    namespace
        .run(|| {
            std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1")?;
            std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?;
            lab::loopback_only()?;
            let vip: SocketAddr = "10.96.0.1:80".parse()?;
            let init = Command::new(program.with_file_name("isthmus-init"))
                .args(["install", "--vip=10.96.0.1:80", "--vip=[fd96::1]:80"])
                .output()?;
            assert!(init.status.success(), "{}", shown(&init));
            let mut sidecar = Command::new(program.with_file_name("isthmus-sidecar"))
                .args(["--controller=http://127.0.0.1:1", "--namespace=x", "--pod=x", "--cluster=x", "--workers=1"])
                .uid(2102)
                .stderr(Stdio::piped())
                .spawn()?;
            let mut said = std::io::BufReader::new(sidecar.stderr.take().expect("piped"));
            let mut text = String::new();
            while !text.contains("serves") {
                let length = std::io::BufRead::read_line(&mut said, &mut text)?;
                assert!(length > 0, "it ended: {text}");
            }
            assert!(text.contains("left out"), "{text}");
            // The redirect leads to it: it passes the connection on to nobody, and resets it.
            let mut stream = dial(vip)?;
            let end = stream.read(&mut [0]);
            assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
            sidecar.kill()?;
            sidecar.wait()?;
            Ok(())
        })
        .expect("inside");
}

#[test]
fn a_taken_port_is_said_at_once() {
    let mut bed = Bed::start(&gamma::files(), Options::default()).expect("a lab");
    let client = bed.client().expect("a client");
    bed.end_sidecar(&client, Signal::SIGKILL).expect("killed");
    let _squatter = inside(&bed, || Ok(TcpListener::bind("127.0.0.1:15001")?));
    let error = format!("{:#}", bed.start_sidecar(&client).expect_err("taken"));
    assert!(error.contains("127.0.0.1:15001") && error.contains("in use"), "{error}");
}

#[test]
fn an_application_on_the_vip_s_port_never_gets_what_is_meant_for_the_vip() {
    for intercept in [Intercept::Exact, Intercept::Cidr] {
        let mut bed = Bed::start(&gamma::files(), Options { intercept, ..Options::default() }).expect("a lab");
        // It starts after the sidecar here, and before the sidecar's second start below: neither is in the other's way.
        let application = inside(&bed, || Ok(TcpListener::bind("[::]:80")?));
        application.set_nonblocking(true).expect("non-blocking");
        assert!(who(&bed.get(STORE, "/cart").expect("an answer")).ends_with("/cart"));
        let client = bed.client().expect("a client");
        bed.end_sidecar(&client, Signal::SIGKILL).expect("killed");
        bed.get(STORE, "/cart").expect_err("refused");
        assert!(application.accept().is_err(), "nothing arrived there");
        bed.start_sidecar(&client).expect("ready again");
        assert!(who(&bed.get(STORE, "/cart").expect("an answer")).ends_with("/cart"), "{intercept:?}");
    }
}

#[test]
fn a_connection_to_the_listener_itself_is_closed_at_once() {
    let bed = Bed::start(&gamma::files(), Options::default()).expect("a lab");
    for address in ["127.0.0.1:15001", "[::1]:15001"] {
        let end = inside(&bed, move || {
            // The reset may be quicker than any of these; the one that meets it first takes the error away from the others.
            let end = TcpStream::connect(address).and_then(|mut stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
                stream.read(&mut [0; 100])
            });
            Ok(end.map_err(|error| error.kind()))
        });
        assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset), "{address}");
    }
}

#[test]
fn a_wrong_exemption_ends_at_the_first_hop() {
    let bed = raw_bed(Intercept::Cidr);
    let client = bed.client().expect("a client");
    let vip = bed.address(&client, &format!("{RAW}:42")).expect("a VIP");
    // The sidecar's own connections are redirected as well now.
    let wrong = Plan {
        vips: [vip].into(),
        cidrs: Vec::<Cidr>::new(),
        exempt: Exempt::Uid(9999),
        port: 15001.try_into().expect("a port"),
        lifetime: Lifetime::Unlimited,
        segments: Segments::Small,
    };
    let end = inside(&bed, move || {
        wrong.install().commit()?;
        Ok(dial(vip)?.read(&mut [0; 100]).map_err(|error| error.kind()))
    });
    assert!(matches!(end, Ok(0) | Err(std::io::ErrorKind::ConnectionReset)), "{end:?}");
    let metrics = bed.sidecar_admin(&client, "/metrics").expect("metrics");
    let refused = metrics.lines().find_map(|line| line.strip_prefix("isthmus_sidecar_connections_total{kind=\"refused\"} "));
    assert_eq!(refused, Some("1"), "one hop, not ten thousand: {metrics}");
}

#[test]
fn another_port_of_a_vip_is_as_without_a_mesh() {
    for intercept in [Intercept::Exact, Intercept::Cidr] {
        let bed = Bed::start(&gamma::files(), Options { intercept, ..Options::default() }).expect("a lab");
        let error = format!("{:#}", bed.get(&format!("{STORE}:9999"), "/cart").expect_err("no such port"));
        // In CIDR mode a connection is accepted first and ended then, the one visible difference.
        assert!(!error.contains("no answer"), "{intercept:?}: it does not hang: {error}");
    }
}

#[test]
fn a_reset_stays_a_reset_in_both_directions() {
    let bed = raw_bed(Intercept::Cidr);
    let client = bed.client().expect("a client");
    let vip = bed.address(&client, &format!("{RAW}:42")).expect("a VIP");
    let raw = bed.pod("east/default/raw-0").expect("a pod");
    // The test's own server in place of the lab's.
    let mut bed = bed;
    bed.stop_server(&raw).expect("stopped");
    let listener = bed.namespace(&raw).expect("its namespace").run(|| Ok(TcpListener::bind("[::]:4242")?)).expect("a listener");
    let reset = |stream: TcpStream| socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));

    let mut stream = inside(&bed, move || dial(vip));
    let (accepted, _) = listener.accept().expect("a connection");
    reset(accepted).expect("a reset");
    assert_eq!(stream.read(&mut [0]).map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionReset), "from the server");

    let stream = inside(&bed, move || dial(vip));
    let (mut accepted, _) = listener.accept().expect("a connection");
    accepted.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    reset(stream).expect("a reset");
    assert_eq!(accepted.read(&mut [0]).map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionReset), "from the client");
}

#[test]
fn five_thousand_connections_from_four_threads_are_never_reset() {
    let bed = Bed::start(&gamma::files(), Options::default()).expect("a lab");
    let vip = bed.address(&bed.client().expect("a client"), STORE).expect("a VIP");
    inside(&bed, move || {
        let one = move || -> anyhow::Result<()> {
            for _ in 0..1250 {
                let mut stream = dial(vip)?;
                stream.write_all(b"GET /cart HTTP/1.1\r\nHost: store\r\nConnection: close\r\n\r\n")?;
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer)?;
                anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
        })
    });
}

#[test]
fn headless_imports_and_imports_of_one_family() {
    let single = yaml::all(&[
        yaml::deployment("single", "default", 1, "[{containerPort: 8080}]"),
        yaml::service("single", "default", "[{port: 80, targetPort: 8080}]", "ipFamilies: [IPv4]"),
        yaml::export("single", "default"),
        yaml::deployment("headless", "default", 1, "[{containerPort: 8080}]"),
        yaml::service("headless", "default", "[{port: 80, targetPort: 8080}]", "clusterIP: None"),
        yaml::export("headless", "default"),
    ]);
    let routes = ["single", "headless"].map(|name| yaml::route(name, "", &[yaml::import(name, "")], &[yaml::to_import("/", "cart")]));
    let mut files = gamma::files();
    files.extend([("west/single.yaml", single), ("west/routes.yaml", yaml::all(&routes))]);
    let bed = Bed::start(&files, Options::default()).expect("a lab");
    let client = bed.client().expect("a client");
    let name = "single.default.svc.clusterset.local";
    assert!(bed.resolve(&client, name).expect("a VIP").iter().all(std::net::IpAddr::is_ipv4));
    assert!(who(&bed.get(name, "/").expect("an answer")).ends_with("/cart"));
    let status = bed.route_status("west", "default", "headless").expect("a status");
    assert_eq!(status["status"]["parents"][0]["conditions"][0]["reason"], "NoMatchingParent", "{status} (M-4)");
}

#[test]
fn a_pod_that_is_its_own_endpoint_is_reached_once() {
    let client =
        "{apiVersion: v1, kind: Pod, metadata: {name: self-0, labels: {isthmus.dev/inject: enabled, app: self}}, spec: {containers: \
                  [{name: server, ports: [{containerPort: 8080}]}]}}"
            .to_owned();
    let itself =
        yaml::all(&[client, yaml::service("self", "default", "[{port: 80, targetPort: 8080}]", ""), yaml::export("self", "default")]);
    let route = yaml::route("self", "", &[yaml::import("self", "")], &[yaml::to_import("/", "self")]);
    for intercept in [Intercept::Exact, Intercept::Cidr] {
        let files = [("west/self.yaml", itself.clone()), ("west/route.yaml", route.clone())];
        let bed = Bed::start(&files, Options { intercept, ..Options::default() }).expect("a lab");
        let answer = bed.get("self.default.svc.clusterset.local", "/").expect("an answer");
        assert_eq!(who(&answer), "west/self", "{intercept:?}");
    }
}
