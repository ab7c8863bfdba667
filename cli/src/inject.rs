//! `isthmus inject`: what the webhook does, without a cluster.

use std::collections::BTreeMap;
use std::io::Read as _;

use anyhow::Context;
use controller::inject::{NAMESPACE_LABEL, Outcome, Settings, Traces, inject};
use serde_json::Value;

use crate::config::Inject;
use crate::say::say;

/// Writes the manifests with injected pods to standard output; what is left alone is said on standard error.
pub(crate) fn run(config: &Inject) -> anyhow::Result<()> {
    let text = if config.filename.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        text
    } else {
        std::fs::read_to_string(&config.filename).with_context(|| config.filename.display().to_string())?
    };
    let ca =
        std::fs::read_to_string(&config.controller_ca).with_context(|| format!("--controller-ca {}", config.controller_ca.display()))?;
    let settings = Settings {
        cluster: config.cluster.clone(),
        sidecar_image: config.sidecar_image.clone(),
        init_image: config.init_image.clone(),
        controller: config.controller.clone(),
        ca,
        native: !config.no_native_sidecars,
        ranges: config.vip_range.clone(),
        traces: Traces::of(config.otlp_endpoint.as_ref(), config.trace_sampling),
    };
    for document in routing::manifest::parse(&text).with_context(|| config.filename.display().to_string())? {
        let injected = injected(document.value, &settings).with_context(|| format!("document {}", document.number))?;
        say(&format!("---\n{}", serde_saphyr::to_string(&injected)?))?;
    }
    Ok(())
}

/// Where the pod stands in an object of this kind; none: it has none.
fn place(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some(""),
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => Some("/spec/template"),
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

fn injected(mut object: Value, settings: &Settings) -> anyhow::Result<Value> {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let Some(place) = place(&kind) else { return Ok(object) };
    let pod = object.pointer_mut(place).with_context(|| format!("{kind} {name}: has no pod at {place}"))?;
    // Who calls this asks for it; a pod's own no counts all the same.
    let labels = BTreeMap::from([(NAMESPACE_LABEL.to_owned(), "enabled".to_owned())]);
    match inject(pod, &labels, settings).with_context(|| format!("{kind} {name}"))? {
        Outcome::Injected { pod: after, warnings } => {
            warnings.iter().for_each(|warning| eprintln!("{kind} {name}: {warning}"));
            *pod = after;
        }
        Outcome::Skipped(why) => eprintln!("{kind} {name} stays as it is: {why}"),
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings() -> Settings {
        Settings {
            cluster: String::new(),
            sidecar_image: "s".to_owned(),
            init_image: "i".to_owned(),
            controller: "https://c".to_owned(),
            ca: "PEM".to_owned(),
            native: true,
            ranges: Vec::new(),
            traces: None,
        }
    }

    #[test]
    fn the_pods_of_workloads_are_injected_and_the_rest_stays() {
        let pod = json!({"metadata": {}, "spec": {"containers": [{"name": "web"}]}});
        for (object, at) in [
            (json!({"kind": "Deployment", "spec": {"template": pod}}), "/spec/template/spec/initContainers/0/name"),
            (
                json!({"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": pod}}}}),
                "/spec/jobTemplate/spec/template/spec/initContainers/0/name",
            ),
        ] {
            let after = injected(object, &settings()).expect("injected");
            assert_eq!(after.pointer(at), Some(&json!("isthmus-init")), "{after}");
        }
        let service = json!({"kind": "Service", "spec": {"ports": []}});
        assert_eq!(injected(service.clone(), &settings()).expect("no pod"), service);
    }
}
