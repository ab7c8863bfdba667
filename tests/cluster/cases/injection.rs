//! Who is injected, who is not, who is refused and how it is said.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::bed::{Bed, EAST, eventually, text};

fn pod(name: &str, namespace: &str, metadata: Value, spec: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {"containers": [{"name": "curl", "image": "curlimages/curl:8.11.1", "command": ["sleep", "infinity"]}]},
    });
    pod["metadata"]["name"] = json!(name);
    pod["metadata"]["namespace"] = json!(namespace);
    for (field, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][field] = value.clone();
    }
    pod
}

/// What the API server would make of a pod: names of its init containers.
fn admitted(bed: &Bed, pod: &Value) -> anyhow::Result<Vec<String>> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), pod.to_string())?;
    let path = file.path().to_str().context("a path")?.to_owned();
    let made = bed.kubectl(EAST, &["create", "--dry-run=server", "-o", "json", "-f", &path])?;
    let made: Value = serde_json::from_str(&made)?;
    let containers = made["spec"]["initContainers"].as_array().into_iter().flatten();
    Ok(containers.filter_map(|container| container["name"].as_str()).map(str::to_owned).collect())
}

/// The pod's word counts more than the namespace's, and the host's network is nobody's to intercept.
pub(crate) fn who_is_left_alone(bed: &Bed) -> anyhow::Result<()> {
    let note = |value: &str| json!({"annotations": {"isthmus.dev/inject": value}});
    for (pod, injected) in [
        (pod("a", "shop", json!({}), json!({})), true),
        (pod("b", "shop", note("false"), json!({})), false),
        (pod("c", "shop", json!({}), json!({"hostNetwork": true})), false),
        (pod("d", "default", json!({}), json!({})), false),
        (pod("e", "default", note("true"), json!({})), true),
        (pod("f", "default", json!({"labels": {"isthmus.dev/inject": "true"}}), json!({})), true),
        (pod("g", "kube-system", note("true"), json!({})), false),
    ] {
        let containers = admitted(bed, &pod)?;
        let expected: &[&str] = if injected { &["isthmus-init", "isthmus-sidecar"] } else { &[] };
        ensure!(containers == expected, "{}: {containers:?}", pod["metadata"]);
    }
    Ok(())
}

/// A mistake is refused with its place and value; a namespace whose Pod Security level forbids NET_ADMIN is warned of.
pub(crate) fn mistakes_are_named(bed: &Bed) -> anyhow::Result<()> {
    let refused = |pod: &Value| match admitted(bed, pod) {
        Ok(containers) => anyhow::bail!("it was admitted: {containers:?}"),
        Err(error) => Ok(format!("{error:#}")),
    };
    let said = refused(&pod("a", "shop", json!({}), json!({"securityContext": {"runAsUser": 2102}})))?;
    ensure!(said.contains("spec.securityContext.runAsUser: 2102 is the uid of the Isthmus sidecar"), "{said}");
    let said = refused(&pod("b", "shop", json!({"annotations": {"isthmus.dev/fail": "maybe"}}), json!({})))?;
    ensure!(said.contains(r#"annotation isthmus.dev/fail: "maybe" is not one of closed, open"#), "{said}");
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": "hardened", "labels": {"isthmus.dev/injection": "enabled", "pod-security.kubernetes.io/enforce": "baseline"},
    }});
    bed.apply(EAST, &namespace.to_string())?;
    // Until its service account is there it is refused for that.
    let warned = eventually("it is said why pods with a sidecar are rejected there", || {
        let said = refused(&pod("c", "hardened", json!({}), json!({})))?;
        ensure!(said.contains("NET_ADMIN") && said.contains("Isthmus sidecar are rejected there"), "{said}");
        Ok(())
    });
    bed.kubectl(EAST, &["delete", "namespace", "hardened", "--wait=false"])?;
    warned
}

/// Runs a pod, asks from it whether its routes are obeyed, and ends it.
fn obeys(bed: &Bed, pod: &Value) -> anyhow::Result<Value> {
    let name = text(&pod["metadata"]["name"])?;
    bed.apply(EAST, &pod.to_string())?;
    let running = format!("pod/{name}");
    bed.kubectl(EAST, &["-n", "shop", "wait", "--for=condition=Ready", &running, "--timeout=60s"])?;
    let url = "http://store.shop.svc.clusterset.local";
    let asked = format!("curl -s {url}/cart; curl -s -o /dev/null -w '%{{http_code}}' {url}/; curl -s http://cart");
    let answers = bed.shell(&name, &asked)?;
    let made = bed.get(EAST, &["-n", "shop", "pod", &name])?;
    bed.kubectl(EAST, &["-n", "shop", "delete", "pod", &name, "--wait=false"])?;
    ensure!(answers.matches("Hostname=cart-").count() == 2 && answers.contains("404"), "{answers}");
    Ok(made)
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(|container| container["name"].as_str()).collect()
}

/// Interception by ranges, where a pod asks for it: the ranges are the cluster's own.
pub(crate) fn by_ranges(bed: &Bed) -> anyhow::Result<()> {
    let note = json!({"annotations": {"isthmus.dev/interception": "ranges"}});
    obeys(bed, &pod("ranges", "shop", note, json!({"terminationGracePeriodSeconds": 1})))?;
    Ok(())
}

/// Segments of what a pod asks it for are large, and its requests are routed as ever.
pub(crate) fn large_segments(bed: &Bed) -> anyhow::Result<()> {
    let note = json!({"annotations": {"isthmus.dev/large-segments": "received"}});
    bed.apply(EAST, &pod("large", "shop", note, json!({"terminationGracePeriodSeconds": 1})).to_string())?;
    bed.kubectl(EAST, &["-n", "shop", "wait", "--for=condition=Ready", "pod/large", "--timeout=60s"])?;
    let shown = bed.kubectl(EAST, &["-n", "shop", "exec", "large", "-c", "isthmus-init", "--", "/isthmus-init", "show"]);
    let answer = bed.shell("large", "curl -s http://store.shop.svc.clusterset.local/cart");
    bed.kubectl(EAST, &["-n", "shop", "delete", "pod", "large", "--wait=false"])?;
    let (shown, answer) = (shown?, answer?);
    ensure!(shown.lines().any(|line| line.starts_with("large ") && line.ends_with(":80 (received)")), "{shown}");
    ensure!(answer.contains("Hostname=cart-"), "{answer}");
    Ok(())
}

/// Without native sidecars: the application's container starts when the sidecar serves, so that its very first request is routed.
pub(crate) fn without_native_sidecars(bed: &Bed) -> anyhow::Result<()> {
    bed.set_value(EAST, "injection.nativeSidecars=never")?;
    let first = "curl -s http://store.shop.svc.clusterset.local/cart > /tmp/first; exec sleep infinity";
    let spec = json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "curl", "image": "curlimages/curl:8.11.1", "command": ["sh", "-c", first]}],
    });
    let plain = pod("plain", "shop", json!({}), spec);
    bed.apply(EAST, &plain.to_string())?;
    bed.kubectl(EAST, &["-n", "shop", "wait", "--for=condition=Ready", "pod/plain", "--timeout=60s"])?;
    let first = bed.kubectl(EAST, &["-n", "shop", "exec", "plain", "-c", "curl", "--", "cat", "/tmp/first"]);
    let made = bed.get(EAST, &["-n", "shop", "pod", "plain"]);
    bed.kubectl(EAST, &["-n", "shop", "delete", "pod", "plain", "--wait=false"])?;
    bed.set_value(EAST, "injection.nativeSidecars=auto")?;
    let (first, made) = (first?, made?);
    ensure!(first.contains("Hostname=cart-"), "the first request: {first}");
    ensure!(names(&made["spec"]["initContainers"]) == ["isthmus-init"], "{}", made["spec"]["initContainers"]);
    ensure!(names(&made["spec"]["containers"]) == ["isthmus-sidecar", "curl"], "{}", made["spec"]["containers"]);
    Ok(())
}

/// `isthmus inject` makes of a file what the webhook makes of a pod.
pub(crate) fn offline(bed: &Bed) -> anyhow::Result<()> {
    let secret = bed.kubectl(
        EAST,
        &["-n", "isthmus-system", "get", "secret", "isthmus-ca", "-o", "go-template={{index .data \"tls.crt\" | base64decode}}"],
    )?;
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let spec = json!({"terminationGracePeriodSeconds": 1});
    let manifest = pod("offline", "shop", json!({}), spec);
    std::fs::write(path("pod.yaml"), manifest.to_string())?;
    std::fs::write(path("ca.pem"), secret)?;
    let injected = bed.inject(&["-f", &path("pod.yaml"), "--controller-ca", &path("ca.pem"), "--cluster", EAST])?;
    let documents = routing::manifest::parse(&injected)?;
    let mut injected = documents.into_iter().next().context("a document")?.value;
    // The webhook leaves it alone.
    injected["metadata"]["annotations"]["isthmus.dev/inject"] = json!("false");
    std::fs::write(path("injected.yaml"), injected.to_string())?;
    let made = |name: &str| -> anyhow::Result<Value> {
        let made = bed.kubectl(EAST, &["create", "--dry-run=server", "-o", "json", "-f", &path(name)])?;
        Ok(serde_json::from_str(&made)?)
    };
    let (by_webhook, by_file) = (made("pod.yaml")?, made("injected.yaml")?);
    for container in [0, 1] {
        let at = |pod: &Value, field: &str| pod["spec"]["initContainers"][container][field].clone();
        for field in ["name", "args", "env", "image", "resources", "securityContext", "startupProbe", "restartPolicy"] {
            let (file, webhook) = (at(&by_file, field), at(&by_webhook, field));
            ensure!(file == webhook, "{field}: {file} and {webhook}");
        }
    }
    obeys(bed, &injected)?;
    Ok(())
}
