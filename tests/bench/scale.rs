//! A mesh of any size against the real controller: objects in an API server of the bench's own, sidecars that are real delta-xDS streams.

mod api;
mod objects;
mod sidecars;

use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use http::{StatusCode, Version};
use lab::client::{Answer, Ask, ask};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proto::type_url;
use tokio::process::{Child, Command};

use crate::measure::{cpu_ns, rss_kib};
use crate::stage::{CHAIN, nft};
use objects::{Mesh, Size};
use sidecars::{Clock, Sidecars};

/// What `scale` is asked for.
#[derive(Args, Clone, Debug)]
pub(crate) struct Scale {
    /// ServiceImports, each with a derived Service
    #[arg(long, default_value = "1000")]
    imports: usize,
    /// Endpoints, shared out among them
    #[arg(long, default_value = "10000")]
    endpoints: usize,
    /// HTTPRoutes, one an import
    #[arg(long, default_value = "500")]
    routes: usize,
    /// Sidecars
    #[arg(long, default_value = "100")]
    sidecars: usize,
    /// VIPs that each of them dials
    #[arg(long, default_value = "20")]
    dialled: usize,
    /// Changes of endpoints a second, each of a backend that sidecars use
    #[arg(long, default_value = "100")]
    churn: u32,
    /// So long
    #[arg(long, default_value = "10")]
    seconds: u32,
    /// Changes of routes, one after another
    #[arg(long, default_value = "50")]
    route_changes: usize,
}

/// What the chart sets for the controller.
const PURGE_DELAY: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "10000");
/// VIPs that the real sidecar dials, if so many have routes.
const DIALLED: usize = 5;
/// Changes of endpoints that the real sidecar uses. Each goes out by itself.
const SIDECAR_CHANGES: u32 = 100;
/// Longer than the controller gathers changes.
const BETWEEN_CHANGES: Duration = Duration::from_millis(40);
/// They are others than any before.
const MANY_CHANGES: u32 = 60_000;
/// Everything that comes about by itself has come about within this time.
const SOON: Duration = Duration::from_secs(120);

/// A program that ends with the bench.
struct Program {
    name: String,
    child: Child,
    pid: u32,
}

impl Program {
    fn start(name: &str, arguments: &[String], environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        let path = own.ancestors().nth(2).map(|folder| folder.join(name)).context("a folder")?;
        let mut command = Command::new(&path);
        command.args(arguments).envs(environment.iter().copied()).env("RUST_LOG", "error").stdin(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().with_context(|| path.display().to_string())?;
        let pid = child.id().context("a pid")?;
        Ok(Self { name: name.to_owned(), child, pid })
    }

    /// Ends it as a kubelet would: one that counts what it does writes that at its end.
    async fn end(mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(i32::try_from(self.pid)?), Signal::SIGTERM)?;
        let status = tokio::time::timeout(SOON, self.child.wait()).await.with_context(|| format!("{} does not end", self.name))??;
        ensure!(status.success(), "{}: {status}", self.name);
        Ok(())
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    // Nobody else takes it in the moment between.
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

pub(crate) fn run(scale: &Scale) -> anyhow::Result<()> {
    // A network of their own, in which VIPs can be dialled, for all threads and programs that this one starts.
    unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
    lab::loopback_only()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(scale))
}

async fn measure(scale: &Scale) -> anyhow::Result<()> {
    ensure!(scale.routes <= scale.imports, "--routes: one an import, so at most --imports");
    let size = Size { imports: scale.imports, endpoints: scale.endpoints, routes: scale.routes };
    let mesh = Mesh::new(size);
    println!("{} imports, {} endpoints, {} routes, {} sidecars", scale.imports, scale.endpoints, scale.routes, scale.sidecars);
    let folder = tempfile::tempdir()?;
    let (server, kubeconfig) = api::Server::start(&mesh, folder.path()).await?;
    let (listen, admin) = (free_address()?, free_address()?);
    let began = Instant::now();
    let arguments = ["--source=kubernetes", "--plaintext", "--cluster=east", "--drain-grace-s=0"].map(str::to_owned).to_vec();
    let arguments = [arguments, vec![format!("--listen={listen}"), format!("--admin={admin}")]].concat();
    let kubeconfig = kubeconfig.to_str().context("a path")?;
    let controller = Program::start("isthmus-controller", &arguments, &[("KUBECONFIG", kubeconfig), PURGE_DELAY])?;
    ready(admin).await?;
    println!("controller ready after {:.2} s, {:.2} s of CPU, {}", began.elapsed().as_secs_f64(), cpu_s(&controller), rss(&controller)?);

    let clock = Clock::default();
    let used = scale.sidecars.min(scale.routes);
    let mut sidecars = Sidecars::new(listen, clock.clone(), scale.sidecars, scale.dialled, used);
    let (took, spent) = timed(&controller, sidecars.connect()).await?;
    println!("all sidecars current after {took:.2} s, {spent:.2} s of CPU, {}", rss(&controller)?);

    clock.begin();
    let (took, spent) = timed(&controller, churn(scale, &mesh, &server, &clock, used)).await?;
    let said = clock.end();
    let share = spent / took * 100.0;
    println!("{}/s changes of endpoints for {took:.1} s: {share:.1} % of a core, {}", scale.churn, said.text());

    clock.begin();
    let (took, spent) = timed(&controller, change_routes(scale, &mesh, &server, &clock, used)).await?;
    let said = clock.end();
    println!(
        "{} changes of routes in {took:.1} s: {:.2} ms of CPU each, {}",
        scale.route_changes,
        spent * 1e3 / as_f64(scale.route_changes),
        said.text()
    );

    sidecars.disconnect().await;
    let (took, spent) = timed(&controller, sidecars.connect()).await?;
    println!("all sidecars reconnected and current after {took:.2} s, {spent:.2} s of CPU, {}", rss(&controller)?);
    sidecar(listen, &mesh, &server, scale.routes.min(DIALLED)).await?;
    sidecars.disconnect().await;
    controller.end().await
}

async fn timed<F: Future<Output = anyhow::Result<()>>>(controller: &Program, work: F) -> anyhow::Result<(f64, f64)> {
    let (began, before) = (Instant::now(), cpu_s(controller));
    work.await?;
    Ok((began.elapsed().as_secs_f64(), cpu_s(controller) - before))
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn cpu_s(program: &Program) -> f64 {
    cpu_ns(&[program.pid]) as f64 / 1e9
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn rss(program: &Program) -> anyhow::Result<String> {
    Ok(format!("{:.1} MiB", rss_kib(&[program.pid])? as f64 / 1024.0))
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn as_f64(number: usize) -> f64 {
    number as f64
}

/// Waits for `/readyz`.
async fn ready(admin: SocketAddr) -> anyhow::Result<()> {
    until(admin, "/readyz", |answer| answer.status == StatusCode::OK).await
}

/// Asks until the answer is as wished.
async fn until(admin: SocketAddr, path: &str, is_wished: impl Fn(&Answer) -> bool) -> anyhow::Result<()> {
    let end = Instant::now() + SOON;
    loop {
        match ask(admin, Version::HTTP_11, &Ask::get("bench", path)).await {
            Ok(answer) if is_wished(&answer) => return Ok(()),
            Ok(answer) => ensure!(Instant::now() < end, "{admin}{path} answers {}", answer.status),
            Err(error) => ensure!(Instant::now() < end, "{admin}{path}: {error}"),
        }
        // Nobody says when a program that has just been started answers, or has heard of something.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Endpoints of backends that are in use change at a steady pace.
async fn churn(scale: &Scale, mesh: &Mesh, server: &api::Server, clock: &Clock, used: usize) -> anyhow::Result<()> {
    let mut pace = tokio::time::interval(Duration::from_secs(1) / scale.churn);
    for change in 0..scale.churn * scale.seconds {
        pace.tick().await;
        let import = mesh.backend_of(change as usize % used);
        clock.changes((type_url::BACKEND, Mesh::frontend(import)));
        server.put(mesh.slice(import, change + 1));
    }
    clock.quiet(SOON).await
}

/// A route changes, and the next when everybody has heard of it.
async fn change_routes(scale: &Scale, mesh: &Mesh, server: &api::Server, clock: &Clock, used: usize) -> anyhow::Result<()> {
    for change in 0..scale.route_changes {
        let route = change % used;
        clock.changes((type_url::FRONTEND, Mesh::frontend(route)));
        server.put(mesh.route(route, change + 1));
        clock.quiet(SOON).await?;
    }
    Ok(())
}

/// A real sidecar that knows of all VIPs, before any of them is dialled, when so many have been, and while the endpoints of what it uses change.
async fn sidecar(controller: SocketAddr, mesh: &Mesh, server: &api::Server, dialled: usize) -> anyhow::Result<()> {
    let (outbound, admin) = (free_address()?, free_address()?);
    let arguments = ["--namespace=ns-0", "--pod=bench", "--cluster=east", "--workers=2", "--drain-grace-s=0"].map(str::to_owned).to_vec();
    let own = vec![format!("--controller=http://{controller}"), format!("--outbound={outbound}"), format!("--admin={admin}")];
    let sidecar = Program::start("isthmus-sidecar", &[arguments, own].concat(), &[])?;
    ready(admin).await?;
    println!("a sidecar that has dialled nothing: {}", rss(&sidecar)?);
    let rule = format!("ip daddr {} tcp dport 80 redirect to :{}", Mesh::VIPS, outbound.port());
    nft(&format!("{CHAIN}add rule ip bench output {rule}\n"))?;
    for number in 0..dialled {
        let vip = Mesh::vip(number);
        let answer = ask(SocketAddr::from((vip, 80)), Version::HTTP_11, &Ask::get("bench", "/nothing")).await?;
        // No rule of its route matches: whoever says so has the route.
        ensure!(answer.status == StatusCode::NOT_FOUND, "{vip} answers {}", answer.status);
    }
    println!("that has dialled {dialled} VIPs: {}", rss(&sidecar)?);
    if dialled > 0 {
        let before = cpu_s(&sidecar);
        let mut pace = tokio::time::interval(BETWEEN_CHANGES);
        for change in 0..SIDECAR_CHANGES {
            pace.tick().await;
            server.put(mesh.slice(mesh.backend_of(change as usize % dialled), MANY_CHANGES + change));
        }
        // To be asked costs as well, a little of all of this.
        let last = Mesh::changed(MANY_CHANGES + SIDECAR_CHANGES - 1).to_string();
        until(admin, "/config", |answer| String::from_utf8_lossy(&answer.body).contains(&last)).await?;
        let each = (cpu_s(&sidecar) - before) * 1e3 / f64::from(SIDECAR_CHANGES);
        println!("each of {SIDECAR_CHANGES} changes of endpoints that it uses cost it {each:.2} ms of CPU");
    }
    sidecar.end().await
}
