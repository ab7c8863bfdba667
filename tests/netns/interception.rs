//! What installing, changing and withdrawing interception does to connections: the table of `isthmus-init` against a plain listener in the
//! sidecar's place.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU16;

use init::nft::{Batch, Chain, Expression, Family, Hook, Protocol};
use init::plan::{Exempt, Installed, Lifetime, Plan, TABLE, withdraw};
use init::segments::Segments;
use lab::lab::Options;
use tests::{Bed, yaml};

use super::bytes::{PATIENCE, RAW, dial};

pub(super) const PORT: u16 = 15001;

/// A pod `app` without a sidecar, and `raw`, which speaks first.
pub(super) fn bed() -> (Bed, SocketAddr) {
    let raw = yaml::all(&[
        yaml::deployment("raw", "default", 1, "[{name: tcp-raw, containerPort: 4242}]"),
        yaml::service("raw", "default", "[{name: tcp-raw, port: 42, targetPort: 4242}, {name: again, port: 43, targetPort: 4242}]", ""),
        yaml::export("raw", "default"),
    ]);
    let app = "{apiVersion: v1, kind: Pod, metadata: {name: app}, spec: {containers: [{name: app}]}}".to_owned();
    let bed = Bed::start(&[("west/raw.yaml", raw), ("west/app.yaml", app)], Options::default()).expect("a lab");
    let vip = bed.address(&bed.pod("west/default/app").expect("a pod"), &format!("{RAW}:42")).expect("a VIP");
    (bed, vip)
}

pub(super) fn inside<T: Send>(bed: &Bed, work: impl FnOnce() -> anyhow::Result<T> + Send) -> T {
    let app = bed.pod("west/default/app").expect("a pod");
    bed.namespace(&app).expect("its namespace").run(work).expect("inside")
}

pub(super) fn plan(vips: &[SocketAddr]) -> Plan {
    Plan {
        vips: vips.iter().copied().collect(),
        cidrs: Vec::new(),
        exempt: Exempt::Uid(2102),
        port: NonZeroU16::new(PORT).expect("a port"),
        lifetime: Lifetime::Unlimited,
        segments: Segments::Small,
    }
}

/// Reads a line.
pub(super) fn line(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\n") {
        stream.read_exact(&mut byte)?;
        text.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
}

pub(super) fn echoes(stream: &mut TcpStream) -> std::io::Result<bool> {
    stream.write_all(b"still there?\n")?;
    Ok(line(stream)? == "still there?")
}

/// A connection that was redirected: both its ends.
pub(super) fn redirected(listener: &TcpListener, vip: SocketAddr) -> anyhow::Result<(TcpStream, TcpStream)> {
    let client = dial(vip)?;
    let (server, _) = listener.accept()?;
    server.set_read_timeout(Some(PATIENCE))?;
    Ok((client, server))
}

pub(super) fn talk(pair: &mut (TcpStream, TcpStream)) -> std::io::Result<()> {
    pair.0.write_all(b"there\n")?;
    assert_eq!(line(&mut pair.1)?, "there");
    pair.1.write_all(b"back\n")?;
    assert_eq!(line(&mut pair.0)?, "back");
    Ok(())
}

#[test]
fn a_connection_from_before_lives_on_because_only_syns_are_redirected() {
    let (bed, vip) = bed();
    inside(&bed, move || {
        let mut before = dial(vip)?;
        assert!(line(&mut before)?.starts_with("hello"));
        plan(&[vip]).install().commit()?;
        assert!(echoes(&mut before)?, "it lives on");
        let refused = TcpStream::connect(vip).expect_err("nobody listens at the sidecar's port");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "a new one is redirected");

        // Without the SYN match the same connection breaks: the check above can fail.
        let mut batch = Batch::new(TABLE);
        batch.replace_table();
        batch.chain(&Chain::nat("output", Hook::Output, -100));
        batch.rule(
            "output",
            "every segment",
            &[
                Expression::Family(Family::V4),
                Expression::Protocol(Protocol::Tcp),
                Expression::DestinationIs(vip.ip()),
                Expression::Redirect(NonZeroU16::new(PORT).expect("a port")),
            ],
        );
        init::plan::delete()?;
        let mut fresh = dial(vip)?;
        assert!(line(&mut fresh)?.starts_with("hello"));
        batch.commit()?;
        assert!(echoes(&mut fresh).is_err(), "redirected in the middle");
        Ok(())
    });
}

#[test]
fn installing_again_leaves_redirected_connections_alone() {
    let (bed, vip) = bed();
    inside(&bed, move || {
        let listener = TcpListener::bind(("127.0.0.1", PORT))?;
        plan(&[vip]).install().commit()?;
        let rules = Installed::read()?.rules;
        let mut pair = redirected(&listener, vip)?;
        talk(&mut pair)?;
        plan(&[vip]).install().commit()?;
        talk(&mut pair)?;
        assert_eq!(Installed::read()?.rules, rules, "the same rules, not twice");
        Ok(())
    });
}

#[test]
fn withdrawing_leaves_redirected_connections_alone_and_lets_new_ones_by() {
    let (bed, vip) = bed();
    inside(&bed, move || {
        let listener = TcpListener::bind(("127.0.0.1", PORT))?;
        plan(&[vip]).install().commit()?;
        let mut pair = redirected(&listener, vip)?;
        withdraw()?;
        talk(&mut pair)?;
        assert!(line(&mut dial(vip)?)?.starts_with("hello"), "a new one goes where it went without us");
        withdraw()?;
        init::plan::delete()?;
        withdraw()?;
        Ok(())
    });
}

#[test]
fn a_set_is_replaced_whole_whatever_was_in_it() {
    let (bed, vip) = bed();
    inside(&bed, move || {
        let other: SocketAddr = "10.255.0.1:1".parse()?;
        plan(&[vip]).install().commit()?;
        for wanted in [&[other][..], &[vip, other], &[], &[vip]] {
            plan(wanted).replace_vips().commit()?;
            assert_eq!(Installed::read()?.vips, wanted.iter().copied().collect::<BTreeSet<_>>());
        }
        Ok(())
    });
}

#[test]
fn a_set_is_changed_by_the_difference_or_not_at_all() {
    let (bed, _) = bed();
    let [a, b, c] = ["10.96.0.1:80", "[fd96::1]:80", "10.96.0.2:80"].map(|vip| vip.parse::<SocketAddr>().expect("an address"));
    inside(&bed, move || {
        plan(&[a, b]).install().commit()?;
        plan(&[b, c]).change_vips(&[a, b].into()).commit()?;
        assert_eq!(Installed::read()?.vips, [b, c].into());
        plan(&[b, c]).change_vips(&[b, c].into()).commit()?;
        plan(&[b]).change_vips(&[a, b].into()).commit().expect_err("a is not there");
        assert_eq!(Installed::read()?.vips, [b, c].into(), "nothing of it is done");
        Ok(())
    });
    let mut watch = Watch::start(&bed, &[]);
    let mut stream = watch.connect();
    watch.want(&mut stream, &[a, b]);
    // Somebody else has a hand in it: what is wanted is there all the same.
    inside(&bed, move || Ok(plan(&[c]).replace_vips().commit()?));
    watch.want(&mut stream, &[a]);
    assert_eq!(inside(&bed, || Ok(Installed::read()?.vips)), [a].into());
}

#[test]
fn thousands_of_vips_are_one_transaction() {
    let (bed, _) = bed();
    inside(&bed, || {
        let four = (0..5000_u16).map(|number| SocketAddr::from(([10, 250, number.to_be_bytes()[0], number.to_be_bytes()[1]], 80)));
        let six = (0..3000_u16).map(|number| SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, number], 80)));
        let vips: Vec<SocketAddr> = four.chain(six).collect();
        plan(&vips).install().commit()?;
        assert_eq!(Installed::read()?.vips.len(), 8000);
        plan(&vips[..10]).replace_vips().commit()?;
        assert_eq!(Installed::read()?.vips.len(), 10);
        Ok(())
    });
}

#[test]
fn a_uid_is_counted_as_the_pod_s_own_user_namespace_counts() {
    let (bed, vip) = bed();
    let programs = super::demo::open_folder();
    let isthmus = super::demo::programs(programs.path());
    let app = bed.pod("west/default/app").expect("a pod");
    // A namespace that belongs to another user namespace, in which uid 2102 is another uid outside.
    let mut holder = bed
        .namespace(&app)
        .expect("its namespace")
        .run(|| {
            Ok(std::process::Command::new("unshare")
                .args(["-Un", "sh", "-c", "echo here; read end"])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()?)
        })
        .expect("unshare runs");
    let mut said = [0; 5];
    holder.stdout.as_mut().expect("piped").read_exact(&mut said).expect("it is there");
    let pid = holder.id();
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{pid}/{map}"), "0 100000 65536").expect("mapped");
    }
    let netns = format!("/proc/{pid}/ns/net");
    let outcomes = init::netns::within(Some(netns.as_ref()), || {
        lab::loopback_only()?;
        plan(&[vip]).install().commit()?;
        // Only the redirect leads anywhere here; whoever is exempt finds nobody.
        let listener = TcpListener::bind(("127.0.0.1", PORT))?;
        listener.set_nonblocking(true)?;
        let mut arrived = Vec::new();
        for uid in [102_102, 100_000] {
            let mut child = std::process::Command::new(&isthmus);
            use std::os::unix::process::CommandExt;
            let mut child = child.args(["request", &format!("http://{vip}/")]).uid(uid).stderr(std::process::Stdio::null()).spawn()?;
            let end = std::time::Instant::now() + std::time::Duration::from_secs(2);
            let mut hit = false;
            while !hit && std::time::Instant::now() < end && child.try_wait()?.is_none() {
                hit = listener.accept().is_ok();
                std::thread::yield_now();
            }
            child.kill()?;
            child.wait()?;
            arrived.push(hit);
        }
        Ok(arrived)
    });
    holder.kill().expect("ended");
    holder.wait().expect("ended");
    assert_eq!(outcomes.expect("inside"), [false, true], "2102 inside is exempt, 0 inside is not");
}

#[test]
fn a_pod_without_a_route_is_told_so() {
    let namespace = lab::Namespace::new(None).expect("a namespace");
    let program = std::env::current_exe().expect("own path").ancestors().nth(2).expect("a folder").join("isthmus-init");
    let output = namespace
        .run(|| Ok(std::process::Command::new(program).args(["install", "--vip=10.96.0.1:80"]).output()?))
        .expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("no route"), "{said}");
}

#[test]
fn what_somebody_deletes_is_reported_and_put_back() {
    let mut bed = Bed::start(&super::gamma::files(), Options::default()).expect("a lab");
    let client = bed.client().expect("a client");
    let namespace = bed.namespace(&client).expect("its namespace");
    let before = namespace.run(|| Ok(Installed::read()?)).expect("what is there");
    assert!(!before.vips.is_empty());
    namespace.run(|| Ok(init::plan::delete()?)).expect("deleted, as `nft flush ruleset` would");
    let end = std::time::Instant::now() + PATIENCE;
    while namespace.run(|| Ok(Installed::read()?)).expect("what is there") != before {
        assert!(std::time::Instant::now() < end, "not put back");
    }
    assert!(bed.logs(&client).expect("logs").contains("somebody deleted the table"));
    bed.settled().expect("in force");
    assert_eq!(bed.get("store.default.svc.clusterset.local", "/").expect("an answer").status, 404, "routed again");
}

#[test]
fn what_is_in_force_is_read_whole_while_it_is_replaced() {
    let namespace = lab::Namespace::new(None).expect("a namespace");
    let [one, other] = ["10.96.0.1:80", "10.96.0.2:80"].map(|vip| plan(&[vip.parse().expect("an address")]));
    let states = namespace.run(|| {
        let mut states = vec![Installed::read()?];
        for plan in [&one, &other] {
            plan.install().commit()?;
            states.push(Installed::read()?);
        }
        Ok(states)
    });
    let states = states.expect("each by itself");
    assert_eq!(states[1].vips.len() + states[2].vips.len(), 2, "{states:?}");
    let replacing = namespace.spawn("replaces", move || {
        for _ in 0..50 {
            let replaced = one.install().commit().and_then(|()| other.install().commit()).and_then(|()| init::plan::delete());
            replaced.expect("replaced");
        }
    });
    let replacing = replacing.expect("a thread");
    let read = namespace.run(|| {
        let mut count = 0;
        while !replacing.is_finished() {
            let installed = Installed::read()?;
            assert!(states.contains(&installed), "a mixture of two states: {installed:?}");
            count += 1;
        }
        Ok(count)
    });
    replacing.join().expect("its end");
    assert!(read.expect("read every time") > 0);
}

/// `isthmus-init watch` in the namespace of `app`, and the sidecar's end of its socket.
pub(super) struct Watch {
    child: std::process::Child,
    folder: tempfile::TempDir,
    version: u64,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("its end");
    }
}

impl Watch {
    pub(super) fn start(bed: &Bed, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = format!("--socket={}", folder.path().join("s").display());
        let program = std::env::current_exe().expect("own path").ancestors().nth(2).expect("a folder").join("isthmus-init");
        let mut command = std::process::Command::new(program);
        command.arg("watch").arg(socket).args(arguments);
        let child = inside(bed, move || Ok(command.spawn()?));
        Self { child, folder, version: 0 }
    }

    pub(super) fn connect(&mut self) -> std::os::unix::net::UnixStream {
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            if let Ok(stream) = std::os::unix::net::UnixStream::connect(self.folder.path().join("s")) {
                return stream;
            }
            assert!(self.child.try_wait().expect("a child").is_none(), "it has ended");
            assert!(std::time::Instant::now() < end, "it does not listen");
        }
    }

    /// Says what is wanted, and waits until that is in place.
    pub(super) fn want(&mut self, stream: &mut std::os::unix::net::UnixStream, vips: &[SocketAddr]) {
        self.version += 1;
        let wish = serde_json::json!({"version": self.version, "vips": vips});
        stream.write_all(format!("{wish}\n").as_bytes()).expect("said");
        let mut answer = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stream), &mut answer).expect("an answer");
        assert_eq!(answer, format!("{{\"version\":{},\"ok\":true}}\n", self.version));
    }
}

#[test]
fn a_watch_that_restarts_over_thousands_of_vips_goes_on() {
    let (bed, vip) = bed();
    let vips: Vec<SocketAddr> =
        (0..5000_u16).map(|number| SocketAddr::from(([10, 250, number.to_be_bytes()[0], number.to_be_bytes()[1]], 80))).collect();
    inside(&bed, || Ok(plan(&vips).install().commit()?));
    let mut watch = Watch::start(&bed, &[]);
    let mut stream = watch.connect();
    assert_eq!(inside(&bed, || Ok(Installed::read()?.vips.len())), 5000, "what its predecessor had is still there");
    watch.want(&mut stream, &vips[..4000]);
    watch.want(&mut stream, &[vip]);
    assert_eq!(inside(&bed, || Ok(Installed::read()?.vips)), [vip].into());
}

#[test]
fn connections_from_the_time_without_a_sidecar_are_ended_where_that_was_asked_for() {
    let (bed, vip) = bed();
    let mut watch = Watch::start(&bed, &["--fail=open", "--existing=reset"]);
    let mut stream = watch.connect();
    watch.want(&mut stream, &[vip]);
    drop(stream);
    let end = std::time::Instant::now() + PATIENCE;
    while !inside(&bed, || Ok(Installed::read()?.vips.is_empty())) {
        assert!(std::time::Instant::now() < end, "the elements do not vanish");
    }
    let mut meanwhile = inside(&bed, move || dial(vip));
    assert!(line(&mut meanwhile).expect("a line").starts_with("hello"), "the platform's way");
    let mut stream = watch.connect();
    assert!(echoes(&mut meanwhile).expect("an echo"), "a sidecar that has said nothing yet changes nothing");
    watch.want(&mut stream, &[vip]);
    assert!(echoes(&mut meanwhile).is_err(), "ended, so that the client reconnects and obeys");
}

#[test]
fn verify_proves_the_redirect_and_names_what_rewrites_a_known_service() {
    let (bed, vip) = bed();
    inside(&bed, move || {
        let plan = plan(&[]);
        let error = init::verify::verify(&plan, None).expect_err("nothing is installed");
        assert!(error.to_string().contains("nothing is installed"), "{error}");
        plan.install().commit()?;
        let report = init::verify::verify(&plan, Some(vip))?;
        assert!(
            report.iter().any(|line| line.contains(&vip.to_string())) && report.len() == 3,
            "both families and the known one: {report:?}"
        );
        assert!(Installed::read()?.vips.is_empty(), "the probes are gone");

        // What is there with a time to live keeps it.
        let renewed = Plan { lifetime: Lifetime::Renewed(std::time::Duration::from_millis(500)), vips: [vip].into(), ..plan.clone() };
        renewed.install().commit()?;
        init::verify::verify(&plan, None)?;
        let end = std::time::Instant::now() + PATIENCE;
        while !Installed::read()?.vips.is_empty() {
            assert!(std::time::Instant::now() < end, "it has become permanent");
        }

        // A stand-in for a socket load balancer: it rewrites only the VIPs that it knows, before our rule is asked.
        let mut rewrites = Batch::new("socket-lb");
        rewrites.replace_table();
        rewrites.chain(&Chain::nat("output", Hook::Output, -150));
        let backend: SocketAddr = "127.0.0.1:4299".parse()?;
        let _backend = TcpListener::bind(backend)?;
        rewrites.rule(
            "output",
            "known",
            &[
                Expression::Family(Family::V4),
                Expression::Protocol(Protocol::Tcp),
                Expression::DestinationIs(vip.ip()),
                Expression::DestinationNat(backend),
            ],
        );
        rewrites.commit()?;
        init::verify::verify(&plan, None)?;
        let error = format!("{:#}", init::verify::verify(&plan, Some(vip)).expect_err("bypassed"));
        assert!(error.contains("socketLB.hostNamespaceOnly") && error.contains(&vip.to_string()), "{error}");
        assert!(Installed::read()?.vips.is_empty(), "the probes are gone all the same");
        Ok(())
    });
}
