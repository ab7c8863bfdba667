//! `--await-startup`: what a postStart hook calls where nothing else holds the application until the sidecar serves.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::Config;

/// Beyond `--startup-wait-s`: what a sidecar may take until it listens at all.
const LISTENS_MAX: Duration = Duration::from_secs(30);
/// Nobody says when a port of another process begins to listen.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Returns when the sidecar that serves at `--health` has started, as its `/startupz` says.
///
/// # Errors
/// There is no `--health`, or nobody answers there in time.
pub fn wait(config: &Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let address = config.health.context("--await-startup: --health says where the sidecar answers, and is missing")?;
    let address = reached_at(address);
    let within = LISTENS_MAX + Duration::from_secs(config.startup_wait_s);
    let answer = runtime.block_on(async { tokio::time::timeout(within, ask(address)).await });
    answer.with_context(|| format!("--await-startup: no answer from {address} in {} s", within.as_secs()))?
}

/// An address to connect to, where another one is listened on.
fn reached_at(listening: SocketAddr) -> SocketAddr {
    // What listens on all of IPv6 listens on IPv4 too, which every pod's loopback has.
    let ip = if listening.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { listening.ip() };
    SocketAddr::new(ip, listening.port())
}

async fn ask(address: SocketAddr) -> anyhow::Result<()> {
    let stream = loop {
        match TcpStream::connect(address).await {
            Ok(stream) => break stream,
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/startupz").header("host", address.to_string()).body(Empty::<Bytes>::new())?;
    let response = tokio::select! {
        response = sender.send_request(request) => response?,
        ended = connection => anyhow::bail!("--await-startup: {address} closed the connection: {ended:?}"),
    };
    ensure!(response.status() == StatusCode::OK, "--await-startup: {address} answers {}", response.status());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_reached_on_loopback() {
        for (listening, reached) in
            [("[::]:15020", "127.0.0.1:15020"), ("0.0.0.0:15020", "127.0.0.1:15020"), ("[::1]:9", "[::1]:9"), ("10.1.2.3:9", "10.1.2.3:9")]
        {
            assert_eq!(reached_at(listening.parse().expect("an address")).to_string(), reached);
        }
    }
}
