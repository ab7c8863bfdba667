//! The walk of a connection: guard against loops, then HTTP where routes are in force, else pass-through.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use routing::model::RouteKind;
use tokio::net::TcpStream;
use tracing::{debug, warn};

use crate::http;
use crate::listener::Accepted;
use crate::passthrough;
use crate::stream;
use crate::telemetry::ConnectionKind;
use crate::worker::Worker;

/// Serves a connection to its end.
pub(crate) async fn serve(accepted: Accepted, worker: Rc<Worker>) {
    let Accepted { stream, destination, is_direct, peer, permit } = accepted;
    let _permit = permit;
    if is_direct || worker.shared.connector.is_own(peer, destination) {
        warn!(%destination, %peer, "refused: the connection leads back to the sidecar");
        worker.shared.telemetry.connection(ConnectionKind::Refused);
        passthrough::reset(&stream);
        return;
    }
    let Some(frontend) = worker.dialled(destination) else {
        pass_through(stream, destination, peer, &worker).await;
        return;
    };
    if worker.frontend(&frontend).is_none() {
        worker.wait_for(&frontend, destination).await;
    }
    // The kind of the active routes decides what is spoken; nothing is guessed.
    match worker.frontend(&frontend) {
        Some(live) if matches!(live.table.frontend().kind, RouteKind::Tls | RouteKind::Tcp) => {
            // Apart, as is what is larger than the rest of a connection.
            Box::pin(stream::serve(stream, &frontend, live, destination, &worker)).await;
        }
        Some(_) | None => http::serve(stream, frontend, destination, worker).await,
    }
}

async fn pass_through(mut client: TcpStream, destination: SocketAddr, peer: SocketAddr, worker: &Rc<Worker>) {
    let shared = Arc::clone(&worker.shared);
    let _open = shared.telemetry.connection(ConnectionKind::PassThrough);
    let _listed = shared.pass_throughs.add(destination, peer);
    let (mut server, _place) = match shared.connector.connect(destination).await {
        Ok(connected) => connected,
        Err(error) => {
            debug!(%destination, %error, "pass-through");
            // What a refused connection looks like without a mesh, as near as it can be had after the handshake.
            passthrough::reset(&client);
            return;
        }
    };
    let copied = tokio::select! {
        copied = passthrough::copy(&mut client, &mut server) => copied,
        () = outlived(destination, worker) => {
            debug!(%destination, %peer, "ended: routes are in force now");
            Ok(0)
        }
    };
    match copied {
        Ok(bytes) => shared.telemetry.pass_through(bytes),
        Err(error) => debug!(%destination, %error, "pass-through"),
    }
}

/// Ends when routes have come into force on a destination and the connection's share of the drain is over; never, unless asked for.
async fn outlived(destination: SocketAddr, worker: &Worker) {
    let Some(drain) = worker.shared.limits.passthrough_drain else { return std::future::pending().await };
    let mut published = worker.shared.published.clone();
    while worker.dialled(destination).is_none() {
        if published.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
    // Spread over the whole time, so that clients do not all reconnect at once.
    let share = u32::try_from(worker.random() % 1000).unwrap_or_default();
    tokio::time::sleep(drain * share / 1000).await;
}
