//! A running lab: made from a folder of manifests, kept equal to it, gone when dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use http::Version;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::Namespace;
use crate::client::{self, Answer, Ask};
use crate::cluster::{CONTROLLER_ADMIN_PORT, Cluster};
use crate::echo::Common;
use crate::manifests;
use crate::net::{self, Addresses, Forwards};
use crate::plan::{self, PodPlan};
use crate::pod::Pod;
use crate::privilege::Privilege;
use crate::process::Holder;
use crate::roles::{self, Allocation, Derived, PodName};

/// Clusters that there are addresses for.
const CLUSTERS_MAX: usize = 50;
/// Pods, Services or imports that a cluster has addresses for.
const NUMBERS_MAX: u16 = 60_000;

/// How connections reach sidecars.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Intercept {
    /// Exactly the VIPs that have routes: `isthmus-init watch`.
    #[default]
    Exact,
    /// Whole ranges: `isthmus-init install --cidr`.
    Cidr,
}

/// What happens without a sidecar.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Fail {
    /// Connections are refused.
    #[default]
    Closed,
    /// They take the platform's way.
    Open,
}

/// What happens to connections that are older than interception.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Existing {
    /// They stay.
    #[default]
    Keep,
    /// They are ended.
    Reset,
}

/// How a lab is run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// See [`Intercept`].
    pub intercept: Intercept,
    /// See [`Fail`].
    pub fail: Fail,
    /// See [`Existing`].
    pub existing: Existing,
    /// More arguments of every sidecar.
    pub sidecar_arguments: Vec<String>,
    /// More arguments of every controller.
    pub controller_arguments: Vec<String>,
    /// Controllers are started later, by hand.
    pub without_controllers: bool,
    /// Sidecars write no access log.
    pub without_access_log: bool,
}

/// A running lab.
#[derive(Debug)]
pub struct Lab {
    // Dropped in this order: programs before namespaces before files.
    pods: BTreeMap<PodName, Pod>,
    clusters: BTreeMap<String, Cluster>,
    #[expect(dead_code, reason = "kept for its end: the clusters are joined there")]
    router: Namespace,
    holder: Arc<Holder>,
    common: Arc<Common>,
    drawn: Drawn,
    derived: BTreeMap<String, Derived>,
    restarts: BTreeMap<String, u32>,
    /// Clusters whose controller was killed on purpose.
    stopped: BTreeSet<String>,
    options: Options,
    privilege: Privilege,
    source: PathBuf,
    folder: TempDir,
}

/// Numbers that have been given out, never twice.
#[derive(Debug, Default)]
struct Drawn {
    numbers: BTreeMap<String, u16>,
    given: BTreeMap<String, u16>,
}

impl Drawn {
    fn draw(&mut self, range: &str, key: &str) -> u16 {
        let key = format!("{range}/{key}");
        if let Some(number) = self.given.get(&key) {
            return *number;
        }
        let next = self.numbers.entry(range.to_owned()).or_default();
        // The range is named in the documentation of the lab; wrapping would give an address twice.
        *next = next.saturating_add(1).min(NUMBERS_MAX);
        self.given.insert(key, *next);
        *next
    }
}

struct Addressing<'l> {
    drawn: &'l mut Drawn,
    clusters: &'l BTreeMap<String, Cluster>,
    pods: &'l BTreeMap<PodName, Pod>,
}

impl Addressing<'_> {
    fn of(&mut self, cluster: &str, range: &str, key: &str, addresses: impl Fn(&Cluster, u16) -> Addresses) -> Addresses {
        let number = self.drawn.draw(&format!("{cluster}/{range}"), key);
        let none = Addresses { v4: std::net::Ipv4Addr::UNSPECIFIED, v6: std::net::Ipv6Addr::UNSPECIFIED };
        self.clusters.get(cluster).map_or(none, |cluster| addresses(cluster, number))
    }
}

impl Allocation for Addressing<'_> {
    fn pod(&self, pod: &PodName) -> Option<Addresses> {
        self.pods.get(pod).map(|pod| pod.addresses)
    }

    fn cluster_ips(&mut self, cluster: &str, namespace: &str, name: &str) -> Addresses {
        self.of(cluster, "cluster", &format!("{namespace}/{name}"), Cluster::cluster_ips)
    }

    fn cluster_set_ips(&mut self, cluster: &str, namespace: &str, name: &str) -> Addresses {
        self.of(cluster, "clusterset", &format!("{namespace}/{name}"), Cluster::cluster_set_ips)
    }
}

impl Lab {
    /// Starts everything that a folder asks for, and waits until it is in force.
    ///
    /// # Errors
    /// Something cannot be made or does not come up; nothing is left behind.
    pub fn start(source: &Path, options: Options, privilege: Privilege) -> anyhow::Result<Self> {
        let manifests = manifests::read(source)?;
        ensure!(manifests.len() <= CLUSTERS_MAX, "{} clusters; there are addresses for {CLUSTERS_MAX}", manifests.len());
        let folder = tempfile::Builder::new().prefix("isthmus-lab-").tempdir()?;
        // The sidecar's uid has to reach its access log and its socket.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let holder = Arc::new(Holder::start()?);
        let router = Namespace::new(None)?;
        net::prepare(&router, Forwards::Yes)?;
        let mut clusters = BTreeMap::new();
        for (name, number) in manifests.keys().zip(1..) {
            clusters.insert(name.clone(), Cluster::new(name, number, &router, folder.path().join(name), &holder)?);
        }
        let mut lab = Self {
            pods: BTreeMap::new(),
            clusters,
            router,
            holder,
            common: Arc::new(Common::new()?),
            drawn: Drawn::default(),
            derived: BTreeMap::new(),
            restarts: BTreeMap::new(),
            stopped: BTreeSet::new(),
            options,
            privilege,
            source: source.to_owned(),
            folder,
        };
        lab.reconcile()?;
        Ok(lab)
    }

    /// Makes everything equal to the folder again, and waits until every controller and sidecar that runs obeys.
    ///
    /// # Errors
    /// Something cannot be made or does not come up.
    pub fn reconcile(&mut self) -> anyhow::Result<()> {
        let manifests = manifests::read(&self.source)?;
        let planned = plan::pods(&manifests, &self.restarts);
        for (name, plan) in &planned {
            match self.pods.get_mut(name) {
                Some(pod) => pod.change(plan)?,
                None => self.start_pod(name, plan).with_context(|| name.to_string())?,
            }
        }
        let gone: Vec<PodName> = self.pods.keys().filter(|name| !planned.contains_key(*name)).cloned().collect();
        let mut addressing = Addressing { drawn: &mut self.drawn, clusters: &self.clusters, pods: &self.pods };
        self.derived = roles::derive(&manifests, &planned, &mut addressing);
        let none = Derived::default();
        for (name, cluster) in &mut self.clusters {
            cluster.publish(self.derived.get(name).unwrap_or(&none)).with_context(|| name.clone())?;
            if !self.options.without_controllers && !cluster.has_controller() && !self.stopped.contains(name) {
                cluster.start_controller(&self.options.controller_arguments)?;
            }
        }
        for (name, plan) in &planned {
            let (Some(pod), Some(cluster)) = (self.pods.get_mut(name), self.clusters.get(&name.cluster)) else { continue };
            if plan.is_injected && !pod.is_intercepted() {
                pod.start_init(&self.options, self.privilege, &cluster.vip_ranges()).with_context(|| name.to_string())?;
                pod.start_sidecar(&self.options, self.privilege).with_context(|| name.to_string())?;
            }
        }
        self.settled()?;
        for name in gone {
            self.pods.remove(&name);
        }
        Ok(())
    }

    /// Waits until every controller that runs, and every sidecar that runs, obeys what is in the folder.
    ///
    /// # Errors
    /// It takes too long, or a program has ended.
    pub fn settled(&mut self) -> anyhow::Result<()> {
        for pod in self.pods.values_mut() {
            pod.check()?;
        }
        for (name, cluster) in &mut self.clusters {
            let sidecars = self.pods.values().filter(|pod| pod.name.cluster == *name && pod.has_sidecar()).count();
            if let Err(error) = cluster.settled(sidecars) {
                // A program that has ended explains more than the wait for it.
                self.pods.values_mut().try_for_each(Pod::check)?;
                return Err(error);
            }
        }
        let has_controller =
            |name: &PodName, clusters: &BTreeMap<String, Cluster>| clusters.get(&name.cluster).is_some_and(Cluster::has_controller);
        for (name, pod) in &mut self.pods {
            if has_controller(name, &self.clusters) {
                pod.wait_ready().with_context(|| name.to_string())?;
            } else {
                pod.wait_alive().with_context(|| name.to_string())?;
            }
        }
        Ok(())
    }

    fn start_pod(&mut self, name: &PodName, plan: &PodPlan) -> anyhow::Result<()> {
        let cluster = self.clusters.get(&name.cluster).context("a cluster that was not there at the start")?;
        let number = self.drawn.draw(&format!("{}/pod", name.cluster), &format!("{}/{}", name.namespace, name.name));
        let folder = self.folder.path().join(&name.cluster).join("pods").join(&name.namespace).join(&name.name);
        let socket = self.folder.path().join(format!("{}-{number}.sock", cluster.number()));
        let addresses = cluster.pod_addresses(number);
        let pod = Pod::start(cluster, name, plan, &format!("v{number}"), addresses, (folder, socket), (&self.holder, &self.common))?;
        self.pods.insert(name.clone(), pod);
        Ok(())
    }

    /// The folder that the lab follows.
    #[must_use]
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// The pods that there are.
    pub fn pods(&self) -> impl Iterator<Item = &PodName> {
        self.pods.keys()
    }

    /// The first pod with a sidecar, from which requests are made where nothing else is said.
    ///
    /// # Errors
    /// There is none.
    pub fn client(&self) -> anyhow::Result<PodName> {
        let injected = self.pods.values().find(|pod| pod.plan.is_injected);
        let pod = injected.with_context(|| format!("no pod with the label {}: enabled", manifests::INJECT_LABEL))?;
        Ok(pod.name.clone())
    }

    /// The certificate that signs those of all pods.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        self.common.ca_pem()
    }

    /// A pod by `CLUSTER/NAMESPACE/NAME`.
    ///
    /// # Errors
    /// There is no such pod.
    pub fn pod(&self, name: &str) -> anyhow::Result<PodName> {
        let found = self.pods.keys().find(|pod| pod.to_string() == name);
        found.cloned().with_context(|| {
            format!("no pod {name}; there are {}", self.pods.keys().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        })
    }

    fn get(&self, pod: &PodName) -> anyhow::Result<&Pod> {
        self.pods.get(pod).with_context(|| format!("no pod {pod}"))
    }

    fn get_mut(&mut self, pod: &PodName) -> anyhow::Result<&mut Pod> {
        self.pods.get_mut(pod).with_context(|| format!("no pod {pod}"))
    }

    fn cluster_mut(&mut self, name: &str) -> anyhow::Result<&mut Cluster> {
        self.clusters.get_mut(name).with_context(|| format!("no cluster {name}"))
    }

    fn cluster(&self, name: &str) -> anyhow::Result<&Cluster> {
        self.clusters.get(name).with_context(|| format!("no cluster {name}"))
    }

    /// Whether a pod has a sidecar that runs.
    ///
    /// # Errors
    /// There is no such pod.
    pub fn has_sidecar(&self, pod: &PodName) -> anyhow::Result<bool> {
        Ok(self.get(pod)?.has_sidecar())
    }

    /// The namespaces of a pod.
    ///
    /// # Errors
    /// There is no such pod.
    pub fn namespace(&self, pod: &PodName) -> anyhow::Result<&Namespace> {
        Ok(&self.get(pod)?.namespace)
    }

    /// A pod's own addresses, IPv4 first.
    ///
    /// # Errors
    /// There is no such pod.
    pub fn addresses(&self, pod: &PodName) -> anyhow::Result<[IpAddr; 2]> {
        Ok(self.get(pod)?.addresses.both())
    }

    /// Where a pod itself, without any VIP, serves HTTP.
    ///
    /// # Errors
    /// It does not.
    pub fn server(&self, pod: &PodName) -> anyhow::Result<SocketAddr> {
        let found = self.get(pod)?;
        let port = found.plan.servers.http_port().with_context(|| format!("{pod} serves no HTTP"))?;
        Ok(SocketAddr::new(found.addresses.v4.into(), port))
    }

    /// What a name means inside a pod, IPv4 first; an address means itself.
    ///
    /// # Errors
    /// It means nothing.
    pub fn resolve(&self, pod: &PodName, name: &str) -> anyhow::Result<Vec<IpAddr>> {
        if let Ok(ip) = name.parse() {
            return Ok(vec![ip]);
        }
        let names = self.derived.get(&pod.cluster).map(|derived| derived.names.as_slice()).unwrap_or_default();
        let full = format!("{name}.{}", pod.namespace);
        let ips: Vec<IpAddr> = names.iter().filter(|(known, _)| known == name || *known == full).map(|(_, ip)| *ip).collect();
        ensure!(!ips.is_empty(), "{name} means nothing in {pod}");
        Ok(ips)
    }

    /// The address of `HOST:PORT` for a pod.
    ///
    /// # Errors
    /// The name means nothing, or the port is none.
    pub fn address(&self, pod: &PodName, host_port: &str) -> anyhow::Result<SocketAddr> {
        if let Ok(address) = host_port.parse() {
            return Ok(address);
        }
        let (host, port) = host_port.split_once(':').unwrap_or((host_port, "80"));
        let port = port.parse().with_context(|| format!("{host_port:?} is not HOST:PORT"))?;
        let ips = self.resolve(pod, host)?;
        Ok(SocketAddr::new(*ips.first().context("no address")?, port))
    }

    /// A request from a pod to `HOST:PORT`, on a connection of its own, over HTTP/1.1.
    ///
    /// # Errors
    /// There is no whole answer.
    pub fn ask(&self, pod: &PodName, host_port: &str, ask: &Ask) -> anyhow::Result<Answer> {
        self.ask_in(pod, host_port, Version::HTTP_11, ask)
    }

    /// The same in another version of HTTP.
    ///
    /// # Errors
    /// There is no whole answer.
    pub fn ask_in(&self, pod: &PodName, host_port: &str, version: Version, ask: &Ask) -> anyhow::Result<Answer> {
        let address = self.address(pod, host_port)?;
        self.namespace(pod)?.block_on(|| client::ask(address, version, ask))
    }

    /// The access log of a pod's sidecar.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn access_log(&self, pod: &PodName) -> anyhow::Result<Vec<Value>> {
        let path = self.get(pod)?.access_log();
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        // The last line may still be on its way.
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// What a pod's init and sidecar have logged.
    ///
    /// # Errors
    /// There is no such pod.
    pub fn logs(&self, pod: &PodName) -> anyhow::Result<String> {
        Ok(self.get(pod)?.logs())
    }

    /// Where a pod finds the admin port of its cluster's controller.
    #[must_use]
    pub fn controller_admin(&self) -> SocketAddr {
        SocketAddr::new(net::GATEWAY_V4.into(), CONTROLLER_ADMIN_PORT)
    }

    /// What the admin port of a pod's sidecar answers.
    ///
    /// # Errors
    /// It does not answer.
    pub fn sidecar_admin(&self, pod: &PodName, target: &str) -> anyhow::Result<String> {
        self.get(pod)?.sidecar_admin(target)
    }

    /// Pid of a pod's sidecar.
    ///
    /// # Errors
    /// There is none.
    pub fn sidecar_pid(&self, pod: &PodName) -> anyhow::Result<u32> {
        self.get(pod)?.sidecar_pid().context("no sidecar runs")
    }

    /// Ends a pod's sidecar with a signal and waits for its end.
    ///
    /// # Errors
    /// There is no such pod, or the signal alone did not end it.
    pub fn end_sidecar(&mut self, pod: &PodName, with: Signal) -> anyhow::Result<()> {
        ensure!(self.get_mut(pod)?.end_sidecar(with), "{pod}: {with} did not end the sidecar");
        Ok(())
    }

    /// Sends a pod's sidecar a signal.
    ///
    /// # Errors
    /// There is no such pod.
    pub fn signal_sidecar(&self, pod: &PodName, signal: Signal) -> anyhow::Result<()> {
        self.get(pod)?.signal_sidecar(signal);
        Ok(())
    }

    /// Starts a pod's sidecar again and waits until it is ready, or alive if it has no controller.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start_sidecar(&mut self, pod: &PodName) -> anyhow::Result<()> {
        let (options, privilege) = (self.options.clone(), self.privilege);
        self.get_mut(pod)?.start_sidecar(&options, privilege)?;
        self.settled()
    }

    /// Stops a pod's echo server, and with it only the server: its endpoint stays listed.
    ///
    /// # Errors
    /// There is no such pod.
    pub fn stop_server(&mut self, pod: &PodName) -> anyhow::Result<()> {
        self.get_mut(pod)?.stop_echo();
        Ok(())
    }

    /// Replaces every pod of a Deployment, `CLUSTER/NAMESPACE/NAME`, by a new one with a new address.
    ///
    /// # Errors
    /// Something does not come up.
    pub fn restart(&mut self, deployment: &str) -> anyhow::Result<()> {
        *self.restarts.entry(deployment.to_owned()).or_default() += 1;
        self.reconcile()
    }

    /// Kills a cluster's controller without a word.
    ///
    /// # Errors
    /// There is no such cluster.
    pub fn kill_controller(&mut self, cluster: &str) -> anyhow::Result<()> {
        self.cluster_mut(cluster)?.kill_controller();
        self.stopped.insert(cluster.to_owned());
        Ok(())
    }

    /// Starts a cluster's controller again and waits until everyone obeys it.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start_controller(&mut self, cluster: &str) -> anyhow::Result<()> {
        let arguments = self.options.controller_arguments.clone();
        self.stopped.remove(cluster);
        self.cluster_mut(cluster)?.start_controller(&arguments)?;
        self.settled()
    }

    /// What a cluster's controller has logged.
    ///
    /// # Errors
    /// There is no such cluster.
    pub fn controller_log(&self, cluster: &str) -> anyhow::Result<String> {
        Ok(self.cluster(cluster)?.controller_log())
    }

    /// The documents of a file that the lab wrote for a cluster's controller: `lab-endpoints.yaml`, `lab-imports.yaml`, or one of the user's.
    ///
    /// # Errors
    /// There is no such file.
    pub fn written(&self, cluster: &str, file: &str) -> anyhow::Result<Vec<Value>> {
        let derived = self.derived.get(cluster).with_context(|| format!("no cluster {cluster}"))?;
        let bytes = derived.files.get(file).with_context(|| format!("no file {file}"))?;
        let documents = routing::manifest::parse(std::str::from_utf8(bytes)?)?;
        Ok(documents.into_iter().map(|document| document.value).collect())
    }

    /// The status of an HTTPRoute as the controller wrote it.
    ///
    /// # Errors
    /// There is none.
    pub fn route_status(&self, cluster: &str, namespace: &str, name: &str) -> anyhow::Result<Value> {
        self.status(cluster, "HTTPRoute", namespace, name)
    }

    /// The status of an object of any kind as the controller wrote it.
    ///
    /// # Errors
    /// There is none.
    pub fn status(&self, cluster: &str, kind: &str, namespace: &str, name: &str) -> anyhow::Result<Value> {
        let path = self.cluster(cluster)?.status_folder().join(format!("{kind}.{namespace}.{name}.yaml"));
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let documents = routing::manifest::parse(&text)?;
        Ok(documents.into_iter().next().with_context(|| path.display().to_string())?.value)
    }
}
