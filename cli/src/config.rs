//! The command line of `isthmus`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    /// Do nothing until standard input ends; the first process of a demo's process id namespace
    #[command(hide = true)]
    Hold,
    /// Make one HTTP request and print the answer; for the shell of a demo
    Request(Request),
}

/// `demo`.
#[derive(Args, Clone, Debug)]
pub struct Demo {
    /// Folder with one folder a cluster, each with Kubernetes YAML, and perhaps an expected.yaml
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
