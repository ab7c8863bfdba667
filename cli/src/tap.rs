//! `isthmus tap`: requests as they end, from the sidecars themselves.

use std::process::exit;
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::config::{Output, Tap};
use crate::kubernetes::{self, SIDECAR_ADMIN_PORT};
use crate::say::say;

/// Pods that are listened to at once.
const PODS_MAX: usize = 64;
/// Lines on their way to the terminal; beyond it the sidecars count what is missed.
const LINES_MAX: usize = 1024;

/// A line, and where it comes from.
type Line = (String, anyhow::Result<Value>);

/// Prints requests until it is interrupted, all pods are gone, or `--count` have been seen.
pub(crate) fn run(config: &Tap) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let is_whole = runtime.block_on(listen(config))?;
    exit(i32::from(!is_whole));
}

/// Whether every pod could be listened to.
async fn listen(config: &Tap) -> anyhow::Result<bool> {
    let client = kubernetes::client(config.context.as_ref()).await?;
    let pods = pods(&client, config).await?;
    eprintln!("listens to {} pods", pods.len());
    let (sender, mut lines) = mpsc::channel(LINES_MAX);
    for pod in pods {
        // Ends with the pod, or with the runtime.
        tokio::spawn(follow(client.clone(), pod, query(config), sender.clone()));
    }
    drop(sender);
    let (mut seen, mut is_whole) = (0, true);
    while let Some((pod, line)) = lines.recv().await {
        match line {
            Ok(line) => {
                seen += 1;
                match config.output {
                    Output::Text => say(&(text(&pod, &line) + "\n"))?,
                    // A line each: what reads it can do so while it goes on.
                    Output::Json => say(&format!("{}\n", with_pod(&pod, line)))?,
                    Output::Yaml => config.output.say(&with_pod(&pod, line), String::new)?,
                }
            }
            Err(error) => {
                eprintln!("{pod}: {error:#}");
                is_whole = false;
            }
        }
        if config.count.is_some_and(|count| seen >= count) {
            break;
        }
    }
    Ok(is_whole)
}

/// Those that are asked for, with a sidecar.
async fn pods(client: &Client, config: &Tap) -> anyhow::Result<Vec<(String, String)>> {
    let default = || config.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    let named = |pod: &String| {
        pod.split_once('/').map_or_else(|| (default(), pod.clone()), |(namespace, pod)| (namespace.to_owned(), pod.to_owned()))
    };
    let mut pods: Vec<(String, String)> = config.pod.iter().map(named).collect();
    if pods.is_empty() {
        let api: Api<Pod> = if config.all_namespaces { Api::all(client.clone()) } else { Api::namespaced(client.clone(), &default()) };
        let list = api.list(&ListParams::default()).await?;
        let injected = list.items.into_iter().filter(kubernetes::has_running_sidecar);
        pods = injected.map(|pod| (pod.namespace().unwrap_or_default(), pod.name_any())).collect();
        let place = if config.all_namespaces { "any namespace".to_owned() } else { format!("namespace {}", default()) };
        ensure!(!pods.is_empty(), "no running pod has a sidecar in {place}: --namespace, --all-namespaces");
    }
    ensure!(pods.len() <= PODS_MAX, "{} pods, more than {PODS_MAX}: name some of them", pods.len());
    Ok(pods)
}

fn query(config: &Tap) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    let rate = config.rate.to_string();
    let fields = [
        ("route", config.route.as_ref()),
        ("backend", config.backend.as_ref()),
        ("cluster", config.cluster.as_ref()),
        ("method", config.method.as_ref()),
        ("path", config.path.as_ref()),
        ("status", config.status.as_ref()),
        ("reason", config.reason.as_ref()),
        ("rate", Some(&rate)),
    ];
    for (name, value) in fields.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        query.append_pair(name, value);
    }
    query.finish()
}

async fn follow(client: Client, (namespace, pod): (String, String), query: String, lines: mpsc::Sender<Line>) {
    let place = format!("{namespace}/{pod}");
    let api: Api<Pod> = Api::namespaced(client, &namespace);
    let each = |line: &str| {
        let line = serde_json::from_str(line).context("a line that is no JSON");
        let (lines, place) = (lines.clone(), place.clone());
        async move { lines.send((place, line)).await.is_ok() }
    };
    if let Err(error) = kubernetes::get_lines(&api, &pod, SIDECAR_ADMIN_PORT, &format!("/tap?{query}"), each).await {
        // Nobody prints any more: then it does not matter.
        let _ = lines.send((place, Err(error))).await;
    }
}

fn with_pod(pod: &str, mut line: Value) -> Value {
    line["pod"] = pod.into();
    line
}

fn text(pod: &str, line: &Value) -> String {
    let field = |name: &str| line[name].as_str().unwrap_or_default();
    let time = line["time_s"].as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let time = time.and_then(|time| Timestamp::UNIX_EPOCH.checked_add(time).ok());
    let time = time.map(|time| time.strftime("%H:%M:%S%.3f").to_string()).unwrap_or_default();
    let micros = |name: &str| line[name].as_f64().map(|micros| format!("{:.1} ms", micros / 1000.0)).unwrap_or_default();
    let mut parts = vec![time, pod.to_owned(), "->".to_owned()];
    match line["method"].as_str() {
        Some(method) => parts.push(format!("{method} {}{}", field("frontend"), field("path"))),
        None => parts.push(format!("{} {}", field("protocol"), field("frontend"))),
    }
    parts.push(line["status"].as_u64().filter(|status| *status != 0).map_or_else(|| "-".to_owned(), |status| status.to_string()));
    parts.push(micros("total_us"));
    let named = [
        ("reason", field("reason")),
        ("route", field("route")),
        ("rule", field("rule")),
        ("backend", field("backend")),
        ("cluster", field("source_cluster")),
        ("endpoint", field("endpoint")),
    ];
    parts.extend(named.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!("{name}={value}")));
    let counted = [("retries", &line["retries"]), ("missed", &line["missed"])];
    parts.extend(counted.into_iter().filter(|(_, count)| count.as_u64() > Some(0)).map(|(name, count)| format!("{name}={count}")));
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_says_what_was_decided() {
        let line = json!({
            "time_s": 1.5, "frontend": "ServiceImport/shop/store/80", "route": "shop/store", "rule": "0", "backend": "", "source_cluster": "",
            "endpoint": null, "method": "GET", "path": "/cart", "protocol": "HTTP/1.1", "status": 500, "reason": "invalid_backend", "retries": 0,
            "total_us": 1234, "missed": 7,
        });
        let expected = "00:00:01.500 shop/web -> GET ServiceImport/shop/store/80/cart 500 1.2 ms reason=invalid_backend route=shop/store rule=0 missed=7";
        assert_eq!(text("shop/web", &line), expected);
    }
}
