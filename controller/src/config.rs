//! What the one who runs the controller decides; each flag has a twin in the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, ValueEnum};
use routing::world::{self, Settings};

/// Turns Kubernetes objects into what sidecars need and writes route status.
#[derive(Clone, Debug, Parser)]
#[command(name = "isthmus-controller", version)]
pub struct Config {
    /// Where objects come from: dir:PATH, a directory of Kubernetes YAML that is followed
    #[arg(long, env = "ISTHMUS_SOURCE")]
    pub source: Source,
    /// Name of this cluster in the ClusterSet
    #[arg(long, env = "ISTHMUS_CLUSTER")]
    pub cluster: String,
    /// Address on which sidecars are served
    #[arg(long, env = "ISTHMUS_LISTEN", default_value = "127.0.0.1:15010")]
    pub listen: SocketAddr,
    /// Address of /livez, /readyz, /metrics, /sidecars and /await
    #[arg(long, env = "ISTHMUS_ADMIN", default_value = "127.0.0.1:15011")]
    pub admin: SocketAddr,
    /// Directory for route status, one file KIND.NAMESPACE.NAME.yaml a route; not inside the source
    #[arg(long, env = "ISTHMUS_STATUS_DIR")]
    pub status_dir: Option<PathBuf>,
    /// Whether a backendRef into a foreign namespace needs a ReferenceGrant
    #[arg(long, env = "ISTHMUS_CROSS_NAMESPACE_BACKENDS", default_value = "granted")]
    pub cross_namespace_backends: CrossNamespaceBackends,
    /// Which kinds of parent are obeyed
    #[arg(long, env = "ISTHMUS_PARENTS", default_value = "all")]
    pub parents: Parents,
    /// Whether session affinity ClientIP of a Service or ServiceImport is kept towards its endpoints
    #[arg(long, env = "ISTHMUS_SESSION_AFFINITY", default_value = "honored")]
    pub session_affinity: SessionAffinity,
}

/// `--source`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// `dir:PATH`.
    Directory(PathBuf),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("dir:") {
            Some(path) if !path.is_empty() => Ok(Self::Directory(path.into())),
            Some(_) | None => Err(format!("{text:?} is not dir:PATH")),
        }
    }
}

/// `--cross-namespace-backends`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum CrossNamespaceBackends {
    /// It does
    Granted,
    /// It does not
    Any,
}

/// `--parents`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Parents {
    /// ServiceImports and Services
    All,
    /// ServiceImports alone, beside a mesh that owns Services
    ServiceImport,
}

/// `--session-affinity`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SessionAffinity {
    /// It is, as the platform's own forwarding does
    Honored,
    /// Each request is balanced on its own
    Ignored,
}

impl Config {
    /// What the routing rules need to know of it.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            cluster: self.cluster.clone(),
            cross_namespace_backends: match self.cross_namespace_backends {
                CrossNamespaceBackends::Granted => world::CrossNamespaceBackends::Granted,
                CrossNamespaceBackends::Any => world::CrossNamespaceBackends::Any,
            },
            parents: match self.parents {
                Parents::All => world::Parents::All,
                Parents::ServiceImport => world::Parents::ServiceImport,
            },
            session_affinity: match self.session_affinity {
                SessionAffinity::Honored => world::SessionAffinity::Honored,
                SessionAffinity::Ignored => world::SessionAffinity::Ignored,
            },
        }
    }
}
