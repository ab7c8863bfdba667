//! Connections under TLSRoutes and TCPRoutes: a backend for each connection by weight, its bytes unread but for the server name of a TLS client.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use routing::model::{BackendTarget, FrontendId, RouteKind, Rule};
use routing::{server_name, split};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tracing::debug;

use crate::balance::{self, Circumstances};
use crate::client_hello::{self, ServerName};
use crate::connect::Place;
use crate::endpoint::Outcome;
use crate::passthrough;
use crate::pool::{Peer, Reach};
use crate::reason::Reason;
use crate::snapshot::{LiveBackend, LiveFrontend};
use crate::telemetry::{ConnectionKind, Record};
use crate::tls::{ClientTls, Stream};
use crate::worker::Worker;

/// Endpoints that are tried when connecting fails.
const CONNECTS_MAX: usize = 3;
/// A ClientHello longer than this is none.
const HELLO_BYTES_MAX: usize = 80 * 1024;

/// Serves a connection to its end; one that goes nowhere is reset (GEP-2644: "MUST actively reject").
pub(crate) async fn serve(
    mut client: TcpStream,
    frontend: &FrontendId,
    live: Arc<LiveFrontend>,
    destination: SocketAddr,
    worker: &Rc<Worker>,
) {
    let shared = &worker.shared;
    let _open = shared.telemetry.connection(ConnectionKind::Stream);
    let kind = live.table.frontend().kind;
    let protocol = if kind == RouteKind::Tls { "TLS" } else { "TCP" };
    let mut record = Record::stream(&shared.telemetry, frontend.to_string().into(), &shared.empty, protocol);
    live.touch(shared.began.elapsed().as_secs());
    let opened = open(&mut client, &live, kind, destination, worker, &mut record).await;
    let (mut server, begun, _place) = match opened {
        Ok(opened) => opened,
        Err(reason) => {
            record.connected(Some(reason));
            debug!(%destination, reason = reason.label(), "refused");
            passthrough::reset(&client);
            return;
        }
    };
    drop(live);
    record.connected(None);
    let copied = async {
        server.write_all(&begun).await?;
        match &mut server {
            Stream::Plain(server) => passthrough::copy(&mut client, server).await,
            Stream::Tls(server) => passthrough::copy_both(&mut client, server).await,
        }
    };
    match copied.await {
        Ok(bytes) => record.told().bytes_sent = bytes + begun.len() as u64,
        Err(error) => {
            debug!(%destination, %error, "stream");
            record.broke(Reason::EndpointReset);
            passthrough::reset(&client);
        }
    }
}

/// A connection to an endpoint of the backend that the routes choose, and the bytes that were read to choose it.
async fn open(
    client: &mut TcpStream,
    live: &LiveFrontend,
    kind: RouteKind,
    destination: SocketAddr,
    worker: &Worker,
    record: &mut Record,
) -> Result<(Stream, BytesMut, Place), Reason> {
    let frontend = live.table.frontend();
    let (begun, index) = if kind == RouteKind::Tls {
        let (begun, name) = hello(client, worker).await?;
        let index = server_name::select(frontend, &name).map(|(index, _)| index).ok_or(Reason::NoRoute)?;
        (begun, index)
    } else {
        // Of several TCPRoutes the oldest is obeyed (GEP-2644).
        (BytesMut::new(), 0)
    };
    let rule: &Rule = frontend.routes.get(index).and_then(|route| route.rules.first()).ok_or(Reason::NoRoute)?;
    let labels = live.rules.get(index).and_then(|rules| rules.first()).ok_or(Reason::NoRoute)?;
    record.told().route = Arc::clone(&labels.route);
    record.told().rule = Arc::clone(&labels.rule);
    let chosen = split::pick(&rule.backends, worker.random()).ok_or(Reason::NoBackend)?;
    if rule.backends.get(chosen).is_none_or(|backend| matches!(backend.target, BackendTarget::Invalid(_))) {
        return Err(Reason::InvalidBackend);
    }
    let backend = labels.backends.get(chosen).and_then(Clone::clone).ok_or(Reason::NoEndpoint)?;
    record.told().backend = Arc::clone(&backend.name);
    // The client's own TLS passes through as it is; a policy concerns what comes in plain text.
    let tls = match &backend.tls {
        Some(_) if kind == RouteKind::Tls => None,
        None => None,
        Some(Ok(tls)) => Some(Arc::clone(tls)),
        Some(Err(_)) => return Err(Reason::TlsUnusable),
    };
    let (server, place) = connect(&backend, tls, destination, worker, record).await?;
    Ok((server, begun, place))
}

/// The first bytes of a TLS client, and the server name in them.
async fn hello(client: &mut TcpStream, worker: &Worker) -> Result<(BytesMut, String), Reason> {
    let mut begun = BytesMut::with_capacity(1024);
    let read = async {
        loop {
            match client_hello::server_name(&begun) {
                ServerName::Hello(name) => return Ok(name),
                ServerName::Other => return Err(Reason::NoServerName),
                ServerName::Unclear if begun.len() > HELLO_BYTES_MAX => return Err(Reason::NoServerName),
                ServerName::Unclear => {}
            }
            let length: io::Result<usize> = client.read_buf(&mut begun).await;
            if length.is_ok_and(|length| length > 0) {
                continue;
            }
            return Err(Reason::RequestAborted);
        }
    };
    let name = tokio::time::timeout(worker.shared.limits.head, read).await.map_err(|_| Reason::StreamIdle)??;
    Ok((begun, name.ok_or(Reason::NoServerName)?))
}

/// Connects to an endpoint, to another if that fails.
async fn connect(
    backend: &LiveBackend,
    tls: Option<Arc<ClientTls>>,
    destination: SocketAddr,
    worker: &Worker,
    record: &mut Record,
) -> Result<(Stream, Place), Reason> {
    let mut tried: Vec<SocketAddr> = Vec::new();
    let mut last = Reason::NoEndpoint;
    while tried.len() < CONNECTS_MAX {
        let now = Instant::now();
        let circumstances = Circumstances { is_ipv6: destination.is_ipv6(), tried: &tried, now_ms: worker.ms_of(now), now };
        let Some(endpoint) = balance::pick(backend, &circumstances, || worker.random()) else { break };
        record.told().endpoint = Some(endpoint.address);
        record.told().source_cluster = Arc::clone(&endpoint.cluster);
        let peer = Peer { address: endpoint.address, tls: tls.clone(), reach: Reach::Endpoint };
        match worker.shared.connector.open(&peer, None).await {
            Ok(connected) => {
                worker.shared.telemetry.endpoint_connect("connected");
                worker.note(backend, endpoint, Outcome::Success);
                return Ok(connected);
            }
            Err(error) => {
                debug!(endpoint = %endpoint.address, %error, "connect");
                worker.shared.telemetry.endpoint_connect("failed");
                if error.is_local() {
                    return Err(error.reason());
                }
                worker.note(backend, endpoint, Outcome::Unreachable);
                last = error.reason();
                tried.push(endpoint.address);
            }
        }
    }
    Err(last)
}
