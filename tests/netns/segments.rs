//! How large segments of intercepted connections are, and that nothing else is led astray by the routes that make them so.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Instant;

use init::plan::{Exempt, Installed, Plan, withdraw};
use init::segments::{Segments, enlarge, shrink};
use nix::sys::socket::{getsockopt, sockopt};

use super::bytes::{PATIENCE, dial};
use super::interception::{PORT, Watch, bed, echoes, inside, line, plan, redirected, talk};

/// What the pod's own interface takes, with some to spare.
const SMALL: u32 = 1500;
/// What the loopback interface takes is more than this.
const LARGE: u32 = 32_000;

fn segment(stream: &TcpStream) -> anyhow::Result<u32> {
    Ok(getsockopt(stream, sockopt::TcpMaxSeg)?)
}

fn large(vips: &[SocketAddr]) -> Plan {
    Plan { segments: Segments::Received, ..plan(vips) }
}

/// As `isthmus-init` does it; how many have large segments.
fn put_in_force(plan: &Plan) -> anyhow::Result<usize> {
    shrink(plan)?;
    plan.install().commit()?;
    Ok(enlarge(plan)?)
}

/// The same until so many have them: connections that were just closed are on their way out for a moment.
fn put_in_force_for(plan: &Plan, count: usize) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while put_in_force(plan)? != count {
        anyhow::ensure!(Instant::now() < end, "not {count}: {}", Installed::read()?);
    }
    Ok(())
}

/// Rules of the pod beside the kernel's own three.
fn rules() -> anyhow::Result<Vec<String>> {
    let output = Command::new("ip").args(["-4", "rule", "list"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().filter(|line| line.starts_with("1500")).map(str::to_owned).collect())
}

/// What the first line is that this uid gets from an address.
fn first_line_for(uid: u32, address: SocketAddr) -> anyhow::Result<String> {
    let script = format!("exec 3<>/dev/tcp/{}/{}; head -n1 <&3", address.ip(), address.port());
    let output = Command::new("timeout").args(["5", "bash", "-c", &script]).uid(uid).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn segments_of_redirected_connections_are_large_and_nothing_else_takes_their_way() {
    let (bed, vip) = bed();
    let other_port = SocketAddr::new(vip.ip(), 43);
    inside(&bed, move || {
        let listener = TcpListener::bind(("127.0.0.1", PORT))?;
        // Without the routes they are as small as the pod's interface takes them: the check below can fail.
        put_in_force(&plan(&[vip]))?;
        let (client, server) = redirected(&listener, vip)?;
        assert!(segment(&client)? < SMALL && segment(&server)? < SMALL, "{} {}", segment(&client)?, segment(&server)?);
        drop((client, server));
        put_in_force_for(&large(&[vip]), 1)?;
        let mut pair = redirected(&listener, vip)?;
        assert!(segment(&pair.0)? < SMALL && segment(&pair.1)? > LARGE, "{} {}", segment(&pair.0)?, segment(&pair.1)?);
        talk(&mut pair)?;
        assert!(line(&mut dial(other_port)?)?.starts_with("hello"), "another port of the VIP goes where it went");
        assert!(first_line_for(2102, vip)?.starts_with("hello"), "the sidecar's own connections go where they went");
        assert!(Installed::read()?.to_string().ends_with(&format!("large  {vip} (received)\n")), "{}", Installed::read()?);

        drop(listener);
        let refused = TcpStream::connect(vip).expect_err("nobody listens at the sidecar's port");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        talk(&mut pair)?;

        withdraw()?;
        assert!(line(&mut dial(vip)?)?.starts_with("hello"), "a new one goes where it went without us");
        talk(&mut pair)?;
        assert_eq!((rules()?, Installed::read()?.large_segments.len()), (vec![], 0), "nothing is left");
        Ok(())
    });
}

#[test]
fn what_the_application_sends_is_large_only_where_that_was_asked_for() {
    let (bed, vip) = bed();
    inside(&bed, move || {
        let listener = TcpListener::bind(("127.0.0.1", PORT))?;
        for (segments, is_large) in [(Segments::Received, false), (Segments::All, true), (Segments::Received, false)] {
            put_in_force_for(&Plan { segments, ..plan(&[vip]) }, 1)?;
            let (client, server) = redirected(&listener, vip)?;
            assert_eq!(segment(&client)? > LARGE, is_large, "{segments:?}: {}", segment(&client)?);
            assert!(segment(&server)? > LARGE, "{segments:?}: {}", segment(&server)?);
        }
        Ok(())
    });
}

#[test]
fn rules_of_others_at_the_same_priority_stay() {
    let (bed, vip) = bed();
    inside(&bed, move || {
        let add = |rule: &str| Command::new("ip").args(["rule", "add"]).args(rule.split(' ')).status();
        assert!(add("pref 15002 from 10.255.0.1 lookup main")?.success() && add("pref 15001 fwmark 0x99 lookup main")?.success());
        let before = rules()?;
        assert_eq!(put_in_force(&large(&[vip]))?, 1);
        assert_eq!(rules()?.len(), before.len() + 3);
        withdraw()?;
        assert_eq!((rules()?, before.len()), (before, 2));
        Ok(())
    });
}

#[test]
fn a_vip_with_a_connection_from_before_waits_until_that_is_over() {
    let (bed, vip) = bed();
    let other_port = SocketAddr::new(vip.ip(), 43);
    inside(&bed, move || {
        let mut before = dial(vip)?;
        assert!(line(&mut before)?.starts_with("hello"));
        assert_eq!(put_in_force(&large(&[vip, other_port]))?, 1, "the other one has no such connection");
        assert!(echoes(&mut before)?, "it lives on");
        drop(before);
        put_in_force_for(&large(&[vip, other_port]), 2)?;
        // What is intercepted no more goes where it went, whatever else is.
        assert_eq!(put_in_force(&large(&[other_port]))?, 1);
        assert!(line(&mut dial(vip)?)?.starts_with("hello"));
        Ok(())
    });
}

#[test]
fn another_sidecar_is_spared_as_soon_as_the_plan_says_so() {
    let (bed, vip) = bed();
    inside(&bed, move || {
        assert_eq!(put_in_force(&large(&[vip]))?, 1);
        assert_eq!(put_in_force(&Plan { exempt: Exempt::Uid(3000), ..large(&[vip]) })?, 1);
        assert!(first_line_for(3000, vip)?.starts_with("hello"));
        assert_eq!(put_in_force(&Plan { exempt: Exempt::Mark(7), ..large(&[vip]) })?, 1);
        let marked = || {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.set_mark(7)?;
            socket.connect(&vip.into())?;
            anyhow::Ok(line(&mut TcpStream::from(socket))?)
        };
        assert!(marked()?.starts_with("hello"));
        // Somebody deletes what spares it: put back at the next change.
        assert!(Command::new("ip").args(["rule", "del", "pref", "15001"]).status()?.success());
        put_in_force_for(&Plan { exempt: Exempt::Mark(7), ..large(&[vip]) }, 1)?;
        assert!(marked()?.starts_with("hello"));
        Ok(())
    });
}

#[test]
fn ranges_have_no_large_segments() {
    let (bed, vip) = bed();
    inside(&bed, move || {
        let ranges = Plan { cidrs: vec![format!("{}/32", vip.ip()).parse()?], ..large(&[]) };
        assert_eq!(put_in_force(&ranges)?, 0);
        Ok(())
    });
}

#[test]
fn where_answers_would_be_filtered_segments_stay_small() {
    let (bed, vip) = bed();
    inside(&bed, move || {
        let set = |value: &str| fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", value);
        set("1")?;
        assert_eq!(put_in_force(&large(&[vip]))?, 0);
        set("2")?;
        assert_eq!(put_in_force(&large(&[vip]))?, 1, "loose");
        assert!(first_line_for(2102, vip)?.starts_with("hello"));
        // It has become strict since: what was safe is taken back at the next change.
        set("1")?;
        assert_eq!(put_in_force(&large(&[vip]))?, 0);
        assert_eq!(rules()?, Vec::<String>::new());
        Ok(())
    });
}

#[test]
fn a_watch_gives_large_segments_unless_they_could_outlive_it() {
    let (bed, vip) = bed();
    let other_port = SocketAddr::new(vip.ip(), 43);
    for (arguments, is_large) in
        [(&["--large-segments=received"][..], true), (&["--large-segments=all", "--fail=open"], false), (&[], false)]
    {
        let mut watch = Watch::start(&bed, arguments);
        let mut stream = watch.connect();
        watch.want(&mut stream, &[vip]);
        watch.want(&mut stream, &[vip, other_port]);
        let have = inside(&bed, || Ok(Installed::read()?.large_segments.len()));
        assert_eq!(have, if is_large { 2 } else { 0 }, "{arguments:?}");
        watch.want(&mut stream, &[]);
        let new = inside(&bed, move || {
            assert_eq!(rules()?, Vec::<String>::new(), "{arguments:?}");
            line(&mut dial(vip)?).map_err(Into::into)
        });
        assert!(new.starts_with("hello"), "{arguments:?}");
    }
}

#[test]
fn thousands_of_vips_need_no_more_rules_than_they_have_ports() {
    let (bed, vip) = bed();
    let vips = |count: u16| {
        (0..count).map(|number| SocketAddr::new([10, 250, number.to_be_bytes()[0], number.to_be_bytes()[1]].into(), 80 + number % 4))
    };
    inside(&bed, move || {
        let all: Vec<SocketAddr> = vips(5000).chain([vip]).collect();
        assert_eq!(put_in_force(&large(&all))?, 5001);
        assert_eq!(rules()?.len(), 7, "{:?}", rules()?);
        assert_eq!(put_in_force(&large(&[vip]))?, 1);
        assert_eq!(rules()?.len(), 3, "{:?}", rules()?);
        // Beyond so many ports the others stay as they are.
        let ports: Vec<SocketAddr> = (1..=40).map(|port| SocketAddr::new(vip.ip(), 1000 + port)).collect();
        assert_eq!(put_in_force(&large(&ports))?, init::segments::PORTS_MAX);
        Ok(())
    });
}
