//! The command line of `isthmus-init`; each flag has a twin in the environment.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cidr::Cidr;
use crate::plan::{self, Exempt, Lifetime, Plan};
use crate::segments::{self, Segments};
use crate::watch::OPEN_AFTER;

/// Arranges that a pod's connections to VIPs reach its sidecar.
#[derive(Clone, Debug, Parser)]
#[command(name = "isthmus-init", version)]
pub struct Config {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Network namespace to work in, for example /run/netns/X or /proc/PID/ns/net; this one if not given
    #[arg(long, env = "ISTHMUS_NETNS", global = true)]
    pub netns: Option<PathBuf>,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Intercept fixed VIPs or ranges, then end
    Install(Install),
    /// Stay, and intercept what the sidecar says
    Watch(Watch),
    /// Prove that connections arrive; before the sidecar starts
    Verify(Verify),
    /// Show what is in force
    Show {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Intercept nothing any more; redirected connections live on
    Uninstall {
        /// Delete the table as well: redirected connections break
        #[arg(long)]
        delete: bool,
    },
}

/// Who is exempt and where connections go.
#[derive(Args, Clone, Debug)]
pub struct Sidecar {
    /// The sidecar's uid, whose connections are not intercepted
    #[arg(long, env = "ISTHMUS_SIDECAR_UID", default_value = "2102")]
    pub sidecar_uid: u32,
    /// Exempt by this socket mark instead, where only one uid exists
    #[arg(long, env = "ISTHMUS_SIDECAR_MARK")]
    pub sidecar_mark: Option<u32>,
    /// The sidecar's port on 127.0.0.1 and ::1
    #[arg(long, env = "ISTHMUS_SIDECAR_PORT", default_value = "15001")]
    pub sidecar_port: NonZeroU16,
}

/// `install`.
#[derive(Args, Clone, Debug)]
pub struct Install {
    /// IP:PORT to intercept; may be repeated
    #[arg(long)]
    pub vip: Vec<SocketAddr>,
    /// Range whose every TCP port is intercepted; may be repeated
    #[arg(long)]
    pub cidr: Vec<Cidr>,
    /// The sidecar.
    #[command(flatten)]
    pub sidecar: Sidecar,
    /// What happens to connections that are open already
    #[arg(long, env = "ISTHMUS_EXISTING", default_value = "keep")]
    pub existing: Existing,
}

/// `watch`.
#[derive(Args, Clone, Debug)]
pub struct Watch {
    /// Unix socket to listen on, in a directory that only the sidecar shares
    #[arg(long, env = "ISTHMUS_VIP_SOCKET")]
    pub socket: PathBuf,
    /// What happens to connections while there is no sidecar
    #[arg(long, env = "ISTHMUS_FAIL", default_value = "closed")]
    pub fail: Fail,
    /// The sidecar.
    #[command(flatten)]
    pub sidecar: Sidecar,
    /// What happens to connections that are open when their VIP is added
    #[arg(long, env = "ISTHMUS_EXISTING", default_value = "keep")]
    pub existing: Existing,
    /// Which segments of intercepted IPv4 connections are as large as the loopback interface takes them, where that is safe
    #[arg(long, env = "ISTHMUS_LARGE_SEGMENTS", default_value = "none")]
    pub large_segments: LargeSegments,
}

/// `verify`.
#[derive(Args, Clone, Debug)]
pub struct Verify {
    /// A Service that the platform knows; the API server's if not given and the pod is told where that is
    #[arg(long, env = "ISTHMUS_KNOWN_SERVICE")]
    pub known_service: Option<SocketAddr>,
    /// The sidecar.
    #[command(flatten)]
    pub sidecar: Sidecar,
}

/// `--existing`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Existing {
    /// They stay as they are
    Keep,
    /// They are ended, so that clients reconnect and obey
    Reset,
}

/// `--fail`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Fail {
    /// They are refused
    Closed,
    /// They take the platform's way
    Open,
}

/// `--large-segments`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LargeSegments {
    /// None: they are as large as the pod's interface takes them
    None,
    /// Those that the application receives
    Received,
    /// Those that it sends as well: only for applications that set TCP_NODELAY
    All,
}

impl LargeSegments {
    fn plan(self) -> Segments {
        match self {
            Self::None => Segments::Small,
            Self::Received => Segments::Received,
            Self::All => Segments::All,
        }
    }
}

impl Existing {
    pub(crate) fn plan(self) -> plan::Existing {
        match self {
            Self::Keep => plan::Existing::Keep,
            Self::Reset => plan::Existing::Reset,
        }
    }
}

impl Sidecar {
    fn plan(&self, lifetime: Lifetime) -> Plan {
        let exempt = self.sidecar_mark.map_or(Exempt::Uid(self.sidecar_uid), Exempt::Mark);
        Plan {
            vips: std::collections::BTreeSet::new(),
            cidrs: Vec::new(),
            exempt,
            port: self.sidecar_port,
            lifetime,
            segments: Segments::Small,
        }
    }
}

impl Install {
    fn plan(&self) -> Plan {
        let vips = self.vip.iter().copied().collect();
        Plan { vips, cidrs: self.cidr.clone(), ..self.sidecar.plan(Lifetime::Unlimited) }
    }
}

impl Watch {
    fn plan(&self) -> Plan {
        let lifetime = match self.fail {
            Fail::Closed => Lifetime::Unlimited,
            Fail::Open => Lifetime::Renewed(OPEN_AFTER),
        };
        Plan { segments: self.large_segments.plan(), ..self.sidecar.plan(lifetime) }
    }
}

impl Verify {
    fn plan(&self) -> Plan {
        self.sidecar.plan(Lifetime::Unlimited)
    }

    /// What the kubelet tells every pod.
    fn known(&self) -> Option<SocketAddr> {
        let told = || {
            let host = std::env::var("KUBERNETES_SERVICE_HOST").ok()?.parse().ok()?;
            Some(SocketAddr::new(host, std::env::var("KUBERNETES_SERVICE_PORT").ok()?.parse().ok()?))
        };
        self.known_service.or_else(told)
    }
}

/// Does what the command line says.
///
/// # Errors
/// What could not be done and why.
pub fn run(config: Config) -> anyhow::Result<()> {
    let Config { command, netns } = config;
    crate::netns::within(netns.as_deref(), move || execute(command))
}

fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Install(install) => {
            let plan = install.plan();
            anyhow::ensure!(!plan.vips.is_empty() || !plan.cidrs.is_empty(), "install: at least one --vip or --cidr is needed");
            let before = plan::Installed::read()?;
            // Of an earlier `watch`: nobody stays who would keep them right.
            segments::remove()?;
            plan.install().commit()?;
            for address in plan.unroutable() {
                tracing::warn!(%address, "the pod has no route there: clients get \"network unreachable\" before interception is asked");
            }
            if install.existing.plan() == plan::Existing::Reset {
                let ended = plan::reset_existing(&plan, &before)?;
                tracing::info!(ended, "connections from before");
            }
            tracing::info!(vips = plan.vips.len(), cidrs = plan.cidrs.len(), "intercepts");
        }
        Command::Watch(watch) => crate::watch::watch(&watch.socket, watch.plan(), watch.existing.plan())?,
        Command::Verify(verify) => {
            for line in crate::verify::verify(&verify.plan(), verify.known())? {
                println!("{line}");
            }
        }
        Command::Show { json } => {
            let installed = plan::Installed::read()?;
            if json {
                println!("{}", serde_json::to_string_pretty(&installed)?);
            } else {
                print!("{installed}");
            }
        }
        Command::Uninstall { delete } => {
            plan::withdraw()?;
            if delete {
                plan::delete()?;
            }
        }
    }
    Ok(())
}
