//! What is asked of a target, by which program, and what that program says afterwards.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

/// What a scenario needs of a target.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Port {
    /// HTTP/1.1, both sides.
    Http1,
    /// HTTP/2 with prior knowledge, both sides where a target can.
    Http2,
    /// gRPC: the same with trailers.
    Grpc,
    /// Bytes, under a TCPRoute.
    Tcp,
    /// Bytes, to a VIP without a route.
    Unrouted,
}

impl Port {
    pub(crate) const ALL: [Self; 5] = [Self::Http1, Self::Http2, Self::Grpc, Self::Tcp, Self::Unrouted];

    /// Of the VIP.
    pub(crate) fn of_vip(self) -> u16 {
        match self {
            Self::Http1 => 80,
            Self::Http2 => 81,
            Self::Grpc => 82,
            Self::Tcp => 83,
            Self::Unrouted => 84,
        }
    }

    /// Of the backend.
    pub(crate) fn of_backend(self) -> u16 {
        match self {
            Self::Http1 => 8080,
            Self::Http2 => 8081,
            Self::Grpc => 8082,
            Self::Tcp | Self::Unrouted => 8083,
        }
    }
}

/// How the load is made.
#[derive(Clone, Copy, Debug)]
enum Load {
    /// wrk: threads, connections, what else is said to it, path.
    Wrk(u32, u32, &'static [&'static str], &'static str),
    /// h2load: connections, streams on each, more arguments, path.
    H2load(u32, u32, &'static [&'static str], &'static str),
    /// Requests at fixed times: a second, on so many connections.
    Rate(u32, u32),
    /// Messages to and fro on streams: connections, streams on each.
    GrpcStreams(u32, u32),
    /// Bytes as fast as they go, on so many connections.
    Pump(u32),
}

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) port: Port,
    /// What is counted.
    pub(crate) unit: &'static str,
    /// Units in one of what the load program counts.
    units: f64,
    load: Load,
}

const fn scenario(name: &'static str, port: Port, unit: &'static str, units: f64, load: Load) -> Scenario {
    Scenario { name, port, unit, units, load }
}

const UPLOAD_1M: &[&str] = &["-s", "upload-1m.lua"];
const UPLOAD_4M: &[&str] = &["-s", "upload-4m.lua"];
const CLOSE: &[&str] = &["-H", "Connection: close"];
const GRPC: &[&str] = &["-d", "message.bin", "-H", "content-type: application/grpc", "-H", "te: trailers"];

/// All of them.
pub(crate) const SCENARIOS: [Scenario; 17] = [
    scenario("h1-1", Port::Http1, "request", 1.0, Load::Wrk(1, 1, &[], "/cart/x")),
    scenario("h1-32", Port::Http1, "request", 1.0, Load::Wrk(2, 32, &[], "/cart/x")),
    scenario("h1-256", Port::Http1, "request", 1.0, Load::Wrk(2, 256, &[], "/cart/x")),
    scenario("h1-2000", Port::Http1, "request", 1.0, Load::Wrk(2, 2000, &[], "/cart/x")),
    scenario("h1-new", Port::Http1, "connection", 1.0, Load::Wrk(1, 32, CLOSE, "/cart/x")),
    scenario("h2-10", Port::Http2, "request", 1.0, Load::H2load(8, 10, &[], "/cart/x")),
    scenario("h2-100", Port::Http2, "request", 1.0, Load::H2load(8, 100, &[], "/cart/x")),
    scenario("grpc-unary", Port::Grpc, "call", 1.0, Load::H2load(8, 10, GRPC, "/cart/Get")),
    scenario("grpc-stream", Port::Grpc, "message", 1.0, Load::GrpcStreams(4, 8)),
    scenario("down-1m", Port::Http1, "MiB", 1.0, Load::Wrk(1, 8, &[], "/cart/1m")),
    scenario("down-4m", Port::Http1, "MiB", 4.0, Load::Wrk(1, 8, &[], "/cart/4m")),
    scenario("up-1m", Port::Http1, "MiB", 1.0, Load::Wrk(1, 8, UPLOAD_1M, "/cart/up")),
    scenario("up-4m", Port::Http1, "MiB", 4.0, Load::Wrk(1, 8, UPLOAD_4M, "/cart/up")),
    scenario("tcp", Port::Tcp, "GB", 1e-9, Load::Pump(1)),
    scenario("unrouted", Port::Unrouted, "GB", 1e-9, Load::Pump(1)),
    scenario("rate-1000", Port::Http1, "request", 1.0, Load::Rate(1000, 32)),
    scenario("rate-2000", Port::Http1, "request", 1.0, Load::Rate(2000, 32)),
];

/// What a load program says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    /// What was done, in the scenario's unit.
    pub(crate) count: f64,
    /// What went wrong.
    pub(crate) errors: u64,
    /// Latency in microseconds: p50, p90, p99, p99.9; only where requests come at fixed times.
    pub(crate) latency_us: Option<[f64; 4]>,
}

impl Scenario {
    /// The load program and its arguments.
    pub(crate) fn command(&self, host: &str, address: IpAddr, port: u16, time: Duration) -> Vec<String> {
        let seconds = time.as_secs().max(1).to_string();
        let own = std::env::current_exe().unwrap_or_default().display().to_string();
        let words = |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let more = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let url = |path: &str| vec![format!("http://{address}:{port}{path}")];
        match self.load {
            Load::Wrk(threads, connections, others, path) => {
                let first = words(format!("wrk -t{threads} -c{connections} -d{seconds}"));
                [first, vec!["-H".to_owned(), format!("Host: {host}")], more(others), url(path)].concat()
            }
            Load::H2load(connections, streams, others, path) => {
                let first = words(format!("h2load -t1 -c{connections} -m{streams} -D{seconds}"));
                [first, vec!["-H".to_owned(), format!(":authority: {host}")], more(others), url(path)].concat()
            }
            Load::Rate(rate, connections) => words(format!("{own} rate {address}:{port} {host} /cart/x {rate} {connections} {seconds}")),
            Load::GrpcStreams(connections, streams) => {
                words(format!("{own} grpc-streams {address}:{port} {host} /cart/Chat {connections} {streams} {seconds}"))
            }
            Load::Pump(connections) => words(format!("{own} pump {address}:{port} {connections} {seconds}")),
        }
    }

    /// Connections that are open while it lasts.
    pub(crate) fn connections(&self) -> u32 {
        match self.load {
            Load::Wrk(_, connections, ..)
            | Load::H2load(connections, ..)
            | Load::Rate(_, connections)
            | Load::GrpcStreams(connections, _)
            | Load::Pump(connections) => connections,
        }
    }

    /// Reads what the load program printed.
    pub(crate) fn read(&self, printed: &str) -> anyhow::Result<Said> {
        let said = match self.load {
            Load::Wrk(..) => wrk(printed),
            Load::H2load(..) => h2load(printed),
            Load::Rate(..) | Load::GrpcStreams(..) | Load::Pump(_) => own(printed),
        };
        let said = said.with_context(|| format!("{}: {printed}", self.name))?;
        Ok(Said { count: said.count * self.units, ..said })
    }
}

/// The number before or after a word of a line.
fn number_before(text: &str, word: &str) -> Option<f64> {
    let (before, _) = text.split_once(word)?;
    before.trim_end().rsplit(|character: char| character.is_whitespace() || character == ',').next()?.parse().ok()
}

fn numbers_after(line: &str) -> f64 {
    line.split(|character: char| !character.is_ascii_digit()).filter_map(|number| number.parse::<f64>().ok()).sum()
}

fn wrk(printed: &str) -> Option<Said> {
    let count = number_before(printed, "requests in ")?;
    let lines = printed.lines().map(str::trim);
    let wrong = lines.filter(|line| line.starts_with("Non-2xx") || line.starts_with("Socket errors"));
    // "Non-2xx or 3xx responses: 3" has digits in its own words.
    let errors: f64 = wrong.filter_map(|line| line.split_once(": ")).map(|(_, rest)| numbers_after(rest)).sum();
    Some(Said { count, errors: whole(errors), latency_us: None })
}

fn h2load(printed: &str) -> Option<Said> {
    let count = number_before(printed, " 2xx,")?;
    let errors = number_before(printed, " failed,")? + number_before(printed, " errored,")?;
    Some(Said { count, errors: whole(errors), latency_us: None })
}

fn own(printed: &str) -> Option<Said> {
    let said: Value = serde_json::from_str(printed.trim()).ok()?;
    let latency = said["latency_us"].as_array().and_then(|list| {
        let list: Vec<f64> = list.iter().filter_map(Value::as_f64).collect();
        list.try_into().ok()
    });
    Some(Said { count: said["count"].as_f64()?, errors: said["errors"].as_u64()?, latency_us: latency })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of errors")]
fn whole(number: f64) -> u64 {
    number as u64
}
