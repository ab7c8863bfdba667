//! Connections under TCPRoutes and TLSRoutes, and which kind of route has a port (digest 3.7, M-21, D-20, D-26).

mod conflicts;
mod tcp;
mod tls;

use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{SocketAddr, TcpStream};

use tests::{Bed, yaml};

use super::bytes::{PATIENCE, inside};

/// What became of a connection that the sidecar ended with a reset.
const RESET: &str = "reset";

/// A route of another kind than HTTPRoute, with the one rule that it may have.
fn route(kind: &str, name: &str, metadata: &str, parent: &str, backends: &[String]) -> String {
    let rules = [format!("{{backendRefs: [{}]}}", backends.join(", "))];
    yaml::route(name, metadata, &[parent.to_owned()], &rules).replace("kind: HTTPRoute", &format!("kind: {kind}"))
}

/// `metadata.creationTimestamp` on a day of January.
fn created(day: u32) -> String {
    format!("creationTimestamp: \"2026-01-{day:02}T00:00:00Z\"")
}

/// Status, reason and message of a condition of a route's first parent.
fn condition(bed: &Bed, (kind, name): (&str, &str), condition: &str) -> (String, String, String) {
    let route = bed.status("west", kind, "default", name).expect("a status");
    let conditions = route["status"]["parents"][0]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|found| found["type"] == condition).unwrap_or_default();
    let text = |field: &str| found[field].as_str().map_or_else(|| format!("none: {route}"), str::to_owned);
    (text("status"), text("reason"), text("message"))
}

/// Whether and why a route is accepted.
fn accepted(bed: &Bed, kind: &str, name: &str) -> (String, String) {
    let (status, reason, _) = condition(bed, (kind, name), "Accepted");
    (status, reason)
}

fn said(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

/// A connection whose server has spoken, and `CLUSTER/NAME` of that server's Deployment.
fn greeted(address: SocketAddr) -> anyhow::Result<(BufReader<TcpStream>, String)> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    anyhow::ensure!(stream.read_line(&mut line)? > 0, "closed without a word");
    let pod = line.trim_end().strip_prefix("hello from ").unwrap_or(&line).to_owned();
    let parts: Vec<&str> = pod.split('/').collect();
    let [cluster, _, name] = parts.as_slice() else { anyhow::bail!("no greeting: {line:?}") };
    let deployment = name.rsplit_once('-').map_or(*name, |(deployment, _)| deployment);
    Ok((stream, format!("{cluster}/{deployment}")))
}

/// Who takes a new connection, or that it is reset.
fn taker(address: SocketAddr) -> anyhow::Result<String> {
    match greeted(address) {
        Ok((_, deployment)) => Ok(deployment),
        // The reset may be there before the client is told that it is connected.
        Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::ConnectionReset) => {
            Ok(RESET.to_owned())
        }
        Err(error) => Err(error),
    }
}

/// The same for a name, from the client.
fn taker_of(bed: &Bed, to: &str) -> String {
    let address = bed.address(&bed.client().expect("a client"), to).expect("an address");
    inside(bed, move || taker(address))
}
