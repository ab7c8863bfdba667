//! The documentation, followed: whatever its pages have typed is typed here, in the order of the pages, and shows what they say.
//!
//! Where a page shows what a command says, each of its lines has to be among those that come, but for addresses and versions.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tests::pages::{Block, Command as Typed, ON_KUBERNETES, blocks, commands};

use super::install;
use crate::bed::{Bed, EAST, WEST, eventually, output};

/// What a `port-forward` says when it can be used.
const FORWARDS: &str = "Forwarding from";

/// Every page, on clusters with the first steps; everything is as before afterwards.
pub(crate) fn every_command_does_what_its_page_says(bed: &Bed) -> anyhow::Result<()> {
    scene(bed)?;
    for page in ON_KUBERNETES {
        let mut applied = Vec::new();
        let followed = follow(bed, page, &mut applied).with_context(|| page.to_owned());
        put_back(bed, &applied)?;
        followed?;
    }
    for cluster in [EAST, WEST] {
        bed.kubectl(
            cluster,
            &["-n", "shop", "delete", "deployment", "web", "checkout", "checkout-next", "--ignore-not-found", "--wait=false"],
        )?;
        bed.kubectl(cluster, &["-n", "shop", "delete", "service,serviceexport", "checkout", "--ignore-not-found"])?;
    }
    bed.kubectl(EAST, &["delete", "namespace", "monitoring", "--wait=false"])?;
    bed.kubectl(EAST, &["delete", "crd", "prometheusrules.monitoring.coreos.com"])?;
    // What the pages install differs from what the other cases use.
    install::mesh(bed, EAST)
}

/// `kubectl isthmus` is a plugin whose words kubectl's own completion knows, as `make install` links it.
pub(crate) fn kubectl_has_a_plugin(bed: &Bed) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    for name in ["kubectl-isthmus", "kubectl_complete-isthmus"] {
        std::os::unix::fs::symlink(bed.file("target/debug/isthmus"), folder.path().join(name))?;
    }
    let run = |line: &str| output(&mut bed.sh(EAST, "", &format!("PATH={}:$PATH; {line}", folder.path().display())));
    let completed = run("kubectl __complete isthmus expl")?;
    ensure!(completed.starts_with("explain\t") && completed.trim_end().ends_with(":4"), "{completed}");
    eventually("every sidecar is current", || {
        let proxies = run("kubectl isthmus proxies -n shop")?;
        ensure!(proxies.contains("client"), "{proxies}");
        Ok(())
    })
}

/// What the pages take for given: a client `web`, a service `checkout` with a second version, the kind of the Prometheus Operator.
fn scene(bed: &Bed) -> anyhow::Result<()> {
    let deployment = |name: &str, labels: Value, container: Value| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
            }},
        })
    };
    let echo = json!({"name": "echo", "image": "registry.k8s.io/gateway-api/echo-advanced:v1.5.1", "args": ["--port=8080"]});
    let curl = json!({"name": "curl", "image": "curlimages/curl:8.11.1", "command": ["sleep", "infinity"]});
    let objects = [
        deployment("web", json!({"app": "web"}), curl),
        deployment("checkout", json!({"app": "checkout", "version": "stable"}), echo.clone()),
        deployment("checkout-next", json!({"app": "checkout", "version": "next"}), echo),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "checkout", "namespace": "shop"},
            "spec": {"selector": {"app": "checkout", "version": "stable"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        }),
        json!({"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport", "metadata": {"name": "checkout", "namespace": "shop"}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "monitoring"}}),
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "prometheusrules.monitoring.coreos.com"},
            "spec": {
                "group": "monitoring.coreos.com", "scope": "Namespaced", "names": {"kind": "PrometheusRule", "plural": "prometheusrules"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["groups"], "properties": {
                        "groups": {"type": "array", "items": {"type": "object", "required": ["name", "rules"], "x-kubernetes-preserve-unknown-fields": true}},
                    }},
                }}}}],
            },
        }),
    ];
    for object in objects {
        bed.apply(EAST, &object.to_string())?;
    }
    bed.kubectl(EAST, &["wait", "--for=condition=Established", "crd/prometheusrules.monitoring.coreos.com", "--timeout=60s"])?;
    for deployment in ["deployment/web", "deployment/checkout", "deployment/checkout-next"] {
        bed.kubectl(EAST, &["-n", "shop", "rollout", "status", deployment, "--timeout=60s"])?;
    }
    install::first_steps(bed)
}

fn put_back(bed: &Bed, applied: &[(&str, String)]) -> anyhow::Result<()> {
    for (cluster, yaml) in applied {
        bed.delete(cluster, yaml)?;
    }
    install::first_steps(bed)
}

/// Follows a page from its first to its last block; says what it had applied, and where.
fn follow(bed: &Bed, page: &str, applied: &mut Vec<(&'static str, String)>) -> anyhow::Result<()> {
    let folder = if page.starts_with("manifests/") { page.rsplit_once('/').map_or("", |(folder, _)| folder) } else { "" };
    for Block { language, text } in blocks(page) {
        match language.as_str() {
            // A file of Prometheus' own has no kind.
            "yaml" if text.contains("kind: ") => {
                // What is named by one cluster alone is for the other as well, by its name.
                let is_for_both = text.contains("-east") && !text.contains("-west");
                let west = is_for_both.then(|| (WEST, text.replace("-east", "-west")));
                for (cluster, yaml) in std::iter::once((EAST, text)).chain(west) {
                    bed.apply(cluster, &yaml).with_context(|| yaml.clone())?;
                    applied.push((cluster, yaml));
                }
            }
            "sh" | "console" => block(bed, folder, &commands(&Block { language, text }))?,
            _ => {}
        }
    }
    Ok(())
}

/// Types the commands of a block; what runs in the background ends with it.
fn block(bed: &Bed, folder: &str, commands: &[Typed]) -> anyhow::Result<()> {
    let mut background = Background(Vec::new());
    for command in commands {
        if let Some(line) = command.typed.strip_suffix('&') {
            background.start(bed, folder, line)?;
        } else if command.typed.starts_with("make ") {
            // Run by the gate itself; what a demo shows, its own tests compare.
        } else {
            typed(bed, folder, command).with_context(|| command.typed.clone())?;
        }
    }
    Ok(())
}

/// Types a command. What it asks for need not have come about yet, so that questions are repeated.
fn typed(bed: &Bed, folder: &str, command: &Typed) -> anyhow::Result<()> {
    let run = || -> anyhow::Result<String> {
        let output = bed.sh(EAST, folder, &command.typed).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && !said.contains("No resources found"), "{}: {said}", output.status);
        let lines: Vec<String> = said.lines().map(masked).collect();
        let missing: Vec<&String> = command.shown.iter().filter(|line| *line != "..." && !lines.contains(&masked(line))).collect();
        ensure!(missing.is_empty(), "it does not say {missing:#?} but {said}");
        // A status is seen where the command shows the answer's head; the one page that tells of another asks for its body alone.
        let status = command.remark.split([':', ',']).next().filter(|status| status.parse::<u16>().is_ok());
        let shows_head = command.typed.contains("curl -si");
        ensure!(
            !shows_head || status.is_none_or(|status| said.contains(&format!("HTTP/1.1 {status} "))),
            "it does not say {status:?} but {said}"
        );
        Ok(said)
    };
    let is_question = ["get ", "describe ", "exec ", "curl ", "isthmus ", "logs "].iter().any(|word| command.typed.contains(word));
    let said = if is_question { eventually("a question's answer", run) } else { run() }?;
    println!("  {}: {} lines", command.typed, said.lines().count());
    Ok(())
}

/// A line without what differs from cluster to cluster: addresses, and versions of what a sidecar holds.
fn masked(line: &str) -> String {
    let is_part = |letter: char| letter.is_ascii_hexdigit() || letter == '.' || letter == ':';
    let words = line.trim_end().split(' ').map(|word| {
        let core = word.trim_matches(|letter: char| !letter.is_ascii_hexdigit());
        let is_value = core.len() > 6 && core.chars().all(is_part) && core.contains(|letter: char| letter.is_ascii_digit());
        if is_value { word.replace(core, "*") } else { word.to_owned() }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// What a block has left running, and where it goes on telling what it does: kubectl ends when nobody can read that.
struct Background(Vec<(Child, Option<BufReader<ChildStdout>>)>);

impl Background {
    /// Starts a command, and waits until it says that it forwards.
    fn start(&mut self, bed: &Bed, folder: &str, command: &str) -> anyhow::Result<()> {
        // Without a shell in between, which would be ended in its place.
        let mut child = bed.sh(EAST, folder, &format!("exec {command}")).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().map(BufReader::new);
        self.0.push((child, output));
        let output = self.0.last_mut().and_then(|(_, output)| output.as_mut()).context("its output")?;
        let mut line = String::new();
        while output.read_line(&mut line)? > 0 {
            if line.contains(FORWARDS) {
                return Ok(());
            }
        }
        bail!("{command} ended")
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        for (child, _) in &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
