//! Upgrade and removal, by the documented commands.

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::bed::{Bed, EAST, WEST, eventually, text};
use crate::cases::install;

const URL: &str = "http://store.shop.svc.clusterset.local/cart";

/// An upgrade replaces every controller; no request fails, no sidecar is restarted, and what changes afterwards is obeyed.
pub(crate) fn upgrade(bed: &Bed) -> anyhow::Result<()> {
    let before = bed.controllers(EAST)?;
    let counted =
        "for i in $(seq 400); do curl -s -m 10 -o /dev/null -w '%{http_code}\\n' URL || echo failed; sleep 0.05; done | sort | uniq -c";
    let counted = counted.replace("URL", URL);
    let answers = std::thread::scope(|scope| {
        let asked = scope.spawn(|| bed.shell("client", &counted));
        bed.set_value(EAST, "controller.logLevel=debug")?;
        asked.join().map_err(|_| anyhow::anyhow!("the asker panicked"))?
    })?;
    ensure!(answers.split_whitespace().eq(["400", "200"]), "{answers}");
    let after = bed.controllers(EAST)?;
    ensure!(before.iter().all(|(pod, _)| after.iter().all(|(other, _)| pod != other)), "{before:?} are still there: {after:?}");
    let client = bed.get(EAST, &["-n", "shop", "pod", "client"])?;
    let restarts = client["status"]["initContainerStatuses"].as_array().into_iter().flatten().map(|status| &status["restartCount"]);
    ensure!(restarts.clone().all(|count| *count == 0), "{:?}", restarts.collect::<Vec<_>>());
    bed.kubectl(EAST, &["-n", "shop", "delete", "httproute", "store"])?;
    eventually("a change after the upgrade is obeyed", || {
        let answer = bed.shell("client", &format!("curl -s {URL}"))?;
        ensure!(answer.contains("Hostname=store-"), "{answer}");
        Ok(())
    })?;
    bed.kubectl(EAST, &["apply", "-f", &bed.file("manifests/first-steps/route.yaml")])?;
    bed.set_value(EAST, "controller.logLevel=info")
}

/// The CA is renewed as `isthmus check` advises; before that, a Secret that only vanished comes back as it was.
pub(crate) fn another_ca(bed: &Bed) -> anyhow::Result<()> {
    const CONTROLLERS: [&str; 4] = ["-n", "isthmus-system", "scale", "deployment/isthmus-controller"];
    let scale = |replicas: &str| bed.kubectl(WEST, &[&CONTROLLERS[..], &[replicas]].concat());
    let delete = || bed.kubectl(WEST, &["-n", "isthmus-system", "delete", "secret", "isthmus-ca"]);
    let secret = || bed.get(WEST, &["-n", "isthmus-system", "secret", "isthmus-ca"]);
    let ca = || Ok::<_, anyhow::Error>(secret()?["data"]["tls.crt"].clone());
    let before = ca()?;
    delete()?;
    let back = eventually("the Secret comes back", ca)?;
    ensure!(back == before, "another CA although controllers run");
    scale("--replicas=0")?;
    let pods = ["wait", "pod", "--for=delete", "-l", "app.kubernetes.io/name=isthmus-controller", "--timeout=1m"];
    bed.kubectl(WEST, &[&["-n", "isthmus-system"][..], &pods].concat())?;
    delete()?;
    scale("--replicas=2")?;
    bed.kubectl(WEST, &["-n", "isthmus-system", "rollout", "status", "deployment/isthmus-controller", "--timeout=2m"])?;
    ensure!(ca()? != before, "the CA is the old one");
    // A replica that had another CA than the Secret's would end; pods that are made now trust the new one.
    eventually("the webhook trusts it", || {
        let (_, said) = bed.check(WEST)?;
        ensure!(said.contains("ok       webhook: a pod that was tried was given its sidecar"), "{said}");
        Ok(())
    })?;
    bed.kubectl(WEST, &["-n", "shop", "rollout", "restart", "deployment"])?;
    bed.kubectl(WEST, &["-n", "shop", "rollout", "status", "deployment", "--timeout=2m"])?;
    install::every_pod_has_its_sidecar(bed, WEST)
}

/// The mesh is removed while pods run: what they hold stays in force, new ones have no sidecar, and nothing of the mesh is left.
pub(crate) fn uninstall(bed: &Bed) -> anyhow::Result<()> {
    bed.kubectl(WEST, &["label", "namespace", "shop", "isthmus.dev/injection-"])?;
    bed.kubectl(WEST, &["-n", "shop", "rollout", "restart", "deployment"])?;
    eventually("no pod has a sidecar any more", || {
        let pods = bed.get(WEST, &["-n", "shop", "pods"])?;
        let with = pods["items"].as_array().context("pods")?.iter().filter(|pod| pod["spec"]["initContainers"].is_array());
        let names: Vec<&Value> = with.map(|pod| &pod["metadata"]["name"]).collect();
        ensure!(names.is_empty(), "{names:?}");
        Ok(())
    })?;
    bed.helm(WEST, &["uninstall", "isthmus", "--namespace", "isthmus-system", "--wait"])?;
    bed.kubectl(WEST, &["delete", "namespace", "isthmus-system"])?;
    let kinds = "clusterrole,clusterrolebinding,mutatingwebhookconfiguration,priorityclass,xmesh";
    let left = bed.get(WEST, &[kinds])?;
    let names = left["items"].as_array().context("a list")?.iter().map(|object| text(&object["metadata"]["name"]));
    let names: Vec<String> = names.collect::<anyhow::Result<_>>()?;
    ensure!(names.iter().all(|name| !name.contains("isthmus")), "{names:?}");
    // What others need afterwards.
    install::mesh(bed, WEST)?;
    bed.kubectl(WEST, &["apply", "-f", &bed.file("manifests/first-steps/app.yaml")])?;
    bed.kubectl(WEST, &["-n", "shop", "rollout", "restart", "deployment"])?;
    install::every_pod_has_its_sidecar(bed, WEST)
}
