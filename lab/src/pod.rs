//! A pod: a namespace with an echo server, and with `isthmus-init` and `isthmus-sidecar` where it is injected.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use nix::sys::signal::Signal;

use crate::Namespace;
use crate::cluster::{Cluster, UP_MAX, get};
use crate::echo::{Common, Echo};
use crate::lab::{Existing, Fail, Intercept, Options};
use crate::net::{self, Addresses, Forwards};
use crate::plan::{PodPlan, Servers};
use crate::privilege::{Privilege, SIDECAR_ID};
use crate::process::{As, Holder, Process, wait_for};
use crate::roles::PodName;

/// The sidecar's admin port.
const SIDECAR_ADMIN: &str = "127.0.0.1:15000";

/// A pod.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) name: PodName,
    pub(crate) plan: PodPlan,
    pub(crate) addresses: Addresses,
    pub(crate) namespace: Namespace,
    folder: PathBuf,
    socket: PathBuf,
    holder: Arc<Holder>,
    common: Arc<Common>,
    echo: Option<Echo>,
    init: Option<Process>,
    sidecar: Option<Process>,
    is_intercepted: bool,
}

impl Pod {
    /// Makes the namespace, joins it to its cluster and starts the echo server.
    pub(crate) fn start(
        cluster: &Cluster,
        name: &PodName,
        plan: &PodPlan,
        link: &str,
        addresses: Addresses,
        (folder, socket): (PathBuf, PathBuf),
        (holder, common): (&Arc<Holder>, &Arc<Common>),
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(&folder)?;
        let namespace = Namespace::new(Some(&cluster.hosts_file(&name.namespace)?))?;
        net::prepare(&namespace, Forwards::No)?;
        net::connect_pod(&cluster.namespace, &namespace, link, addresses)?;
        let echo = Some(Echo::start(&namespace, name, &plan.servers, common)?);
        let (name, plan) = (name.clone(), plan.clone());
        Ok(Self {
            name,
            plan,
            addresses,
            namespace,
            folder,
            socket,
            holder: Arc::clone(holder),
            common: Arc::clone(common),
            echo,
            init: None,
            sidecar: None,
            is_intercepted: false,
        })
    }

    /// Takes over a changed plan.
    pub(crate) fn change(&mut self, plan: &PodPlan) -> anyhow::Result<()> {
        if plan.servers != self.plan.servers {
            self.echo = None;
            // Until it is clear that the new ones can be had there are none.
            self.plan.servers = Servers::default();
            self.echo = Some(Echo::start(&self.namespace, &self.name, &plan.servers, &self.common)?);
        }
        // A sidecar knows where it is from its start.
        if (!plan.is_injected || plan.place != self.plan.place) && self.is_intercepted {
            self.sidecar = None;
            self.init = None;
            self.namespace.run(|| Ok(init::plan::delete()?)).context("withdraw interception")?;
            self.is_intercepted = false;
        }
        self.plan = plan.clone();
        Ok(())
    }

    /// Whether interception was arranged.
    pub(crate) fn is_intercepted(&self) -> bool {
        self.is_intercepted
    }

    /// Whether a sidecar runs.
    pub(crate) fn has_sidecar(&self) -> bool {
        self.sidecar.is_some()
    }

    /// Arranges interception: `isthmus-init watch` in exact mode, `isthmus-init install` for ranges.
    pub(crate) fn start_init(&mut self, options: &Options, privilege: Privilege, ranges: &[String]) -> anyhow::Result<()> {
        let exempt = match privilege {
            Privilege::Root => format!("--sidecar-uid={SIDECAR_ID}"),
            Privilege::UserNamespace => format!("--sidecar-mark={SIDECAR_ID}"),
        };
        let existing = match options.existing {
            Existing::Keep => "--existing=keep",
            Existing::Reset => "--existing=reset",
        };
        let log = self.folder.join("init.log");
        let mut arguments = vec![exempt, existing.to_owned()];
        match options.intercept {
            Intercept::Exact => {
                let fail = match options.fail {
                    Fail::Closed => "--fail=closed",
                    Fail::Open => "--fail=open",
                };
                arguments.splice(0..0, ["watch".to_owned(), format!("--socket={}", self.socket().display()), fail.to_owned()]);
                self.init = Some(Process::start(&self.holder, &self.namespace, "isthmus-init", &arguments, As::Lab, &log)?);
            }
            Intercept::Cidr => {
                arguments.insert(0, "install".to_owned());
                arguments.extend(ranges.iter().map(|range| format!("--cidr={range}")));
                Process::start(&self.holder, &self.namespace, "isthmus-init", &arguments, As::Lab, &log)?.finish()?;
            }
        }
        Ok(())
    }

    /// Starts the sidecar; does not wait for it.
    pub(crate) fn start_sidecar(&mut self, options: &Options, privilege: Privilege) -> anyhow::Result<()> {
        let access_log = self.access_log();
        // The sidecar's uid may write nothing else.
        fs::File::options().create(true).append(true).open(&access_log)?;
        fs::set_permissions(&access_log, fs::Permissions::from_mode(0o666))?;
        let mut arguments = vec![
            format!("--controller={}", Cluster::controller_url()),
            format!("--namespace={}", self.name.namespace),
            format!("--pod={}", self.name.name),
            format!("--cluster={}", self.name.cluster),
            "--drain-grace-s=1".to_owned(),
            "--workers=1".to_owned(),
        ];
        let place = &self.plan.place;
        arguments.extend(place.node.iter().map(|node| format!("--node={node}")));
        arguments.extend(place.zone.iter().map(|zone| format!("--zone={zone}")));
        if !options.without_access_log {
            arguments.push(format!("--access-log={}", access_log.display()));
        }
        if options.intercept == Intercept::Exact {
            arguments.push(format!("--vip-socket={}", self.socket().display()));
        }
        let who = match privilege {
            Privilege::Root => As::Nobody(SIDECAR_ID),
            Privilege::UserNamespace => {
                arguments.push(format!("--mark={SIDECAR_ID}"));
                As::Lab
            }
        };
        arguments.extend(options.sidecar_arguments.iter().cloned());
        self.is_intercepted = true;
        self.sidecar =
            Some(Process::start(&self.holder, &self.namespace, "isthmus-sidecar", &arguments, who, &self.folder.join("sidecar.log"))?);
        Ok(())
    }

    /// Waits until the sidecar is ready.
    pub(crate) fn wait_ready(&mut self) -> anyhow::Result<()> {
        let namespace = &self.namespace;
        let Some(sidecar) = &mut self.sidecar else { return Ok(()) };
        wait_for("the sidecar is ready", UP_MAX, || {
            sidecar.check()?;
            Ok(get(namespace, SIDECAR_ADMIN, "/readyz").ok().filter(|(status, _)| *status == 200))
        })?;
        Ok(())
    }

    /// Waits until the sidecar listens, ready or not.
    pub(crate) fn wait_alive(&mut self) -> anyhow::Result<()> {
        let namespace = &self.namespace;
        let Some(sidecar) = &mut self.sidecar else { return Ok(()) };
        wait_for("the sidecar is alive", UP_MAX, || {
            sidecar.check()?;
            Ok(get(namespace, SIDECAR_ADMIN, "/livez").ok().filter(|(status, _)| *status == 200))
        })?;
        Ok(())
    }

    /// Ends the sidecar with a signal, and waits for its end.
    pub(crate) fn end_sidecar(&mut self, with: Signal) -> bool {
        self.sidecar.take().is_some_and(|mut sidecar| sidecar.end(with))
    }

    /// Sends the sidecar a signal.
    pub(crate) fn signal_sidecar(&self, signal: Signal) {
        if let Some(sidecar) = &self.sidecar {
            sidecar.signal(signal);
        }
    }

    /// Its pid.
    pub(crate) fn sidecar_pid(&self) -> Option<u32> {
        self.sidecar.as_ref().map(Process::pid)
    }

    /// Stops the echo server: requests in flight end first.
    pub(crate) fn stop_echo(&mut self) {
        self.echo = None;
    }

    /// What the sidecar's admin port answers.
    pub(crate) fn sidecar_admin(&self, target: &str) -> anyhow::Result<String> {
        Ok(get(&self.namespace, SIDECAR_ADMIN, target)?.1)
    }

    pub(crate) fn access_log(&self) -> PathBuf {
        self.folder.join("access.log")
    }

    /// What its programs have logged.
    pub(crate) fn logs(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        format!("{}{}", read("init.log"), read("sidecar.log"))
    }

    /// Short, whatever the pod is called: the kernel takes about a hundred bytes.
    fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    /// Fails if one of its programs has ended by itself.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        for process in [&mut self.init, &mut self.sidecar].into_iter().flatten() {
            process.check().with_context(|| self.name.to_string())?;
        }
        Ok(())
    }
}
