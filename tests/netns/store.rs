//! The lab of most tests: the import `store` is dialled in west, and its route is the test's own; and servers that a test writes itself.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use lab::client::Answer;
use lab::lab::Options;
use serde_json::Value;
use tests::{Bed, yaml};

use super::bytes::PATIENCE;

pub(crate) const STORE: &str = "store.default.svc.clusterset.local";

/// `store` in west and a route from it.
pub(crate) fn bed(rules: &[String], more: Vec<(&str, String)>) -> Bed {
    let mut files = vec![
        ("west/client.yaml", yaml::client("default")),
        ("west/store.yaml", yaml::exported("store", "default", 1)),
        ("west/route.yaml", route(rules)),
    ];
    files.extend(more);
    Bed::start(&files, Options::default()).expect("a lab")
}

/// The route of `store`.
pub(crate) fn route(rules: &[String]) -> String {
    yaml::route("store", "", &[yaml::import("store", "")], rules)
}

/// A backendRef with the filters of a list.
pub(crate) fn filtered_backend(name: &str, filters: &[&str]) -> String {
    yaml::import(name, &format!("filters: [{}]", filters.join(", ")))
}

/// A rule with further fields.
pub(crate) fn with(rule: &str, fields: &str) -> String {
    rule.replacen('{', &format!("{{{fields}, "), 1)
}

/// A condition of `store`'s route: its status, reason and message; empty where it has none.
pub(crate) fn condition(bed: &Bed, condition: &str) -> [String; 3] {
    let route = bed.route_status("west", "default", "store").expect("a status");
    let conditions = route["status"]["parents"][0]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|found| found["type"] == condition).unwrap_or_default();
    ["status", "reason", "message"].map(|field| found[field].as_str().unwrap_or_default().to_owned())
}

/// An exported Service without any server in its one pod but the test's own, on port 9000.
pub(crate) fn own(name: &str, app_protocol: &str) -> String {
    let ports = format!("[{{port: 80, targetPort: 9000, appProtocol: {app_protocol}}}]");
    yaml::all(&[yaml::deployment(name, "default", 1, "[]"), yaml::service(name, "default", &ports, ""), yaml::export(name, "default")])
}

/// Listens on port 9000 of a pod, `CLUSTER/NAMESPACE/NAME`.
pub(crate) fn listen(bed: &Bed, pod: &str) -> TcpListener {
    let pod = bed.pod(pod).expect("a pod");
    bed.namespace(&pod).expect("its namespace").run(|| Ok(TcpListener::bind("[::]:9000")?)).expect("a listener")
}

pub(crate) fn accept(listener: &TcpListener) -> BufReader<TcpStream> {
    let (stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    BufReader::new(stream)
}

/// A head, with the empty line after it.
pub(crate) fn head(stream: &mut BufReader<TcpStream>) -> String {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        let length = stream.read_line(&mut text).expect("a line");
        assert!(length > 0, "ended: {text}");
    }
    text
}

/// The access log once it has so many lines.
pub(crate) fn log(bed: &Bed, count: usize) -> Vec<Value> {
    let client = bed.client().expect("a client");
    let end = Instant::now() + PATIENCE;
    loop {
        let lines = bed.access_log(&client).expect("a log");
        if lines.len() >= count {
            return lines;
        }
        assert!(Instant::now() < end, "{lines:?}");
    }
}

/// Waits until the sidecar's metrics have this line.
pub(crate) fn metric(bed: &Bed, line: &str) {
    let client = bed.client().expect("a client");
    let end = Instant::now() + PATIENCE;
    loop {
        let metrics = bed.sidecar_admin(&client, "/metrics").expect("metrics");
        if metrics.lines().any(|found| found == line) {
            return;
        }
        assert!(Instant::now() < end, "no {line}: {metrics}");
    }
}

/// Status and reason of an answer of the sidecar's own.
pub(crate) fn own_answer(answer: &Answer) -> (u16, Option<&str>) {
    assert_eq!(answer.served_by(), None, "{answer:?}");
    (answer.status.as_u16(), answer.reason())
}
