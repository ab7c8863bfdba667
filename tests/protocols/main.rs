//! Protocol suites against the real sidecar, in network namespaces: `make protocols`.
//!
//! Usage: `protocols PROGRAMS [SUITE...]`, where `PROGRAMS` is the folder that `make protocols` builds into.
//!
//! Invariant: every case passes or is explained, one by one; an explained case that passes, or that was not run, fails the run too.

mod explained;
mod program;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lab::lab::Options;
use tests::{Bed, yaml};

use explained::{Case, Explained, Outcome};
use program::Program;

/// A suite that takes longer has failed.
const SUITE_MAX: Duration = Duration::from_secs(300);
/// The access log is written behind the requests.
const LOG_MAX: Duration = Duration::from_secs(5);

/// An answer at once would end streams that a case wants to have open side by side.
const H2SPEC_PATH: &str = "/?delay_ms=50";

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Suite {
    /// HTTP/2 as the sidecar serves it, with prior knowledge; behind it the lab's echo server over HTTP/1.1.
    H2spec,
    /// The same; behind it Go's own server over HTTP/2.
    H2specH2c,
    /// gRPC's own client and server.
    Grpc,
    /// A client and a server of the `websockets` package.
    Websocket,
}

const SUITES: [Suite; 4] = [Suite::H2spec, Suite::H2specH2c, Suite::Grpc, Suite::Websocket];

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::H2spec => "h2spec",
            Self::H2specH2c => "h2spec-h2c",
            Self::Grpc => "grpc",
            Self::Websocket => "websocket",
        }
    }

    /// How many cases it has: one that is lost on the way would not be missed otherwise.
    fn cases(self) -> usize {
        match self {
            Self::H2spec | Self::H2specH2c => 146,
            Self::Grpc => 17,
            Self::Websocket => 31,
        }
    }

    fn host(self) -> String {
        format!("{}.default.svc.clusterset.local", self.name())
    }

    /// The application, exported from east.
    fn manifest(self) -> String {
        let (container_ports, service_port) = match self {
            Self::H2spec => ("[{containerPort: 8080}]", "{port: 80, targetPort: 8080}"),
            Self::H2specH2c | Self::Grpc => ("[]", "{port: 80, targetPort: 9000, appProtocol: kubernetes.io/h2c}"),
            Self::Websocket => ("[]", "{port: 80, targetPort: 9000, appProtocol: kubernetes.io/ws}"),
        };
        let name = self.name();
        yaml::all(&[
            yaml::deployment(name, "default", 1, container_ports),
            yaml::service(name, "default", &format!("[{service_port}]"), ""),
            yaml::export(name, "default"),
        ])
    }

    /// What runs in the application's pod; the lab's echo server if nothing.
    fn server(self, programs: &Path) -> Option<Command> {
        match self {
            Self::H2spec => None,
            Self::H2specH2c => Some(command(programs.join("h2c"), &[":9000"])),
            Self::Grpc => Some(command(programs.join("grpc"), &["serve", ":9000"])),
            Self::Websocket => Some(python(programs, "server.py", &["9000"])),
        }
    }

    /// What runs in the client's pod and reports each case.
    fn client(self, programs: &Path) -> Command {
        let host = self.host();
        match self {
            Self::H2spec | Self::H2specH2c => command(programs.join("h2spec"), &["-host", &host, "-path", H2SPEC_PATH]),
            Self::Grpc => command(programs.join("grpc"), &["ask", &format!("{host}:80")]),
            Self::Websocket => python(programs, "client.py", &[&host, "80"]),
        }
    }
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("protocols")
}

fn command(program: PathBuf, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn python(programs: &Path, script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(programs.join("venv/bin/python"));
    // No compiled files between the sources.
    command.arg("-B").arg(source().join("websocket").join(script)).args(arguments);
    command
}

/// What a suite came to.
struct Tally {
    suite: Suite,
    passed: usize,
    failed: usize,
    explained: usize,
    /// Requests of it that the sidecar had logged when it was looked at.
    logged: usize,
    took: Duration,
}

impl Tally {
    fn line(&self) -> String {
        let explained = if self.explained == 0 { String::new() } else { format!(", {} explained", self.explained) };
        format!("{} {} passed, {} failed{explained}", self.suite.name(), self.passed, self.failed)
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let programs = arguments.next().context("usage: protocols PROGRAMS [SUITE...]")?;
    let programs = Path::new(&programs).canonicalize().with_context(|| programs.clone())?;
    let wanted: Vec<String> = arguments.collect();
    if let Some(unknown) = wanted.iter().find(|name| !SUITES.iter().any(|suite| suite.name() == **name)) {
        anyhow::bail!("no suite {unknown:?}");
    }
    let suites = SUITES.into_iter().filter(|suite| wanted.is_empty() || wanted.iter().any(|name| name == suite.name()));
    let mut explained = Explained::read(&source().join("explained.txt"))?;
    let mut bed = bed()?;
    let tallies: Vec<Tally> = suites.map(|suite| run(&mut bed, suite, &programs, &mut explained)).collect();
    println!("\n{:10} {:>6} {:>6} {:>9} {:>8} {:>7}", "SUITE", "PASSED", "FAILED", "EXPLAINED", "LOGGED", "TIME");
    for tally in &tallies {
        let Tally { suite, passed, failed, explained, logged, took } = tally;
        println!("{:10} {passed:6} {failed:6} {explained:9} {logged:8} {:5.1} s", suite.name(), took.as_secs_f64());
    }
    println!("protocols: {}", tallies.iter().map(Tally::line).collect::<Vec<_>>().join("; "));
    let is_good = tallies.iter().all(|tally| tally.failed == 0 && tally.passed > 0);
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A client in west, and an application a suite in east, each behind a route.
fn bed() -> anyhow::Result<Bed> {
    let mut files = vec![("west/client.yaml".to_owned(), yaml::client("default"))];
    for suite in SUITES {
        let name = suite.name();
        files.push((format!("east/{name}.yaml"), suite.manifest()));
        let route = yaml::route(name, "", &[yaml::import(name, "")], &[yaml::to_import("/", name)]);
        files.push((format!("west/{name}-route.yaml"), route));
    }
    let files: Vec<(&str, String)> = files.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
    Bed::start(&files, Options::default())
}

/// Runs a suite; whatever goes wrong with it is one more failure.
fn run(bed: &mut Bed, suite: Suite, programs: &Path, explained: &mut Explained) -> Tally {
    let began = Instant::now();
    let mut tally = Tally { suite, passed: 0, failed: 0, explained: 0, logged: 0, took: Duration::ZERO };
    let ran = cases(bed, programs, explained, &mut tally).and_then(|()| carried(bed, &mut tally));
    let left = explained.left(suite.name());
    let broken = ran.err().map(|error| format!("{error:#}")).into_iter();
    for what in broken.chain(left.iter().map(|case| format!("{case} is explained, but was not run"))) {
        tally.failed += 1;
        println!("{:10} FAILED     {what}", suite.name());
    }
    tally.took = began.elapsed();
    tally
}

fn cases(bed: &Bed, programs: &Path, explained: &mut Explained, tally: &mut Tally) -> anyhow::Result<()> {
    let suite = tally.suite;
    let log = |who: &str| programs.join(format!("{}-{who}.log", suite.name()));
    let pod = bed.pod(&format!("east/default/{}-0", suite.name()))?;
    let mut server = None;
    if let Some(command) = suite.server(programs) {
        let server = server.insert(Program::start(bed.namespace(&pod)?, command, &log("server"), SUITE_MAX)?);
        server.listening().context("server")?;
    }
    let mut client = Program::start(bed.namespace(&bed.client()?)?, suite.client(programs), &log("client"), SUITE_MAX)?;
    while let Some(line) = client.line()? {
        let case = Case::read(&line)?;
        let (word, more) = match explained.judge(suite.name(), &case) {
            Outcome::Passed => {
                tally.passed += 1;
                ("passed", None)
            }
            Outcome::Explained(reason) => {
                tally.explained += 1;
                ("explained", Some(reason))
            }
            Outcome::Failed(detail) => {
                tally.failed += 1;
                ("FAILED", Some(detail))
            }
        };
        println!("{:10} {word:10} {:28} {}", suite.name(), case.id, case.name);
        if let Some(more) = more {
            println!("{:21} {}", "", more.replace('\n', &format!("\n{:22}", "")));
        }
    }
    client.finish()?;
    let told = tally.passed + tally.failed + tally.explained;
    ensure!(told == suite.cases(), "{told} cases were run; there are {}", suite.cases());
    Ok(())
}

/// Was it the sidecar that carried the suite's requests, and is it as it was?
fn carried(bed: &mut Bed, tally: &mut Tally) -> anyhow::Result<()> {
    let frontend = format!("ServiceImport/default/{}/80", tally.suite.name());
    let client = bed.client()?;
    let end = Instant::now() + LOG_MAX;
    while tally.logged < tally.passed && Instant::now() < end {
        let lines = bed.access_log(&client)?;
        tally.logged = lines.iter().filter(|line| line["frontend"] == frontend.as_str() && line["endpoint"].is_string()).count();
    }
    ensure!(tally.logged >= tally.passed, "only {} requests are in the sidecar's access log", tally.logged);
    bed.settled().context("after the suite")
}
