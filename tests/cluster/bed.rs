//! The two clusters, as a user has them: through kubectl and helm.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

/// The cluster with the clients and routes.
pub(crate) const EAST: &str = "east";
/// The other one.
pub(crate) const WEST: &str = "west";
/// What comes about by itself has come about within this time.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// What waits for a timer that doubles with every failure (up to a minute between attempts, after an API server was away) has within this one.
pub(crate) const AFTER_FAILURES: Duration = Duration::from_secs(180);
/// It is looked for this often.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A running bed.
#[derive(Debug)]
pub(crate) struct Bed {
    run: PathBuf,
    bin: PathBuf,
    project: PathBuf,
}

impl Bed {
    /// The one that `bed up` started.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn running() -> anyhow::Result<Self> {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let home = variable("HOME").context("HOME")?;
        let cache = variable("ISTHMUS_BED_CACHE")
            .unwrap_or_else(|| variable("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache")).join("isthmus-bed"));
        let run = variable("ISTHMUS_BED_RUN").unwrap_or_else(|| "/run/isthmus-bed".into());
        ensure!(run.join("kubeconfig").exists(), "no bed is up: make cluster-up");
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the project's root")?.to_owned();
        Ok(Self { run, bin: cache.join("bin"), project })
    }

    /// A file of the project.
    pub(crate) fn file(&self, path: &str) -> String {
        self.project.join(path).display().to_string()
    }

    /// A cluster's kubeconfig.
    pub(crate) fn kubeconfig(&self, cluster: &str) -> PathBuf {
        self.run.join(cluster).join("admin.conf")
    }

    /// kubectl, and what it says.
    ///
    /// # Errors
    /// It fails.
    pub(crate) fn kubectl(&self, cluster: &str, arguments: &[&str]) -> anyhow::Result<String> {
        self.tool("kubectl", cluster, arguments, "")
    }

    /// helm, and what it says.
    ///
    /// # Errors
    /// It fails.
    pub(crate) fn helm(&self, cluster: &str, arguments: &[&str]) -> anyhow::Result<String> {
        self.tool("helm", cluster, arguments, "")
    }

    /// Applies YAML.
    ///
    /// # Errors
    /// It is refused.
    pub(crate) fn apply(&self, cluster: &str, yaml: &str) -> anyhow::Result<String> {
        self.tool("kubectl", cluster, &["apply", "-f", "-"], yaml)
    }

    /// Deletes what YAML names, if it is there.
    ///
    /// # Errors
    /// It is refused.
    pub(crate) fn delete(&self, cluster: &str, yaml: &str) -> anyhow::Result<String> {
        self.tool("kubectl", cluster, &["delete", "--ignore-not-found", "-f", "-"], yaml)
    }

    /// A line for a shell as a user has it: in a folder of the project, with kubectl, helm and isthmus.
    pub(crate) fn sh(&self, cluster: &str, folder: &str, line: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command
            .args(["-o", "pipefail", "-c", line])
            .current_dir(self.project.join(folder))
            .env("KUBECONFIG", self.kubeconfig(cluster))
            .env("PATH", format!("{}:{}:{path}", self.bin.display(), self.file("target/debug")));
        command
    }

    /// An object as JSON.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn get(&self, cluster: &str, arguments: &[&str]) -> anyhow::Result<Value> {
        let mut all = vec!["get", "-o", "json"];
        all.extend(arguments);
        Ok(serde_json::from_str(&self.kubectl(cluster, &all)?)?)
    }

    /// A shell command in a pod of the namespace shop of east, and what it prints.
    ///
    /// # Errors
    /// It fails.
    pub(crate) fn shell(&self, pod: &str, command: &str) -> anyhow::Result<String> {
        self.kubectl(EAST, &["-n", "shop", "exec", pod, "--", "sh", "-c", command])
    }

    /// Changes a value of the installed chart and waits until it is in force.
    ///
    /// # Errors
    /// The chart refuses it, or the controllers do not become ready.
    pub(crate) fn set_value(&self, cluster: &str, value: &str) -> anyhow::Result<()> {
        let chart = self.file("manifests/helm/isthmus");
        let place = ["--namespace", "isthmus-system", "--reuse-values", "--set", value, "--wait", "--timeout", "90s"];
        self.helm(cluster, &[&["upgrade", "isthmus", &chart][..], &place].concat())?;
        eventually("those before are gone", || {
            let pods = self.get(cluster, &["-n", "isthmus-system", "pods"])?;
            let leaving = |pod: &Value| !pod["metadata"]["deletionTimestamp"].is_null();
            ensure!(!pods["items"].as_array().into_iter().flatten().any(leaving), "some are still ending");
            Ok(())
        })
    }

    /// Kills the API server.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn kill_api_server(&self, cluster: &str) -> anyhow::Result<()> {
        self.command("kill", cluster)
    }

    /// Kills the API server if it is alive, and starts it again.
    ///
    /// # Errors
    /// It does not come back.
    pub(crate) fn restart_api_server(&self, cluster: &str) -> anyhow::Result<()> {
        self.command("restart", cluster)
    }

    fn command(&self, command: &str, cluster: &str) -> anyhow::Result<()> {
        let status = Command::new(self.file("tests/cluster/bed")).args([command, cluster, "kube-apiserver"]).status()?;
        ensure!(status.success(), "bed {command} {cluster} kube-apiserver: {status}");
        Ok(())
    }

    /// The controllers' pods: name and address.
    ///
    /// # Errors
    /// The API server does not answer.
    pub(crate) fn controllers(&self, cluster: &str) -> anyhow::Result<Vec<(String, IpAddr)>> {
        let pods = self.get(cluster, &["-n", "isthmus-system", "pods", "-l", "app.kubernetes.io/name=isthmus-controller"])?;
        let pods = pods["items"].as_array().into_iter().flatten();
        let running = pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["phase"] == "Running");
        running.map(|pod| Ok((text(&pod["metadata"]["name"])?, text(&pod["status"]["podIP"])?.parse()?))).collect()
    }

    /// `isthmus check`: whether nothing failed, and what it says.
    ///
    /// # Errors
    /// It cannot be run.
    pub(crate) fn check(&self, cluster: &str) -> anyhow::Result<(bool, String)> {
        self.isthmus(cluster, &["check"])
    }

    /// `isthmus` with these arguments: its exit status, and what it says.
    ///
    /// # Errors
    /// It cannot be run.
    pub(crate) fn isthmus(&self, cluster: &str, arguments: &[&str]) -> anyhow::Result<(bool, String)> {
        let mut command = Command::new(self.file("target/debug/isthmus"));
        let output = command.args(arguments).env("KUBECONFIG", self.kubeconfig(cluster)).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Ok((output.status.success(), said))
    }

    /// `isthmus inject`, and what it prints.
    ///
    /// # Errors
    /// It fails.
    pub(crate) fn inject(&self, arguments: &[&str]) -> anyhow::Result<String> {
        output(Command::new(self.file("target/debug/isthmus")).arg("inject").args(arguments))
    }

    fn tool(&self, tool: &str, cluster: &str, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let mut child = Command::new(self.bin.join(tool))
            .env("KUBECONFIG", self.kubeconfig(cluster))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{tool}: bed build"))?;
        child.stdin.take().context("standard input")?.write_all(input.as_bytes())?;
        said(&format!("{tool} {}", arguments.join(" ")), &child.wait_with_output()?)
    }
}

/// What a program prints.
///
/// # Errors
/// It fails.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    said(&format!("{command:?}"), &output)
}

fn said(what: &str, output: &Output) -> anyhow::Result<String> {
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{what}: {}", complaint.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A string of an object.
///
/// # Errors
/// It is none.
pub(crate) fn text(value: &Value) -> anyhow::Result<String> {
    value.as_str().map(str::to_owned).with_context(|| format!("{value} is no string"))
}

/// Looks until what is asked for is there.
///
/// # Errors
/// It is not there in time; says what was there last.
pub(crate) fn eventually<T>(what: &str, look: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    eventually_within(SOON, what, look)
}

/// Looks for so long until what is asked for is there.
///
/// # Errors
/// It is not there in time; says what was there last.
pub(crate) fn eventually_within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() >= end => return Err(error).with_context(|| format!("{what}: not in {} s", limit.as_secs())),
            // What is looked at (an answer to curl, a status, a lease) has nobody who would say when it changes.
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}
